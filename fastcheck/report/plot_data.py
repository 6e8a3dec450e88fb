"""What a page about a check draws, as plain data: reduced so that not one wrong component is lost.

Made once at check time, when both gradients are at hand. Numbers travel as base64 of little-endian
arrays: small, without loss, and the same for NaN and infinity.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.approximation import VCurve

__all__ = [
    "BINS_PER_DECADE",
    "DECADES",
    "UNCHECKED",
    "Grid",
    "Histogram",
    "Pictures",
    "Points",
    "packed",
    "unpacked",
]

UNCHECKED = 255  # where a status is an index of `STATUSES`
# A histogram: one bin for no difference at all and for less than 1e-17, then two a decade up to 1.
DECADES, BINS_PER_DECADE = 17, 2


def packed(values: NDArray[Any], dtype: str) -> str:
    """Return an array as base64 of little-endian numbers in row order."""
    array = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode("ascii")


def unpacked(text: str, dtype: str) -> NDArray[Any]:
    """Return what `packed` packed, as one row."""
    return np.frombuffer(base64.b64decode(text), dtype=np.dtype(dtype).newbyteorder("<"))


@dataclass(frozen=True)
class Grid:
    """One block as a grid of cells; of each cell the worst component, and how many are wrong.

    The worst is the one of the worst status, among those the one of largest relative difference.

    Attributes
    ----------
    block : str
        `dW2`.
    shape : tuple of int
        Of the block, in the user's convention.
    cells : tuple of int
        (rows, columns) of the grid.
    cell : tuple of int
        (rows, columns) of components that one cell stands for.
    place : str
        uint32: which component, counted through the block in the user's row order.
    gradient, approximation : str
        float64.
    status : str
        uint8: an index of `STATUSES`, or `UNCHECKED`.
    wrong : str
        uint32: how many components of the cell are wrong.
    """

    block: str
    shape: tuple[int, ...]
    cells: tuple[int, ...]
    cell: tuple[int, ...]
    place: str
    gradient: str
    approximation: str
    status: str
    wrong: str


@dataclass(frozen=True)
class Histogram:
    """How many components of a block have which relative difference, by status.

    Attributes
    ----------
    block : str
    counts : tuple of tuple of int
        One row for each of `STATUSES`.
    """

    block: str
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Points:
    """Single components: those in trouble first, the rest spread evenly.

    Attributes
    ----------
    block : str
        uint16: which block.
    place : str
        uint32: as in `Grid`.
    gradient, approximation, allowed, limit : str
        float64; what |g − g_approx| may be to agree, and to be put down to the method's own error.
    status : str
        uint8.
    """

    block: str
    place: str
    gradient: str
    approximation: str
    allowed: str
    limit: str
    status: str


@dataclass(frozen=True)
class Pictures:
    """Everything that is drawn from single components.

    Attributes
    ----------
    grids, histograms : tuple
        One for each block, in the order of θ.
    points : Points
    v_curve : VCurve or None
        Only where it was asked for: it takes evaluations of its own.
    """

    grids: tuple[Grid, ...]
    histograms: tuple[Histogram, ...]
    points: Points
    v_curve: VCurve | None = None
