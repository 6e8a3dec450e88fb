"""What each unit multiplies a small change by: the central difference of its own activation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.calls import change
from fastcheck.kernels.compiling import array_kernel, part_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.types import Floats, Integers

__all__ = ["layer_slopes"]


# A slope to one side changes by O(δ): on a kink it is taken at this share of the step.
ONE_SIDED_STEP = 1e-6


@part_kernel
def _piece_slopes(address: int, p: float, kinks: Floats) -> Floats:
    """Slopes of an activation that is linear between its kinks, from left to right."""
    slopes = np.empty(kinks.size + 1)
    both = np.empty(2)
    for piece in range(slopes.size):
        start = kinks[piece - 1] if piece > 0 else (kinks[0] if kinks.size > 0 else 0.0) - 1.0
        stop = kinks[piece] if piece < kinks.size else start + 1.0
        step = 0.25 * (stop - start)
        both[0], both[1] = -step, step
        change(address, p, 0.5 * (start + stop), both)
        slopes[piece] = (both[1] - both[0]) / (2.0 * step)
    return slopes


@part_kernel
def _straight(
    Z: Floats, kinks: Floats, slopes: Floats, local_slopes: tuple[Floats, Floats], first: int
) -> int:
    """Fill in the gains of a layer that is linear between its kinks; return how many lie on one."""
    left, right = local_slopes
    on_kink = 0
    for i in range(first, first + Z.size):
        z, below, upto = Z[i - first], 0, 0
        for k in range(kinks.size):
            below += z > kinks[k]
            upto += z >= kinks[k]
        on_kink += upto - below
        left[i], right[i] = slopes[below], slopes[upto]
    return on_kink


@part_kernel
def _curved(
    net: NetworkArrays,
    l: int,
    Z: Floats,
    kinks: Floats,
    steps: Floats,
    local_slopes: tuple[Floats, Floats],
    first: int,
    address: int,
) -> int:
    """As `_straight`, for any activation: central differences at each sample's own step."""
    left, right = local_slopes
    on_kink = 0
    both = np.empty(2)
    for i in range(first, first + Z.size):
        z, step = Z[i - first], steps[(i - first) // net.sizes[l + 1]]
        room = np.inf
        for kink in kinks:
            room = min(room, abs(z - kink))
        step = min(step, 0.5 * room) if room > 0.0 else ONE_SIDED_STEP * step
        both[0], both[1] = -step, step
        change(address, net.parameters[l], z, both)
        if room > 0.0:
            left[i] = right[i] = (both[1] - both[0]) / (2.0 * step)
        else:
            on_kink += 1
            left[i], right[i] = -both[0] / step, both[1] / step
    return on_kink


@array_kernel
def layer_slopes(
    net: NetworkArrays,
    Z: Floats,
    m: int,
    steps: Floats,
    kinks: tuple[Floats, Integers],
    straight: NDArray[np.bool_],
    local_slopes: tuple[Floats, Floats],
    differences: Integers,
) -> int:
    """Fill in what each unit multiplies a small change by; return how many units lie on a kink.

    A gain is the central difference of φ at the layer's step (or at half the way to a nearer kink)
    times the dropout mask. On a kink the two gains are the slopes to the left and to the right.

    Parameters
    ----------
    net : NetworkArrays
    Z : ndarray, shape (m · Σ n_l,), float64
    m : int
    steps : ndarray, shape (L, m), float64
    kinks : tuple of ndarray
        As for `loss_change`.
    straight : ndarray, shape (L,), bool
        Which activations are linear between their kinks.
    gains : tuple of ndarray, shape (m · Σ n_l,), float64
        Filled in: left and right.
    differences : ndarray, shape (L + 1,), int64
        `Calls.differences`.
    """
    left, right = local_slopes
    on_kink = 0
    first = 0
    for l in range(net.activations.size):
        here = kinks[0][kinks[1][l] : kinks[1][l + 1]]
        count = m * net.sizes[l + 1]
        z = Z[first : first + count]
        address = differences[net.activations[l]]
        if straight[l]:
            slopes = _piece_slopes(address, net.parameters[l], here)
            on_kink += _straight(z, here, slopes, local_slopes, first)
        else:
            on_kink += _curved(net, l, z, here, steps[l], local_slopes, first, address)
        mask = net.mask_offsets[l]
        if mask >= 0:
            for i in range(count):
                left[first + i] *= net.masks[mask + i]
                right[first + i] *= net.masks[mask + i]
        first += count
    return on_kink
