"""An LSTM over five steps; the loss is of its last state."""

import numpy as np

SLIPS = ("forget gate's path", "bias of the last step only", "tanh of the cell", "no recurrence")
STEPS, INPUTS, UNITS = 5, 3, 4
_random = np.random.default_rng(3)
X = _random.normal(size=(STEPS, 8, INPUTS))
TARGET = _random.normal(size=(8, UNITS))


def draw(random):
    return {
        "Wx": 0.6 * random.normal(size=(INPUTS, 4 * UNITS)),
        "Wh": 0.6 * random.normal(size=(UNITS, 4 * UNITS)),
        "b": 0.3 * random.normal(size=4 * UNITS),
    }


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _forward(theta):
    dtype = theta["Wx"].dtype
    h = c = np.zeros((8, UNITS), dtype)
    tape = []
    for x in X.astype(dtype):
        z = x @ theta["Wx"] + h @ theta["Wh"] + theta["b"]
        i, f_, o = (_sigmoid(z[:, k * UNITS : (k + 1) * UNITS]) for k in range(3))
        g = np.tanh(z[:, 3 * UNITS :])
        new = f_ * c + i * g
        tape.append((x, h, c, i, f_, o, g, new))
        c, h = new, o * np.tanh(new)
    return h, tape


def f(theta):
    h = _forward(theta)[0]
    return np.mean((h - TARGET.astype(h.dtype)) ** 2)


def gradient(theta, slip=""):
    h, tape = _forward(theta)
    dh = 2 * (h - TARGET.astype(h.dtype)) / h.size
    dc = np.zeros_like(dh)
    grads = {name: np.zeros_like(value) for name, value in theta.items()}
    for step, (x, before, cell, i, f_, o, g, new) in enumerate(reversed(tape)):
        tanh = np.tanh(new)
        dc = dc + dh * o * (1 if slip == "tanh of the cell" else 1 - tanh**2)
        dz = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * cell * f_ * (1 - f_),
                dh * tanh * o * (1 - o),
                dc * i * (1 - g**2),
            ],
            axis=1,
        )
        grads["Wx"] += x.T @ dz
        grads["Wh"] += before.T @ dz
        if slip != "bias of the last step only" or step == 0:
            grads["b"] += dz.sum(axis=0)
        dh = np.zeros_like(dh) if slip == "no recurrence" else dz @ theta["Wh"].T
        dc = dc if slip == "forget gate's path" else dc * f_
    return grads
