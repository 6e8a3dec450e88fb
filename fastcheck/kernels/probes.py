"""Probes whose changes stay linear up to the outputs: the work of the unit method.

Per sample, the weights between the active units of two layers are gathered once and multiply the
changes of the probes of all layers below, one BLAS product each. What a kink could spoil is found
by a bound, and looked at only where the bound can't exclude it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.arrays import fill
from fastcheck.kernels.calls import loss_odd
from fastcheck.kernels.compiling import array_kernel, inlined_kernel, part_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.propagation import UNCROSSED, loss_crossings, outputs_change, row_of
from fastcheck.types import Floats, Integers

__all__ = ["linear_probes", "probe_state"]


# How much farther than the linear reach a kink is looked for: what a smooth layer on the way can
# bend a change of h ≤ 1e-2 by, with room.
KINK_MARGIN = 1.05
# The output units' own changes are made for so many numbers at a time: 8 MB.
OWN_CHANGES = 2**20
# Slopes at θ are taken by a change of the outputs of at most so much: its square is no digit.
SMALL_CHANGE = 2.0**-30
# ... and so many times the residual, where the output activation bends; and this share of the way
# to an output's nearest kink, but no less than the second number.
SHARE_OF_ROOM, LEAST_CHANGE = 2.0**-6, 2.0**-600


class ProbeState(NamedTuple):
    """The probes on their way through one sample.

    Attributes
    ----------
    counts, starts : ndarray, shape (L,) and (L + 1,), int64
        How many probes of each layer there are, and where their changes start in the workspace.
    firsts, sources : ndarray, shape (L + 1,) and (Σ n_l,), int64
        Where each layer's units start; and the units probed, from there on.
    squares : ndarray, shape (max n,), float64
        Overwritten.
    units, passed : ndarray, shape (2, max n,), int64 and float64
        Active units of a layer and the next, in turn, and what they multiply a change by.
    work : ndarray, shape (3, ·), float64
        The changes before and behind a layer, in turn, and the weights between active units.
    curves : ndarray, shape (L + 1, 4), float64
        Bounds of the second and third derivatives of each layer's activation, and of the loss; then
        bounds of the activation's beside its first derivative at the same place.
    relative : ndarray, shape (L, 2), float64
        Of this sample: bounds of the second and third derivative beside the layer's largest first.
    bends : ndarray, shape (2, Σ n_l), float64
        About the relative second and third order of the changes of each probe so far; each layer's
        from where its units start.
    """

    counts: Integers
    starts: Integers
    firsts: Integers
    sources: Integers
    squares: Floats
    units: Integers
    passed: Floats
    work: Floats
    curves: Floats
    relative: Floats
    bends: Floats


def probe_state(sizes: Sequence[int], curves: Floats, work: Floats) -> ProbeState:
    """Return what `linear_probes` overwrites, for layers of the given sizes.

    Parameters
    ----------
    sizes : sequence of int
        `n_0, …, n_L`.
    curves : ndarray, shape (L + 1, 4), float64
        As `ProbeState` has it.
    work : ndarray, shape (3, ≥ `work_row(…)`), float64
    """
    depth, widest = len(sizes) - 1, max(sizes[1:])
    return ProbeState(
        counts=np.zeros(depth, np.int64),
        starts=np.zeros(depth + 1, np.int64),
        firsts=np.cumsum([0, *sizes[1:]], dtype=np.int64),
        sources=np.empty(sum(sizes[1:]), np.int64),
        squares=np.empty(widest),
        units=np.empty((2, widest), np.int64),
        passed=np.empty((2, widest)),
        work=work,
        curves=curves,
        relative=np.zeros((depth, 2)),
        bends=np.zeros((2, sum(sizes[1:]))),
    )


@part_kernel
def _changes(state: ProbeState, k: int, l: int, units: int) -> Floats:
    """The changes of layer l's probes at layer k, (units, probes)."""
    start, count = state.starts[l], state.counts[l]
    return state.work[k % 2, start : start + units * count].reshape((units, count))


@part_kernel
def _probed(state: ProbeState, l: int) -> Integers:
    """Which units of layer l are probed."""
    first = state.firsts[l]
    return state.sources[first : first + state.counts[l]]


@part_kernel
def _gather(
    W: Floats, rows: Integers, columns: Integers, local_slopes: Floats, out: Floats
) -> None:
    """out[j, i] = W[rows[j], columns[i]] · gains[i]: the weights that the active units use."""
    if columns.size == W.shape[1]:
        for j in range(rows.size):
            row, found = W[rows[j]], out[j]
            for i in range(columns.size):
                found[i] = row[i] * local_slopes[i]
        return
    fours = rows.size - rows.size % 4
    for j in range(0, fours, 4):  # one look at `columns` serves four rows
        first, second, third, fourth = W[rows[j]], W[rows[j + 1]], W[rows[j + 2]], W[rows[j + 3]]
        one, two, three, four = out[j], out[j + 1], out[j + 2], out[j + 3]
        for i in range(columns.size):
            column, local_slope = columns[i], local_slopes[i]
            one[i] = first[column] * local_slope
            two[i] = second[column] * local_slope
            three[i] = third[column] * local_slope
            four[i] = fourth[column] * local_slope
    for j in range(fours, rows.size):
        for i in range(columns.size):
            out[j, i] = W[rows[j], columns[i]] * local_slopes[i]


@part_kernel
def _active(local_slope: Floats, found: Integers, kept: Floats) -> int:
    """List the units that pass a change on and what they multiply it by; return how many."""
    count = 0
    for i in range(local_slope.size):
        if local_slope[i] != 0.0:
            found[count] = i
            kept[count] = local_slope[i]
            count += 1
    return count


@part_kernel
def _largest(local_slopes: Floats) -> float:
    """The largest absolute value."""
    top = 0.0
    for i in range(local_slopes.size):
        top = max(top, abs(local_slopes[i]))
    return top


@part_kernel
def _bend(state: ProbeState, k: int, l: int, changes: Floats) -> None:
    """Add what layer k's activation makes of these changes of layer l's probes."""
    second, third = state.relative[k]
    if second == 0.0:
        return
    tops = state.squares[: changes.shape[1]]
    fill(tops, 0.0)
    for j in range(changes.shape[0]):
        for c in range(tops.size):
            moved = abs(changes[j, c])
            tops[c] = moved if moved > tops[c] else tops[c]
    first = state.firsts[l]
    for c in range(tops.size):
        even = 0.5 * second * tops[c]
        state.bends[1, first + c] += (
            2.0 * state.bends[0, first + c] * even + third / 6.0 * tops[c] * tops[c]
        )
        state.bends[0, first + c] += even


@part_kernel
def _relate(state: ProbeState, k: int, local_slopes: Floats) -> None:
    """Bound the second and third derivative of layer k beside the sample's largest first."""
    top = _largest(local_slopes)
    for order in range(2):
        bound = state.curves[k, order] / top if top > 0.0 else 0.0
        state.relative[k, order] = min(bound, state.curves[k, 2 + order])


@part_kernel
def _greatest_norm(D: Floats, squares: Floats) -> float:
    """The largest Euclidean norm of a column."""
    fill(squares, 0.0)
    for j in range(D.shape[0]):
        for c in range(D.shape[1]):
            squares[c] += D[j, c] * D[j, c]
    top = 0.0
    for c in range(squares.size):
        top = max(top, squares[c])
    return float(np.sqrt(top))


@part_kernel
def _lower_reach(room: float, row: Floats, sources: Integers, reach: Floats) -> None:
    """reach[source] falls to the share of its step at which this unit meets its kink."""
    for c in range(row.size):
        moved = abs(row[c]) * KINK_MARGIN
        if moved > 0.0 and room < moved:
            reach[sources[c]] = min(reach[sources[c]], room / moved)


@part_kernel
def _near_kinks(
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    columns: Integers,
    local_slopes: Floats,
    D: Floats,
    bound: float,
    sources: Integers,
    reach: Floats,
) -> None:
    """Find which changes D of the layer below make a unit of this layer meet its kink.

    No unit can move by more than the norm of its weights times `bound`, the norm of the change
    that comes in; only for units that are nearer to a kink than that the sum is formed.
    """
    weights = np.empty((1, columns.size))
    moved = np.empty((1, D.shape[1]))
    for j in range(z.size):
        for kink in here:
            room = abs(z[j] - kink)
            if room > norms[j] * bound * KINK_MARGIN:
                continue
            for i in range(columns.size):
                weights[0, i] = W[j, columns[i]] * local_slopes[i]
            np.dot(weights, D, moved)
            _lower_reach(room, moved[0], sources, reach)


@part_kernel
def _near_kinks_first(
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    sources: Integers,
    local_slopes: Floats,
    step: float,
    reach: Floats,
) -> None:
    """As `_near_kinks`, for the probes of the layer just below: each is one column of W."""
    top = _largest(local_slopes)
    for j in range(z.size):
        for kink in here:
            room = abs(z[j] - kink)
            if room > norms[j] * top * step * KINK_MARGIN:
                continue
            for c in range(sources.size):
                moved = abs(W[j, sources[c]] * local_slopes[c]) * step * KINK_MARGIN
                if moved > 0.0 and room < moved:
                    reach[sources[c]] = min(reach[sources[c]], room / moved)


@part_kernel
def _scaled(factor: float, D: Floats, out: Floats) -> None:
    """out = factor · D."""
    for k in range(D.shape[0]):
        for c in range(D.shape[1]):
            out[k, c] = factor * D[k, c]


@part_kernel
def _end_crossings(
    net: NetworkArrays,
    rows: tuple[Floats, Floats, Floats],
    here: Floats,
    sample: int,
    D: Floats,
    crossed: NDArray[np.int8],
    differences: Integers,
) -> None:
    """Note which probes cross a kink of the output activation or of the loss, to either side."""
    z, outputs, t = rows
    if here.size == 0 and net.corners.size == 0:
        return
    moved = np.empty((D.shape[0], D.shape[1]))
    for sign in (1.0, -1.0):
        _scaled(sign, D, moved)
        outputs_change(net, z, sample, moved, here, crossed, differences)
        if net.corners.size > 0:
            loss_crossings(outputs, t, net.corners, moved, crossed)


@part_kernel
def _room(net: NetworkArrays, z: float, residual: float, here: Floats) -> float:
    """How far an output is from its nearest kink or corner; those it lies on do not count."""
    room = np.inf
    for kink in here:
        if z != kink:
            room = min(room, abs(z - kink))
    for corner in net.corners:
        if residual != corner:
            room = min(room, abs(residual - corner))
    return room


@part_kernel
def _share(
    net: NetworkArrays, rows: tuple[Floats, Floats, Floats], here: Floats, D: Floats, bent: bool
) -> float:
    """Which share of the changes tells the slope at θ: a power of two; all for own functions.

    It is small, and so small that no output meets a kink, nor one whose activation is
    `bent` bends by more than its residual.
    """
    z, outputs, t = rows
    top, most = 0.0, SMALL_CHANGE
    for k in range(D.shape[0]):
        residual = outputs[k] - t[k]
        top = max(top, _largest(D[k]))
        most = min(most, SHARE_OF_ROOM * _room(net, z[k], residual, here))
        if bent:
            most = min(most, SMALL_CHANGE * abs(residual))
    if net.cancels or not most < top < np.inf:
        return 1.0
    return float(np.exp2(np.floor(np.log2(max(most, LEAST_CHANGE) / top))))


@part_kernel
def _end_of_probe(
    net: NetworkArrays,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    sample: int,
    D: Floats,
    step: float,
    sources: Integers,
    slopes: Floats,
    reach: Floats,
    bent: bool,
    differences: Integers,
    odd: int,
) -> None:
    """From ΔZ_L at the step to ℓ's slope at θ, by both signs of a small share, for each column."""
    Z, A, T = trace
    last = net.activations.size - 1
    z = row_of(net, Z, T.shape[0], sample, last)
    outputs = row_of(net, A, T.shape[0], sample, last)
    here = kinks[0][kinks[1][last] : kinks[1][last + 1]]
    columns = D.shape[1]
    crossed = np.empty(columns, np.int8)
    for c in range(columns):
        crossed[c] = UNCROSSED
    rows = (z, outputs, T[sample])
    _end_crossings(net, rows, here, sample, D, crossed, differences)
    share = _share(net, rows, here, D, bent)
    up, down = np.empty((D.shape[0], columns)), np.empty((D.shape[0], columns))
    _scaled(share, D, up)
    _scaled(-share, D, down)
    outputs_change(net, z, sample, up, here[:0], crossed, differences)  # no kink: nothing is noted
    outputs_change(net, z, sample, down, here[:0], crossed, differences)
    grown = np.empty(columns)
    loss_odd(odd, net.loss_parameter, outputs, T[sample], up, down, grown)
    for c in range(columns):
        slopes[sources[c]] = grown[c] / (share * step)
        if crossed[c] != UNCROSSED:
            reach[sources[c]] = 0.0


@part_kernel
def _bound(
    state: ProbeState,
    first: int,
    D: Floats,
    step: float,
    output_slopes: Floats,
    output_size: float,
    sources: Integers,
    bounds: Floats,
) -> None:
    """About the largest O(h²) term of the slopes of each probe; the first one's bends at `first`.

    What reaches the outputs is the largest of any of these probes: one's own may cancel where its
    O(h²) term does not.
    """
    depth = state.curves.shape[0] - 1
    second, third = state.curves[depth, 0], state.curves[depth, 1]
    bent, twice = state.curves[depth - 1, 0], state.curves[depth - 1, 1]
    if bent > 0.0:  # loss and output activation as one function
        third += 4.0 * second * bent + output_size * twice
        second += output_size * bent
    moved, passed = 0.0, 0.0
    for c in range(D.shape[1]):
        total, weighted = 0.0, 0.0
        for k in range(D.shape[0]):
            total += abs(D[k, c])
            weighted += abs(D[k, c] * output_slopes[k])
        moved, passed = max(moved, total), max(passed, weighted)
    for c in range(D.shape[1]):
        even, odd = state.bends[0, first + c], state.bends[1, first + c]
        of_loss = (second * even + third / 6.0 * moved) * moved * moved
        bounds[sources[c]] = (passed * odd + of_loss) / step


@part_kernel
def _raise_zeros(bounds: Floats) -> None:
    """Put the largest in place of each 0."""
    top = _largest(bounds)
    for i in range(bounds.size):
        bounds[i] = top if bounds[i] == 0.0 else bounds[i]


@part_kernel
def _common(requested: NDArray[np.bool_], active: Integers) -> Integers:
    """Positions in `active` of the units that are asked for."""
    found = np.empty(active.size, np.int64)
    count = 0
    for i in range(active.size):
        if requested[active[i]]:
            found[count] = i
            count += 1
    return found[:count]


@part_kernel
def _own_kinks(z: Floats, here: Floats, step: float, own: Floats) -> None:
    """Find which units meet a kink of their own."""
    for j in range(z.size):
        for kink in here:
            room = abs(z[j] - kink)
            if room <= step * KINK_MARGIN:
                own[j] = min(own[j], room / (step * KINK_MARGIN))


@part_kernel
def _advance(
    k: int,
    state: ProbeState,
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    rows: Integers,
    active: Integers,
    local_slopes: Floats,
    reach: Floats,
) -> None:
    """Carry the probes of the layers below k − 1 from layer k − 1 to layer k."""
    G = state.work[2, : rows.size * active.size].reshape((rows.size, active.size))
    if k > 1:
        _gather(W, rows, active, local_slopes, G)
    for l in range(k - 1):
        if state.counts[l] == 0:
            continue
        D = _changes(state, k - 1, l, active.size)
        np.dot(G, D, _changes(state, k, l, rows.size))
        if k < state.counts.size - 1:
            _bend(state, k, l, _changes(state, k, l, rows.size))
        if here.size > 0:
            bound = _largest(local_slopes) * _greatest_norm(D, state.squares[: state.counts[l]])
            _near_kinks(
                z, here, W, norms, active, local_slopes, D, bound, _probed(state, l),
                reach[state.firsts[l] : state.firsts[l + 1]],
            )  # fmt: skip


@part_kernel
def _start(
    k: int,
    state: ProbeState,
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    rows: Integers,
    active: Integers,
    local_slopes: Floats,
    requested: NDArray[np.bool_],
    step: float,
    stride: int,
    reach: Floats,
) -> None:
    """Start the probes of layer k − 1: at layer k, each is one column of the weights."""
    l = k - 1
    first, last = state.firsts[l], state.firsts[l + 1]
    positions = _common(requested[first:last], active)
    state.counts[l] = positions.size
    state.starts[l + 1] = state.starts[l] + positions.size * stride
    sources = _probed(state, l)
    own, moving = np.empty(positions.size), np.empty(positions.size)
    for c in range(positions.size):
        sources[c] = active[positions[c]]
        own[c] = local_slopes[positions[c]]
        moving[c] = own[c] * step
    moved = _changes(state, k, l, rows.size)
    if k > 1 and positions.size == active.size:  # what `_advance` has gathered
        G = state.work[2, : rows.size * active.size].reshape((rows.size, active.size))
        for j in range(rows.size):
            for c in range(positions.size):
                moved[j, c] = G[j, c] * step
    else:
        _gather(W, rows, sources, moving, moved)
    for c in range(positions.size):
        state.bends[0, first + c] = 0.5 * state.relative[l, 0] * step
        state.bends[1, first + c] = state.relative[l, 1] / 6.0 * step * step
    if k < state.counts.size - 1:
        _bend(state, k, l, moved)
    if here.size > 0:
        _near_kinks_first(z, here, W, norms, sources, own, step, reach[first:last])


@inlined_kernel
def _propagate(
    net: NetworkArrays,
    theta: Floats,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    local_slopes: Floats,
    row_norms: Floats,
    sample: int,
    steps: Floats,
    requested: NDArray[np.bool_],
    reach: Floats,
    state: ProbeState,
) -> None:
    """Carry the probes of one sample from their own layer to the outputs."""
    m, last = trace[2].shape[0], net.activations.size - 1
    stride = net.sizes[last + 1]  # no probe is carried to the first layer
    for k in range(1, last):
        stride = max(stride, net.sizes[k + 1])
    active, active_gains = state.units[1, :0], state.passed[1, :0]
    for k in range(last + 1):
        first = state.firsts[k]
        z = row_of(net, trace[0], m, sample, k)
        here = kinks[0][kinks[1][k] : kinks[1][k + 1]]
        _own_kinks(z, here, steps[k], reach[first : state.firsts[k + 1]])
        rows, row_gains = state.units[k % 2], state.passed[k % 2]
        count = z.size
        if k < last:
            count = _active(row_of(net, local_slopes, m, sample, k), rows, row_gains)
        else:
            for i in range(count):
                rows[i], row_gains[i] = i, 1.0
        rows, row_gains = rows[:count], row_gains[:count]
        _relate(state, k, row_gains)
        if k > 0:
            start = net.weight_offsets[k]
            W = theta[start : start + net.sizes[k] * z.size].reshape((z.size, net.sizes[k]))
            norms = row_norms[first : state.firsts[k + 1]]
            _advance(k, state, z, here, W, norms, rows, active, active_gains, reach)
            _start(
                k, state, z, here, W, norms, rows, active, active_gains, requested,
                steps[k - 1], stride, reach,
            )  # fmt: skip
        active, active_gains = rows, row_gains


@part_kernel
def _own_changes(outputs: int, start: int, step: float, sources: Integers) -> Floats:
    """The changes of the output units' own probes, (outputs, probes): one output each."""
    D = np.empty((outputs, sources.size))
    for k in range(outputs):
        for c in range(sources.size):
            D[k, c] = step if k == start + c else 0.0
    for c in range(sources.size):
        sources[c] = start + c
    return D


@inlined_kernel
def _finish(
    net: NetworkArrays,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    sample: int,
    steps: Floats,
    slopes: Floats,
    reach: Floats,
    bounds: Floats,
    state: ProbeState,
    differences: Integers,
    odd: int,
) -> None:
    """Turn the changes at the outputs into slopes; the output units' own probes start here."""
    last = net.activations.size - 1
    outputs = net.sizes[last + 1]
    farthest = 0.0
    A, t = row_of(net, trace[1], trace[2].shape[0], sample, last), trace[2][sample]
    for k in range(outputs):
        farthest = max(farthest, abs(A[k] - t[k]))
    for l in range(last, -1, -1):
        first, stop = state.firsts[l], state.firsts[l + 1]
        count = outputs if l == last else state.counts[l]
        width = max(1, min(count, OWN_CHANGES // outputs)) if l == last else max(1, count)
        for start in range(0, count, width):
            if l == last:
                sources = state.sources[first + start : min(first + start + width, stop)]
                D = _own_changes(outputs, start, steps[last], sources)
            else:
                D = _changes(state, last, l, outputs)
                sources = _probed(state, l)
            _end_of_probe(
                net, trace, kinks, sample, D, steps[l], sources, slopes[first:stop],
                reach[first:stop], state.curves[last, 0] > 0.0, differences, odd,
            )  # fmt: skip
            _bound(
                state, first + start, D, steps[l], slopes[state.firsts[last] :], 1.0 + farthest,
                sources, bounds[first:stop],
            )  # fmt: skip
        if state.curves[l, 1] > 0.0:
            _raise_zeros(bounds[first:stop])  # a slope of 0 may bend


@array_kernel
def linear_probes(
    net: NetworkArrays,
    theta: Floats,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    local_slopes: Floats,
    row_norms: Floats,
    samples: tuple[int, int],
    steps: Floats,
    requested: NDArray[np.bool_],
    slopes: Floats,
    reach: Floats,
    bounds: Floats,
    state: ProbeState,
    differences: Integers,
    odd: int,
) -> None:
    """Probe units of all layers at some samples, with changes that stay linear up to the outputs.

    Only active units are visited: per pair of layers the weights between them are gathered once and
    serve the probes of all layers below.

    Parameters
    ----------
    net, theta, trace, kinks, differences
        As for `loss_change`.
    gains : ndarray, shape (m · Σ n_l,), float64
        From `layer_slopes`.
    row_norms : ndarray, shape (Σ n_l,), float64
        Euclidean norm of each unit's weights.
    samples : tuple of int
        The first, and one past the last.
    steps : ndarray, shape (m, L), float64
        h of each sample and layer.
    touched : ndarray, shape (Σ n_l,), bool
        Which units are asked for.
    slopes : ndarray, shape (samples, Σ n_l), float64
        Filled in: D(δ)/2δ at δ → 0; 0 before, and left so for units that pass nothing on.
    reach : ndarray, shape (samples, Σ n_l), float64
        Lowered to the share of h within which no kink is met; 2 before.
    bounds : ndarray, shape (samples, Σ n_l), float64
        Filled in: about the largest |D(δ)/2δ − slope| of each probe at δ ≤ h; 0 before, and left so
        for units that pass nothing on.
    state : ProbeState
        Overwritten.
    odd : int
        `Calls.loss_odd`.
    """
    for sample in range(samples[0], samples[1]):
        row = sample - samples[0]
        _propagate(
            net, theta, trace, kinks, local_slopes, row_norms, sample, steps[sample], requested,
            reach[row], state,
        )  # fmt: skip
        _finish(
            net, trace, kinks, sample, steps[sample], slopes[row], reach[row], bounds[row],
            state, differences, odd,
        )  # fmt: skip
