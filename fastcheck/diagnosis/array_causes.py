"""What is wrong with an array, by shape alone: which change of the right one gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.types import Floats

__all__ = ["Pair", "causes_of"]

Booleans = NDArray[np.bool_]

MAX_SIZE = 2 * 10**6  # components of an array that changes are tried on
MIN_SHIFTED = 2  # an axis of so many entries is reversed where it is shifted
MIN_SIZE = 4  # fewer numbers have a factor, or are a permutation, by accident
# The tolerance beside the error: a cause that a coarser look could not exclude is no cause.
MAX_TOLERANCE_SHARE, MAX_NORM_SHARE = 0.05, 0.25
MUCH_BETTER = 3.0  # times, that the best of several changes fits than the next one
NAMED_FACTORS = {
    -1.0: "its sign is wrong",
    2.0: "it is doubled",
    0.5: "it is halved",
}
CLOSE_FACTOR = 1e-3
FACTOR_SIGMAS = 4.0
BIAS_SHARE = 0.5  # of the misfit, that a factor is known to no better
HIT_SHARE = 2.0  # times what rounding explains of an index of an axis
FULL_BOX = 0.8  # share of wrong components in a box that is wrong as a whole
MAX_BOX = 0.5  # share of an axis that is still a part of it


@dataclass(frozen=True)
class Pair:
    """A wrong block beside the right one.

    Attributes
    ----------
    given, right : ndarray, the same shape, float64
    allowed : ndarray of that shape, float64, or float
        What rounding and the method explain, absolute.
    norm : float or None
        What they explain of ‖given − right‖, where that is known: then changes are held to it.
    """

    given: Floats
    right: Floats
    allowed: Floats | float
    norm: float | None = None

    @property
    def wrong(self) -> Booleans:
        """Where they differ."""
        return np.asarray(np.abs(self.given - self.right) > self.allowed)

    def at(self, place: tuple[slice, ...]) -> Pair:
        """Return a part of both."""
        allowed = self.allowed
        part = allowed if np.ndim(allowed) == 0 else np.asarray(allowed)[place]
        share = float(np.sqrt(self.given[place].size / max(self.given.size, 1)))
        norm = None if self.norm is None else self.norm * share
        return Pair(self.given[place], self.right[place], part, norm)

    def misfit(self, candidate: Floats) -> float:
        """Return ‖given − candidate‖."""
        return float(np.linalg.norm(self.given - candidate))

    def is_given(self, candidate: Floats) -> bool:
        """Return whether a candidate is what was given, where it differs from the right one."""
        if candidate.shape != self.given.shape:
            return False
        if self.norm is not None:
            ratio = float(np.linalg.norm(candidate)) / max(
                float(np.linalg.norm(self.right)), 1e-300
            )
            allowed = self.norm * max(1.0, ratio)
            told = allowed <= MAX_NORM_SHARE * self.misfit(self.right)
            return told and self.misfit(candidate) <= allowed
        # A change moves components, with their tolerances: take the largest.
        largest = float(np.max(self.allowed, initial=0.0))
        error = float(np.linalg.norm(self.given - self.right))
        apart = np.abs(self.given - candidate)
        told = largest * np.sqrt(apart.size) <= MAX_TOLERANCE_SHARE * error
        return told and bool(np.all(apart <= 2.0 * largest))


def causes_of(pairs: Mapping[str, Pair]) -> dict[str, str]:
    """Return what is wrong with each block, in a sentence, where something explains it.

    Parameters
    ----------
    pairs : mapping of str to Pair
        The wrong blocks by name.
    """
    found = dict(_swapped(pairs))
    for name, pair in pairs.items():
        if name not in found:
            cause = _cause(pair)
            if cause:
                found[name] = cause
    return found


def _swapped(pairs: Mapping[str, Pair]) -> Iterator[tuple[str, str]]:
    """Yield pairs of blocks, each of which is the other one."""
    for name, pair in pairs.items():
        for other, second in pairs.items():
            if other == name or pair.given.size < MIN_SIZE:
                continue
            if pair.is_given(second.right) and second.is_given(pair.right):
                yield name, f"it is that of {other}: the two are swapped"
                break


def _cause(pair: Pair) -> str:
    if not np.any(pair.given) and np.any(pair.wrong):
        return "it is zero, and should not be"
    if pair.given.size < MIN_SIZE or pair.given.size > MAX_SIZE:
        return ""
    for attempt in (_factor, _step, _changed, _local):
        text = attempt(pair)
        if text:
            return text
    return ""


def _factor(pair: Pair) -> str:
    """Return the one number that all components are off by."""
    if _independent(pair) < MIN_SIZE - 1:
        return ""
    factor = float(np.vdot(pair.right, pair.given)) / float(np.vdot(pair.right, pair.right))
    if not pair.is_given(factor * pair.right):
        return ""
    misfit = pair.misfit(factor * pair.right) / float(np.linalg.norm(pair.right))
    # Rounding has a bias of its own, so that a factor is known no better than to a share of it.
    doubt = max(CLOSE_FACTOR, FACTOR_SIGMAS * misfit / np.sqrt(pair.right.size))
    doubt = max(doubt, BIAS_SHARE * misfit)
    near = [t for v, t in NAMED_FACTORS.items() if abs(factor - v) < doubt * max(1.0, abs(v))]
    digits = 3 if doubt > CLOSE_FACTOR else 4
    return near[0] if near else f"every component is {factor:.{digits}g} times what it should be"


def _independent(pair: Pair) -> float:
    """Return how many components tell a factor: one alone always has one."""
    if pair.norm is None:
        return float(np.count_nonzero(np.abs(pair.right) > 10.0 * np.asarray(pair.allowed)))
    squares = pair.right**2
    fourth = float(np.sum(squares**2))
    return float(np.sum(squares)) ** 2 / fourth if fourth > 0.0 else 0.0


def _step(pair: Pair) -> str:
    """Return along which axis only the first or last entries are there."""
    for axis in range(pair.given.ndim):
        length = pair.given.shape[axis]
        for index, word in ((length - 1, "last"), (0, "first")):
            if length < 2:
                continue
            kept = np.zeros_like(pair.right)
            place = _slice_of(pair.given.ndim, axis, index, index + 1)
            kept[place] = pair.right[place]
            if np.any(kept) and pair.is_given(kept):
                return f"only the {word} entry of axis {axis} is there, the others are zero"
    return ""


def _slice_of(ndim: int, axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if k == axis else slice(None) for k in range(ndim))


Change = tuple[str, Callable[[Floats], Floats]]


def _changes(shape: tuple[int, ...]) -> Iterator[Change]:
    """Yield the changes that an array of a shape can have."""
    ndim = len(shape)
    for axis in range(ndim - 1):
        axes = (axis, axis + 1)
        text = "it is transposed" if ndim == 2 else f"axes {axis} and {axis + 1} are swapped"
        if shape[axis] == shape[axis + 1]:
            yield text, partial(np.swapaxes, axis1=axis, axis2=axis + 1)
        else:
            yield f"{text} and then read in the shape {shape}", partial(_reread, axes=axes)
        yield f"it is reversed along axes {axis} and {axis + 1}", partial(np.flip, axis=axes)
    for axis in range(ndim):
        if shape[axis] > 1:
            yield f"it is reversed along axis {axis}", partial(np.flip, axis=axis)
        for shift in (1, -1) if shape[axis] > MIN_SHIFTED else ():
            text = f"it is shifted by one along axis {axis}"
            yield text, partial(np.roll, shift=shift, axis=axis)
            yield text, partial(_shifted, axis=axis, shift=shift)


def _reread(array: Floats, axes: tuple[int, int]) -> Floats:
    """Return an array with two axes swapped, read in the shape that it had before."""
    return np.swapaxes(array, *axes).reshape(array.shape)


def _shifted(array: Floats, axis: int, shift: int) -> Floats:
    """Return an array shifted by one, with zeros where nothing comes from."""
    made = np.roll(array, shift, axis)
    edge = 0 if shift > 0 else array.shape[axis] - 1
    made[_slice_of(array.ndim, axis, edge, edge + 1)] = 0.0
    return made


def _changed(pair: Pair) -> str:
    """Return the one change that fits; of several, one that fits much better than the others."""
    fits = []
    for text, change in _changes(pair.right.shape):
        candidate = np.asarray(change(pair.right))
        if pair.is_given(candidate):
            fits.append((pair.misfit(candidate), text))
    fits.sort()
    others = [misfit for misfit, text in fits if text != fits[0][1]]
    if not fits or (others and MUCH_BETTER * fits[0][0] > others[0]):
        return ""
    return fits[0][1]


def _local(pair: Pair) -> str:
    """Return the row, column or tile that all wrong components lie in."""
    hits = [_hits(pair, axis) for axis in range(pair.given.ndim)]
    if not hits or not all(hit.any() for hit in hits):
        return ""
    ends = [np.flatnonzero(hit)[[0, -1]].tolist() for hit in hits]
    box = [slice(first, last + 1) for first, last in ends]
    narrow = [
        axis
        for axis, (hit, part) in enumerate(zip(hits, box, strict=True))
        if part.stop - part.start <= MAX_BOX * hit.size and hit.size > 1
    ]
    if pair.norm is not None:  # along other axes nothing is told of a few indices
        box = [part if k in narrow else slice(0, hits[k].size) for k, part in enumerate(box)]
    place = tuple(box)
    if not narrow or pair.given[place].size < 2 or not _fills(pair, place, hits, narrow):
        return ""
    inside = pair.at(place)
    why = "zero" if not np.any(inside.given) else _factor(inside) or "wrong"
    why = why.removeprefix("it is ")
    several = any(box[axis].stop - box[axis].start > 1 for axis in narrow)
    verb = "are" if several else "is"
    return f"only {_place(box, narrow)} {verb} {'wrong: ' + why if ' ' in why else why}"


def _hits(pair: Pair, axis: int) -> Booleans:
    """Return at which indices of an axis something is wrong."""
    others = tuple(k for k in range(pair.given.ndim) if k != axis)
    if pair.norm is None:
        return np.asarray(pair.wrong.any(axis=others))
    squares = np.sum((pair.given - pair.right) ** 2, axis=others)
    return np.asarray(np.sqrt(squares) > HIT_SHARE * pair.norm / np.sqrt(max(squares.size, 1)))


def _fills(pair: Pair, place: tuple[slice, ...], hits: list[Booleans], narrow: list[int]) -> bool:
    """Return whether a box is wrong all over, and nothing else is."""
    if pair.norm is None:
        return bool(np.mean(pair.wrong[place]) >= FULL_BOX)
    rest = pair.given - pair.right
    error = float(np.linalg.norm(rest))
    rest[place] = 0.0
    full = all(np.mean(hits[axis][place[axis]]) >= FULL_BOX for axis in narrow)
    return full and float(np.linalg.norm(rest)) <= min(pair.norm, MAX_NORM_SHARE * error)


def _place(box: list[slice], narrow: list[int]) -> str:
    """Return `index 3 of axis 0`, or `indices 0 to 7 of axis 1`."""
    parts = []
    for axis in narrow:
        part: Any = box[axis]
        one = part.stop - part.start == 1
        which = f"index {part.start}" if one else f"indices {part.start} to {part.stop - 1}"
        parts.append(f"{which} of axis {axis}")
    return ", ".join(parts)
