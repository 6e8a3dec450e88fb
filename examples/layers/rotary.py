"""Rotary position embedding: halves of the last axis are rotated by the position."""

import numpy as np


def angles(x):
    half = x.shape[-1] // 2
    frequencies = 100.0 ** (-np.arange(half) / half)
    return (np.arange(x.shape[-2])[:, None] * frequencies).astype(x.dtype)


def forward(x):
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles(x)), np.sin(angles(x))
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def backward(dout, x):
    da, db = np.split(dout, 2, axis=-1)
    cos, sin = np.cos(angles(x)), np.sin(angles(x))
    return np.concatenate([da * cos + db * sin, db * cos - da * sin], axis=-1)


def inputs(seed):
    return {"x": np.random.default_rng(seed).normal(size=(2, 5, 6))}


SLIPS = {
    "rotated forwards": (
        "da * cos + db * sin, db * cos - da * sin",
        "da * cos - db * sin, db * cos + da * sin",
    ),
    "halves swapped": (
        "da * cos + db * sin, db * cos - da * sin",
        "db * cos - da * sin, da * cos + db * sin",
    ),
    "cosine only": ("da * cos + db * sin, db * cos - da * sin", "da * cos, db * cos"),
    "interleaved": (
        "da, db = np.split(dout, 2, axis=-1)",
        "da, db = dout[..., ::2], dout[..., 1::2]",
    ),
}
