"""The door: what comes in is finite numbers of a known precision, or is refused with the place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastcheck.errors import InputError, near_names

__all__ = ["finite_array", "lower_precision", "one_of", "positive_number", "unit_roundoff"]

# Unit roundoff of each precision a gradient can have (IEEE 754-2019; bfloat16 has 8 bits).
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def unit_roundoff(precision: str) -> float:
    """Return the largest relative error of one rounding in a precision."""
    return UNIT_ROUNDOFF[precision]


def precision_of(dtype: DTypeLike) -> str:
    """Return the precision that values of a dtype carry; integers and booleans are exact."""
    name = np.dtype(dtype).name
    return name if name in UNIT_ROUNDOFF else "float64"


def lower_precision(*precisions: str) -> str:
    """Return the coarsest of some precisions."""
    return max(precisions, key=unit_roundoff)


def finite_array(values: ArrayLike, name: str) -> tuple[NDArray[np.float64], str]:
    """Return an array of finite float64 and the precision that it came in.

    Parameters
    ----------
    values : array_like
        Real numbers of any width; float32, float16 and bfloat16 are converted without loss.
    name : str
        How messages call it.

    Raises
    ------
    InputError
        If it is no array of real numbers, or holds NaN or infinity (the message says where).
    """
    array = _numeric(values, name)
    converted = np.asarray(array, dtype=np.float64)
    if not np.isfinite(converted).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(converted))[0])
        count = int((~np.isfinite(converted)).sum())
        shown = f"{name}{list(place)}" if place else name
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise InputError(
            f"{shown} is {converted[place]}{more}",
            "finite numbers",
            "Find where it arises (an overflow, a log of 0, a division by 0) before the check.",
        )
    return converted, precision_of(array.dtype)


def _numeric(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return an array of real numbers, or say what it is instead."""
    _refuse_masked(values, name)
    array = _as_array(values, name)
    if np.iscomplexobj(array):
        raise InputError(
            f"{name} is complex", "real numbers", "Take its real part if that is meant."
        )
    known = array.dtype.kind in "fiub" or array.dtype.name == "bfloat16"
    if not known:
        sparse = hasattr(values, "toarray")
        raise InputError(
            f"{name} is sparse" if sparse else f"{name} has dtype {array.dtype}",
            "numbers (float64, float32, float16 or integers)",
            "Use its .toarray()." if sparse else "",
        )
    return array


def _as_array(values: Any, name: str) -> NDArray[Any]:
    """Return what NumPy makes of anything; a torch tensor may require a gradient or be bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        try:
            return np.asarray(values)
        except TypeError:  # a torch bfloat16 tensor has no NumPy counterpart
            return np.asarray(values.float())
    except ValueError as error:
        raise InputError(
            f"{name} is ragged ({error})", "an array of numbers", "Give rows of equal length."
        ) from None
    except Exception as error:  # whatever the object's own conversion raises
        kind = type(values).__name__
        raise InputError(
            f"{name} of type {kind} is no array ({error})", "an array of numbers"
        ) from None


def _refuse_masked(values: Any, name: str) -> None:
    """Refuse masked entries, alone or in a list of arrays: NumPy drops the mask in silence."""
    parts = values if isinstance(values, (list, tuple)) else [values]
    for part in parts:
        if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
            count = int(np.ma.getmaskarray(part).sum())
            raise InputError(
                f"{name} is masked in {count} place{'s' * (count > 1)}",
                "numbers everywhere: what is under a mask would be computed with",
                "Leave the samples out, or put numbers there: .filled(0).",
            )


def positive_number(value: Any, name: str, *, zero: bool = False, below: float = math.inf) -> float:
    """Return a positive (or, with `zero`, non-negative) finite number below a bound."""
    if isinstance(value, (str, bytes, bool, np.bool_)) or np.ndim(value):
        raise InputError(f"{name}={value!r}", "a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}={value!r}", "a number") from None
    least = "0 or more" if zero else "a number above 0"
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise InputError(f"{name}={value!r}", least)
    if number >= below:
        raise InputError(f"{name}={value!r}", f"{least} and below {below:g}")
    return number


def one_of(value: str, known: Sequence[str], name: str) -> str:
    """Return a value that is one of the known ones."""
    if value not in known:
        raise InputError(
            f"{name}={value!r}", f"one of {', '.join(known)}", near_names(str(value), known)
        )
    return value
