"""The report as a page: one file that opens offline, in the dark, on paper and without a script.

The charts and the heat maps are part of the page as it is. The script only adds what appears under
the pointer, so a viewer that blocks scripts loses nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from dataclasses import asdict
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastcheck.errors import damage_reported
from fastcheck.model.approximation import VCurve
from fastcheck.report.data import Report
from fastcheck.report.diagnosis_sentences import findings, sentence_case, unexplained
from fastcheck.report.html.charts import (
    PointArrays,
    error_chart,
    histogram_chart,
    scatter_chart,
    v_chart,
)
from fastcheck.report.html.maps import block_maps
from fastcheck.report.html.network import layers
from fastcheck.report.plot_data import Pictures
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
from fastcheck.verdict.rules import STATUSES
from fastcheck.verdict.verdict import BlockVerdict, ComponentVerdict

__all__ = ["notebook", "render"]

BAR_DECADES = 16
NOTEBOOK_HEIGHT = 720  # pixels


def render(report: Report, pictures: Pictures | None = None) -> str:
    """Return a report as a self-contained HTML page.

    Parameters
    ----------
    report : Report
    pictures : Pictures, optional
        What `downsample` made at check time; without it the page has no heat maps and no charts,
        only words and tables.

    Raises
    ------
    InputError
        If a saved report holds pictures that can't be drawn.
    """
    if pictures is None or report.deciding.artist is not None:
        return _page(report, pictures)
    with damage_reported("a saved report's pictures", "report"):
        return _page(report, pictures)


def _page(report: Report, pictures: Pictures | None) -> str:
    environment = _environment()
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    deciding = report.deciding
    return environment.get_template("page.html").render(
        report=report,
        deciding=deciding,
        script=Markup(script),
        script_digest=digest,
        style=Markup(_source("page.css")),
        sentence=verdict_sentence(report),
        facts=list(facts(report)),
        layers=layers(deciding),
        notes=list(all_notes(report)),
        pictures=pictures,
        words=verdict_sentence,
        **_drawn(deciding, pictures),
    )


def notebook(report: Report, pictures: Pictures | None = None) -> str:
    """Return a report for the output of a notebook's cell: the page in a frame of its own.

    The frame keeps the page's styles and script apart from the notebook's.
    """
    page = html.escape(render(report, pictures), quote=True)
    return (
        f'<iframe title="fastcheck report" sandbox="allow-scripts" srcdoc="{page}" '
        f'style="width:100%;height:{NOTEBOOK_HEIGHT}px;border:0"></iframe>'
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fastcheck.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "shape": shape,
        "value": _value,
        "ratio": _ratio,
        "bar": _bar,
        "slug": _slug,
        "within": _within,
        "sentence_case": sentence_case,
    }
    environment.globals |= {
        "MARKS": MARKS,
        "HEADLINES": HEADLINES,
        "TAYLOR_COLUMNS": TAYLOR_COLUMNS,
        "taylor_rows": taylor_rows,
        "taylor_sentence": taylor_sentence,
        "findings": findings,
        "unexplained": unexplained,
    }
    return environment


@cache
def _source(name: str) -> str:
    """Return a style sheet or a script of the package, as it is."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _drawn(report: Report, pictures: Pictures | None) -> dict[str, Any]:
    """Return what the templates draw, empty without pictures."""
    if pictures is None:
        nothing = dict.fromkeys(("scatter", "errors", "v", "data"))
        return {"maps": [], "histograms": [], "epsilons": [], "explanation": "", **nothing}
    points = PointArrays.of(pictures.points)
    tol, curve = report.held_to.tol, pictures.v_curve
    shown = points.status.size > 0
    return {
        "maps": block_maps(report, pictures),
        "scatter": scatter_chart(points) if shown else None,
        "errors": error_chart(points) if shown else None,
        "histograms": [
            (block, histogram_chart(histogram, tol))
            for block, histogram in zip(report.blocks, pictures.histograms, strict=True)
        ],
        "v": None if curve is None or not curve.curves else v_chart(curve, tol),
        "epsilons": [] if curve is None else _epsilons(curve),
        "explanation": "" if curve is None else _explanation(report, curve),
        "data": _data(report, pictures),
    }


def _data(report: Report, pictures: Pictures) -> dict[str, Any]:
    """Return what the script reads: the numbers behind each cell and each point."""
    return {
        "statuses": STATUSES,
        "names": [block.parameter for block in report.blocks],
        "shapes": [block.shape for block in report.blocks],
        "grids": [asdict(grid) for grid in pictures.grids],
        "points": asdict(pictures.points),
    }


def _epsilons(curve: VCurve) -> list[float]:
    return sorted({e for c in curve.curves for e in c.epsilons}, reverse=True)


def _explanation(report: Report, curve: VCurve) -> str:
    """Say what the V curve shows, with this network's numbers."""
    parts = [f"The difference over {curve.components} components, at other values of ε."]
    for each in curve.curves:
        if each.differences:
            best = min(range(len(each.differences)), key=each.differences.__getitem__)
            least, at = number(each.differences[best]), number(each.epsilons[best])
            parts.append(f"The {each.method} method comes down to {least} at ε = {at}.")
    if report.status == "wrong":
        parts.append("Where the gradient itself is wrong, no ε brings the difference down.")
    parts.append(
        "A large ε leaves a truncation error that falls with ε². For the textbook a small one "
        "does harm: J is rounded to 16 digits, and that error is divided by ε. The unit method "
        "never subtracts two values of J, so it stays down."
    )
    return " ".join(parts)


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.8g}"


def _ratio(component: ComponentVerdict) -> str:
    ratio = component.ratio
    return "0/0" if math.isnan(ratio) else f"{ratio:.6g}"


def _bar(block: BlockVerdict | float) -> str:
    """Return how far a difference reaches on the scale from 1e-16 to 1, in percent."""
    difference = block.difference if isinstance(block, BlockVerdict) else block
    if not difference > 0.0:
        return "0"
    difference = min(difference, 1.0)
    decades = float(f"{difference:e}".split("e")[1]) + BAR_DECADES
    mantissa = float(f"{difference:e}".split("e")[0])
    share = (decades + (mantissa - 1.0) / 9.0) / BAR_DECADES
    return f"{100.0 * min(1.0, max(0.01, share)):.1f}"


def _slug(status: str) -> str:
    """Return a status as the name of a class."""
    return status.replace(" ", "-")


def _within(component: ComponentVerdict) -> str:
    """Return where a gradient lies between the slopes of a kink, in percent."""
    low, high = component.low, component.high
    if low is None or high is None or not high > low:
        return "50"
    return f"{100.0 * min(1.0, max(0.0, (component.gradient - low) / (high - low))):.1f}"
