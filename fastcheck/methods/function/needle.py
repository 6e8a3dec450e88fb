"""The few wrong components of a large block, found by splitting a direction that shows them.

Both halves share the direction of the whole, so that one measurement serves two:
T_right = T_parent − T_left. What was found is taken out of every sum before the next descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from fastcheck.methods.function.differences import NOISE_FACTOR, Differences, second_look
from fastcheck.methods.function.directions import DirectionalTest, Line
from fastcheck.methods.function.steps import difference_noise

__all__ = ["Found", "Needle", "confirmed", "find_wrong"]


MOST_NEEDLES = 40
# A range is wrong as a whole where no more than so many of its parts are right, or an eighth.
PARTS, RIGHT_PARTS = 32, 4
LEAST_RANGE = 8
# A difference of two measurements is measured itself where it is less than so many error bars.
AMBIGUOUS = 2.0
STEP_SHARE = 0.5
TRUNCATION_SHARE = 0.25


@dataclass(frozen=True)
class Needle:
    """A wrong component: its index in θ, what was given, the derivative, and its error bar."""

    index: int
    given: float
    derivative: float
    bar: float


@dataclass
class Found:
    """What is wrong in a block.

    Attributes
    ----------
    needles : list of Needle
    ranges : list of tuple of int
        First and last + 1 component of ranges that are wrong as a whole.
    narrowed : tuple of int or None
        The smallest range that holds something wrong, where noise hides what it is.
    complete : bool
        Whether what was found explains all that the directions show.
    """

    needles: list[Needle] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    narrowed: tuple[int, int] | None = None
    complete: bool = False


class _Search:
    """The search along one direction; T of ranges is kept, as it was measured."""

    def __init__(self, line: Line, step: float, noise: float, allowed: float, bar: float) -> None:
        self.line, self.step, self.bar, self.found = line, STEP_SHARE * step, bar, Found()
        self.sigma = float(difference_noise(noise, self.step))
        self.allowed, self.size = allowed, line.direction.size
        self.known: dict[tuple[int, int], float] = {}

    def threshold(self, start: int, stop: int) -> float:
        """Return what T of a range may be without anything wrong in it."""
        share = (stop - start) / self.size
        return (
            NOISE_FACTOR * self.sigma
            + self.allowed * math.sqrt(share)
            + TRUNCATION_SHARE * self.bar
        )

    def measure(self, start: int, stop: int) -> float:
        """Return T of a range by two evaluations."""
        if (start, stop) not in self.known:
            self.known[start, stop] = self.line.part(start, stop).deviation(self.step)[2]
        return self.known[start, stop]

    def rest(self, start: int, stop: int) -> float:
        """Return T of a range without what was found in it."""
        inside = [n for n in self.found.needles if start <= n.index < stop]
        direction, first = self.line.direction, self.line.start
        taken = [(n.given - n.derivative) * direction[n.index - first] for n in inside]
        whole = [self.known[r] for r in self.found.ranges if start <= r[0] and r[1] <= stop]
        return self.known[start, stop] - math.fsum(taken) - math.fsum(whole)

    def shows(self, start: int, stop: int) -> bool:
        """Return whether something that was not found is wrong in a range."""
        return abs(self.rest(start, stop)) > self.threshold(start, stop)

    def dense(self, start: int, stop: int) -> bool:
        """Return whether a range is wrong as a whole."""
        if stop - start < LEAST_RANGE:
            return False
        parts = min(PARTS, stop - start)
        edges = np.linspace(start, stop, parts + 1).astype(int).tolist()
        right = 0
        for low, high in pairwise(edges):
            self.measure(low, high)
            right += not self.shows(low, high)
            if right > parts * RIGHT_PARTS // PARTS:
                return False
        return True

    def descend(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the ranges on the way to a wrong component, the last one the smallest."""
        path = [(start, stop)]
        while stop - start > 1:
            middle = (start + stop) // 2
            left, right = (start, middle), (middle, stop)
            self.measure(*left)
            if right not in self.known:
                self.known[right] = self.known[start, stop] - self.known[left]
            start, stop = max(left, right, key=lambda part: abs(self.rest(*part)))
            if abs(self.rest(start, stop)) < AMBIGUOUS * self.threshold(start, stop):
                del self.known[start, stop]
                self.measure(start, stop)
                if not self.shows(start, stop):
                    break
            path.append((start, stop))
        return path


def find_wrong(
    test: DirectionalTest,
    line: Callable[[int], Line],
    confirm: Callable[[int], Needle | None],
    noise: float,
    most_evaluations: int,
) -> Found:
    """Return the wrong components of a block.

    Parameters
    ----------
    test : DirectionalTest
        Which of its directions show something.
    line : callable
        `line(k)` makes the k-th direction.
    confirm : callable
        `confirm(index)` returns a component that is wrong for sure.
    noise : float
        σ_J.
    most_evaluations : int
    """
    found = Found()
    for k in np.argsort(-np.abs(test.deviations)):
        left = _left(test, line, found, int(k))
        if abs(left) <= test.bar[k] + test.allowed or found.ranges:
            continue
        search = _Search(line(int(k)), test.step, noise, test.allowed, float(test.bar[k]))
        search.found = found
        _along(search, confirm, most_evaluations)
        if found.narrowed is not None:
            break
    found.complete = found.narrowed is None and len(found.needles) < MOST_NEEDLES
    return found


def _left(test: DirectionalTest, line: Callable[[int], Line], found: Found, k: int) -> float:
    """Return T of a direction without what was found."""
    left = float(test.deviations[k])
    if found.needles:
        made = line(k)
        left -= math.fsum(
            (n.given - n.derivative) * float(made.direction[n.index - made.start])
            for n in found.needles
        )
    return left


def _along(search: _Search, confirm: Callable[[int], Needle | None], most: int) -> None:
    """Find what one direction shows."""
    box, found, whole = search.line.box, search.found, search.line
    root = (whole.start, whole.start + whole.direction.size)
    first = box.evaluations
    search.measure(*root)
    if search.dense(*root):
        found.ranges.append(root)
        return
    while search.shows(*root) and len(found.needles) < MOST_NEEDLES:
        path = search.descend(*root)
        start, stop = path[-1]
        needle = confirm(start) if stop - start == 1 else None
        if needle is None or any(n.index == needle.index for n in found.needles):
            found.narrowed = path[-1] if len(path) > 1 else root
            return
        found.needles.append(needle)
        _widen(search, path)
        if box.evaluations - first > most:
            found.narrowed = root
            return


def _widen(search: _Search, path: list[tuple[int, int]]) -> None:
    """Take the largest range around a wrong component that is wrong as a whole."""
    for start, stop in reversed(path[1:]):
        if stop - start < LEAST_RANGE:
            continue
        if not search.shows(start, stop) or not search.dense(start, stop):
            return
        search.found.ranges[:] = [r for r in search.found.ranges if not start <= r[0] < stop]
        inside = [n for n in search.found.needles if start <= n.index < stop]
        for needle in inside:
            search.found.needles.remove(needle)
        search.found.ranges.append((start, stop))


def confirmed(
    line: Line, index: int, step: float, tolerance: float, noise: tuple[float, float]
) -> Needle | None:
    """Return a component that its own differences show to be wrong.

    Parameters
    ----------
    line : Line
    index : int
    step : float
        h in units of θ.
    tolerance : float
        What its own rounding and tol allow.
    noise : tuple of float
        σ_J and f(θ).
    """
    given = line.gradient[[index]]
    work = Differences(line.box, np.array([index]), np.array([step]))
    look = second_look(line.box, work, given, np.array([tolerance]), noise)
    apart = abs(float(given[0] - look.derivative[0]))
    wrong = apart > tolerance + look.bar[0] + look.loose[0] and not look.doubtful[0]
    if not wrong or look.kink[0]:
        return None
    return Needle(index, float(given[0]), float(look.derivative[0]), float(look.bar[0]))
