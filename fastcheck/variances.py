"""One forward and one backward pass of values and of the variances of their rounding errors.

Variances are in units of u². Errors of different operations are taken as independent, and travel
through W² and φ'²: Higham & Mary, "A new approach to probabilistic rounding error analysis", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.arithmetic import MEAN_SQUARE, Precision, repetitions
from fastcheck.conditioning import (
    evaluation_errors,
    output_gradient,
    slope,
    slope_spread,
    undecided,
)
from fastcheck.door import lower_precision
from fastcheck.kernels.forward import forward_trace
from fastcheck.network import Batch, Network

# A relative variance beyond which nothing is left of a value; its products stay finite.
MOST = 1e250

__all__ = ["LayerFactors", "LayerTrace", "backward", "factor_variance", "forward"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerTrace:
    """What one layer leaves behind: values, and the variance of their rounding error.

    Attributes
    ----------
    A, A_variance : ndarray, shape (m, n_{l-1})
        The layer's inputs; their variance is None where they are exact.
    Z, Z_variance, slope, slope_variance : ndarray, shape (m, n_l)
        `slope` is ∂A_l/∂Z_l, the dropout mask included.
    after, after_variance : ndarray, shape (m, n_l)
        A_l.
    """

    A: Floats
    A_variance: Floats | None
    Z: Floats
    Z_variance: Floats
    slope: Floats
    slope_variance: Floats
    after: Floats
    after_variance: Floats


@dataclass(frozen=True)
class LayerFactors:
    """σ² of one layer's blocks, kept as factors.

    Attributes
    ----------
    size : float
        What everything here is to be multiplied by (variances: by its square).
    P, Q : ndarray, shape (r, n_l) and (r, n_{l-1})
        The variance of W_l[i, j] is Σ_r P[r, i]·Q[r, j], before g itself is rounded.
    delta, A : ndarray, shape (m, n_l) and (m, n_{l-1})
        g is deltaᵀ A, and the penalty.
    bias : ndarray, shape (n_l,)
        The variance of b_l.
    """

    size: float
    P: Floats
    Q: Floats
    delta: Floats
    A: Floats
    bias: Floats


@dataclass
class Backward:
    """What travels back: ∂J/∂A_l or ∂J/∂Z_l, its errors and the Hessian's diagonal, over `size`.

    Attributes
    ----------
    gradient, curvature : ndarray, shape (m, n)
    variance : ndarray, shape (m, n)
        Of errors that are independent from unit to unit.
    common : ndarray, shape (m, 1)
        Relative variance of one factor that all units of a sample share.
    """

    size: float
    gradient: Floats
    variance: Floats
    common: Floats
    curvature: Floats

    def normalised(self) -> Backward:
        """Return the same with the largest gradient between 1 and 2, by a power of two.

        Where the errors are far larger than the gradient, they are what is kept from overflow.
        """
        largest = float(np.max(np.abs(self.gradient), initial=0.0))
        largest = max(largest, 1e-100 * float(np.sqrt(np.max(self.variance, initial=0.0))))
        if not 0.0 < largest < np.inf:
            return self
        factor = float(np.ldexp(1.0, 1 - int(np.frexp(largest)[1])))
        return Backward(
            max(self.size / factor, 1e-300),
            self.gradient * factor,
            (self.variance * factor) * factor,
            self.common,
            self.curvature * factor,
        )

    def split(self) -> Backward:
        """Return the same with what is along the gradient moved from `variance` to `common`.

        It reaches every unit of the next layer as one factor, where independent errors average out.
        """
        variance, common = split_along(self.gradient, self.variance)
        return Backward(self.size, self.gradient, variance, self.common + common, self.curvature)

    @property
    def total(self) -> Floats:
        """The variance of each unit's gradient."""
        return self.variance + self.common * self.gradient**2


def split_along(values: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Split independent errors of each row into one along `values` and the rest.

    Returns
    -------
    rest : ndarray, shape (m, n)
        Variance of e − (e·v / v·v) v.
    common : ndarray, shape (m, 1)
        Variance of e·v / v·v.
    """
    largest = np.max(np.abs(values), axis=1, keepdims=True)
    size = np.where(largest > 0.0, largest, 1.0)
    square = (values / size) ** 2
    norm = square.sum(axis=1, keepdims=True)
    share = square / np.where(norm > 0.0, norm, 1.0)
    along = (share * variance).sum(axis=1, keepdims=True)
    rest = np.maximum(variance * (1.0 - 2.0 * share) + share * along, 0.0)
    common = along / size / size / np.where(norm > 0.0, norm, 1.0)
    return rest, np.where(norm > 0.0, np.minimum(common, MOST), 0.0)


def parameters_cast(network: Network, precision: Precision) -> float:
    """Variance of a parameter that came in more digits than the gradient has, for its square."""
    exact = lower_precision(network.precision, precision.name) == network.precision
    return 0.0 if exact else MEAN_SQUARE


def factor_variance(network: Network, m: int, precision: Precision) -> float:
    """Relative variance of the one factor that all samples share: 1/m, 2/K or both."""
    scale = network.data_scale(m)
    if network.loss.name == "mean_squared_error":
        scale *= 2.0 / network.sizes[-1]
    return 2.0 * MEAN_SQUARE + precision.underflows(scale)


def _values(network: Network, batch: Batch) -> tuple[list[Floats], list[Floats]]:
    """Return Z_1, …, Z_L and A_1, …, A_L of one forward pass."""
    m, widths = batch.size, network.sizes[1:]
    flat = np.empty((2, m * sum(widths)))
    forward_trace(network.arrays(m), network.theta, batch.X, flat[0], flat[1], network.pointers[0])
    ends = np.cumsum([m * n for n in widths])[:-1]
    Z, A = ([p.reshape(m, -1) for p in np.split(row, ends)] for row in flat)
    return Z, A


def forward(network: Network, batch: Batch, precision: Precision) -> list[LayerTrace]:
    """Go forward: return what each layer leaves behind."""
    A, variance = batch.X, None
    if not precision.holds(A):
        variance = MEAN_SQUARE * A * A
    traces: list[LayerTrace] = []
    for layer, (Z, after) in enumerate(zip(*_values(network, batch), strict=True), start=1):
        Z_variance = _linear(network, layer, A, variance, Z, precision)
        units = _units(network, layer, Z, after, Z_variance, precision)
        traces.append(LayerTrace(A, variance, Z, Z_variance, units[0], units[1], after, units[2]))
        A, variance = after, units[2]
    return traces


def _linear(
    network: Network,
    layer: int,
    A: Floats,
    variance: Floats | None,
    Z: Floats,
    precision: Precision,
) -> Floats:
    """Variance of Z_l = A W_lᵀ + b_l."""
    W, b = network.W(layer), network.b(layer)
    cast = parameters_cast(network, precision)
    n = W.shape[1]
    inside = (precision.products(n) + cast) * A * A
    if variance is not None:
        inside += variance
    total = inside @ (W * W).T
    product = Z if b is None else Z - b
    own = (precision.partial_sums(n) + MEAN_SQUARE) * product**2
    if b is not None:
        own += MEAN_SQUARE * Z * Z + cast * b * b
    return np.asarray(total + own * repetitions(Z, precision) + precision.underflows(1.0))


def _units(
    network: Network, layer: int, Z: Floats, A: Floats, variance: Floats, precision: Precision
) -> tuple[Floats, Floats, Floats]:
    """Return φ'(Z) with the mask, its variance, and that of A = φ(Z) with the mask."""
    activation = network.activations[layer - 1]
    mask = network.masks[layer - 1] if network.masks else None
    square = precision.u**2
    deviation = np.sqrt(variance) * precision.u
    slopes = slope(activation, Z)
    slope_variance = undecided(activation, Z, deviation) / square
    slope_variance += slope_spread(activation, Z, slopes, deviation) ** 2 / square
    after = (slopes * slopes + slope_variance * square) * variance
    errors = evaluation_errors(activation, Z, A, slopes)
    if errors is not None:
        tiny = precision.underflows(1.0)
        after += MEAN_SQUARE * errors[0] ** 2 * repetitions(A, precision) + tiny
        slope_variance += MEAN_SQUARE * errors[1] ** 2 + tiny
    if mask is not None:
        slopes = slopes * mask
        slope_variance = slope_variance * mask * mask + MEAN_SQUARE * slopes * slopes
        after = after * mask * mask + MEAN_SQUARE * A * A
    return slopes, slope_variance, after


def backward(
    network: Network, batch: Batch, precision: Precision, traces: list[LayerTrace]
) -> list[LayerFactors]:
    """Go back: return the factors of each layer's σ²."""
    state = _start(network, batch, precision, traces[-1])
    factors = []
    for layer in range(network.depth, 0, -1):
        trace = traces[layer - 1]
        fan_out = [*network.sizes, 0][layer + 1]
        state = _through_units(state, trace, precision, fan_out)
        factors.append(_factors(network, layer, state, trace, precision))
        if layer > 1:
            state = _through_weights(network, layer, state, precision)
    return factors[::-1]


def _start(network: Network, batch: Batch, precision: Precision, last: LayerTrace) -> Backward:
    """Return ∂J/∂A_L."""
    scale = network.data_scale(batch.size)
    start = output_gradient(network.loss, last.after, batch.T, last.after_variance, precision.u)
    stored = MEAN_SQUARE * start.value**2 + precision.underflows(scale)
    if not precision.holds(batch.T):
        stored += MEAN_SQUARE * batch.T**2
    own = stored * repetitions(start.value, precision, scale)
    own += start.evaluated * repetitions(start.value + batch.T, precision)
    state = Backward(
        scale, start.value, start.moved + own, np.zeros((batch.size, 1)), start.curvature
    )
    return state.normalised()


def _through_units(
    state: Backward, trace: LayerTrace, precision: Precision, fan_out: int
) -> Backward:
    """Go from ∂J/∂A_l to delta = ∂J/∂Z_l; `fan_out` is n_{l+1}, 0 at the last layer."""
    square, spread = trace.slope**2, trace.slope_variance
    delta = state.gradient * trace.slope
    variance = state.variance * square
    variance += (state.gradient**2 + state.total * precision.u**2) * spread
    curvature = state.curvature * square
    if fan_out:  # an error of z meets itself on the way back; the outputs' is in there already
        variance += curvature**2 * trace.Z_variance
    relative = 2.0 * MEAN_SQUARE + precision.partial_sums(fan_out)
    own = relative * delta * delta + precision.underflows(state.size) * (delta != 0.0)
    variance += own * repetitions(delta, precision, state.size)
    return Backward(state.size, delta, variance, state.common, curvature).normalised()


def _through_weights(
    network: Network, layer: int, state: Backward, precision: Precision
) -> Backward:
    """Go from delta to delta W_l = ∂J/∂A_{l-1}."""
    W = network.W(layer)
    n, m = W.shape[0], state.gradient.shape[0]
    state = state.split()
    gradient = state.gradient @ W
    own = precision.products(n) + parameters_cast(network, precision)
    inside = state.variance + own * state.gradient**2
    both = np.concatenate([inside, state.curvature]) @ (W * W)
    variance = both[:m] + precision.underflows(state.size)
    return Backward(state.size, gradient, variance, state.common, both[m:])


def _factors(
    network: Network, layer: int, state: Backward, trace: LayerTrace, precision: Precision
) -> LayerFactors:
    """Return σ² of a layer's blocks as factors, in a unit that its penalty fits into."""
    m = state.gradient.shape[0]
    decay = 2.0 * network.penalty_scale(m)
    size = state.size
    if decay:
        size = max(size, decay * float(np.max(np.abs(network.W(layer)), initial=0.0)))
    ratio = state.size / size
    delta, variance = state.gradient * ratio, state.total * ratio**2
    square = delta * delta
    P = variance + precision.products(m) * square
    Q = trace.A * trace.A
    if trace.A_variance is not None:
        P = np.concatenate([P, square])
        Q = np.concatenate([Q + trace.A_variance * precision.u**2, trace.A_variance])
    # A sum over rows is made one row after the other, in the precision itself.
    bias = variance.sum(axis=0) + MEAN_SQUARE * m / 6.0 * square.sum(axis=0)
    relative = MEAN_SQUARE * (m / 3.0 + 1.0) + factor_variance(network, m, precision)
    bias += relative * delta.sum(axis=0) ** 2 + precision.underflows(size)
    return LayerFactors(size, P, Q, delta, trace.A, bias)
