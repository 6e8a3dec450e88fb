"""An LSTM cell: gates i, f, g, o from x and h; returns the new h and c."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gates(x, h, wx, wh, b):
    i, f, g, o = np.split(x @ wx + h @ wh + b, 4, axis=-1)
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


def forward(x, h, c, wx, wh, b):
    i, f, g, o = gates(x, h, wx, wh, b)
    new = f * c + i * g
    return o * np.tanh(new), new


def backward(dout, x, h, c, wx, wh, b):  # noqa: PLR0913, PLR0917
    dh, dc = dout
    i, f, g, o = gates(x, h, wx, wh, b)
    t = np.tanh(f * c + i * g)
    dc = dc + dh * o * (1 - t**2)
    di, df, dg, do = dc * g, dc * c, dc * i, dh * t
    parts = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)]
    dz = np.concatenate(parts, axis=-1)
    return dz @ wx.T, dz @ wh.T, dc * f, x.T @ dz, h.T @ dz, dz.sum(axis=0)


def inputs(seed):
    rng = np.random.default_rng(seed)
    shapes = {"x": (3, 2), "h": (3, 2), "c": (3, 2), "wx": (2, 8), "wh": (2, 8), "b": (8,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


SLIPS = {
    "dc replaced": ("dc = dc + dh", "dc = dh"),
    "gates in another order": (
        "di * i * (1 - i), df * f * (1 - f),",
        "df * f * (1 - f), di * i * (1 - i),",
    ),
    "tanh as a sigmoid": ("dg * (1 - g**2)", "dg * g * (1 - g)"),
    "c not forgotten": ("dc * f, x.T", "dc, x.T"),
    "h from x": ("h.T @ dz", "x.T @ dz"),
}
