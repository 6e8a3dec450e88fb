"""Slips in the examples' layers, and what their shape alone tells: written before any was checked.

Each is a text of the source, what stands there instead, and words of the cause; None where the
shape of the error tells nothing, so that no cause may be claimed.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SLIPS", "Slip"]


class Slip(NamedTuple):
    """A slip in a layer, the input whose gradient is judged, and words of its cause."""

    layer: str
    old: str
    new: str
    block: str
    cause: str | None


RETURN_POOLED = "return back.reshape(x.shape)"
RETURN_ATTENTION = "return ds @ k, ds.swapaxes(-1, -2) @ q, dv"
SLIPS = [
    Slip("linear", "dx = dout @ weight", "dx = -dout @ weight", "x", "its sign is wrong"),
    Slip("linear", "dout.T @ x", "dout.T @ x / 2", "weight", "halved"),
    Slip("linear", "dout.T @ x", "dout[:1].T @ x[:1]", "weight", None),
    Slip(
        "linear",
        "dx = dout @ weight",
        "dx = dout @ weight\n    dx[0] = 0",
        "x",
        "index 0 of axis 0 is zero",
    ),
    Slip("linear", "dout.sum(axis=0)", "dout.mean(axis=0)", "bias", "0.2 times"),
    Slip(
        "linear",
        "dout.sum(axis=0)",
        "dout.sum(axis=0, keepdims=True)",
        "bias",
        "only needs another shape",
    ),
    Slip("linear", "return dx, dweight,", "return dx, dweight.T,", "weight", "it is transposed"),
    Slip("linear", "dweight, dbias", "dweight, 0 * dbias", "bias", "it is zero"),
    Slip("conv2d", "np.concatenate(dxs, 1)", "np.concatenate(dxs[::-1], 1)", "x", None),
    Slip(
        "conv2d",
        "np.concatenate(dws)",
        "np.concatenate(dws)[:, :, ::-1, ::-1]",
        "weight",
        "reversed along axes 2 and 3",
    ),
    Slip("conv2d", "sum(axis=(0, 2, 3))", "sum(axis=(2, 3))", "bias", "sum over axis 0 is missing"),
    Slip("conv2d", "sum(axis=(0, 2, 3))", "mean(axis=(0, 2, 3))", "bias", "0.05556 times"),
    Slip(
        "conv2d",
        "return np.concatenate(dxs, 1)",
        "for d in dxs:\n        d[1] = 0\n    return np.concatenate(dxs, 1)",
        "x",
        "entry of axis 0 is there|index 1 of axis 0 is zero",
    ),
    Slip(
        "max_pool",
        RETURN_POOLED,
        "return np.roll(back.reshape(x.shape), 1, axis=-1)",
        "x",
        "shifted by one along axis 3",
    ),
    Slip("max_pool", RETURN_POOLED, "return 0 * back.reshape(x.shape)", "x", "it is zero"),
    Slip("average_pool", "/ (ROWS * COLUMNS)", "/ ROWS / ROWS", "x", "1.5 times"),
    Slip(
        "average_pool",
        "return wide / (ROWS * COLUMNS)",
        "wide = wide / (ROWS * COLUMNS)\n    wide[1, 1] = 0\n    return wide",
        "x",
        "index 1 of axis 0, index 1 of axis 1 is zero",
    ),
    Slip(
        "batch_norm",
        "(dout * normal).sum(axis=0), dout.sum(axis=0)",
        "dout.sum(axis=0), (dout * normal).sum(axis=0)",
        "gamma",
        "swapped",
    ),
    Slip("batch_norm", "dout.sum(axis=0)", "dout", "beta", "sum over axis 0 is missing"),
    Slip("batch_norm", "dx = scale * (", "dx = scale**2 * (", "x", None),
    Slip(
        "layer_norm",
        "(dout * normal).sum(axis=(0, 1))",
        "(dout * normal).sum(axis=0)",
        "gamma",
        "sum over axis 0 is missing",
    ),
    Slip(
        "layer_norm",
        " dout.sum(axis=(0, 1))",
        " -dout.sum(axis=(0, 1))",
        "beta",
        "its sign is wrong",
    ),
    Slip("rms_norm", "dgamma = (", "dgamma = 3 * (", "gamma", "3 times"),
    Slip("rms_norm", "(dout * x * scale).sum(axis=0)", "(dout * x * scale)[-1]", "gamma", None),
    Slip("cross_entropy", "/ used, None", ", None", "logits", "6 times"),
    Slip("gelu", "return dout * (", "return 2 * dout * (", "x", "it is doubled"),
    Slip("gelu", "return dout * (", "return dout**2 * (", "x", None),
    Slip("swiglu", "x.T @ dz, x.T @ du", "x.T @ du, x.T @ dz", "gate", "swapped"),
    Slip("swiglu", "return dx,", "return dx[::-1],", "x", "reversed along axis 0"),
    Slip(
        "embedding",
        "return None, dtable",
        "dtable[5] = 0\n    return None, dtable",
        "table",
        "index 5 of axis 0 is zero",
    ),
    Slip(
        "embedding", "return None, dtable", "return None, dtable + dtable", "table", "it is doubled"
    ),
    Slip(
        "rotary",
        "db * cos - da * sin], axis=-1)",
        "db * cos - da * sin], axis=-1) * np.array([1, 0])[:, None, None]",
        "x",
        "first entry of axis 0|index 1 of axis 0 is zero",
    ),
    Slip(
        "attention", RETURN_ATTENTION, "return ds.swapaxes(-1, -2) @ q, ds @ k, dv", "q", "swapped"
    ),
    Slip(
        "attention",
        RETURN_ATTENTION,
        f"{RETURN_ATTENTION} * np.array([1, -1])[:, None, None]",
        "v",
        "index 1 of axis 0 is wrong: its sign",
    ),
    Slip(
        "attention",
        RETURN_ATTENTION,
        "dq = ds @ k\n    dq[:, 3:] = 0\n    return dq, ds.swapaxes(-1, -2) @ q, dv",
        "q",
        "indices 3 to 4 of axis 1 are zero",
    ),
    Slip("attention", "dv = p.swapaxes(-1, -2) @ dout", "dv = p @ dout", "v", None),
    Slip("lstm_cell", "dz.sum(axis=0)", "dz", "b", "sum over axis 0 is missing"),
    Slip(
        "lstm_cell", "return dz @ wx.T, dz @ wh.T,", "return dz @ wh.T, dz @ wx.T,", "x", "swapped"
    ),
    Slip("lstm_cell", "dc * f, x.T", "dc, x.T", "c", None),
    Slip("gru_cell", "w.T, dh,", "w.T, dh * 1.5,", "h", "1.5 times"),
    Slip("gru_cell", "[dr, dz, dn * r]", "[dz, dr, dn * r]", "u", None),
    Slip("scan", "return dx, da", "dx[:-1] = 0\n    return dx, da", "x", "last entry of axis 0"),
    Slip(
        "scan", "return dx, da", "return np.roll(dx, 1, 0), da", "x", "shifted by one along axis 0"
    ),
    Slip("scan", "(h[t - 1] if t else 0)", "h[t]", "a", None),
    Slip(
        "gather_scatter",
        "return dnodes, dweights,",
        "return dnodes, dweights / 9,",
        "weights",
        "0.1111 times",
    ),
    Slip(
        "inverse",
        "return -inverse.T @ dout @ inverse.T",
        "return -(inverse.T @ dout @ inverse.T).T",
        "a",
        "it is transposed",
    ),
    Slip("inverse", "return -inverse.T", "return -0.25 * inverse.T", "a", "0.25 times"),
    Slip(
        "inverse",
        "return -inverse.T @ dout @ inverse.T",
        "return -inverse @ dout @ inverse",
        "a",
        None,
    ),
    Slip(
        "inverse",
        "return -inverse.T @ dout @ inverse.T",
        "found = -inverse.T @ dout @ inverse.T\n    found[:, 2] *= 2\n    return found",
        "a",
        "index 2 of axis 1 is wrong: doubled|index 2 of axis 1 is doubled",
    ),
    Slip(
        "linear",
        "return dx, dweight,",
        "return dx, np.roll(dweight, -1, 1),",
        "weight",
        "shifted by one along axis 1",
    ),
    Slip(
        "gather_scatter",
        "return dnodes,",
        "return dnodes[:, ::-1],",
        "nodes",
        "reversed along axis 1",
    ),
]
