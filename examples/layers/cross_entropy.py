"""Softmax cross-entropy with label smoothing; labels of −1 are ignored."""

import numpy as np

SMOOTHING = 0.1


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def targets(logits, labels):
    """Return smoothed one-hot rows, zero where the label is ignored."""
    classes = logits.shape[-1]
    rows = np.full(logits.shape, SMOOTHING / classes, logits.dtype)
    rows[np.arange(len(labels)), labels] += 1 - SMOOTHING
    return rows * (labels >= 0)[:, None]


def forward(logits, labels):
    used = max((labels >= 0).sum(), 1)
    return -(targets(logits, labels) * log_softmax(logits)).sum() / used


def backward(dout, logits, labels):
    kept = (labels >= 0)[:, None]
    probabilities = np.exp(log_softmax(logits)) * kept
    used = max((labels >= 0).sum(), 1)
    return dout * (probabilities - targets(logits, labels)) / used, None


def inputs(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, size=7)
    labels[2] = -1
    return {"logits": rng.normal(size=(7, 5)), "labels": labels}


SLIPS = {
    "ignored rows kept": ("np.exp(log_softmax(logits)) * kept", "np.exp(log_softmax(logits))"),
    "mean over all rows": ("/ used, None", "/ len(labels), None"),
    "labels unsmoothed": (
        "probabilities - targets(logits, labels)",
        "probabilities - targets(logits, labels).round()",
    ),
    "sign": ("probabilities - targets(logits, labels)", "targets(logits, labels) - probabilities"),
    "dout forgotten": ("return dout * (", "return ("),
}
