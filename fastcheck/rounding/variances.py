"""One forward and one backward pass of values and of the variances of their rounding errors.

Variances are in units of u². Errors of different operations are taken as independent, and travel
through W² and φ'²: Higham & Mary, "A new approach to probabilistic rounding error analysis", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.door import lower_precision
from fastcheck.kernels.forward import forward_trace
from fastcheck.network import Batch, Network
from fastcheck.rounding.arithmetic import MEAN_SQUARE, Precision, repetitions
from fastcheck.rounding.backward_errors import Backward
from fastcheck.rounding.conditioning import (
    bend,
    evaluation_errors,
    output_gradient,
    slope,
    slope_spread,
    undecided,
)
from fastcheck.rounding.draws import Draws

__all__ = ["LayerFactors", "LayerTrace", "Trace", "backward", "factor_variance", "forward"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Trace = tuple[Floats, Floats]


@dataclass(frozen=True)
class LayerTrace:
    """What one layer leaves behind: values, and the variance of their rounding error.

    Attributes
    ----------
    A, A_variance : ndarray, shape (m, n_{l-1})
        The layer's inputs; their variance is None where they are exact.
    Z, slope, slope_variance : ndarray, shape (m, n_l)
        `slope` is ∂A_l/∂Z_l, the dropout mask included.
    slope_errors : ndarray, shape (r, n_l)
        Drawn errors of the slope.
    after, after_variance : ndarray, shape (m, n_l)
        A_l.
    after_errors : ndarray, shape (r, n_l)
        Drawn errors of A_l.
    """

    A: Floats
    A_variance: Floats | None
    Z: Floats
    slope: Floats
    slope_variance: Floats
    slope_errors: Floats
    after: Floats
    after_variance: Floats
    after_errors: Floats


@dataclass(frozen=True)
class LayerFactors:
    """σ² of one layer's blocks, kept as factors.

    Attributes
    ----------
    size : float
        σ is in units of this (and of u).
    P, Q : ndarray, shape (r, n_l) and (r, n_{l-1}), float32
        σ² of W_l[i, j] is Σ_r P[r, i]·Q[r, j], before g itself is rounded.
    delta, A : ndarray, shape (m, n_l) and (m, n_{l-1}), float32
        g is deltaᵀ A, and the penalty.
    bias : ndarray, shape (n_l,)
        σ² of b_l.
    """

    size: float
    P: Singles
    Q: Singles
    delta: Singles
    A: Singles
    bias: Floats


def parameters_cast(network: Network, precision: Precision) -> float:
    """Variance of a parameter that came in more digits than the gradient has, for its square."""
    exact = lower_precision(network.precision, precision.name) == network.precision
    return 0.0 if exact else MEAN_SQUARE


def factor_variance(network: Network, m: int, precision: Precision) -> float:
    """Relative variance of the one factor that all samples share: 1/m, 2/K or both."""
    scale = network.data_scale(m)
    if network.loss.name == "mean_squared_error":
        scale *= 2.0 / network.sizes[-1]
    if np.frexp(scale)[0] == 0.5:  # a power of two: exact
        return 0.0
    return MEAN_SQUARE + precision.underflows(scale)


def _values(
    network: Network, batch: Batch, flat: Trace | None
) -> tuple[list[Floats], list[Floats]]:
    """Return Z_1, …, Z_L and A_1, …, A_L of one forward pass."""
    m, widths = batch.size, network.sizes[1:]
    if flat is None:
        flat = np.empty(m * sum(widths)), np.empty(m * sum(widths))
        forward_trace(network.arrays(m), network.theta, batch.X, *flat, network.pointers[0])
    ends = np.cumsum([m * n for n in widths])[:-1]
    Z, A = ([p.reshape(m, -1) for p in np.split(row, ends)] for row in flat)
    return Z, A


def forward(
    network: Network, batch: Batch, precision: Precision, draws: Draws, trace: Trace | None = None
) -> list[LayerTrace]:
    """Go forward: return what each layer leaves behind; `trace` is as for `rounding`."""
    A, variance = batch.X, None
    errors = np.zeros((draws.rows.size, A.shape[1]))
    if not precision.holds(A):
        variance = MEAN_SQUARE * A * A
        errors = draws.errors(variance)
    traces: list[LayerTrace] = []
    for layer, (Z, after) in enumerate(zip(*_values(network, batch, trace), strict=True), start=1):
        weights = _Linear(network, layer, precision, draws)
        Z_variance, Z_errors = weights.forward(A, variance, errors, Z)
        units = _Units(network, layer, precision, draws)
        traces.append(units.trace(A, variance, Z, after, Z_variance, Z_errors))
        A, variance, errors = after, traces[-1].after_variance, traces[-1].after_errors
    return traces


@dataclass(frozen=True)
class _Linear:
    """The products with one layer's weights."""

    network: Network
    layer: int
    precision: Precision
    draws: Draws

    def forward(
        self, A: Floats, variance: Floats | None, errors: Floats, Z: Floats
    ) -> tuple[Floats, Floats]:
        """Return the variance and drawn errors of Z_l = A W_lᵀ + b_l."""
        precision, draws = self.precision, self.draws
        W, b = self.network.W(self.layer), self.network.b(self.layer)
        cast = parameters_cast(self.network, precision)
        n = W.shape[1]
        inside = (precision.products(n) + cast) * A * A
        product = Z if b is None else Z - b
        own = (precision.partial_sums(n) + MEAN_SQUARE) * product**2
        if b is not None:
            own += MEAN_SQUARE * Z * Z + cast * b * b
        own *= repetitions(Z, precision)
        scaled = self.draws.weights(self.layer, self.network.W(self.layer))
        errors = scaled.values(errors + draws.errors(inside)) + draws.errors(own)
        if variance is not None:
            inside += variance
        own += scaled.variances(inside)
        own += precision.underflows(1.0) * (own > 0.0)  # a sum of zeros is exact: z stays at 0
        own *= draws.shortfall(errors, own)
        return own, errors

    def backward(self, state: Backward) -> Backward:
        """Go from delta to delta W_l = ∂J/∂A_{l-1}."""
        precision, draws = self.precision, self.draws
        m, n = state.gradient.shape
        state = state.split(precision.u)
        own = precision.products(n) + parameters_cast(self.network, precision)
        inside = own * state.gradient**2
        errors = state.errors + draws.errors(inside)
        scaled = self.draws.weights(self.layer, self.network.W(self.layer))
        both = scaled.values(np.concatenate([state.gradient, errors]), back=True)
        variance = scaled.variances(state.variance + inside, back=True)
        return Backward(state.size, both[:m], variance, state.common, both[m:])


@dataclass(frozen=True)
class _Units:
    """The units of one layer: φ and its slope, and the dropout mask."""

    network: Network
    layer: int
    precision: Precision
    draws: Draws

    def trace(
        self,
        A: Floats,
        A_variance: Floats | None,
        Z: Floats,
        after: Floats,
        variance: Floats,
        errors: Floats,
    ) -> LayerTrace:
        """Return what the layer leaves behind, given Z's variance and drawn errors."""
        draws, u = self.draws, self.precision.u
        activation = self.network.activations[self.layer - 1]
        deviation = np.sqrt(variance) * u
        slopes = slope(activation, Z)
        bends = bend(activation, Z, slopes, deviation)
        own_slope = undecided(activation, Z, deviation) / u**2
        slope_variance = own_slope + (slope_spread(activation, Z, bends, deviation) / u) ** 2
        own, evaluated = self._evaluation(Z, after, slopes)
        own_slope += evaluated
        slope_variance += evaluated
        after_variance = (slopes * slopes + slope_variance * u**2) * variance + own
        rows = draws.rows
        slope_errors = bends[rows] * errors + draws.errors(own_slope)
        after_errors = slopes[rows] * errors + draws.errors(own)
        mask = self.network.masks[self.layer - 1] if self.network.masks else None
        if mask is not None:
            slopes = slopes * mask
            slope_variance = slope_variance * mask * mask + MEAN_SQUARE * slopes * slopes
            after_variance = after_variance * mask * mask + MEAN_SQUARE * after * after
            slope_errors, after_errors = slope_errors * mask[rows], after_errors * mask[rows]
        return LayerTrace(
            A, A_variance, Z, slopes, slope_variance, slope_errors,
            after, after_variance, after_errors,
        )  # fmt: skip

    def _evaluation(self, Z: Floats, A: Floats, slopes: Floats) -> tuple[Floats, Floats]:
        """Return the variances that evaluating φ and φ' itself gives."""
        errors = evaluation_errors(self.network.activations[self.layer - 1], Z, A, slopes)
        if errors is None:
            return np.zeros_like(Z), np.zeros_like(Z)
        tiny = self.precision.underflows(1.0)
        each = MEAN_SQUARE * repetitions(A, self.precision)  # saturated units share a value
        return each * errors[0] ** 2 + tiny, each * errors[1] ** 2 + tiny


def backward(
    network: Network, batch: Batch, precision: Precision, traces: list[LayerTrace], draws: Draws
) -> list[LayerFactors]:
    """Go back: return the factors of each layer's σ²."""
    state = _start(network, batch, precision, traces[-1], draws)
    factors = []
    for layer in range(network.depth, 0, -1):
        trace = traces[layer - 1]
        fan_out = [*network.sizes, 0][layer + 1]
        state = _through_units(state, trace, precision, fan_out, draws)
        factors.append(_factors(network, layer, state, trace, precision))
        if layer > 1:
            state = _Linear(network, layer, precision, draws).backward(state)
    return factors[::-1]


def _start(
    network: Network, batch: Batch, precision: Precision, last: LayerTrace, draws: Draws
) -> Backward:
    """Return ∂J/∂A_L."""
    scale = network.data_scale(batch.size)
    start = output_gradient(network.loss, last.after, batch.T, last.after_variance, precision.u)
    stored = MEAN_SQUARE * start.value**2 + precision.underflows(scale)
    if not precision.holds(batch.T):
        stored += MEAN_SQUARE * batch.T**2
    own = stored * repetitions(start.value, precision, scale)
    own += start.evaluated * repetitions(start.value + batch.T, precision)
    errors = start.change(last.after_errors, draws.rows) + draws.errors(own)
    state = Backward(scale, start.value, start.moved + own, np.zeros((batch.size, 1)), errors)
    return state.normalised()


def _through_units(
    state: Backward, trace: LayerTrace, precision: Precision, fan_out: int, draws: Draws
) -> Backward:
    """Go from ∂J/∂A_l to delta = ∂J/∂Z_l; `fan_out` is n_{l+1}, 0 at the last layer."""
    rows = draws.rows
    delta = state.gradient * trace.slope
    variance = state.variance * trace.slope**2
    variance += (state.gradient**2 + state.total * precision.u**2) * trace.slope_variance
    exact = np.all((trace.slope == 0.0) | (trace.slope == 1.0), axis=0)
    relative = np.where(exact, 1.0, 2.0) * MEAN_SQUARE + precision.partial_sums(fan_out)
    own = relative * delta * delta + 2.0 * precision.underflows(state.size) * (delta != 0.0)
    own *= repetitions(delta, precision, state.size)
    errors = state.errors * trace.slope[rows] + state.gradient[rows] * trace.slope_errors
    errors += draws.errors(own)
    passed = Backward(state.size, delta, variance + own, state.common, errors)
    return passed.corrected(draws).normalised()


def _factors(
    network: Network, layer: int, state: Backward, trace: LayerTrace, precision: Precision
) -> LayerFactors:
    """Return σ² of a layer's blocks as factors, in a unit that its penalty fits into."""
    m = state.gradient.shape[0]
    delta, variance = state.gradient, state.total
    square = delta * delta
    left = [variance + precision.products(m) * square]
    right = [trace.A * trace.A]
    if trace.A_variance is not None:
        left.append(square)
        right = [right[0] + trace.A_variance * precision.u**2, trace.A_variance]
    # A sum over rows is made one row after the other, in the precision itself; equal rows are
    # rounded to the same side each time.
    in_a_row = MEAN_SQUARE * m / 6.0 * repetitions(delta, precision, state.size)[0]
    bias = variance.sum(axis=0) + in_a_row * square.sum(axis=0)
    relative = 2.0 * in_a_row + MEAN_SQUARE + factor_variance(network, m, precision)
    bias += relative * delta.sum(axis=0) ** 2 + precision.underflows(state.size)
    largest = max(float(np.max(p) * np.max(q)) for p, q in zip(left, right, strict=True))
    unit = float(np.sqrt(largest)) if 0.0 < largest < np.inf else 1.0
    decay = 2.0 * network.penalty_scale(m)
    if decay:
        unit = max(unit, decay * float(np.max(np.abs(network.W(layer)))) / state.size)
    halves = [balanced(p / unit, q / unit) for p, q in zip(left, right, strict=True)]
    first, second = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    return LayerFactors(
        state.size * unit, first, second, *balanced(delta / unit, trace.A), bias / unit / unit
    )


def balanced(first: Floats, second: Floats) -> tuple[Singles, Singles]:
    """Return two arrays in float32, what is large in a row of one moved to the other.

    Their product, summed over rows, stays the same, and float32's range is not left.
    """
    sizes = [np.max(np.abs(part), axis=1, keepdims=True) for part in (first, second)]
    whole = (sizes[0] > 1e-140) & (sizes[1] > 1e-140)
    there = np.sqrt(np.divide(sizes[1], sizes[0], out=np.zeros_like(sizes[0]), where=whole))
    back = np.divide(1.0, there, out=np.zeros_like(there), where=whole)
    return (first * there).astype(np.float32), (second * back).astype(np.float32)
