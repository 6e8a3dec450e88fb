"""Softmax regression, as it is written for float32."""

import numpy as np

SLIPS = ("one-hot forgotten", "no mean", "transposed", "bias of one class")
_random = np.random.default_rng(7)
X = _random.normal(size=(64, 10))
LABELS = _random.integers(0, 4, 64)


def draw(random):
    return [0.5 * random.normal(size=(10, 4)), 0.1 * random.normal(size=4)]


def _logs(theta):
    z = X.astype(theta[0].dtype) @ theta[0] + theta[1]
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def f(theta):
    return -_logs(theta)[np.arange(64), LABELS].mean()


def gradient(theta, slip=""):
    dz = np.exp(_logs(theta))
    if slip != "one-hot forgotten":
        dz[np.arange(64), LABELS] -= 1
    dz /= 1 if slip == "no mean" else 64
    dW = X.astype(dz.dtype).T @ dz
    if slip == "transposed":
        dW = dW.T.reshape(dW.shape)
    db = dz.sum(axis=0)
    if slip == "bias of one class":
        db[0] *= 1.3
    return [dW, db]
