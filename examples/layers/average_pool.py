"""Average pooling over windows of 2 × 3."""

import numpy as np

ROWS, COLUMNS = 2, 3


def forward(x):
    m, c, height, width = x.shape
    cells = x.reshape(m, c, height // ROWS, ROWS, width // COLUMNS, COLUMNS)
    return cells.mean(axis=(3, 5))


def backward(dout, x):
    wide = np.repeat(np.repeat(dout, ROWS, axis=2), COLUMNS, axis=3)
    return wide / (ROWS * COLUMNS)


def inputs(seed):
    return {"x": np.random.default_rng(seed).normal(size=(2, 2, 4, 6))}


SLIPS = {
    "not divided": ("wide / (ROWS * COLUMNS)", "wide"),
    "divided by one side": ("wide / (ROWS * COLUMNS)", "wide / ROWS"),
    "tiled instead of repeated": (
        "np.repeat(np.repeat(dout, ROWS, axis=2)",
        "np.repeat(np.tile(dout, (1, 1, ROWS, 1))",
    ),
    "integer division": ("wide / (ROWS * COLUMNS)", "wide // (ROWS * COLUMNS)"),
}
