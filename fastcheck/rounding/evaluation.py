"""How exactly activations and losses are evaluated when every operation rounds.

Errors are given in units of the unit roundoff u: the absolute error of a value is `u · error`.
Those of the table's own functions are in `kernels/evaluation_errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy  # its parts are imported at their first use
from numpy.typing import NDArray

from fastcheck.kernels.activations import Activation
from fastcheck.kernels.evaluation_errors import Limits
from fastcheck.kernels.rounding import add_kink_variance
from fastcheck.model.network import ActivationSpec, LossSpec
from fastcheck.rounding.precision import MEAN_SQUARE, Precision
from fastcheck.types import Floats

__all__ = [
    "SIDES",
    "OutputGradient",
    "evaluation_errors",
    "exact_sums",
    "kink_variance",
    "on_kinks",
    "output_gradient",
    "rounded_constants",
    "second_derivative",
    "slope",
    "slope_by_side",
    "slope_spread",
    "underflow_growth",
]

Errors = tuple[Floats, Floats]

STEP = 1e-4  # of the differences that stand for a derivative which no table has
BESIDE = 1e-9  # how far from a kink its one-sided slopes are taken
# How backward passes take units that lie on a kink, by their one-sided slopes.
SIDES = ("left", "right", "flatter", "steeper")


def _map(function: Callable[..., Any], *arrays: Floats) -> Floats:
    """Apply a scalar function of the user's to every element."""
    inner = getattr(function, "py_func", function)
    values = [float(inner(*map(float, row))) for row in zip(*(a.flat for a in arrays), strict=True)]
    return np.array(values).reshape(arrays[0].shape)


def slope(activation: ActivationSpec, Z: Floats) -> Floats:
    """Return φ'(Z); for the user's own activation by a difference of its values."""
    if activation.entry is not None:
        return activation.entry.derivative(Z, activation.parameter)
    assert activation.function is not None
    above, below = (_map(activation.function, Z + step) for step in (STEP, -STEP))
    return (above - below) / (2.0 * STEP)


def slope_by_side(activation: ActivationSpec, Z: Floats, side: str) -> Floats:
    """Return φ'(Z), on a kink the slope of one side: one of `SIDES`."""
    slopes = slope(activation, Z)
    if activation.entry is None:
        return slopes
    for kink in activation.entry.kinks:
        on = np.equal(Z, kink)
        if on.any():
            beside = np.array([kink - BESIDE, kink + BESIDE])
            left, right = activation.entry.derivative(beside, activation.parameter)
            ways = (left, right, *sorted((left, right), key=abs))
            slopes[on] = dict(zip(SIDES, ways, strict=True))[side]
    return slopes


def evaluation_errors(
    activation: ActivationSpec, Z: Floats, A: Floats, slopes: Floats, limits: Limits
) -> Errors | None:
    """Return the errors of φ(Z) = A and of its slope in units of u; None where both are exact."""
    if activation.entry is None:
        return np.abs(A) + np.abs(Z * slopes), np.abs(slopes) + np.max(np.abs(slopes), initial=0.0)
    errors = activation.entry.evaluation.errors
    return None if errors is None else errors(Z, A, activation.parameter, limits)


def underflow_growth(activation: ActivationSpec, Z: Floats) -> float | Floats:
    """Return by how much a gate that underflows grows, squared: gates are multiplied by z."""
    if activation.entry is None or activation.entry.evaluation.gated:
        return np.asarray((1.0 + np.abs(Z)) ** 2)
    return 1.0


def rounded_constants(activation: ActivationSpec, Z: Floats, precision: Precision) -> Floats:
    """Return the relative variance of φ(Z) that comes of constants which are rounded."""
    entry = activation.entry
    if entry is None or entry.evaluation.constants is None:
        return np.zeros_like(Z)
    below, above = (
        0.0 if precision.holds(np.array([constant])) else MEAN_SQUARE
        for constant in entry.evaluation.constants(activation.parameter)
    )
    return np.where(Z > 0.0, above, below)


# Where |z − kink| is t·σ_z, the unit is on the other side with a chance of about exp(−t²/2)/2. The
# chance is never taken below these, so that single rare crossings are covered too.
LEAST_CHANCE = np.array([(4.0, 0.04), (6.0, 0.01), (10.0, 0.002)])
# In float64 a unit within rounding of a kink is within ±ε of it, too: its slopes are in the
# accepted interval already, and 30 standard deviations of a bounded jump would hide everything.
FINE_ROUNDOFF, MOST_CHANCE_BESIDE_INTERVALS = 1e-12, 0.01


def on_kinks(activation: ActivationSpec, Z: Floats) -> NDArray[np.bool_]:
    """Return which units lie on a kink."""
    return np.isin(Z, activation.kinks)


def exact_sums(A: Floats, W: Floats, b: Floats | None, u: float) -> NDArray[np.bool_]:
    """Return which rows' sums Σ_j A[r, j] W[r, j] + b[r] are exact in any order.

    They are where all terms are multiples of one power of two, and few of these are in the sum of
    their absolute values.

    Parameters
    ----------
    A, W : ndarray, shape (r, n), float64
    b : ndarray, shape (r,), float64, or None
    u : float
        Unit roundoff.
    """
    quanta = np.where(A * W == 0.0, np.inf, _lowest_bits(A) * _lowest_bits(W)).min(axis=1)
    size = np.abs(A * W).sum(axis=1)
    if b is not None:
        quanta = np.minimum(quanta, np.where(b == 0.0, np.inf, _lowest_bits(b)))
        size = size + np.abs(b)
    return np.asarray(size * u <= quanta)


def _lowest_bits(values: Floats) -> Floats:
    """Return the greatest power of two that each value is a multiple of; 0 for 0."""
    fractions, exponents = np.frexp(values)
    digits = np.ldexp(fractions, 53).astype(np.int64)
    return np.asarray(np.ldexp((digits & -digits).astype(np.float64), exponents - 53))


def kink_variance(activation: ActivationSpec, Z: Floats, variance: Floats, u: float) -> Floats:
    """Return the variance of φ'(Z) that comes of units within 10σ_z of a kink, in units of u²."""
    total = np.zeros_like(Z)
    most = MOST_CHANCE_BESIDE_INTERVALS if u < FINE_ROUNDOFF else 1.0
    for kink, jump in _slope_jumps(activation):
        here = np.zeros_like(Z)
        add_kink_variance(Z, kink, jump, variance, u, LEAST_CHANCE, here)
        total += np.minimum(here, most * (jump / u) ** 2)
    return total


def _slope_jumps(activation: ActivationSpec) -> list[tuple[float, float]]:
    """Return where φ' jumps, and by how much."""
    return [] if activation.entry is None else _jumps(activation.entry, activation.parameter)


@cache
def _jumps(entry: Activation, parameter: float) -> list[tuple[float, float]]:
    jumps = []
    for kink in entry.kinks:
        sides = np.array([kink - BESIDE, kink + BESIDE])
        low, high = entry.derivative(sides, parameter)
        if abs(high - low) > 1e-6:
            jumps.append((kink, float(abs(high - low))))
    return jumps


def second_derivative(
    activation: ActivationSpec, Z: Floats, slopes: Floats, deviation: Floats
) -> Floats:
    """Return φ''(Z) as a secant over σ_z, or a tangent.

    The secant stays on Z's side of 0, where the kinks of the curved activations are.
    """
    step = np.copysign(np.maximum(deviation, STEP), Z)
    step = np.where(np.abs(step) < np.abs(Z), -step, step)
    return np.asarray((slope(activation, Z + step) - slopes) / step)


def slope_spread(
    activation: ActivationSpec, Z: Floats, second_derivatives: Floats, deviation: Floats
) -> Floats:
    """Return the standard deviation of φ'(Z) that comes of Z's."""
    spread = np.abs(second_derivatives) * deviation
    wide = np.nonzero(deviation > 0.1)
    if wide[0].size:
        spread[wide] = _wide_spread(activation, Z[wide], deviation[wide], spread[wide])
    return spread


def _wide_spread(
    activation: ActivationSpec, Z: Floats, deviation: Floats, spread: Floats
) -> Floats:
    """Return the spread of φ' where σ_z is as large as the curve's own bend, as at a kink."""
    here = slope(activation, Z)
    for reach, least in LEAST_CHANCE:
        for step in (reach * deviation, -reach * deviation):
            moved = np.abs(slope(activation, Z + step) - here)
            spread = np.maximum(spread, np.sqrt(least) * moved)
    return spread


@dataclass(frozen=True)
class OutputGradient:
    """∂ℓ/∂a of the outputs, what rounding does to it, and the diagonal of the Hessian.

    Attributes
    ----------
    value : ndarray, shape (m, K)
    moved : ndarray, shape (m, K)
        Variance that comes of the outputs' own, in units of u².
    evaluated : ndarray, shape (m, K)
        Variance that comes of the evaluation, in units of u².
    curvature : ndarray, shape (m, K)
        ∂²ℓ/∂a².
    chances : ndarray, shape (m, K), or None
        p of the softmax, whose Hessian is diag(p) − ppᵀ.
    """

    value: Floats
    moved: Floats
    evaluated: Floats
    curvature: Floats
    chances: Floats | None = None

    def change(self, errors: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return what errors (r, K) of the outputs of some samples do to their gradients."""
        if self.chances is None:
            return np.asarray(self.curvature[rows] * errors)
        p = self.chances[rows]
        return np.asarray(p * (errors - (p * errors).sum(axis=1, keepdims=True)))


def output_gradient(
    loss: LossSpec, A: Floats, T: Floats, variance: Floats, limits: Limits
) -> OutputGradient:
    """Return ∂ℓ/∂a for outputs A of a given variance (in units of u²)."""
    if loss.entry is None:
        return _custom_gradient(loss, A, T, variance)
    entry, p, u = loss.entry, loss.parameter, limits.u
    value = entry.output_gradient(A, T, p)
    evaluated = MEAN_SQUARE * entry.evaluation(A, T, p, value, limits)
    deviation = u * np.sqrt(variance)
    curvature = entry.curvature(A, T, p, 6.0 * deviation)
    if entry.probabilities is not None:
        chances = entry.probabilities(A)
        moved = _moved_softmax(A, T, variance, chances, u)
        return OutputGradient(value, moved, evaluated, curvature, chances)
    moved = curvature**2 * variance
    wide = np.nonzero(deviation > 0.1)
    if wide[0].size:
        jumps = _wide_jumps(lambda Z: entry.output_gradient(Z, T, p), A, value, deviation)
        moved[wide] = np.maximum(moved, jumps / u**2)[wide]
    return OutputGradient(value, moved, evaluated, curvature)


def _wide_jumps(
    gradient: Callable[[Floats], Floats], A: Floats, value: Floats, deviation: Floats
) -> Floats:
    """Return the least variance of a gradient where A is so uncertain that it is a step."""
    moved = np.zeros_like(A)
    for reach, least in LEAST_CHANCE:
        for step in (reach * deviation, -reach * deviation):
            moved = np.maximum(moved, least * (gradient(A + step) - value) ** 2)
    return moved


def _wide_chance(A: Floats, variance: Floats, u: float) -> Floats:
    """Return the least variance of σ(A) where A is so uncertain that σ is a step."""
    deviation = u * np.sqrt(variance)
    if not np.any(deviation > 0.1):
        return np.zeros_like(A)
    jumps = _wide_jumps(scipy.special.expit, A, scipy.special.expit(A), deviation)
    return np.where(deviation > 0.1, jumps / u**2, 0.0)


def _greatest_other(A: Floats) -> Floats:
    """Return the greatest of the other outputs of the same sample; −inf where there is none."""
    if A.shape[1] == 1:
        return np.full_like(A, -np.inf)
    top = np.partition(A, -2, axis=1)[:, -2:]
    return np.where(top[:, 1:] == A, top[:, :1], top[:, 1:])


def _moved_softmax(A: Floats, T: Floats, variance: Floats, p: Floats, u: float) -> Floats:
    """Return the variance of softmax that comes of A's: dp_k = p_k (dz_k − Σ p_j dz_j)."""
    mass = T.sum(axis=1, keepdims=True)
    common = (p**2 * variance).sum(axis=1, keepdims=True)
    moved = p**2 * (np.maximum(1.0 - 2.0 * p, 0.0) * variance + common)
    ahead = A - _greatest_other(A)
    return np.asarray(mass**2 * np.maximum(moved, _wide_chance(ahead, variance + common, u)))


def _custom_gradient(loss: LossSpec, A: Floats, T: Floats, variance: Floats) -> OutputGradient:
    """Take slope and curvature from differences of the user's own loss."""
    assert loss.function is not None
    below, here, above = (_map(loss.function, A + d, T) for d in (-STEP, 0.0, STEP))
    value = (above - below) / (2.0 * STEP)
    curvature = (above - 2.0 * here + below) / STEP**2
    evaluated = MEAN_SQUARE * (3.0 * value**2 + (curvature * A) ** 2)
    return OutputGradient(value, curvature**2 * variance, evaluated, curvature)
