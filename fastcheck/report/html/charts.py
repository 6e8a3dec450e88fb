"""Charts as numbers that a template draws: positions, ticks and paths of an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.approximation import VCurve
from fastcheck.report.plot_data import (
    BINS_PER_DECADE,
    DECADES,
    Histogram,
    Points,
    unpacked,
)
from fastcheck.types import Floats
from fastcheck.verdict.rules import STATUSES

__all__ = [
    "Chart",
    "LogAxis",
    "Marks",
    "PointArrays",
    "error_chart",
    "histogram_chart",
    "scatter_chart",
    "v_chart",
]


WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 44
MAX_DECADES = 22  # what is smaller still is drawn at the edge


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis: powers of ten from `low` to `high` at pixels `start` to `stop`."""

    low: int
    high: int
    start: float
    stop: float
    zero: bool = False  # whether its lowest edge stands for 0 and all that is smaller

    @classmethod
    def around(cls, values: Iterable[Floats], start: float, stop: float) -> LogAxis:
        """Make an axis that holds some values."""
        every = np.abs(np.concatenate([np.ravel(v) for v in values]))
        positive = every[np.isfinite(every) & (every > 0)]
        if positive.size == 0:
            return cls(-16, 0, start, stop, zero=True)
        high = math.ceil(math.log10(positive.max()) + 1e-9)
        low = max(math.floor(math.log10(positive.min())), high - MAX_DECADES)
        low = min(low, high - 2)
        zero = bool((every < 10.0**low).any())
        return cls(low - zero, high, start, stop, zero)

    def __call__(self, values: Floats | float) -> Floats:
        """Return pixels; what is off the axis at its edges."""
        with np.errstate(divide="ignore", invalid="ignore"):
            decades = np.log10(np.abs(np.asarray(values, dtype=np.float64)))
        decades = np.clip(np.where(np.isnan(decades), self.high, decades), self.low, self.high)
        share = (decades - self.low) / (self.high - self.low)
        return np.asarray(self.start + share * (self.stop - self.start))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions and exponents; `0` for the edge that stands for zero."""
        step = max(1, math.ceil((self.high - self.low) / 7))
        last = self.low if self.zero else self.low - 1
        found = [(float(self(10.0**n)), f"{n}") for n in range(self.high, last, -step)]
        return [*found, (self.start, "zero")] if self.zero else found


@dataclass(frozen=True)
class Marks:
    """Points of one status: their SVG path and how many they are."""

    status: str
    path: str
    count: int


@dataclass(frozen=True)
class Chart:
    """A chart's axes and what is drawn between them.

    Attributes
    ----------
    x, y : LogAxis
    labels : tuple of str
        Of the axes.
    marks : list of Marks
    areas, lines : list of (class, SVG path)
    notes : list of (x, y, class, text)
        Words beside a line.
    """

    x: LogAxis
    y: LogAxis
    labels: tuple[str, str]
    marks: list[Marks] = field(default_factory=list)
    areas: list[tuple[str, str]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[float, float, str, str]] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class PointArrays:
    """`Points` unpacked."""

    gradient: Floats
    approximation: Floats
    allowed: Floats
    limit: Floats
    status: NDArray[np.uint8]

    @classmethod
    def of(cls, points: Points) -> PointArrays:
        """Unpack."""
        names = ("gradient", "approximation", "allowed", "limit")
        values = {name: unpacked(getattr(points, name), "f8") for name in names}
        return cls(**values, status=unpacked(points.status, "u1"))

    @property
    def error(self) -> Floats:
        """|g − g_approx|."""
        with np.errstate(over="ignore"):
            return np.abs(self.gradient - self.approximation)

    def band(self) -> tuple[Floats, Floats, Floats]:
        """Return sizes of the approximation, with the median allowed error and limit at each."""
        size = np.abs(self.approximation)
        some = (size > 0) & np.isfinite(size)
        if not some.any():
            return np.zeros(0), np.zeros(0), np.zeros(0)
        bins = np.floor(np.log10(size[some]) * 2.0).astype(int)
        places = np.unique(bins)
        medians = [
            [float(np.median(values[some][bins == b])) for b in places]
            for values in (self.allowed, self.limit)
        ]
        return 10.0 ** ((places + 0.5) / 2.0), np.array(medians[0]), np.array(medians[1])


def _axes(x: Iterable[Floats], y: Iterable[Floats]) -> tuple[LogAxis, LogAxis]:
    across = LogAxis.around(x, LEFT, WIDTH - RIGHT)
    return across, LogAxis.around(y, HEIGHT - BOTTOM, TOP)


def scatter_chart(points: PointArrays) -> Chart:
    """Gradient against approximation, with the band in which they agree."""
    both = [points.gradient, points.approximation]
    x, y = _axes(both, both)
    size, _, limit = points.band()
    upper, lower = y(size + limit), y(np.maximum(size - limit, 0.0))
    area = _area(x(size), upper, lower)
    ends = f"M{x.start:g} {y.start:g}L{x.stop:g} {y.stop:g}"
    labels = ("|dθ_approx|", "|dθ|")
    opposite = np.sign(points.gradient) * np.sign(points.approximation) < 0
    marks = _marks(points.status, x(points.approximation), y(points.gradient))
    if opposite.any():
        where = np.flatnonzero(opposite)
        across, up = x(points.approximation[where]), y(points.gradient[where])
        path = "".join(f"M{a - 3:.1f} {b:.1f}h6" for a, b in zip(across, up, strict=True))
        marks.append(Marks("opposite", path, int(where.size)))
    return Chart(x, y, labels, marks, [("band", area)], [("diagonal", ends)])


def error_chart(points: PointArrays) -> Chart:
    """|g − g_approx| against size, with what tol and rounding allow and the method's own error."""
    size, allowed, limit = points.band()
    x, y = _axes([points.approximation], [points.error, allowed, limit])
    floor = np.full(size.size, y.start)
    areas = [("band", _area(x(size), y(allowed), floor))]
    lines = [("allowed", _line(x(size), y(allowed)))]
    notes = []
    if size.size:
        place = (float(x(size)[-1]) - 4, float(y(allowed)[-1]) - 6)
        notes.append((*place, "allowed", "allowed"))
        if (limit > 2.0 * allowed).any():
            areas.append(("noise", _area(x(size), y(limit), y(allowed))))
    marks = _marks(points.status, x(points.approximation), y(points.error))
    return Chart(x, y, ("|dθ_approx|", "|dθ − dθ_approx|"), marks, areas, lines, notes)


def v_chart(curve: VCurve, tol: float) -> Chart:
    """Difference against ε."""
    epsilons = [np.array(c.epsilons) for c in curve.curves]
    differences = [np.array(c.differences) for c in curve.curves]
    x, y = _axes([*epsilons, np.array([curve.epsilon])], [*differences, np.array([tol, 1e-16])])
    lines, notes = [], []
    for each, across, up in zip(curve.curves, epsilons, differences, strict=True):
        kind = "textbook" if each.method == "textbook" else "unit"
        lines.append((f"curve {kind}", _line(x(across), y(up))))
        if across.size:
            at = int(np.argsort(across)[min(2, across.size - 1)])
            place = (float(x(across[at])) + 10, float(y(up[at])) - 8)
            notes.append((*place, kind, each.method))
    level, here = float(y(tol)), float(x(curve.epsilon))
    lines.append(("tol", f"M{x.start:g} {level:.1f}H{x.stop:g}"))
    lines.append(("epsilon", f"M{here:.1f} {y.start:g}V{y.stop:g}"))
    notes.append((x.stop - 4, level - 5, "end", "tol"))
    notes.append((here + 4, y.stop + 10, "", "ε used"))
    return Chart(x, y, ("ε", "difference"), [], [], lines, notes)


def histogram_chart(histogram: Histogram, tol: float) -> Chart:
    """How many components have which relative difference; both axes logarithmic."""
    width, height, left, base = 240, 118, 6.0, 96.0
    x = LogAxis(-DECADES, 0, left + 14, width - 6.0)
    most = max((sum(column) for column in zip(*histogram.counts, strict=True)), default=0)
    y = LogAxis(0, max(1, math.ceil(math.log10(max(most, 1) + 0.5))), base, 12.0)
    bars = [_bars(row, x, y, left) for row in histogram.counts]
    marks = [
        Marks(status, path, sum(row))
        for status, path, row in zip(STATUSES, bars, histogram.counts, strict=True)
        if sum(row)
    ]
    level = float(x(tol))
    lines = [("tol", f"M{level:.1f} {base:g}V8")]
    notes = [(level + 3, 15.0, "", "tol")]
    return Chart(x, y, ("", ""), marks, [], lines, notes, width, height)


def _bars(counts: Sequence[int], x: LogAxis, y: LogAxis, left: float) -> str:
    """Return bars whose height is the logarithm of a count; a single component is seen too."""
    step = (x.stop - x.start) / (DECADES * BINS_PER_DECADE)
    path = []
    for number, count in enumerate(counts):
        if count:
            at = left if number == 0 else x.start + (number - 1) * step
            wide = 10.0 if number == 0 else step - 0.8
            tall = 5.0 + (y.start - float(y(count))) * (1 - 5.0 / (y.start - y.stop))
            path.append(f"M{at:.1f} {y.start:g}v-{tall:.1f}h{wide:.1f}v{tall:.1f}z")
    return "".join(path)


def _line(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) if x.size else ""


def _area(x: Floats, upper: Floats, lower: Floats) -> str:
    if x.size == 0:
        return ""
    return _line(np.append(x, x[::-1]), np.append(upper, lower[::-1])) + "z"


# Shapes as well as colours: a dot, a roof, a square, a cross.
SHAPES = (
    "M{x:.1f} {y:.1f}h0",
    "M{x:.1f} {y:.1f}m-3.5 2.5l3.5-5 3.5 5",
    "M{x:.1f} {y:.1f}m-2.5-2.5h5v5h-5z",
    "M{x:.1f} {y:.1f}m-3-3l6 6m0-6l-6 6",
)


def _marks(status: NDArray[np.uint8], x: Floats, y: Floats) -> list[Marks]:
    """Return what is right first, so that what is wrong is drawn on top."""
    marks = []
    for severity, shape in enumerate(SHAPES):
        some = np.flatnonzero(status == severity)
        if some.size:
            path = "".join(shape.format(x=x[k], y=y[k]) for k in some)
            marks.append(Marks(STATUSES[severity], path, int(some.size)))
    return marks
