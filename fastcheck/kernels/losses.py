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

from fastcheck.kernels import evaluation_errors as evaluation
from fastcheck.kernels.activations import (
    expit,
    softplus_difference,
    softplus_value,
)
from fastcheck.kernels.arrays import fill
from fastcheck.kernels.compiling import part_kernel, scalar_kernel
from fastcheck.kernels.evaluation_errors import Limits
from fastcheck.types import Floats

__all__ = ["LOSSES", "Loss"]


SERIES_THRESHOLD = 2.0**-7  # below it, the series of expm1 and log1p serve


def _no_corners(p: float) -> tuple[float, ...]:
    return ()


@dataclass(frozen=True)
class Loss:
    """One entry of the table.

    Attributes
    ----------
    name : str
    value : callable
        Kernel `(z, t, p) -> ℓ` for one sample; z, t shape (K,).
    difference : callable
        Kernel `(z, t, p, d, out)`: out[c] = ℓ(z + d[:, c]) − ℓ(z); d (K, columns) is overwritten.
    odd : callable
        Kernel `(z, t, p, up, down, out)`: out[c] = (ℓ(z + up[:, c]) − ℓ(z + down[:, c])) / 2 where
        up and down are nearly opposite, so that what both sides share never cancels; up and down
        (K, columns) are overwritten.
    output_gradient : callable
        NumPy `(Z, T, p) -> ∂ℓ/∂z`, shape (m, K), for the reference backward pass.
    curvature : callable
        NumPy `(Z, T, p, reach) -> ∂²ℓ/∂z²`, shape (m, K): the largest within ± reach.
    evaluation : callable
        NumPy `(Z, T, p, ∂ℓ/∂z, limits) -> squared errors`, shape (m, K), in units of u²: what
        rounding does to ∂ℓ/∂z as backward passes evaluate it.
    probabilities : callable or None
        NumPy `Z -> P`, shape (m, K), where the Hessian is Σt · (diag p − p pᵀ); None where it is
        diagonal.
    second, third : float
        About the largest second and third derivative of ℓ by one output.
    targets : str
        What targets may be: `"probabilities"`, `"unit interval"` or `"real"`.
    parameter : float or None
        Default of the parameter (Huber's δ), None where there is none.
    corners : callable
        `p -> residuals`: at which values of z − t, of any output, ℓ is not analytic.
    """

    name: str
    value: Callable[..., Any]
    difference: Callable[..., Any]
    odd: Callable[..., Any]
    output_gradient: Callable[[Floats, Floats, float], Floats]
    curvature: Callable[[Floats, Floats, float, Floats], Floats]
    evaluation: Callable[[Floats, Floats, float, Floats, Limits], Floats]
    probabilities: Callable[[Floats], Floats] | None = None
    second: float = 1.0
    third: float = 0.0
    targets: str = "real"
    parameter: float | None = None
    corners: Callable[[float], tuple[float, ...]] = _no_corners


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
    for k in range(values.shape[0]):
        for c in range(values.shape[1]):
            large += abs(values[k, c]) >= SERIES_THRESHOLD
    return large == 0


@part_kernel
def _greatest(values: Floats) -> float:
    """The largest, which is finite."""
    best = float(values[0])
    for k in range(1, values.size):
        best = max(best, values[k])
    return best


@part_kernel
def _column(values: Floats, c: int, out: Floats) -> None:
    """Copy a column."""
    for k in range(out.size):
        out[k] = values[k, c]


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
    fill(mean, 0.0)
    for k in range(t.size):
        if t[k] != 0.0:
            share = t[k] / mass
            for c in range(mean.size):
                mean[c] += share * d[k, c]
    for k in range(t.size):
        for c in range(mean.size):
            d[k, c] -= mean[c]


@part_kernel
def _softmax_chances(z: Floats, t: Floats, below: Floats, chances: Floats) -> tuple[float, float]:
    """Write z − max z and the softmax of z; return log Σ exp(z − max z) and Σ t."""
    log_total = _below_top(z, below)
    mass = 0.0
    for k in range(z.size):
        chances[k] = math.exp(below[k] - log_total)
        mass += t[k]
    return log_total, mass


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
    moved = np.empty(e.size)
    for k in range(e.size):
        moved[k] = below[k] + e[k]
    return _greatest(moved) + _below_top(moved, e) - log_total


@scalar_kernel
def _softmax_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    # With e = d − Σ t d / Σ t the loss grows by Σt · log1p(Σ_k p_k expm1(e_k)): for a one-hot
    # target the term that would cancel, p_y expm1(e_y), is zero.
    below, chances = np.empty(z.size), np.empty(z.size)
    log_total, mass = _softmax_chances(z, t, below, chances)
    _subtract_target_mean(t, mass, d, out)
    if not _all_small(d):
        for c in range(out.size):
            _column(d, c, chances)
            out[c] = mass * _softmax_large(below, log_total, chances)
        return
    fill(out, 0.0)
    for k in range(z.size):
        share = chances[k]
        for c in range(out.size):
            out[c] += share * _expm1_small(d[k, c])
    for c in range(out.size):
        out[c] = mass * _log1p_small(out[c])


@part_kernel
def _softmax_odd_large(below: Floats, down: Floats, wide: Floats) -> float:
    """log Σ_k π_k exp(wide_k) of one column, π the softmax of below + down; overwrites both."""
    moved = np.empty(wide.size)
    for k in range(wide.size):
        moved[k] = below[k] + down[k]
    start = _greatest(moved)
    top = grown = total = 0.0
    for k in range(wide.size):
        weight = math.exp(moved[k] - start)
        total += weight
        top = max(top, wide[k])
        grown += weight * math.expm1(min(wide[k], 600.0))
    grown /= total
    if top <= 500.0 and grown > -0.5:
        return math.log1p(grown)
    for k in range(wide.size):
        wide[k] += moved[k]
    rise = _greatest(wide) - start
    return rise + _below_top(wide, down) - _below_top(moved, down)


@scalar_kernel
def _softmax_odd(z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats) -> None:
    # From one side to the other: Σt · log1p(Σ_k π_k expm1(w_k)), w the whole way and π the softmax
    # at the lower end, both with the targets' mean taken off.
    below, chances = np.empty(z.size), np.empty(z.size)
    _, mass = _softmax_chances(z, t, below, chances)
    for k in range(z.size):
        for c in range(out.size):
            up[k, c] -= down[k, c]
    _subtract_target_mean(t, mass, up, out)
    _subtract_target_mean(t, mass, down, out)
    if not (_all_small(up) and _all_small(down)):
        wide = np.empty(z.size)
        for c in range(out.size):
            _column(down, c, chances)
            _column(up, c, wide)
            out[c] = 0.5 * mass * _softmax_odd_large(below, chances, wide)
        return
    base = np.empty(out.size)
    fill(base, 1.0)
    fill(out, 0.0)
    for k in range(z.size):
        share = chances[k]
        for c in range(out.size):
            there = share * _expm1_small(down[k, c])
            base[c] += there
            out[c] += (share + there) * _expm1_small(up[k, c])
    for c in range(out.size):
        out[c] = 0.5 * mass * _log1p_small(out[c] / base[c])


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
    fill(out, 0.0)
    for k in range(z.size):
        for c in range(out.size):
            if t[k] != 1.0:
                out[c] += (1.0 - t[k]) * softplus_difference(z[k], d[k, c])
            if t[k] != 0.0:
                out[c] += t[k] * softplus_difference(-z[k], -d[k, c])


@scalar_kernel
def _sigmoid_odd(z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats) -> None:
    fill(out, 0.0)
    for k in range(z.size):
        for c in range(out.size):
            above, below = up[k, c], down[k, c]
            if abs(z[k]) + abs(above) + abs(below) < 0.5 and 0.0 < t[k] < 1.0:
                # (1/2 − t) z + log 2cosh(z/2), which is even: near 0 its slope keeps its digits.
                rise = 2.0 * math.sinh(0.5 * z[k] + 0.25 * (above + below))
                rise *= math.sinh(0.25 * (above - below)) / math.cosh(0.5 * (z[k] + below))
                out[c] += 0.5 * ((above - below) * (0.5 - t[k]) + math.log1p(rise))
                continue
            if t[k] != 1.0:
                rise = softplus_difference(z[k], above) - softplus_difference(z[k], below)
                out[c] += 0.5 * (1.0 - t[k]) * rise
            if t[k] != 0.0:
                rise = softplus_difference(-z[k], -above) - softplus_difference(-z[k], -below)
                out[c] += 0.5 * t[k] * rise


@scalar_kernel
def _squared_value(z: Floats, t: Floats, p: float) -> float:
    loss = 0.0
    for k in range(z.size):
        loss += 0.5 * (z[k] - t[k]) ** 2
    return loss


@scalar_kernel
def _squared_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    fill(out, 0.0)
    for k in range(z.size):
        residual = z[k] - t[k]
        for c in range(out.size):
            out[c] += d[k, c] * (residual + 0.5 * d[k, c])


@scalar_kernel
def _squared_odd(z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats) -> None:
    fill(out, 0.0)
    for k in range(z.size):
        residual = z[k] - t[k]
        for c in range(out.size):
            half = 0.5 * (up[k, c] - down[k, c])
            out[c] += half * (residual + 0.5 * (up[k, c] + down[k, c]))


@scalar_kernel
def _mean_squared_odd(
    z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats
) -> None:
    _squared_odd(z, t, p, up, down, out)
    for c in range(out.size):
        out[c] *= 2.0 / z.size


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
    if d < 0.0:
        r, d = -r, -d
    # How much of d lies below −p, above p and between: no length cancels.
    below = min(max(-p - r, 0.0), d)
    above = d - min(max(p - r, 0.0), d)
    inside = d - below - above
    return inside * (r + below + 0.5 * inside) + p * (above - below)


@scalar_kernel
def _huber_difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
    fill(out, 0.0)
    for k in range(z.size):
        for c in range(out.size):
            out[c] += _huber_grown(z[k] - t[k], d[k, c], p)


@scalar_kernel
def _huber_odd(z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats) -> None:
    fill(out, 0.0)
    for k in range(z.size):
        r = z[k] - t[k]
        for c in range(out.size):
            above, below = r + up[k, c], r + down[k, c]
            if max(abs(above), abs(below)) <= p:
                out[c] += 0.5 * (up[k, c] - down[k, c]) * (r + 0.5 * (up[k, c] + down[k, c]))
            elif min(above, below) >= p:
                out[c] += 0.5 * p * (up[k, c] - down[k, c])
            elif max(above, below) <= -p:
                out[c] -= 0.5 * p * (up[k, c] - down[k, c])
            else:
                out[c] += 0.5 * (_huber_grown(r, up[k, c], p) - _huber_grown(r, down[k, c], p))


def _softmax(Z: Floats) -> Floats:
    """Softmax of each row in NumPy, for the output gradient."""
    powers = np.exp(Z - Z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _softmax_curvature(Z: Floats, T: Floats, p: float, reach: Floats) -> Floats:
    chances = _softmax(Z)
    return np.asarray(T.sum(axis=1, keepdims=True) * chances * (1.0 - chances))


_ENTRIES = (
    Loss(
        "softmax_cross_entropy", _softmax_value, _softmax_difference, _softmax_odd,
        lambda Z, T, p: T.sum(1, keepdims=True) * _softmax(Z) - T,
        _softmax_curvature, evaluation.softmax_errors, _softmax,
        targets="probabilities", second=0.25, third=0.1,
    ),
    Loss(
        "sigmoid_cross_entropy", _sigmoid_value, _sigmoid_difference, _sigmoid_odd,
        lambda Z, T, p: np.asarray((1.0 - T) * expit(Z) - T * expit(-Z)),
        lambda Z, T, p, reach: expit(Z) * expit(-Z), evaluation.chance_errors,
        targets="unit interval", second=0.25, third=0.1,
    ),
    Loss(
        "squared_error", _squared_value, _squared_difference, _squared_odd,
        lambda Z, T, p: Z - T,
        lambda Z, T, p, reach: np.ones_like(Z), evaluation.residual_errors,
    ),
    Loss(
        "mean_squared_error", _mean_squared_value, _mean_squared_difference, _mean_squared_odd,
        lambda Z, T, p: 2.0 * (Z - T) / Z.shape[1],
        lambda Z, T, p, reach: np.full_like(Z, 2.0 / Z.shape[1]), evaluation.residual_errors,
        second=2.0,
    ),
    Loss(
        "huber", _huber_value, _huber_difference, _huber_odd,
        lambda Z, T, p: np.clip(Z - T, -p, p),
        lambda Z, T, p, reach: np.where(np.abs(Z - T) <= p + reach, 1.0, 0.0),
        evaluation.residual_errors, parameter=1.0, corners=lambda p: (-p, p),
    ),
)  # fmt: skip

LOSSES: dict[str, Loss] = {entry.name: entry for entry in _ENTRIES}
