"""The formats of a report: one entry each. A format's own file is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastcheck.errors import InputError, near_names
from fastcheck.report.data import Report

__all__ = ["FORMATS", "Canvas", "render", "renderer"]


@dataclass(frozen=True)
class Canvas:
    """What a report is written on; only text cares.

    Attributes
    ----------
    width : int
        Columns.
    color : bool
        Whether colour codes may be used.
    """

    width: int = 80
    color: bool = False


Renderer = Callable[[Report, Canvas], str]


def _text(report: Report, canvas: Canvas) -> str:
    return report.to_text(width=canvas.width, color=canvas.color)


def _json(report: Report, _: Canvas) -> str:
    return report.to_json() + "\n"


def _markdown(report: Report, _: Canvas) -> str:
    from fastcheck.report.markdown import render as markdown

    return markdown(report)


def _junit(report: Report, _: Canvas) -> str:
    from fastcheck.report.junit import render as junit

    return junit(report)


def _github(report: Report, _: Canvas) -> str:
    from fastcheck.report.github import render as github

    return github(report)


def _html(report: Report, _: Canvas) -> str:
    return report.to_html().rstrip("\n") + "\n"


FORMATS: dict[str, Renderer] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
    "junit": _junit,
    "github": _github,
    "html": _html,
}


def renderer(name: str) -> Renderer:
    """Return the format of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}", "a format", near_names(name, FORMATS))
    return FORMATS[name]


def render(report: Report, name: str = "text", canvas: Canvas | None = None) -> str:
    """Return a report in one of the formats, ending in a line break.

    Parameters
    ----------
    report : Report
    name : str
        One of `FORMATS`.
    canvas : Canvas, optional
        80 columns without colour unless told otherwise.

    Raises
    ------
    InputError
        For an unknown format.
    """
    return renderer(name)(report, canvas or Canvas())
