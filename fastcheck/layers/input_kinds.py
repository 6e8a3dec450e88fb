"""Inputs of kinds that show other errors than Gaussian ones, drawn from the user's own.

Shapes, dtypes and integers stay. What an array plainly is (a mask, a symmetric matrix, shares that
add up to one, sorted positions) it stays too: a layer need not be right for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.layer import Values, like, widened

__all__ = ["KINDS", "inputs_of_kind", "jittered"]

Array = NDArray[Any]

LARGE, TINY = 30.0, 1e-4  # times what the user gave
SATURATED = (20.0, 40.0)  # where exp, tanh and softmax have no slope left
SPARSE_SHARE = 0.2  # of the entries that are not zero
LEAST_SORTED = 4  # entries in ascending order that are no coincidence
SAME = 1e-6  # relative, of sums and norms
JITTER = 1e-3  # relative to the rms


def _rms(values: Array) -> float:
    return float(np.linalg.norm(values.ravel()) / np.sqrt(max(values.size, 1)))


def _sparse(values: Array, random: np.random.Generator) -> Array:
    return np.where(random.random(values.shape) < SPARSE_SHARE, values, 0.0)


def _one_hot(values: Array, random: np.random.Generator) -> Array:
    made = np.zeros_like(values)
    hot = random.integers(values.shape[-1], size=(*values.shape[:-1], 1))
    np.put_along_axis(made, hot, _rms(values) * values.shape[-1] ** 0.5, axis=-1)
    return made


def _saturating(values: Array, random: np.random.Generator) -> Array:
    size = np.abs(values)
    signs = np.divide(values, size, out=np.ones_like(values), where=size > 0.0)
    return np.asarray(signs * random.uniform(*SATURATED, size=values.shape))


KINDS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "large": lambda values, _: LARGE * values,
    "tiny": lambda values, _: TINY * values,
    "equal": lambda values, _: np.full_like(values, _rms(values)),
    "sparse": _sparse,
    "sorted": lambda values, _: np.sort(values, axis=-1),
    "one-hot": _one_hot,
    "saturating": _saturating,
}
SCALED, WITH_ZEROS = ("large", "tiny"), ("sparse", "one-hot")
BEYOND_ONE = ("large", "saturating")


def _is_ordered(values: Array) -> bool:
    """Return whether an array is a symmetric matrix, or sorted: only its scale may change."""
    square = values.ndim > 1 and values.shape[-1] == values.shape[-2]
    if square and np.array_equal(values, np.swapaxes(values, -1, -2).conj()):
        return True
    real = values.dtype.kind == "f" and values.shape[-1] >= LEAST_SORTED
    return real and bool(np.all(np.diff(values, axis=-1) > 0.0))


def _is_unit(values: Array) -> bool:
    """Return whether an array is a mask, or its last axis has sums or norms of one."""
    if np.isin(values, (0.0, 1.0)).all():
        return True
    sums = values.sum(axis=-1), np.linalg.norm(values, axis=-1)
    return any(bool(np.all(np.abs(found - 1.0) <= SAME)) for found in sums)


def _takes(kind: str, values: Array) -> bool:
    """Return whether an array stays what it is in a kind, as far as its values tell."""
    if values.size == 0 or not np.any(values):
        return False
    if values.ndim == 0:
        return kind in SCALED
    if _is_unit(values) or (kind not in SCALED and _is_ordered(values)):
        return False
    if values.dtype.kind == "c":
        return True
    within = values.min() >= 0.0 and values.max() <= 1.0
    return not (kind in WITH_ZEROS and values.min() > 0.0) and not (kind in BEYOND_ONE and within)


def inputs_of_kind(
    kind: str, inputs: Values, names: tuple[str, ...], random: np.random.Generator
) -> Values | None:
    """Return inputs of a kind; None where no input can be of it.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    inputs : dict of str to Any
    names : tuple of str
        The inputs that have a gradient; the others stay.
    random : Generator
    """
    made = {}
    for name in names:
        wide = widened(inputs[name])
        if _takes(kind, wide):
            with np.errstate(all="ignore"):
                made[name] = like(inputs[name], KINDS[kind](wide, random))
    return {**inputs, **made} if made else None


def jittered(inputs: Values, names: tuple[str, ...], random: np.random.Generator) -> Values:
    """Return inputs beside others: without ties and exact zeros, where few layers have a slope."""
    made = {}
    for name in names:
        values = widened(inputs[name])
        noise = random.uniform(0.5, 1.5, size=values.shape)
        made[name] = like(inputs[name], np.asarray(values + JITTER * _rms(values) * noise))
    return {**inputs, **made}
