"""Causal attention with several heads; q, k, v are (heads, steps, width)."""

import numpy as np


def probabilities(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1], dtype=q.dtype)
    allowed = np.tril(np.ones(scores.shape[-2:], bool))
    scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def forward(q, k, v):
    return probabilities(q, k) @ v


def backward(dout, q, k, v):
    p = probabilities(q, k)
    dp = dout @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    ds = ds / np.sqrt(q.shape[-1], dtype=q.dtype)
    dv = p.swapaxes(-1, -2) @ dout
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(2, 5, 4)) for name in "qkv"}


SLIPS = {
    "q and k swapped": (
        "ds @ k, ds.swapaxes(-1, -2) @ q, dv",
        "ds.swapaxes(-1, -2) @ q, ds @ k, dv",
    ),
    "scale forgotten": ("ds = ds / np.sqrt(q.shape[-1], dtype=q.dtype)", "ds = ds"),
    "softmax as a constant": ("(dp - (dp * p).sum(axis=-1, keepdims=True))", "dp"),
    "v without the transpose": ("dv = p.swapaxes(-1, -2) @ dout", "dv = p @ dout"),
    "one head": (
        "dv = p.swapaxes(-1, -2) @ dout",
        "dv = p.swapaxes(-1, -2) @ dout * [[[1]], [[0]]]",
    ),
}
