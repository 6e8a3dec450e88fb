"""A GRU cell: reset and update gates, and a candidate."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def parts(x, h, w, u):
    (wr, wz, wn), (ur, uz, un) = np.split(w, 3, axis=1), np.split(u, 3, axis=1)
    r, z = sigmoid(x @ wr + h @ ur), sigmoid(x @ wz + h @ uz)
    return r, z, np.tanh(x @ wn + r * (h @ un)), h @ un


def forward(x, h, w, u):
    _, z, n, _ = parts(x, h, w, u)
    return (1 - z) * n + z * h


def backward(dout, x, h, w, u):
    r, z, n, hn = parts(x, h, w, u)
    dn = dout * (1 - z) * (1 - n**2)
    dz = dout * (h - n) * z * (1 - z)
    dr = dn * hn * r * (1 - r)
    dx_gates = np.concatenate([dr, dz, dn], axis=-1)
    dh_gates = np.concatenate([dr, dz, dn * r], axis=-1)
    dh = dout * z + dh_gates @ u.T
    return dx_gates @ w.T, dh, x.T @ dx_gates, h.T @ dh_gates


def inputs(seed):
    rng = np.random.default_rng(seed)
    shapes = {"x": (3, 4), "h": (3, 2), "w": (4, 6), "u": (2, 6)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


SLIPS = {
    "reset forgotten": ("dz, dn * r], axis", "dz, dn], axis"),
    "direct path forgotten": ("dh = dout * z + dh_gates", "dh = dh_gates"),
    "update the wrong way": ("dout * (h - n)", "dout * (n - h)"),
    "candidate's slope": ("(1 - z) * (1 - n**2)", "(1 - z) * (1 - n)"),
}
