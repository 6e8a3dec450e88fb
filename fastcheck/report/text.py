"""The report as text: the verdict first, then blocks, then the worst components; 80 columns do."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from fastcheck.report.data import Report
from fastcheck.report.words import (
    HEADLINES,
    MARKS,
    all_notes,
    facts,
    number,
    shape,
    verdict_sentence,
)
from fastcheck.verdict import BlockVerdict, ComponentVerdict

__all__ = ["bar", "render"]

STYLES = {"agree": "green", "kink": "cyan", "cannot tell": "yellow", "wrong": "bold red"}
DECADES = 16  # a bar has one cell for each decade from 1e-16 to 1
COMPONENTS = 10
NEAREST = 3  # of those with the largest error, where all agree
MOST_BLOCKS = 40


def render(report: Report, *, width: int = 80, color: bool = False) -> str:
    """Return a report as text.

    Parameters
    ----------
    report : Report
    width : int
        Columns.
    color : bool
        Whether to put in colour codes; nothing is told by colour alone.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in _parts(report):
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _parts(report: Report) -> Iterator[RenderableType]:
    """Yield what to print, from the top."""
    status = report.status
    yield Text.assemble(
        (f"{MARKS[status]} {HEADLINES[status]}", STYLES[status]), f": {verdict_sentence(report)}"
    )
    yield ""
    yield _labelled(list(facts(report)))
    yield from _details(report)
    for later in report.after_training:
        yield ""
        headline = f"{MARKS[later.status]} {report.training}"
        yield Text.assemble((headline, STYLES[later.status]), f": {verdict_sentence(later)}")
        yield from _details(later, said=tuple(all_notes(report)))


def _details(report: Report, said: tuple[str, ...] = ()) -> Iterator[RenderableType]:
    """Yield the tables, and the notes that were not said before."""
    yield ""
    rows, left_out = _rows(report)
    yield _block_table(report, rows)
    if left_out:
        yield f"   and {left_out} more blocks, all right"
    if report.components:
        yield ""
        yield _component_table(_shown(report))
    notes = [("note", note) for note in all_notes(report) if note not in said]
    if notes:
        yield ""
        yield _labelled(notes)


def _shown(report: Report) -> list[ComponentVerdict]:
    """Return the components to show: some of every block in trouble, or the few farthest off."""
    components = list(report.components)
    if report.gradient_status == "agree":
        kinks = [c for c in components if c.status == "kink"]
        return (kinks or components)[:NEAREST]
    troubled = [c for c in components if c.status == report.gradient_status] or components
    first = {c.block: c for c in reversed(troubled)}
    rest = [c for c in troubled if first[c.block] is not c]
    chosen = [*first.values(), *rest][: max(COMPONENTS, len(first))]
    return [c for c in troubled if c in chosen]


def _labelled(pairs: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text(label), Text(text))
    return grid


def bar(difference: float, tol: float) -> str:
    """Return a difference as a bar of 16 cells, one a decade from 1e-16 to 1, `│` at tol."""
    filled = 0
    if difference > 0.0:
        filled = min(DECADES, max(1, math.ceil(DECADES + math.log10(difference) - 1e-9)))
    cells = ["█"] * filled + ["·"] * (DECADES - filled)
    mark = round(DECADES + math.log10(tol)) if tol > 0.0 else 0
    if filled <= mark < DECADES:
        cells[mark] = "│"
    return "".join(cells)


def _block_table(report: Report, rows: list[BlockVerdict]) -> Table:
    """Return one row for each block and one for the whole."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("block", overflow="fold", max_width=24)
    table.add_column("shape", justify="right", no_wrap=True)
    table.add_column("checked", justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("1e-16   1e-8   1", no_wrap=True)
    table.add_column("wrong", justify="right", no_wrap=True)
    table.add_column("worst", overflow="fold")
    for block in rows:
        table.add_row(*_block_row(block, report.held_to.tol))
    if len(report.blocks) > 1:
        table.add_row(*_block_row(report.whole, report.held_to.tol))
    return table


def _rows(report: Report) -> tuple[list[BlockVerdict], int]:
    """Return the blocks to show, and how many right ones are left out of a very long list."""
    blocks = list(report.blocks)
    if len(blocks) <= MOST_BLOCKS:
        return blocks, 0
    shown = [b for b in blocks if b.verdict != "agree"] or blocks[:MOST_BLOCKS]
    return shown, len(blocks) - len(shown)


def _block_row(block: BlockVerdict, tol: float) -> list[RenderableType]:
    style = STYLES[block.verdict] if block.verdict != "agree" else ""
    whole = block.kind == "whole"
    worst = "" if block.worst is None or whole else block.worst.name
    mark = MARKS[block.verdict]
    difference = number(block.difference) if block.checked else "not checked"
    figures = ["" if whole else shape(block), f"{block.checked:,}", difference]
    strip = bar(block.difference, tol)
    texts = [mark, block.name, *figures, strip, f"{block.wrong:,}", worst]
    return [Text(text, style=style) for text in texts]


def _component_table(components: list[ComponentVerdict]) -> RenderableType:
    """Return the worst components with both values and their ratio."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("worst", overflow="fold", max_width=26)
    for name in ("dθ", "dθ_approx", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for component in components:
        table.add_row(*_component_row(component))
    return table


def _component_row(component: ComponentVerdict) -> list[RenderableType]:
    ratio = component.ratio
    texts = [
        MARKS[component.status],
        component.name,
        f"{component.gradient:.8g}",
        f"{component.approximation:.8g}",
        "0/0" if math.isnan(ratio) else f"{ratio:.8g}",
        component.status + _interval(component),
    ]
    return [Text(text, style=STYLES[component.status]) for text in texts]


def _interval(component: ComponentVerdict) -> str:
    if component.low is None or component.high is None:
        return ""
    return f": slopes {component.low:.4g} to {component.high:.4g}"
