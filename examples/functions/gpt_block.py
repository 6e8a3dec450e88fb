"""A transformer block with causal attention; the embedding is the output layer as well."""

import numpy as np

SLIPS = ("embedding not tied", "no scale", "softmax", "GELU", "first skip", "layer norm's mean")
WORDS, WIDTH, HEADS, LENGTH = 11, 8, 2, 6
_random = np.random.default_rng(4)
TOKENS = _random.integers(0, WORDS, LENGTH + 1)
C = np.sqrt(2 / np.pi)


def draw(random):
    def matrix(*shape):
        return random.normal(size=shape) / np.sqrt(shape[0])

    return {
        "embedding": random.normal(size=(WORDS, WIDTH)),
        "attention": {"qkv": matrix(WIDTH, 3 * WIDTH), "out": matrix(WIDTH, WIDTH)},
        "norms": [1 + 0.1 * random.normal(size=WIDTH) for _ in range(2)],
        "mlp": {"up": matrix(WIDTH, 4 * WIDTH), "down": matrix(4 * WIDTH, WIDTH)},
    }


def _norm(x, gain):
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred * scale * gain, (centred * scale, scale, gain)


def _norm_back(dy, cache, slip):
    hat, scale, gain = cache
    dhat = dy * gain
    mean = 0 if slip == "layer norm's mean" else dhat.mean(axis=-1, keepdims=True)
    dx = scale * (dhat - mean - hat * (dhat * hat).mean(axis=-1, keepdims=True))
    return dx, (dy * hat).sum(axis=0)


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _heads(x):
    return x.reshape(LENGTH, HEADS, -1).transpose(1, 0, 2)


def _forward(theta):
    x = theta["embedding"][TOKENS[:-1]]
    n1, cache1 = _norm(x, theta["norms"][0])
    q, k, v = (_heads(part) for part in np.split(n1 @ theta["attention"]["qkv"], 3, axis=1))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.dtype.type(WIDTH // HEADS))
    mask = np.triu(np.full((LENGTH, LENGTH), -1e9, scores.dtype), 1)
    p = _softmax(scores + mask)
    mixed = (p @ v).transpose(1, 0, 2).reshape(LENGTH, WIDTH)
    y = x + mixed @ theta["attention"]["out"]
    n2, cache2 = _norm(y, theta["norms"][1])
    up = n2 @ theta["mlp"]["up"]
    t = np.tanh(up.dtype.type(C) * (up + up.dtype.type(0.044715) * up**3))
    z = y + (up * (1 + t) / 2) @ theta["mlp"]["down"]
    logits = z @ theta["embedding"].T
    return n1, cache1, (q, k, v, p, mixed), n2, cache2, (up, t), z, logits


def f(theta):
    logits = _forward(theta)[-1]
    return -np.mean(np.log(_softmax(logits)[np.arange(LENGTH), TOKENS[1:]]))


def gradient(theta, slip=""):
    n1, cache1, (q, k, v, p, mixed), n2, cache2, (up, t), z, logits = _forward(theta)
    dlogits = _softmax(logits)
    dlogits[np.arange(LENGTH), TOKENS[1:]] -= 1
    dlogits /= LENGTH
    dE = np.zeros_like(theta["embedding"]) if slip == "embedding not tied" else dlogits.T @ z
    dz = dlogits @ theta["embedding"]
    act = up * (1 + t) / 2
    c = up.dtype.type(C)
    slope = (1 + t) / 2 + up / 2 * (1 - t**2) * c * (1 + up.dtype.type(3 * 0.044715) * up**2)
    if slip == "GELU":
        slope = (1 + t) / 2
    dup = (dz @ theta["mlp"]["down"].T) * slope
    dy, dgain2 = _norm_back(dup @ theta["mlp"]["up"].T, cache2, slip)
    dy = dy + dz
    dmixed = _heads(dy @ theta["attention"]["out"].T)
    dp = dmixed @ v.transpose(0, 2, 1)
    inner = 0 if slip == "softmax" else (dp * p).sum(axis=-1, keepdims=True)
    dscores = p * (dp - inner)
    if slip != "no scale":
        dscores = dscores / np.sqrt(q.dtype.type(WIDTH // HEADS))
    parts = (dscores @ k, dscores.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ dmixed)
    dqkv = np.concatenate([d.transpose(1, 0, 2).reshape(LENGTH, WIDTH) for d in parts], axis=1)
    dx, dgain1 = _norm_back(dqkv @ theta["attention"]["qkv"].T, cache1, slip)
    if slip != "first skip":
        dx = dx + dy
    np.add.at(dE, TOKENS[:-1], dx)
    return {
        "embedding": dE,
        "attention": {"qkv": n1.T @ dqkv, "out": mixed.T @ dy},
        "norms": [dgain1, dgain2],
        "mlp": {"up": n2.T @ dup, "down": act.T @ dz},
    }
