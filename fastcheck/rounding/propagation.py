"""One forward and one backward pass of values and of the variances of their rounding errors.

Variances are in units of u². Errors of different operations are taken as independent, and travel
through W² and φ'²: Higham & Mary, "A new approach to probabilistic rounding error analysis", 2019.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels import rounding as kernels
from fastcheck.kernels.forward import forward_trace
from fastcheck.model.network import Batch, Network
from fastcheck.rounding.backward_errors import Backward
from fastcheck.rounding.evaluation import (
    STEP,
    evaluation_errors,
    exact_sums,
    kink_variance,
    on_kinks,
    output_gradient,
    rounded_constants,
    second_derivative,
    slope,
    slope_by_side,
    slope_spread,
    underflow_growth,
)
from fastcheck.rounding.precision import (
    MEAN_SQUARE,
    Precision,
    alike_in_sums,
    on_grid,
    repetitions,
)
from fastcheck.rounding.sampled_errors import SampledErrors, ScaledWeights
from fastcheck.types import Floats, Singles
from fastcheck.validation import lower_precision

__all__ = [
    "LayerFactors",
    "LayerTrace",
    "Trace",
    "backward",
    "factor_variance",
    "forward",
    "values_of",
]

Trace = tuple[Floats, Floats]

TERMS = 1_000_000  # of sums that are looked at together
# exp, log and tanh err by a bias wherever values differ by less than so much, relatively. The
# square of the bias is so large beside the variance of all their errors: on windows of 2 % the root
# is 0.45 in float32 at the ninetieth percentile of the formulas in use.
NEAR, NEAR_BIAS = 2.0**-5, 0.15


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
    doubtful : ndarray, shape (m, n_l), bool, or None
        Units on a kink that rounding may take off it; None where there is none.
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
    doubtful: NDArray[np.bool_] | None = None


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
    shares : ndarray, shape (4,), float32
        What rounding g adds to σ² of W_l: shares of the square of the data's part, of the
        penalty's and of g, and a constant.
    repeated : tuple of ndarray, shape (n_l,) and (n_{l-1},), float32
        How often terms of the sum over samples occur, as far as δ and A tell: the smaller counts.
    """

    size: float
    P: Singles
    Q: Singles
    delta: Singles
    A: Singles
    bias: Floats
    shares: Singles
    repeated: tuple[Singles, Singles]


def parameters_cast(network: Network, precision: Precision, values: Floats) -> bool:
    """Whether parameters came in more digits than the gradient has, and are rounded first."""
    wider = lower_precision(network.precision, precision.name) != network.precision
    return wider and not precision.holds(values)


def factor_variance(network: Network, m: int, precision: Precision) -> float:
    """Relative variance of the one factor that all samples share: 1/m, 2/K or both."""
    scale = network.data_scale(m)
    if network.loss.name == "mean_squared_error":
        scale *= 2.0 / network.sizes[-1]
    if np.frexp(scale)[0] == 0.5:  # a power of two: exact
        return 0.0
    return MEAN_SQUARE + precision.underflows(scale)


def values_of(
    network: Network, batch: Batch, flat: Trace | None
) -> tuple[list[Floats], list[Floats]]:
    """Return Z_1, …, Z_L and A_1, …, A_L of one forward pass."""
    m, widths = batch.size, network.sizes[1:]
    if flat is None:
        flat = np.empty(m * sum(widths)), np.empty(m * sum(widths))
        forward_trace(network.arrays(m), network.theta, batch.X, *flat, network.calls)
    ends = m * np.cumsum((0, *widths))
    parts = [slice(*ends) for ends in itertools.pairwise(ends.tolist())]
    Z, A = ([row[part].reshape(m, -1) for part in parts] for row in flat)
    return Z, A


def forward(
    network: Network,
    batch: Batch,
    precision: Precision,
    draws: SampledErrors,
    trace: Trace | None = None,
    side: str | None = None,
) -> list[LayerTrace]:
    """Go forward: return what each layer leaves behind; `trace`, `side` are as for `rounding`."""
    A, variance = batch.X, None
    errors = np.zeros((draws.rows.size, A.shape[1]))
    if not precision.holds(A):
        variance = MEAN_SQUARE * A * A * repetitions(A, precision) + precision.underflows(1.0)
        draws.add(errors, variance, A)
    traces: list[LayerTrace] = []
    for layer, (Z, after) in enumerate(
        zip(*values_of(network, batch, trace), strict=True), start=1
    ):
        weights = _Linear(network, layer, precision, draws)
        Z_variance, Z_errors = weights.forward(A, variance, errors, Z)
        before = traces[-1].doubtful if traces else None
        units = _Units(network, layer, precision, draws, side, before)
        traces.append(units.trace(A, variance, Z, after, Z_variance, Z_errors))
        A, variance, errors = after, traces[-1].after_variance, traces[-1].after_errors
    return traces


@dataclass(frozen=True)
class _Linear:
    """The products with one layer's weights."""

    network: Network
    layer: int
    precision: Precision
    draws: SampledErrors

    def forward(
        self, A: Floats, variance: Floats | None, errors: Floats, Z: Floats
    ) -> tuple[Floats, Floats]:
        """Return the variance and drawn errors of Z_l = A W_lᵀ + b_l."""
        precision, draws = self.precision, self.draws
        W, b = self.network.W(self.layer), self.network.b(self.layer)
        terms, times = W.shape[1], draws.repeated_terms(A, W)
        scaled = draws.weights(self.layer, W)
        own = np.empty_like(Z)
        repeated = repetitions(Z, precision)
        shares = precision.partial_sums(terms, times) + MEAN_SQUARE, 0.0, 0.0
        if b is None:
            b = np.zeros(W.shape[0])
        else:
            rounded = parameters_cast(self.network, precision, b)
            shares = shares[0], MEAN_SQUARE, MEAN_SQUARE * Z.shape[0] * rounded
        kernels.rounded_sums(Z, b, repeated, shares, own)
        own += self._lost_weights(A)
        inside = np.square(A)
        products = inside * precision.products(terms, times)
        cast = self._weights_cast(inside)
        before = cast if variance is None else variance + cast
        drawn = products + cast
        errors = scaled.values(draws.add(errors.copy(), drawn))
        draws.add(errors, own, Z)
        often = repeated, repetitions(A, precision)
        self._add_through(scaled, (products, before), often, own)
        own *= draws.shortfall(errors, own, np.zeros((Z.shape[0], 1)), Z)
        return own, errors

    def backward(self, state: Backward) -> Backward:
        """Go from delta to delta W_l = ∂J/∂A_{l-1}."""
        precision, draws = self.precision, self.draws
        W = self.network.W(self.layer)
        state = state.split(precision.u)
        delta, m = state.gradient, state.gradient.shape[0]
        inside = np.square(delta)
        products = inside * precision.products(W.shape[0], draws.repeated_terms(delta, W.T))
        cast = self._weights_cast(inside)
        before, drawn = state.variance + cast, products + cast
        errors = draws.add(state.errors.copy(), drawn, delta)
        scaled = draws.weights(self.layer, W)
        both = scaled.values(np.concatenate([delta, errors]), back=True)
        of_sums, of_values = (
            repetitions(part, precision, state.size) for part in (both[:m], delta)
        )
        variance = np.zeros((m, W.shape[1])) + self._lost_weights(delta)
        often = of_sums, of_values
        self._add_through(scaled, (products, before), often, variance, back=True)
        return Backward(state.size, both[:m], variance, state.common, both[m:])

    @cached_property
    def _cast(self) -> bool:
        return parameters_cast(self.network, self.precision, self.network.W(self.layer))

    def _weights_cast(self, squares: Floats) -> Floats | float:
        """Return what rounding the weights does, as if to the values: alike in every sample."""
        return squares * (MEAN_SQUARE * squares.shape[0]) if self._cast else 0.0

    def _lost_weights(self, values: Floats) -> Floats | float:
        """Return the variance of products with weights that underflow when they are rounded."""
        if not self._cast:
            return 0.0
        each = self.precision.underflows(1.0) * values.shape[0]
        return np.asarray(each * np.square(values).sum(axis=1, keepdims=True))

    def _add_through(
        self,
        weights: ScaledWeights,
        inside: tuple[Floats, Floats | float],
        repeated: tuple[Floats, Floats],
        sums: Floats,
        *,
        back: bool = False,
    ) -> None:
        """Add variances through W²: of the products, as often as they are repeated, and before.

        `repeated` is how often the sums are, and the values that they are made of: a product with
        a value that many samples share is rounded alike in all of them.
        """
        products, before = inside
        terms = products.shape[1]
        least = 0.0 if back else self.precision.underflows_in_sum(terms, 1.0)
        of_sums, of_values = repeated
        if np.any(of_sums != 1.0):
            part, other = np.zeros_like(sums), np.zeros_like(sums)
            weights.add_variances(products, part, back=back)
            weights.add_variances(products * of_values, other, back=back)
            sums += np.maximum(part * of_sums, other)
            products = np.zeros_like(products)
        weights.add_variances(products * of_values + before, sums, least=least, back=back)


@dataclass(frozen=True)
class _Units:
    """The units of one layer: φ and its slope, and the dropout mask."""

    network: Network
    layer: int
    precision: Precision
    draws: SampledErrors
    side: str | None = None
    doubtful_before: NDArray[np.bool_] | None = None

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
        rows = draws.rows
        activation = self.network.activations[self.layer - 1]
        slopes = (
            slope(activation, Z) if self.side is None else slope_by_side(activation, Z, self.side)
        )
        unsure, doubtful = self._unsure(A, Z, variance)
        slope_variance = own_slope = kink_variance(activation, Z, unsure, u)
        if slope_variance.any():  # equal units are on one side together
            slope_variance = own_slope = slope_variance * repetitions(Z, self.precision)
        after_errors, slope_errors = slopes[rows] * errors, np.zeros_like(errors)
        if activation.entry is None or not activation.entry.piecewise_linear:
            deviation = np.sqrt(variance) * u
            # On a kink the curve bends as beside it: the jump is the conventions' matter.
            beside = Z + np.where(on_kinks(activation, Z), STEP, 0.0)
            second_derivatives = second_derivative(
                activation, beside, slope(activation, beside), deviation
            )
            slope_errors = second_derivatives[rows] * errors
            spread = slope_spread(activation, Z, second_derivatives, deviation)
            slope_variance = own_slope + (spread / u) ** 2
        evaluation = self._evaluation(Z, after, slopes)
        if evaluation is not None:
            slope_variance = slope_variance + evaluation[1]
            own_slope = own_slope + evaluation[1]
        draws.add(slope_errors, own_slope, Z)
        after_variance = np.empty_like(Z)
        kernels.after_slopes(slopes, slope_variance, u**2, variance, after_variance)
        if evaluation is not None:
            after_variance += evaluation[0]
            draws.add(after_errors, evaluation[0], Z)
        mask = self.network.masks[self.layer - 1] if self.network.masks else None
        if mask is not None:
            slopes = slopes * mask
            slope_variance = slope_variance * mask * mask + MEAN_SQUARE * slopes * slopes
            after_variance = after_variance * mask * mask + MEAN_SQUARE * after * after
            slope_errors, after_errors = slope_errors * mask[rows], after_errors * mask[rows]
        return LayerTrace(
            A, A_variance, Z, slopes, slope_variance, slope_errors,
            after, after_variance, after_errors, doubtful,
        )  # fmt: skip

    def _unsure(
        self, A: Floats, Z: Floats, variance: Floats
    ) -> tuple[Floats, NDArray[np.bool_] | None]:
        """Return Z's variance, 0 for units that lie on a kink whatever the order of the sum.

        They do where the sum is exact, and no term is 0 by rounding alone. Returned second are the
        others that lie on one.
        """
        samples, units = np.nonzero(on_kinks(self.network.activations[self.layer - 1], Z))
        if samples.size == 0:
            return variance, None
        W, b = self.network.W(self.layer), self.network.b(self.layer)
        variance = variance.copy()
        step = max(1, TERMS // W.shape[1])
        for start in range(0, samples.size, step):
            s, i = samples[start : start + step], units[start : start + step]
            exact = exact_sums(A[s], W[i], None if b is None else b[i], self.precision.u)
            if self.doubtful_before is not None:
                exact &= ~(self.doubtful_before[s] & (W[i] != 0.0)).any(axis=1)
            variance[s[exact], i[exact]] = 0.0
        doubtful = np.zeros(Z.shape, bool)
        doubtful[samples, units] = variance[samples, units] > 0.0
        return variance, doubtful if doubtful.any() else None

    def _evaluation(self, Z: Floats, A: Floats, slopes: Floats) -> tuple[Floats, Floats] | None:
        """Return the variances that evaluating φ and φ' itself gives; None where both are exact."""
        activation = self.network.activations[self.layer - 1]
        errors = evaluation_errors(activation, Z, A, slopes, self.precision.limits(Z.shape[0]))
        if errors is None:
            return None
        tiny = self.precision.underflows(1.0) * underflow_growth(activation, Z)
        alike = evaluated_alike(Z, A, self.precision.u * errors[0], self.precision)
        each = MEAN_SQUARE * alike
        value, own_slope = each * errors[0] ** 2 + tiny, each * errors[1] ** 2 + tiny
        constant = rounded_constants(activation, Z, self.precision) * Z.shape[0]
        return value + constant * A * A, own_slope + constant * slopes * slopes


def evaluated_alike(Z: Floats, values: Floats, errors: Floats, precision: Precision) -> Floats:
    """Return how many samples' evaluations at Z err alike: equal ones, and near ones in part."""
    equal = repetitions(on_grid(values, errors), precision)
    near = repetitions(on_grid(Z, NEAR * np.abs(Z)), precision)
    return np.asarray(np.maximum(equal, 1.0 + NEAR_BIAS * (near - 1.0)))


def backward(
    network: Network,
    batch: Batch,
    precision: Precision,
    traces: list[LayerTrace],
    draws: SampledErrors,
) -> list[LayerFactors]:
    """Go back: return the factors of each layer's σ²."""
    state = _start(network, batch, precision, traces[-1], draws)
    factors = []
    for layer in range(network.depth, 0, -1):
        trace = traces[layer - 1]
        fan_out = [*network.sizes, 0][layer + 1]
        state, repeated = _through_units(state, trace, precision, fan_out, draws)
        blocks = _Blocks(network, layer, precision, draws)
        factors.append(blocks.factors(state, trace, repeated))
        if layer > 1:
            state = _Linear(network, layer, precision, draws).backward(state)
    return factors[::-1]


def _start(
    network: Network, batch: Batch, precision: Precision, last: LayerTrace, draws: SampledErrors
) -> Backward:
    """Return ∂J/∂A_L."""
    scale = network.data_scale(batch.size)
    limits = precision.limits(batch.size)
    start = output_gradient(network.loss, last.after, batch.T, last.after_variance, limits)
    stored = MEAN_SQUARE * start.value**2 + precision.underflows(scale)
    if not precision.holds(batch.T):
        stored += MEAN_SQUARE * batch.T**2 + precision.underflows(1.0)
    own = stored * repetitions(start.value, precision, scale)
    deviation = precision.u * np.sqrt(start.evaluated)
    own += start.evaluated * evaluated_alike(
        last.after, start.value + batch.T, deviation, precision
    )
    errors = draws.add(start.change(last.after_errors, draws.rows), own, start.value)
    state = Backward(scale, start.value, start.moved + own, np.zeros((batch.size, 1)), errors)
    return state.normalised()


def _through_units(
    state: Backward, trace: LayerTrace, precision: Precision, fan_out: int, draws: SampledErrors
) -> tuple[Backward, Floats]:
    """Go from ∂J/∂A_l to delta = ∂J/∂Z_l; return also how often delta's values are repeated.

    `fan_out` is n_{l+1}, 0 at the last layer.
    """
    rows = draws.rows
    delta, variance, own = np.empty((3, *trace.slope.shape))
    kernels.through_slopes(
        state.gradient, state.variance, state.common,
        trace.slope, trace.slope_variance, precision.u**2, delta, variance,
    )  # fmt: skip
    inexact = np.empty(delta.shape[1])
    kernels.inexact_columns(trace.slope, inexact)
    relative = (1.0 + inexact) * MEAN_SQUARE + precision.partial_sums(fan_out)
    repeated = repetitions(delta, precision, state.size)
    least = precision.underflows(state.size) + precision.underflows_in_sum(fan_out + 1, state.size)
    kernels.rounded_products(delta, relative, repeated, least, own)
    errors = state.errors * trace.slope[rows] + state.gradient[rows] * trace.slope_errors
    draws.add(errors, own, delta)
    variance += own
    passed = Backward(state.size, delta, variance, state.common, errors)
    return passed.corrected(draws).normalised(), repeated


@dataclass(frozen=True)
class _Blocks:
    """The gradient of one layer's weights and biases: sums over samples."""

    network: Network
    layer: int
    precision: Precision
    draws: SampledErrors

    def factors(self, state: Backward, trace: LayerTrace, repeated: Floats) -> LayerFactors:
        """Return σ² of both as factors, in a unit that the penalty fits into."""
        delta, A, spread = state.gradient, trace.A, trace.A_variance
        u = self.precision.u
        m, n = delta.shape
        often, alike = (
            np.ones(A.shape[1]),
            np.maximum(repeated, alike_in_sums(delta, self.precision)),
        )
        if np.any(repeated != 1.0):
            often = repetitions(A, self.precision)
        if self.precision.loops:
            repeated, often = alike, np.maximum(often, alike_in_sums(A, self.precision))
        shares = self._of_products(m, np.minimum(repeated, often.mean()))
        first, sums = np.empty_like(delta), np.empty((3, n))
        kernels.weight_and_bias_variances(delta, state.variance, state.common, shares, first, sums)
        pairs = [(first, np.square(A))]
        if spread is not None:
            pairs = [(first, pairs[0][1] + spread * u**2), (np.square(delta), spread)]
        unit = self._unit(pairs, state.size)
        both = [np.empty((len(pairs) * m, part.shape[1]), np.float32) for part in (delta, A)]
        for k, (left, right) in enumerate(pairs):
            rows = slice(k * m, k * m + m)
            kernels.balance(left, right, (unit, unit), both[0][rows], both[1][rows])
        singles = np.empty(delta.shape, np.float32), np.empty(A.shape, np.float32)
        kernels.balance(delta, A, (unit, 1.0), *singles)
        bias = self._bias(sums, alike, m) + self.precision.underflows(state.size)
        size = state.size * unit
        return LayerFactors(
            size, both[0], both[1], *singles, bias / unit / unit, self._shares(m, size),
            (repeated.astype(np.float32), often.astype(np.float32)),
        )  # fmt: skip

    def _of_products(self, m: int, repeated: Floats) -> Floats:
        """Return the variances of sums over samples for each unit of Σ(δa)²."""
        base = self.precision.products(m, 0.0)
        return base + (self.precision.products(m) - base) * repeated

    def _shares(self, m: int, size: float) -> Singles:
        """Return what rounding g = data + penalty adds to its variance, in units of `size`²."""
        precision = self.precision
        of_sum = MEAN_SQUARE + precision.partial_sums(m)
        least = precision.underflows_in_sum(m, size)
        decay = 2.0 * self.network.penalty_scale(m)
        if decay and parameters_cast(self.network, precision, self.network.W(self.layer)):
            least += precision.underflows(size / decay)
        least = np.clip(least, 1e-36, 1e30)
        of_data = factor_variance(self.network, m, precision)
        return np.array([of_data, 3.0 * MEAN_SQUARE, of_sum, least], np.float32)

    def _unit(self, pairs: list[tuple[Floats, Floats]], size: float) -> float:
        """Return the unit of the factors, in units of `size`."""
        largest = max(float(p.max() * q.max()) for p, q in pairs)
        unit = float(np.sqrt(largest)) if 0.0 < largest < np.inf else 1.0
        decay = 2.0 * self.network.penalty_scale(pairs[0][0].shape[0])
        if decay:
            unit = max(unit, decay * float(np.max(np.abs(self.network.W(self.layer)))) / size)
        return unit

    def _bias(self, sums: Floats, repeated: Floats, m: int) -> Floats:
        """Return σ² of the biases.

        A sum over rows is made one row after the other, in the precision itself; equal rows are
        rounded to the same side each time.
        """
        in_a_row = MEAN_SQUARE * m / 6.0 * repeated
        relative = 2.0 * in_a_row + MEAN_SQUARE + factor_variance(self.network, m, self.precision)
        return np.asarray(sums[0] + in_a_row * sums[1] + relative * sums[2] ** 2)
