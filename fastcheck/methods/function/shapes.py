"""What is wrong with a block, by shape alone: which change of the gradient fits every direction.

Nothing is evaluated: the derivatives along the directions are known already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastcheck.methods.function.directions import DirectionalTest, Line
from fastcheck.types import Floats

__all__ = ["cause_of"]


LARGEST_BLOCK = 2 * 10**6  # changes are tried on blocks of up to so many components
FEWEST_DIRECTIONS = 3  # a single number always has a factor
NAMED_FACTORS = {-1.0: "its sign is wrong", 2.0: "it is doubled", 0.5: "it is halved"}
CLOSE = 1e-6


def cause_of(
    test: DirectionalTest, line: Callable[[int], Line], shape: tuple[int, ...], given: Floats
) -> str:
    """Return what is wrong with a block in a sentence, "" where no change explains it.

    Parameters
    ----------
    test : DirectionalTest
    line : callable
        `line(k)` makes the k-th direction.
    shape : tuple of int
        Of the block.
    given : ndarray, shape (n,), float64
        Its gradient.
    """
    if test.given.size < FEWEST_DIRECTIONS:
        return ""
    if not given.any():
        return "it is zero, and should not be"
    factor = _factor(test)
    if factor is not None:
        near = [text for value, text in NAMED_FACTORS.items() if abs(factor / value - 1.0) < CLOSE]
        return near[0] if near else f"every component is {factor:.6g} times what it should be"
    if given.size > LARGEST_BLOCK:
        return ""
    directions = np.stack([line(k).direction for k in range(test.given.size)])
    for text, changed in _changes(given.reshape(shape)):
        apart = np.abs(directions @ changed.ravel() - test.derivative)
        if np.all(apart <= test.bar + test.allowed + CLOSE * np.abs(test.derivative)):
            return text
    return ""


def _factor(test: DirectionalTest) -> float | None:
    """Return the one number that every direction is off by."""
    squares = float(np.dot(test.derivative, test.derivative))
    if squares == 0.0:
        return None
    factor = float(np.dot(test.given, test.derivative)) / squares
    apart = np.abs(test.given - factor * test.derivative)
    allowed = (1.0 + abs(factor)) * test.bar + test.allowed
    return factor if np.all(apart <= allowed) and abs(factor - 1.0) > CLOSE else None


def _changes(given: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield what the right gradient would be, if the given one were changed in some way."""
    if given.ndim == 2 and given.shape[0] == given.shape[1]:
        yield "it is transposed", given.T
    if given.ndim == 2:
        yield (
            "it is transposed and then read in the wrong shape",
            given.reshape(given.shape[::-1]).T,
        )
    for axis in range(given.ndim):
        yield f"it is flipped along axis {axis}", np.flip(given, axis)
        for shift in (1, -1):
            yield f"it is shifted by one along axis {axis}", np.roll(given, shift, axis)
    if given.ndim > 1:
        for axis in range(given.ndim - 1):
            both = (axis, axis + 1)
            yield f"it is flipped along axes {axis} and {axis + 1}", np.flip(given, both)
