"""The report as text: the verdict first, then blocks, then the worst components.

80 columns do; wide terminals get finer bars, and from 140 columns on what the page has, too: norms
and counts.
"""

from __future__ import annotations

import io
import math
from collections.abc import Container, Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from fastcheck.model.taylor import TaylorTable
from fastcheck.report.data import Report
from fastcheck.report.diagnosis_sentences import findings, unexplained
from fastcheck.report.sentences import (
    HEADLINES,
    MARKS,
    TAYLOR_COLUMNS,
    all_notes,
    facts,
    number,
    shape,
    taylor_rows,
    taylor_sentence,
    verdict_sentence,
)
from fastcheck.verdict.verdict import NOT_CHECKED, VACUOUS, BlockVerdict, ComponentVerdict

__all__ = ["bar", "failure", "render"]

STYLES = {
    "agree": "green",
    "kink": "cyan",
    "cannot tell": "yellow",
    "wrong": "bold red",
    NOT_CHECKED: "dim",
    VACUOUS: "yellow",
}
DECADES = 16  # a bar goes from 1e-16 to 1
# From so many columns on a bar has more than one cell for each decade.
CELLS_PER_DECADE = ((200, 4), (100, 2), (0, 1))
WIDE_TERMINAL = 140  # columns from which on the tables say more
MAX_COMPONENTS = 10
NEAREST_RATIO = 3  # of those with the largest error, where all agree
MAX_BLOCKS = 40


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
    return _printed(_parts(report, width), width, color)


def failure(report: Report, *, width: int = 80) -> str:
    """Return what a failed assertion should show: as `render`, but of the facts only the method.

    Parameters
    ----------
    report : Report
    width : int
        Columns.
    """
    return _printed(
        _parts(report, width, labels=("problem", "J", "method", "tolerance", "contract")), width
    )


def _printed(parts: Iterable[RenderableType], width: int, color: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        force_jupyter=False,  # in a notebook it would show an output of its own
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _parts(
    report: Report, width: int, labels: Container[str] | None = None
) -> Iterator[RenderableType]:
    """Yield what to print, from the top; of the facts those of some labels."""
    status = report.status
    yield Text.assemble(
        (f"{MARKS[status]} {HEADLINES[status]}", STYLES[status]), f": {verdict_sentence(report)}"
    )
    yield from _diagnosis(report)
    yield ""
    yield _labelled([fact for fact in facts(report) if labels is None or fact[0] in labels])
    yield from _details(report, width)
    for later in report.after_training:
        yield ""
        headline = f"{MARKS[later.status]} {report.training}"
        yield Text.assemble((headline, STYLES[later.status]), f": {verdict_sentence(later)}")
        yield from _diagnosis(later)
        yield from _details(later, width, said=tuple(all_notes(report)))


def _diagnosis(report: Report) -> Iterator[RenderableType]:
    """Yield what the bug most likely is, and the corrected line."""
    found = [pair for finding in findings(report) for pair in finding.labelled()]
    rest = unexplained(report)
    if found or rest:
        yield ""
        yield _labelled([*found, *([("diagnosis", rest)] if rest else [])])


def _details(report: Report, width: int, said: tuple[str, ...] = ()) -> Iterator[RenderableType]:
    """Yield the tables, and the notes that were not said before."""
    yield ""
    rows, left_out = _rows(report)
    yield _block_table(report, rows, width)
    if left_out:
        yield f"   and {left_out}"
    if report.components:
        yield ""
        yield _component_table(_shown(report), width)
    if report.taylor is not None:
        yield ""
        yield _taylor_table(report.taylor)
        yield f"   {taylor_sentence(report.taylor)}"
    notes = [("note", note) for note in all_notes(report) if note not in said]
    if notes:
        yield ""
        yield _labelled(notes)


def _shown(report: Report) -> list[ComponentVerdict]:
    """Return the components to show: some of every block in trouble, or the few farthest off."""
    components = list(report.components)
    if report.gradient_status == "agree":
        kinks = [c for c in components if c.status == "kink"]
        return (kinks or components)[:NEAREST_RATIO]
    troubled = [c for c in components if c.status == report.gradient_status] or components
    first = {c.block: c for c in reversed(troubled)}
    rest = [c for c in troubled if first[c.block] is not c]
    chosen = [*first.values(), *rest][: max(MAX_COMPONENTS, len(first))]
    return [c for c in troubled if c in chosen]


def _labelled(pairs: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text(label), Text(text))
    return grid


def bar(difference: float, tol: float, cells_per_decade: int = 1) -> str:
    """Return a difference as a bar from 1e-16 to 1, `│` at tol.

    Parameters
    ----------
    difference, tol : float
    cells_per_decade : int
        16 times as many is the length.
    """
    length = DECADES * cells_per_decade
    filled = 0
    if difference > 0.0:
        reach = (DECADES + math.log10(difference)) * cells_per_decade
        filled = min(length, max(1, math.ceil(reach - 1e-9)))
    cells = ["█"] * filled + ["·"] * (length - filled)
    mark = round((DECADES + math.log10(min(tol, 1.0))) * cells_per_decade) if tol > 0.0 else 0
    if filled <= mark < length:
        cells[mark] = "│"
    return "".join(cells)


def _scale(cells_per_decade: int) -> str:
    """Return what stands above the bars."""
    if cells_per_decade == 1:
        return "1e-16   1e-8   1"
    quarters = [f"1e-{d}".ljust(4 * cells_per_decade) for d in (16, 12, 8, 4)]
    return "".join(quarters)[:-1] + "1"


def _block_table(report: Report, rows: list[BlockVerdict], width: int) -> Table:
    """Return one row for each block and one for the whole.

    Long names leave no room for the worst component of each; the table of components has it.
    """
    cells = next(count for columns, count in CELLS_PER_DECADE if width >= columns)
    if len(report.blocks) > 1:
        rows = [*rows, report.whole]
    more = ["unsure", "kinks", "‖dθ‖", "‖dθ_approx‖"] if width >= WIDE_TERMINAL else []
    heads = ["", "block", "shape", "checked", "difference", _scale(cells), "wrong", *more, "worst"]
    lines = [
        [*_block_figures(block, report, cells), *(_more(block) if more else []), _worst(block)]
        for block in rows
    ]
    if _table_width([heads, *lines]) > width:
        heads, lines = heads[:-1], [line[:-1] for line in lines]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        if head in ("block", "worst"):
            table.add_column(head, overflow="fold")
        else:
            left = head in ("", _scale(cells))
            table.add_column(head, justify="left" if left else "right", no_wrap=True)
    for block, line in zip(rows, lines, strict=True):
        style = STYLES[block.verdict] if block.verdict != "agree" else ""
        table.add_row(*(Text(text, style=style) for text in line))
    return table


def _worst(block: BlockVerdict) -> str:
    return "" if block.worst is None or block.kind == "whole" else block.worst.name


def _table_width(lines: list[list[str]]) -> int:
    """Return the columns that a table takes if nothing in it is folded."""
    widest = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return sum(widest) + 2 * (len(widest) - 1)


def _rows(report: Report) -> tuple[list[BlockVerdict], str]:
    """Return the blocks to show, and what is said of those left out of a very long list."""
    blocks = list(report.blocks)
    if len(blocks) <= MAX_BLOCKS:
        return blocks, ""
    calm = [b for b in blocks if b.verdict in ("agree", NOT_CHECKED)]
    troubled = [b for b in blocks if b.verdict not in ("agree", NOT_CHECKED)]
    left_out = calm if troubled else blocks[MAX_BLOCKS:]
    unseen = sum(b.verdict == NOT_CHECKED for b in left_out)
    rest = f"{unseen} not checked" if unseen else "all right"
    return troubled or blocks[:MAX_BLOCKS], f"{len(left_out)} more blocks, {rest}"


def _block_figures(block: BlockVerdict, report: Report, cells_per_decade: int) -> list[str]:
    """Return a row of the table of blocks, up to the number of wrong components."""
    return [
        MARKS[block.verdict],
        block.name,
        "" if block.kind == "whole" else shape(block),
        f"{block.checked:,}",
        number(block.difference) if block.checked else "not checked",
        bar(block.difference, report.held_to.tol, cells_per_decade),
        f"{block.wrong:,}",
    ]


def _more(block: BlockVerdict) -> list[str]:
    """Return what only a wide terminal has room for."""
    norms = [number(norm, 4) for norm in (block.gradient_norm, block.approximation_norm)]
    return [f"{block.cannot_tell:,}", f"{block.kinks:,}", *norms]


def _component_table(components: list[ComponentVerdict], width: int) -> RenderableType:
    """Return the worst components with both values and their ratio."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("worst", overflow="fold", max_width=26)
    more = ("difference", "|dθ − dθ_approx|", "tolerance") if width >= WIDE_TERMINAL else ()
    for name in ("dθ", "dθ_approx", "ratio", *more):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for component in components:
        figures = _component_figures(component)
        if more:
            error = abs(component.gradient - component.approximation)
            extra = (component.difference, error, component.tolerance)
            figures += [number(value) for value in extra]
        texts = [*figures, component.status + _interval(component)]
        table.add_row(*(Text(text, style=STYLES[component.status]) for text in texts))
    return table


def _component_figures(component: ComponentVerdict) -> list[str]:
    ratio = component.ratio
    return [
        MARKS[component.status],
        component.name,
        f"{component.gradient:.8g}",
        f"{component.approximation:.8g}",
        "0/0" if math.isnan(ratio) else f"{ratio:.8g}",
    ]


def _taylor_table(taylor: TaylorTable) -> RenderableType:
    """Return one row for each step."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 3), header_style="dim")
    for head in TAYLOR_COLUMNS:
        table.add_column(head, justify="right", no_wrap=True)
    for row in taylor_rows(taylor):
        table.add_row(*map(Text, row))
    return table


def _interval(component: ComponentVerdict) -> str:
    if component.low is None or component.high is None:
        return ""
    return f": slopes {component.low:.4g} to {component.high:.4g}"
