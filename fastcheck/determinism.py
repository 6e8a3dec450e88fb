"""What gives two values for the same θ can't be checked: it is called twice, and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastcheck.errors import InputError

__all__ = ["require_deterministic", "unmoved"]

T = TypeVar("T")


def require_deterministic(call: Callable[[], T], what: str, same: Callable[[T, T], bool]) -> T:
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


def unmoved(before: T, again: Callable[[], T], what: str, by: str) -> T:
    """Return `again()`, a value of the user's J after some other call, where it is still `before`.

    Parameters
    ----------
    before : number
        J at θ, before the call.
    again : callable
        Evaluates J at the same θ.
    what, by : str
        What messages call J, and the call that came between.

    Raises
    ------
    InputError
        Where the two differ: J depends on something besides θ, which that call changes.
    """
    after = again()
    if after != before:
        raise InputError(
            f"{what} is {before!r} at θ, and {after!r} at the same θ once {by} was called",
            "a J that depends on θ alone",
            f"{by} changes something else that {what} depends on: running statistics (batch "
            "normalisation), a counter, a cache, or the data. Freeze it for the check: .eval().",
        )
    return after
