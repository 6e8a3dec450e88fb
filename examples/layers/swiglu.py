"""SwiGLU: silu(x W) · (x V)."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(x, gate, up):
    z = x @ gate
    return z * sigmoid(z) * (x @ up)


def backward(dout, x, gate, up):
    z, u = x @ gate, x @ up
    s = sigmoid(z)
    dz = dout * u * s * (1 + z * (1 - s))
    du = dout * z * s
    dx = dz @ gate.T + du @ up.T
    return dx, x.T @ dz, x.T @ du


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(4, 3)),
        "gate": rng.normal(size=(3, 5)),
        "up": rng.normal(size=(3, 5)),
    }


SLIPS = {
    "df where de belongs": ("x.T @ dz, x.T @ du", "x.T @ du, x.T @ dz"),
    "sigmoid's slope": ("s * (1 + z * (1 - s))", "s * (1 - s)"),
    "one branch only": ("dz @ gate.T + du @ up.T", "dz @ gate.T"),
    "up not activated": ("du = dout * z * s", "du = dout * z"),
    "dz doubled": ("dz = dout * u", "dz = 2 * dout * u"),
}
