"""‖·‖₂ at any scale that floats have, and the relative difference of two vectors."""

from __future__ import annotations

import math

import numpy as np

from fastcheck.types import Floats

__all__ = ["SAFE_SUM_RANGE", "ignore_overflow", "norm", "ratio", "relative_difference"]

# Sums of squares between these have neither lost small terms nor overflowed.
SAFE_SUM_RANGE = (1e-250, 1e250)


def ignore_overflow() -> np.errstate:
    """Let overflow pass without a warning: it is seen and dealt with."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def norm(values: Floats) -> float:
    """Return ‖values‖₂ without overflow or underflow."""
    squares = float(np.dot(values, values))
    if SAFE_SUM_RANGE[0] < squares < SAFE_SUM_RANGE[1]:
        return math.sqrt(squares)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = values / largest
    return largest * math.sqrt(float(np.dot(scaled, scaled)))


def relative_difference(a: Floats, b: Floats) -> float:
    """Return ‖a − b‖ / (‖a‖ + ‖b‖), 0 when both are zero; at any scale that floats have.

    Parameters
    ----------
    a, b : ndarray, the same shape, float64
    """
    a, b = np.ravel(a), np.ravel(b)
    with ignore_overflow():
        return ratio(norm(a - b), norm(a), norm(b))


def ratio(error: float, first: float, second: float) -> float:
    """Return error / (first + second): 0 for no error, at most 1, also beside nothing."""
    if error == 0.0:
        return 0.0
    if not math.isfinite(error) or first == second == 0.0:
        return 1.0
    return min(1.0, 0.5 * error / (0.5 * first + 0.5 * second))
