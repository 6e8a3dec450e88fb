"""How many standard deviations of rounding and noise are forgiven, and why so many.

The numbers are those at which `bench/calibrate_rounding.py` accuses no right gradient.
"""

from __future__ import annotations

__all__ = [
    "BLOCK_CEILING",
    "BLOCK_FACTOR",
    "NOISE_FACTOR",
    "ROUNDING_FACTOR",
    "block_rounding",
]

# Of the 670,000 components of a right float32 backward pass none is off by more than 16σ.
ROUNDING_FACTOR = 30.0
# A whole block is off by far less, as its errors are many, but never beyond the second number: an
# error of ten times the rounding is none.
BLOCK_FACTOR, BLOCK_CEILING = 6.0, 8.0
# What makes the errors of a block larger than σ says makes those of other blocks larger too: in a
# right gradient no block of many errors that is beyond `LEAST_FACTOR` is `ALIKE` times as far off
# as all others. As many as a hundred of equal size have ‖σ‖ = 10 max σ.
LEAST_FACTOR, ALIKE, MANY = 3.5, 2.5, 10.0
NOISE_FACTOR = 8.0


def block_rounding(norm: float, peak: float, elsewhere: float | None = None) -> float:
    """Return the ‖error‖ up to which rounding explains a block.

    The peak counts, so that blocks of few components, or with one that is much coarser than the
    rest, are not accused.

    Parameters
    ----------
    norm, peak : float
        ‖σ‖ and max σ of the block.
    elsewhere : float, optional
        The greatest ‖error‖/‖σ‖ of the gradient's other blocks, where all σ come of one model.
    """
    factor = BLOCK_FACTOR
    if elsewhere is not None and norm > MANY * peak:
        factor = min(factor, max(LEAST_FACTOR, ALIKE * elsewhere))
    return max(factor * norm, min(ROUNDING_FACTOR * peak, BLOCK_CEILING * norm))
