"""What rounding does to activations and losses as backward passes evaluate them, in NumPy.

Errors are absolute and in units of the unit roundoff u. Each covers the formulas in common use:
those that cancel (`1 − a²`, `f + σ(1 − f)`), and those whose powers of e overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastcheck.types import Floats

__all__ = ["Evaluation", "Limits"]


FAR = 40.0  # 1 + e^−z is 1 beyond it in every precision
# Errors are independent and uniform: this many times one of known sign and size has its variance.
CERTAIN = 2.5
NEAR_OVERFLOW = 0.25  # so far from the largest power of e rounding of z can matter
TORCH_THRESHOLD = 20.0  # beyond it PyTorch's softplus is z


class Limits(NamedTuple):
    """What an evaluation depends on besides its arguments.

    Attributes
    ----------
    u : float
        Unit roundoff.
    largest : float
        The largest number of the precision.
    smallest : float
        Largest absolute error of an operation whose result underflows, in units of u.
    samples : int
        m: errors of one sign add up over the samples.
    """

    u: float
    largest: float
    smallest: float
    samples: int


class Evaluation(NamedTuple):
    """What rounding does to an activation.

    Attributes
    ----------
    errors : callable or None
        `(Z, A, p, limits) -> (error of φ(Z) = A, error of φ'(Z))` in units of u; None where both
        are exact.
    gated : bool
        Whether φ(z) is z times a gate, so that the gate's underflow is multiplied by z.
    constants : callable or None
        `p -> constants that multiply φ(z) for z ≤ 0 and for z > 0`: where a precision does not hold
        one, its rounding is the same relative error in all samples.
    """

    errors: Callable[[Floats, Floats, float, Limits], tuple[Floats, Floats]] | None
    gated: bool = False
    constants: Callable[[float], tuple[float, float]] | None = None


Errors = tuple[Floats, Floats]


def _decay(Z: Floats) -> Floats:
    """e^−|z|."""
    return np.asarray(np.exp(-np.abs(Z)))


def _certain(sizes: Floats, limits: Limits) -> Floats:
    """Errors of one sign in all samples."""
    return np.asarray(sizes * (CERTAIN * math.sqrt(limits.samples) / limits.u))


def _lost(Z: Floats, sizes: Floats, limits: Limits, power: float = 1.0) -> Floats:
    """What is lost where e^(−power·z) overflows, so that 1/(1 + e^−z) is 0."""
    over = -power * Z > math.log(limits.largest) - NEAR_OVERFLOW
    return np.where(over, _certain(sizes, limits), 0.0)


def linear_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """Two slopes: a product with a constant, and the constant's own rounding."""
    return np.abs(A), np.where(Z > 0, 0.0, abs(p))


def linear_constants(p: float) -> tuple[float, float]:
    """The two slopes."""
    return p, 1.0


def exponential_errors(scale: float, alpha: float | None = None) -> Evaluation:
    """`α(e^z − 1)`, whose slope is `a + α`: absolute errors near α below zero."""

    def errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
        below = scale * (p if alpha is None else alpha)
        above = 0.0 if scale == 1.0 else scale
        return np.where(Z > 0, np.abs(A), below), np.where(Z > 0, above, 1.5 * below)

    def constants(p: float) -> tuple[float, float]:
        return scale * (p if alpha is None else alpha), scale

    return Evaluation(errors, constants=constants)


def sigmoid_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`1/(1 + e^−z)`, `½(1 + tanh(z/2))`; `a(1 − a)`, `e^−z/(1 + e^−z)²`."""
    size = np.maximum(A, 0.5)
    return 1.5 * size + _lost(Z, A, limits), size + _lost(Z, A, limits, 2.0)


def tanh_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`2σ(2z) − 1`, a quotient of differences; `1 − a²`, `1/cosh²`.

    The first doubles the errors of σ, and the square doubles them again. Far out a is 1 and no
    more is lost than the slope itself.
    """
    far = _certain(4.0 * _decay(2.0 * Z), limits)
    return np.full_like(Z, 1.5), np.minimum(1.5 + 1.5 * A * A, far)


def softplus_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`log(1 + e^z)`, and z itself beyond a threshold; `σ(z)`, `1 − e^−a`."""
    left_out = np.where(Z > TORCH_THRESHOLD, _certain(_decay(Z), limits), 0.0)
    lost = _lost(Z, _decay(Z), limits)
    return 1.5 * np.maximum(np.abs(A), 1.0) + left_out, 1.3 + left_out + lost


def silu_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`z·σ(z)`; `f + σ(1 − f)`, in which f itself cancels, and `σ(1 + z(1 − σ))`."""
    size = np.abs(Z)
    near = np.minimum(size, FAR)
    lost = _lost(Z, (1.0 + size) * _decay(Z), limits)
    value = 1.5 * np.where(Z > 0, size, 0.5 * near)
    return value + lost, 1.0 + np.where(Z > 0, size, 0.5 * near) + lost


def mish_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`z·tanh(softplus(z))`; in the slope z meets `1 − tanh²`."""
    near = np.minimum(np.abs(Z), FAR)
    lost = _lost(Z, (1.0 + np.abs(Z)) * _decay(Z), limits)
    return 1.5 * np.where(Z > 0, np.abs(Z), near) + lost, 1.5 + near + lost


def gelu_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`½z(1 + erf)` and its slope, a cdf from `1 + erf` and a density."""
    size = np.minimum(np.abs(Z), 12.0)  # beyond, 1 + erf is exact
    density = 0.4 * np.exp(-0.5 * size * size)
    value = np.where(Z > 0, np.abs(Z), 0.5 * size)
    return value, 1.0 + size * (1.0 + size * size) * density


def gelu_tanh_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`½z(1 + tanh v)`, v a cubic of z; in its slope `1 − tanh²` meets z·v'."""
    size = np.minimum(np.abs(Z), 12.0)
    near = np.minimum(size, 8.0)
    decay = np.exp(-np.maximum(1.6 * near + 0.0714 * near**3 - 37.0, 0.0))  # tanh is 1 from there
    lost = _lost(1.6 * Z + 0.0714 * Z**3, np.abs(A), limits)
    return np.where(Z > 0, np.abs(Z), size) + lost, 1.0 + near * (0.4 + 0.054 * near**2) * decay


def softsign_errors(Z: Floats, A: Floats, p: float, limits: Limits) -> Errors:
    """`z/(1 + |z|)`; `(1 − |a|)²`, `1/(1 + |z|)²`, whose square overflows."""
    rest = 1.0 / (1.0 + np.abs(Z))
    over = 2.0 * np.log1p(np.abs(Z)) > math.log(limits.largest) - NEAR_OVERFLOW
    lost = np.where(over, _certain(rest * rest, limits), 0.0)
    return 1.5 * np.abs(A), 2.0 * rest + limits.u + lost


def residual_errors(Z: Floats, T: Floats, p: float, value: Floats, limits: Limits) -> Floats:
    """A difference of outputs and targets, times a constant."""
    return np.asarray(2.0 * value**2)


def chance_errors(Z: Floats, T: Floats, p: float, value: Floats, limits: Limits) -> Floats:
    """`σ(z) − t`."""
    chance = np.exp(np.minimum(Z, 0.0)) / (1.0 + _decay(Z))
    return np.asarray((np.sqrt(2.0) * chance + _lost(Z, chance, limits)) ** 2 + value**2)


def softmax_errors(Z: Floats, T: Floats, p: float, value: Floats, limits: Limits) -> Floats:
    """`p − t`; p a quotient or e^log p, with or without the largest logit taken off."""
    top = Z.max(axis=1, keepdims=True)
    powers = np.exp(Z - top)
    total = powers.sum(axis=1, keepdims=True)
    chances, mass = powers / total, T.sum(axis=1, keepdims=True)
    log_p = Z - top - np.log(total)
    with np.errstate(over="ignore"):
        underflow = np.minimum(limits.smallest * np.exp(-top) / total, 1.0 / limits.u)
    each = chances**2 * (3.0 + log_p**2) + underflow**2
    return np.asarray(mass**2 * each + value**2)
