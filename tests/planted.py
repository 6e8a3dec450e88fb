"""Backward passes with mistakes typed into them by hand; nothing here knows fastcheck.

`backward(net, bug, layer)` is an ordinary backward pass in row notation, with each mistake written
where a person would make it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = Any


@dataclass(frozen=True)
class Net:
    """A network and a batch, rows are samples; `lam` is λ of λ/2m·Σ‖W‖²."""

    name: str
    W: list[Array]
    b: list[Array]
    hidden: str
    loss: str
    lam: float
    X: Array
    Y: Array
    masks: list[Array | None] | None = None
    keep: float = 1.0

    @property
    def depth(self) -> int:
        return len(self.W)


def make(name: str, sizes: list[int], hidden: str, loss: str, m: int, **more: Any) -> Net:
    """Draw a network; the seed is its name."""
    rng = np.random.default_rng(sum(map(ord, name)))
    W = [rng.normal(size=(k, n)) * np.sqrt(1.6 / n) for n, k in itertools.pairwise(sizes)]
    b = [0.3 * rng.normal(size=k) for k in sizes[1:]]
    X = rng.normal(size=(m, sizes[0])) + 0.2
    if loss == "softmax":
        Y = np.eye(sizes[-1])[rng.integers(sizes[-1], size=m)]
    elif loss == "logistic":
        Y = rng.integers(2, size=(m, sizes[-1])).astype(float)
    else:
        Y = rng.normal(size=(m, sizes[-1]))
    masks = None
    keep = more.pop("keep", 1.0)
    if keep < 1.0:
        masks = [(rng.random((m, k)) < keep).astype(float) for k in sizes[1:-1]] + [None]
    return Net(name, W, b, hidden, loss, more.pop("lam", 0.0), X, Y, masks, keep)


def phi(kind: str, z: Array) -> Array:
    return {
        "relu": lambda: np.maximum(z, 0),
        "tanh": lambda: np.tanh(z),
        "sigmoid": lambda: 1 / (1 + np.exp(-z)),
        "softplus": lambda: np.log(1 + np.exp(z)),
    }[kind]()


def dphi(kind: str, z: Array) -> Array:
    return {
        "relu": lambda: (z > 0) * 1.0,
        "tanh": lambda: 1 - np.tanh(z) ** 2,
        "sigmoid": lambda: np.exp(-z) / (1 + np.exp(-z)) ** 2,
        "softplus": lambda: 1 / (1 + np.exp(-z)),
    }[kind]()


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def output_error(net: Net, out: Array, bug: str) -> Array:  # noqa: PLR0911, PLR0912
    """dZ_L, not yet divided by m."""
    Y = net.Y
    if net.loss == "squared":
        if bug == "twice":
            return 2 * (out - Y)
        if bug == "absolute error":
            return np.sign(out - Y)
        if bug == "sigmoid'":
            s = 1 / (1 + np.exp(-out))
            return (out - Y) * s * (1 - s)
        if bug == "y broadcast":
            return out - Y.mean(axis=0)
        if bug == "a - y/m":
            return (out - Y / Y.shape[0]) * Y.shape[0]
        if bug == "2a - y":
            return 2 * out - Y
        return out - Y
    p = softmax(out) if net.loss == "softmax" else 1 / (1 + np.exp(-out))
    if bug == "twice":
        return 2 * (p - Y)
    if bug == "logits minus y":
        return out - Y
    if bug == "p(1-p) again":
        return (p - Y) * p * (1 - p)
    if bug == "sigmoid for softmax":
        return 1 / (1 + np.exp(-out)) - Y
    if bug == "labels not one-hot":
        return p - Y.argmax(axis=1).reshape(-1, 1)
    if bug == "labels off by one":
        return p - np.roll(Y, 1, axis=1)
    if bug == "no y":
        return p
    if bug == "-y/p":
        return -Y / p
    if bug == "y broadcast":
        return p - Y.mean(axis=0)
    if bug == "a - y/m":
        return (p - Y / Y.shape[0]) * Y.shape[0]
    if bug == "2a - y":
        return 2 * p - Y
    if bug == "p * 0.999 - y":
        return 0.999 * p - Y
    if bug == "y smoothed":
        return p - (0.9 * Y + 0.1 / Y.shape[1])
    if bug == "log(p + 1e-3)":
        if net.loss == "softmax":
            true = (p * Y).sum(axis=1, keepdims=True)
            return (p - Y) * true / (true + 1e-3)
        return (-Y / (p + 1e-3) + (1 - Y) / (1 - p + 1e-3)) * p * (1 - p)
    return p - Y


def backward(net: Net, bugs: dict[str, int]) -> list[Array]:  # noqa: PLR0912
    """Return [dW1, db1, …] with the bugs (name -> layer, 0 for all layers) typed in."""

    def has(name: str, layer: int) -> bool:
        return name in bugs and bugs[name] in (0, layer)

    if "stale" in bugs:  # the gradient of the θ before the last update
        others, older = {bug: at for bug, at in bugs.items() if bug != "stale"}, net
        for _ in range(40):
            found = backward(older, others)
            W = [W + 0.02 * dW for W, dW in zip(net.W, found[::2], strict=True)]
            b = [b + 0.02 * db for b, db in zip(net.b, found[1::2], strict=True)]
            older = replace(net, W=W, b=b)
        return found
    m, L, lam = net.X.shape[0], net.depth, net.lam
    A, Z = [net.X], []
    for l in range(1, L + 1):
        z = A[-1] @ net.W[l - 1].T + net.b[l - 1]
        a = z if l == L else phi(net.hidden, z)
        if net.masks is not None and net.masks[l - 1] is not None:
            a = a * net.masks[l - 1] / net.keep
        Z.append(z)
        A.append(a)
    output_bugs = [
        "twice",
        "absolute error",
        "sigmoid'",
        "logits minus y",
        "p(1-p) again",
        "sigmoid for softmax",
        "labels not one-hot",
        "labels off by one",
        "no y",
        "-y/p",
        "y broadcast",
        "a - y/m",
        "2a - y",
        "p * 0.999 - y",
        "y smoothed",
        "log(p + 1e-3)",
    ]
    bug = next((name for name in output_bugs if name in bugs), "")
    dZ = output_error(net, A[-1], bug)
    if "y - a" in bugs:
        dZ = net.Y - (dZ + net.Y)
    if "no 1/m" not in bugs:
        dZ = dZ / m
    if "1/m twice" in bugs:
        dZ = dZ / m
    if "last sample dropped" in bugs:
        dZ[-1] = 0
    if "first half only" in bugs:
        dZ[m // 2 :] = 0
    if "sample 3 twice" in bugs:
        dZ[3] = dZ[3] * 2
    grads: dict[str, Array] = {}
    dA_above = dZ_above = dZ
    for l in range(L, 0, -1):
        a, z, before, W = A[l], Z[l - 1], A[l - 1], net.W[l - 1]
        if l < L:
            d = dphi(net.hidden, z)
            if has("slope missing", l):
                d = np.ones_like(z)
            if has("slope at a", l):
                d = dphi(net.hidden, phi(net.hidden, z))
            if has("slope squared", l):
                d = d * d
            if has("slope of relu", l):
                d = (z > 0) * 1.0
            if has("slope of tanh", l):
                d = 1 - np.tanh(z) ** 2
            if has("slope of sigmoid", l):
                d = (1 / (1 + np.exp(-z))) * (1 - 1 / (1 + np.exp(-z)))
            if has("1 - a", l):
                d = 1 - phi(net.hidden, z)
            if has("slope at z before", l):
                d = dphi(net.hidden, Z[l - 2])
            dA = dZ
            if net.masks is not None and not has("mask forgotten", l):
                dA = dA * net.masks[l - 1]
                if not has("keep forgotten", l):
                    dA = dA / net.keep
            if has("stray mask", l):
                dA = dA * (np.random.default_rng(5).random(dA.shape) < 0.7) / 0.7
            if has("dA above", l):
                dA = dA_above
            if has("leak", l):
                d = np.where(z > 0, 1.0, 1e-3)
            dZ = dA * d
            if has("1 - a² without brackets", l):
                dZ = dA * 1 - a**2
            if has("a * 1 - a", l):
                dZ = dA * a * 1 - a
            if has("(dA * z > 0)", l):
                dZ = (dA * z > 0) * 1.0
            if has("dZ above", l):
                dZ = dZ_above
            if has("dZ halved", l):
                dZ = dZ / 2
            if has("dZ over m", l):
                dZ = dZ / m
        # the weights
        used = before
        if has("Z for A", l):
            used = Z[l - 2]
        if has("own A", l):
            used = a
        dW = dZ.T @ used
        if has("dW from dA", l):
            dW = dA.T @ used
        if has("dW from dZ above", l):
            dW = dZ_above.T @ used
        if has("samples shifted", l):
            dW = dZ.T @ np.roll(used, 1, axis=0)
        if has("samples reversed", l):
            dW = dZ.T @ used[::-1]
        if has("dW no mean", l):
            dW = dW * m
        if not has("no penalty", l):
            scale = lam / m
            if has("penalty doubled", l):
                scale = 2 * lam / m
            if has("penalty not over m", l):
                scale = lam
            if has("penalty subtracted", l):
                scale = -lam / m
            dW = dW + scale * W
        if has("stray penalty", l):
            dW = dW + 0.3 / m * W
        if has("dW doubled", l):
            dW = dW * 2
        if has("dW over m", l):
            dW = dW / m
        if has("dW negated", l):
            dW = -dW
        if has("dW odd factor", l):
            dW = dW * 0.731
        if has("dW transposed", l):
            dW = dW.T
        if has("dW column order", l):
            dW = dW.flatten(order="F").reshape(dW.shape)
        if has("dW zero", l):
            dW = np.zeros_like(dW)
        if has("dW row", l):
            dW = dW.copy()
            dW[1] = 3 * dW[1]
        if has("dW column", l):
            dW = dW.copy()
            dW[:, 2] = 0
        if has("dW entry", l):
            dW = dW.copy()
            i, j = np.unravel_index(np.abs(dW).argmax(), dW.shape)
            dW[i, j] = -dW[i, j]
        if has("dW clipped", l):
            dW = np.clip(dW, -0.4 * np.abs(dW).max(), 0.4 * np.abs(dW).max())
        if has("dW rows rolled", l):
            dW = np.roll(dW, 1, axis=0)
        if has("dW float16", l):
            dW = dW.astype(np.float16).astype(float)
        if has("dW float32 product", l):
            dW = (dZ.astype(np.float32).T @ used.astype(np.float32)).astype(float) + lam / m * W
        if has("dW last sample dropped", l):
            dW = dZ[:-1].T @ used[:-1] + lam / m * W
        if has("dW abs", l):
            dW = np.abs(dW)
        # the biases
        db = dZ.sum(axis=0)
        if has("db wrong axis", l):
            db = np.resize(dZ.sum(axis=1), db.shape)
        if has("db mean", l):
            db = dZ.mean(axis=0)
        if has("db one sum", l):
            db = np.full(db.shape, dZ.sum())
        if has("db no mean", l):
            db = db * m
        if has("db penalised", l):
            db = db + lam / m * net.b[l - 1]
        if has("db zero", l):
            db = 0 * db
        if has("db first sample", l):
            db = dZ[0]
        if has("db doubled", l):
            db = 2 * db
        if has("db from dA", l):
            db = dA.sum(axis=0)
        if has("db negated", l):
            db = -db
        if has("db from dZ above", l):
            db = dZ_above.sum(axis=0)
        grads[f"W{l}"], grads[f"b{l}"] = dW, db
        # on to the layer before
        back = W
        if has("W updated", l):
            back = W - 0.05 * dW
        if has("W updated first", l):
            back = W - 0.7 * dW
        if has("W not transposed", l):
            back = W.T
        dZ_next = dZ @ back
        if has("detached", l):
            dZ_next = 0 * dZ_next
        if has("dA passed", l):
            dZ_next = dA @ back
        dA_above, dZ_above = (dA if l < L else dZ), dZ
        dZ = dZ_next
    if "lists reversed" in bugs:
        order = range(L, 0, -1)
        grads = {f"{k}{l}": grads[f"{k}{n}"] for l, n in enumerate(order, start=1) for k in "Wb"}
    if "swapped b" in bugs:
        l = bugs["swapped b"]
        grads[f"b{l}"], grads[f"b{l - 1}"] = grads[f"b{l - 1}"], grads[f"b{l}"]
    if "swapped W" in bugs:
        l = bugs["swapped W"]
        grads[f"W{l}"], grads[f"W{l - 1}"] = grads[f"W{l - 1}"], grads[f"W{l}"]
    if "everything doubled" in bugs:
        grads = {k: 2 * v for k, v in grads.items()}
    if "norm clipped" in bugs:
        size = np.sqrt(sum((v**2).sum() for v in grads.values()))
        grads = {k: v * (0.5 * size**0 / size) for k, v in grads.items()}
    if "value clipped" in bugs:
        limit = 0.5 * max(np.abs(v).max() for v in grads.values())
        grads = {k: np.clip(v, -limit, limit) for k, v in grads.items()}
    if "all float16" in bugs:
        grads = {k: v.astype(np.float16).astype(float) for k, v in grads.items()}
    return [grads[f"{k}{l}"] for l in range(1, L + 1) for k in "Wb"]


NETS = [
    make("shallow relu", [6, 9, 4], "relu", "softmax", 12),
    make("shallow tanh, penalty", [7, 8, 3], "tanh", "softmax", 10, lam=0.7),
    make("square sigmoid, penalty", [6, 6, 6, 6], "sigmoid", "softmax", 14, lam=0.4),
    make("deep relu", [10, 12, 12, 12, 12, 5], "relu", "softmax", 20),
    make("deep tanh, penalty", [8, 9, 9, 9, 9, 9, 4], "tanh", "squared", 16, lam=0.5),
    make("wide softplus", [12, 40, 30, 3], "softplus", "logistic", 18, lam=0.2),
    make("dropout relu", [9, 14, 14, 4], "relu", "softmax", 15, keep=0.7),
    make("one logistic output", [7, 9, 9, 1], "tanh", "logistic", 13, lam=0.25),
    make("square relu, squares", [6, 6, 6, 6], "relu", "squared", 9),
]

HIDDEN, OUTER, ANY, DEEPER, ONCE = "hidden", "outer", "any", "deeper", "once"
# bug: (where it can be made, the names that are right for it)
BUGS: dict[str, tuple[str, set[str]]] = {
    "twice": (ONCE, {"output_factor"}),
    "absolute error": (ONCE, {"other_loss"}),
    "sigmoid'": (ONCE, {"output_activation_twice", "derivative_of_other"}),
    "logits minus y": (ONCE, {"other_loss"}),
    "p(1-p) again": (ONCE, {"output_activation_twice"}),
    "sigmoid for softmax": (ONCE, {"other_loss"}),
    "labels not one-hot": (ONCE, {"wrong_targets"}),
    "labels off by one": (ONCE, {"wrong_targets"}),
    "no y": (ONCE, {"wrong_targets"}),
    "-y/p": (ONCE, {"other_loss"}),
    "y broadcast": (ONCE, {"wrong_targets"}),
    "a - y/m": (ONCE, {"brackets_output"}),
    "2a - y": (ONCE, {"brackets_output"}),
    "p * 0.999 - y": (ONCE, {"outputs_scaled"}),
    "y smoothed": (ONCE, {"targets_smoothed"}),
    "log(p + 1e-3)": (ONCE, {"log_epsilon"}),
    "y - a": (ONCE, {"sign"}),
    "no 1/m": (ONCE, {"sum_for_mean"}),
    "1/m twice": (ONCE, {"divided_twice"}),
    "last sample dropped": (ONCE, {"sample_left_out"}),
    "first half only": (ONCE, {"sample_left_out"}),
    "sample 3 twice": (ONCE, {"sample_left_out"}),
    "slope missing": (HIDDEN, {"derivative_missing"}),
    "slope at a": (HIDDEN, {"derivative_at_a"}),
    "slope squared": (HIDDEN, {"derivative_twice"}),
    "slope of relu": (HIDDEN, {"derivative_of_other"}),
    "slope of tanh": (HIDDEN, {"derivative_of_other"}),
    "slope of sigmoid": (HIDDEN, {"derivative_of_other"}),
    "1 - a": (HIDDEN, {"derivative_miswritten"}),
    "slope at z before": (DEEPER, {"derivative_of_layer_before"}),
    "leak": (HIDDEN, {"derivative_leak"}),
    "1 - a² without brackets": (HIDDEN, {"brackets_slope"}),
    "a * 1 - a": (HIDDEN, {"brackets_slope"}),
    "(dA * z > 0)": (HIDDEN, {"brackets_slope"}),
    "dA above": (HIDDEN, {"error_of_other"}),
    "dZ above": (HIDDEN, {"error_of_other"}),
    "dW from dZ above": (HIDDEN, {"delta_of_other"}),
    "db from dZ above": (HIDDEN, {"bias_of_other", "bias_copied"}),
    "samples shifted": (ANY, {"samples_shifted"}),
    "samples reversed": (ANY, {"samples_shifted"}),
    "mask forgotten": (HIDDEN, {"mask_forgotten"}),
    "keep forgotten": (HIDDEN, {"mask_not_scaled", "error_factor"}),
    "stray mask": (HIDDEN, {"mask_still_applied"}),
    "dZ halved": (HIDDEN, {"error_factor"}),
    "dZ over m": (HIDDEN, {"error_factor"}),
    "Z for A": (DEEPER, {"inputs_logits"}),
    "own A": (ANY, {"inputs_of_other"}),
    "dW from dA": (HIDDEN, {"delta_before_slope"}),
    "dW no mean": (ANY, {"data_factor", "factor"}),
    "no penalty": (ANY, {"penalty_missing"}),
    "penalty doubled": (ANY, {"penalty_doubled"}),
    "penalty not over m": (ANY, {"penalty_not_divided"}),
    "penalty subtracted": (ANY, {"penalty_sign"}),
    "stray penalty": (ANY, {"penalty_extra", "penalty_factor"}),
    "dW doubled": (ANY, {"factor", "doubled"}),
    "dW over m": (ANY, {"factor"}),
    "dW negated": (ANY, {"factor", "negated"}),
    "dW odd factor": (ANY, {"factor"}),
    "dW transposed": (ANY, {"transposed"}),
    "dW column order": (ANY, {"by_columns", "transposed"}),
    "dW zero": (ANY, {"zero"}),
    "dW row": (ANY, {"rows"}),
    "dW column": (ANY, {"columns", "entries"}),
    "dW entry": (ANY, {"entries"}),
    "dW clipped": (ANY, {"clipped"}),
    "dW rows rolled": (ANY, {"shifted", "rows_shifted"}),
    "dW float16": (ANY, {"rounded_float16"}),
    "dW float32 product": (ANY, {"low_precision", "rounded"}),
    "dW last sample dropped": (ANY, {"sample_left_out"}),
    "dW abs": (ANY, {"absolute"}),
    "db wrong axis": (ANY, {"bias_axis"}),
    "db mean": (ANY, {"bias_mean"}),
    "db one sum": (ANY, {"bias_total", "bias_axis"}),
    "db no mean": (ANY, {"bias_factor"}),
    "db penalised": (ANY, {"penalty_on_biases"}),
    "db zero": (ANY, {"bias_zero"}),
    "db first sample": (ANY, {"bias_one_sample", "bias_axis"}),
    "db doubled": (ANY, {"bias_factor", "bias_doubled"}),
    "db from dA": (HIDDEN, {"bias_before_slope"}),
    "db negated": (ANY, {"bias_factor"}),
    "W updated": (DEEPER, {"weights_updated"}),
    "W updated first": (DEEPER, {"weights_updated"}),
    "W not transposed": (DEEPER, {"weights_not_transposed"}),
    "detached": (DEEPER, {"error_not_passed"}),
    "dA passed": (DEEPER, {"error_before_slope"}),
    "swapped W": (DEEPER, {"swapped"}),
    "swapped b": (DEEPER, {"swapped"}),
    "lists reversed": (ONCE, {"swapped"}),
    "stale": (ONCE, {"stale"}),
    "everything doubled": (ONCE, {"everything_factor", "output_factor", "everything_doubled"}),
    "norm clipped": (ONCE, {"clipped_norm"}),
    "value clipped": (ONCE, {"clipped"}),
    "all float16": (ONCE, {"rounded_float16"}),
}  # fmt: skip


def fits(net: Net, bug: str, layer: int) -> bool:  # noqa: PLR0911, PLR0912
    """Whether a bug can be typed in at a layer without an error from NumPy."""
    where = BUGS[bug][0]
    square = net.W[layer - 1].shape[0] == net.W[layer - 1].shape[1] if layer else False
    if bug in ("dW transposed", "W not transposed", "own A"):
        return square
    if bug in ("dA above", "dZ above", "dW from dZ above", "db from dZ above"):
        return bool(net.W[layer - 1].shape[0] == net.W[layer].shape[0])
    if bug == "swapped b":
        return bool(net.b[layer - 1].shape == net.b[layer - 2].shape)
    if bug == "lists reversed":
        return all(W.shape == net.W[0].shape for W in net.W)
    if bug == "stale":
        return net.hidden != "relu"
    if bug == "leak":
        return net.hidden == "relu" and net.masks is None
    if bug in ("1 - a² without brackets", "a * 1 - a", "(dA * z > 0)"):
        return str(net.hidden) == {"1": "tanh", "a": "sigmoid", "(": "relu"}[bug[0]]
    if bug in ("p * 0.999 - y", "y smoothed", "log(p + 1e-3)"):
        return net.loss == "softmax" or (bug[0] == "l" and net.loss == "logistic")
    if bug == "y broadcast":
        return len(net.W[-1]) == 1
    if bug in ("dW row", "dW rows rolled") and layer == net.depth:
        return len(net.W[-1]) > 1
    if bug in ("logits minus y", "p(1-p) again", "no y", "-y/p"):
        return net.loss != "squared"
    if bug in ("sigmoid for softmax", "labels not one-hot", "labels off by one"):
        return net.loss == "softmax"
    if bug in ("absolute error", "sigmoid'"):
        return net.loss == "squared"
    if bug in ("mask forgotten", "keep forgotten"):
        return net.masks is not None
    if bug == "stray mask":
        return net.masks is None and net.X.shape[0] <= net.W[layer - 1].shape[1]
    if bug in ("slope of relu", "slope of tanh", "slope of sigmoid"):
        return not bug.endswith(net.hidden) and not (
            bug.endswith("sigmoid") and net.hidden == "none"
        )
    if bug in ("slope squared", "slope at a") and net.hidden == "relu":
        return False  # they change nothing
    if bug == "slope at z before":
        return bool(net.W[layer - 1].shape[0] == net.W[layer - 2].shape[0])
    if bug == "swapped W":
        return bool(net.W[layer - 1].shape == net.W[layer - 2].shape)
    if bug == "dA passed":
        return layer < net.depth
    if "penal" in bug and bug != "stray penalty":
        return net.lam > 0
    return where != "none"


def places(net: Net, bug: str) -> list[int]:
    """The layers of a network where a bug can be made; [0] for what is made once."""
    where, L = BUGS[bug][0], net.depth
    layers = {ONCE: [0], ANY: range(1, L + 1), HIDDEN: range(1, L), DEEPER: range(2, L + 1)}[where]
    return [layer for layer in layers if fits(net, bug, layer)]
