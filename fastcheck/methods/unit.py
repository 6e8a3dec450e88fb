"""The unit method: the central differences of all components from one probe a unit and sample.

Adding δ to Z_l[s, i] is all that a parameter entering unit (l, i) can do to sample s, so one
function g(δ) serves a whole row of W_l: D(δ)/2δ with D(δ) = g(δ) − g(−δ) is probed at the largest
step of the row and is the same for smaller ones up to a measured O(h²).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.approximation import Approximation
from fastcheck.kernels.forward import forward_trace
from fastcheck.kernels.propagation import layer_slopes, linear_probes, loss_change
from fastcheck.methods.kink_rows import KinkRows, evaluate_kinks, merge_kinks
from fastcheck.network import Batch, Network
from fastcheck.settings import Settings

__all__ = ["Probes", "UnitMethod", "prepare"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Below this share of a layer's largest slope the O(h²) term is left alone: it is rounding.
CURVATURE_FLOOR = 3e-14
# Where leaving the even part out moves a slope by more than this, both signs are propagated.
LINEAR_FLOOR = 1e-13
MOST_NODES = 8
# A chunk is at least this much work, so that handing it out costs nothing beside it.
CHUNK_FLOPS = 1e9
COLUMNS = 512


@dataclass(frozen=True)
class Probes:
    """What the forward pass at θ leaves behind, and how the probes are made.

    Attributes
    ----------
    network, batch : Network, Batch
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
    """

    network: Network
    batch: Batch
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

    @property
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
        net = self.network.arrays(self.batch.size)
        for start in range(0, units.size, COLUMNS):
            part = slice(start, start + COLUMNS)
            loss_change(
                net, self.network.theta, self.trace, self.kinks, (layer - 1, sample),
                units[part], deltas[part], grown[part], crossed[part], *self.network.pointers,
            )  # fmt: skip
        return grown, crossed

    def slopes(
        self, layer: int, sample: int, units: Integers, nodes: Floats
    ) -> tuple[Floats, NDArray[np.int8]]:
        """Return D(δ)/2δ at each node, shape (Q, units), both signs whole, and what was crossed."""
        found, crossed = np.empty((nodes.size, units.size)), np.zeros(units.size, np.int8)
        for q, node in enumerate(nodes):
            step = np.full(units.size, node * self.steps[sample, layer - 1])
            above, crossed_above = self.change(layer, sample, units, step)
            below, crossed_below = self.change(layer, sample, units, -step)
            found[q] = (above - below) / (2.0 * step)
            crossed = np.maximum(crossed, np.maximum(crossed_above, crossed_below))
        return found, crossed


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
    norms = [_row_norms(network.W(layer)) for layer in range(1, network.depth + 1)]
    probes = Probes(
        network, batch, epsilon, Z, A, np.empty((batch.size, network.depth)), kinks, left, right,
        0, np.concatenate(norms), np.ones(1),
    )  # fmt: skip
    for layer in range(1, network.depth + 1):
        largest = np.abs(probes.inputs_of(layer)).max(axis=1)
        probes.steps[:, layer - 1] = epsilon * np.maximum(1.0, largest)
    on_kink = layer_slopes(
        net, Z, batch.size, np.ascontiguousarray(probes.steps.T), kinks, (left, right),
        network.pointers[0],
    )  # fmt: skip
    return replace(probes, on_kink=int(on_kink))


def _row_norms(W: Floats) -> Floats:
    return np.sqrt(np.einsum("ij,ij->i", W, W))


@dataclass(frozen=True)
class Chunk:
    """Samples `first` to `last` − 1, and of all units every `parts`-th from `part` on."""

    first: int
    last: int
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class ChunkResult:
    """What the probes of one chunk gave.

    Attributes
    ----------
    slopes : ndarray, shape (samples, Q, Σ n_l), float64
        D(δ)/2δ at each node; 0 for units of another part.
    kinks : KinkRows
    """

    slopes: Floats
    kinks: KinkRows


class UnitMethod:
    """The unit method made ready: see `methods.Prepared`."""

    def __init__(self, probes: Probes, indices: Integers | None, settings: Settings) -> None:
        self.probes = probes
        self.indices = indices
        self.touched = _touched_units(probes, indices)
        self.chunks: Sequence[Chunk] = _chunks(probes, self.touched, settings.memory)
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    @property
    def weights(self) -> list[int]:
        """Probes in each chunk."""
        touched = int(self.touched.sum())
        return [max(1, (c.last - c.first) * touched // c.parts) for c in self.chunks]

    def _touched_part(self, chunk: Chunk) -> NDArray[np.bool_]:
        if chunk.parts == 1:
            return self.touched
        return self.touched & (np.arange(self.touched.size) % chunk.parts == chunk.part)

    def _workspace(self, touched: NDArray[np.bool_]) -> Floats:
        """Return this thread's own workspace, made on first use."""
        widest = max(self.probes.network.sizes[1:])
        size = widest * max(int(touched.sum()), widest)
        if getattr(self._local, "work", np.empty((3, 0))).shape[1] < size:
            self._local.work = np.empty((3, size))
        return self._local.work  # type: ignore[no-any-return]

    def differences(self, chunk: Chunk) -> ChunkResult:
        """Probe the units of one chunk at each of its samples."""
        probes, touched = self.probes, self._touched_part(chunk)
        work = self._workspace(touched)
        samples = range(chunk.first, chunk.last)
        slopes = np.zeros((len(samples), probes.nodes.size, touched.size))
        found = []
        for row, sample in enumerate(samples):
            reach = linear_slopes(probes, sample, touched, slopes[row], work)
            if not probes.linear:
                reach = np.where(full_slopes(probes, sample, touched, slopes[row]), 0.0, reach)
            flagged = touched & (reach <= 1.0)
            if flagged.any():
                right = self._right_slopes(sample, flagged, slopes[row, 0], work)
                found.append(
                    evaluate_kinks(
                        probes, sample, self.indices, flagged, reach, (slopes[row], right)
                    )
                )
        return ChunkResult(slopes, merge_kinks(found))

    def _right_slopes(
        self, sample: int, flagged: NDArray[np.bool_], left: Floats, work: Floats
    ) -> Floats:
        """Return the slopes with every unit that lies on a kink taken to its right."""
        if self.probes.on_kink == 0:
            return left
        turned = replace(self.probes, left=self.probes.right, nodes=np.ones(1))
        right = np.zeros((1, left.size))
        linear_slopes(turned, sample, flagged, right, work)
        return right[0]

    def assemble(self, results: Sequence[ChunkResult | None]) -> Approximation:
        """Make dθ_approx of the slopes: one small product a layer."""
        from fastcheck.methods.unit_rows import assemble

        return assemble(self.probes, self.indices, self.chunks, results)


def linear_slopes(
    probes: Probes, sample: int, touched: NDArray[np.bool_], slopes: Floats, work: Floats
) -> Floats:
    """Fill in the slopes of one sample, (Q, Σ n_l), and return the reach of each unit."""
    reach = np.empty(touched.size)
    linear_probes(
        probes.network.arrays(probes.batch.size), probes.network.theta, probes.trace,
        probes.kinks, probes.left, probes.row_norms, sample, probes.steps[sample], probes.nodes,
        touched, slopes, reach, work, *probes.network.pointers,
    )  # fmt: skip
    return reach


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


def _touched_units(probes: Probes, indices: Integers | None) -> NDArray[np.bool_]:
    """Return which units the components enter, shape (Σ n_l,)."""
    offsets = probes.unit_offsets
    if indices is None:
        return np.ones(int(offsets[-1]), bool)
    touched = np.zeros(int(offsets[-1]), bool)
    for block in probes.network.order.blocks:
        first, last = np.searchsorted(indices, (block.offset, block.stop))
        inside = indices[first:last] - block.offset
        columns = block.shape[1] if block.kind == "W" else 1
        touched[offsets[block.layer - 1] + inside // columns] = True
    return touched


def _chunks(probes: Probes, touched: NDArray[np.bool_], memory: float) -> list[Chunk]:
    """Cut the work by samples, and by units where the memory asks for it."""
    m, sizes = probes.batch.size, probes.network.sizes
    offsets = probes.unit_offsets
    counts = [int(touched[offsets[k] : offsets[k + 1]].sum()) for k in range(len(sizes) - 1)]
    flops = sum(
        2.0 * sum(counts[: k - 1]) * sizes[k] * sizes[k + 1] for k in range(2, len(counts))
    )
    flops = max(flops + 50.0 * sum(counts) * sizes[-1], 1.0)
    group = min(m, max(int(np.ceil(CHUNK_FLOPS / flops)), -(-m // 64)))
    parts = max(1, int(np.ceil(2 * 8.0 * sum(counts) * max(sizes[1:]) / memory)))
    return [
        Chunk(first, min(first + group, m), part, parts)
        for first in range(0, m, group)
        for part in range(parts)
    ]


def prepare(
    network: Network, batch: Batch, indices: Integers | None, settings: Settings
) -> UnitMethod:
    """Make the unit method ready.

    Parameters
    ----------
    network, batch : Network, Batch
    indices : ndarray of int64, increasing, or None
        Which components; None for all.
    settings : Settings
    """
    probes = trace_of(network, batch, settings.epsilon)
    return UnitMethod(_measured(probes), indices, settings)


def _measured(probes: Probes) -> Probes:
    """Measure the O(h²) term on a few probes, and choose passes and nodes by it."""
    bend, curvature = 0.0, 0.0
    offsets, depth = probes.unit_offsets, probes.network.depth
    touched = np.zeros(int(offsets[-1]), bool)
    picks = [np.unique(np.linspace(0, n - 1, 8).astype(np.int64)) for n in probes.network.sizes[1:]]
    for layer, units in enumerate(picks):
        touched[offsets[layer] + units] = True
    work = np.empty((3, max(probes.network.sizes[1:]) * max(8 * depth, *probes.network.sizes[1:])))
    for sample in {0, probes.batch.size // 2}:
        slopes = np.zeros((1, touched.size))
        reach = linear_slopes(probes, sample, touched, slopes, work)
        for layer, units in enumerate(picks, start=1):
            whole, _ = probes.slopes(layer, sample, units, np.array([1.0, 0.5]))
            smooth = reach[offsets[layer - 1] + units] > 1.0
            largest = np.abs(whole).max(initial=0.0)
            if largest > 0.0 and smooth.any():
                here = slopes[0, offsets[layer - 1] + units]
                bend = max(bend, np.abs(whole[0] - here)[smooth].max() / largest)
                curvature = max(curvature, np.abs(whole[0] - whole[1])[smooth].max() / largest)
    linear = all(
        a.entry is not None and a.entry.piecewise_linear for a in probes.network.activations[:-1]
    ) or (bend <= LINEAR_FLOOR and not any(a.entry is None for a in probes.network.activations))
    return replace(probes, linear=linear, curvature=curvature, nodes=_nodes(curvature))


def _nodes(curvature: float) -> Floats:
    """Return as many nodes as the measured curvature asks for; Chebyshev's, in the square."""
    if curvature <= CURVATURE_FLOOR:
        return np.ones(1)
    count = int(np.ceil(np.log(1e-15) / np.log(min(curvature, 0.3)))) + 1
    count = min(count, MOST_NODES)
    return np.sqrt(0.5 + 0.5 * np.cos(np.pi * np.arange(count) / count))
