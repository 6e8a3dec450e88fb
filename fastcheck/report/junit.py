"""The report as JUnit XML: a test case for each block, for the whole and for J.

What is wrong is a failure; what nobody can tell is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from fastcheck.report.data import Report
from fastcheck.report.sentences import number, verdict_sentence
from fastcheck.verdict.verdict import NOT_CHECKED, VACUOUS, BlockVerdict

__all__ = ["render"]

OUTCOMES = {"wrong": "failure", "cannot tell": "error", VACUOUS: "error", NOT_CHECKED: "skipped"}
# XML 1.0 has no way to write these, not even escaped.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Case(NamedTuple):
    """One test case; the message is for those that did not pass."""

    name: str
    status: str
    message: str
    details: str = ""


def render(report: Report) -> str:
    """Return a report as JUnit XML, one test suite for each θ that was checked."""
    root = ElementTree.Element("testsuites", name="fastcheck")
    title = report.name or "fastcheck"
    _add_suite(root, report, title)
    for later in report.after_training:
        _add_suite(root, later, f"{title}, {report.training}")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _add_suite(root: ElementTree.Element, report: Report, title: str) -> None:
    cases = list(_cases(report))
    kinds = OUTCOMES.values()
    counts = {kind: sum(OUTCOMES.get(c.status) == kind for c in cases) for kind in kinds}
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_legal(title),
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{sum(report.run.seconds.values()):.3f}",
    )
    for case in cases:
        element = ElementTree.SubElement(
            suite, "testcase", classname=_legal(title), name=_legal(case.name), time="0"
        )
        if case.status in OUTCOMES:
            outcome = ElementTree.SubElement(
                element, OUTCOMES[case.status], message=_legal(case.message), type=case.status
            )
            outcome.text = _legal(case.details)


def _cases(report: Report) -> Iterator[_Case]:
    """Yield the blocks, the whole (with the report as its details), and J where it was given."""
    if len(report.blocks) > 1:
        yield from (_block_case(block) for block in report.blocks)
    yield _Case("dθ", report.gradient_status, verdict_sentence(report), report.to_text())
    yield from (_Case(line.name, line.status, line.text) for line in report.contract)
    cost = report.cost
    if cost is not None and cost.theirs is not None:
        yield _Case("J", "agree" if cost.agrees else "wrong", cost.explanation)


def _block_case(block: BlockVerdict) -> _Case:
    message = (
        f"difference {number(block.difference)}, "
        f"{block.wrong:,} of {block.checked:,} components wrong"
    )
    worst = block.worst
    details = "" if worst is None else (
        f"{worst.name}: dθ = {worst.gradient:.8g}, dθ_approx = {worst.approximation:.8g}"
    )  # fmt: skip
    return _Case(block.name, block.verdict, message, details)


def _legal(text: str) -> str:
    return ILLEGAL.sub("?", text)
