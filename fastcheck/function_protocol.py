"""The protocol of a function: several checks at θ and after training steps, inside a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.model.parameter_tree import ParameterTree
from fastcheck.report.data import Report
from fastcheck.types import Floats
from fastcheck.verdict.verdict import SEVERITIES

__all__ = ["checked_by_protocol", "terms_of"]

Check = Callable[..., Report]

BUDGET_SECONDS = 60.0
# What each kind of check may take: of the budget at θ, else of what is left when it begins.
SHARES = {"everything": 0.4, "term": 0.2, "sample": 0.4}
TIMED_CALLS, EVALUATIONS_PER_COMPONENT, CALIBRATION_EVALUATIONS = 3, 2.5, 120
LEAST_SAMPLE = 20
TRAINING_STEPS, STEP_SHARE = 3, 0.02  # each step is so much of ‖θ‖
WRAPPING = ("protocol", "budget", "sweep", "name", "command")


def terms_of(f: Any, gradient: Any) -> tuple[Any, Any, dict[str, tuple[Any, Any]]]:
    """Return f, its gradient, and the terms that both are given in, by name.

    Raises
    ------
    InputError
        For terms of f without a gradient of their own.
    """
    if not (isinstance(f, Mapping) and all(callable(term) for term in f.values())):
        return f, gradient, {}
    if not isinstance(gradient, Mapping) or set(gradient) != set(f):
        raise InputError(f"f in the terms {', '.join(map(str, f))}", "a gradient for each of them")
    parts = {str(name): (f[name], gradient[name]) for name in f}

    def total(theta: Any) -> Any:
        return sum(term(theta) for term, _ in parts.values())

    def slope(theta: Any) -> Any:
        tree = ParameterTree.of(theta)[0]
        vectors = [tree.read(g(theta) if callable(g) else g)[0] for _, g in parts.values()]
        return np.sum(vectors, axis=0)

    return total, slope, parts


@dataclass
class _Plan:
    """What was done of the protocol, and the seconds that are left."""

    check: Check
    options: dict[str, Any]
    seconds: float
    started: float = field(default_factory=time.perf_counter)
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.perf_counter() - self.started)

    def run(self, title: str, problem: tuple[Any, Any, Any], **options: Any) -> list[Report]:
        """Return the report of one check; none where no time is left."""
        if self.left <= 0.0:
            self.skipped.append(f"{title}: there is no time for it")
            return []
        start = time.perf_counter()
        report = self.check(*problem, **{**self.options, **options})
        facts, seconds = report.method, time.perf_counter() - start
        how = f"{facts.checked:,} of {facts.size:,} components"
        self.done.append(
            f"{title}: {facts.name if facts.directions else how}, "
            f"{facts.evaluations or 0:,} evaluations, {seconds:.2g} s: {report.status}."
        )
        return [report]


def checked_by_protocol(
    check: Check, f: Any, gradient: Any, theta: Any, options: dict[str, Any], seconds: float | None
) -> Report:
    """Check a function by the protocol.

    Parameters
    ----------
    check : callable
        `check(f, gradient, theta, **options)`: one check.
    f, gradient : callable, or mapping of callables
        The terms of J by name, each with its gradient.
    theta : Any
    options : dict
        Of each check.
    seconds : float or None
        The budget; a minute unless told otherwise.

    Returns
    -------
    Report
        The worst check at θ, with the worst one after training in `after_training`; its notes say
        what was covered.
    """
    kept = {name: value for name, value in options.items() if name not in WRAPPING}
    plan = _Plan(check, kept, BUDGET_SECONDS if seconds is None else seconds)
    f, gradient, terms = terms_of(f, gradient)
    problem, later = (f, gradient, theta), f"after {TRAINING_STEPS} gradient steps"
    reports = [_everything(plan, problem, "at θ")]
    for name, (term, slope) in terms.items():
        share = SHARES["term"] * plan.left
        reports += plan.run(f"the term {name} at θ", (term, slope, theta), budget=share)
    reports += _sample(plan, problem, reports[0], "at θ")
    report = _worst(reports)
    if report.status == "wrong":
        plan.skipped.append(f"{later}: it is wrong at θ")
    elif not callable(gradient):
        plan.skipped.append(f"{later}: the gradient is no function of θ")
    elif trained := _after_training(plan, problem, later):
        report = replace(report, after_training=(_worst(trained),), training=later)
    return _described(report, plan)


def _after_training(plan: _Plan, problem: tuple[Any, Any, Any], title: str) -> list[Report]:
    """Return the checks after some gradient steps."""
    f, gradient, theta = problem
    try:
        moved = f, gradient, _trained(gradient, theta, plan.options.get("blocks"))
        first = plan.run(f"everything {title}", moved, budget=SHARES["everything"] * plan.left)
        return first + (_sample(plan, moved, first[0], title) if first else [])
    except InputError as error:
        plan.skipped.append(f"{title}: {error.given}")
        return []


def _everything(plan: _Plan, problem: tuple[Any, Any, Any], where: str) -> Report:
    """Return the check of all components, or of directions where these do not fit."""
    share = SHARES["everything"] * plan.seconds
    return plan.run(f"everything {where}", problem, budget=share)[0]


def _sample(plan: _Plan, problem: tuple[Any, Any, Any], first: Report, where: str) -> list[Report]:
    """Return the check of a sample, where directions saw nothing wrong and time is left."""
    if first.method.directions is None or first.status == "wrong":
        return []
    start = time.perf_counter()
    for _ in range(TIMED_CALLS):
        problem[0](problem[2])
    each = (time.perf_counter() - start) / TIMED_CALLS
    room = SHARES["sample"] * plan.left / max(each, 1e-7) - CALIBRATION_EVALUATIONS
    count = int(min(room / EVALUATIONS_PER_COMPONENT, first.method.size))
    if count < LEAST_SAMPLE:
        plan.skipped.append(f"a sample {where}: there is no time for it")
        return []
    return plan.run(f"a sample {where}", problem, sample=count, method="components")


def _trained(gradient: Any, theta: Any, blocks: Any) -> Any:
    """Return θ after some gradient steps, each a share of ‖θ‖."""
    tree, vector, _ = ParameterTree.of(theta, blocks)
    for _ in range(TRAINING_STEPS):
        slope: Floats = tree.read(gradient(tree.form_of(vector.copy())))[0]
        size = float(np.linalg.norm(slope))
        if size > 0.0:
            rate = STEP_SHARE * (float(np.linalg.norm(vector)) or 1.0) / size
            vector = tree.held(0, vector - rate * slope)
    return tree.form_of(vector)


def _worst(reports: list[Report]) -> Report:
    return max(reports, key=lambda report: SEVERITIES.index(report.status))


def _described(report: Report, plan: _Plan) -> Report:
    """Return the report with what the protocol covered."""
    notes = [f"Protocol, {text}" for text in plan.done]
    notes += [f"Protocol, not done: {text}." for text in plan.skipped]
    return replace(report, notes=(*report.notes, *notes))
