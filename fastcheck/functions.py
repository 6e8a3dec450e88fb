"""`gradcheck_function`: checks the gradient of any scalar f(θ), which stays a black box."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from fastcheck.diagnosis.array_causes import Pair, causes_of
from fastcheck.errors import InputError
from fastcheck.execution import parallel
from fastcheck.function_options import FunctionOptions, FunctionSettings
from fastcheck.function_protocol import checked_by_protocol, terms_of
from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import (
    Calibration,
    calibrate,
    calibrate_noise,
    measure_noise,
    scales_of,
)
from fastcheck.methods.function.complex_step import guarded_blocks
from fastcheck.methods.function.components import ComponentCheck, Given, check_components, guarded
from fastcheck.methods.function.differences import Differences
from fastcheck.methods.function.directions import DirectionalTest, Directions, Line
from fastcheck.methods.function.first_look import FirstLook, by_complex_step, by_differences
from fastcheck.methods.function.verdict import check_directions
from fastcheck.methods.taylor import scaled_direction, taylor_table
from fastcheck.model.approximation import Approximation
from fastcheck.model.given_gradient import GivenGradient, read_gradient
from fastcheck.model.parameter_tree import ParameterTree
from fastcheck.model.purity import Watch, require_same, written_data
from fastcheck.model.taylor import TaylorTable
from fastcheck.report.data import CostFacts, HeldTo, MethodFacts, Report, RunFacts
from fastcheck.report.plot_data import Pictures
from fastcheck.report.sentences import number as figure
from fastcheck.sampling import components as sampling
from fastcheck.sampling.coverage import coverage
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers
from fastcheck.validation import finite_array, lower_precision, unit_roundoff
from fastcheck.verdict.verdict import BlockVerdict, Verdict, evaluate, worst_status
from fastcheck.versions import versions

__all__ = ["FunctionOptions", "gradcheck_function"]


# More components than this are held to random directions unless the user says otherwise.
MOST_COMPONENTS = 20_000
FEW_BLOCKS, MANY_DIRECTIONS, FEW_DIRECTIONS = 20, 8, 4
# For a budget: evaluations that are timed, before the differences, and for each direction.
TIMED_EVALUATIONS, CALIBRATION_EVALUATIONS, DIRECTION_EVALUATIONS = 3, 100, 5
MOST_DIRECTIONS = 16
# A gradient that seems wrong is checked anew where the noise is so many times what it seemed.
NOISE_RISE, ANOTHER_SEED = 3.0, 2**31


def gradcheck_function(
    f: Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]],
    gradient: Any,
    theta: Any,
    **options: Unpack[FunctionOptions],
) -> Report:
    """Check whether a gradient is the gradient of a scalar function.

    Parameters
    ----------
    f : callable, or mapping of callables
        `f(θ) -> float`; gets θ in the form of `theta`. It must not change it. A mapping holds terms
        by name (a data term and a penalty) whose sum is f; the gradient then is one, too.
    gradient : callable or array_like
        `gradient(θ)`, or its value at `theta`: the form of `theta` or a flat vector.
    theta : float, array_like, or any nesting of mappings, sequences and dataclasses of arrays
        Where to check. NumPy, PyTorch and JAX arrays reach f as what they are.
    **options
        See `FunctionSettings`; `sample`, `detect`, `seed`, `jobs`, `backend`, `precision`,
        `progress` and `memory` as in `Settings`.

    Returns
    -------
    Report
        `agree` says up to which relative error in each block (`resolution`).

    Raises
    ------
    InputError
        For NaN or infinity, other shapes, an f that gives no single number, two values for the same
        θ or another θ than it got, and for a θ so large that θ + ε = θ.

    Examples
    --------
    >>> report = gradcheck_function(lambda x: x**3, lambda x: 3 * x**2, 1.0, epsilon=0.01)
    >>> round(report.components[0].approximation, 9)
    3.0001
    """
    start = time.perf_counter()
    name, command = options.pop("name", ""), options.pop("command", "")
    settings = FunctionSettings.of(options)
    if settings.protocol:
        report = checked_by_protocol(
            gradcheck_function, f, gradient, theta, dict(options), settings.seconds
        )
        seconds = {"check": time.perf_counter() - start}
        return replace(report, name=name, run=replace(report.run, seconds=seconds, command=command))
    cost, gradient, _ = terms_of(f, gradient)
    tree, vector, precision = ParameterTree.of(theta, settings.blocks)
    box = BlackBox(cost, tree, vector, settings.vectorized, settings.reseed)
    subject = _read(box, gradient, settings, precision)
    _check_step(subject, settings)
    report = _checked(subject, settings, _directions(subject, settings))
    if settings.sweep:
        report = replace(report, taylor=_taylor(subject, report))
    _unchanged_at_the_end(subject)
    seconds = {"check": time.perf_counter() - start}
    run = RunFacts(versions(), settings.shared.jobs or 1, seconds, command)
    return replace(report, run=run, name=name)


def _checked(subject: _Subject, settings: FunctionSettings, count: int | None) -> Report:
    """Check a gradient, and where it does not agree measure the noise again, along those blocks.

    A table that underestimates the noise accuses, or makes steps too narrow to tell anything.
    """
    report = _measured(subject, settings, count)
    if report.status == "agree":
        return report
    names = {block.parameter for block in report.blocks if block.verdict != "agree"}
    scales = scales_of(subject.box) * [block.name in names for block in subject.tree.blocks]
    seed = settings.shared.seed + ANOTHER_SEED
    noise = measure_noise(subject.box, scales, subject.value, seed)
    if noise <= NOISE_RISE * (report.held_to.noise or 0.0):
        return report
    return _measured(replace(subject, noise=noise), settings, count)


def _taylor(subject: _Subject, report: Report) -> TaylorTable:
    """Return J along one random direction at many steps."""
    box, gradient = subject.box, subject.gradient.vector
    blocks = [block.slice for block in subject.tree.blocks]
    u = scaled_direction(box.theta, blocks, report.method.seed)
    line = Line(box, gradient, 0, u)
    return taylor_table(line.value, subject.value, float(gradient @ u), report.held_to.noise or 0.0)


def _measured(subject: _Subject, settings: FunctionSettings, count: int | None) -> Report:
    """Check components, or so many directions."""
    if count is None:
        return _by_components(subject, settings)
    return _by_directions(subject, settings, count)


@dataclass(frozen=True)
class _Subject:
    """What is checked: a function at θ, and its gradient."""

    box: BlackBox
    gradient: GivenGradient
    precision: str
    value: float
    noise: float
    watch: Watch
    notes: tuple[str, ...]

    @property
    def tree(self) -> ParameterTree:
        """θ's form."""
        return self.box.tree


def _read(box: BlackBox, gradient: Any, settings: FunctionSettings, precision: str) -> _Subject:
    """Evaluate f and the gradient at θ, and name what makes J depend on more than θ."""
    watch = Watch(box.f, gradient)
    first, value_precision = _value(box)
    notes = written_data(watch, "f")
    second = _value(box)[0]
    apart = require_same(first, second, value_precision, "f gives two values for the same θ", watch)
    given = read_gradient(gradient, box.tree, box.theta, settings.reseed)
    third = _value(box)[0]
    again = "f gives another value once the gradient was called"
    apart = max(apart, require_same(second, third, value_precision, again, watch))
    noise = max(apart, unit_roundoff(value_precision) * abs(first))
    precision = settings.shared.precision or lower_precision(precision, given.precision)
    return _Subject(box, given, precision, first, noise, watch, (*notes, *given.notes))


def _value(box: BlackBox) -> tuple[float, str]:
    """Return f(θ), a finite number, and the precision that it came in."""
    raw = box.raw_at_theta()
    values, precision = finite_array(raw, "f(θ)")
    if values.size != 1:
        raise InputError(
            f"f(θ) has shape {values.shape}",
            "one number",
            "Sum or average it, or check one component of it at a time.",
        )
    return float(values.reshape(())), precision


def _unchanged_at_the_end(subject: _Subject) -> None:
    """Refuse a check during which J became another function."""
    value, precision = _value(subject.box)
    what = "f gives another value at the end of the check than at its start"
    require_same(subject.value, value, precision, what, subject.watch)


def _check_step(subject: _Subject, settings: FunctionSettings) -> None:
    """Refuse an ε that is lost beside θ."""
    epsilon, theta = settings.named_epsilon, subject.box.theta
    if epsilon is None:
        return
    stuck = (theta + epsilon == theta) | (theta - epsilon == theta)
    if stuck.any():
        place = int(np.argmax(stuck))
        name = subject.tree.locate(place)
        raise InputError(
            f"ε = {epsilon:g} is lost beside {name} = {theta[place]:g}: θ + ε = θ",
            "an ε that changes θ",
            f"Use epsilon={abs(theta[place]) * 1e-6:.0e} or more, or epsilon='auto'.",
        )


def _directions(subject: _Subject, settings: FunctionSettings) -> int | None:
    """Return how many directions a block is held to; None where components are checked."""
    size, blocks = subject.tree.size, len(subject.tree.blocks)
    if settings.directions is not None:
        return settings.directions
    usual = MANY_DIRECTIONS if blocks <= FEW_BLOCKS else FEW_DIRECTIONS
    if settings.method == "directions":
        return usual
    if settings.method in ("components", "complex") or settings.shared.sampled:
        return None
    if settings.seconds is None:
        return usual if size > MOST_COMPONENTS else None
    start = time.perf_counter()
    for _ in range(TIMED_EVALUATIONS):
        subject.box.at_theta()
    each = (time.perf_counter() - start) / TIMED_EVALUATIONS
    left = settings.seconds / each - CALIBRATION_EVALUATIONS
    if left > 2.2 * size:
        return None
    return int(min(MOST_DIRECTIONS, max(1, left // (DIRECTION_EVALUATIONS * blocks))))


def _by_directions(subject: _Subject, settings: FunctionSettings, count: int) -> Report:
    """Hold each block to random directions, with a fresh seed unless one was given."""
    box, shared = subject.box, settings.shared
    seed = shared.seed if settings.seed_given else secrets.randbelow(2**31)
    calibration = calibrate_noise(box, subject.value, subject.noise, seed)
    rounding = subject.gradient.rounding_bound(subject.precision)
    asked = Directions(
        subject.gradient.vector, rounding, count, settings.asked, settings.coarsest, seed
    )
    verdict, notes = check_directions(box, asked, calibration)
    facts = MethodFacts(
        name=f"{count} random direction{'s' * (count > 1)} in each block",
        epsilon=float(np.median([block.epsilon or 0.0 for block in verdict.blocks])),
        seed=seed,
        checked=subject.tree.size,
        size=subject.tree.size,
        noise=0.0,
        evaluations=box.evaluations,
        directions=count,
    )
    return Report.of(
        verdict,
        held_to=_held_to(verdict, calibration, settings, subject.precision),
        method=facts,
        cost=CostFacts(total=subject.value),
        notes=(*subject.notes, *notes, f"Seed of the directions: {seed}."),
    )


def _by_components(subject: _Subject, settings: FunctionSettings) -> Report:
    """Check component by component."""
    box, shared = subject.box, settings.shared
    indices, notes = sampling.select_components(subject.tree, shared)
    calibration = calibrate(
        box, subject.value, subject.noise, epsilon=settings.named_epsilon, seed=shared.seed
    )
    first, guards = _first_look(subject, settings, calibration, indices)
    rounding = subject.gradient.rounding(subject.precision)
    given = Given(
        subject.gradient.vector,
        rounding,
        settings.asked,
        settings.tol is None,
        settings.atol,
        settings.coarsest,
    )
    check = check_components(box, given, calibration, first)
    check = guarded(check, guards, settings.resolution)
    rules = replace(shared, tol=settings.asked)
    verdict = evaluate(subject.tree, given.gradient, check.approximation, None, rules)
    verdict, more = _resolved(verdict, check, calibration, settings)
    approximation = check.approximation
    return Report.of(
        verdict,
        held_to=_held_to(verdict, calibration, settings, subject.precision),
        method=_facts(approximation, calibration, settings, box),
        cost=CostFacts(total=subject.value),
        notes=(
            *subject.notes,
            *notes,
            *approximation.notes,
            *more,
            *_guard_notes(guards),
            *_causes(verdict, given, check),
        ),
        coverage=coverage(subject.tree, given.gradient, approximation, verdict, shared),
        artist=partial(_pictures, subject.tree, given.gradient, approximation, rules),
    )


def _pictures(
    tree: ParameterTree,
    gradient: Floats,
    approximation: Approximation,
    rules: Settings,
    with_curve: bool,
) -> Pictures:
    """Return what a report's page draws, when somebody asks for it."""
    from fastcheck.report.downsample import downsample

    return downsample(tree, gradient, approximation, None, rules)


def _first_look(
    subject: _Subject,
    settings: FunctionSettings,
    calibration: Calibration,
    indices: Integers | None,
) -> tuple[FirstLook, tuple[DirectionalTest, ...]]:
    """Return the derivatives, and what guards those of the complex step."""
    box, shared = subject.box, settings.shared
    if settings.method != "complex":
        running = replace(shared, jobs=shared.jobs or 1)

        def run(work: Differences, title: str) -> list[Floats | None]:
            return parallel.run(work, running, title)

        return by_differences(box, calibration, indices, run), ()
    first = by_complex_step(box, calibration)
    count = settings.directions or FEW_DIRECTIONS
    return first, guarded_blocks(box, first.values, calibration, count, shared.seed)


def _guard_notes(guards: tuple[DirectionalTest, ...]) -> tuple[str, ...]:
    """Say how finely the complex step was held to real differences."""
    if not guards:
        return ()
    coarsest = max(guard.resolution for guard in guards)
    return (
        f"The complex step was held to real differences along {guards[0].given.size} random "
        f"directions a block: a relative error of {figure(coarsest)} would have been seen.",
    )


def _causes(verdict: Verdict, given: Given, check: ComponentCheck) -> tuple[str, ...]:
    """Say what is wrong with each wrong block, where its shape tells."""
    approximation = check.approximation
    if approximation.indices is not None or not approximation.complete:
        return ()
    right, kinks = np.array(approximation.derivative), approximation.kinks
    at = given.gradient[kinks.positions]  # within its interval a component is right
    right[kinks.positions] = np.clip(at, kinks.low, kinks.high)
    pairs, start = {}, 0
    for block in verdict.blocks:
        part, start = slice(start, start + block.size), start + block.size
        if block.verdict == "wrong" and np.isfinite(right[part]).all():
            sizes = np.abs(right[part]) + np.abs(given.gradient[part])
            allowed = (
                np.broadcast_to(approximation.allowance, right.shape)[part] + given.tol * sizes
            )
            shown = given.gradient[part], right[part], np.asarray(allowed)
            at, there, bars = (array.reshape(block.shape) for array in shown)
            pairs[block.name] = Pair(at, there, bars)
    return tuple(f"{name}: {text}." for name, text in causes_of(pairs).items())


def _resolved(
    verdict: Verdict,
    check: ComponentCheck,
    calibration: Calibration,
    settings: FunctionSettings,
) -> tuple[Verdict, tuple[str, ...]]:
    """Say of each block which error would have been seen; what can't be told is no agreement."""
    blocks, notes = [], []
    for block, resolution, hidden, step in zip(
        verdict.blocks, check.resolutions, check.hidden, calibration.steps, strict=True
    ):
        known = replace(block, resolution=resolution, epsilon=float(step))
        coarse = block.checked > 0 and resolution > settings.coarsest
        if coarse and block.verdict == "agree":
            if not hidden:
                known = _unsure(known)
            elif settings.atol == 0.0:
                notes.append(_hidden_note(block))
        blocks.append(known)
    changed = any(new.status != old.status for new, old in zip(blocks, verdict.blocks, strict=True))
    told = [r for r, hidden in zip(check.resolutions, check.hidden, strict=True) if not hidden]
    whole = replace(verdict.whole, resolution=max(told, default=None))
    if changed and whole.status == "agree":
        whole = replace(whole, status="cannot tell", grade="look")
    status = worst_status(verdict.status, *(block.verdict for block in blocks))
    if settings.tol is None and not verdict.whole.gradient_norm and status == "agree":
        notes.append(
            "Every component of dθ is 0 here, and so are the differences: a gradient that is wrong "
            "by a factor would look the same. Check at another θ."
        )
        if settings.atol == 0.0:
            status, whole = "cannot tell", replace(whole, status="cannot tell", grade="look")
    grade = "look" if status == "cannot tell" and verdict.grade == "great" else verdict.grade
    found = replace(verdict, status=status, grade=grade, whole=whole, blocks=tuple(blocks))
    return found, tuple(notes)


def _unsure(block: BlockVerdict) -> BlockVerdict:
    """Return a block of which nobody can tell."""
    grade = "look" if block.grade == "great" else block.grade
    return replace(block, status="cannot tell", grade=grade)


def _hidden_note(block: BlockVerdict) -> str:
    return (
        f"{block.name} is 0 as far as the noise of J lets anyone see, and small beside what the "
        "other blocks do to J: that it is not larger was checked, nothing more."
    )


def _held_to(
    verdict: Verdict, calibration: Calibration, settings: FunctionSettings, precision: str
) -> HeldTo:
    """Return the tolerance, and where it comes from."""
    resolution = verdict.whole.resolution or 0.0
    if settings.tol is not None:
        reason = f"{settings.tol:g} relative, plus {precision} rounding"
        return HeldTo(settings.tol, precision, reason, resolution, calibration.noise)
    reason = (
        f"what J resolves: a relative error of {figure(resolution)} in a block would be seen "
        f"(J carries noise of {figure(calibration.noise)})"
    )
    if precision != "float64":
        reason += f"; the gradient was computed in {precision}"
    return HeldTo(resolution, precision, reason, resolution, calibration.noise)


def _facts(
    approximation: Approximation,
    calibration: Calibration,
    settings: FunctionSettings,
    box: BlackBox,
) -> MethodFacts:
    noise = calibration.noise / (np.sqrt(2.0) * calibration.steps)
    return MethodFacts(
        name=approximation.method,
        epsilon=approximation.epsilon,
        seed=settings.shared.seed,
        checked=int(np.isfinite(approximation.values).sum()),
        size=box.tree.size,
        sampled=settings.shared.sampled,
        complete=approximation.complete,
        noise=float(np.max(noise)),
        evaluations=box.evaluations,
    )
