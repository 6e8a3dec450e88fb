"""What each unit multiplies a small change by: the central difference of its own activation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.activations import change
from fastcheck.kernels.compiling import array_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.propagation import mask_of

__all__ = ["layer_slopes"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
                mask = mask_of(net, l, s, j)
                if room > 0.0:
                    left[i] = right[i] = mask * (both[1] - both[0]) / (2.0 * step)
                else:
                    on_kink += 1
                    left[i], right[i] = -mask * both[0] / step, mask * both[1] / step
                i += 1
    return on_kink
