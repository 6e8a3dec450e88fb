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
from scipy import special

from fastcheck.kernels.activations import (
    compose,
    softplus_difference,
    softplus_value,
)
from fastcheck.kernels.compiling import scalar_kernel

__all__ = ["LOSSES", "Loss", "loss_change", "loss_value"]

Floats = NDArray[np.float64]


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
        Kernel `(z, t, p, d, out)`: out[r] = ℓ(z + d[r]) − ℓ(z); d shape (rows, K).
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


@scalar_kernel
def _expm1_rows(d: Floats) -> None:
    """d becomes e^d − 1 in place: by its series where every |d| is small, which vectorises."""
    largest = 0.0
    for k in range(d.size):
        largest = max(largest, abs(d[k]))
    if largest < 0.0078125:
        for k in range(d.size):
            x = d[k]
            tail = x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0 + x / 5040.0)))
            d[k] = x + x * x * (0.5 + x * (1.0 / 6.0 + tail))
    else:
        for k in range(d.size):
            d[k] = math.expm1(d[k])


@scalar_kernel
def _logsumexp(z: Floats) -> float:
    top = z[0]
    for k in range(1, z.size):
        top = max(top, z[k])
    total = 0.0
    for k in range(z.size):
        total += math.exp(z[k] - top)
    return top + math.log(total)


@scalar_kernel
def _softmax_value(z: Floats, t: Floats, p: float) -> float:
    log_total = _logsumexp(z)
    loss = 0.0
    for k in range(z.size):
        if t[k] != 0.0:
            loss += t[k] * (log_total - z[k])
    return loss


@scalar_kernel
def _softmax_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    # With e = d − Σ t d / Σ t the loss grows by Σt · log1p(Σ_k p_k expm1(e_k)): for a one-hot target
    # the term that would cancel, p_y expm1(e_y), is zero.
    log_total = _logsumexp(z)
    probabilities = np.empty(z.size)
    mass = 0.0
    for k in range(z.size):
        probabilities[k] = math.exp(z[k] - log_total)
        mass += t[k]
    e = np.empty(z.size)
    for r in range(d.shape[0]):
        mean = 0.0
        for k in range(z.size):
            mean += t[k] * d[r, k]
        mean /= mass
        top = 0.0
        for k in range(z.size):
            e[k] = d[r, k] - mean
            top = max(top, e[k])
        if top > 500.0:
            for k in range(z.size):
                e[k] += z[k]
            out[r] = mass * (_logsumexp(e) - log_total)
            continue
        _expm1_rows(e)
        grown = 0.0
        for k in range(z.size):
            grown += probabilities[k] * e[k]
        if grown > -0.5:
            out[r] = mass * math.log1p(grown)
            continue
        grown = 0.0
        for k in range(z.size):
            grown += probabilities[k] * math.exp(d[r, k] - mean)
        out[r] = mass * math.log(grown)


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
    for r in range(d.shape[0]):
        grown = 0.0
        for k in range(z.size):
            if t[k] != 1.0:
                grown += (1.0 - t[k]) * softplus_difference(z[k], d[r, k])
            if t[k] != 0.0:
                grown += t[k] * softplus_difference(-z[k], -d[r, k])
        out[r] = grown


@scalar_kernel
def _squared_value(z: Floats, t: Floats, p: float) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += 0.5 * (z[k] - t[k]) ** 2
    return loss


@scalar_kernel
def _squared_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    for r in range(d.shape[0]):
        grown = 0.0
        for k in range(z.size):
            grown += d[r, k] * ((z[k] - t[k]) + 0.5 * d[r, k])
        out[r] = grown


@scalar_kernel
def _mean_squared_value(z: Floats, t: Floats, p: float) -> float:
    return 2.0 * _squared_value(z, t, p) / z.size


@scalar_kernel
def _mean_squared_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    _squared_difference(z, t, p, d, out)
    for r in range(out.size):
        out[r] *= 2.0 / z.size


@scalar_kernel
def _huber_value(z: Floats, t: Floats, p: float) -> float:
    loss = 0.0
    for k in range(z.size):
        r = abs(z[k] - t[k])
        loss += 0.5 * r * r if r <= p else p * (r - 0.5 * p)
    return loss


@scalar_kernel
def _huber_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    for row in range(d.shape[0]):
        grown = 0.0
        for k in range(z.size):
            r = z[k] - t[k]
            w = r + d[row, k]
            if abs(r) <= p and abs(w) <= p:
                grown += d[row, k] * (r + 0.5 * d[row, k])
            elif min(r, w) >= p:
                grown += p * d[row, k]
            elif max(r, w) <= -p:
                grown -= p * d[row, k]
            else:
                inner, outer = min(max(r, -p), p), min(max(w, -p), p)
                grown += 0.5 * (outer - inner) * (outer + inner)
                grown += p * (max(abs(w) - p, 0.0) - max(abs(r) - p, 0.0))
        out[row] = grown


_ENTRIES = (
    Loss(
        "softmax_cross_entropy", 0, _softmax_value, _softmax_difference,
        lambda Z, T, p: T.sum(1, keepdims=True) * special.softmax(Z, axis=1) - T,
        targets="probabilities",
    ),
    Loss(
        "sigmoid_cross_entropy", 1, _sigmoid_value, _sigmoid_difference,
        lambda Z, T, p: np.asarray((1.0 - T) * special.expit(Z) - T * special.expit(-Z)),
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


def _value_step(entry: Loss) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    code, value = entry.code, entry.value

    def step(rest: Callable[..., Any]) -> Callable[..., Any]:
        @scalar_kernel
        def value_or(which: int, p: float, z: Floats, t: Floats, custom: Any) -> float:
            if which == code:
                return value(z, t, p)  # type: ignore[no-any-return]
            return rest(which, p, z, t, custom)  # type: ignore[no-any-return]

        return value_or

    return step


@scalar_kernel
def _custom_value(which: int, p: float, z: Floats, t: Floats, custom: Any) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += custom(z[k], t[k])
    return loss


def _change_step(entry: Loss) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    code, difference = entry.code, entry.difference

    def step(rest: Callable[..., Any]) -> Callable[..., Any]:
        @scalar_kernel
        def change_or(
            which: int, p: float, z: Floats, t: Floats, d: Floats, out: Floats, custom: Any
        ) -> None:
            if which == code:
                difference(z, t, p, d, out)
            else:
                rest(which, p, z, t, d, out, custom)

        return change_or

    return step


@scalar_kernel
def _custom_change(
    which: int, p: float, z: Floats, t: Floats, d: Floats, out: Floats, custom: Any
) -> None:
    for r in range(d.shape[0]):
        grown = 0.0
        for k in range(z.size):
            grown += custom(z[k] + d[r, k], t[k]) - custom(z[k], t[k])
        out[r] = grown


# loss_value(code, p, z, t, custom) -> ℓ of one sample.
loss_value = compose([_value_step(entry) for entry in _ENTRIES], _custom_value)
# loss_change(code, p, z, t, d, out, custom): out[r] = ℓ(z + d[r]) − ℓ(z) of one sample.
loss_change = compose([_change_step(entry) for entry in _ENTRIES], _custom_change)
