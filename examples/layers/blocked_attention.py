"""Attention block by block with an online softmax; backward recomputes from log-sums."""

import numpy as np

BLOCK = 2


def online(q, k, v):
    """Return the output and the log of each row's sum, one block of keys after another."""
    top = np.full((*q.shape[:-1], 1), -np.inf, q.dtype)
    total, out = np.zeros_like(top), np.zeros_like(q)
    for start in range(0, k.shape[-2], BLOCK):
        keys, values = k[..., start : start + BLOCK, :], v[..., start : start + BLOCK, :]
        scores = q @ keys.swapaxes(-1, -2)
        new = np.maximum(top, scores.max(axis=-1, keepdims=True))
        weights, shrink = np.exp(scores - new), np.exp(top - new)
        total = total * shrink + weights.sum(axis=-1, keepdims=True)
        out, top = out * shrink + weights @ values, new
    return out / total, top + np.log(total)


def forward(q, k, v):
    return online(q, k, v)[0]


def backward(dout, q, k, v):
    out, log_sum = online(q, k, v)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    delta = (dout * out).sum(axis=-1, keepdims=True)
    for start in range(0, k.shape[-2], BLOCK):
        part = np.s_[..., start : start + BLOCK, :]
        p = np.exp(q @ k[part].swapaxes(-1, -2) - log_sum)
        ds = p * (dout @ v[part].swapaxes(-1, -2) - delta)
        dq += ds @ k[part]
        dk[part] = ds.swapaxes(-1, -2) @ q
        dv[part] = p.swapaxes(-1, -2) @ dout
    return dq, dk, dv


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(2, 6, 3)) for name in "qkv"}


SLIPS = {
    "last block of keys only": ("dq += ds @ k[part]", "dq = ds @ k[part]"),
    "delta forgotten": ("swapaxes(-1, -2) - delta)", "swapaxes(-1, -2))"),
    "delta of the block": (
        "- delta)",
        "- (p * (dout @ v[part].swapaxes(-1, -2))).sum(axis=-1, keepdims=True))",
    ),
    "one tile too far": (
        "dv[part] = p",
        "dv[..., (start + BLOCK) % 6 : (start + BLOCK) % 6 + BLOCK, :] = p",
    ),
    "q doubled": ("return dq, dk, dv", "return 2 * dq, dk, dv"),
}
