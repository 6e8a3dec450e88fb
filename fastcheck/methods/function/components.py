"""A function's gradient component by component: differences, error bars, and what they can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastcheck.methods.function.averages import REPEATS, TYPICAL_EVALUATIONS, averaged
from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import Calibration
from fastcheck.methods.function.differences import (
    NOISE_FACTOR,
    Differences,
    SecondLook,
    second_look,
)
from fastcheck.methods.function.directions import DirectionalTest
from fastcheck.methods.function.first_look import FirstLook
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.types import Floats, Integers

__all__ = ["ComponentCheck", "Given", "check_components", "guarded"]

# Standard deviations that see an error with 99.9 %.
SEEN = 3.1
# What a step that the user named leaves is taken out where it is more than this share of tol.
WORTH_LOOKING = 0.1
# A block that is noise on both sides is right where an error of that size would be so small
# beside what the largest block does to J.
WORST_HIDDEN = 1e-2
# Averages are taken of the components without which the others leave so little of what may be
# unseen of a block (squared), and of no more than so many, or as many as double the evaluations.
UNRESOLVED_SHARE, LEAST_AVERAGED = 0.3, 60


@dataclass(frozen=True)
class Given:
    """The gradient that is checked, and what it is held to.

    Attributes
    ----------
    gradient : ndarray, shape (N,), float64
    rounding : ndarray, shape (N,), float64
        What its own rounding may have done to each component: a bound.
    tol : float
        Relative difference of a component.
    to_what_j_allows : bool
        Whether the error bars of the difference widen that.
    atol : float
    limit : float
        The coarsest relative error of a block that counts as seen.
    """

    gradient: Floats
    rounding: Floats
    tol: float
    to_what_j_allows: bool
    atol: float
    limit: float


@dataclass(frozen=True)
class ComponentCheck:
    """What the differences of components came to.

    Attributes
    ----------
    approximation : Approximation
    resolutions : tuple of float
        Of each block: the relative error that would have been seen with 99.9 %; 0 for one without
        a checked component.
    hidden : tuple of bool
        Blocks whose gradient is nothing but noise on both sides, and those that are seen more
        finely than `atol` asks: right as far as it can be told.
    """

    approximation: Approximation
    resolutions: tuple[float, ...]
    hidden: tuple[bool, ...]


def check_components(
    box: BlackBox, given: Given, calibration: Calibration, first: FirstLook
) -> ComponentCheck:
    """Return derivatives, what is left of their truncation, and kinks.

    Parameters
    ----------
    box : BlackBox
    given : Given
    calibration : Calibration
    first : FirstLook
    """
    blocks = np.searchsorted(box.tree.offsets, first.indices, side="right") - 1
    scale = _scales(box, given.gradient[first.indices], first.values, blocks)
    look = _Look.nothing(first)
    if first.complete:
        look = _looked_again(box, given, calibration, first, scale)
        look = _narrowed(box, given, calibration, first, look)
    allowance, hidden_noise, uncertainty = _allowed(given, first, look, scale)
    approximation = Approximation(
        first.method,
        float(np.median(calibration.steps)),
        None if first.every else first.indices,
        first.values,
        noise=hidden_noise,
        kinks=look.kinks,
        complete=first.complete,
        notes=_notes(look, first.values),
        derivative=look.derivative,
        uncertainty=uncertainty,
        allowance=allowance,
    )
    return ComponentCheck(
        approximation, *_resolutions(box, given, first, look, blocks, calibration)
    )


def guarded(
    check: ComponentCheck, guards: Sequence[DirectionalTest], limit: float
) -> ComponentCheck:
    """Return a check that has seen nothing where its guards tell less than `limit`."""
    if not guards:
        return check
    sure = [guard.status == "agree" and guard.resolution <= limit for guard in guards]
    known = [0.0 if agrees else math.inf for agrees in sure]
    pairs = zip(check.resolutions, known, strict=True)
    return replace(check, resolutions=tuple(max(pair) for pair in pairs))


@dataclass(frozen=True)
class _Look:
    """What is known after the second look: arrays of shape (n,)."""

    derivative: Floats
    noise: Floats
    truncation: Floats
    doubtful: NDArray[np.bool_]
    kinks: Kinks
    curvature: Floats

    @classmethod
    def nothing(cls, first: FirstLook) -> _Look:
        """Return what the first look says."""
        size = first.values.size
        none, zero = np.zeros(size, bool), np.zeros(size)
        return cls(first.values, first.noise, first.truncation, none, Kinks.none(), zero)


def _scales(box: BlackBox, given: Floats, values: Floats, blocks: Integers) -> Floats:
    """Return the rms of each component's block, of the gradient and of the differences the less."""
    scale = np.zeros(given.size)
    for number in np.unique(blocks):
        at = blocks == number
        found = values[at][np.isfinite(values[at])]
        scale[at] = min(_rms(given[at]), _rms(found)) if found.size else _rms(given[at])
    return scale


def _rms(values: Floats) -> float:
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    return largest * math.sqrt(float(np.mean((values / largest) ** 2)))


def _tolerance(given: Given, at: Floats, values: Floats, scale: Floats) -> Floats:
    """Return what a component may be off by beside error bars: tol, atol and its own rounding."""
    sizes = np.maximum(np.abs(at) + np.abs(values), 2.0 * scale)
    return np.asarray(given.tol * sizes + given.atol)


def _looked_again(
    box: BlackBox,
    given: Given,
    calibration: Calibration,
    first: FirstLook,
    scale: Floats,
) -> _Look:
    """Look again where the gradient does not agree, or the truncation is what could hide it."""
    at = given.gradient[first.indices]
    values = np.nan_to_num(first.values)
    tolerance = _tolerance(given, at, values, scale) + given.rounding[first.indices]
    # A second step narrows what the first left, so that no wrong gradient agrees with D(ε).
    truncated = first.truncation > np.maximum(WORTH_LOOKING * tolerance, NOISE_FACTOR * first.noise)
    off = ~(np.abs(at - first.values) <= tolerance + NOISE_FACTOR * first.noise + first.truncation)
    chosen = np.flatnonzero(off | (truncated & calibration.named))
    look = _Look.nothing(first)
    if chosen.size == 0:
        return look
    part = Differences(box, first.indices[chosen], first.work.steps[chosen])
    found = second_look(
        box, part, at[chosen], tolerance[chosen], (calibration.noise, calibration.value)
    )
    if first.exact:
        chosen, found = _contradicted(first, found, chosen)
    return _merged(look, found, chosen, first, at[chosen])


def _contradicted(
    first: FirstLook, found: SecondLook, chosen: Integers
) -> tuple[Integers, SecondLook]:
    """Return the components whose differences are not what the first look said."""
    bar = NOISE_FACTOR * first.noise[chosen] + found.bar + found.loose
    kept = np.flatnonzero(~(np.abs(first.values[chosen] - found.derivative) <= bar) | found.kink)
    return chosen[kept], found.at(kept)


def _beyond(found: SecondLook, given: Floats) -> NDArray[np.bool_]:
    """Return where a gradient is outside of a kink's interval, and other kinks may be why."""
    with np.errstate(invalid="ignore"):
        outside = (given < found.low - found.slack) | (given > found.high + found.slack)
    return found.doubtful & outside


def _merged(
    look: _Look, found: SecondLook, chosen: Integers, first: FirstLook, at_given: Floats
) -> _Look:
    """Put what the second look found in the place of the first."""
    derivative, noise = look.derivative.copy(), look.noise.copy()
    truncation, doubtful = look.truncation.copy(), look.doubtful.copy()
    curvature = look.curvature.copy()
    known = np.isfinite(found.bar)
    at = chosen[known]
    derivative[at] = found.derivative[known]
    truncation[at] = (found.bar + found.loose)[known]
    noise[at] = 0.0  # the bar holds it
    doubtful[chosen] = found.doubtful | ~known
    with np.errstate(invalid="ignore"):
        curvature[at] = np.abs(first.values[at] - derivative[at])
        curvature[at] = np.where(curvature[at] > 2.0 * truncation[at], curvature[at], 0.0)
    kink = found.kink & np.isfinite(found.low) & ~_beyond(found, at_given)
    kinks = Kinks(chosen[kink].astype(np.int64), found.low[kink], found.high[kink])
    truncation[kinks.positions], doubtful[kinks.positions] = found.slack[kink], False
    curvature[kinks.positions] = 0.0
    return _Look(derivative, noise, truncation, doubtful, kinks, curvature)


def _narrowed(
    box: BlackBox,
    given: Given,
    calibration: Calibration,
    first: FirstLook,
    look: _Look,
) -> _Look:
    """Average over steps where a block is not seen as finely as asked, or a component is in doubt.

    What lies outside of the narrower error bars is left as it was: an average accuses nothing.
    """
    chosen = _unresolved(box, given, calibration, first, look)
    if chosen.size == 0:
        return look
    part = Differences(box, first.indices[chosen], first.work.steps[chosen])
    found = averaged(box, part, calibration.noise)
    at, target, bar, _ = (array[chosen] for array in _error_bars(given, first, look))
    bar = np.where(look.doubtful[chosen] & (np.abs(at - target) > bar), np.inf, bar)
    held = found.holds(at, given.rounding[first.indices[chosen]]) & (found.bar < bar)
    taken = chosen[held]
    derivative, noise, truncation = (
        array.copy() for array in (look.derivative, look.noise, look.truncation)
    )
    derivative[taken], truncation[taken] = found.derivative[held], found.bar[held]
    noise[taken] = 0.0
    doubtful, curvature = look.doubtful.copy(), look.curvature.copy()
    doubtful[taken], curvature[taken] = False, 0.0
    kinks, left = look.kinks, ~np.isin(look.kinks.positions, taken)
    kinks = Kinks(kinks.positions[left], kinks.low[left], kinks.high[left])
    return _Look(derivative, noise, truncation, doubtful, kinks, curvature)


def _unresolved(
    box: BlackBox, given: Given, calibration: Calibration, first: FirstLook, look: _Look
) -> Integers:
    """Return the components whose error bars keep their block from being seen."""
    blocks = np.searchsorted(box.tree.offsets, first.indices, side="right") - 1
    at, target, bar, seen = _error_bars(given, first, look)
    resolutions, hidden = _resolutions(box, given, first, look, blocks, calibration)
    best = NOISE_FACTOR * first.noise / math.sqrt(REPEATS) + given.rounding[first.indices]
    chosen = look.doubtful & (np.abs(at - target) > bar)
    for number, resolution in enumerate(resolutions):
        here = np.flatnonzero(blocks == number)
        allowed = given.limit * _norm(target[here])
        if hidden[number] or resolution <= given.limit or not _norm(best[here]) <= allowed:
            continue
        order = here[np.argsort(-seen[here])]
        squares = np.cumsum(seen[order][::-1] ** 2)[::-1]  # what is left from each one on
        chosen[order[squares > UNRESOLVED_SHARE * allowed**2]] = True
    most = max(LEAST_AVERAGED, 2 * first.indices.size // TYPICAL_EVALUATIONS)
    wanted = np.flatnonzero(chosen)
    return np.sort(wanted[np.argsort(-seen[wanted])][:most]).astype(np.int64)


def _error_bars(
    given: Given, first: FirstLook, look: _Look
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the gradient, the derivative, its bar, and the error that would have been seen."""
    at, target = given.gradient[first.indices], np.nan_to_num(look.derivative)
    kinks = look.kinks
    target[kinks.positions] = np.maximum(np.abs(kinks.low), np.abs(kinks.high))
    bar = NOISE_FACTOR * look.noise + look.truncation + given.rounding[first.indices]
    seen = bar + SEEN * look.noise + look.truncation
    seen += given.tol * (np.abs(at) + np.abs(target)) + given.atol
    return at, target, bar, seen


def _allowed(
    given: Given, first: FirstLook, look: _Look, scale: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return what is allowed beside tol, the noise and the truncation that the verdict counts."""
    at = given.gradient[first.indices]
    target = np.nan_to_num(look.derivative)
    sizes = np.abs(at) + np.abs(target)
    allowance = given.tol * np.maximum(2.0 * scale - sizes, 0.0) + given.atol
    allowance += given.rounding[first.indices]
    bar = given.tol * np.maximum(2.0 * scale, sizes) + given.rounding[first.indices]
    bar += NOISE_FACTOR * look.noise + look.truncation
    # Within its error bar a component is right, whatever the slopes to either side say.
    doubt = np.where(look.doubtful & (np.abs(at - target) > bar), np.abs(at - target), 0.0)
    if not given.to_what_j_allows:
        return allowance, np.maximum(look.noise, doubt), look.truncation
    allowance += NOISE_FACTOR * look.noise + look.truncation
    return allowance, doubt, np.zeros(at.size)


def _resolutions(
    box: BlackBox,
    given: Given,
    first: FirstLook,
    look: _Look,
    blocks: Integers,
    calibration: Calibration,
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Return the relative error that would have been seen in each block, and which are hidden."""
    at, target, bar, seen = _error_bars(given, first, look)
    effect = max(
        (_rms(target[blocks == k]) * calibration.scales[k] for k in np.unique(blocks)), default=0.0
    )
    resolutions: list[float] = []
    hidden: list[bool] = []
    for number, scale in enumerate(calibration.scales):
        here = blocks == number
        size, error = _norm(target[here]), _norm(seen[here])
        resolutions.append(error / size if size > 0.0 else (math.inf if error > 0.0 else 0.0))
        noise_only = bool(
            np.all(np.abs(at[here]) <= bar[here]) and np.all(np.abs(target[here]) <= bar[here])
        )
        small = _rms(seen[here]) * scale if here.any() else 0.0
        known_scale = given.atol > 0.0 and bool(np.all(bar[here] <= given.atol))
        hidden.append(known_scale or (noise_only and small <= WORST_HIDDEN * effect))
    return tuple(resolutions), tuple(hidden)


def _norm(values: Floats) -> float:
    return _rms(values) * math.sqrt(values.size)


def _notes(look: _Look, values: Floats) -> tuple[str, ...]:
    """Say what the second look found."""
    notes: list[str] = []
    size = np.abs(values)
    with np.errstate(all="ignore"):
        relative = np.where(size > 0.0, look.curvature / size, 0.0)
    largest = float(np.nanmax(relative, initial=0.0))
    if largest > 1e-9:
        notes.append(f"The O(ε²) term of f at this ε is up to {largest:.1e} of the approximation.")
    count = look.kinks.positions.size
    if count:
        lie = "component lies" if count == 1 else "components lie"
        notes.append(
            f"{count:,} {lie} within ε of a kink of f: a value between the one-sided slopes is "
            "right."
        )
    return tuple(notes)
