"""Probes: what a forward pass at θ leaves behind, and the slopes that are measured from it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.forward import NetworkArrays, forward_trace
from fastcheck.kernels.probes import linear_probes
from fastcheck.kernels.propagation import loss_change
from fastcheck.kernels.slopes import layer_slopes
from fastcheck.network import Batch, BoundActivation, Network
from fastcheck.workspaces import workspace

__all__ = [
    "Probes",
    "full_slopes",
    "linear_slopes",
    "measured",
    "trace_of",
    "turned",
    "unconverged",
    "ways_on_kinks",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Below this share of a layer's largest slope the O(h²) term is left alone: it is rounding.
CURVATURE_FLOOR = 2e-13
# Where leaving the even part out moves a slope by more than this, both signs are propagated.
LINEAR_FLOOR = 2e-13
LARGEST_LINEAR_EPSILON = 1e-6
MOST_NODES = 8
# Where the nodes leave more than this share of a layer's largest slope, no row is shared.
UNCONVERGED = 1e-12
# What the O(h²) term is measured on: so many units a layer, all samples up to so many products.
MEASURED_UNITS = 8
FEW_PRODUCTS = 20_000
CANCELLATION = 1e-14
COLUMNS = 512


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
        Where in (0, 1] of the step the slope is taken.
    linear : bool
        Whether changes stay linear up to the outputs, so that one pass serves both signs.
    curvature : float
        The O(h²) term that was measured, relative.
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
    linear: bool = True
    curvature: float = 0.0
    spread: Floats | None = None

    @property
    def direct(self) -> bool:
        """Whether a function of the user's own is evaluated directly, so that it cancels."""
        own = [a.entry is None for a in self.network.activations]
        return any(own) or self.network.loss.entry is None

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
        for start in range(0, units.size, COLUMNS):
            part = slice(start, start + COLUMNS)
            loss_change(
                self.net, self.network.theta, self.trace, self.kinks, (layer - 1, sample),
                units[part], deltas[part], grown[part], crossed[part], *self.network.pointers,
            )  # fmt: skip
        return grown, crossed

    def slopes(
        self, layer: int, sample: int, units: Integers, nodes: Floats
    ) -> tuple[Floats, NDArray[np.int8]]:
        """Return D(δ)/2δ at each node, shape (Q, units), both signs whole, and what was crossed."""
        if units.size == 0:
            return np.zeros((nodes.size, 0)), np.zeros(0, np.int8)
        ends = np.stack([nodes, -nodes]) * self.steps[sample, layer - 1]  # (2, Q)
        deltas = np.repeat(ends.reshape(-1, 1), units.size, axis=1)
        columns = np.tile(units, deltas.shape[0])
        grown, crossed = self.change(layer, sample, columns, deltas.ravel())
        above, below = grown.reshape(2, nodes.size, units.size)
        met = crossed.reshape(-1, units.size).max(axis=0)
        return (above - below) / (2.0 * ends[0])[:, np.newaxis], met


def trace_of(network: Network, batch: Batch, epsilon: float) -> Probes:
    """Run the forward pass at θ and find what each unit multiplies a small change by."""
    net = network.arrays(batch.size)
    units = sum(network.sizes[1:])
    Z, A = np.empty(batch.size * units), np.empty(batch.size * units)
    forward_trace(net, network.theta, batch.X, Z, A, network.pointers[0])
    places = [list(a.kinks) for a in network.activations]
    kinks = (
        np.array([kink for here in places for kink in here], dtype=np.float64),
        np.cumsum([0, *map(len, places)], dtype=np.int64),
    )
    left, right = np.empty_like(Z), np.empty_like(Z)
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
        left=left,
        right=right,
        on_kink=0,
        row_norms=np.concatenate(norms),
        nodes=np.ones(1),
    )
    for layer in range(1, network.depth + 1):
        largest = np.abs(probes.inputs_of(layer)).max(axis=1)
        probes.steps[:, layer - 1] = epsilon * np.maximum(1.0, largest)
    on_kink = layer_slopes(
        net, Z, batch.size, np.ascontiguousarray(probes.steps.T), kinks,
        np.array([_straight(a) for a in network.activations]), (left, right),
        network.pointers[0],
    )  # fmt: skip
    return replace(probes, on_kink=int(on_kink))


def _row_norms(network: Network, layer: int) -> Floats:
    """Return the norms that kinks are looked for with: of layers that have some, the first not."""
    W = network.W(layer)
    if layer == 1 or not network.activations[layer - 1].kinks:
        return np.zeros(W.shape[0])
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", W, W)))


def linear_slopes(
    probes: Probes, samples: tuple[int, int], touched: NDArray[np.bool_], work: Floats
) -> tuple[Floats, Floats]:
    """Return the slopes (samples, Q, Σ n_l) and the reach (samples, Σ n_l) of linear probes."""
    count = samples[1] - samples[0]
    slopes = np.empty((count, probes.nodes.size, touched.size))
    reach = np.empty((count, touched.size))
    linear_probes(
        probes.net, probes.network.theta, probes.trace, probes.kinks, probes.left,
        probes.row_norms, samples, probes.steps, probes.nodes, touched, slopes, reach, work,
        *probes.network.pointers,
    )  # fmt: skip
    return slopes, reach


def full_slopes(
    probes: Probes, sample: int, touched: NDArray[np.bool_], slopes: Floats
) -> NDArray[np.bool_]:
    """Fill in the slopes of one sample with both signs whole; return which probes met a kink."""
    crossed = np.zeros(touched.size, bool)
    offsets = probes.unit_offsets
    for layer in range(1, probes.network.depth + 1):
        part = slice(offsets[layer - 1], offsets[layer])
        units = np.flatnonzero(touched[part])
        found, met = probes.slopes(layer, sample, units, probes.nodes)
        slopes[:, part][:, units] = found
        crossed[part][units] = met > 0
    return crossed


def ways_on_kinks(probes: Probes) -> list[Floats]:
    """Return the gains with which backward passes take units that lie on a kink.

    They take the slope to one side, the flatter one (PyTorch's hard tanh is flat on both of its
    kinks), the steeper one, or the middle (NumPy's `maximum` under autograd).
    """
    if probes.on_kink == 0:
        return []
    left, right = probes.left, probes.right
    flatter = np.where(np.abs(left) <= np.abs(right), left, right)
    steeper = np.where(np.abs(left) <= np.abs(right), right, left)
    ways: list[Floats] = []
    for gains in (left, right, flatter, steeper, 0.5 * (left + right)):
        if not any(np.array_equal(gains, way) for way in ways):
            ways.append(gains)
    return ways


def turned(probes: Probes, gains: Floats) -> Probes:
    """Return the same probes with units on a kink taken to one side, those of the outputs too.

    The output activation becomes what its gains multiply by, as a mask does.
    """
    net, outputs = probes.net, probes.batch.size * probes.network.sizes[-1]
    activations, places = net.activations.copy(), net.mask_offsets.copy()
    activations[-1], places[-1] = ACTIVATIONS["identity"].code, net.masks.size
    masks = np.concatenate([net.masks, gains[gains.size - outputs :]])
    net = net._replace(activations=activations, masks=masks, mask_offsets=places)
    return replace(probes, net=net, left=gains, nodes=np.ones(1))


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
    floor = max(UNCONVERGED, CANCELLATION / probes.epsilon if probes.direct else 0.0)
    for layer in range(probes.network.depth):
        part = slice(offsets[layer], offsets[layer + 1])
        flagged[part] = remainder[part] > floor * np.abs(slopes[:, part]).max()
    return flagged


@dataclass
class _Bends:
    """The largest bends that were seen: relative, and each layer's absolute."""

    linear: float = 0.0
    curvature: float = 0.0
    spread: Floats = field(default_factory=lambda: np.zeros(0))

    def see(self, layer: int, shared: Floats, whole: Floats) -> None:
        """Compare linear slopes (units,) with whole ones at h and h/2 (2, units)."""
        if not np.abs(whole).any():
            return
        largest = np.abs(whole).max()
        between = np.abs(whole[0] - whole[1]).max()
        self.linear = max(self.linear, np.abs(whole[0] - shared).max() / largest)
        self.curvature = max(self.curvature, between / largest)
        self.spread[layer - 1] = max(self.spread[layer - 1], between)


def measured(probes: Probes) -> Probes:
    """Measure the O(h²) term on a few probes, and choose passes and nodes by it."""
    offsets, sizes = probes.unit_offsets, probes.network.sizes[1:]
    bends = _Bends(spread=np.zeros(len(sizes)))
    for sample in _measured_samples(probes):
        picks = [_measured_units(probes, layer, sample) for layer in range(1, len(sizes) + 1)]
        shared = _shared_slopes(probes, sample, picks)
        for layer, units in enumerate(picks, start=1):
            whole, crossed = probes.slopes(layer, sample, units, np.array([1.0, 0.5]))
            free = crossed == 0
            if free.any():  # not all of them near a kink
                bends.see(layer, shared[offsets[layer - 1] + units[free]], whole[:, free])
    if not probes.direct:
        nodes = _nodes(bends.curvature)
        # Linear probes take an activation's slope at the full step, whatever the node.
        may = _piecewise_linear(probes) or (
            nodes.size == 1 and probes.epsilon <= LARGEST_LINEAR_EPSILON
        )
        linear = may and bends.linear <= LINEAR_FLOOR
        return replace(probes, linear=linear, curvature=bends.curvature, nodes=nodes)
    # What cancels in the user's own functions looks like a bend: 1e-16 of a value over the step.
    excused = bends.curvature <= CANCELLATION / probes.epsilon
    nodes = np.ones(1) if excused else _nodes(bends.curvature)
    return replace(
        probes, linear=False, curvature=bends.curvature, nodes=nodes, spread=bends.spread
    )


def _shared_slopes(probes: Probes, sample: int, picks: list[Integers]) -> Floats:
    """Return the linear slopes of some units of each layer, shape (Σ n_l,)."""
    offsets, sizes = probes.unit_offsets, probes.network.sizes[1:]
    touched = np.zeros(int(offsets[-1]), bool)
    for layer, units in enumerate(picks):
        touched[offsets[layer] + units] = True
    with workspace(3, max(sizes) * max(MEASURED_UNITS * len(sizes), *sizes)) as work:
        slopes, _ = linear_slopes(probes, (sample, sample + 1), touched, work)
    shared: Floats = slopes[0, 0]
    return shared


def _measured_samples(probes: Probes) -> Integers:
    """Return all samples where ε is large or the network small, else a few and the largest."""
    m = probes.batch.size
    few = m * sum(a * b for a, b in itertools.pairwise(probes.network.sizes)) <= FEW_PRODUCTS
    if few or probes.epsilon > LARGEST_LINEAR_EPSILON:
        return np.arange(m)
    if _piecewise_linear(probes):  # only the loss bends
        return np.unique([0, int(probes.steps.max(axis=1).argmax())])
    spread = np.linspace(0, m - 1, 2).astype(np.int64)
    return np.unique(np.append(spread, probes.steps.argmax(axis=0)[[0, -1]]))


def _measured_units(probes: Probes, layer: int, sample: int) -> Integers:
    """Return a few units of a layer that pass a change on, the one that passes most among them."""
    offsets, m = probes.unit_offsets, probes.batch.size
    n = int(offsets[layer] - offsets[layer - 1])
    if layer == probes.network.depth:
        return np.array(_spread(n, MEASURED_UNITS))
    start = m * int(offsets[layer - 1]) + sample * n
    gains = np.abs(probes.left[start : start + n])
    active = gains.nonzero()[0]
    if active.size == 0:
        return np.zeros(1, np.int64)
    found = active[_spread(active.size, MEASURED_UNITS - 1)].tolist()
    return np.array(sorted({*found, int(gains.argmax())}))


def _spread(size: int, count: int) -> list[int]:
    """Return up to so many positions from the first to the last."""
    return sorted({k * (size - 1) // (count - 1) for k in range(count)})


def _piecewise_linear(probes: Probes) -> bool:
    """Return whether all hidden activations are linear between their kinks."""
    return all(_straight(a) for a in probes.network.activations[:-1])


def _straight(activation: BoundActivation) -> bool:
    """Return whether an activation is linear between its kinks."""
    return activation.entry is not None and activation.entry.piecewise_linear


def _nodes(curvature: float) -> Floats:
    """Return as many nodes as the measured curvature asks for; Chebyshev's, in the square."""
    if curvature <= CURVATURE_FLOOR:
        return np.ones(1)
    count = int(np.ceil(np.log(1e-15) / np.log(min(curvature, 0.3)))) + 1
    count = min(count, MOST_NODES)
    return np.sqrt(0.5 + 0.5 * np.cos(np.pi * np.arange(count) / count))
