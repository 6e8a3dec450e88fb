"""How many standard deviations of rounding and noise are forgiven, and why so many.

The numbers are those at which `bench/calibrate_rounding.py` accuses no right gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "BLOCK_CEILING",
    "BLOCK_FACTOR",
    "MIN_BLOCK_FACTOR",
    "NOISE_FACTOR",
    "ROUNDING_FACTOR",
    "BlockErrors",
    "block_rounding",
    "worst_of",
]

NOISE_FACTOR = 8.0
# Of the 670,000 components of a right float32 backward pass none is off by more than 16σ.
ROUNDING_FACTOR = 30.0
# A whole block is off by far less, as its errors are many, but never beyond the second number: an
# error of ten times the rounding is none.
BLOCK_FACTOR, BLOCK_CEILING = 6.0, 8.0
# A hundred errors of equal size have ‖σ‖ = 10 max σ.
MANY_ERRORS_RATIO = 10.0
# What makes a block's errors larger than σ says makes those of other blocks larger too. In a right
# gradient no block of many errors that is beyond 3.5‖σ‖ is 2.5 times as far off as all others.
MIN_BLOCK_FACTOR, OTHER_BLOCKS_FACTOR = 3.5, 2.5


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


def worst_of(blocks: Iterable[BlockErrors]) -> float | None:
    """Return the greatest ‖error‖/‖σ‖; None where no block stands for many errors."""
    known = [block for block in blocks if block.norm > 0.0]
    if not any(block.many for block in known):
        return None
    return max(block.error / block.norm for block in known)


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
        `worst_of` the gradient's other blocks, where all σ come of one model.
    loop_factor : float
        By how much a sum over samples in a plain loop is worse than σ has it: it is so for the
        weights alone.
    """
    factor = BLOCK_FACTOR
    if elsewhere is not None and block.many:
        factor = min(factor, max(MIN_BLOCK_FACTOR * loop_factor, OTHER_BLOCKS_FACTOR * elsewhere))
    peak = min(ROUNDING_FACTOR * block.peak, BLOCK_CEILING * block.norm)
    return max(factor * block.norm, peak)
