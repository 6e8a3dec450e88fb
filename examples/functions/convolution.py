"""A small convolutional network: filters, ReLU, the mean over places, a dense layer, softmax."""

import numpy as np

SLIPS = ("filters flipped", "mean over places forgotten", "ReLU's mask forgotten", "no bias")
_random = np.random.default_rng(2)
IMAGES = _random.normal(size=(6, 7, 7))
LABELS = _random.integers(0, 3, 6)


def draw(random):
    return {
        "conv": {
            "kernel": 0.5 * random.normal(size=(4, 3, 3)),
            "bias": 0.1 * random.normal(size=4),
        },
        "dense": {"kernel": random.normal(size=(4, 3)), "bias": 0.1 * random.normal(size=3)},
    }


def _forward(theta):
    kernel, bias = theta["conv"]["kernel"], theta["conv"]["bias"]
    patches = np.lib.stride_tricks.sliding_window_view(IMAGES.astype(kernel.dtype), (3, 3), (1, 2))
    z = np.einsum("nijuv,kuv->nkij", patches, kernel) + bias[:, None, None]
    pooled = np.maximum(z, 0).mean(axis=(2, 3))
    logits = pooled @ theta["dense"]["kernel"] + theta["dense"]["bias"]
    shifted = logits - logits.max(axis=1, keepdims=True)
    return patches, z, pooled, shifted


def f(theta):
    shifted = _forward(theta)[-1]
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -logs[np.arange(len(LABELS)), LABELS].mean()


def gradient(theta, slip=""):
    patches, z, pooled, shifted = _forward(theta)
    p = np.exp(shifted)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(LABELS)), LABELS] -= 1
    dlogits = p / len(LABELS)
    dpooled = dlogits @ theta["dense"]["kernel"].T
    places = 1 if slip == "mean over places forgotten" else z.shape[2] * z.shape[3]
    dz = np.broadcast_to(dpooled[:, :, None, None] / places, z.shape)
    if slip != "ReLU's mask forgotten":
        dz = dz * (z > 0)
    dkernel = np.einsum("nkij,nijuv->kuv", dz, patches)
    if slip == "filters flipped":
        dkernel = dkernel[:, ::-1, ::-1]
    dbias = np.zeros_like(theta["conv"]["bias"]) if slip == "no bias" else dz.sum(axis=(0, 2, 3))
    return {
        "conv": {"kernel": dkernel, "bias": dbias},
        "dense": {"kernel": pooled.T @ dlogits, "bias": dlogits.sum(axis=0)},
    }
