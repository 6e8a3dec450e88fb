"""Logistic regression with a penalty on the weights."""

import numpy as np

SLIPS = ("no mean", "penalty twice", "penalty on the bias", "bias summed twice")
LAMBDA = 0.1
_random = np.random.default_rng(1)
X = _random.normal(size=(40, 6))
Y = (X @ _random.normal(size=6) + _random.normal(size=40) > 0).astype(float)


def draw(random):
    return {"w": random.normal(size=6), "b": random.normal(size=1)}


def f(theta):
    w, b = theta["w"], theta["b"]
    x, y = X.astype(w.dtype), Y.astype(w.dtype)
    z = x @ w + b
    return np.mean(np.logaddexp(0, z) - y * z) + LAMBDA / 2 * np.sum(w * w)


def gradient(theta, slip=""):
    w, b = theta["w"], theta["b"]
    x, y = X.astype(w.dtype), Y.astype(w.dtype)
    dz = (1 / (1 + np.exp(-(x @ w + b))) - y) / (1 if slip == "no mean" else len(y))
    dw = x.T @ dz + LAMBDA * w * (2 if slip == "penalty twice" else 1)
    db = np.sum(dz, keepdims=True) * (2 if slip == "bias summed twice" else 1)
    if slip == "penalty on the bias":
        db = db + LAMBDA * b
    return {"w": dw, "b": db}
