"""Arrays by name in any nesting, read piece by piece as float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.types import Floats
from fastcheck.validation import precision_of, unit_roundoff

__all__ = ["LazyArray", "arrays_by_name", "held_precision", "widened_bfloat16"]

MIN_VALUES = 8  # from which on values that fit a lower precision are no coincidence
SAMPLE_SIZE = 2**16


@dataclass(frozen=True)
class LazyArray:
    """An array that is read in pieces.

    Attributes
    ----------
    shape : tuple of int
    precision : str
        Of its dtype.
    piece : callable
        `piece(start, stop)` returns some of its components, flattened, as float64.
    """

    shape: tuple[int, ...]
    precision: str
    piece: Callable[[int, int], Floats]

    @property
    def size(self) -> int:
        """Number of components."""
        return math.prod(self.shape)

    def whole(self) -> Floats:
        """Return all of it."""
        return self.piece(0, self.size).reshape(self.shape)

    def transposed(self) -> LazyArray:
        """Return its transpose, which is held in memory."""
        turned = np.ascontiguousarray(self.whole().T)
        return LazyArray(turned.shape, self.precision, lambda a, b: turned.ravel()[a:b])


def widened_bfloat16(bits: Any) -> Floats:
    """Return bfloat16 numbers, given as uint16, as float64."""
    wide = np.asarray(bits, np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32).astype(np.float64)


def lazy(values: Any, name: str) -> LazyArray:
    """Return an array, a tensor or a number as one that is read in pieces.

    Raises
    ------
    InputError
        For what holds no real numbers.
    """
    if isinstance(values, LazyArray):
        return values
    if hasattr(values, "detach"):
        return _lazy_tensor(values, name)
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InputError(f"{name} has dtype {array.dtype}", "an array of real numbers")
    flat = array.reshape(-1)
    precision = precision_of(array.dtype) if array.dtype.name != "bfloat16" else "bfloat16"
    return LazyArray(array.shape, precision, lambda a, b: flat[a:b].astype(np.float64))


def _lazy_tensor(tensor: Any, name: str) -> LazyArray:
    precision = str(tensor.dtype).removeprefix("torch.")
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {precision}", "a tensor of floating-point numbers")
    flat = tensor.detach().reshape(-1)
    return LazyArray(
        tuple(tensor.shape), precision, lambda a, b: flat[a:b].cpu().double().numpy().copy()
    )


def arrays_by_name(container: Any) -> dict[str, LazyArray]:
    """Return the arrays of any nesting of mappings and sequences, named by their paths.

    Parameters
    ----------
    container : mapping, sequence or array
        `{"layers": [{"w": …}]}` gives `layers.0.w`; None is no array.
    """
    found = {name: lazy(leaf, name) for name, leaf in _leaves(container, "")}
    if not found:
        raise InputError("a container without arrays", "gradients by name")
    return found


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if node is None:
        return
    if isinstance(node, Mapping):
        parts = [(str(key), part) for key, part in node.items()]
    elif isinstance(node, (list, tuple)):
        parts = [(str(k), part) for k, part in enumerate(node)]
    else:
        yield path or "θ", node
        return
    for key, part in parts:
        yield from _leaves(part, f"{path}.{key}" if path else key)


def held_precision(array: LazyArray) -> str:
    """Return the lowest precision that holds an array's values, at most that of its dtype."""
    values = array.piece(0, min(array.size, SAMPLE_SIZE))
    values = values[np.isfinite(values) & (values != 0.0)]
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
        half = single.astype(np.float16).astype(np.float64) == values
    exact = single.astype(np.float64) == values
    fits = {
        "bfloat16": exact & ((single.view(np.uint32) & 0xFFFF) == 0),
        "float16": half & exact,
        "float32": exact,
    }
    if np.unique(values).size < MIN_VALUES:
        return array.precision
    for precision, held in fits.items():
        if held.all() and unit_roundoff(precision) > unit_roundoff(array.precision):
            return precision
    return array.precision
