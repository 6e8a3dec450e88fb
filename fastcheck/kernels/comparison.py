"""A gradient held against its approximation, in one pass over both."""

from __future__ import annotations

import numpy as np

from fastcheck.kernels.arrays import largest_of
from fastcheck.kernels.compiling import array_kernel
from fastcheck.types import Floats

__all__ = ["compare"]


LANES = 512  # sums that run side by side


@array_kernel
def compare(
    gradient: Floats,
    values: Floats,
    sigma: Floats,
    rules: tuple[float, float],
    sums: Floats,
) -> tuple[int, int]:
    """Return how many |gradient − values| exceed what is allowed, and where the largest one is.

    Parameters
    ----------
    gradient, values : ndarray, shape (n,), float64
    sigma : ndarray, shape (n,) or (1,), float64
    rules : tuple of float
        tol and K: allowed is tol·|gradient| + tol·|values| + K·σ.
    sums : ndarray, shape (4,), float64
        Filled in: the sums of squares of error, gradient, values and σ.
    """
    tol, factor = rules
    lanes = np.zeros((4, LANES))
    same = np.full(LANES, sigma[0])
    alike = sigma.size < gradient.size
    error = np.empty(LANES)
    over, place, largest = 0, 0, -1.0
    for start in range(0, gradient.size, LANES):
        count = min(LANES, gradient.size - start)
        g, v = gradient[start : start + count], values[start : start + count]
        spread = same[:count] if alike else sigma[start : start + count]
        for k in range(count):
            error[k] = abs(g[k] - v[k])
            # tol first, so that the sum can't overflow
            over += error[k] > tol * abs(g[k]) + tol * abs(v[k]) + factor * spread[k]
        for k in range(count):
            lanes[0, k] += error[k] * error[k]
            lanes[1, k] += g[k] * g[k]
            lanes[2, k] += v[k] * v[k]
            lanes[3, k] += spread[k] * spread[k]
        most = largest_of(error[:count])
        if most > largest:
            largest, place = most, start
    for k in range(4):
        sums[k] = lanes[k].sum()
    while place < gradient.size - 1 and abs(gradient[place] - values[place]) != largest:
        place += 1
    return over, place
