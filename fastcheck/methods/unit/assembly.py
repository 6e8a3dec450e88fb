"""From slopes to dθ_approx: one small product a layer, the penalty, and the rows with kinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcheck.methods.unit.kinks import SECANTS, KinkRows, merge_kinks
from fastcheck.methods.unit.probes import CANCELLATION_ERROR, Probes
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.parameters import Block
from fastcheck.types import Floats, Integers

__all__ = ["Chunk", "ChunkResult", "assemble"]


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


def assemble(
    probes: Probes,
    indices: Integers | None,
    chunks: Sequence[Chunk],
    results: Sequence[ChunkResult | None],
) -> Approximation:
    """Return dθ_approx of all components, or of those at `indices`."""
    network = probes.network
    done = [r for r in results if r is not None]
    complete = len(done) == len(results)
    values = np.empty(network.size if indices is None else indices.size)
    kinks, derivative, left = Kinks.none(), None, 0.0
    curvature = max([r.curvature for r in done], default=probes.curvature)
    if not complete:
        values[:] = np.nan
    else:
        slopes = _coefficients(probes, _joined(probes, chunks, results))
        second_derivatives = np.zeros((2, values.size)) if len(slopes) > 1 else None
        for block in network.order.blocks:
            _fill_block(probes, slopes, block, indices, (values, second_derivatives))
        if second_derivatives is not None:
            derivative = values.copy()
            values += second_derivatives[0]
            left = np.abs(second_derivatives[1]) if probes.direct else 0.0
        rows = merge_kinks([r.kinks for r in done])
        kinks = _apply_kinks(probes, rows, indices, values, derivative)
    return Approximation(
        "unit",
        probes.epsilon,
        indices,
        values,
        noise=_noise(probes),
        kinks=kinks,
        curvature=curvature,
        complete=complete,
        notes=tuple(_notes(probes, curvature)),
        trace=(probes.Z, probes.A),
        derivative=derivative,
        uncertainty=left,
    )


def _noise(probes: Probes) -> float:
    """Return what cancellation in the user's own functions does to a component, at most."""
    if probes.spread is None:
        return 0.0
    norms = [
        max(1.0, float(np.linalg.norm(probes.inputs_of(layer), axis=0).max()))
        for layer in range(1, probes.network.depth + 1)
    ]
    scale = probes.network.data_scale(probes.batch.size)
    spread = probes.spread
    if probes.nodes.size > 1:  # it is a bend; what cancels is smaller
        spread = np.minimum(
            spread, spread * CANCELLATION_ERROR / (probes.epsilon * probes.curvature)
        )
    return scale * float(np.max(spread * np.array(norms)))


def _joined(
    probes: Probes, chunks: Sequence[Chunk], results: Sequence[ChunkResult | None]
) -> Floats:
    """Return the slopes of all samples, (Q, m, Σ n_l); Q = 1 where none bends."""
    if len(results) == 1 and results[0] is not None:
        return np.ascontiguousarray(results[0].slopes.transpose(1, 0, 2))
    units = int(probes.unit_offsets[-1])
    nodes = max(r.slopes.shape[1] for r in results if r is not None)
    slopes = np.zeros((nodes, probes.batch.size, units))
    for chunk, result in zip(chunks, results, strict=True):
        if result is not None:
            slopes[:, chunk.first : chunk.last] += result.slopes.transpose(1, 0, 2)
    return slopes


def _coefficients(probes: Probes, slopes: Floats) -> Floats:
    """Return the polynomial in (δ/h)² through the slopes at the nodes."""
    if len(slopes) == 1:
        return slopes
    powers = np.vander(probes.nodes**2, increasing=True)
    # From the first node on, so that what does not bend has no power but the zeroth.
    second_derivatives = (slopes - slopes[:1]).reshape(probes.nodes.size, -1)
    found = np.asarray(np.linalg.solve(powers, second_derivatives), dtype=np.float64).reshape(
        slopes.shape
    )
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
) -> None:
    """Fill in one block's part of the derivatives, and of how far D(ε) is from them.

    The second row of the latter is what the last power adds.
    """
    m = probes.batch.size
    offsets = probes.unit_offsets
    C = probes.network.data_scale(m) * slopes[:, :, offsets[block.layer - 1] : offsets[block.layer]]
    pick = 0 if block.kind == "W" else 1
    factors = [term[pick] for term in _terms(probes, block.layer, len(slopes))]
    values, second_derivatives = out
    if indices is None:
        shape = (block.shape[0], factors[0].shape[1])
        # The products sum over samples in one order, whatever the number of workers.
        np.matmul(C[0].T, factors[0], out=values[block.slice].reshape(shape))
        if second_derivatives is not None:
            for q in range(1, len(factors)):
                second_derivatives[1, block.slice] = (C[q].T @ factors[q]).ravel()
                second_derivatives[0, block.slice] += second_derivatives[1, block.slice]
        _add_penalty(probes, block, values[block.slice].reshape(shape))
        return
    first, last = np.searchsorted(indices, (block.offset, block.stop))
    rows, columns = np.divmod(indices[first:last] - block.offset, factors[0].shape[1])
    found = np.zeros((len(factors), rows.size))
    for q, factor in enumerate(factors):
        for sample in range(m):
            found[q] += C[q, sample, rows] * factor[sample, columns]
    values[first:last] = found[0]
    if second_derivatives is not None:
        second_derivatives[:, first:last] = found[1:].sum(axis=0), found[-1]
    if block.kind == "W":
        weights = probes.network.theta[indices[first:last]]
        values[first:last] += 2.0 * probes.network.penalty_scale(m) * weights


def _add_penalty(probes: Probes, block: Block, out: Floats) -> None:
    """Add the penalty's central difference, which is exactly its derivative."""
    scale = 2.0 * probes.network.penalty_scale(probes.batch.size)
    if block.kind == "W" and scale != 0.0:
        weights = probes.network.W(block.layer)
        for start in range(0, block.shape[0], 64):  # a piece at a time: no second N numbers
            out[start : start + 64] += scale * weights[start : start + 64]


def _apply_kinks(
    probes: Probes,
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
    scale = probes.network.data_scale(probes.batch.size)
    positions = rows.indices if indices is None else np.searchsorted(indices, rows.indices)
    values[positions] += scale * rows.change
    crossing = rows.others.any(axis=0)
    if derivative is not None:
        derivative[positions] += scale * rows.crossing
    low = values[positions] + scale * np.minimum(rows.others.min(axis=0), 0.0)
    high = values[positions] + scale * np.maximum(rows.others.max(axis=0), 0.0)
    # Where a shared slope was taken out again, rounding is left, kink or not.
    kept = np.flatnonzero(crossing | (derivative is None))
    terms = ROUNDED_TERMS + np.sqrt(probes.batch.size)
    slack = terms * UNIT_ROUNDOFF * (scale * rows.size + np.maximum(np.abs(low), np.abs(high)))
    ways = rows.others[SECANTS:]
    jumps = scale * (np.maximum(ways.max(axis=0), 0.0) - np.minimum(ways.min(axis=0), 0.0))
    return Kinks(positions, low, high, slack, jumps).at(kept)


def _notes(probes: Probes, curvature: float) -> list[str]:
    notes = []
    own = [a.name for a in probes.network.activations if a.entry is None]
    if own:
        notes.append(
            f"Your own activation {own[0]} is evaluated directly: its differences cancel, and each "
            f"component carries an error of about 1e-16/ε of its terms."
        )
    if probes.network.loss.entry is None:
        notes.append(
            f"Your own loss {probes.network.loss.name} is evaluated directly: its differences "
            "cancel."
        )
    if curvature > NOTED_CURVATURE:
        notes.append(
            f"At this ε the truncation error of the central difference is up to {curvature:.1e} of "
            "the largest slope. It was measured and is subtracted before the comparison."
        )
    return notes
