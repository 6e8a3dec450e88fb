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
def _straight(z: Floats, kinks: Floats, slopes: Floats, left: Floats, right: Floats) -> int:
    """Fill in the gains of a layer that is linear between its kinks; return how many lie on one."""
    on_kink = 0
    for i in range(z.size):
        below, upto = 0, 0
        for kink in kinks:
            below += z[i] > kink
            upto += z[i] >= kink
        on_kink += upto - below
        left[i], right[i] = slopes[below], slopes[upto]
    return on_kink


@part_kernel
def _curved(
    address: int,
    p: float,
    z: Floats,
    kinks: Floats,
    steps: Floats,
    left: Floats,
    right: Floats,
) -> int:
    """As `_straight`, for any activation: central differences at each sample's own step."""
    on_kink = 0
    both = np.empty(2)
    units = z.size // steps.size
    for i in range(z.size):
        step, room = steps[i // units], np.inf
        for kink in kinks:
            room = min(room, abs(z[i] - kink))
        step = min(step, 0.5 * room) if room > 0.0 else ONE_SIDED_STEP * step
        both[0], both[1] = -step, step
        change(address, p, z[i], both)
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
    steps: Floats,
    kinks: tuple[Floats, Integers],
    straight: NDArray[np.bool_],
    gains: tuple[Floats, Floats],
    differences: Integers,
) -> int:
    """Fill in what each unit multiplies a small change by; return how many units lie on a kink.

    A gain is the central difference of φ at the layer's step (or at half the way to a nearer kink)
    times the dropout mask. On a kink the two gains are the slopes to the left and to the right.

    Parameters
    ----------
    net : NetworkArrays
    Z : ndarray, shape (m · Σ n_l,), float64
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
    on_kink = 0
    first = 0
    for l in range(net.activations.size):
        here = kinks[0][kinks[1][l] : kinks[1][l + 1]]
        stop = first + steps.shape[1] * net.sizes[l + 1]
        z, left, right = Z[first:stop], gains[0][first:stop], gains[1][first:stop]
        address, p = differences[net.activations[l]], net.parameters[l]
        if straight[l]:
            on_kink += _straight(z, here, _piece_slopes(address, p, here), left, right)
        else:
            on_kink += _curved(address, p, z, here, steps[l], left, right)
        mask = net.mask_offsets[l]
        if mask >= 0:
            for i in range(z.size):
                left[i] *= net.masks[mask + i]
                right[i] *= net.masks[mask + i]
        first = stop
    return on_kink
