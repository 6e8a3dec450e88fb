"""The heat map of each block: images for both themes, the wrong cells to be ringed, and a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcheck.report.data import Report
from fastcheck.report.html.heatmap import DARK, LIGHT, Cells, image
from fastcheck.report.plot_data import Grid, Pictures
from fastcheck.report.sentences import number
from fastcheck.verdict.rules import AGREE, STATUSES, WRONG
from fastcheck.verdict.verdict import BlockVerdict, worst_status

__all__ = ["BlockMap", "CellRow", "Layer", "Themed", "block_maps", "place_name"]

MAX_RINGS = 16
MAX_TABLE_ROWS = 8  # of the table beside a map
# A map is no flatter and no steeper than this, or single cells can't be seen.
MIN_ASPECT, MAX_ASPECT = 4.0, 0.8


@dataclass(frozen=True)
class Themed:
    """One picture as two images, as `data:` addresses."""

    light: str
    dark: str


@dataclass(frozen=True)
class CellRow:
    """The worst component of a cell, for the table."""

    name: str
    gradient: float
    approximation: float
    relative: float
    status: str
    wrong: int


@dataclass(frozen=True)
class BlockMap:
    """One block's heat map.

    Attributes
    ----------
    index : int
        Among the report's blocks.
    block : BlockVerdict
    grid : Grid
    picture, rows, columns : Themed
        The map, and the worst of each row and of each column of cells.
    aspect : float
        Width over height.
    rings : list of (float, float)
        Where wrong cells lie, in percent from the left and from the top.
    summary : str
    table : list of CellRow
    """

    index: int
    block: BlockVerdict
    grid: Grid
    picture: Themed
    rows: Themed
    columns: Themed
    aspect: float
    rings: list[tuple[float, float]]
    summary: str
    table: list[CellRow]

    @property
    def strip(self) -> bool:
        """Whether it is a vector and not a matrix."""
        return len(self.block.shape) < 2


@dataclass(frozen=True)
class Layer:
    """The maps of one layer, or of one array of a function."""

    title: str
    status: str
    maps: list[BlockMap]


def block_maps(report: Report, pictures: Pictures) -> list[Layer]:
    """Return the maps, those of one layer together."""
    found: dict[int | str, list[BlockMap]] = {}
    for index, (block, grid) in enumerate(zip(report.blocks, pictures.grids, strict=True)):
        key: int | str = block.layer if block.kind in ("W", "b") else block.name
        found.setdefault(key, []).append(_map(index, block, grid))
    result = []
    for key, maps in found.items():
        title = f"Layer {key}" if isinstance(key, int) else str(key)
        worst = worst_status(*(m.block.verdict for m in maps))
        result.append(Layer(title, worst, maps))
    return result


def _map(index: int, block: BlockVerdict, grid: Grid) -> BlockMap:
    cells = Cells.of(grid)
    levels = cells.levels
    height, width = grid.cells
    wrong = np.argwhere(cells.status == WRONG)
    rings = [
        (100.0 * (column + 0.5) / width, 100.0 * (row + 0.5) / height) for row, column in wrong
    ]
    natural = (width * grid.cell[1]) / max(1, height * grid.cell[0])
    return BlockMap(
        index=index,
        block=block,
        grid=grid,
        picture=_themed(levels),
        rows=_themed(cells.margin(1)),
        columns=_themed(cells.margin(0)),
        aspect=min(MIN_ASPECT, max(MAX_ASPECT, natural)),
        rings=rings if len(rings) <= MAX_RINGS else [],
        summary=_summary(block, grid),
        table=_table(block, cells),
    )


def _themed(levels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Themed:
    return Themed(image(levels, LIGHT), image(levels, DARK))


def _summary(block: BlockVerdict, grid: Grid) -> str:
    """Say in a sentence what the map shows."""
    parts = []
    if block.wrong:
        parts.append(f"{block.wrong:,} of {block.checked:,} components are wrong")
    if block.cannot_tell:
        parts.append(f"{block.cannot_tell:,} can't be told")
    if block.kinks:
        parts.append(f"{block.kinks:,} at a kink, right")
    if not block.checked:
        parts.append("not checked")
    elif not parts:
        parts.append("all components agree" if block.checked > 1 else "it agrees")
    sentence = "; ".join(parts)
    if block.worst is not None:
        sentence += f". Worst: {block.worst.name}, off by {number(block.worst.difference)}"
    if grid.cell[0] * grid.cell[1] > 1:
        sentence += f". A cell shows the worst of {grid.cell[0]}×{grid.cell[1]} components"
    return sentence[0].upper() + sentence[1:] + "."


def _table(block: BlockVerdict, cells: Cells) -> list[CellRow]:
    """Return the worst cells: those in trouble, else the few of largest difference."""
    status, relative = cells.status.ravel(), cells.relative.ravel()
    checked = np.flatnonzero(status < len(STATUSES))
    ranked = checked[np.lexsort((-relative[checked], -status[checked].astype(int)))]
    troubled = int((status[ranked] != AGREE).sum())
    return [
        CellRow(
            place_name(block, int(cells.place.flat[k])),
            float(cells.gradient.flat[k]),
            float(cells.approximation.flat[k]),
            float(relative[k]),
            STATUSES[int(status[k])],
            int(cells.wrong.flat[k]),
        )
        for k in ranked[: min(MAX_TABLE_ROWS, max(troubled, 3))]
    ]


def place_name(block: BlockVerdict, place: int) -> str:
    """Return `W2[3, 17]`, from a position in the user's row order."""
    if not block.shape:
        return block.parameter
    at = np.unravel_index(place, block.shape)
    return f"{block.parameter}[{', '.join(str(int(k)) for k in at)}]"
