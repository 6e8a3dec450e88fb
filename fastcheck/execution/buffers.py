"""Large arrays that are used again: the system fills new memory with zeros each time, which costs.

An array belongs to one thread while it is borrowed. Between checks at most `MAX_FREE_BYTES` are
kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["MAX_FREE_BYTES", "borrow", "kept_bytes", "release"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

MAX_FREE_BYTES = 512 * 2**20

_free: list[Floats] = []
_lock = threading.Lock()


@contextmanager
def borrow(*shape: int) -> Iterator[Floats]:
    """Lend an array of this shape, float64, with anything in it."""
    size = int(np.prod(shape))
    with _lock:
        fitting = [k for k, array in enumerate(_free) if array.size >= size]
        best = min(fitting, key=lambda k: _free[k].size, default=None)
        array = None if best is None else _free.pop(best)
    if array is None:
        array = np.empty(size)
    try:
        yield array[:size].reshape(shape)
    finally:
        with _lock:
            _free.append(array)


def release() -> None:
    """Give memory back, the largest arrays first, until no more than `MAX_FREE_BYTES` are kept."""
    with _lock:
        _free.sort(key=lambda array: array.size)
        while kept_bytes() > MAX_FREE_BYTES:
            _free.pop()


def kept_bytes() -> int:
    """Return how much memory is kept that nobody uses."""
    return sum(array.nbytes for array in _free)
