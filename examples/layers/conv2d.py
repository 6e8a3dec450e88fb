"""A convolution in two dimensions with stride 2, padding 1 and two groups."""

import numpy as np

STRIDE, PADDING, GROUPS = 2, 1, 2


def windows(x, size):
    """Return (m, channels, rows, columns, size, size): each window of the padded input."""
    padded = np.pad(x, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    return views[:, :, ::STRIDE, ::STRIDE]


def forward(x, weight, bias):
    parts = zip(np.split(x, GROUPS, axis=1), np.split(weight, GROUPS), strict=True)
    made = [np.einsum("mcijkl,ockl->moij", windows(a, w.shape[-1]), w) for a, w in parts]
    return np.concatenate(made, axis=1) + bias[:, None, None]


def backward(dout, x, weight, bias):
    size, dxs, dws = weight.shape[-1], [], []
    groups = (np.split(x, GROUPS, 1), np.split(weight, GROUPS), np.split(dout, GROUPS, 1))
    for a, w, d in zip(*groups, strict=True):
        dws.append(np.einsum("mcijkl,moij->ockl", windows(a, size), d))
        m, c, height, width = a.shape
        padded = np.zeros((m, c, height + 2 * PADDING, width + 2 * PADDING), x.dtype)
        for k in range(size):
            for j in range(size):
                rows = slice(k, k + STRIDE * d.shape[2], STRIDE)
                columns = slice(j, j + STRIDE * d.shape[3], STRIDE)
                padded[:, :, rows, columns] += np.einsum("moij,oc->mcij", d, w[:, :, k, j])
        dxs.append(padded[:, :, PADDING:-PADDING, PADDING:-PADDING])
    return np.concatenate(dxs, 1), np.concatenate(dws), dout.sum(axis=(0, 2, 3))


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(2, 4, 5, 5)),
        "weight": rng.normal(size=(4, 2, 3, 3)),
        "bias": rng.normal(size=4),
    }


SLIPS = {
    "kernel flipped": ("w[:, :, k, j])", "w[:, :, -k - 1, -j - 1])"),
    "overwritten": ("columns] += np", "columns] = np"),
    "padding not cut off": ("PADDING:-PADDING, PADDING:-PADDING", ": -2 * PADDING, : -2 * PADDING"),
    "groups swapped": ("np.concatenate(dws)", "np.concatenate(dws[::-1])"),
    "bias over the batch only": ("dout.sum(axis=(0, 2, 3))", "dout[:, :, 0, 0].sum(axis=0)"),
}
