"""The step of a central difference, from the noise of f and its measured third derivative.

After Shi, Xie, Xuan & Nocedal, "Adaptive finite-difference interval estimation for noisy
derivative-free optimization", SISC 44 (2022): the step is right where a third difference stands out
of the noise by a few times, which needs no third derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcheck.types import Floats

T = TypeVar("T", float, NDArray[np.float64])

__all__ = ["Step", "difference_noise", "find_step"]


# The third difference over its noise, between which the step is near the best one.
TOO_NARROW, TOO_WIDE = 1.5, 6.0
FACTOR = 5.0  # by which a step is changed until it lies between two known ones
MOST_TRIALS = 12
# A derivative known as well as this gains nothing from a wider step.
ENOUGH = 1e-9
NOISE_FACTOR = 8.0
WIDEST = 1.0  # relative to the size of θ
NARROWEST = 1e-12
UNIT_ROUNDOFF = 2.0**-53
THIRD_POINTS = (3.0, 1.0, -1.0, -3.0)


@dataclass(frozen=True)
class Step:
    """A step, and what a central difference with it is off by.

    Attributes
    ----------
    size : float
        h.
    truncation : float
        |D(h) − derivative|, from the third difference.
    """

    size: float
    truncation: float


def difference_noise(noise: T, step: T) -> T:
    """Return σ_D of a central difference, from σ_J and h: floats, or arrays."""
    return noise / (math.sqrt(2.0) * step)


def find_step(
    values: Callable[[tuple[float, ...]], Floats], noise: float, scale: float, start: float
) -> Step:
    """Return the step at which truncation and noise of a central difference are about equal.

    Parameters
    ----------
    values : callable
        `values(shifts)`: f along a direction at some distances from θ; NaN where it is not defined.
    noise : float
        σ_J.
    scale : float
        The size of θ in that direction; the step is no larger.
    start : float
        A first guess.
    """
    low, high = 0.0, math.inf
    step = min(max(start, NARROWEST * scale), WIDEST * scale)
    best = Step(step, math.inf)
    for _ in range(MOST_TRIALS):
        found = values(tuple(step * point for point in THIRD_POINTS))
        third = abs(found[0] - 3.0 * found[1] + 3.0 * found[2] - found[3])
        slope = abs(found[1] - found[2]) / (2.0 * step)
        spread = max(noise, UNIT_ROUNDOFF * float(np.abs(found).max()))
        ratio = third / (8.0 * spread) if spread > 0.0 else 0.0
        if math.isfinite(third):
            best = Step(step, third / (48.0 * step))
        wide = not ratio <= TOO_WIDE  # NaN: outside of f's domain
        narrow = ratio < TOO_NARROW and step < WIDEST * scale
        known = NOISE_FACTOR * difference_noise(spread, step) <= ENOUGH * slope
        if not wide and (not narrow or known):
            break
        low, high = (low, step) if wide else (step, high)
        step = _between(low, high, step, wide=wide)
        if not NARROWEST * scale <= step <= WIDEST * scale or high / max(low, 1e-300) < 1.5:
            step = min(max(step, NARROWEST * scale), WIDEST * scale)
            if step in (low, high):
                break
    return best


def _between(low: float, high: float, step: float, *, wide: bool) -> float:
    """Return the next step to try."""
    if low > 0.0 and high < math.inf:
        return math.sqrt(low * high)
    return step / FACTOR if wide else step * FACTOR
