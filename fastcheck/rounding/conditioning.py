"""How exactly activations and losses are evaluated when every operation rounds.

Errors are given in units of the unit roundoff u: the absolute error of a value is `u · error`. They
follow the formulas that backward passes use (`1 − a²` for tanh, `½z(1 + erf(z/√2))` for GELU, …),
which cancel where the tables of `kernels/` do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fastcheck.kernels.activations import SELU_ALPHA, SELU_SCALE, Activation
from fastcheck.kernels.rounding import add_undecided
from fastcheck.network import BoundActivation, BoundLoss
from fastcheck.rounding.arithmetic import MEAN_SQUARE

__all__ = [
    "SIDES",
    "OutputGradient",
    "bend",
    "evaluation_errors",
    "exact_sums",
    "on_kinks",
    "output_gradient",
    "slope",
    "slope_by_side",
    "slope_spread",
    "undecided",
    "underflow_growth",
]

Floats = NDArray[np.float64]
Errors = tuple[Floats, Floats]

STEP = 1e-4  # of the differences that stand for a derivative which no table has
BESIDE = 1e-9  # how far from a kink its one-sided slopes are taken
# How backward passes take units that lie on a kink, by their one-sided slopes.
SIDES = ("left", "right", "flatter", "steeper")


def _saturating(Z: Floats, A: Floats, p: float) -> Errors:
    """`1 − a²` and `a(1 − a)`: the slope has the absolute error of a."""
    return np.abs(A), np.abs(A)


def _exponential(Z: Floats, A: Floats, p: float) -> Errors:
    """`p(e^z − 1)`, whose slope is `a + p`: absolute errors near p below zero."""
    return np.where(Z > 0, np.abs(A), p), np.where(Z > 0, 0.0, p)


def _gaussian(Z: Floats, A: Floats, p: float) -> Errors:
    """`½z(1 + erf)` and its slope, a cdf from `1 + erf` and a density."""
    size = np.minimum(np.abs(Z), 12.0)  # beyond, 1 + erf is exact
    return 0.5 * np.abs(Z), 0.5 + size * (1.0 + size * size) * 0.4 * np.exp(-0.5 * size * size)


def _gated_tanh(Z: Floats, A: Floats, p: float) -> Errors:
    """`½z(1 + tanh v)`, v a cubic of z; in its slope `1 − tanh²` meets z·v'."""
    size = np.minimum(np.abs(Z), 8.0)
    decay = np.exp(-np.maximum(1.6 * size + 0.0714 * size**3 - 37.0, 0.0))  # tanh is 1 from there
    return 0.5 * np.abs(Z), 0.5 + size * (0.4 + 0.054 * size * size) * decay


def _gated(Z: Floats, A: Floats, p: float) -> Errors:
    """`z·σ(z)` and its like: in the slope z meets `1 − σ`."""
    gate = special.expit(Z)
    return np.abs(A), gate * (1.0 + np.minimum(np.abs(Z), 40.0))


def _rational(Z: Floats, A: Floats, p: float) -> Errors:
    return np.abs(A), 1.0 / (1.0 + np.abs(Z))


def _softplus(Z: Floats, A: Floats, p: float) -> Errors:
    return np.abs(A), special.expit(Z)


def _scaled(Z: Floats, A: Floats, p: float) -> Errors:
    """Piecewise linear: a product with a constant, and the constant's own rounding."""
    return np.abs(A), np.zeros_like(A)


# What an activation's value and slope may miss; an entry that is not here is taken as unknown.
EVALUATION: dict[str, Callable[[Floats, Floats, float], Errors]] = {
    "identity": _scaled, "relu": _scaled, "leaky_relu": _scaled,
    "hardtanh": _scaled, "relu6": _scaled,
    "elu": _exponential,
    "selu": lambda Z, A, p: _exponential(Z, A, SELU_SCALE * SELU_ALPHA),
    "softplus": _softplus, "sigmoid": _saturating, "tanh": _saturating,
    "silu": _gated, "mish": _gated, "gelu": _gaussian, "gelu_tanh": _gated_tanh,
    "softsign": _rational,
}  # fmt: skip
GATED = frozenset({"silu", "mish", "gelu", "gelu_tanh"})
EXACT = frozenset({"identity", "relu", "hardtanh", "relu6"})


def _map(function: Callable[..., Any], *arrays: Floats) -> Floats:
    """Apply a scalar function of the user's to every element."""
    inner = getattr(function, "py_func", function)
    values = [float(inner(*map(float, row))) for row in zip(*(a.flat for a in arrays), strict=True)]
    return np.array(values).reshape(arrays[0].shape)


def slope(activation: BoundActivation, Z: Floats) -> Floats:
    """Return φ'(Z); for the user's own activation by a difference of its values."""
    if activation.entry is not None:
        return activation.entry.derivative(Z, activation.parameter)
    assert activation.function is not None
    above, below = (_map(activation.function, Z + step) for step in (STEP, -STEP))
    return (above - below) / (2.0 * STEP)


def slope_by_side(activation: BoundActivation, Z: Floats, side: str) -> Floats:
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
    activation: BoundActivation, Z: Floats, A: Floats, slopes: Floats
) -> Errors | None:
    """Return the errors of φ(Z) = A and of its slope in units of u; None where both are exact."""
    if activation.entry is None or activation.name not in EVALUATION:
        return np.abs(A) + np.abs(Z * slopes), np.abs(slopes) + np.max(np.abs(slopes), initial=0.0)
    if activation.name in EXACT:
        return None
    return EVALUATION[activation.name](Z, A, activation.parameter)


def underflow_growth(activation: BoundActivation, Z: Floats) -> float | Floats:
    """Return by how much a gate that underflows grows, squared: gates are multiplied by z."""
    if activation.entry is None or activation.name in GATED:
        return np.asarray((1.0 + np.abs(Z)) ** 2)
    return 1.0


# Where |z − kink| is t·σ_z, the unit is on the other side with a chance of about exp(−t²/2)/2. The
# chance is never taken below these, so that single rare crossings are covered too.
LEAST_CHANCE = np.array([(4.0, 0.04), (6.0, 0.01), (10.0, 0.002)])


def on_kinks(activation: BoundActivation, Z: Floats) -> NDArray[np.bool_]:
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


def undecided(activation: BoundActivation, Z: Floats, variance: Floats, u: float) -> Floats:
    """Return the variance of φ'(Z) that comes of units within 10σ_z of a kink, in units of u²."""
    total = np.zeros_like(Z)
    for kink, jump in _slope_jumps(activation):
        add_undecided(Z, kink, jump, variance, u, LEAST_CHANCE, total)
    return total


def _slope_jumps(activation: BoundActivation) -> list[tuple[float, float]]:
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


def bend(activation: BoundActivation, Z: Floats, slopes: Floats, deviation: Floats) -> Floats:
    """Return φ''(Z) as a secant over σ_z, or a tangent.

    The secant stays on Z's side of 0, where the kinks of the curved activations are.
    """
    step = np.copysign(np.maximum(deviation, STEP), Z)
    step = np.where(np.abs(step) < np.abs(Z), -step, step)
    return np.asarray((slope(activation, Z + step) - slopes) / step)


def slope_spread(
    activation: BoundActivation, Z: Floats, bends: Floats, deviation: Floats
) -> Floats:
    """Return the standard deviation of φ'(Z) that comes of Z's."""
    spread = np.abs(bends) * deviation
    wide = np.nonzero(deviation > 0.1)
    if wide[0].size:
        spread[wide] = _wide_spread(activation, Z[wide], deviation[wide], spread[wide])
    return spread


def _wide_spread(
    activation: BoundActivation, Z: Floats, deviation: Floats, spread: Floats
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
    loss: BoundLoss, A: Floats, T: Floats, variance: Floats, u: float
) -> OutputGradient:
    """Return ∂ℓ/∂a for outputs A of a given variance (in units of u²)."""
    if loss.entry is None:
        return _custom_gradient(loss, A, T, variance)
    value = loss.entry.output_gradient(A, T, loss.parameter)
    if loss.name == "softmax_cross_entropy":
        return _softmax_gradient(value, A, T, variance, u)
    if loss.name == "sigmoid_cross_entropy":
        chance = special.expit(A)
        curvature = chance * special.expit(-A)
        evaluated = MEAN_SQUARE * (2.0 * chance**2 + value**2)
        moved = np.maximum(curvature**2 * variance, _wide_chance(A, variance, u))
        return OutputGradient(value, moved, evaluated, curvature)
    curvature = np.full_like(A, 2.0 / A.shape[1] if loss.name == "mean_squared_error" else 1.0)
    if loss.name == "huber":
        reach = 6.0 * u * np.sqrt(variance)
        curvature[np.abs(A - T) > loss.parameter + reach] = 0.0
    evaluated = 2.0 * MEAN_SQUARE * value**2
    return OutputGradient(value, curvature**2 * variance, evaluated, curvature)


def _wide_chance(A: Floats, variance: Floats, u: float) -> Floats:
    """Return the least variance of σ(A) where A is so uncertain that σ is a step."""
    moved = np.zeros_like(A)
    deviation = u * np.sqrt(variance)
    wide = np.nonzero(deviation > 0.1)
    if wide[0].size:
        here = special.expit(A[wide])
        for reach, least in LEAST_CHANCE:
            for step in (reach * deviation[wide], -reach * deviation[wide]):
                size = least * (special.expit(A[wide] + step) - here) ** 2 / u**2
                moved[wide] = np.maximum(moved[wide], size)
    return moved


def _greatest_other(A: Floats) -> Floats:
    """Return the greatest of the other outputs of the same sample; −inf where there is none."""
    if A.shape[1] == 1:
        return np.full_like(A, -np.inf)
    top = np.partition(A, -2, axis=1)[:, -2:]
    return np.where(top[:, 1:] == A, top[:, :1], top[:, 1:])


def _softmax_gradient(
    value: Floats, A: Floats, T: Floats, variance: Floats, u: float
) -> OutputGradient:
    """Softmax: dp_k = p_k (dz_k − Σ p_j dz_j); evaluated as a quotient or as e^log p."""
    mass = T.sum(axis=1, keepdims=True)
    below = A - A.max(axis=1, keepdims=True)
    powers = np.exp(below)
    total = powers.sum(axis=1, keepdims=True)
    log_p, p = below - np.log(total), powers / total
    common = (p**2 * variance).sum(axis=1, keepdims=True)
    moved = p**2 * (np.maximum(1.0 - 2.0 * p, 0.0) * variance + common)
    ahead = A - _greatest_other(A)
    moved = mass**2 * np.maximum(moved, _wide_chance(ahead, variance + common, u))
    evaluated = MEAN_SQUARE * (mass**2 * p**2 * (3.0 + log_p**2) + value**2)
    return OutputGradient(value, moved, evaluated, mass * p * (1.0 - p), p)


def _custom_gradient(loss: BoundLoss, A: Floats, T: Floats, variance: Floats) -> OutputGradient:
    """Take slope and curvature from differences of the user's own loss."""
    assert loss.function is not None
    below, here, above = (_map(loss.function, A + d, T) for d in (-STEP, 0.0, STEP))
    value = (above - below) / (2.0 * STEP)
    curvature = (above - 2.0 * here + below) / STEP**2
    evaluated = MEAN_SQUARE * (3.0 * value**2 + (curvature * A) ** 2)
    return OutputGradient(value, curvature**2 * variance, evaluated, curvature)
