"""Functions with gradients written by hand, and the slips that people make in them.

Each module has `draw(random)`, a θ; `f(theta)`, J; `gradient(theta, slip="")`; and `SLIPS`.
"""

NAMES = (
    "rosenbrock",
    "logistic",
    "convolution",
    "lstm",
    "gpt_block",
    "batch_norm",
    "heat",
    "kalman",
    "softmax",
    "counts",
)
