"""Layer normalisation over the last axis."""

import numpy as np

EPS = 1e-5


def forward(x, gamma, beta):
    mean = x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + EPS)
    return gamma * (x - mean) * scale + beta


def backward(dout, x, gamma, beta):
    mean = x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + EPS)
    normal = (x - mean) * scale
    d = dout * gamma
    along = (d * normal).mean(axis=-1, keepdims=True)
    dx = scale * (d - d.mean(axis=-1, keepdims=True) - normal * along)
    return dx, (dout * normal).sum(axis=(0, 1)), dout.sum(axis=(0, 1))


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(2, 4, 6)),
        "gamma": rng.normal(size=6) + 2,
        "beta": rng.normal(size=6),
    }


SLIPS = {
    "no mean": ("d - d.mean(axis=-1, keepdims=True) - normal", "d - normal"),
    "gamma too late": ("d = dout * gamma", "d = dout"),
    "over the wrong axis": (
        "along = (d * normal).mean(axis=-1,",
        "along = (d * normal).mean(axis=1,",
    ),
    "first sequence only": ("(dout * normal).sum(axis=(0, 1))", "(dout * normal)[0].sum(axis=0)"),
    "sign of the mean": (
        "d - d.mean(axis=-1, keepdims=True) - normal",
        "d + d.mean(axis=-1, keepdims=True) - normal",
    ),
}
