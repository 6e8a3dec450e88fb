"""How a change at one unit travels on to the loss: by differences, never by two values subtracted.

Everything here looks at one sample. A change is a column: `D[j, c]` is what unit j gains in column c.
`l` is a layer index 0..L-1; the trace holds Z of all layers, one after the other, each (m, n) in rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.activations import change
from fastcheck.kernels.compiling import array_kernel, scalar_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.losses import loss_growth

__all__ = ["GENUINE", "UNCROSSED", "layer_slopes", "linear_probes", "loss_change"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

UNCROSSED, FROM_KINK, GENUINE = 0, 1, 2
# How much farther than the linear reach a kink is looked for: what a smooth layer on the way can
# bend a change of h ≤ 1e-2 by, with room.
MARGIN = 1.05


@scalar_kernel
def _row(net: NetworkArrays, flat: Floats, m: int, sample: int, l: int) -> Floats:
    """Row `sample` of layer l in a trace."""
    start = 0
    for k in range(l):
        start += m * net.sizes[k + 1]
    start += sample * net.sizes[l + 1]
    return flat[start : start + net.sizes[l + 1]]


@scalar_kernel
def _mask(net: NetworkArrays, l: int, sample: int, unit: int) -> float:
    """What the dropout mask multiplies A_l[sample, unit] by."""
    start = net.mask_offsets[l]
    return 1.0 if start < 0 else net.masks[start + sample * net.sizes[l + 1] + unit]


@scalar_kernel
def _mark_crossings(z: float, d: Floats, kinks: Floats, crossed: NDArray[np.int8]) -> None:
    """Note which columns move this unit onto, over or away from a kink."""
    for kink in kinks:
        room = z - kink
        for c in range(d.size):
            if d[c] == 0.0:
                continue
            if room == 0.0:
                crossed[c] = max(crossed[c], FROM_KINK)
            elif (room > 0.0) == (d[c] < 0.0) and abs(d[c]) >= abs(room):
                crossed[c] = GENUINE


@scalar_kernel
def _loss_crossings(
    z: Floats, t: Floats, width: float, d: Floats, crossed: NDArray[np.int8]
) -> None:
    """Note which columns move an output over one of Huber's corners, z − t = ±width."""
    corner = np.empty(1)
    for k in range(z.size):
        for sign in (-1.0, 1.0):
            corner[0] = t[k] + sign * width
            _mark_crossings(z[k], d[k], corner, crossed)


@scalar_kernel
def _outputs_change(
    net: NetworkArrays,
    z: Floats,
    sample: int,
    D: Floats,
    kinks: Floats,
    crossed: NDArray[np.int8],
    custom: Any,
) -> None:
    """ΔZ_L becomes ΔA_L, in place, and crossings of the output activation are noted."""
    l = net.activations.size - 1
    for k in range(z.size):
        _mark_crossings(z[k], D[k], kinks, crossed)
        change(net.activations[l], net.parameters[l], z[k], D[k], custom)
        factor = _mask(net, l, sample, k)
        if factor != 1.0:
            for c in range(D.shape[1]):
                D[k, c] *= factor


@array_kernel
def loss_change(
    net: NetworkArrays,
    theta: Floats,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    place: tuple[int, int],
    units: Integers,
    deltas: Floats,
    out: Floats,
    crossed: NDArray[np.int8],
    custom: Any,
    custom_loss: Any,
) -> None:
    """out[c] = how much ℓ_s grows when Z_l[s, units[c]] grows by deltas[c].

    Parameters
    ----------
    net, theta
        As for `forward.cost`.
    trace : tuple of ndarray
        Z and A of all layers, flat, and the targets T (m, n_L).
    kinks : tuple of ndarray
        All layers' kinks one after the other, and where each layer's start (L + 1,).
    place : tuple of int
        (l, s): layer index and sample.
    units : ndarray, shape (columns,), int64
    deltas : ndarray, shape (columns,), float64
    out : ndarray, shape (columns,), float64
    crossed : ndarray, shape (columns,), int8
        `UNCROSSED`, `FROM_KINK` (a unit that lay on a kink left it) or `GENUINE`.
    custom, custom_loss : numba function pointers
        The user's own activations and loss.
    """
    Z, A, T = trace
    l, sample = place
    m, last = T.shape[0], net.activations.size - 1
    z = _row(net, Z, m, sample, l)
    columns = units.size
    crossed[:] = UNCROSSED
    D = np.zeros((net.sizes[l + 1], columns)) if l == last else np.empty((0, columns))
    first = deltas.copy()
    here = kinks[0][kinks[1][l] : kinks[1][l + 1]]
    for c in range(columns):
        if l == last:
            D[units[c], c] = deltas[c]
            continue
        _mark_crossings(z[units[c]], first[c : c + 1], here, crossed[c : c + 1])
        change(net.activations[l], net.parameters[l], z[units[c]], first[c : c + 1], custom)
        first[c] *= _mask(net, l, sample, units[c])
    for k in range(l + 1, last + 1):
        n_in, n_out = net.sizes[k], net.sizes[k + 1]
        start = net.weight_offsets[k]
        W = theta[start : start + n_in * n_out].reshape((n_out, n_in))
        moved = np.empty((n_out, columns))
        if k == l + 1:
            for j in range(n_out):
                for c in range(columns):
                    moved[j, c] = W[j, units[c]] * first[c]
        else:
            np.dot(W, D, moved)
        D = moved
        if k == last:
            break
        z = _row(net, Z, m, sample, k)
        here = kinks[0][kinks[1][k] : kinks[1][k + 1]]
        for j in range(n_out):
            _mark_crossings(z[j], D[j], here, crossed)
            change(net.activations[k], net.parameters[k], z[j], D[j], custom)
            factor = _mask(net, k, sample, j)
            if factor != 1.0:
                for c in range(columns):
                    D[j, c] *= factor
    z = _row(net, Z, m, sample, last)
    _outputs_change(net, z, sample, D, kinks[0][kinks[1][last] : kinks[1][last + 1]], crossed, custom)
    outputs = _row(net, A, m, sample, last)
    if net.loss == 4:
        _loss_crossings(outputs, T[sample], net.loss_parameter, D, crossed)
    loss_growth(net.loss, net.loss_parameter, outputs, T[sample], D, out, custom_loss)


@array_kernel
def layer_slopes(
    net: NetworkArrays,
    Z: Floats,
    m: int,
    steps: Floats,
    kinks: tuple[Floats, Integers],
    gains: tuple[Floats, Floats],
    custom: Any,
) -> int:
    """Fill in what each unit multiplies a small change by; return how many units lie on a kink.

    A gain is the central difference of φ at the layer's step (or at half the way to a nearer kink)
    times the dropout mask. On a kink the two gains are the slopes to the left and to the right.

    Parameters
    ----------
    net, custom
        As for `forward.cost`.
    Z : ndarray, shape (m · Σ n_l,), float64
    m : int
    steps : ndarray, shape (L, m), float64
    kinks : tuple of ndarray
        As for `loss_change`.
    gains : tuple of ndarray, shape (m · Σ n_l,), float64
        Filled in: left and right.
    """
    left, right = gains
    on_kink = 0
    i = 0
    both = np.empty(2)
    for l in range(net.activations.size):
        here = kinks[0][kinks[1][l] : kinks[1][l + 1]]
        for s in range(m):
            for j in range(net.sizes[l + 1]):
                step = steps[l, s]
                room = np.inf
                for kink in here:
                    room = min(room, abs(Z[i] - kink))
                if room > 0.0:
                    step = min(step, 0.5 * room)
                both[0], both[1] = -step, step
                change(net.activations[l], net.parameters[l], Z[i], both, custom)
                mask = _mask(net, l, s, j)
                if room > 0.0:
                    left[i] = right[i] = mask * (both[1] - both[0]) / (2.0 * step)
                else:
                    on_kink += 1
                    left[i], right[i] = -mask * both[0] / step, mask * both[1] / step
                i += 1
    return on_kink


@scalar_kernel
def _gather(
    W: Floats, rows: Integers, columns: Integers, gains: Floats, out: Floats
) -> None:
    """out[j, i] = W[rows[j], columns[i]] · gains[i]: the weights that the active units use."""
    whole = columns.size == W.shape[1]
    for j in range(rows.size):
        if whole:
            for i in range(columns.size):
                out[j, i] = W[rows[j], i] * gains[i]
        else:
            for i in range(columns.size):
                out[j, i] = W[rows[j], columns[i]] * gains[i]


@scalar_kernel
def _active(gain: Floats, found: Integers, kept: Floats) -> int:
    """List the units that pass a change on, and what they multiply it by."""
    count = 0
    for i in range(gain.size):
        if gain[i] != 0.0:
            found[count] = i
            kept[count] = gain[i]
            count += 1
    return count


@scalar_kernel
def _greatest_norm(D: Floats, squares: Floats) -> float:
    """The largest Euclidean norm of a column."""
    squares[:] = 0.0
    for j in range(D.shape[0]):
        for c in range(D.shape[1]):
            squares[c] += D[j, c] * D[j, c]
    top = 0.0
    for c in range(squares.size):
        top = max(top, squares[c])
    return np.sqrt(top)


@scalar_kernel
def _lower_reach(room: float, row: Floats, sources: Integers, reach: Floats) -> None:
    """reach[source] falls to the share of its step at which this unit meets its kink."""
    for c in range(row.size):
        moved = abs(row[c]) * MARGIN
        if moved > 0.0 and room < moved:
            reach[sources[c]] = min(reach[sources[c]], room / moved)


@scalar_kernel
def _near_kinks(
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    columns: Integers,
    gains: Floats,
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
            if room > norms[j] * bound * MARGIN:
                continue
            for i in range(columns.size):
                weights[0, i] = W[j, columns[i]] * gains[i]
            np.dot(weights, D, moved)
            _lower_reach(room, moved[0], sources, reach)


@scalar_kernel
def _near_kinks_first(
    z: Floats,
    here: Floats,
    W: Floats,
    norms: Floats,
    sources: Integers,
    gains: Floats,
    step: float,
    reach: Floats,
) -> None:
    """As `_near_kinks`, for the probes of the layer just below, each of which is one column of W."""
    top = 0.0
    for c in range(gains.size):
        top = max(top, abs(gains[c]))
    for j in range(z.size):
        for kink in here:
            room = abs(z[j] - kink)
            if room > norms[j] * top * step * MARGIN:
                continue
            for c in range(sources.size):
                moved = abs(W[j, sources[c]] * gains[c]) * step * MARGIN
                if moved > 0.0 and room < moved:
                    reach[sources[c]] = min(reach[sources[c]], room / moved)


@scalar_kernel
def _end_of_probe(
    net: NetworkArrays,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    sample: int,
    D: Floats,
    step: float,
    nodes: Floats,
    sources: Integers,
    slopes: Floats,
    reach: Floats,
    custom: Any,
    custom_loss: Any,
) -> None:
    """From ΔZ_L to (ℓ⁺ − ℓ⁻) / 2h at h = step · node, both signs exactly, for each column."""
    Z, A, T = trace
    last = net.activations.size - 1
    z = _row(net, Z, T.shape[0], sample, last)
    outputs = _row(net, A, T.shape[0], sample, last)
    here = kinks[0][kinks[1][last] : kinks[1][last + 1]]
    columns = D.shape[1]
    crossed = np.zeros(columns, np.int8)
    grown = np.empty((2, columns))
    moved = np.empty(D.shape)
    for q in range(nodes.size):
        for side in range(2):
            factor = nodes[q] if side == 0 else -nodes[q]
            for k in range(D.shape[0]):
                for c in range(columns):
                    moved[k, c] = factor * D[k, c]
            _outputs_change(net, z, sample, moved, here, crossed, custom)
            if net.loss == 4:
                _loss_crossings(outputs, T[sample], net.loss_parameter, moved, crossed)
            loss_growth(
                net.loss, net.loss_parameter, outputs, T[sample], moved, grown[side], custom_loss
            )
        for c in range(columns):
            slopes[q, sources[c]] = (grown[0, c] - grown[1, c]) / (2.0 * step * nodes[q])
    for c in range(columns):
        if crossed[c] != UNCROSSED:
            reach[sources[c]] = 0.0


@scalar_kernel
def _common(touched: NDArray[np.bool_], active: Integers) -> Integers:
    """Positions in `active` of the units that are asked for."""
    found = np.empty(active.size, np.int64)
    count = 0
    for i in range(active.size):
        if touched[active[i]]:
            found[count] = i
            count += 1
    return found[:count]


@array_kernel
def linear_probes(
    net: NetworkArrays,
    theta: Floats,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    gains: Floats,
    row_norms: Floats,
    sample: int,
    steps: Floats,
    nodes: Floats,
    touched: NDArray[np.bool_],
    slopes: Floats,
    reach: Floats,
    work: Floats,
    custom: Any,
    custom_loss: Any,
) -> None:
    """Probe units of all layers at one sample, with changes that stay linear up to the outputs.

    Only active units are visited: per pair of layers the weights between them are gathered once and
    serve the probes of all layers below.

    Parameters
    ----------
    net, theta, trace, kinks, custom, custom_loss
        As for `loss_change`.
    gains : ndarray, shape (m · Σ n_l,), float64
        From `layer_slopes`.
    row_norms : ndarray, shape (Σ n_l,), float64
        Euclidean norm of each unit's weights.
    sample : int
    steps : ndarray, shape (L,), float64
        h of each layer at this sample.
    nodes : ndarray, shape (Q,), float64
        The loss is taken at ± h · node.
    touched : ndarray, shape (Σ n_l,), bool
        Which units are asked for.
    slopes : ndarray, shape (Q, Σ n_l), float64
        Filled in: D(δ)/2δ at δ = h · node, 0 for units that pass nothing on.
    reach : ndarray, shape (Σ n_l,), float64
        Filled in: the share of h within which no kink is met (2 where none is met at all).
    work : ndarray, shape (3, ≥ max n · max(Σ_l touched_l, max n)), float64
        Overwritten.
    """
    Z, A, T = trace
    m, last = T.shape[0], net.activations.size - 1
    slopes[:] = 0.0
    reach[:] = 2.0
    unit_offsets = np.zeros(last + 2, np.int64)
    for k in range(last + 1):
        unit_offsets[k + 1] = unit_offsets[k] + net.sizes[k + 1]
    widest = 0
    for k in range(last + 1):
        widest = max(widest, net.sizes[k + 1])
    found, kept = np.empty(widest, np.int64), np.empty(widest)
    squares = np.empty(widest)
    counts, starts = np.zeros(last + 1, np.int64), np.zeros(last + 2, np.int64)
    sources = np.empty(unit_offsets[last + 1], np.int64)
    gathered = work[2]
    active, active_gains = np.empty(0, np.int64), np.empty(0)

    for k in range(last + 1):
        here = kinks[0][kinks[1][k] : kinks[1][k + 1]]
        z = _row(net, Z, m, sample, k)
        own = reach[unit_offsets[k] : unit_offsets[k + 1]]
        for j in range(z.size):
            for kink in here:
                if abs(z[j] - kink) <= steps[k] * MARGIN:
                    own[j] = min(own[j], abs(z[j] - kink) / (steps[k] * MARGIN))
        if k == last:
            for j in range(z.size):
                found[j] = j
            rows = found[: z.size].copy()
            row_gains = np.ones(z.size)
        else:
            count = _active(_row(net, gains, m, sample, k), found, kept)
            rows, row_gains = found[:count].copy(), kept[:count].copy()
        if k > 0:
            start = net.weight_offsets[k]
            W = theta[start : start + net.sizes[k] * net.sizes[k + 1]].reshape(
                (net.sizes[k + 1], net.sizes[k])
            )
            norms = row_norms[unit_offsets[k] : unit_offsets[k + 1]]
            G = gathered[: rows.size * active.size].reshape((rows.size, active.size))
            _gather(W, rows, active, active_gains, G)
            front, back = work[k % 2], work[(k + 1) % 2]
            top_gain = 0.0
            for i in range(active_gains.size):
                top_gain = max(top_gain, abs(active_gains[i]))
            for l in range(k - 1):
                if counts[l] == 0:
                    continue
                D = back[starts[l] : starts[l] + active.size * counts[l]].reshape(
                    (active.size, counts[l])
                )
                moved = front[starts[l] : starts[l] + rows.size * counts[l]].reshape(
                    (rows.size, counts[l])
                )
                np.dot(G, D, moved)
                if here.size > 0:
                    bound = top_gain * _greatest_norm(D, squares[: counts[l]])
                    mine = sources[starts[l] // widest : starts[l] // widest + counts[l]]
                    _near_kinks(
                        z, here, W, norms, active, active_gains, D, bound, mine,
                        reach[unit_offsets[l] : unit_offsets[l + 1]],
                    )  # fmt: skip
            # The probes of the layer just below: each is one column of the weights.
            l = k - 1
            positions = _common(touched[unit_offsets[l] : unit_offsets[l + 1]], active)
            counts[l] = positions.size
            base = starts[l] // widest
            for c in range(counts[l]):
                sources[base + c] = active[positions[c]]
            starts[l + 1] = starts[l] + counts[l] * widest
            moved = front[starts[l] : starts[l] + rows.size * counts[l]].reshape(
                (rows.size, counts[l])
            )
            for j in range(rows.size):
                for c in range(counts[l]):
                    moved[j, c] = G[j, positions[c]] * steps[l]
            if here.size > 0:
                _near_kinks_first(
                    z, here, W, norms, sources[base : base + counts[l]],
                    active_gains[positions], steps[l],
                    reach[unit_offsets[l] : unit_offsets[l + 1]],
                )  # fmt: skip
        active, active_gains = rows, row_gains

    final = work[last % 2]
    outputs = net.sizes[last + 1]
    for l in range(last):
        if counts[l] == 0:
            continue
        base = starts[l] // widest
        D = final[starts[l] : starts[l] + outputs * counts[l]].reshape((outputs, counts[l]))
        _end_of_probe(
            net, trace, kinks, sample, D, steps[l], nodes, sources[base : base + counts[l]],
            slopes[:, unit_offsets[l] : unit_offsets[l + 1]],
            reach[unit_offsets[l] : unit_offsets[l + 1]], custom, custom_loss,
        )  # fmt: skip
    D = np.zeros((outputs, outputs))
    every = np.arange(outputs)
    for k in range(outputs):
        D[k, k] = steps[last]
    _end_of_probe(
        net, trace, kinks, sample, D, steps[last], nodes, every,
        slopes[:, unit_offsets[last] :], reach[unit_offsets[last] :], custom, custom_loss,
    )  # fmt: skip
