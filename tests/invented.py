"""Wrong gradients that somebody might hand in, and what may be said of each; knows no fastcheck.

`wrong_gradients()` yields them. Each is a plain backward pass, written apart from the one in
`planted`: samples in columns, one function for each way to go wrong. Where nothing can be known of
the cause, no cause may be claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.planted import NETS, Net, make, phi, softmax

Array = Any
Change = Callable[..., Array]
# Names that say where an error is, and how large, without a cause.
PLACES = frozenset(
    {"unknown", "entries", "rows", "columns", "bias_entries", "samples_wrong", "samples_weighted"}
)

DROPPED = frozenset({"mask_still_applied", "units_dropped"})
# What a number is fitted for.
FITTED = frozenset({"outputs_scaled", "targets_smoothed", "log_epsilon", "weights_updated"})
MIN_NUMBERS = 8  # of a layer, from which on a fitted number says something


@dataclass(frozen=True)
class Wrong:
    """A wrong gradient.

    Attributes
    ----------
    net : Net
    name : str
    gradient : list of ndarray
        dW1, db1, …
    causes : frozenset of str
        What the first answer may name; empty where there is no cause to be known.
    """

    net: Net
    name: str
    gradient: list[Array]
    causes: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_nameable(self) -> bool:
        """Whether a diagnosis can know the cause: a fitted one takes more than a few numbers."""
        if not self.causes or "dropped" in self.name or "wrong_targets" in self.causes:
            return False
        if not self.causes & FITTED:
            return True
        numbers = np.concatenate([np.ravel(block) for block in self.gradient[-2:]])
        return np.unique(np.round(np.abs(numbers[numbers != 0.0]), 12)).size >= MIN_NUMBERS


def slope(net: Net, z: Array) -> Array:
    """The derivative, as `phi` has the function."""
    if net.hidden == "relu":
        return np.where(z > 0, 1.0, 0.0)
    if net.hidden == "tanh":
        return 1.0 / np.cosh(z) ** 2
    s = 1.0 / (1.0 + np.exp(-z))
    return s if net.hidden == "softplus" else s * (1.0 - s)


def is_a_multiple(net: Net, gradient: list[Array], right: list[Array], layer: int) -> bool:
    """Whether the data's part of a layer is that of the right gradient times one number."""

    def data(blocks: list[Array]) -> Array:
        penalty = net.lam / len(net.X) * net.W[layer - 1]
        return np.append(blocks[2 * layer - 2] - penalty, blocks[2 * layer - 1])

    given, true = data(gradient), data(right)
    return np.allclose(given, (given @ true) / (true @ true) * true, rtol=1e-9, atol=1e-15)


def columns(net: Net, **how: Any) -> list[Array]:
    """A backward pass with samples in columns; what is in `how` is done in another way.

    `output(dZ, A)`, `error(l, dZ)`, `weights(l, dW)`, `biases(l, db)` and `back(l, W)` get the
    right thing and return another; `labels` and `params` replace Y and (W, b).
    """
    W, b = how.get("params", (net.W, net.b))
    Y, m, L = np.asarray(how.get("labels", net.Y)).T, net.X.shape[0], len(W)
    A, Z = [net.X.T], []
    for l in range(L):
        Z.append(W[l] @ A[l] + b[l][:, None])
        A.append(Z[l] if l == L - 1 else phi(net.hidden, Z[l]))
    if net.loss == "squared":
        dZ = A[L] - Y
    else:
        dZ = (softmax(A[L].T).T if net.loss == "softmax" else 1 / (1 + np.exp(-A[L]))) - Y
    if "output" in how:
        dZ = how["output"](dZ, A[L])
    found: list[Array] = []
    for l in range(L - 1, -1, -1):
        if "error" in how:
            dZ = how["error"](l + 1, dZ)
        dW = dZ @ A[l].T / m + net.lam / m * W[l]
        db = dZ.sum(axis=1) / m
        if "weights" in how:
            dW = how["weights"](l + 1, dW)
        if "biases" in how:
            db = how["biases"](l + 1, db)
        found[:0] = [dW, db]
        if l:
            used = how["back"](l + 1, W[l], dW) if "back" in how else W[l]
            dZ = used.T @ dZ
            dZ = dZ * slope(net, Z[l - 1])
    return found


def only(at: int, change: Change) -> Change:
    """A change in one layer."""
    return lambda l, right, *more: change(right, *more) if l == at else right


def _placed(net: Net, rng: Any) -> Iterator[Wrong]:
    """Errors without a cause: only where they are can be told."""
    right = columns(net)
    for at in {0, 2 * (net.depth - 1)}:
        noisy = [g.copy() for g in right]
        noisy[at] = noisy[at] + 0.1 * np.abs(noisy[at]).mean() * rng.normal(size=noisy[at].shape)
        yield Wrong(net, f"noise in block {at}", noisy)
        for size in (1e-3, 1e-5):
            noisy = [g.copy() for g in right]
            noisy[at] = noisy[at] * (1.0 + size * rng.normal(size=noisy[at].shape))
            yield Wrong(net, f"relative noise of {size} in block {at}", noisy)
        one = [g.copy() for g in right]
        i, j = rng.integers(one[at].shape[0]), rng.integers(one[at].shape[1])
        one[at][i, j] = 1.01 * one[at][i, j] + 1e-4
        yield Wrong(net, f"an entry of block {at}", one)
    everywhere = [g * (1.0 + 1e-4 * rng.normal(size=g.shape)) for g in right]
    yield Wrong(net, "relative noise everywhere", everywhere)
    leak = [g.copy() for g in right]
    leak[0] = np.where(leak[0] == 0.0, 1e-3, leak[0] + 1e-3 * rng.normal(size=leak[0].shape) ** 2)
    yield Wrong(net, "a leak in dW1", leak)
    labels = net.Y.copy()
    labels[1] = np.roll(labels[1], 1) if net.Y.shape[1] > 1 else 1.0 - labels[1]
    yield Wrong(net, "a wrong label", columns(net, labels=labels), frozenset({"wrong_targets"}))
    shuffled = net.Y[rng.permutation(len(net.Y))]
    yield Wrong(net, "shuffled labels", columns(net, labels=shuffled), frozenset({"wrong_targets"}))
    noise = rng.normal(size=(net.Y.shape[1], len(net.Y)))
    yield Wrong(net, "noise at the output", columns(net, output=lambda dZ, A: dZ + 0.01 * noise))
    old = [W + 1e-3 * rng.normal(size=W.shape) for W in net.W]
    yield Wrong(net, "weights of some other θ", columns(net, params=(old, net.b)))


def _stray_masks(net: Net, rng: Any) -> Iterator[Wrong]:
    """Dropout on the way back that J does not have, as a mask that nobody knows."""
    for at in range(1, net.depth):
        width = len(net.b[at - 1])
        entries = (rng.random((width, len(net.X))) < 0.6) / 0.6
        units = np.where(np.arange(width) % 3 == 0, 0.0, 1.0)[:, None]
        for name, mask in (("entries", entries), ("units", units)):
            gradient = columns(net, error=only(at, lambda dZ, mask=mask: dZ * mask))
            # Where no living unit is left, nothing has come from the layer above.
            detached = frozenset() if gradient[2 * at - 1].any() else {"error_not_passed"}
            yield Wrong(net, f"{name} dropped in layer {at}", gradient, DROPPED | detached)


def _factors(net: Net) -> Iterator[Wrong]:
    """Numbers that all components of an error share: the number is all that can be told."""
    whole = frozenset({"everything_factor", "output_factor", "error_factor"})
    right = columns(net)
    for factor in (1 + 3e-7, 1.01, 0.3):
        yield Wrong(net, f"everything × {factor}", [factor * g for g in right], whole)
    for factor in (1.0001, 0.5):
        gradient = columns(net, error=only(1, lambda dZ, f=factor: f * dZ))
        error = frozenset({"error_factor", "output_factor", "data_factor"})
        yield Wrong(net, f"dZ1 × {factor}", gradient, error)
    size = np.sqrt(sum((g**2).sum() for g in right))
    clipped = [g * (0.25 / size) for g in right]
    yield Wrong(net, "clipped by the norm of everything", clipped, frozenset({"clipped_norm"}))


def _precisions(net: Net) -> Iterator[Wrong]:
    """Rounding, and what is as small as rounding."""
    right = columns(net)
    names = frozenset({"rounded", "rounded_float16", "low_precision", "float32_products"})
    for precision in ("float32", "float16"):
        cast = [g.astype(precision).astype(float) for g in right]
        yield Wrong(net, f"cast to {precision}", cast, names)
    single = Net(net.name, [W.astype(np.float32) for W in net.W],
                 [b.astype(np.float32) for b in net.b], net.hidden, net.loss, net.lam,
                 net.X.astype(np.float32), net.Y.astype(np.float32),)  # fmt: skip
    narrow = [np.asarray(g, np.float32).astype(float) for g in columns(single)]
    yield Wrong(net, "computed in float32", narrow, names)
    biased = [g * (1.0 + 2e-7) + 1e-8 * np.abs(g).max() for g in right]
    yield Wrong(net, "a bias as small as float32's rounding", biased)


def _updates(net: Net) -> Iterator[Wrong]:
    """Weights that were updated before they were used, and gradients of the θ before."""
    if net.depth > 1:
        for rate in (1e-4, 0.01, 0.5):
            gradient = columns(net, back=lambda l, W, dW, r=rate: W - r * dW)
            # With one living unit an update of its weights is a factor.
            factor = is_a_multiple(net, gradient, columns(net), net.depth - 1)
            names = {"weights_updated"} | ({"error_factor"} if factor else set())
            yield Wrong(net, f"W updated with {rate} before use", gradient, frozenset(names))
    if net.hidden == "relu":
        return
    W, b, rate = net.W, net.b, 0.01
    for _ in range(60):  # the θ whose step leads here
        g = columns(net, params=(W, b))
        W = [w + rate * dW for w, dW in zip(net.W, g[::2], strict=True)]
        b = [v + rate * db for v, db in zip(net.b, g[1::2], strict=True)]
    yield Wrong(net, "a stale gradient", g, frozenset({"stale"}))


def _outputs(net: Net) -> Iterator[Wrong]:
    """Losses that are nearly the right one."""
    m = len(net.X)
    cases: dict[str, tuple[Change, set[str]]] = {
        "a − y/m": (lambda dZ, a, y: m * (dZ + y) - y, {"brackets_output"}),
        "errors squared": (lambda dZ, a, y: dZ * dZ, set()),
        "cosine for error": (lambda dZ, a, y: np.cos(dZ), set()),
    }
    if net.loss != "squared":
        cases["scaled by 0.999"] = (lambda dZ, a, y: 0.999 * (dZ + y) - y, {"outputs_scaled"})
        smooth = 0.1 / max(net.Y.shape[1], 2)
        cases["labels smoothed"] = (
            lambda dZ, a, y: dZ + 0.1 * y - smooth, {"targets_smoothed"})  # fmt: skip
    if net.loss == "softmax":

        def guarded(dZ: Array, a: Array, y: Array) -> Array:
            p = ((dZ + y) * y).sum(axis=0)
            return dZ * (p / (p + 1e-8))

        cases["log(p + 1e-8)"] = (guarded, {"log_epsilon"})
    for name, (change, causes) in cases.items():
        gradient = columns(net, output=lambda dZ, a, f=change: f(dZ, a, net.Y.T))
        yield Wrong(net, name, gradient, frozenset(causes))


def wrong_gradients(only_net: str = "") -> Iterator[Wrong]:
    """Yield all of them, or those of one network."""
    nets = [NETS[1], NETS[2], NETS[7], NETS[8], make("two units", [3, 2, 2], "relu", "softmax", 6)]
    for number, net in enumerate(nets):
        if only_net not in ("", net.name):
            continue
        rng = np.random.default_rng(number)
        for family in (_placed(net, rng), _stray_masks(net, rng), _factors(net), _precisions(net),
                       _updates(net), _outputs(net)):  # fmt: skip
            with np.errstate(all="ignore"):
                yield from family
