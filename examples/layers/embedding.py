"""An embedding whose tokens repeat."""

import numpy as np


def forward(tokens, table):
    return table[tokens]


def backward(dout, tokens, table):
    dtable = np.zeros_like(table)
    np.add.at(dtable, tokens, dout)
    return None, dtable


def inputs(seed):
    rng = np.random.default_rng(seed)
    return {"tokens": rng.integers(0, 6, size=(3, 4)), "table": rng.normal(size=(6, 3))}


SLIPS = {
    "repeats overwritten": ("np.add.at(dtable, tokens, dout)", "dtable[tokens] = dout"),
    "repeats added once": ("np.add.at(dtable, tokens, dout)", "dtable[tokens] += dout"),
    "shifted by one": (
        "np.add.at(dtable, tokens, dout)",
        "np.add.at(dtable, (tokens + 1) % 6, dout)",
    ),
    "averaged": ("return None, dtable", "return None, dtable / tokens.size"),
    "reversed": ("return None, dtable", "return None, dtable[::-1]"),
}
