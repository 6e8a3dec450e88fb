"""A linear recurrence along the steps: h[t] = a[t]·h[t−1] + x[t]."""

import numpy as np


def forward(x, a):
    h, last = np.zeros_like(x), np.zeros_like(x[0])
    for t in range(len(x)):
        last = a[t] * last + x[t]
        h[t] = last
    return h


def backward(dout, x, a):
    h = forward(x, a)
    dx, da, carried = np.zeros_like(x), np.zeros_like(a), np.zeros_like(x[0])
    for t in reversed(range(len(x))):
        carried = dout[t] + carried
        dx[t] = carried
        da[t] = carried * (h[t - 1] if t else 0)
        carried = carried * a[t]
    return dx, da


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(6, 3)), "a": rng.uniform(0.5, 1.5, size=(6, 3))}


SLIPS = {
    "nothing carried": ("carried = dout[t] + carried", "carried = dout[t]"),
    "forwards": ("reversed(range(len(x)))", "range(len(x))"),
    "h of the same step": ("h[t - 1] if t else 0", "h[t]"),
    "decay of the next step": ("carried * a[t]", "carried * a[t - 1]"),
    "last step only": ("return dx, da", "return dx * (np.arange(6) == 5)[:, None], da"),
}
