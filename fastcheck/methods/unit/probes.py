"""Probes: what a forward pass at θ leaves behind, and the slopes that are measured from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.forward import NetworkArrays, forward_trace
from fastcheck.kernels.probes import linear_probes, probe_state
from fastcheck.kernels.propagation import loss_change
from fastcheck.kernels.slopes import layer_slopes
from fastcheck.model.network import ActivationSpec, Batch, Network
from fastcheck.types import Floats, Integers

__all__ = [
    "Probes",
    "bent_slopes",
    "full_slopes",
    "linear_slopes",
    "measured",
    "trace_of",
    "unconverged",
    "with_gains",
]


# Where no more than this share of a layer's largest slope bounds the O(h²) term, it is left alone:
# the bound is several times the term.
CURVATURE_FLOOR = 3e-13
# Where the O(h²) term is measured to be less, an O(h⁴) term is no digit.
SQUARE_ROOT_OF_FLOOR = 1e-8
# Activations are differentiated at this step: without cancellation, the smaller the better.
SMALLEST_STEP = 2.0**-30
FEWEST_NODES, MAX_NODES = 2, 8
# Where the nodes leave more than this share of a layer's largest slope, no row is shared.
CONVERGENCE_FLOOR = 3e-13
# What the number of nodes is chosen by: so many samples, and units of each layer.
LARGEST_STRAIGHT_STEP = 3e-6
MEASURED_SAMPLES = 8
MEASURED_UNITS = 8
CANCELLATION_ERROR = 1e-14
MAX_COLUMNS = 512


@dataclass(frozen=True)
class Probes:
    """What the forward pass at θ leaves behind, and how the probes are made.

    Attributes
    ----------
    network, batch : Network, Batch
    net : NetworkArrays
        The network as kernels see it.
    epsilon : float
    Z, A : ndarray, shape (m · Σ n_l,), float64
        The trace, layer after layer, each (m, n_l) in row order.
    steps : ndarray, shape (m, L), float64
        h = ε · max(1, max_j |a_js|) of each sample and layer.
    kinks : tuple of ndarray
        All layers' kinks one after the other, and where each layer's start.
    left, right : ndarray, shape (m · Σ n_l,), float64
        What each unit multiplies a small change by; they differ on a kink.
    on_kink : int
        How many units lie exactly on a kink.
    row_norms : ndarray, shape (Σ n_l,), float64
    nodes : ndarray, shape (Q,), float64
        At which shares of the step slopes are taken where they bend; the first is 0, the slope at θ
        itself, unless the user's own functions cancel.
    curves : ndarray, shape (L + 1, 4), float64
        Bounds of the second and third derivatives of each layer's activation, and of the loss; then
        of the activation's beside its first derivative.
    curvature : float
        The O(h²) term where it was measured to choose the nodes, relative.
    spread : ndarray, shape (L,), float64, or None
        How far slopes of each layer are off where the user's own functions cancel.
    """

    network: Network
    batch: Batch
    net: NetworkArrays
    epsilon: float
    Z: Floats
    A: Floats
    steps: Floats
    kinks: tuple[Floats, Integers]
    left: Floats
    right: Floats
    on_kink: int
    row_norms: Floats
    nodes: Floats
    curves: Floats
    curvature: float = 0.0
    spread: Floats | None = None

    @property
    def direct(self) -> bool:
        """Whether a function of the user's own is evaluated directly, so that it cancels."""
        return self.network.direct

    @cached_property
    def unit_offsets(self) -> Integers:
        """Where each layer's units start, shape (L + 1,)."""
        return np.cumsum([0, *self.network.sizes[1:]], dtype=np.int64)

    @property
    def trace(self) -> tuple[Floats, Floats, Floats]:
        """Z, A and the targets, as kernels take them."""
        return self.Z, self.A, self.batch.T

    def inputs_of(self, layer: int) -> Floats:
        """Return A_{l-1}, shape (m, n_{l-1}), for l = 1..L."""
        if layer == 1:
            return self.batch.X
        sizes, m = self.network.sizes, self.batch.size
        start = m * sum(sizes[1 : layer - 1])
        return self.A[start : start + m * sizes[layer - 1]].reshape(m, sizes[layer - 1])

    def change(
        self, layer: int, sample: int, units: Integers, deltas: Floats
    ) -> tuple[Floats, NDArray[np.int8]]:
        """Return how much ℓ_s grows when Z_l[s, units] grow by deltas, and what was crossed."""
        grown, crossed = np.empty(units.size), np.empty(units.size, np.int8)
        for start in range(0, units.size, MAX_COLUMNS):
            part = slice(start, start + MAX_COLUMNS)
            place, nothing = (layer - 1, sample), np.empty(0)
            self._propagate(place, units[part], deltas[part], grown[part], nothing, crossed[part])
        return grown, crossed

    def both_sides(
        self, layer: int, sample: int, units: Integers, deltas: Floats
    ) -> tuple[Floats, Floats, NDArray[np.int8]]:
        """Return what deltas and −deltas at some units do to ℓ_s.

        Returns
        -------
        odd : ndarray, shape (units,), float64
            Half of how much ℓ_s grows from −delta to delta. Both sides travel on their own, and
            what they share is taken out without cancellation.
        grown : ndarray, shape (2, units), float64
            How much ℓ_s grows to either side.
        crossed : ndarray, shape (2, units), int8
            What was crossed.
        """
        odd, grown = np.empty(units.size), np.empty((2, units.size))
        crossed = np.empty((2, units.size), np.int8)
        for start in range(0, units.size, MAX_COLUMNS // 2):
            part = slice(start, start + MAX_COLUMNS // 2)
            both, columns = np.tile(units[part], 2), np.append(deltas[part], -deltas[part])
            found, met = np.empty(both.size), np.empty(both.size, np.int8)
            self._propagate((layer - 1, sample), both, columns, found, odd[part], met)
            grown[:, part], crossed[:, part] = found.reshape(2, -1), met.reshape(2, -1)
        return odd, grown, crossed

    def _propagate(
        self,
        place: tuple[int, int],
        units: Integers,
        deltas: Floats,
        grown: Floats,
        odd: Floats,
        crossed: NDArray[np.int8],
    ) -> None:
        calls = self.network.calls
        loss_change(
            self.net, self.network.theta, self.trace, self.kinks, place, units, deltas, grown,
            odd, crossed, calls.differences, (calls.loss_growth, calls.loss_odd),
        )  # fmt: skip

    def slopes(
        self, layer: int, sample: int, units: Integers, nodes: Floats
    ) -> tuple[Floats, NDArray[np.int8]]:
        """Return D(δ)/2δ at each node, shape (Q, units), both signs whole, and what was crossed."""
        if units.size == 0:
            return np.zeros((nodes.size, 0)), np.zeros(0, np.int8)
        deltas = np.repeat(nodes * self.steps[sample, layer - 1], units.size)
        odd, _, crossed = self.both_sides(layer, sample, np.tile(units, nodes.size), deltas)
        met = crossed.reshape(-1, units.size).max(axis=0)
        return (odd / deltas).reshape(nodes.size, units.size), met


def trace_of(network: Network, batch: Batch, epsilon: float) -> Probes:
    """Run the forward pass at θ and find what each unit multiplies a small change by."""
    net = network.arrays(batch.size)
    units = sum(network.sizes[1:])
    Z, A = np.empty(batch.size * units), np.empty(batch.size * units)
    forward_trace(net, network.theta, batch.X, Z, A, network.calls)
    places = [list(a.kinks) for a in network.activations]
    kinks = (
        np.array([kink for here in places for kink in here], dtype=np.float64),
        np.cumsum([0, *map(len, places)], dtype=np.int64),
    )
    norms = [_row_norms(network, layer) for layer in range(1, network.depth + 1)]
    probes = Probes(
        network,
        batch,
        net,
        epsilon,
        Z,
        A,
        steps=np.empty((batch.size, network.depth)),
        kinks=kinks,
        left=np.zeros(0),
        right=np.zeros(0),
        on_kink=0,
        row_norms=np.concatenate(norms),
        nodes=np.ones(1),
        curves=_curves(network),
    )
    for layer in range(1, network.depth + 1):
        largest = np.abs(probes.inputs_of(layer)).max(axis=1)
        probes.steps[:, layer - 1] = epsilon * np.maximum(1.0, largest)
    return with_gains(probes)


def with_gains(probes: Probes) -> Probes:
    """Return the same probes with what each unit multiplies a change of their steps by."""
    left, right = np.empty_like(probes.Z), np.empty_like(probes.Z)
    network = probes.network
    on_kink = layer_slopes(
        probes.net, probes.Z, _gain_steps(probes),
        probes.kinks, np.array([_straight(a) for a in network.activations]), (left, right),
        network.calls.differences,
    )  # fmt: skip
    return replace(probes, left=left, right=right, on_kink=int(on_kink))


def _gain_steps(probes: Probes) -> Floats:
    """Return the steps that activations are differentiated at, (L, m)."""
    own = np.array([a.entry is None for a in probes.network.activations])
    small = np.minimum(probes.steps, SMALLEST_STEP)
    return np.ascontiguousarray(np.where(own, probes.steps, small).T)


def _curves(network: Network) -> Floats:
    """Return bounds of second and third derivatives, (L + 1, 4); the loss comes last."""
    curves = np.zeros((network.depth + 1, 4))
    for row, activation in zip(curves, network.activations, strict=False):
        if activation.entry is not None:
            entry, scale = activation.entry, max(1.0, abs(activation.parameter))
            row[:2] = scale * entry.second, scale * entry.third
            row[2:] = entry.second_ratio, entry.third_ratio
    if network.loss.entry is not None:
        curves[-1, :2] = network.loss.entry.second, network.loss.entry.third
    return curves


def _row_norms(network: Network, layer: int) -> Floats:
    """Return the norms that kinks are looked for with: of layers that have some, the first not."""
    W = network.W(layer)
    if layer == 1 or not network.activations[layer - 1].kinks:
        return np.zeros(W.shape[0])
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", W, W)))


def work_row(sizes: Sequence[int], carried: int) -> int:
    """Return the length of a row of the workspace of linear probes.

    Parameters
    ----------
    sizes : sequence of int
        `n_0, …, n_L`.
    carried : int
        Probes of the layers before the last.

    Returns
    -------
    int
        Room for the changes of all probes at the widest layer that one is carried to, and for the
        weights between two layers, the inputs' not among them.
    """
    changes = max(sizes[2:], default=1) * carried
    weights = max((a * b for a, b in itertools.pairwise(sizes[1:])), default=0)
    return max(1, changes, weights)


def linear_slopes(
    probes: Probes, samples: tuple[int, int], requested: NDArray[np.bool_], work: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return what linear probes give.

    Returns
    -------
    slopes : ndarray, shape (samples, 1, Σ n_l), float64
        D(δ)/2δ at δ → 0.
    reach : ndarray, shape (samples, Σ n_l), float64
        The share of the step within which no kink is met.
    bounds : ndarray, shape (samples, Σ n_l), float64
        About the largest change of these slopes within the step.
    """
    count = samples[1] - samples[0]
    slopes, reach = np.zeros((count, 1, requested.size)), np.full((count, requested.size), 2.0)
    bounds = np.zeros((count, requested.size))
    state = probe_state(probes.network.sizes, probes.curves, work)
    calls = probes.network.calls
    linear_probes(
        probes.net, probes.network.theta, probes.trace, probes.kinks, probes.left,
        probes.row_norms, samples, probes.steps, requested, slopes[:, 0], reach, bounds, state,
        calls.differences, calls.loss_odd,
    )  # fmt: skip
    return slopes, reach, bounds


def full_slopes(
    probes: Probes, sample: int, requested: NDArray[np.bool_], nodes: Floats, slopes: Floats
) -> NDArray[np.bool_]:
    """Fill in the slopes of one sample with both signs whole; return which probes met a kink.

    `slopes` is of shape (nodes, Σ n_l).
    """
    crossed = np.zeros(requested.size, bool)
    offsets = probes.unit_offsets
    for layer in range(1, probes.network.depth + 1):
        part = slice(offsets[layer - 1], offsets[layer])
        units = np.flatnonzero(requested[part])
        found, met = probes.slopes(layer, sample, units, nodes)
        slopes[:, part][:, units] = found
        crossed[part][units] = met > 0
    return crossed


def bent_slopes(
    probes: Probes,
    first: int,
    requested: NDArray[np.bool_],
    found: tuple[Floats, Floats, Floats],
) -> tuple[Floats, float]:
    """Return slopes at all nodes where they bend by more than rounding, and how much they bend.

    Parameters
    ----------
    probes : Probes
    first : int
        The first sample.
    touched : ndarray, shape (Σ n_l,), bool
    found : tuple of ndarray
        From `linear_slopes`. `reach` becomes 0 where a kink was met, or where no polynomial through
        the nodes follows the slope: there each component is evaluated on its own.

    Returns
    -------
    slopes : ndarray, shape (samples, 1 or Q, Σ n_l), float64
    curvature : float
        The largest O(h²) term beside its layer's largest slope.
    """
    slopes, reach, bounds = found
    largest = _largest_of_layers(probes, np.abs(slopes[:, 0]).max(axis=0))
    with np.errstate(invalid="ignore"):
        bent = requested & ~(bounds <= CURVATURE_FLOOR * largest)
    curvature = _relative(np.where(bent, 0.0, bounds), largest)
    if not bent.any():
        return slopes, curvature
    slopes = np.repeat(slopes, probes.nodes.size, axis=1)
    for row in np.flatnonzero(bent.any(axis=1)).tolist():
        met = _slopes_at_nodes(probes, first + row, bent[row], largest, slopes[row])
        free = bent[row] & ~met & (reach[row] > 1.0)
        change = np.where(free, np.abs(slopes[row] - slopes[row, 0]).max(axis=0), 0.0)
        curvature = max(curvature, _relative(change, largest))
        alone = met | (bent[row] & unconverged(probes, slopes[row]))
        reach[row][alone] = 0.0
        slopes[row, 1:, alone] = slopes[row, 0, alone][:, np.newaxis]
    return slopes, curvature


def _largest_of_layers(probes: Probes, values: Floats) -> Floats:
    """Return for each unit the largest value of its layer, shape (Σ n_l,)."""
    offsets = probes.unit_offsets
    return np.repeat(np.maximum.reduceat(values, offsets[:-1]), np.diff(offsets))


def _relative(values: Floats, largest: Floats) -> float:
    """Return the largest of the values beside its layer's largest slope."""
    zeros = np.zeros_like(values)
    return float(np.divide(values, largest, out=zeros, where=largest > 0.0).max(initial=0.0))


def _slopes_at_nodes(
    probes: Probes, sample: int, bent: NDArray[np.bool_], largest: Floats, slopes: Floats
) -> NDArray[np.bool_]:
    """Fill in one sample's slopes behind the first node; return which probes met a kink.

    Where a slope bends so little that its square is no digit, the first node behind θ tells all.
    """
    nodes = probes.nodes
    met = full_slopes(probes, sample, bent, nodes[1:2], slopes[1:2])
    change = np.where(bent, slopes[1] - slopes[0], 0.0)
    slopes[2:] = slopes[0] + np.square(nodes[2:, np.newaxis] / nodes[1]) * change
    with np.errstate(invalid="ignore"):
        more = bent & ~(np.abs(change) <= SQUARE_ROOT_OF_FLOOR * largest)
    if more.any() and nodes.size > 2:
        met |= full_slopes(probes, sample, more, nodes[2:], slopes[2:])
    return met


def unconverged(probes: Probes, slopes: Floats) -> NDArray[np.bool_]:
    """Return for which units the polynomial through the nodes does not reach the slope.

    Parameters
    ----------
    probes : Probes
    slopes : ndarray, shape (Q, Σ n_l), float64
        Of one sample. What the last power adds, as a Chebyshev polynomial, is the measure.
    """
    count = probes.nodes.size
    offsets = probes.unit_offsets
    flagged = np.zeros(slopes.shape[1], bool)
    if count == 1:
        return flagged
    last = np.linalg.inv(np.vander(probes.nodes**2, increasing=True))[-1]
    remainder = np.abs(last @ slopes) * 2.0 ** (3 - 2 * count)
    floor = max(CONVERGENCE_FLOOR, CANCELLATION_ERROR / probes.epsilon if probes.direct else 0.0)
    for layer in range(probes.network.depth):
        part = slice(offsets[layer], offsets[layer + 1])
        flagged[part] = remainder[part] > floor * np.abs(slopes[:, part]).max()
    return flagged


def measured(probes: Probes) -> Probes:
    """Measure the O(h²) term on a few probes, and choose the nodes by it."""
    sizes = probes.network.sizes[1:]
    if not probes.direct and _surely_straight(probes):
        return replace(probes, nodes=_with_zero(0.0))
    curvature, spread = 0.0, np.zeros(len(sizes))
    for sample in _measured_samples(probes):
        for layer in range(1, len(sizes) + 1):
            units = _measured_units(probes, layer, sample)
            whole, crossed = probes.slopes(layer, sample, units, np.array([1.0, 0.5]))
            whole = whole[:, crossed == 0]  # not near a kink
            largest = np.abs(whole).max(initial=0.0)
            if largest > 0.0:
                between = np.abs(whole[0] - whole[1]).max()
                curvature = max(curvature, between / largest)
                spread[layer - 1] = max(spread[layer - 1], between)
    if not probes.direct:
        return replace(probes, curvature=curvature, nodes=_with_zero(curvature))
    # What cancels in the user's own functions looks like a bend: 1e-16 of a value over the step.
    excused = curvature <= CANCELLATION_ERROR / probes.epsilon
    nodes = np.ones(1) if excused else _nodes(curvature)
    return replace(probes, curvature=curvature, nodes=nodes, spread=spread)


def _surely_straight(probes: Probes) -> bool:
    """Return whether a few nodes do, wherever a slope bends at all."""
    return float(probes.steps.max()) <= LARGEST_STRAIGHT_STEP


def _with_zero(curvature: float) -> Floats:
    """Return nodes whose first is θ itself."""
    return np.append(0.0, _nodes(max(curvature, CURVATURE_FLOOR * 2.0))[: MAX_NODES - 1])


def _measured_samples(probes: Probes) -> Integers:
    """Return a few samples, those of the largest steps among them."""
    m = probes.batch.size
    few = min(m, MEASURED_SAMPLES)
    spread = np.linspace(0, m - 1, few).astype(np.int64)
    return np.unique(np.append(spread, probes.steps.argmax(axis=0)))


def _measured_units(probes: Probes, layer: int, sample: int) -> Integers:
    """Return a few units of a layer that pass a change on, the one that passes most among them."""
    offsets, m = probes.unit_offsets, probes.batch.size
    n = int(offsets[layer] - offsets[layer - 1])
    if layer == probes.network.depth:
        return np.array(_spread(n, MEASURED_UNITS))
    start = m * int(offsets[layer - 1]) + sample * n
    local_slopes = np.abs(probes.left[start : start + n])
    active = local_slopes.nonzero()[0]
    if active.size == 0:
        return np.zeros(1, np.int64)
    found = active[_spread(active.size, MEASURED_UNITS - 1)].tolist()
    return np.array(sorted({*found, int(local_slopes.argmax())}))


def _spread(size: int, count: int) -> list[int]:
    """Return up to so many positions from the first to the last."""
    return sorted({k * (size - 1) // (count - 1) for k in range(count)})


def _straight(activation: ActivationSpec) -> bool:
    """Return whether an activation is linear between its kinks."""
    return activation.entry is not None and activation.entry.piecewise_linear


def _nodes(curvature: float) -> Floats:
    """Return as many nodes as the measured curvature asks for; Chebyshev's, in the square."""
    if curvature <= CURVATURE_FLOOR:
        return np.ones(1)
    count = int(np.ceil(np.log(1e-15) / np.log(min(curvature, 0.3))))
    count = min(max(count, FEWEST_NODES), MAX_NODES)
    return np.sqrt(0.5 + 0.5 * np.cos(np.pi * np.arange(count) / count))
