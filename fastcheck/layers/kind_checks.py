"""The line of the contract on other kinds of inputs: a cheap look at each, a full one in doubt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.layers.input_kinds import inputs_of_kind, jittered
from fastcheck.layers.options import LayerSettings
from fastcheck.layers.other_inputs import accused_by, listed, problem_at
from fastcheck.layers.problem import LayerProblem
from fastcheck.methods.contract import Subject
from fastcheck.methods.function.calibration import random_direction
from fastcheck.model.contract import ContractLine
from fastcheck.model.layer import Layer, like, widened
from fastcheck.types import Floats
from fastcheck.validation import unit_roundoff

__all__ = ["line_of_kinds"]

Array = NDArray[Any]

NAME = "other kinds of inputs"
# Of the cheap look: the step, and the relative error that asks for a full one.
STEPS = {"float64": 1e-5, "float32": 1e-2}
RELATIVE = {"float64": 1e-5, "float32": 5e-3}
ROUNDINGS = 8.0  # of J's terms, by which two values of J may be off
SMOOTH_STEPS = {"float64": 1e-7, "float32": 1e-2}
SMOOTH_PAIRS = 3
SMOOTH = {"float64": 1e-3, "float32": 0.05}  # what one slope may differ from another one by
LARGEST_SHARE = 0.1  # of the gradient, that these may hide for a look to count


@dataclass(frozen=True)
class _Outcome:
    """What was seen at one kind: wrong inputs, or why nothing was."""

    accused: tuple[str, ...] = ()
    reason: str = ""
    what: str = "not the gradient"


def line_of_kinds(
    subject: Subject, wide: Layer | None, settings: LayerSettings, wrong: set[str]
) -> ContractLine:
    """Hold the gradients to differences at inputs of each kind.

    Where J or the gradient is not finite, the kind is skipped: it may be outside of the domain.

    Parameters
    ----------
    subject : Subject
    wide : Layer or None
        The same layer in float64, where it has less.
    settings : LayerSettings
    wrong : set of str
        Inputs whose gradient is wrong already, which are left out.
    """
    layer = subject.layer if wide is None else wide
    precision = subject.precision if wide is None else "float64"
    if precision not in STEPS:
        return ContractLine(NAME, "not checked", f"{precision} resolves too little")
    names = tuple(subject.first.values)
    tried, skipped, broken = [], [], []
    for number, kind in enumerate(settings.kinds):
        random = np.random.default_rng([settings.seed, 11, number])
        inputs = inputs_of_kind(kind, layer.inputs, names, random)
        if inputs is None:
            continue
        outcome = _held(subject, layer.at(inputs), settings, wrong, precision)
        if outcome.accused:
            named = listed(outcome.accused)
            broken.append(f"{named} is {outcome.what} where the inputs are {kind}")
        elif outcome.reason:
            skipped.append(f"{kind} skipped: {outcome.reason}")
        else:
            tried.append(kind)
    if broken:
        return ContractLine(NAME, "wrong", "; ".join(broken))
    status = "agree" if tried else "not checked"
    return ContractLine(NAME, status, "; ".join([*([", ".join(tried)] if tried else []), *skipped]))


def _held(
    subject: Subject, layer: Layer, settings: LayerSettings, wrong: set[str], precision: str
) -> _Outcome:
    """Return what differences say at inputs of a kind."""
    random = np.random.default_rng([settings.seed, 12])
    try:
        with np.errstate(all="ignore"):
            problem = problem_at(subject, layer, wrong)
            if isinstance(problem, str):
                return _Outcome(reason=problem)
            look = _Look.of(problem, precision, random)
            if look.undefined:
                return _of_undefined(problem, look, settings, precision, random)
            if look.reason or not look.suspects:
                return _Outcome(reason=look.reason)
            accused, agrees = accused_by(replace(problem, names=look.suspects), settings)
            if accused:
                # What is wrong at ties and zeros alone may be a convention.
                beside = layer.at(jittered(layer.inputs, accused, random))
                accused, agrees = accused_by(LayerProblem(beside, problem.dout, accused), settings)
    except Exception as error:
        return _Outcome(reason=f"raises {type(error).__name__}")
    return _Outcome(accused, "" if accused or agrees else "differences can't tell there")


def _of_undefined(
    problem: LayerProblem,
    look: _Look,
    settings: LayerSettings,
    precision: str,
    random: np.random.Generator,
) -> _Outcome:
    """Return NaN as wrong where J has a slope that is not zero; 0 stands in for it."""
    gradient = {n: np.nan_to_num(g, nan=0.0) for n, g in look.gradient.items()}
    smooth = tuple(
        name
        for name in look.undefined
        if np.isfinite(gradient[name]).all() and _is_smooth(problem, name, precision, random)
    )
    if smooth:
        accused, _ = accused_by(replace(problem, names=smooth), settings, gradient)
        if accused:
            return _Outcome(accused, what="NaN")
    return _Outcome(reason="the gradient is not finite")


def _is_smooth(
    problem: LayerProblem, name: str, precision: str, random: np.random.Generator
) -> bool:
    """Return whether J has slopes that are linear in the direction, the same to both sides."""
    return all(_is_plane(problem, name, precision, random) for _ in range(SMOOTH_PAIRS))


def _is_plane(
    problem: LayerProblem, name: str, precision: str, random: np.random.Generator
) -> bool:
    """Return whether J is linear in the plane of two random directions of an input."""
    theta = problem.theta()
    start, here = widened(theta[name]), problem.cost(theta)
    u, v = (_step(start, SMOOTH_STEPS[precision], random) for _ in range(2))
    ahead, behind = [], []
    for move in (u, v, u + v):
        ends = [like(theta[name], np.asarray(start + sign * move)) for sign in (1.0, -1.0)]
        high, low = (problem.cost({**theta, name: end}) for end in ends)
        ahead.append(high - here)
        behind.append(here - low)
    allowed = SMOOTH[precision] * (abs(ahead[0]) + abs(ahead[1]))
    sides = max(abs(a - b) for a, b in zip(ahead, behind, strict=True))
    bent = max(abs(side[0] + side[1] - side[2]) for side in (ahead, behind))
    return max(sides, bent) <= allowed


def _step(start: Floats, share: float, random: np.random.Generator) -> Floats:
    """Return a random step from an input, a share of its size."""
    scale = float(np.linalg.norm(start.ravel())) / max(start.size, 1) ** 0.5 or 1.0
    unit = random_direction(random, start.size).reshape(start.shape)
    return np.asarray(share * scale * unit)


@dataclass(frozen=True)
class _Look:
    """What two values of J along one direction of each input say."""

    suspects: tuple[str, ...] = ()
    reason: str = ""
    undefined: tuple[str, ...] = ()
    gradient: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: LayerProblem, precision: str, random: np.random.Generator) -> _Look:
        """Look at each input."""
        theta = problem.theta()
        gradient, outputs = problem.gradient(theta), problem.layer.outputs()
        terms = [(w, widened(o)) for w, o in zip(problem.weights, outputs, strict=True)]
        size = sum(float(np.sum(np.abs(w * o))) for w, o in terms if w is not None)
        if not np.isfinite(size):
            return cls(reason="J is not finite")
        undefined = tuple(n for n, value in gradient.items() if not np.isfinite(value).all())
        if undefined:
            return cls(undefined=undefined, gradient=gradient)
        hidden = ROUNDINGS * unit_roundoff(precision) * size
        suspects, seen = [], False
        for name in problem.names:
            moves, off, norm = _along(problem, theta, name, gradient[name], precision, random)
            seen |= moves and hidden < LARGEST_SHARE * norm
            if not off <= hidden + RELATIVE[precision] * norm:
                suspects.append(name)
        if not seen and not suspects:
            return cls(reason="J does not move there")
        return cls(tuple(suspects))


def _along(
    problem: LayerProblem,
    theta: dict[str, Any],
    name: str,
    gradient: Floats,
    precision: str,
    random: np.random.Generator,
) -> tuple[bool, float, float]:
    """Return whether J moves along a direction of an input, |g·Δ − ΔJ| and ‖g∘Δ‖."""
    start = widened(theta[name])
    step = _step(start, STEPS[precision], random)
    ends = [like(theta[name], np.asarray(start + sign * step)) for sign in (1.0, -1.0)]
    high, low = (problem.cost({**theta, name: end}) for end in ends)
    given = gradient * (widened(ends[0]) - widened(ends[1]))
    return high != low, abs(float(given.sum()) - (high - low)), float(np.linalg.norm(given.ravel()))
