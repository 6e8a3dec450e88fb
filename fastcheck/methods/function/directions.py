"""Random directions in each block: what a gradient of millions of components is held to.

T = g·u − D is zero for a right gradient, up to noise, truncation and the gradient's own rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import random_direction, scale_of
from fastcheck.methods.function.differences import NOISE_FACTOR, look_along
from fastcheck.methods.function.steps import difference_noise
from fastcheck.types import Floats

__all__ = ["MISSED_SHARE", "DirectionalTest", "Directions", "Line", "hold_block", "missed_error"]


PIECE = 2**17
MISSED_SHARE = 1e-3  # the probability with which an error of the stated size is missed
# For few wrong components an error has to be so many times larger than for Gaussian sums; simulated
# in tests/test_directions.py.
WORST_CASE = 2.0
GAUSSIAN = math.sqrt(2.0 / math.pi)  # P(|x| < t) ≈ 0.80·t for small t
# Truncation over its noise, between which a step is kept.
WIDE, NARROW = 12.0, 2.0
MOST_STEPS = 4
RICHARDSON_NOISE = math.sqrt(65.0) / 3.0
TRUNCATION_LEFT = 0.3  # of the difference between two steps, after Richardson's extrapolation
KINK_SLACK = 1e4
# The least step has no more noise than this share of what the block does to J.
COARSE_BAR, WIDEST_STEP = 1e-3, 0.1
# So many directions that disagree are looked at again, step by step, before a block is wrong; the
# others need not be.
SURE_DIRECTIONS = 2
ENOUGH = 1e-9


@dataclass
class Line:
    """A direction from θ: u on the components start..stop−1.

    Attributes
    ----------
    box : BlackBox
    gradient : ndarray, shape (N,), float64
    start : int
    direction : ndarray, shape (n,), float64
        In units of θ: entries ±uniform(½, 1½) times the block's rms.
    """

    box: BlackBox
    gradient: Floats
    start: int
    direction: Floats
    contents: Floats = field(default_factory=lambda: np.zeros(0))

    def value(self, shift: float) -> tuple[float, float]:
        """Return f at θ + shift·u, and g·(the step that was really taken)."""
        n = self.direction.size
        place = slice(self.start, self.start + n)
        if self.contents.size != n:
            self.contents = np.empty(n)
        np.multiply(self.direction, shift, out=self.contents)
        self.contents += self.box.theta[place]
        contents = self.box.tree.held(self.start, self.contents)
        value = float(self.box.moved(self.start, [contents])[0])
        return value, _projected(self.gradient[place], contents, self.box.theta[place])

    def deviation(self, shift: float) -> tuple[float, float, float]:
        """Return g·u, D and T = g·u − D at one step."""
        high, up = self.value(shift)
        low, down = self.value(-shift)
        given, difference = (up - down) / (2.0 * shift), (high - low) / (2.0 * shift)
        return given, difference, given - difference

    def part(self, start: int, stop: int) -> Line:
        """Return the same direction on some of its components (indices of θ)."""
        inside = self.direction[start - self.start : stop - self.start]
        return Line(self.box, self.gradient, start, inside, self.contents[: stop - start])


def _projected(gradient: Floats, contents: Floats, theta: Floats) -> float:
    """Return g·(contents − θ), without another array of that size."""
    sums = [
        float(np.dot(gradient[k : k + PIECE], contents[k : k + PIECE] - theta[k : k + PIECE]))
        for k in range(0, gradient.size, PIECE)
    ]
    return math.fsum(sums)


@dataclass(frozen=True)
class DirectionalTest:
    """What the directions of one block came to.

    Attributes
    ----------
    given, derivative, bar : ndarray, shape (K,), float64
        g·u, the directional derivative, and its error bar, for each direction.
    doubtful : ndarray of bool, shape (K,)
        Where a kink may be what is seen.
    step : float
        Relative to u.
    norm : float
        ‖g∘s‖, s the block's rms: what errors are relative to.
    allowed : float
        What the gradient's own rounding and tol allow of T.
    """

    given: Floats
    derivative: Floats
    bar: Floats
    doubtful: NDArray[np.bool_]
    step: float
    norm: float
    allowed: float

    @property
    def deviations(self) -> Floats:
        """T."""
        return self.given - self.derivative

    @property
    def off(self) -> NDArray[np.bool_]:
        """Where the gradient is not what is seen."""
        return np.abs(self.deviations) > self.bar + self.allowed

    @property
    def status(self) -> str:
        """`agree`, `cannot tell` or `wrong`."""
        if (self.off & ~self.doubtful).any():
            return "wrong"
        return "cannot tell" if self.off.any() or not np.isfinite(self.bar).all() else "agree"

    @property
    def resolution(self) -> float:
        """The relative error of the block that is missed with a probability of 0.1 %."""
        error = missed_error(float(np.max(self.bar)) + self.allowed, self.given.size)
        return error / self.norm if self.norm > 0.0 else math.inf


def missed_error(bar: float, count: int) -> float:
    """Return ‖e‖ that `count` directions with an error bar each miss with 0.1 %, at worst."""
    return WORST_CASE * GAUSSIAN * bar / math.pow(MISSED_SHARE, 1.0 / count)


@dataclass(frozen=True)
class Directions:
    """What is asked of the directions.

    Attributes
    ----------
    gradient : ndarray, shape (N,), float64
    rounding : float
        A bound of the rounding of a single component.
    count : int
        K.
    tol : float
    limit : float
        The coarsest resolution that is an agreement.
    seed : int
    """

    gradient: Floats
    rounding: float
    count: int
    tol: float
    limit: float
    seed: int


def hold_block(
    box: BlackBox,
    asked: Directions,
    number: int,
    *,
    step: float,
    noise: tuple[float, float],
) -> tuple[DirectionalTest, Callable[[int], Line]]:
    """Hold one block to some random directions.

    Parameters
    ----------
    box : BlackBox
    asked : Directions
    number : int
        Of the block.
    step : float
        A first guess, relative to the block's rms.
    noise : tuple of float
        σ_J and f(θ).

    Returns
    -------
    test : DirectionalTest
    line : callable
        `line(k)` makes the k-th direction again.
    """
    block = box.tree.blocks[number]
    theta = box.theta[block.slice]
    scale = scale_of(theta, scale_of(box.theta) if theta.size < box.theta.size else 1.0)

    def line(k: int) -> Line:
        random = np.random.default_rng([asked.seed, 3, number, k])
        direction = random_direction(random, block.size)
        direction *= scale
        return Line(box, asked.gradient, block.offset, direction)

    norm = scale * _norm(asked.gradient[block.slice])
    # So that an error of 2·tol is seen.
    allowed = asked.rounding * scale * math.sqrt(block.size)
    allowed += 2.0 * asked.tol * norm / missed_error(1.0, asked.count)
    rows: list[Row] = []
    hidden = NOISE_FACTOR * RICHARDSON_NOISE * float(difference_noise(noise[0], 1.0))
    # Where noise would hide nearly all, a step that turns out too wide is narrowed again.
    step = max(step, min(hidden / (COARSE_BAR * norm), WIDEST_STEP)) if norm > 0.0 else step
    for k in range(asked.count):
        sure = sum(abs(g - d) > bar + allowed and not doubt for g, d, bar, doubt in rows)
        looks = sure < SURE_DIRECTIONS
        row, step = _along(line(k), step, noise, (allowed, norm), looks=looks)
        rows.append(row)
    given, derivative, bar, doubtful = (np.array(column) for column in zip(*rows, strict=True))
    test = DirectionalTest(given, derivative, bar, doubtful.astype(bool), step, norm, allowed)
    return test, line


def _norm(values: Floats) -> float:
    size: float = scale_of(values, 0.0) * math.sqrt(values.size)
    return size


Row = tuple[float, float, float, bool]


def _along(
    line: Line,
    step: float,
    noise: tuple[float, float],
    sizes: tuple[float, float],
    *,
    looks: bool,
) -> tuple[Row, float]:
    """Return g·u, the derivative, its bar and doubt along a direction, and the next one's step."""
    allowed, norm = sizes
    wide = line.deviation(step)
    for _ in range(MOST_STEPS):
        narrow = line.deviation(step / 2.0)
        sigma = difference_noise(noise[0], step)
        change = abs(wide[1] - narrow[1])
        if change <= WIDE * sigma or not math.isfinite(sigma):
            break
        if not math.isfinite(change) or change > 8.0 * WIDE * sigma:
            shrunk = (WIDE * sigma / change) ** (1.0 / 3.0) if math.isfinite(change) else 0.25
            step *= min(0.5, max(0.05, shrunk))
            wide = line.deviation(step)
        else:
            step, wide = step / 2.0, narrow
    derivative = (4.0 * narrow[1] - wide[1]) / 3.0
    bar = NOISE_FACTOR * RICHARDSON_NOISE * sigma + TRUNCATION_LEFT * change
    following = step
    if change < NARROW * sigma and bar > ENOUGH * norm:
        following = min(2.0 * step, WIDEST_STEP)
    row = (narrow[0], derivative, bar, False)
    if looks and not abs(narrow[0] - derivative) <= bar + allowed:
        row = _looked_again(line, step, noise, allowed, narrow[0])
    return row, following


def _looked_again(
    line: Line, step: float, noise: tuple[float, float], allowed: float, given: float
) -> Row:
    """Return the same after a look at one step after another."""

    def values(shifts: tuple[float, float]) -> Floats:
        return np.array([line.value(shift)[0] for shift in shifts])

    look = look_along(values, step, given, allowed, noise)
    bar = float(look.bar[0] + look.loose[0])
    derivative = float(look.derivative[0])
    doubtful = bool(look.doubtful[0] | look.kink[0]) and look.low[0] != look.high[0]
    # Several kinks at θ, each with a slope of its own choice, may add up to more than the one-sided
    # slopes of their sum.
    slack = look.slack[0] + KINK_SLACK * abs(look.high[0] - look.low[0])
    inside = look.low[0] - slack <= given <= look.high[0] + slack
    return given, derivative, bar, doubtful and bool(inside | ~np.isfinite(look.low[0]))
