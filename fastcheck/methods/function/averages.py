"""Averages of central differences over several steps: the narrowest error bars that noise allows.

The noise of J at one step is independent of that at another, so that an average of nine has a third
of it. It is no narrower than half of what rounding to a grid may do to a single difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.differences import NOISE_FACTOR, Differences, spacing_steps
from fastcheck.types import Floats

__all__ = ["REPEATS", "TYPICAL_EVALUATIONS", "Averaged", "averaged"]


REPEATS = 9
STEP_SPREAD = 0.3  # steps of one average lie between this much less than h, and h
MOST_SHARES = 8  # h, h/2, h/4 and so on: a narrower step meets fewer kinks
CHANGE_SLACK = 2.0  # truncation of one average, in changes to that of half the step
TYPICAL_EVALUATIONS = 8 * REPEATS  # of a component


@dataclass(frozen=True)
class Averaged:
    """Derivatives of some components with their error bars; arrays of shape (n,).

    Attributes
    ----------
    derivative, bar : ndarray, float64
        NaN and infinity where nothing is known.
    """

    derivative: Floats
    bar: Floats

    def holds(self, given: Floats, tolerance: Floats) -> NDArray[np.bool_]:
        """Return where a gradient lies within the error bar."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(given - self.derivative) <= self.bar + tolerance)


def averaged(box: BlackBox, work: Differences, sigma: float) -> Averaged:
    """Return averages of central differences at steps up to those of a first look.

    Parameters
    ----------
    box : BlackBox
    work : Differences
        The components and the steps of the first look.
    sigma : float
        σ_J.
    """
    size = work.indices.size
    found = Averaged(np.full(size, np.nan), np.full(size, np.inf))
    means: list[Floats] = []
    noises: list[Floats] = []
    which = np.arange(size)
    for k in range(MOST_SHARES):
        means.append(np.full(size, np.nan))
        noises.append(np.full(size, np.inf))
        part = Differences(box, work.indices[which], 0.5**k * work.steps[which])
        means[k][which], noises[k][which] = _window(part, sigma)
        _take_narrowest(found, means, noises)
        which = which[NOISE_FACTOR * noises[k][which] < found.bar[which]]
        if which.size == 0:
            break
    return found


def _take_narrowest(found: Averaged, means: list[Floats], noises: list[Floats]) -> None:
    """Take the average with the least error bar, of those that the narrower ones confirm."""
    found.bar[:] = np.inf
    for k in range(len(means) - 1):
        with np.errstate(invalid="ignore"):
            change = np.abs(means[k] - means[k + 1])
            bar = NOISE_FACTOR * noises[k] + CHANGE_SLACK * change
            for mean, noise in zip(means[k + 1 :], noises[k + 1 :], strict=True):
                # What a narrower step contradicts has met a kink.
                bar[np.abs(means[k] - mean) > bar + NOISE_FACTOR * noise] = np.inf
            better = bar < found.bar
        found.derivative[better], found.bar[better] = means[k][better], bar[better]


def _window(work: Differences, sigma: float) -> tuple[Floats, Floats]:
    """Return the average of the differences at some steps up to h, and its σ."""
    slopes, variances = [], []
    for factor in np.linspace(1.0 - STEP_SPREAD, 1.0, REPEATS):
        steps = spacing_steps(work.box.theta[work.indices], factor * work.steps)
        part = Differences(work.box, work.indices, steps)
        level = part.gathered([part.differences(chunk) for chunk in part.chunks])
        slopes.append(level.slopes())
        variances.append(level.noise(sigma) ** 2)
    return np.mean(slopes, axis=0), np.sqrt(np.mean(variances, axis=0) / REPEATS)
