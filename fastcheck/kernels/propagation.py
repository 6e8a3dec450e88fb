"""How a change at one unit travels on to the loss: by differences, never by two values subtracted.

Everything here looks at one sample. A change is a column: `D[j, c]` is what unit j gains in column
c. `l` is a layer index 0..L-1; the trace holds Z of all layers, one after the other, each (m, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.calls import change, loss_growth, loss_odd
from fastcheck.kernels.compiling import array_kernel, part_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.types import Floats, Integers

__all__ = [
    "FROM_KINK",
    "GENUINE",
    "UNCROSSED",
    "loss_change",
    "loss_crossings",
    "mark_crossings",
    "mask_of",
    "outputs_change",
    "row_of",
]


UNCROSSED, FROM_KINK, GENUINE = 0, 1, 2


@part_kernel
def row_of(net: NetworkArrays, flat: Floats, m: int, sample: int, l: int) -> Floats:
    """Row `sample` of layer l in a trace."""
    start = 0
    for k in range(l):
        start += m * net.sizes[k + 1]
    start += sample * net.sizes[l + 1]
    return flat[start : start + net.sizes[l + 1]]


@part_kernel
def mask_of(net: NetworkArrays, l: int, sample: int, unit: int) -> float:
    """What the dropout mask multiplies A_l[sample, unit] by."""
    start = net.mask_offsets[l]
    return 1.0 if start < 0 else net.masks[start + sample * net.sizes[l + 1] + unit]


@part_kernel
def mark_crossings(z: float, d: Floats, kinks: Floats, crossed: NDArray[np.int8]) -> None:
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


@part_kernel
def loss_crossings(
    z: Floats, t: Floats, corners: Floats, d: Floats, crossed: NDArray[np.int8]
) -> None:
    """Note which columns move an output over a corner of the loss, a residual z − t."""
    for k in range(z.size):
        mark_crossings(z[k], d[k], t[k] + corners, crossed)


@part_kernel
def outputs_change(
    net: NetworkArrays,
    z: Floats,
    sample: int,
    D: Floats,
    kinks: Floats,
    crossed: NDArray[np.int8],
    differences: Integers,
) -> None:
    """ΔZ_L becomes ΔA_L, in place, and crossings of the output activation are noted."""
    l = net.activations.size - 1
    for k in range(z.size):
        mark_crossings(z[k], D[k], kinks, crossed)
        change(differences[net.activations[l]], net.parameters[l], z[k], D[k])
        factor = mask_of(net, l, sample, k)
        if factor != 1.0:
            for c in range(D.shape[1]):
                D[k, c] *= factor


@part_kernel
def _at_loss(
    net: NetworkArrays,
    trace: tuple[Floats, Floats, Floats],
    kinks: tuple[Floats, Integers],
    sample: int,
    D: Floats,
    out: Floats,
    odd: Floats,
    crossed: NDArray[np.int8],
    differences: Integers,
    loss: tuple[int, int],
) -> None:
    """From ΔZ_L to the growth of ℓ and to its odd part, as `loss_change` gives them."""
    Z, A, T = trace
    m, last = T.shape[0], net.activations.size - 1
    z = row_of(net, Z, m, sample, last)
    outputs_change(
        net, z, sample, D, kinks[0][kinks[1][last] : kinks[1][last + 1]], crossed, differences
    )
    outputs = row_of(net, A, m, sample, last)
    if net.corners.size > 0:
        loss_crossings(outputs, T[sample], net.corners, D, crossed)
    if odd.size > 0:
        up, down = np.empty((z.size, odd.size)), np.empty((z.size, odd.size))
        for k in range(z.size):
            for c in range(odd.size):
                up[k, c], down[k, c] = D[k, c], D[k, odd.size + c]
        loss_odd(loss[1], net.loss_parameter, outputs, T[sample], up, down, odd)
    loss_growth(loss[0], net.loss_parameter, outputs, T[sample], D, out)


@part_kernel
def _placed(units: Integers, deltas: Floats, D: Floats) -> None:
    """D[units[c], c] = deltas[c], and 0 elsewhere."""
    for j in range(D.shape[0]):
        for c in range(D.shape[1]):
            D[j, c] = deltas[c] if j == units[c] else 0.0


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
    odd: Floats,
    crossed: NDArray[np.int8],
    differences: Integers,
    loss: tuple[int, int],
) -> None:
    """out[c] = how much ℓ_s grows when Z_l[s, units[c]] grows by deltas[c].

    With `odd`, the second half of the columns are the first half with the opposite deltas, and
    odd[c] is half of what ℓ_s grows from the one to the other, never made from two growths.

    Parameters
    ----------
    net, theta
        As for `forward_trace`.
    trace : tuple of ndarray
        Z and A of all layers, flat, and the targets T (m, n_L).
    kinks : tuple of ndarray
        All layers' kinks one after the other, and where each layer's start (L + 1,).
    place : tuple of int
        (l, s): layer index and sample.
    units : ndarray, shape (columns,), int64
    deltas : ndarray, shape (columns,), float64
    out : ndarray, shape (columns,), float64
    odd : ndarray, shape (columns / 2,) or (0,), float64
    crossed : ndarray, shape (columns,), int8
        `UNCROSSED`, `FROM_KINK` (a unit that lay on a kink left it) or `GENUINE`.
    differences, loss : ndarray and tuple of int
        `Calls.differences`; `Calls.loss_growth` and `Calls.loss_odd`.
    """
    Z, _, T = trace
    l, sample = place
    m, last = T.shape[0], net.activations.size - 1
    z = row_of(net, Z, m, sample, l)
    columns = units.size
    D = np.empty((z.size if l == last else 0, columns))
    _placed(units, deltas, D)
    first = np.empty(columns)
    here = kinks[0][kinks[1][l] : kinks[1][l + 1]]
    address = differences[net.activations[l]]
    for c in range(columns):
        crossed[c] = UNCROSSED
        if l == last:
            continue
        first[c] = deltas[c]
        mark_crossings(z[units[c]], first[c : c + 1], here, crossed[c : c + 1])
        change(address, net.parameters[l], z[units[c]], first[c : c + 1])
        first[c] *= mask_of(net, l, sample, units[c])
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
        z = row_of(net, Z, m, sample, k)
        here = kinks[0][kinks[1][k] : kinks[1][k + 1]]
        for j in range(n_out):
            mark_crossings(z[j], D[j], here, crossed)
            change(differences[net.activations[k]], net.parameters[k], z[j], D[j])
            factor = mask_of(net, k, sample, j)
            if factor != 1.0:
                for c in range(columns):
                    D[j, c] *= factor
    _at_loss(net, trace, kinks, sample, D, out, odd, crossed, differences, loss)
