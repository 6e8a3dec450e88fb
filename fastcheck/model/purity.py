"""Whether J depends on θ alone: a function that changes what it is made of is named."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.validation import unit_roundoff

__all__ = ["Watch", "require_same"]

MOST_BYTES = 10**9  # of data that is watched
# Two values of J for one θ that lie this close together differ by rounding: by the order of sums in
# threads, or a GPU's atomic additions.
ROUNDING_LIKE = 1e-6
ROUNDINGS = 64.0


class Watch:
    """The arrays that functions hold, and whether they change."""

    def __init__(self, *functions: Any) -> None:
        self.arrays: dict[str, Any] = {}
        size = 0
        for function in functions:
            for name, array in _held(function, 2):
                size += array.nbytes
                if size <= MOST_BYTES:
                    self.arrays.setdefault(name, array)
        self.digests = self._digests()

    def _digests(self) -> dict[str, int]:
        return {name: _digest(array) for name, array in self.arrays.items()}

    def changed(self) -> list[str]:
        """Return the names of the arrays that have changed since the last call."""
        before, self.digests = self.digests, self._digests()
        return [name for name, digest in self.digests.items() if digest != before[name]]


def _digest(array: Any) -> int:
    return zlib.adler32(np.ascontiguousarray(array).view(np.uint8).data)


def _held(
    function: Any, depth: int, prefix: str = ""
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield the NumPy arrays that a function or object refers to, with their names."""
    for name, value in _references(function):
        shown = f"{prefix}{name}"
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiubc":
            yield shown, value
        elif isinstance(value, (list, tuple)):
            yield from ((f"{shown}[{i}]", v) for i, v in enumerate(value) if _is_data(v))
        elif isinstance(value, Mapping):
            yield from ((f"{shown}[{k!r}]", v) for k, v in value.items() if _is_data(v))
        elif depth > 0 and (callable(value) or type(value).__module__ == "__main__"):
            yield from _held(value, depth - 1, f"{shown}.")


def _is_data(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiubc"


def _references(function: Any) -> list[tuple[str, Any]]:
    """Return what a function, partial, method or object refers to, by name."""
    found: list[tuple[str, Any]] = []
    code = getattr(function, "__code__", None)
    if code is not None:
        cells = getattr(function, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars, cells, strict=True):
            try:
                found.append((name, cell.cell_contents))
            except ValueError:  # not bound yet
                continue
        scope = getattr(function, "__globals__", {})
        found += [(name, scope[name]) for name in code.co_names if name in scope]
        found += [("a default", value) for value in getattr(function, "__defaults__", None) or ()]
    for name in ("__self__", "__wrapped__", "func", "args", "keywords"):
        value = getattr(function, name, None)
        if value is not None and not isinstance(value, type(np)):
            found.append((name.strip("_"), value))
    if code is None and isinstance(getattr(function, "__dict__", None), dict):
        found += list(vars(function).items())
    return found


def require_same(first: float, second: float, precision: str, what: str, watch: Watch) -> float:
    """Return how far two values of J for one θ are apart, where rounding can do that.

    Raises
    ------
    InputError
        Where they differ by more.
    """
    apart = abs(first - second)
    allowed = max(ROUNDING_LIKE, ROUNDINGS * unit_roundoff(precision))
    if not apart > allowed * max(abs(first), abs(second)):
        return apart
    names = watch.changed()
    written = f" It writes into {', '.join(names[:3])}." if names else ""
    raise InputError(
        f"{what}: {first:.10g} and {second:.10g}.{written}".rstrip("."),
        "the same value for the same θ: dropout, data drawn anew, running statistics or data that "
        "is written to make J another function at each call",
        "Check with keep_prob=1 (or .eval()), fix the masks, or give reseed=, a callable that "
        "brings back the same random numbers before each evaluation.",
    )


def written_data(watch: Watch, who: str) -> tuple[str, ...]:
    """Return a note on the data that a function has written to."""
    names = watch.changed()
    if not names:
        return ()
    return (f"{who} writes into {', '.join(names[:3])}, which J may depend on.",)


def call_changes(function: Callable[[], Any], watch: Watch) -> tuple[Any, list[str]]:
    """Call a function, and return what it returned and the arrays that it wrote to."""
    watch.changed()
    return function(), watch.changed()
