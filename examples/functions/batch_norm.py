"""A dense layer, batch norm, ReLU and a dense layer; the first bias has no effect at all."""

import numpy as np

SLIPS = ("statistics constant", "variance constant", "gain and shift swapped", "no gain")
_random = np.random.default_rng(5)
X = _random.normal(size=(16, 5))
T = _random.normal(size=(16, 2))


def draw(random):
    return {
        "W1": random.normal(size=(5, 6)),
        "b1": random.normal(size=6),
        "gain": 1 + 0.2 * random.normal(size=6),
        "shift": 0.2 * random.normal(size=6),
        "W2": 0.5 * random.normal(size=(6, 2)),
    }


def _forward(theta):
    z = X.astype(theta["W1"].dtype) @ theta["W1"] + theta["b1"]
    centred = z - z.mean(axis=0)
    scale = 1 / np.sqrt((centred**2).mean(axis=0) + 1e-5)
    hat = centred * scale
    n = hat * theta["gain"] + theta["shift"]
    return scale, hat, n, np.maximum(n, 0)


def f(theta):
    a = _forward(theta)[-1]
    return np.mean((a @ theta["W2"] - T.astype(a.dtype)) ** 2)


def gradient(theta, slip=""):
    scale, hat, n, a = _forward(theta)
    dout = 2 * (a @ theta["W2"] - T.astype(a.dtype)) / T.size
    dn = (dout @ theta["W2"].T) * (n > 0)
    dhat = dn * (1 if slip == "no gain" else theta["gain"])
    mean = 0 if slip == "statistics constant" else dhat.mean(axis=0)
    part = 0 if slip.endswith("constant") else hat * (dhat * hat).mean(axis=0)
    dz = scale * (dhat - mean - part)
    dgain, dshift = (dn * hat).sum(axis=0), dn.sum(axis=0)
    if slip == "gain and shift swapped":
        dgain, dshift = dshift, dgain
    return {
        "W1": X.astype(a.dtype).T @ dz,
        "b1": dz.sum(axis=0),
        "gain": dgain,
        "shift": dshift,
        "W2": a.T @ dout,
    }
