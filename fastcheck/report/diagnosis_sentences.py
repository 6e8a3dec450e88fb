"""What the diagnosis found, in the words that every rendering of a report uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastcheck.report.data import Report

__all__ = ["FoundBug", "findings", "sentence_case", "unexplained"]


T = TypeVar("T")


@dataclass(frozen=True)
class FoundBug:
    """One bug as a reader sees it.

    Attributes
    ----------
    sentence : str
        What is wrong, without a full stop.
    remark : str
        What follows from it, how much it explains, what else it could be; "" for nothing.
    lines : tuple of (str, str)
        The corrected line, as (notation, code), the user's notation first; empty where no single
        line holds the bug.
    label : str
        What a row with it is called.
    """

    sentence: str
    remark: str = ""
    lines: tuple[tuple[str, str], ...] = ()
    label: str = "most likely"

    def labelled(self) -> Iterator[tuple[str, str]]:
        """Yield it as (label, text), with the corrected line in the user's notation only."""
        yield self.label, f"{self.sentence}.{' ' * bool(self.remark)}{self.remark}"
        for _, line in self.lines[:1]:
            yield "corrected", line


def findings(report: Report) -> list[FoundBug]:
    """Return what the diagnosis found; nothing for a right gradient.

    Parameters
    ----------
    report : Report
        Its `diagnosis` may come from another version: what is not known is left out.
    """
    return [_bug(entry, report) for entry in _list(report.diagnosis, "findings", dict)]


def unexplained(report: Report) -> str:
    """Return what no finding explains as a sentence, or ""."""
    text = sentence_case(str(report.diagnosis.get("unexplained") or "").rstrip("."))
    if not text or any(text in finding.sentence for finding in findings(report)):
        return ""
    return f"{text}."


def sentence_case(text: str) -> str:
    """Return a sentence with a capital, unless it begins with the name of a gradient."""
    if text.startswith(("dθ", "dW", "db", "d(")):
        return text
    return text[:1].upper() + text[1:]


def _bug(finding: dict[str, Any], report: Report) -> FoundBug:
    notations = [("rows", "samples in rows"), ("course", "samples in columns")]
    if report.network is not None and report.network.layout == "course":
        notations.reverse()
    return FoundBug(
        sentence_case(str(finding.get("sentence", "")).rstrip(".")),
        " ".join(_remarks(finding)),
        tuple((words, str(finding[key])) for key, words in notations if finding.get(key)),
        "diagnosis" if finding.get("slip") == "unknown" else "most likely",
    )


def _remarks(finding: dict[str, Any]) -> Iterator[str]:
    explained = finding.get("explained")
    if consequences := _list(finding, "consequences", str):
        yield f"Wrong only as a consequence: {', '.join(consequences)}."
    if isinstance(explained, float) and explained:
        yield f"It explains {explained:.1%} of the error there."
    if equal := _list(finding, "equal", str):
        yield f"Indistinguishable here: {'; '.join(equal)}."


def _list(entries: dict[str, Any], name: str, kind: type[T]) -> list[T]:
    """Return the entries of a list that are of some kind; a saved report may hold anything."""
    found = entries.get(name)
    if not isinstance(found, (list, tuple)):
        return []
    return [each for each in found if isinstance(each, kind)]
