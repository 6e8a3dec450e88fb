"""The Cholesky factor of a symmetric matrix, of which the lower half counts."""

import numpy as np


def forward(a):
    lower = np.tril(a)
    return np.linalg.cholesky(lower + np.tril(a, -1).T)


def backward(dout, a):
    factor = forward(a)
    middle = np.tril(factor.T @ np.tril(dout))
    middle[np.diag_indices(len(a))] *= 0.5
    inverse = np.linalg.inv(factor)
    full = inverse.T @ middle @ inverse
    both = full + full.T
    both[np.diag_indices(len(a))] *= 0.5
    return np.tril(both)


def inputs(seed):
    root = np.random.default_rng(seed).normal(size=(4, 4))
    return {"a": root @ root.T + 2 * np.eye(4)}


SLIPS = {
    "diagonal not halved": ("middle[np.diag_indices(len(a))] *= 0.5", "middle = middle * 1.0"),
    "upper half kept": ("return np.tril(both)", "return both"),
    "halves not added": ("both = full + full.T", "both = 2 * full"),
    "factor for its transpose": ("factor.T @ np.tril(dout)", "factor @ np.tril(dout)"),
}
