"""From two gradients to the data of pictures: the worst of each cell, counts, a few points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.approximation import Approximation
from fastcheck.report.plot_data import (
    BINS_PER_DECADE,
    DECADES,
    UNCHECKED,
    Grid,
    Histogram,
    Pictures,
    Points,
    packed,
)
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers
from fastcheck.verdict.evidence import AlignedPair, align
from fastcheck.verdict.rules import (
    AGREE,
    CANNOT_TELL,
    KINK,
    NOISE_FACTOR,
    ROUNDING_FACTOR,
    STATUSES,
    WRONG,
    Rules,
)
from fastcheck.verdict.verdict import BlockVerdict, Order, Sigma

__all__ = ["Compared", "Drawn", "ReducedBlock", "downsample", "pictures_of", "with_unchecked"]

Bytes = NDArray[np.uint8]

# Cells along each side of a grid; many blocks share a budget, so that a page stays light.
MAX_SIDES = (128, 96, 64, 48, 32, 16, 8)
CELL_BUDGET = 80_000
MAX_POINTS = 2400
MAX_TROUBLED_POINTS = 1200
MAX_BINS = DECADES * BINS_PER_DECADE + 1


class Drawn(Protocol):
    """What is drawn of a block: its place in θ, its shape, its name."""

    @property
    def gradient_name(self) -> str:
        """`dW2`."""
        ...

    @property
    def user_shape(self) -> tuple[int, ...]:
        """In the user's convention."""
        ...

    @property
    def offset(self) -> int:
        """Of its first component in θ."""
        ...

    @property
    def size(self) -> int:
        """Number of components."""
        ...


class Compared(NamedTuple):
    """Consecutive checked components, compared by the rules of the verdict."""

    inside: Integers  # positions in the block, row convention
    gradient: Floats
    approximation: Floats
    relative: Floats
    severity: Bytes
    allowed: Floats
    limit: Floats


@dataclass(frozen=True)
class Matrix:
    """A block as rows and columns, and how they are cut into cells."""

    start: int  # in θ
    rows: int
    columns: int
    cell_rows: int
    cell_columns: int
    transposed: bool
    shape: tuple[int, ...]

    @classmethod
    def of(cls, block: Drawn, side: int) -> Matrix:
        shape = tuple(int(n) for n in block.user_shape)
        transposed = bool(getattr(block, "transposed", False)) and len(shape) == 2
        rows = 1 if len(shape) < 2 else shape[0]
        columns = block.size // max(1, rows)
        if transposed:
            rows, columns = columns, rows
        cell = (-(-rows // side) or 1, -(-columns // side) or 1)
        return cls(block.offset, rows, columns, *cell, transposed, shape)

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.rows // self.cell_rows), -(-self.columns // self.cell_columns)

    def user_place(self, inside: Integers) -> Integers:
        """Return positions in the user's row order."""
        if not self.transposed:
            return inside
        return inside % self.columns * self.rows + inside // self.columns


def downsample(
    order: Order,
    gradient: Floats,
    approximation: Approximation,
    sigma: Sigma | Callable[[], Sigma],
    settings: Settings,
) -> Pictures:
    """Reduce a check to what its pictures show.

    Parameters
    ----------
    order : ThetaLayout or Order
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
    sigma : float, ndarray (n,) or (N,), RoundingModel, None, or a callable that returns one
        Standard deviation of the gradient's own rounding, as `evaluate` takes it.
    settings : Settings
        Of which `tol` counts.

    Returns
    -------
    Pictures
        Without a V curve.
    """
    rules = Rules(settings.tol, ROUNDING_FACTOR, NOISE_FACTOR)
    rounding = sigma() if callable(sigma) else sigma
    aligned = align(gradient, approximation, 0.0 if rounding is None else rounding)
    count = aligned.evidence.values.size

    def reduce(_: int, reduced: ReducedBlock) -> None:
        for row, compared in _bands(reduced.matrix, aligned, rules):
            reduced.add(row, compared)
        reduced.add_not_finite(aligned, gradient)

    return pictures_of(list(order.blocks), count, reduce)


def pictures_of(
    blocks: Sequence[Drawn], count: int, reduce: Callable[[int, ReducedBlock], None]
) -> Pictures:
    """Return pictures of blocks.

    Parameters
    ----------
    blocks : sequence of Drawn
    count : int
        Components that are compared.
    reduce : callable
        `reduce(number, reduced)` adds the compared components of one block.
    """
    side = next((s for s in MAX_SIDES if _cells(blocks, s) <= CELL_BUDGET), MAX_SIDES[-1])
    stride = max(1, count // MAX_POINTS)
    made = [ReducedBlock(Matrix.of(block, side), stride) for block in blocks]
    with np.errstate(all="ignore"):
        for number, reduced in enumerate(made):
            reduce(number, reduced)
    pairs = list(zip(blocks, made, strict=True))
    return Pictures(
        tuple(reduced.grid(block) for block, reduced in pairs),
        tuple(reduced.histogram(block) for block, reduced in pairs),
        points_of(list(enumerate(made))),
    )


class _Unchecked(NamedTuple):
    gradient_name: str
    user_shape: tuple[int, ...]
    offset: int
    size: int


def with_unchecked(pictures: Pictures, blocks: Sequence[BlockVerdict]) -> Pictures:
    """Return pictures with those of blocks that were not compared at its end."""
    drawn = [_Unchecked(block.name, block.shape, 0, block.size) for block in blocks]
    more = pictures_of(drawn, 1, lambda _, reduced: None)
    return replace(
        pictures,
        grids=(*pictures.grids, *more.grids),
        histograms=(*pictures.histograms, *more.histograms),
    )


def _cells(blocks: Sequence[Drawn], side: int) -> int:
    return sum(int(np.prod(Matrix.of(block, side).grid)) for block in blocks)


def _bands(matrix: Matrix, aligned: AlignedPair, rules: Rules) -> Iterator[tuple[int, Compared]]:
    """Yield each row of cells with its checked components."""
    height = matrix.cell_rows * matrix.columns
    stop = matrix.start + matrix.rows * matrix.columns
    for row, start in enumerate(range(matrix.start, stop, max(1, height))):
        piece = aligned.part(start, min(start + height, stop))
        if piece.start < piece.stop:
            yield row, _compare(aligned, piece, matrix.start, rules)


def _compare(aligned: AlignedPair, piece: slice, offset: int, rules: Rules) -> Compared:
    """Give each component of a piece its status."""
    evidence = aligned.evidence
    gradient, values = evidence.gradient[piece], evidence.values[piece]
    accepted = evidence.accepted(piece)
    error, allowed, limit, severity = rules.apply(gradient, accepted, evidence.blur_at(piece))
    scaled = 0.5 * np.abs(gradient) + 0.5 * np.abs(accepted)
    kinks = evidence.kinks_within(piece.start, piece.stop)
    at = evidence.wide_kinks(kinks, rules.tol) - piece.start
    severity[at[severity[at] == AGREE]] = KINK
    relative = np.divide(0.5 * error, scaled, out=np.zeros_like(error), where=error > 0)
    relative = np.where(relative <= 1.0, relative, 1.0)  # the rest is infinity or NaN
    inside = (
        np.arange(piece.start, piece.stop) if aligned.indices is None else aligned.indices[piece]
    )
    return Compared(inside - offset, gradient, values, relative, severity, allowed, limit)


class ReducedBlock:
    """The pictures of one block while its bands come in."""

    def __init__(self, matrix: Matrix, stride: int) -> None:
        self.matrix, self.stride = matrix, stride
        grid = matrix.grid
        self.place = np.zeros(grid, np.int64)
        self.gradient, self.approximation = np.full((2, *grid), np.nan)
        self.status = np.full(grid, UNCHECKED, np.uint8)
        self.wrong = np.zeros(grid, np.int64)
        self.counts = np.zeros(len(STATUSES) * MAX_BINS, np.int64)
        self.troubled: list[Compared] = []
        self.others: list[Compared] = []
        self.seen = 0

    def add(self, row: int, compared: Compared) -> None:
        """Take in one row of cells."""
        columns, worst = self._worst(compared)
        self.place[row, columns] = self.matrix.user_place(compared.inside[worst])
        self.gradient[row, columns] = compared.gradient[worst]
        self.approximation[row, columns] = compared.approximation[worst]
        self.status[row, columns] = compared.severity[worst]
        self.counts += _binned(compared)
        trouble = np.flatnonzero(compared.severity)
        if trouble.size:
            wrong = compared.inside[compared.severity == WRONG]
            cells = wrong % self.matrix.columns // self.matrix.cell_columns
            self.wrong[row] += np.bincount(cells, minlength=self.wrong.shape[1])
            self.troubled.append(_thinned(compared, trouble))
        size = compared.severity.size
        some = np.arange(-self.seen % self.stride, size, self.stride)
        self.others.append(_only(compared, some[compared.severity[some] == AGREE]))
        self.seen += size

    def _worst(self, compared: Compared) -> tuple[Any, Integers]:
        """Return which cells of the band have components, and the worst one of each."""
        score = compared.relative + 2.0 * compared.severity
        columns, width = self.matrix.columns, self.matrix.cell_columns
        count = self.matrix.grid[1]
        first, last = compared.inside[0], compared.inside[-1]
        if first % columns == 0 and last - first + 1 == score.size and score.size % columns == 0:
            height = score.size // columns
            whole = np.full((height, count * width), -1.0)
            whole[:, :columns] = score.reshape(height, columns)
            cells = whole.reshape(height, count, width).transpose(1, 0, 2).reshape(count, -1)
            down, right = np.divmod(cells.argmax(axis=1), width)
            return slice(None), down * columns + np.arange(count) * width + right
        of_cell = compared.inside % columns // width
        ranked = np.lexsort((score, of_cell))
        ends = np.flatnonzero(np.diff(of_cell[ranked], append=count))
        return of_cell[ranked[ends]], ranked[ends]

    def add_not_finite(self, aligned: AlignedPair, gradient: Floats) -> None:
        """Mark what the method gave no number for, where nothing worse is in the cell."""
        matrix = self.matrix
        bounds = (matrix.start, matrix.start + matrix.rows * matrix.columns)
        first, last = np.searchsorted(aligned.not_finite, bounds)
        inside = aligned.not_finite[first:last] - matrix.start
        row, column = np.divmod(inside, max(1, matrix.columns))
        row, column = row // matrix.cell_rows, column // matrix.cell_columns
        here = (self.status[row, column] == UNCHECKED) | (self.status[row, column] < CANNOT_TELL)
        row, column, inside = row[here], column[here], inside[here]
        self.place[row, column] = matrix.user_place(inside)
        self.gradient[row, column] = gradient[matrix.start + inside]
        self.approximation[row, column] = np.nan
        self.status[row, column] = CANNOT_TELL

    def grid(self, block: Drawn) -> Grid:
        """Return the grid in the user's convention."""
        matrix = self.matrix
        cell = (matrix.cell_rows, matrix.cell_columns)
        turn = matrix.transposed

        def text(values: NDArray[Any], dtype: str) -> str:
            return packed(values.T if turn else values, dtype)

        return Grid(
            block=block.gradient_name,
            shape=matrix.shape,
            cells=matrix.grid[::-1] if turn else matrix.grid,
            cell=cell[::-1] if turn else cell,
            place=text(self.place, "u4"),
            gradient=text(self.gradient, "f8"),
            approximation=text(self.approximation, "f8"),
            status=text(self.status, "u1"),
            wrong=text(self.wrong, "u4"),
        )

    def histogram(self, block: Drawn) -> Histogram:
        """Return how many components have which relative difference."""
        rows = self.counts.reshape(len(STATUSES), MAX_BINS).tolist()
        return Histogram(block.gradient_name, tuple(tuple(row) for row in rows))


def _binned(compared: Compared) -> Integers:
    """Return the counts of one band."""
    bins = np.zeros(compared.relative.size, np.int64)
    positive = compared.relative > 0
    decades = np.log10(compared.relative[positive]) + DECADES
    bins[positive] = np.clip(np.floor(decades * BINS_PER_DECADE) + 1, 0, MAX_BINS - 1)
    bins += compared.severity.astype(np.int64) * MAX_BINS
    return np.bincount(bins, minlength=len(STATUSES) * MAX_BINS)


def _only(compared: Compared, some: Integers) -> Compared:
    return Compared._make(values[some] for values in compared)


def _thinned(compared: Compared, some: Integers) -> Compared:
    """Return the worst component and evenly spread others of those in trouble."""
    if some.size > MAX_TROUBLED_POINTS:
        scores = compared.severity[some] * 2.0 + compared.relative[some]
        even = np.linspace(0, some.size - 1, MAX_TROUBLED_POINTS).astype(np.int64)
        some = some[np.unique(np.append(even, scores.argmax()))]
    return _only(compared, some)


def points_of(picked: list[tuple[int, ReducedBlock]]) -> Points:
    """Return those in trouble and a few of the others, with their blocks."""
    parts = [
        _joined(picked, "others", MAX_POINTS),
        _joined(picked, "troubled", MAX_TROUBLED_POINTS),
    ]
    columns = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    dtypes = ("u2", "u4", "f8", "f8", "f8", "f8", "u1")
    return Points(*(packed(c, d) for c, d in zip(columns, dtypes, strict=True)))


def _joined(picked: list[tuple[int, ReducedBlock]], what: str, most: int) -> list[NDArray[Any]]:
    """Return block, place, both values, allowed, limit and status of at most so many points."""
    rows: list[list[NDArray[Any]]] = [[np.zeros(0)] * 7]
    for number, reduced in picked:
        for part in getattr(reduced, what):
            block = np.full(part.inside.size, number)
            place = reduced.matrix.user_place(part.inside)
            values = [part.gradient, part.approximation, part.allowed, part.limit]
            rows.append([block, place, *values, part.severity])
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    if columns[0].size > most:
        even = np.linspace(0, columns[0].size - 1, most).astype(np.int64)
        columns = [column[even] for column in columns]
    return columns
