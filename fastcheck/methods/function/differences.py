"""Central differences of single components, and a second look at those that do not agree.

The second look evaluates at one step after another. It tells truncation from a wrong gradient and
a kink from both, so that `wrong` is said of the gradient and never of a step that was too wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.steps import difference_noise
from fastcheck.types import Floats, Integers

__all__ = [
    "NOISE_FACTOR",
    "Differences",
    "SecondLook",
    "look_along",
    "second_look",
    "spacing_steps",
]

Booleans = NDArray[np.bool_]

CHUNK = 128
UNIT_ROUNDOFF = 2.0**-53
# θ ± h is rounded: h is no less than so many units in the last place of θ.
LEAST_ULPS = 2.0**10
NOISE_FACTOR = 8.0
# The second look's steps, relative to h: two wider ones, then narrower by four.
SHARES = (4.0, 2.0, 1.0, *(4.0**-k for k in range(1, 11)))
LEAST_LEVELS = 4
# What a step leaves uncertain, in changes of the estimate and of the difference since the last one.
SERIES_SLACK, CHANGE_SLACK = 2.0, 0.5
# Noise of a slope to one side beside that of a central difference, and of the gap between two.
SIDE_NOISE, GAP_SLACK = 2.0, 1.5
KINK_GAP, KINK_STEADY = 0.5, 0.05
LONELY_KINK = 250.0
# An error bar so many times what the first step's noise makes it is narrowed, as long as the noise
# of a step is so many times less.
COARSE, TOLD = 4.0, 4.0
# A gradient is wrong if it is off by so many times what the last few steps have changed.
SETTLED, SETTLED_LEVELS = 3.0, 3
# Where it is off by so many times that, after steps 256 times narrower, no narrower ones follow.
PLAINLY_WRONG, PLAIN_LEVELS = 100.0, 7


def spacing_steps(theta: Floats, steps: Floats, ulp: float = 2.0 * UNIT_ROUNDOFF) -> Floats:
    """Return steps no narrower than what floats near θ can hold."""
    return np.maximum(steps, LEAST_ULPS * ulp * np.abs(theta))


@dataclass(frozen=True)
class Differences:
    """Central differences of some components: a prepared method.

    Attributes
    ----------
    box : BlackBox
    indices : ndarray, shape (n,), int64, increasing
    steps : ndarray, shape (n,), float64
    """

    box: BlackBox
    indices: Integers
    steps: Floats

    @property
    def chunks(self) -> Sequence[slice]:
        """Positions in the indices."""
        size = self.indices.size
        return [slice(k, min(k + CHUNK, size)) for k in range(0, size, CHUNK)]

    @property
    def weights(self) -> Sequence[int]:
        """Components in each chunk."""
        return [chunk.stop - chunk.start for chunk in self.chunks]

    def differences(self, chunk: slice) -> Floats:
        """Return (4, n): θ + h and θ − h as floats hold them, and f there."""
        indices, steps = self.indices[chunk], self.steps[chunk]
        theta = self.box.theta[indices]
        places = np.stack([theta + steps, theta - steps], axis=1)
        places = self.box.tree.held_at(indices, places)
        return np.concatenate([places.T, self.box.at_components(indices, places).T])

    def gathered(self, results: Sequence[Floats | None]) -> Level:
        """Return what the chunks gave, NaN where they did not come."""
        parts = [
            np.full((4, chunk.stop - chunk.start), np.nan) if result is None else result
            for chunk, result in zip(self.chunks, results, strict=True)
        ]
        above, below, high, low = np.concatenate(parts, axis=1)
        return Level(self.box.theta[self.indices], above, below, high, low)


@dataclass(frozen=True)
class Level:
    """f at θ ± h for some components, each with a step of its own; arrays of shape (n,)."""

    theta: Floats
    above: Floats
    below: Floats
    high: Floats
    low: Floats

    def slopes(self) -> Floats:
        """Return the central differences."""
        with np.errstate(all="ignore"):
            return np.asarray((self.high - self.low) / (self.above - self.below))

    def sides(self, value: float) -> tuple[Floats, Floats]:
        """Return the slopes above and below θ, from f(θ)."""
        with np.errstate(all="ignore"):
            up = (self.high - value) / (self.above - self.theta)
            down = (value - self.low) / (self.theta - self.below)
        return up, down

    def noise(self, sigma: float) -> Floats:
        """Return σ_D: of f's noise, and of the last bit of larger values far from θ."""
        largest = np.fmax(np.abs(self.high), np.abs(self.low))
        spread = np.maximum(sigma, UNIT_ROUNDOFF * np.nan_to_num(largest))
        with np.errstate(all="ignore"):
            return difference_noise(spread, (self.above - self.below) / 2.0)


@dataclass
class SecondLook:
    """What one step after another tells of some components; arrays of shape (n,).

    Attributes
    ----------
    derivative : ndarray
        The best estimate: Richardson's, of the two steps whose error bar is the least.
    bar : ndarray
        What is uncertain of it: noise and truncation; a bound, not a standard deviation.
    doubtful : ndarray of bool
        Where the slopes to either side do not exclude the gradient.
    kink : ndarray of bool
    low, high : ndarray
        At a kink: the least and the greatest one-sided slope.
    slack : ndarray
        What noise leaves uncertain of these slopes.
    loose : ndarray
        What kinks between θ and the narrowest step that tells something leave uncertain.
    """

    derivative: Floats
    bar: Floats
    doubtful: Booleans
    kink: Booleans
    low: Floats
    high: Floats
    slack: Floats
    loose: Floats

    @classmethod
    def empty(cls, size: int) -> SecondLook:
        """Return nothing known of some components."""
        nan = np.full(size, np.nan)
        doubtful, kink = np.ones(size, bool), np.zeros(size, bool)
        bar = np.full(size, np.inf)
        return cls(nan, bar, doubtful, kink, nan.copy(), nan.copy(), *np.zeros((2, size)))

    def at(self, chosen: Integers) -> SecondLook:
        """Return what is known of some of the components."""
        return SecondLook(**{name: values[chosen] for name, values in vars(self).items()})


class _Ladder:
    """Central differences at one step after another, (n,) each, and what they come to."""

    def __init__(self, given: Floats, tolerance: Floats, sigma: float, value: float) -> None:
        self.given, self.tolerance, self.sigma, self.value = given, tolerance, sigma, value
        size = given.size
        self.look = SecondLook.empty(size)
        nan = np.full(size, np.nan)
        self.slope, self.noise, self.step, self.estimate, self.change, self.gap = (
            nan.copy() for _ in range(6)
        )
        self.sides, self.at_theta = np.full((2, size), np.nan), np.full((2, size), np.nan)
        self.first_noise, self.bent_from = np.zeros(size), np.full(size, np.nan)
        self.history: list[Floats] = []
        self.current = nan.copy()  # the steps that are being taken in
        self.depth = 0

    def add(self, which: Integers, level: Level) -> None:
        """Take in the differences of some components at the next step."""
        slope, noise = level.slopes(), level.noise(self.sigma)
        step = (level.above - level.below) / 2.0
        with np.errstate(all="ignore"):
            ratio = self.step[which] / step
            change = np.abs(slope - self.slope[which])
            self._estimate(which, slope, noise, ratio)
            self.current = step
            self._sides(which, np.stack(level.sides(self.value)), noise, ratio)
        for values, new in (
            (self.slope, slope),
            (self.noise, noise),
            (self.step, step),
            (self.change, change),
        ):
            values[which] = new
        taken = np.full((2, self.given.size), np.nan)
        taken[:, which] = change, noise
        self.history.append(taken)
        if SHARES[self.depth] == 1.0:
            self.first_noise[which] = noise
        self.depth += 1

    def _estimate(self, which: Integers, slope: Floats, noise: Floats, ratio: Floats) -> None:
        """Richardson's estimate of this step and the one before, where its error bar is less."""
        look, weight = self.look, ratio**2 - 1.0
        change = slope - self.slope[which]
        estimate = slope + change / weight
        sigma = np.hypot(ratio**2 * noise, self.noise[which]) / weight
        # Two changes, so that no accident makes a kink look like a straight line.
        steady = np.maximum(CHANGE_SLACK * np.abs(change), self.change[which] / ratio**2)
        uncertain = np.maximum(SERIES_SLACK * np.abs(estimate - self.estimate[which]), steady)
        bar = NOISE_FACTOR * sigma + uncertain
        # Where a narrower step contradicts a wider one, the wider one has missed something.
        contradicts = np.abs(estimate - look.derivative[which]) > bar + look.bar[which]
        better = np.isfinite(bar) & ((bar < look.bar[which]) | contradicts)
        at = which[better]
        look.derivative[at], look.bar[at] = estimate[better], bar[better]
        self.estimate[which] = estimate

    def _sides(self, which: Integers, sides: Floats, noise: Floats, ratio: Floats) -> None:
        """Extrapolate the slopes to either side to θ: they meet unless there is a kink."""
        look = self.look
        at_theta = sides + (sides - self.sides[:, which]) / (ratio - 1.0)
        sigma = SIDE_NOISE * np.hypot(ratio * noise, self.noise[which]) / (ratio - 1.0)
        gap, slack = np.abs(at_theta[0] - at_theta[1]), NOISE_FACTOR * sigma
        low, high = at_theta.min(axis=0), at_theta.max(axis=0)
        # A narrower step tells more unless its noise is as large as the gap that was there.
        before = self.gap[which]
        told = np.isfinite(gap) & ~(GAP_SLACK * slack > KINK_GAP * before)
        bent = told & (gap > GAP_SLACK * slack)
        moved = np.abs(at_theta - self.at_theta[:, which]).max(axis=0)
        # Slopes that still move have other kinks between them and θ: how far they are from those
        # at θ is only known to be about their gap.
        steady = moved <= KINK_STEADY * gap + slack
        loose = np.where(bent & ~steady, gap, 0.0)
        at = which[told]
        look.kink[at], look.loose[at], self.gap[at] = (bent & steady)[told], loose[told], gap[told]
        look.low[at], look.high[at], look.slack[at] = low[told], high[told], slack[told]
        slack = slack + loose + self._unseen_kinks(which, told, bent & steady)
        low, high = low - slack, high + slack
        given = self.given[which]
        informative = NOISE_FACTOR * sigma < np.abs(given - look.derivative[which])
        inside = (low <= given) & (given <= high)
        look.doubtful[which] = np.where(informative, inside, look.doubtful[which])
        self.sides[:, which], self.at_theta[:, which] = sides, at_theta

    def _unseen_kinks(self, which: Integers, told: Booleans, kink: Booleans) -> Floats:
        """Return what other kinks near θ may do to the slopes to either side of one.

        Where one lies nearer to θ than the narrowest step that tells something, another may. It is
        unlikely only if no other was met on many wider steps.
        """
        first = self.bent_from[which]
        first = np.where(kink & np.isnan(first), self.step[which], first)
        first = np.where(told & ~kink, np.nan, first)
        self.bent_from[which] = first
        few = ~(first > LONELY_KINK * self.current)
        return np.where(few & kink, self.gap[which], 0.0)

    def finished(self) -> SecondLook:
        """Return what was found; in doubt where the last steps that tell something do not settle.

        Kinks between θ and a step move the difference, and two of them may do so by the same.
        """
        look = self.look
        changes, noises = np.moveaxis(np.array(self.history), 1, 0)[:, ::-1]
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.given - look.derivative)
            told = np.isfinite(changes) & (NOISE_FACTOR * noises < apart)
            last = told & (np.cumsum(told, axis=0) <= SETTLED_LEVELS)
            largest = np.where(last, changes, 0.0).max(axis=0)
            look.doubtful |= ~(apart > SETTLED * largest)
        return look

    def active(self, which: Integers) -> Integers:
        """Return the components that another step would tell more of."""
        look = self.look
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.given - look.derivative)
            right = apart <= self.tolerance + look.bar
            coarse = look.bar > COARSE * np.maximum(self.tolerance, NOISE_FACTOR * self.first_noise)
            told = TOLD * NOISE_FACTOR * self.noise < np.fmax(apart, look.bar)
        more = (~right | coarse) & told | ~np.isfinite(look.bar)
        if self.depth >= PLAIN_LEVELS:
            more &= ~self._plainly_wrong(apart)
        return which[more[which] | (self.depth < LEAST_LEVELS)]

    def _plainly_wrong(self, apart: Floats) -> Booleans:
        """Return where no bar, no kink and no change of the last steps comes near the error."""
        look = self.look
        changes = np.array([change for change, _ in self.history[-SETTLED_LEVELS:]])
        with np.errstate(invalid="ignore"):
            least = np.maximum(changes.max(axis=0), self.tolerance + look.bar + look.loose)
            return np.asarray(~look.doubtful & ~look.kink & (apart > PLAINLY_WRONG * least))


def second_look(
    box: BlackBox,
    work: Differences,
    given: Floats,
    tolerance: Floats,
    noise: tuple[float, float],
) -> SecondLook:
    """Look at some components again, at one step after another.

    Parameters
    ----------
    box : BlackBox
    work : Differences
        The components, and the steps of the first look.
    given, tolerance : ndarray, shape (n,), float64
        The given gradient, and what it may be off by.
    noise : tuple of float
        σ_J and f(θ).
    """
    ladder = _Ladder(given, tolerance, *noise)

    def level(which: Integers, share: float) -> Level:
        indices = work.indices[which]
        steps = spacing_steps(box.theta[indices], share * work.steps[which])
        part = Differences(box, indices, steps)
        return part.gathered([part.differences(chunk) for chunk in part.chunks])

    return _climbed(ladder, level)


def _climbed(ladder: _Ladder, level: Callable[[Integers, float], Level]) -> SecondLook:
    """Take one step after another, as long as the next one tells more."""
    which = np.arange(ladder.given.size)
    for share in SHARES:
        ladder.add(which, level(which, share))
        which = ladder.active(which)
        if which.size == 0:
            break
    return ladder.finished()


def look_along(
    values: Callable[[tuple[float, float]], Floats],
    step: float,
    given: float,
    tolerance: float,
    noise: tuple[float, float],
) -> SecondLook:
    """Look at the derivative along one direction, at one step after another.

    Parameters
    ----------
    values : callable
        `values((t, −t))`: f at two distances along the direction.
    step : float
    given, tolerance : float
        What the gradient makes of the derivative, and what that may be off by.
    noise : tuple of float
        σ_J and f(θ).
    """
    ladder = _Ladder(np.array([given]), np.array([tolerance]), *noise)

    def level(_: Integers, share: float) -> Level:
        at = share * step
        high, low = values((at, -at))
        return Level(*(np.array([x]) for x in (0.0, at, -at, high, low)))

    return _climbed(ladder, level)
