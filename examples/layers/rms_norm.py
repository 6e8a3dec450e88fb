"""RMS normalisation over the last axis."""

import numpy as np

EPS = 1e-6


def forward(x, gamma):
    scale = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS)
    return gamma * x * scale


def backward(dout, x, gamma):
    scale = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS)
    d = dout * gamma
    dx = scale * d - x * scale**3 * (d * x).mean(axis=-1, keepdims=True)
    dgamma = (dout * x * scale).sum(axis=0)
    return dx, dgamma


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(5, 6)), "gamma": rng.normal(size=6) + 2}


SLIPS = {
    "scale as a constant": ("scale * d - x", "scale * d - 0 * x"),
    "square instead of cube": ("scale**3", "scale**2"),
    "sum instead of mean": ("(d * x).mean(axis=-1", "(d * x).sum(axis=-1"),
    "dgamma missing": ("(dout * x * scale).sum(axis=0)", "0 * gamma"),
    "dgamma without scale": ("(dout * x * scale).sum(axis=0)", "(dout * x).sum(axis=0)"),
}
