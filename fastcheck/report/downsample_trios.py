"""Pictures of a gradient beside a trusted one, read piece by piece from wherever both lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.report.downsample import Compared, ReducedBlock, pictures_of
from fastcheck.report.plot_data import Pictures
from fastcheck.types import Floats
from fastcheck.verdict.against import Ruled, Trio
from fastcheck.verdict.rules import AGREE, CANNOT_TELL, WRONG

__all__ = ["downsample_trios"]

MAX_BAND = 2**22  # components that are compared at once, where cells are one row high


def downsample_trios(trios: Sequence[Trio], rulings: Sequence[Ruled]) -> Pictures:
    """Reduce a comparison to what its pictures show.

    Parameters
    ----------
    trios : sequence of Trio
    rulings : sequence of Ruled
        The verdicts on them.
    """
    offsets = np.cumsum([0, *(trio.given.size for trio in trios)]).tolist()
    blocks = [_Block(*parts) for parts in zip(trios, rulings, offsets, strict=False)]

    def reduce(number: int, reduced: ReducedBlock) -> None:
        for row, start, stop in _spans(reduced):
            reduced.add(row, blocks[number].compared(start, stop))

    return pictures_of(blocks, offsets[-1], reduce)


@dataclass(frozen=True)
class _Block:
    """One block with its verdict."""

    trio: Trio
    ruling: Ruled
    offset: int

    @property
    def gradient_name(self) -> str:
        """The name in reports."""
        return self.ruling.verdict.name

    @property
    def user_shape(self) -> tuple[int, ...]:
        """As it was given."""
        return self.trio.given.shape

    @property
    def size(self) -> int:
        """Number of components."""
        return self.trio.given.size

    def compared(self, start: int, stop: int) -> Compared:
        """Return consecutive components with their statuses."""
        given, right = self.trio.given.piece(start, stop), self.trio.reference.piece(start, stop)
        error = np.abs(given - right)
        spread = self.ruling.spread
        allowed = np.asarray(spread.floor + spread.share * np.abs(right))
        sizes = np.abs(given) + np.abs(right)
        relative = np.divide(error, sizes, out=np.zeros_like(error), where=error > 0.0)
        relative = np.where(relative <= 1.0, relative, 1.0)  # the rest is infinity or NaN
        severity = self._severity(error, allowed)
        places = np.arange(start, stop)
        return Compared(places, given, right, relative, severity, allowed, allowed)

    def _severity(self, error: Floats, allowed: Floats) -> NDArray[np.uint8]:
        made = np.full(error.size, AGREE, np.uint8)
        verdict = self.ruling.verdict
        if verdict.status == "wrong":
            made[~(error <= allowed)] = WRONG
        if verdict.cannot_tell:
            made[(made == AGREE) & (error > self.ruling.typical)] = CANNOT_TELL
        return made


def _spans(reduced: ReducedBlock) -> Iterator[tuple[int, int, int]]:
    """Yield each row of cells, and from where to where its components lie; long ones in parts."""
    matrix = reduced.matrix
    height, total = matrix.cell_rows * matrix.columns, matrix.rows * matrix.columns
    part = height
    if matrix.cell_rows == 1 and height > MAX_BAND:
        part = max(1, MAX_BAND // matrix.cell_columns) * matrix.cell_columns
    for row, start in enumerate(range(0, total, max(1, height))):
        stop = min(start + height, total)
        for first in range(start, stop, max(1, part)):
            yield row, first, min(first + part, stop)
