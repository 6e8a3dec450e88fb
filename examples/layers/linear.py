"""A linear layer: y = x Wᵀ + b."""

import numpy as np


def forward(x, weight, bias):
    return x @ weight.T + bias


def backward(dout, x, weight, bias):
    dx = dout @ weight
    dweight = dout.T @ x
    dbias = dout.sum(axis=0)
    return dx, dweight, dbias


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(5, 4)),
        "weight": rng.normal(size=(4, 4)),
        "bias": rng.normal(size=4),
    }


SLIPS = {
    "weight transposed": ("dweight = dout.T @ x", "dweight = x.T @ dout"),
    "mean instead of sum": ("dout.sum(axis=0)", "dout.mean(axis=0)"),
    "x through the wrong side": ("dout @ weight", "dout @ weight.T"),
    "last sample only": ("dout.T @ x", "dout[-1:].T @ x[-1:]"),
    "no sum over the batch": ("dout.sum(axis=0)", "dout"),
}
