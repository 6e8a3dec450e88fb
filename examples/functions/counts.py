"""Poisson regression of counts that lie in a file."""

from pathlib import Path

import numpy as np

SLIPS = ("no offset", "link forgotten", "one column shifted", "sum for mean")
DATA = np.loadtxt(Path(__file__).with_name("counts.csv"), delimiter=",", skiprows=1)


def draw(random):
    return 0.3 * random.normal(size=DATA.shape[1] - 1)


def _rates(theta):
    x = DATA[:, :-1].astype(theta.dtype)
    x[:, 0] = 1
    exposure = DATA[:, 0].astype(theta.dtype)
    return x, exposure, np.exp(x @ theta)


def f(theta):
    x, exposure, rates = _rates(theta)
    return np.mean(exposure * rates - DATA[:, -1].astype(theta.dtype) * (x @ theta))


def gradient(theta, slip=""):
    x, exposure, rates = _rates(theta)
    if slip == "no offset":
        exposure = np.ones_like(exposure)
    if slip == "link forgotten":
        rates = x @ theta
    if slip == "one column shifted":
        x = x.copy()
        x[:, 2] = np.roll(x[:, 2], 1)
    g = x.T @ (exposure * rates - DATA[:, -1].astype(theta.dtype))
    return g if slip == "sum for mean" else g / len(DATA)
