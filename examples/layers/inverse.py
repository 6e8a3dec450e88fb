"""The inverse of a matrix."""

import numpy as np


def forward(a):
    return np.linalg.inv(a)


def backward(dout, a):
    inverse = np.linalg.inv(a)
    return -inverse.T @ dout @ inverse.T


def inputs(seed):
    return {"a": np.random.default_rng(seed).normal(size=(4, 4)) + 4 * np.eye(4)}


SLIPS = {
    "sign": ("-inverse.T @ dout", "inverse.T @ dout"),
    "not transposed": ("-inverse.T @ dout @ inverse.T", "-inverse @ dout @ inverse"),
    "transposed at the end": ("-inverse.T @ dout @ inverse.T", "-(inverse.T @ dout @ inverse.T).T"),
    "one side": ("-inverse.T @ dout @ inverse.T", "-inverse.T @ dout"),
}
