"""What several kernels do with the numbers of one array."""

from __future__ import annotations

import numpy as np

from fastcheck.kernels.compiling import part_kernel
from fastcheck.types import Floats

__all__ = ["fill", "largest_of"]


@part_kernel
def fill(values: Floats, number: float) -> None:
    """Set all of them to a number; a slice would drag in numba's messages about shapes."""
    for i in range(values.size):
        values[i] = number


@part_kernel
def largest_of(values: Floats) -> float:
    """Return the largest |value|; as bits, since vector registers compare integers in any order."""
    bits = values.view(np.int64)
    most = np.zeros(1, np.int64)
    largest = np.int64(0)
    for i in range(bits.size):
        largest = max(largest, bits[i] & np.int64(0x7FFFFFFFFFFFFFFF))
    most[0] = largest
    return most.view(np.float64)[0]  # type: ignore[no-any-return]
