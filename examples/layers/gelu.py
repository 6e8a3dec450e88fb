"""GELU in its tanh form."""

import numpy as np

C, A = np.sqrt(2 / np.pi), 0.044715


def forward(x):
    return 0.5 * x * (1 + np.tanh(C * (x + A * x**3)))


def backward(dout, x):
    t = np.tanh(C * (x + A * x**3))
    inner = C * (1 + 3 * A * x**2)
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner)


def inputs(seed):
    return {"x": 2 * np.random.default_rng(seed).normal(size=(5, 6))}


SLIPS = {
    "inner derivative forgotten": ("(1 - t**2) * inner", "(1 - t**2)"),
    "cube not differentiated": ("1 + 3 * A * x**2", "1 + A * x**2"),
    "half forgotten": ("0.5 * x * (1 - t**2)", "x * (1 - t**2)"),
    "a digit of the constant": ("3 * A * x**2", "3 * 0.04 * x**2"),
    "product rule": ("0.5 * (1 + t) + 0.5", "0.5"),
}
