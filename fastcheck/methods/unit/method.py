"""The unit method: the central differences of all components from one probe a unit and sample.

Adding δ to Z_l[s, i] is all that a parameter entering unit (l, i) can do to sample s, so one
function g(δ) serves a whole row of W_l: D(δ)/2δ with D(δ) = g(δ) − g(−δ) is probed at the largest
step of the row and is the same for smaller ones up to a measured O(h²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcheck.execution.buffers import borrow
from fastcheck.kernels.ahead import compile_ahead
from fastcheck.methods.fingerprint import fingerprint
from fastcheck.methods.unit.assembly import (
    Chunk,
    ChunkResult,
    Sums,
    approximation_of,
    interrupted,
    sums_of,
)
from fastcheck.methods.unit.kink_conventions import probes_at_theta
from fastcheck.methods.unit.kinks import evaluate_kinks, merge_kinks
from fastcheck.methods.unit.probes import (
    Probes,
    bent_slopes,
    full_slopes,
    linear_slopes,
    measured,
    trace_of,
    unconverged,
    work_row,
)
from fastcheck.methods.unit.self_check import self_checked
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers

__all__ = ["UnitMethod", "prepare"]


# A chunk is at least this much work, so that handing it out costs nothing beside it.
CHUNK_FLOPS = 1e9
# The memory has room for the workspaces of so many chunks at a time.
CHUNKS_AT_ONCE = 4
FLOPS = 4e10  # of one core in a second, about


class UnitMethod:
    """The unit method made ready: see `methods.Prepared`."""

    def __init__(self, probes: Probes, indices: Integers | None, settings: Settings) -> None:
        self.probes = probes
        self.indices = indices
        self.requested = _requested_units(probes, indices)
        self.flops = _sample_flops(probes, self.requested)
        self.chunks: Sequence[Chunk] = _chunks(probes, self.requested, self.flops, settings.memory)

    @cached_property
    def at_theta(self) -> list[Probes]:
        """Probes of the derivative at θ, by each convention; made where a kink is near."""
        return probes_at_theta(self.probes)

    @property
    def weights(self) -> list[int]:
        """Probes in each chunk."""
        requested = int(self.requested.sum())
        return [max(1, (c.last - c.first) * requested // c.parts) for c in self.chunks]

    @property
    def seconds(self) -> float:
        """About how long all of it takes on one core."""
        return self.probes.batch.size * self.flops / FLOPS

    @property
    def worker_bytes(self) -> float:
        """What one worker allocates."""
        parts = self.chunks[0].parts
        return _work_bytes(self.probes, -(-_carried(self.probes, self.requested) // parts))

    @property
    def digest(self) -> str:
        """What a journal of these differences belongs to."""
        probes, chunks = self.probes, [astuple(chunk) for chunk in self.chunks]
        problem = (probes.network, probes.batch, self.indices)
        return fingerprint(*problem, "unit", probes.epsilon, chunks)

    packed = staticmethod(ChunkResult.packed)
    unpacked = staticmethod(ChunkResult.unpacked)

    def _requested_part(self, chunk: Chunk) -> NDArray[np.bool_]:
        if chunk.parts == 1:
            return self.requested
        mine = np.arange(self.requested.size) % chunk.parts == chunk.part
        return np.asarray(self.requested & mine)

    def differences(self, chunk: Chunk) -> ChunkResult:
        """Probe the units of one chunk at each of its samples."""
        requested = self._requested_part(chunk)
        row = work_row(self.probes.network.sizes, _carried(self.probes, requested))
        with borrow(3, row) as work:
            return self._probed(chunk, requested, work)

    def _probed(self, chunk: Chunk, requested: NDArray[np.bool_], work: Floats) -> ChunkResult:
        probes = self.probes
        found = linear_slopes(probes, (chunk.first, chunk.last), requested, work)
        slopes, reach, _ = found
        slopes[:, :, ~requested] = 0.0  # output units are all probed
        curvature = probes.curvature
        if probes.direct:
            slopes = self._whole_slopes(chunk, requested, reach)
        else:
            slopes, curvature = bent_slopes(probes, chunk.first, requested, found)
        flagged = requested & (reach <= 1.0)
        rows = []
        for row in np.flatnonzero(flagged.any(axis=1)).tolist():
            sample = chunk.first + row
            known = (slopes[row], self._slopes_at_theta(sample, flagged[row], work))
            rows.append(
                evaluate_kinks(probes, sample, self.indices, flagged[row], reach[row], known)
            )
        return ChunkResult(slopes, merge_kinks(rows), curvature)

    def _whole_slopes(self, chunk: Chunk, requested: NDArray[np.bool_], reach: Floats) -> Floats:
        """Return the slopes at the nodes with both signs whole; `reach` falls to 0 at kinks."""
        probes = self.probes
        slopes = np.zeros((len(reach), probes.nodes.size, requested.size))
        for row, found in enumerate(slopes):
            met = full_slopes(probes, chunk.first + row, requested, probes.nodes, found)
            reach[row][met | unconverged(probes, found)] = 0.0
        return slopes

    def _slopes_at_theta(self, sample: int, flagged: NDArray[np.bool_], work: Floats) -> Floats:
        """Return the derivatives by the flagged units' logits, (conventions, Σ n_l)."""
        one = (sample, sample + 1)
        found = [linear_slopes(probes, one, flagged, work)[0][0, 0] for probes in self.at_theta]
        return np.stack(found)

    def assemble(self, results: Sequence[ChunkResult | None]) -> Approximation:
        """Make dθ_approx of the slopes, and hold a few components against the textbook."""
        probes, done = self.probes, [r for r in results if r is not None]
        network, batch = probes.network, probes.batch
        if len(done) < len(results):
            return interrupted(network, probes.epsilon, self.indices)
        sums = self.sums(done, batch.size, penalty=True)
        found = approximation_of(network, batch.size, probes.epsilon, self.indices, sums)
        return self_checked(network, batch, replace(found, trace=(probes.Z, probes.A)))

    def sums(self, results: Sequence[ChunkResult], whole: int, *, penalty: bool) -> Sums:
        """Return what these samples, of a batch of `whole`, add to dθ_approx."""
        return sums_of(self.probes, self.indices, self.chunks, results, whole, penalty=penalty)


def _requested_units(probes: Probes, indices: Integers | None) -> NDArray[np.bool_]:
    """Return which units the components enter, shape (Σ n_l,)."""
    offsets = probes.unit_offsets
    if indices is None:
        return np.ones(int(offsets[-1]), bool)
    requested = np.zeros(int(offsets[-1]), bool)
    for block in probes.network.order.blocks:
        first, last = np.searchsorted(indices, (block.offset, block.stop))
        inside = indices[first:last] - block.offset
        columns = block.shape[1] if block.kind == "W" else 1
        requested[offsets[block.layer - 1] + inside // columns] = True
    return requested


def _chunks(
    probes: Probes, requested: NDArray[np.bool_], flops: float, memory: float
) -> list[Chunk]:
    """Cut the work by samples, and by units where the memory asks for it."""
    m = probes.batch.size
    group = min(m, max(int(np.ceil(CHUNK_FLOPS / flops)), -(-m // 64)))
    carried = _carried(probes, requested)
    needed = _work_bytes(probes, carried) * CHUNKS_AT_ONCE
    parts = max(1, min(carried, int(np.ceil(needed / memory))))
    return [
        Chunk(first, min(first + group, m), part, parts)
        for first in range(0, m, group)
        for part in range(parts)
    ]


def _carried(probes: Probes, requested: NDArray[np.bool_]) -> int:
    """Return how many probes are carried to a layer behind their own: all but the outputs'."""
    return int(np.count_nonzero(requested[: probes.unit_offsets[-2]]))


def _work_bytes(probes: Probes, carried: int) -> float:
    """Return what a chunk takes with so many probes: its workspace, and ± at the outputs."""
    sizes = probes.network.sizes
    at_outputs = 3 * sizes[-1] * min(carried, max(sizes))
    return 8.0 * (3 * work_row(sizes, carried) + at_outputs)


def _sample_flops(probes: Probes, requested: NDArray[np.bool_]) -> float:
    """Return about what one sample takes, from how many units are active on average."""
    m, sizes, offsets = probes.batch.size, probes.network.sizes[1:], probes.unit_offsets
    local_slopes = np.split(probes.left, m * np.cumsum(sizes)[:-1])
    active = [np.count_nonzero(local_slope) / m for local_slope in local_slopes[:-1]] + [
        float(sizes[-1])
    ]
    probed = [
        float(requested[first:last].mean()) * n
        for first, last, n in zip(offsets[:-1], offsets[1:], active, strict=True)
    ]
    flops = sum(
        2.0 * sum(probed[: k - 1]) * active[k] * active[k - 1] for k in range(2, len(active))
    )
    sides = 2 * probes.nodes.size if probes.direct else 1
    return sides * (flops + 50.0 * sum(probed) * sizes[-1]) + 1.0


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
    compile_ahead()
    probes = trace_of(network, batch, settings.epsilon)
    return UnitMethod(measured(probes), indices, settings)
