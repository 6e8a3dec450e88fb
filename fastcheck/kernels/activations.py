"""The table of activations: value, difference without cancellation, derivative and kinks of each.

Each entry's `difference(z, d, p)` is φ(z + d) − φ(z) in a form that keeps every digit for small d,
after Reps & Rall, "Computational divided differencing and divided-difference arithmetics", 2003.
The NumPy `derivative` serves the reference backward pass alone; no difference is made from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.kernels import evaluation_errors as evaluation
from fastcheck.kernels.compiling import scalar_kernel
from fastcheck.kernels.evaluation_errors import Evaluation
from fastcheck.types import Floats

__all__ = ["ACTIVATIONS", "Activation", "clip_difference", "expit"]


SQRT_HALF = math.sqrt(0.5)
INVERSE_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
# Hendrycks & Gimpel, "Gaussian error linear units", 2016.
GELU_SCALE = math.sqrt(2.0 / math.pi)
GELU_CUBIC = 0.044715
# Klambauer et al., "Self-normalizing neural networks", 2017.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One entry of the table.

    Attributes
    ----------
    name : str
    value : callable
        Scalar kernel `(z, p) -> φ(z)`; p is the entry's parameter (α).
    difference : callable
        Scalar kernel `(z, d, p) -> φ(z + d) − φ(z)`.
    derivative : callable
        NumPy `(z, p) -> φ'(z)`, for the reference backward pass.
    evaluation : Evaluation
        What rounding does to φ and φ' as backward passes evaluate them.
    kinks : tuple of float
        Where φ is not analytic.
    parameter : float or None
        Default of the parameter, None where there is none.
    piecewise_linear : bool
        Whether φ is linear between its kinks.
    second, third : float
        Bounds of the second and third derivative off the kinks, for a parameter of at most 1.
    second_ratio, third_ratio : float
        Bounds of them beside the first derivative at the same place; infinite where that may be 0.
    """

    name: str
    value: Callable[..., Any]
    difference: Callable[..., Any]
    derivative: Callable[[Floats, float], Floats]
    evaluation: Evaluation
    kinks: tuple[float, ...] = ()
    parameter: float | None = None
    piecewise_linear: bool = False
    second: float = 0.0
    third: float = 0.0
    second_ratio: float = math.inf
    third_ratio: float = math.inf


def expit(z: Floats) -> Floats:
    """σ(z) in NumPy, for derivatives; SciPy is imported at its first use, for a quick start."""
    from scipy import special

    return np.asarray(special.expit(z))


def _normal_cdf_of(z: Floats) -> Floats:
    """Φ(z) in NumPy, for derivatives."""
    from scipy import special

    return np.asarray(special.ndtr(z))


@scalar_kernel
def _logistic(z: float) -> float:
    """σ(z), without overflow and with all digits at both ends."""
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


@scalar_kernel
def logistic_difference(z: float, d: float) -> float:
    """σ(z + d) − σ(z); for d > 0 through σ(−x) = 1 − σ(x), so that nothing overflows."""
    sign = 1.0
    if d > 0.0:
        sign, z, d = -1.0, -z, -d
    below = _logistic(-z)
    above = _logistic(z)
    if below * above < 1e-290:  # the slope underflows: subtract in the tail that is left
        if z > 0.0:
            return sign * (below - _logistic(-(z + d)))
        return sign * (_logistic(z + d) - above)
    return sign * above * below * math.expm1(d) / (below + above * math.exp(d))


@scalar_kernel
def softplus_value(z: float) -> float:
    """log(1 + e^z)."""
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@scalar_kernel
def _softplus_rise(low: float, high: float, d: float) -> float:
    """softplus(high) − softplus(low) over a long way d: only the two arguments could cancel."""
    if low > 0.0:
        return d + (math.log1p(math.exp(-high)) - math.log1p(math.exp(-low)))
    return softplus_value(high) - softplus_value(low)


@scalar_kernel
def softplus_difference(z: float, d: float) -> float:
    """softplus(z + d) − softplus(z)."""
    if d > 30.0:
        return _softplus_rise(z, z + d, d)
    if d < -30.0:
        return -_softplus_rise(z + d, z, -d)
    above = _logistic(z)
    grown = above * math.expm1(d)
    if grown > -0.5:
        return math.log1p(grown)
    return math.log(_logistic(-z) + above * math.exp(d))


@scalar_kernel
def _clip_difference_up(z: float, d: float, low: float, high: float) -> float:
    """clip(z + d) − clip(z) for d ≥ 0: what of the way [0, d] lies between low − z and high − z."""
    return max(min(d, high - z) - max(low - z, 0.0), 0.0)


@scalar_kernel
def clip_difference(z: float, d: float, low: float, high: float) -> float:
    """clip(z + d) − clip(z), exact where no kink is crossed."""
    if d < 0.0:
        return -_clip_difference_up(-z, -d, -high, -low)
    return _clip_difference_up(z, d, low, high)


@scalar_kernel
def _normal_cdf(z: float) -> float:
    """Φ(z), with all digits in the lower tail."""
    return 0.5 * math.erfc(-z * SQRT_HALF)


@scalar_kernel
def _normal_cdf_difference(z: float, d: float) -> float:
    """Φ(z + d) − Φ(z): a Taylor series for small d, else the difference of two tails."""
    if abs(d) * max(1.0, abs(z)) > 0.25:
        if z > 0.0:
            return _normal_cdf(-z) - _normal_cdf(-(z + d))
        return _normal_cdf(z + d) - _normal_cdf(z)
    # The derivatives of the density obey f⁽ⁿ⁺¹⁾ = −z f⁽ⁿ⁾ − n f⁽ⁿ⁻¹⁾.
    before, here, power, total = 0.0, 1.0, d, d
    for n in range(1, 20):
        before, here = here, -z * here - (n - 1) * before
        power *= d / (n + 1)
        total += here * power
    return INVERSE_SQRT_2PI * math.exp(-0.5 * z * z) * total


@scalar_kernel
def _identity(z: float, p: float) -> float:
    return z


@scalar_kernel
def _identity_difference(z: float, d: float, p: float) -> float:
    return d


@scalar_kernel
def _relu(z: float, p: float) -> float:
    return z if z > 0.0 else 0.0 * z  # keeps NaN


@scalar_kernel
def _relu_difference(z: float, d: float, p: float) -> float:
    return clip_difference(z, d, 0.0, math.inf)


@scalar_kernel
def _leaky_relu(z: float, p: float) -> float:
    return z if z > 0.0 else p * z


@scalar_kernel
def _leaky_relu_difference(z: float, d: float, p: float) -> float:
    w = z + d
    if z > 0.0:
        return d if w > 0.0 else p * w - z
    return w - p * z if w > 0.0 else p * d


@scalar_kernel
def _elu(z: float, p: float) -> float:
    return z if z > 0.0 else p * math.expm1(z)


@scalar_kernel
def _elu_difference(z: float, d: float, p: float) -> float:
    w = z + d
    if z > 0.0:
        return d if w > 0.0 else p * math.expm1(w) - z
    if w > 0.0:
        return w - p * math.expm1(z)
    if d > 1.0:  # e^d may overflow, and nothing cancels
        return p * (math.exp(w) - math.exp(z))
    return p * math.exp(z) * math.expm1(d)


@scalar_kernel
def _selu(z: float, p: float) -> float:
    return SELU_SCALE * _elu(z, SELU_ALPHA)


@scalar_kernel
def _selu_difference(z: float, d: float, p: float) -> float:
    return SELU_SCALE * _elu_difference(z, d, SELU_ALPHA)


@scalar_kernel
def _softplus(z: float, p: float) -> float:
    return softplus_value(z)


@scalar_kernel
def _softplus_difference(z: float, d: float, p: float) -> float:
    return softplus_difference(z, d)


@scalar_kernel
def _sigmoid(z: float, p: float) -> float:
    return _logistic(z)


@scalar_kernel
def _sigmoid_difference(z: float, d: float, p: float) -> float:
    return logistic_difference(z, d)


@scalar_kernel
def _tanh(z: float, p: float) -> float:
    return math.tanh(z)


@scalar_kernel
def _tanh_difference(z: float, d: float, p: float) -> float:
    return 2.0 * logistic_difference(2.0 * z, 2.0 * d)


@scalar_kernel
def _hardtanh(z: float, p: float) -> float:
    return min(max(z, -1.0), 1.0) + 0.0 * z


@scalar_kernel
def _hardtanh_difference(z: float, d: float, p: float) -> float:
    return clip_difference(z, d, -1.0, 1.0)


@scalar_kernel
def _relu6(z: float, p: float) -> float:
    return min(max(z, 0.0), 6.0) + 0.0 * z


@scalar_kernel
def _relu6_difference(z: float, d: float, p: float) -> float:
    return clip_difference(z, d, 0.0, 6.0)


@scalar_kernel
def _silu(z: float, p: float) -> float:
    return z * _logistic(z)


@scalar_kernel
def _silu_difference(z: float, d: float, p: float) -> float:
    return d * _logistic(z + d) + z * logistic_difference(z, d)


@scalar_kernel
def _gelu(z: float, p: float) -> float:
    return z * _normal_cdf(z)


@scalar_kernel
def _gelu_difference(z: float, d: float, p: float) -> float:
    return d * _normal_cdf(z + d) + z * _normal_cdf_difference(z, d)


@scalar_kernel
def _gelu_tanh_argument(z: float) -> float:
    """2u with ½(1 + tanh u) = σ(2u)."""
    return 2.0 * GELU_SCALE * z * (1.0 + GELU_CUBIC * z * z)


@scalar_kernel
def _gelu_tanh(z: float, p: float) -> float:
    return z * _logistic(_gelu_tanh_argument(z))


@scalar_kernel
def _gelu_tanh_difference(z: float, d: float, p: float) -> float:
    moved = 2.0 * GELU_SCALE * d * (1.0 + GELU_CUBIC * (3.0 * z * z + 3.0 * z * d + d * d))
    gate = _gelu_tanh_argument(z)
    return d * _logistic(gate + moved) + z * logistic_difference(gate, moved)


@scalar_kernel
def _softsign(z: float, p: float) -> float:
    return z / (1.0 + abs(z))


@scalar_kernel
def _softsign_difference(z: float, d: float, p: float) -> float:
    w = z + d
    if (z >= 0.0) == (w >= 0.0):
        return d / ((1.0 + abs(z)) * (1.0 + abs(w)))
    return w / (1.0 + abs(w)) - z / (1.0 + abs(z))


@scalar_kernel
def _mish(z: float, p: float) -> float:
    return z * math.tanh(softplus_value(z))


@scalar_kernel
def _mish_difference(z: float, d: float, p: float) -> float:
    gate = softplus_value(z)
    moved = _tanh_difference(gate, softplus_difference(z, d), p)
    return d * math.tanh(softplus_value(z + d)) + z * moved


def _mish_derivative(z: Floats, p: float) -> Floats:
    gate = np.tanh(np.logaddexp(0.0, z))
    return np.asarray(gate + z * (1.0 - gate**2) * expit(z))


def _silu_derivative(z: Floats, p: float) -> Floats:
    return np.asarray(expit(z) * (1.0 + z * expit(-z)))


def _gelu_derivative(z: Floats, p: float) -> Floats:
    return np.asarray(_normal_cdf_of(z) + z * INVERSE_SQRT_2PI * np.exp(-0.5 * z * z))


def _gelu_tanh_derivative(z: Floats, p: float) -> Floats:
    gate = expit(2.0 * GELU_SCALE * (z + GELU_CUBIC * z**3))
    slope = 2.0 * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * z * z)
    return np.asarray(gate + z * gate * (1.0 - gate) * slope)


def _tanh_derivative(z: Floats, p: float) -> Floats:
    return np.asarray(4.0 * expit(2.0 * z) * expit(-2.0 * z))


_EXACT = Evaluation(None)

_ENTRIES = (
    Activation(
        "identity", _identity, _identity_difference,
        lambda z, p: np.ones_like(z), _EXACT, piecewise_linear=True,
    ),
    Activation(
        "relu", _relu, _relu_difference,
        lambda z, p: (z > 0).astype(np.float64), _EXACT, kinks=(0.0,), piecewise_linear=True,
    ),
    Activation(
        "leaky_relu", _leaky_relu, _leaky_relu_difference,
        lambda z, p: np.where(z > 0, 1.0, p),
        Evaluation(evaluation.linear_errors, constants=evaluation.linear_constants),
        kinks=(0.0,), parameter=0.01, piecewise_linear=True,
    ),
    Activation(
        "elu", _elu, _elu_difference,
        lambda z, p: np.where(z > 0, 1.0, p * np.exp(np.minimum(z, 0.0))),
        evaluation.exponential_errors(1.0),
        kinks=(0.0,), parameter=1.0, second=1.0, third=1.0, second_ratio=1.0, third_ratio=1.0,
    ),
    Activation(
        "selu", _selu, _selu_difference,
        lambda z, p: SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(z, 0.0))),
        evaluation.exponential_errors(SELU_SCALE, SELU_ALPHA),
        kinks=(0.0,), second=1.76, third=1.76, second_ratio=1.0, third_ratio=1.0,
    ),
    Activation(
        "softplus", _softplus, _softplus_difference, lambda z, p: expit(z),
        Evaluation(evaluation.softplus_errors),
        second=0.25, third=0.1, second_ratio=1.0, third_ratio=1.0,
    ),
    Activation(
        "sigmoid", _sigmoid, _sigmoid_difference,
        lambda z, p: np.asarray(expit(z) * expit(-z)), Evaluation(evaluation.sigmoid_errors),
        second=0.1, third=0.13, second_ratio=1.0, third_ratio=1.0,
    ),
    Activation(
        "tanh", _tanh, _tanh_difference, _tanh_derivative,
        Evaluation(evaluation.tanh_errors),
        second=0.78, third=2.0, second_ratio=2.0, third_ratio=4.0,
    ),
    Activation(
        "hardtanh", _hardtanh, _hardtanh_difference,
        lambda z, p: (np.abs(z) < 1).astype(np.float64), _EXACT,
        kinks=(-1.0, 1.0), piecewise_linear=True,
    ),
    Activation(
        "relu6", _relu6, _relu6_difference,
        lambda z, p: ((z > 0) & (z < 6)).astype(np.float64), _EXACT,
        kinks=(0.0, 6.0), piecewise_linear=True,
    ),
    Activation(
        "silu", _silu, _silu_difference, _silu_derivative,
        Evaluation(evaluation.silu_errors, gated=True), second=0.5, third=0.32
    ),
    Activation(
        "gelu", _gelu, _gelu_difference, _gelu_derivative,
        Evaluation(evaluation.gelu_errors, gated=True), second=0.8, third=0.8
    ),
    Activation(
        "gelu_tanh", _gelu_tanh, _gelu_tanh_difference, _gelu_tanh_derivative,
        Evaluation(evaluation.gelu_tanh_errors, gated=True),
        second=0.8, third=0.8,
    ),
    Activation(
        "softsign", _softsign, _softsign_difference,
        lambda z, p: (1.0 + np.abs(z)) ** -2.0, Evaluation(evaluation.softsign_errors),
        kinks=(0.0,), second=2.0, third=6.0, second_ratio=2.0, third_ratio=6.0,
    ),
    Activation(
        "mish", _mish, _mish_difference, _mish_derivative,
        Evaluation(evaluation.mish_errors, gated=True), second=0.7, third=0.8
    ),
)  # fmt: skip

ACTIVATIONS: dict[str, Activation] = {entry.name: entry for entry in _ENTRIES}
