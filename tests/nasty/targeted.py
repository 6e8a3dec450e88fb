"""Families drawn like the reproducers of known faults."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from tests.nasty.families import (
    KINK_PLACES,
    SMOOTH,
    Rng,
    activation,
    base,
    chance,
    decades,
    moved_onto_kinks,
    outputs,
    pick,
    residuals,
    scaled,
)
from tests.nasty.network import KINKED, Array, Nasty, named


def output_kink(rng: Rng) -> Nasty:
    """Units of the output activation exactly on its kink: zero rows and no bias."""
    name = pick(rng, KINKED)
    depth = int(rng.integers(1, 3))
    sizes = [int(rng.integers(1, 5)) for _ in range(depth + 1)]
    net = base(rng, sizes=sizes, names=KINKED, output=(name,), m=int(rng.integers(1, 9)))
    net = scaled(net, biases=0.0)
    on = rng.random((net.m, 1)) < pick(rng, (0.5, 1.0))
    place = pick(rng, KINK_PLACES.get(name, (0.0,)))
    last = np.full(sizes[-1], place)
    return replace(net, inputs=np.where(on, 0.0, net.inputs), biases=[*net.biases[:-1], last])


def output_near_kink(rng: Rng) -> Nasty:
    """Units of the output activation within ±ε of its kink, none exactly on it."""
    net = output_kink(rng)
    given: Any = net.biases[-1]
    last = given + decades(rng, -13, -7) * rng.choice((-1.0, 1.0), size=net.sizes[-1])
    return replace(net, biases=[*net.biases[:-1], last])


def raw_features(rng: Rng) -> Nasty:
    """Inputs of 1e3 to 1e5, one column of ones, weights that bring the units back to 1."""
    x = decades(rng, 3, 5)
    m, n, hidden = int(rng.integers(1, 7)), int(rng.integers(1, 4)), int(pick(rng, (1, 5, 30)))
    net = base(rng, sizes=[n + 1, hidden, int(rng.integers(1, 6))], m=m)
    X = np.column_stack([x * (1 + rng.random((m, n))), np.ones(m)])
    W1 = rng.normal(size=(hidden, n + 1)) * pick(rng, (1.0, 1.0 / x))
    W1[int(rng.integers(hidden))] = [-0.5 / x] * n + [0.0]
    names = SMOOTH if chance(rng, 0.7) else (*SMOOTH, "elu", "selu")
    W2 = net.weights[1] * pick(rng, (1.0, 1.0 / x))
    return replace(
        net, weights=[W1, W2], inputs=X, activations=[activation(rng, names), named("identity")]
    )


def equal_samples(rng: Rng) -> Nasty:
    """Hidden activations equal for all samples: W = 0, or W1 = 0 with b ≠ 0, or equal units."""
    sizes = [int(rng.integers(1, 6)) for _ in range(int(rng.integers(3, 5)))]
    net = base(rng, sizes=sizes, m=int(pick(rng, (40, 239, 481, 1000))))
    how = int(rng.integers(3))
    if how == 0:
        return replace(net, weights=[0.0 * W for W in net.weights])
    if how == 1:
        biases = [np.full(n, 0.4) if b is None else b for n, b in zip(sizes[1:], net.biases,
                                                                      strict=True)]  # fmt: skip
        return replace(net, weights=[0.0 * net.weights[0], *net.weights[1:]], biases=biases)
    return replace(net, weights=[np.full_like(W, 0.3) for W in net.weights])


def zero_rows(rng: Rng) -> Nasty:
    """Half of the rows are zero and no bias speaks: hidden units exactly on kinks, or at 0."""
    names = KINKED if chance(rng, 0.6) else SMOOTH
    n = int(pick(rng, (2, 5, 20)))
    net = base(
        rng, sizes=[n, n, int(rng.integers(1, 6))], names=names, m=int(pick(rng, (4, 40, 239)))
    )
    net = scaled(net, biases=0.0)
    on = rng.random((net.m, 1)) < pick(rng, (0.5, 1.0))
    return replace(net, inputs=np.where(on, 0.0, net.inputs))


def large_units(rng: Rng) -> Nasty:
    """Logits from −60 to 60 and far beyond, where exp overflows in float16 and float32."""
    names = ("sigmoid", "silu", "softplus", "tanh", "mish", "gelu", "gelu_tanh")
    net = base(rng, names=names, output=(*names, "identity"))
    weights = list(net.weights)
    weights[0] = weights[0] * pick(rng, (10.0, 60.0, 1e3, 1e7))
    return replace(net, weights=weights)


def curved(rng: Rng) -> Nasty:
    """Strong curvature beside kinks, for large ε and the textbook."""
    net = base(rng, sizes=[int(rng.integers(1, 5)) for _ in range(3)], m=int(rng.integers(1, 6)))
    return scaled(net, weights=decades(rng, -1, 1), inputs=decades(rng, -1, 1.5))


def scaled_kinks(rng: Rng) -> Nasty:
    """Units on kinks, or near them, between layers whose weights differ by many decades."""
    net = base(rng, names=KINKED, output=(*KINKED, "identity") if chance(rng, 0.3) else None)
    weights = [W * (decades(rng, -9, 3) if chance(rng, 0.6) else 1.0) for W in net.weights]
    return moved_onto_kinks(rng, replace(net, weights=weights))


def fitted(rng: Rng) -> Nasty:
    """A last layer that is the least-squares fit: large residuals, and no gradient is left of them.

    What rounding does to all samples alike is all that there is in the last layer's gradient.
    """
    net = base(
        rng,
        sizes=[int(rng.integers(1, 7)) for _ in range(int(rng.integers(3, 5)))],
        m=int(pick(rng, (40, 239, 1000, 3000))),
        losses=("squared_error", "mean_squared_error", "sigmoid_cross_entropy"),
        output=("identity",),
    )
    net = replace(net, masks=None, l2=0.0, inputs=_common(rng, net.inputs))
    if chance(rng, 0.3):  # hidden units far out, many of them with the same value
        net = replace(net, weights=[*(6.0 * W for W in net.weights[:-1]), net.weights[-1]])
    if chance(rng, 0.3):
        net = replace(net, biases=[None] * net.depth)
    hidden = replace(net, weights=net.weights[:-1], biases=net.biases[:-1])
    known = np.column_stack([outputs(hidden), np.ones(net.m)])
    noise = decades(rng, -5, 0) * rng.normal(size=net.targets.shape)
    left = noise - known @ np.linalg.lstsq(known, noise, rcond=None)[0]
    if net.loss[0] == "sigmoid_cross_entropy":
        return replace(net, targets=np.clip(special.expit(outputs(net)) + 0.1 * left, 0.0, 1.0))
    return replace(net, targets=outputs(net) + left)


def _common(rng: Rng, X: Array) -> Array:
    """Return inputs that samples have in common: nearly all of them, or some features, or none."""
    nearly = X[:1] + decades(rng, -4, -1) * X
    constant = np.where(rng.random(X.shape[1]) < 0.5, X[0], X)
    binary = rng.integers(2, size=X.shape) * rng.normal(size=X.shape[1])
    return pick(rng, (X, X, nearly, constant, binary))


TARGETED: dict[str, Callable[[Rng], Nasty]] = {
    "output kink": output_kink,
    "output near kink": output_near_kink,
    "raw features": raw_features,
    "equal samples": equal_samples,
    "zero rows": zero_rows,
    "large units": large_units,
    "tiny residuals": residuals,
    "curved": curved,
    "fitted": fitted,
    "scaled kinks": scaled_kinks,
}
