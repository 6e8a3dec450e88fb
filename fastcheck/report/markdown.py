"""The report as Markdown: for a pull request, an issue or the summary of a workflow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

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
from fastcheck.verdict.verdict import BlockVerdict, ComponentVerdict

__all__ = ["render"]

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
BLOCK_COLUMNS = ("", "block", "shape", "checked", "difference", "wrong", "worst")
COMPONENT_COLUMNS = ("", "worst", "dθ", "dθ_approx", "ratio", "")


def render(report: Report) -> str:
    """Return a report as Markdown with tables."""
    parts = [_section(report, f"## {MARKS[report.status]} {HEADLINES[report.status]}")]
    parts += [
        _section(later, f"### {MARKS[later.status]} {_escaped(report.training)}")
        for later in report.after_training
    ]
    return "\n\n".join(parts) + "\n"


def _section(report: Report, heading: str) -> str:
    blocks = [*report.blocks, report.whole] if len(report.blocks) > 1 else list(report.blocks)
    parts = [heading, _escaped(verdict_sentence(report)), *_diagnosis(report)]
    parts.append(_table(BLOCK_COLUMNS, [_block_row(block) for block in blocks]))
    if report.components:
        parts.append(_table(COMPONENT_COLUMNS, [_component_row(c) for c in report.components]))
    if report.taylor is not None:
        parts.append(_table(TAYLOR_COLUMNS, taylor_rows(report.taylor)))
        parts.append(_escaped(taylor_sentence(report.taylor)))
    parts.append("\n".join(f"- **{label}**: {_escaped(text)}" for label, text in _remarks(report)))
    return "\n\n".join(part for part in parts if part)


def _diagnosis(report: Report) -> Iterator[str]:
    for finding in findings(report):
        yield f"**{_escaped(finding.sentence)}.** {_escaped(finding.remark)}".rstrip()
        yield from (_code(line) for _, line in finding.lines[:1])
    if unexplained(report):
        yield _escaped(unexplained(report))


def _remarks(report: Report) -> Iterator[tuple[str, str]]:
    yield from facts(report)
    yield from (("note", note) for note in all_notes(report))


def _block_row(block: BlockVerdict) -> list[str]:
    whole = block.kind == "whole"
    return [
        MARKS[block.verdict],
        block.name,
        "" if whole else shape(block),
        f"{block.checked:,}",
        number(block.difference) if block.checked else "not checked",
        f"{block.wrong:,}",
        "" if block.worst is None or whole else block.worst.name,
    ]


def _component_row(component: ComponentVerdict) -> list[str]:
    ratio = component.ratio
    return [
        MARKS[component.status],
        component.name,
        f"{component.gradient:.8g}",
        f"{component.approximation:.8g}",
        "0/0" if math.isnan(ratio) else f"{ratio:.8g}",
        component.status,
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns)]
    lines += [[_escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text as Markdown that shows it as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return text as a block of code, whatever it holds."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{text}\n{fence}"
