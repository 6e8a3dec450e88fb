"""From slopes to dθ_approx: one small product a layer, the penalty, and the rows with kinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.methods.unit.kinks import SECANTS, KinkRows, merge_kinks
from fastcheck.methods.unit.probes import CANCELLATION_ERROR, Probes
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.network import Network
from fastcheck.model.parameters import Block
from fastcheck.types import Floats, Integers

__all__ = ["Chunk", "ChunkResult", "Sums", "approximation_of", "interrupted", "sums_of"]


UNIT_ROUNDOFF = 2.0**-53
ROUNDED_TERMS = 16.0  # operations behind each term of a sum, beside the sum over the samples


NOTED_CURVATURE = 1e-9


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
    slopes : ndarray, shape (samples, Q or 1, Σ n_l), float64
        D(δ)/2δ at each node, or where none bends at the first; 0 for units of another part.
    kinks : KinkRows
    curvature : float
        The largest O(h²) term, relative.
    """

    slopes: Floats
    kinks: KinkRows
    curvature: float = 0.0

    def packed(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, for a journal."""
        curvature = np.array(self.curvature)
        return {**self.kinks.packed(), "slopes": self.slopes, "curvature": curvature}

    @classmethod
    def unpacked(cls, arrays: dict[str, NDArray[Any]]) -> ChunkResult:
        """Return what `packed` was made of."""
        slopes, curvature = arrays.pop("slopes"), arrays.pop("curvature")
        return cls(slopes, KinkRows(**arrays), float(curvature))


@dataclass(frozen=True)
class Sums:
    """What some samples add to dθ_approx.

    Attributes
    ----------
    values : ndarray, shape (n,), float64
        Of all components or of those asked for: the part of the samples, the penalty once.
    deviations : ndarray, shape (2, n), float64, or None
        By how much D(ε) is off the derivative, in which the values are then, and what the last
        power adds to that; None where no slope bends.
    kinks : KinkRows
    curvature : float
    noise : float
    """

    values: Floats
    deviations: Floats | None
    kinks: KinkRows
    curvature: float
    noise: float

    def packed(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, for a journal."""
        none = np.zeros((0, self.values.size))
        return {
            **self.kinks.packed(),
            "values": self.values,
            "deviations": none if self.deviations is None else self.deviations,
            "numbers": np.array([self.curvature, self.noise]),
        }

    @classmethod
    def unpacked(cls, arrays: dict[str, NDArray[Any]]) -> Sums:
        """Return what `packed` was made of."""
        values, deviations = arrays.pop("values"), arrays.pop("deviations")
        curvature, noise = arrays.pop("numbers").tolist()
        kinks = KinkRows(**arrays)
        return cls(values, deviations if len(deviations) else None, kinks, curvature, noise)

    def __add__(self, other: Sums) -> Sums:
        """What the samples of both add: kinks' other answers as the least and the greatest."""
        deviations = self.deviations
        if deviations is None or other.deviations is None:
            deviations = other.deviations if deviations is None else deviations
        else:
            deviations = deviations + other.deviations
        return Sums(
            self.values + other.values,
            deviations,
            merge_kinks([self.kinks.bounded(), other.kinks.bounded()]),
            max(self.curvature, other.curvature),
            self.noise + other.noise,
        )


def sums_of(
    probes: Probes,
    indices: Integers | None,
    chunks: Sequence[Chunk],
    results: Sequence[ChunkResult],
    whole: int,
    *,
    penalty: bool = True,
) -> Sums:
    """Return what the samples of these probes add, of a batch of `whole` samples."""
    network = probes.network
    slopes = _coefficients(probes, _joined(probes, chunks, results))
    values = np.empty(network.size if indices is None else indices.size)
    deviations = np.zeros((2, values.size)) if len(slopes) > 1 else None
    for block in network.order.blocks:
        _fill_block(probes, slopes, block, indices, (values, deviations), whole)
    if penalty:
        _add_penalty(network, whole, indices, values)
    curvature = max([r.curvature for r in results], default=probes.curvature)
    kinks = merge_kinks([r.kinks for r in results])
    return Sums(values, deviations, kinks, curvature, _noise(probes, whole))


def approximation_of(
    network: Network, whole: int, epsilon: float, indices: Integers | None, sums: Sums
) -> Approximation:
    """Return dθ_approx of a batch of `whole` samples from what all of them add."""
    values, derivative, left = sums.values, None, 0.0
    if sums.deviations is not None:
        derivative = values.copy()
        values += sums.deviations[0]
        left = np.abs(sums.deviations[1]) if network.direct else 0.0
    return Approximation(
        "unit",
        epsilon,
        indices,
        values,
        noise=sums.noise,
        kinks=_apply_kinks(network, whole, sums.kinks, indices, values, derivative),
        curvature=sums.curvature,
        notes=tuple(_notes(network, sums.curvature)),
        derivative=derivative,
        uncertainty=left,
    )


def interrupted(network: Network, epsilon: float, indices: Integers | None) -> Approximation:
    """Return an approximation that holds nothing, of a run that did not come to its end."""
    values = np.full(network.size if indices is None else indices.size, np.nan)
    return Approximation("unit", epsilon, indices, values, complete=False)


def _noise(probes: Probes, whole: int) -> float:
    """Return what cancellation in the user's own functions does to a component, at most."""
    if probes.spread is None:
        return 0.0
    norms = [
        max(1.0, float(np.linalg.norm(probes.inputs_of(layer), axis=0).max()))
        for layer in range(1, probes.network.depth + 1)
    ]
    scale = probes.network.data_scale(whole)
    spread = probes.spread
    if probes.nodes.size > 1:  # it is a bend; what cancels is smaller
        spread = np.minimum(
            spread, spread * CANCELLATION_ERROR / (probes.epsilon * probes.curvature)
        )
    return scale * float(np.max(spread * np.array(norms)))


def _joined(probes: Probes, chunks: Sequence[Chunk], results: Sequence[ChunkResult]) -> Floats:
    """Return the slopes of all samples, (Q, m, Σ n_l); Q = 1 where none bends."""
    if len(results) == 1:
        return np.ascontiguousarray(results[0].slopes.transpose(1, 0, 2))
    units = int(probes.unit_offsets[-1])
    nodes = max(r.slopes.shape[1] for r in results)
    slopes = np.zeros((nodes, probes.batch.size, units))
    for chunk, result in zip(chunks, results, strict=True):
        slopes[:, chunk.first : chunk.last] += result.slopes.transpose(1, 0, 2)
    return slopes


def _coefficients(probes: Probes, slopes: Floats) -> Floats:
    """Return the polynomial in (δ/h)² through the slopes at the nodes."""
    if len(slopes) == 1:
        return slopes
    powers = np.vander(probes.nodes**2, increasing=True)
    # From the first node on, so that what does not bend has no power but the zeroth.
    changes = (slopes - slopes[:1]).reshape(probes.nodes.size, -1)
    found = np.asarray(np.linalg.solve(powers, changes), dtype=np.float64).reshape(slopes.shape)
    found[0] += slopes[0]
    return found


def _terms(probes: Probes, layer: int, count: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield, for each power of (δ/h)², the factors of the weights and of the biases."""
    inputs = probes.inputs_of(layer)
    steps = probes.steps[:, layer - 1 : layer]
    yield inputs, np.ones_like(steps)
    weights, biases = inputs, np.ones_like(steps)
    for _ in range(1, count):
        weights = weights * (probes.epsilon * inputs / steps) ** 2
        biases = biases * (probes.epsilon / steps) ** 2
        yield weights, biases


def _fill_block(
    probes: Probes,
    slopes: Floats,
    block: Block,
    indices: Integers | None,
    out: tuple[Floats, Floats | None],
    whole: int,
) -> None:
    """Fill in one block's part of the derivatives, and of how far D(ε) is from them.

    The second row of the latter is what the last power adds.
    """
    network, offsets = probes.network, probes.unit_offsets
    C = network.data_scale(whole) * slopes[:, :, offsets[block.layer - 1] : offsets[block.layer]]
    pick = 0 if block.kind == "W" else 1
    factors = [term[pick] for term in _terms(probes, block.layer, len(slopes))]
    values, deviations = out
    if indices is None:
        shape = (block.shape[0], factors[0].shape[1])
        # The products sum over samples in one order, whatever the number of workers.
        np.matmul(C[0].T, factors[0], out=values[block.slice].reshape(shape))
        if deviations is not None:
            for q in range(1, len(factors)):
                deviations[1, block.slice] = (C[q].T @ factors[q]).ravel()
                deviations[0, block.slice] += deviations[1, block.slice]
        return
    first, last = np.searchsorted(indices, (block.offset, block.stop))
    rows, columns = np.divmod(indices[first:last] - block.offset, factors[0].shape[1])
    found = np.zeros((len(factors), rows.size))
    for q, factor in enumerate(factors):
        for sample in range(probes.batch.size):
            found[q] += C[q, sample, rows] * factor[sample, columns]
    values[first:last] = found[0]
    if deviations is not None:
        deviations[:, first:last] = found[1:].sum(axis=0), found[-1]


def _add_penalty(network: Network, whole: int, indices: Integers | None, values: Floats) -> None:
    """Add the penalty's central difference, which is exactly its derivative."""
    decay = 2.0 * network.penalty_scale(whole)
    if decay == 0.0:
        return
    for block in network.order.blocks:
        if block.kind != "W":
            continue
        if indices is not None:
            first, last = np.searchsorted(indices, (block.offset, block.stop))
            values[first:last] += decay * network.theta[indices[first:last]]
            continue
        for start in range(block.offset, block.stop, 2**16):  # no second N numbers
            part = slice(start, min(start + 2**16, block.stop))
            values[part] += decay * network.theta[part]


def _apply_kinks(
    network: Network,
    whole: int,
    rows: KinkRows,
    indices: Integers | None,
    values: Floats,
    derivative: Floats | None,
) -> Kinks:
    """Put the components with kinks in place of the shared ones, and return their intervals.

    Rows that no polynomial follows come here too: their derivatives stay what they are.
    """
    if rows.indices.size == 0:
        return Kinks.none()
    scale = network.data_scale(whole)
    positions = rows.indices if indices is None else np.searchsorted(indices, rows.indices)
    values[positions] += scale * rows.change
    crossing = rows.others.any(axis=0)
    if derivative is not None:
        derivative[positions] += scale * rows.crossing
    low = values[positions] + scale * np.minimum(rows.others.min(axis=0), 0.0)
    high = values[positions] + scale * np.maximum(rows.others.max(axis=0), 0.0)
    # Where a shared slope was taken out again, rounding is left, kink or not.
    kept = np.flatnonzero(crossing | (derivative is None))
    terms = ROUNDED_TERMS + np.sqrt(whole)
    slack = terms * UNIT_ROUNDOFF * (scale * rows.size + np.maximum(np.abs(low), np.abs(high)))
    ways = rows.others[SECANTS:]
    jumps = scale * (np.maximum(ways.max(axis=0), 0.0) - np.minimum(ways.min(axis=0), 0.0))
    return Kinks(positions, low, high, slack, jumps).at(kept)


def _notes(network: Network, curvature: float) -> list[str]:
    notes = []
    own = [a.name for a in network.activations if a.entry is None]
    if own:
        notes.append(
            f"Your own activation {own[0]} is evaluated directly: its differences cancel, and each "
            f"component carries an error of about 1e-16/ε of its terms."
        )
    if network.loss.entry is None:
        notes.append(
            f"Your own loss {network.loss.name} is evaluated directly: its differences cancel."
        )
    if curvature > NOTED_CURVATURE:
        notes.append(
            f"At this ε the truncation error of the central difference is up to {curvature:.1e} of "
            "the largest slope. It was measured and is subtracted before the comparison."
        )
    return notes
