"""A generator of nasty right networks: repeated, saturated, tiny, large and dead values."""

import itertools
from typing import Any

import numpy as np

from tests.rounding.plain import FORMULAS, LOSSES, PRODUCTS, SOFTMAXES, TOTALS, Problem, Style

Generator = np.random.Generator

# Upper limits of m · Σ n_{l-1} n_l, by how a product is made.
WORK = {"library": 3e7, "loop": 3e6, "pairwise": 1e6, "einsum": 1e7}


def _pick(rng: Generator, options: Any) -> Any:
    options = list(options)
    return options[int(rng.integers(len(options)))]


def _weights(rng: Generator, n: int, k: int) -> Any:
    kind = _pick(rng, ("normal",) * 3 + WEIGHTS)
    if kind == "zero":
        return np.zeros((k, n))
    if kind == "constant":
        return np.full((k, n), rng.normal() / n)
    W = rng.normal(0.0, 1.2 / np.sqrt(n), (k, n))
    if kind == "equal rows":
        W[:] = W[rng.integers(k, size=k) // 2]
    if kind == "zero rows":
        W[rng.random(k) < 0.5] = 0.0
    if kind == "zero columns":
        W[:, rng.random(n) < 0.5] = 0.0
    if kind == "tiny":
        W *= 10.0 ** rng.uniform(-8, -1)
    if kind == "large":
        W *= 10.0 ** rng.uniform(0, 2)
    return W


WEIGHTS = ("zero", "constant", "equal rows", "zero rows", "zero columns", "tiny", "large")


def _biases(rng: Generator, k: int) -> Any:
    kind = _pick(rng, ("normal", "zero", "constant", "saturating", "dead"))
    b = rng.normal(0.0, 0.5, k)
    if kind == "zero":
        b[:] = 0.0
    if kind == "constant":
        b[:] = b[0]
    if kind == "saturating":
        b *= 40.0
    if kind == "dead":
        b[:] = -np.abs(b) - 5.0
    return b


INPUTS = ("normal", "uniform", "copies", "some copies", "zero", "equal", "one-hot", "pixels",
          "sparse", "integers", "large", "tiny", "zero rows")  # fmt: skip


def _inputs(rng: Generator, m: int, n: int) -> Any:
    kind = _pick(rng, ("normal", "uniform", *INPUTS))
    X: Any = rng.random((m, n)) if kind in ("uniform", "sparse") else rng.normal(size=(m, n))
    if kind == "copies":
        rows = rng.integers(min(m, 5), size=m)
        X = X[np.sort(rows) if rng.random() < 0.3 else rows]
    if kind == "some copies":
        X[rng.random(m) < 0.5] = X[0]
    if kind == "zero":
        X[:] = 0.0
    if kind == "equal":
        X[:] = X[0]
    if kind == "one-hot":
        X = np.eye(n)[rng.integers(n, size=m)]
    if kind == "pixels":
        X = rng.integers(0, 256, (m, n)) * (rng.random((m, n)) < 0.3) * 1.0
    if kind == "sparse":
        X *= rng.random((m, n)) < 0.2
    if kind == "integers":
        X = np.rint(2.0 * X)
    if kind == "large":
        X *= 10.0 ** rng.uniform(0, 4)
    if kind == "tiny":
        X *= 10.0 ** rng.uniform(-6, 0)
    if kind == "zero rows":
        X[rng.random(m) < 0.5] = 0.0
    return X


def _targets(rng: Generator, loss: str, m: int, k: int) -> Any:
    labels = rng.integers(k, size=m)
    if rng.random() < 0.3:
        labels = np.arange(m) % k
    elif rng.random() < 0.2:
        labels[:] = 0
    if loss == "softmax_cross_entropy":
        return np.eye(k)[labels]
    if loss == "sigmoid_cross_entropy":
        return (rng.random((m, k)) < 0.5) * 1.0
    if rng.random() < 0.3:
        return np.zeros((m, k))
    return rng.normal(size=(m, k))


def held(a: Any, dtype: Any) -> Any:
    """Return an array rounded to a dtype, as float64."""
    return np.asarray(a).astype(dtype).astype(np.float64)


def nasty(rng: Generator, dtype: Any, work: float, *, wide: bool = False) -> Problem:
    """Return a network held by a dtype; `wide` leaves the parameters in float64."""
    depth = int(_pick(rng, (1, 2, 2, 2, 3, 3, 5)))
    m = int(_pick(rng, (1, 2, 7, 30, 64, 100, 239, 481, 1000, 3000)))
    widths = [int(_pick(rng, (1, 2, 5, 10, 20, 50, 150, 600))) for _ in range(depth)]
    widths.append(int(_pick(rng, (1, 2, 3, 10))))
    while m * sum(a * b for a, b in itertools.pairwise(widths)) > work:
        widths = [max(1, min(w, max(widths) // 2)) for w in widths]
        m = m if max(widths) > 8 else max(1, m // 2)
    one = _pick(rng, FORMULAS) if rng.random() < 0.6 else None
    hidden = [one or _pick(rng, FORMULAS) for _ in range(depth - 1)]
    loss = _pick(rng, LOSSES)
    last = "identity" if rng.random() < 0.7 else _pick(rng, FORMULAS)
    kept = np.float64 if wide else dtype
    pairs = list(itertools.pairwise(widths))
    return Problem(
        weights=[held(_weights(rng, a, b), kept) for a, b in pairs],
        biases=[held(_biases(rng, b), kept) for _, b in pairs],
        activations=[*hidden, last],
        loss=loss,
        l2=float(_pick(rng, (0.0, 0.0, 0.0, 1e-3, 1.0, 1e4))),
        inputs=held(_inputs(rng, m, widths[0]), dtype),
        targets=held(_targets(rng, loss, m, widths[-1]), dtype),
    )


def styles(rng: Generator) -> Style:
    """Return a way to write a backward pass."""
    return Style(
        product=_pick(rng, ("library", *PRODUCTS)),
        total=_pick(rng, TOTALS),
        formulas={name: int(rng.integers(len(pairs))) for name, pairs in FORMULAS.items()},
        softmax=_pick(rng, SOFTMAXES),
        late_mean=bool(rng.random() < 0.3),
    )
