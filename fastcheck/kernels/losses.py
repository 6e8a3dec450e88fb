"""The table of losses: value, difference without cancellation and output gradient of each.

A loss is a function of one sample's outputs z (K,) and targets t (K,). Integer labels have become
one-hot rows before they come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.activations import (
    CUSTOM,
    choose,
    expit,
    softplus_difference,
    softplus_value,
)
from fastcheck.kernels.compiling import part_kernel, scalar_kernel

__all__ = ["LOSSES", "Loss", "loss_growth", "loss_value"]

Floats = NDArray[np.float64]

SMALL = 2.0**-7  # below it, the series of expm1 and log1p serve


@dataclass(frozen=True)
class Loss:
    """One entry of the table.

    Attributes
    ----------
    name : str
    code : int
        What kernels know it by.
    value : callable
        Kernel `(z, t, p) -> ℓ` for one sample; z, t shape (K,).
    difference : callable
        Kernel `(z, t, p, d, out)`: out[c] = ℓ(z + d[:, c]) − ℓ(z); d (K, columns) is overwritten.
    output_gradient : callable
        NumPy `(Z, T, p) -> ∂ℓ/∂z`, shape (m, K), for the reference backward pass.
    targets : str
        What targets may be: `"probabilities"`, `"unit interval"` or `"real"`.
    parameter : float or None
        Default of the parameter (Huber's δ), None where there is none.
    kinks : bool
        Whether ℓ has points where it is not analytic.
    """

    name: str
    code: int
    value: Callable[..., Any]
    difference: Callable[..., Any]
    output_gradient: Callable[[Floats, Floats, float], Floats]
    targets: str = "real"
    parameter: float | None = None
    kinks: bool = False


@part_kernel
def _expm1_small(x: float) -> float:
    """e^x − 1 for |x| < 2⁻⁷, by its series, which vectorises."""
    tail = 1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0 + x / 5040.0))
    return x + x * x * (0.5 + x * (1.0 / 6.0 + x * tail))


@part_kernel
def _log1p_small(x: float) -> float:
    """log(1 + x) for |x| < 2⁻⁷, by its series, which vectorises."""
    tail = 1.0 / 5.0 - x * (1.0 / 6.0 - x * (1.0 / 7.0 - x / 8.0))
    return x - x * x * (0.5 - x * (1.0 / 3.0 - x * (0.25 - x * tail)))


@part_kernel
def _all_small(values: Floats) -> bool:
    """Whether the series serve all of them; counted, since that vectorises and a maximum not."""
    large = 0
    for i in range(values.size):
        large += abs(values[i]) >= SMALL
    return large == 0


@part_kernel
def _below_top(z: Floats, below: Floats) -> float:
    """below = z − max z; return log Σ exp(below), which keeps the digits of a small rest.

    log Σ exp(z) itself is never formed: with large logits it would round what matters away.
    """
    best = 0
    for k in range(1, z.size):
        if z[k] > z[best]:
            best = k
    rest = 0.0
    for k in range(z.size):
        below[k] = z[k] - z[best]
        if k != best:
            rest += math.exp(below[k])
    return math.log1p(rest)


@scalar_kernel
def _softmax_value(z: Floats, t: Floats, p: float) -> float:
    below = np.empty(z.size)
    log_total = _below_top(z, below)
    loss = 0.0
    for k in range(z.size):
        if t[k] != 0.0:
            loss += t[k] * (log_total - below[k])
    return loss


@part_kernel
def _subtract_target_mean(t: Floats, mass: float, d: Floats, mean: Floats) -> None:
    """d becomes d − Σ t d / Σ t, column by column."""
    mean[:] = 0.0
    for k in range(t.size):
        if t[k] != 0.0:
            share = t[k] / mass
            for c in range(mean.size):
                mean[c] += share * d[k, c]
    for k in range(t.size):
        for c in range(mean.size):
            d[k, c] -= mean[c]


@part_kernel
def _softmax_large(below: Floats, log_total: float, e: Floats) -> float:
    """log Σ_k p_k exp(e_k) of one column, where some e_k is not small."""
    top = 0.0
    grown = 0.0
    for k in range(e.size):
        top = max(top, e[k])
        grown += math.exp(below[k] - log_total) * math.expm1(min(e[k], 600.0))
    if top <= 500.0 and grown > -0.5:
        return math.log1p(grown)
    moved = below + e
    best = float(moved.max())
    return best + _below_top(moved, e) - log_total


@scalar_kernel
def _softmax_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    # With e = d − Σ t d / Σ t the loss grows by Σt · log1p(Σ_k p_k expm1(e_k)): for a one-hot
    # target the term that would cancel, p_y expm1(e_y), is zero.
    below = np.empty(z.size)
    log_total = _below_top(z, below)
    probabilities = np.exp(below - log_total)
    mass = t.sum()
    _subtract_target_mean(t, mass, d, out)
    columns = out.size
    if _all_small(d.reshape(d.size)):
        out[:] = 0.0
        for k in range(z.size):
            share = probabilities[k]
            for c in range(columns):
                out[c] += share * _expm1_small(d[k, c])
        for c in range(columns):
            out[c] = mass * _log1p_small(out[c])
        return
    for c in range(columns):
        out[c] = mass * _softmax_large(below, log_total, d[:, c].copy())


@scalar_kernel
def _sigmoid_value(z: Floats, t: Floats, p: float) -> float:
    # softplus(z) − t z = (1 − t) softplus(z) + t softplus(−z), which never cancels.
    loss = 0.0
    for k in range(z.size):
        if t[k] != 1.0:
            loss += (1.0 - t[k]) * softplus_value(z[k])
        if t[k] != 0.0:
            loss += t[k] * softplus_value(-z[k])
    return loss


@scalar_kernel
def _sigmoid_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    out[:] = 0.0
    for k in range(z.size):
        for c in range(out.size):
            if t[k] != 1.0:
                out[c] += (1.0 - t[k]) * softplus_difference(z[k], d[k, c])
            if t[k] != 0.0:
                out[c] += t[k] * softplus_difference(-z[k], -d[k, c])


@scalar_kernel
def _squared_value(z: Floats, t: Floats, p: float) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += 0.5 * (z[k] - t[k]) ** 2
    return loss


@scalar_kernel
def _squared_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    out[:] = 0.0
    for k in range(z.size):
        residual = z[k] - t[k]
        for c in range(out.size):
            out[c] += d[k, c] * (residual + 0.5 * d[k, c])


@scalar_kernel
def _mean_squared_value(z: Floats, t: Floats, p: float) -> float:
    return 2.0 * _squared_value(z, t, p) / z.size


@scalar_kernel
def _mean_squared_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    _squared_difference(z, t, p, d, out)
    for c in range(out.size):
        out[c] *= 2.0 / z.size


@scalar_kernel
def _huber_value(z: Floats, t: Floats, p: float) -> float:
    loss = 0.0
    for k in range(z.size):
        r = abs(z[k] - t[k])
        loss += 0.5 * r * r if r <= p else p * (r - 0.5 * p)
    return loss


@scalar_kernel
def _huber_grown(r: float, d: float, p: float) -> float:
    """The growth of one output's loss when its residual r grows by d."""
    w = r + d
    if abs(r) <= p and abs(w) <= p:
        return d * (r + 0.5 * d)
    if min(r, w) >= p:
        return p * d
    if max(r, w) <= -p:
        return -p * d
    inner, outer = min(max(r, -p), p), min(max(w, -p), p)
    flat = max(abs(w) - p, 0.0) - max(abs(r) - p, 0.0)
    return 0.5 * (outer - inner) * (outer + inner) + p * flat


@scalar_kernel
def _huber_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    out[:] = 0.0
    for k in range(z.size):
        for c in range(out.size):
            out[c] += _huber_grown(z[k] - t[k], d[k, c], p)


def _softmax(Z: Floats) -> Floats:
    """Softmax of each row in NumPy, for the output gradient."""
    powers = np.exp(Z - Z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


_ENTRIES = (
    Loss(
        "softmax_cross_entropy", 0, _softmax_value, _softmax_difference,
        lambda Z, T, p: T.sum(1, keepdims=True) * _softmax(Z) - T,
        targets="probabilities",
    ),
    Loss(
        "sigmoid_cross_entropy", 1, _sigmoid_value, _sigmoid_difference,
        lambda Z, T, p: np.asarray((1.0 - T) * expit(Z) - T * expit(-Z)),
        targets="unit interval",
    ),
    Loss("squared_error", 2, _squared_value, _squared_difference, lambda Z, T, p: Z - T),
    Loss(
        "mean_squared_error", 3, _mean_squared_value, _mean_squared_difference,
        lambda Z, T, p: 2.0 * (Z - T) / Z.shape[1],
    ),
    Loss(
        "huber", 4, _huber_value, _huber_difference,
        lambda Z, T, p: np.clip(Z - T, -p, p), parameter=1.0, kinks=True,
    ),
)  # fmt: skip

LOSSES: dict[str, Loss] = {entry.name: entry for entry in _ENTRIES}


def _value_leaf(entry: Loss) -> tuple[int, Callable[..., Any]]:
    value = entry.value

    @part_kernel
    def value_of(which: int, p: float, z: Floats, t: Floats, custom: Any) -> float:
        return value(z, t, p)  # type: ignore[no-any-return]

    return entry.code, value_of


@part_kernel
def _custom_value(which: int, p: float, z: Floats, t: Floats, custom: Any) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += custom(z[k], t[k])
    return loss


def _growth_leaf(entry: Loss) -> tuple[int, Callable[..., Any]]:
    difference = entry.difference

    @part_kernel
    def growth_of(
        which: int, p: float, z: Floats, t: Floats, d: Floats, out: Floats, custom: Any
    ) -> None:
        difference(z, t, p, d, out)

    return entry.code, growth_of


@part_kernel
def _custom_growth(
    which: int, p: float, z: Floats, t: Floats, d: Floats, out: Floats, custom: Any
) -> None:
    out[:] = 0.0
    for k in range(z.size):
        here = custom(z[k], t[k])
        for c in range(out.size):
            out[c] += custom(z[k] + d[k, c], t[k]) - here


# loss_value(code, p, z, t, custom) -> ℓ of one sample.
loss_value = choose([*map(_value_leaf, _ENTRIES), (CUSTOM, _custom_value)])
# loss_growth(code, p, z, t, d, out, custom): out[c] = ℓ(z + d[:, c]) − ℓ(z) of one sample; d is
# overwritten.
loss_growth = choose([*map(_growth_leaf, _ENTRIES), (CUSTOM, _custom_growth)])
