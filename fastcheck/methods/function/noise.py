"""The noise of a function: a difference table, with another spacing where the table says nothing.

After Moré & Wild, "Estimating computational noise", SISC 2011. What f returns says nothing of what
it computed in: a float32 sum returned as a Python float, `round(J, 6)` and a solver that stops at
its tolerance all have noise of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fastcheck.types import Floats

__all__ = ["TableNoise", "noise_of", "table_noise"]


POINTS = 8  # values in a table: at least 7 are advised
# Levels of three orders of differences that lie this close together are noise, not shape.
LEVEL_RATIO = 4.0
# Spacings relative to the size of θ. From one to the next noise stays what it is, while differences
# across a kink grow in proportion, and those of a curve faster.
SPACINGS = (1e-9, 1e-7, 1e-5, 1e-3, 1e-2)
PLATEAU_RATIO = 5.0
WIDER, MOST_RETRIES = 10.0, 3
MOST_RISE = 1e6  # what is so much larger than a narrower table's noise are kinks, or jumps
# Noise that only tables wider than this show, or that grows by so much on the way to them, may be
# kinks: it is held against other directions.
FINE_SPACING, DOUBTFUL_RISE, MOST_DIRECTIONS = 1e-5, 3.0, 3
# A solver that changes its number of steps makes jumps, which only a wide spacing meets.
WIDE_SPACINGS, JUMP_RATIO, BISECTIONS, JUMP_KEPT = 2, 30.0, 14, 0.01
JUMPS_IN_NOISE = 3.0  # a table with more jumps than one has no more noise than so many of them
# The largest step between two values of pure noise is about twice its standard deviation.
JUMP_OVER_NOISE = 4.0
SHAPE_DEGREE = 4  # of the polynomial that a jump stands out of
UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class TableNoise:
    """What a difference table says of the noise in its values.

    Attributes
    ----------
    level : float
        Standard deviation; for a rough table the least that its orders give.
    kind : str
        `noise`, `flat` (too many equal values: a wider spacing is needed) or `rough` (f's own
        shape, a kink or a jump: a narrower one).
    """

    level: float
    kind: str


def table_noise(values: Floats) -> TableNoise:
    """Return what equally spaced values of a function say of its noise.

    Parameters
    ----------
    values : ndarray, shape (n,), float64, n ≥ 7
    """
    if not np.isfinite(values).all():
        return TableNoise(math.inf, "rough")
    table, levels, signs, scale = values, [], [], 1.0
    for order in range(1, values.size - 1):
        table = np.diff(table)
        if order == 1 and np.count_nonzero(table == 0.0) >= values.size // 2:
            return TableNoise(float(np.std(values)), "flat")
        scale *= 0.5 * order / (2 * order - 1)
        levels.append(math.sqrt(scale * float(np.mean(table**2))))
        signs.append(float(table.min()) < 0.0 < float(table.max()))
    for k in range(len(levels) - 2):
        near = levels[k : k + 3]
        if max(near) <= LEVEL_RATIO * min(near) and signs[k]:
            return TableNoise(levels[k], "noise")
    return TableNoise(min(levels[2:]), "rough")


Values = Callable[[Floats], Floats]


def noise_of(directions: Iterable[tuple[Values, float]], value: float) -> float:
    """Return σ_J, the standard deviation of the noise in a function's values.

    Parameters
    ----------
    directions : iterable of tuple
        `values(shifts)`: the function at some distances from θ along a direction, relative to the
        size of θ; and where the points begin, in spacings: θ itself may lie on a kink. The second
        and later directions are taken only where the first one leaves a doubt: kinks along one
        direction can look like noise, but not along most of `MOST_DIRECTIONS`.
    value : float
        The function at θ; its last bit is the least noise that there can be.
    """
    floor = UNIT_ROUNDOFF * abs(value)
    steady, jumps = [], [0.0]
    for values, start in itertools.islice(directions, MOST_DIRECTIONS):
        found = _noise_along(values, start)
        steady.append(max(floor, found.level))
        jumps.append(found.jump)
        if len(steady) == 1 and not found.doubtful:
            break
    return max(float(np.median(steady)), *jumps)


@dataclass(frozen=True)
class _Along:
    """What tables along one direction say: noise, jumps, and whether it may be something else."""

    level: float
    jump: float
    doubtful: bool


def _noise_along(values: Values, start: float) -> _Along:
    """Return the noise along one direction."""
    points = start + np.arange(POINTS, dtype=np.float64)

    def table(spacing: float) -> TableNoise:
        return table_noise(values(spacing * points))

    tables = [table(spacing) for spacing in SPACINGS]
    found = _first_noise(tables)
    if found is None:
        return _Along(_without_noise(table, tables), 0.0, doubtful=True)
    level = first = tables[found].level
    for narrow, wide in zip(tables[found:], tables[found + 1 :], strict=False):
        both = narrow.kind == wide.kind == "noise" and wide.level <= MOST_RISE * first
        low, high = sorted((narrow.level, wide.level))
        if both and high <= PLATEAU_RATIO * low:  # noise does not vanish in a wider table
            level = max(level, high)
    # A kink in a wide table has no narrower one that shows noise, or lies far above it.
    doubtful = SPACINGS[found] > FINE_SPACING or level > DOUBTFUL_RISE * first
    jump = 0.0
    for spacing, wide in list(zip(SPACINGS, tables, strict=True))[-WIDE_SPACINGS:]:
        if wide.level > JUMP_RATIO * level:
            size = _jump(values, spacing * points)
            if size > JUMP_OVER_NOISE * level:
                jump = max(jump, size, min(wide.level, JUMPS_IN_NOISE * size))
    return _Along(level, jump, doubtful)


def _first_noise(tables: list[TableNoise]) -> int | None:
    """Return the narrowest spacing that shows noise."""
    return next((k for k, table in enumerate(tables) if table.kind == "noise"), None)


def _without_noise(table: Callable[[float], TableNoise], tables: list[TableNoise]) -> float:
    """Return the noise where every table is flat or rough: the spacing lies between two of them.

    A function that is flat everywhere has none.
    """
    flat = [s for s, t in zip(SPACINGS, tables, strict=True) if t.kind == "flat"]
    rough = [t.level for t in tables if t.kind == "rough" and math.isfinite(t.level)]
    spacing = max(flat, default=SPACINGS[0] / WIDER)
    steps = tables[len(flat) - 1].level if flat else 0.0
    for _ in range(MOST_RETRIES):
        spacing *= WIDER
        retried = table(spacing)
        if retried.kind == "noise":
            return retried.level
        steps = max(steps, retried.level if retried.kind == "flat" else 0.0)
    return max(steps, min(rough, default=0.0))


def _jump(values: Callable[[Floats], Floats], shifts: Floats) -> float:
    """Return half of a jump between some points; 0 where the function is continuous there.

    A jump stays as large as it is while its place is bisected; what a kink or a curve does
    vanishes with the interval.
    """
    found = values(shifts)
    if not np.isfinite(found).all():
        return 0.0
    shape = np.polynomial.Polynomial.fit(shifts, found, SHAPE_DEGREE)
    rest = found - shape(shifts)
    odd = np.abs(np.diff(rest))
    at = int(np.argmax(odd))
    low, high, first, last = shifts[at], shifts[at + 1], rest[at], rest[at + 1]
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        between = float(values(np.array([middle]))[0] - shape(middle))
        if abs(between - first) >= abs(last - between):
            high, last = middle, between
        else:
            low, first = middle, between
    last_bits = JUMP_RATIO * UNIT_ROUNDOFF * float(np.abs(found).max())
    left = abs(last - first)
    return 0.5 * left if left > max(JUMP_KEPT * odd[at], last_bits) else 0.0
