"""What gives two values for the same θ can't be checked: it is called twice, and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastcheck.errors import InputError

__all__ = ["same_twice"]

T = TypeVar("T")


def same_twice(call: Callable[[], T], what: str, same: Callable[[T, T], bool]) -> T:
    """Return what a callable gives; it is called twice.

    Raises
    ------
    InputError
        Where `same(first, second)` is false.
    """
    first = call()
    if not same(first, call()):
        raise InputError(
            f"{what} gives two values for the same θ",
            "the same value for the same θ: dropout and other random numbers make J another "
            "function at each call",
            "Check with keep_prob=1 (or .eval()), or fix the masks and pass them as dropout_masks.",
        )
    return first
