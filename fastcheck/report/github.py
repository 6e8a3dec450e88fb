"""The report as annotations of a GitHub workflow: the verdict, then each block in trouble."""

from __future__ import annotations

from collections.abc import Iterator

from fastcheck.report.data import Report
from fastcheck.report.diagnosis_sentences import findings, unexplained
from fastcheck.report.sentences import HEADLINES, number, verdict_sentence
from fastcheck.verdict.verdict import BlockVerdict

__all__ = ["render"]

LEVELS = {"agree": "notice", "vacuous": "warning", "cannot tell": "warning", "wrong": "error"}
MAX_ANNOTATIONS = 10  # of each level; GitHub shows no more of one step


def render(report: Report) -> str:
    """Return a report as workflow commands, one a line."""
    found = list(_annotations(report, report.name))
    for later in report.after_training:
        found += _annotations(later, report.training)
    return "".join(f"{line}\n" for line in found[:MAX_ANNOTATIONS])


def _annotations(report: Report, title: str) -> Iterator[str]:
    words = [verdict_sentence(report)]
    for finding in findings(report):
        words += [text for _, text in finding.labelled()]
    words += [unexplained(report)]
    message = "\n".join(filter(None, words))
    yield _command(report.status, _titled(HEADLINES[report.status], title), message)
    if len(report.blocks) > 1:
        for block in report.blocks:
            if block.verdict in LEVELS and block.verdict != "agree":
                yield _command(block.verdict, _titled(block.name, title), _in_words(block))


def _titled(what: str, title: str) -> str:
    return f"fastcheck: {what}{f' ({title})' if title else ''}"


def _in_words(block: BlockVerdict) -> str:
    text = (
        f"difference {number(block.difference)}, "
        f"{block.wrong:,} of {block.checked:,} components wrong"
    )
    worst = block.worst
    if worst is None:
        return text
    values = f"dθ = {worst.gradient:.8g}, dθ_approx = {worst.approximation:.8g}"
    return f"{text}; the worst is {worst.name}: {values}"


def _command(status: str, title: str, message: str) -> str:
    """Return a workflow command; what would end it is escaped as GitHub's own toolkit does."""
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{LEVELS[status]} title={title}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
