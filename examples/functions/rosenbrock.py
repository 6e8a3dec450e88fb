"""Rosenbrock's function of eight numbers."""

import numpy as np

SLIPS = ("first component", "forgotten factor", "sign", "last component")


def draw(random):
    return random.normal(size=8)


def f(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def gradient(x, slip=""):
    g = np.zeros_like(x)
    inner = x[1:] - x[:-1] ** 2
    g[1:] += 200.0 * inner * (0.5 if slip == "forgotten factor" else 1.0)
    g[:-1] -= 400.0 * x[:-1] * inner
    g[:-1] += 2.0 * (1.0 - x[:-1]) * (1.0 if slip == "sign" else -1.0)
    if slip == "first component":
        g[0] = -400.0 * x[0] * inner[0]
    if slip == "last component":
        g[-1] = 0.0
    return g
