"""Batch normalisation in training, over the samples."""

import numpy as np

EPS = 1e-5


def statistics(x):
    mean = x.mean(axis=0)
    return mean, 1 / np.sqrt(x.var(axis=0) + EPS)


def forward(x, gamma, beta):
    mean, scale = statistics(x)
    return gamma * (x - mean) * scale + beta


def backward(dout, x, gamma, beta):
    mean, scale = statistics(x)
    normal = (x - mean) * scale
    dnormal = dout * gamma
    centred = dnormal - dnormal.mean(axis=0)
    dx = scale * (centred - normal * (dnormal * normal).mean(axis=0))
    return dx, (dout * normal).sum(axis=0), dout.sum(axis=0)


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(6, 4)),
        "gamma": rng.normal(size=4) + 2,
        "beta": rng.normal(size=4),
    }


SLIPS = {
    "mean as a constant": ("dnormal - dnormal.mean(axis=0)", "dnormal"),
    "variance as a constant": ("(centred - normal * (dnormal * normal).mean(axis=0))", "centred"),
    "gamma forgotten": ("dnormal = dout * gamma", "dnormal = dout"),
    "unbiased variance": (
        "(dnormal * normal).mean(axis=0)",
        "(dnormal * normal).sum(axis=0) / (len(x) - 1)",
    ),
    "gamma from x": ("(dout * normal).sum", "(dout * x).sum"),
}
