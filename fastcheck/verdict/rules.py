"""The one rule of what agrees: the tolerance, and what rounding, noise and truncation allow.

The numbers of standard deviations are those at which `bench/calibrate_rounding.py` accuses no
right gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcheck.norms import ignore_overflow
from fastcheck.types import Floats

__all__ = [
    "AGREE",
    "BLOCK_CEILING",
    "BLOCK_FACTOR",
    "CANNOT_TELL",
    "KINK",
    "MIN_BLOCK_FACTOR",
    "NOISE_FACTOR",
    "ROUNDING_FACTOR",
    "SINGLE_FACTOR",
    "STATUSES",
    "WRONG",
    "BlockErrors",
    "Blur",
    "Rules",
    "Ruling",
    "block_rounding",
    "worst_elsewhere",
]

STATUSES = ("agree", "kink", "cannot tell", "wrong")  # from good to bad
AGREE, KINK, CANNOT_TELL, WRONG = range(4)

NOISE_FACTOR = 8.0
# Of the 670,000 components of a right float32 backward pass none is off by more than 16σ.
ROUNDING_FACTOR = 30.0
# A whole block is off by far less, as its errors are many, but never beyond the second number: an
# error of ten times the rounding is none.
BLOCK_FACTOR, BLOCK_CEILING = 6.0, 8.0
# The only component of a block is not the worst of many.
SINGLE_FACTOR = 10.0
# A hundred errors of equal size have ‖σ‖ = 10 max σ.
MANY_ERRORS_RATIO = 10.0
# What makes a block's errors larger than σ says makes those of other blocks larger too. In a right
# gradient no block of many errors that is beyond 3.5‖σ‖ is 2.5 times as far off as all others.
MIN_BLOCK_FACTOR, OTHER_BLOCKS_FACTOR = 3.5, 2.5


class Blur(NamedTuple):
    """What stands between a gradient and the derivative: floats, or arrays of a component each.

    Attributes
    ----------
    sigma : float or ndarray
        σ of the gradient's own rounding; infinite or NaN where its model has overflowed.
    noise : float or ndarray
        Standard deviation of the difference's own error.
    uncertainty : float or ndarray
        τ: what is left uncertain of the truncation.
    allowance : float or ndarray
        What is allowed beside all this; see `Approximation.allowance`.
    """

    sigma: float | Floats
    noise: float | Floats = 0.0
    uncertainty: float | Floats = 0.0
    allowance: float | Floats = 0.0

    @property
    def of_the_difference(self) -> bool:
        """Whether the difference itself can hide something."""
        return bool(np.any(self.noise) or np.any(self.uncertainty))


class Ruling(NamedTuple):
    """The rule applied: arrays of a component each.

    Attributes
    ----------
    error : ndarray
        |g − g*|.
    allowed, limit : ndarray
        Up to which it agrees, and from which on it is wrong.
    severity : ndarray, uint8
        An index of `STATUSES`; kinks come later.
    """

    error: Floats
    allowed: Floats
    limit: Floats
    severity: NDArray[np.uint8]


class Rules(NamedTuple):
    """The one rule of what agrees; g* is the central difference with its truncation taken out.

    What is asked for is |g − g*| ≤ tol·(|g| + |g*|) + rounding·σ. What that exceeds by τ is
    allowed, and it is wrong only beyond `noise` times the difference's own error on top. Where
    τ or that error is larger than what is asked for, nobody can tell.
    """

    tol: float
    rounding: float
    noise: float

    def asked(self, gradient: Floats, target: Floats, sigma: float | Floats) -> Floats:
        """Return tol·(|g| + |g*|) + K·σ; tol first, so that the sum can't overflow."""
        asked = self.tol * np.abs(gradient) + self.tol * np.abs(target)
        return np.asarray(asked + self.rounding * np.asarray(sigma))

    def severity(
        self, error: Any, asked: Any, noise: Any, uncertainty: Any, blind: Any = 0.0
    ) -> NDArray[np.uint8]:
        """Return `AGREE`, `CANNOT_TELL` or `WRONG`; of components, or of norms.

        `blind` is infinite where nothing is known of σ: there nothing is wrong.
        """
        allowed = asked + uncertainty
        hidden = np.maximum(noise, uncertainty) > asked
        found = np.where((error > allowed) | hidden, CANNOT_TELL, AGREE)
        found = np.where(error > allowed + self.noise * noise + blind, WRONG, found)
        return np.asarray(found, dtype=np.uint8)

    def apply(self, gradient: Floats, target: Floats, blur: Blur) -> Ruling:
        """Hold components to the rule."""
        with ignore_overflow():
            error = np.abs(gradient - target)
            sigma = np.asarray(blur.sigma)
            known = np.isfinite(sigma)
            blind = np.where(known, 0.0, np.inf)
            asked = self.asked(gradient, target, np.where(known, sigma, 0.0)) + blur.allowance
            severity = self.severity(error, asked, blur.noise, blur.uncertainty, blind)
            allowed = asked + blur.uncertainty
            return Ruling(error, allowed, allowed + self.noise * blur.noise + blind, severity)


@dataclass(frozen=True)
class BlockErrors:
    """What a block is off by, and what rounding is expected to do.

    Attributes
    ----------
    error : float
        ‖g − g_approx‖.
    norm, peak : float
        ‖σ‖ and max σ.
    """

    error: float
    norm: float
    peak: float

    @property
    def many(self) -> bool:
        """Whether σ stands for many errors."""
        return self.norm > MANY_ERRORS_RATIO * self.peak


def worst_elsewhere(blocks: Sequence[BlockErrors]) -> list[float | None]:
    """Return, for each block, the greatest ‖error‖/‖σ‖ of the others.

    It is None where none of the others stands for many errors.
    """
    shares = [block.error / block.norm if block.norm > 0.0 else 0.0 for block in blocks]
    first, second = sorted([*shares, 0.0, 0.0], reverse=True)[:2]
    many = sum(block.many for block in blocks)
    return [
        None if many == block.many else second if share == first else first
        for block, share in zip(blocks, shares, strict=True)
    ]


def block_rounding(
    block: BlockErrors, elsewhere: float | None = None, loop_factor: float = 1.0
) -> float:
    """Return the ‖error‖ up to which rounding explains a block.

    The peak counts, so that blocks of few components, or with one that is much coarser than the
    rest, are not accused.

    Parameters
    ----------
    block : BlockErrors
    elsewhere : float, optional
        `worst_elsewhere` in the gradient, where all σ come of one model.
    loop_factor : float
        By how much a sum over samples in a plain loop is worse than σ has it: it is so for the
        weights alone.
    """
    factor = BLOCK_FACTOR
    if elsewhere is not None and block.many:
        factor = min(factor, max(MIN_BLOCK_FACTOR * loop_factor, OTHER_BLOCKS_FACTOR * elsewhere))
    peak = min(ROUNDING_FACTOR * block.peak, BLOCK_CEILING * block.norm)
    return max(factor * block.norm, peak)
