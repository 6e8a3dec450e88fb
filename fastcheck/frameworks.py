"""`check_torch` and its kin: a model of another program checked in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcheck.check import gradcheck
from fastcheck.importers.from_torch import TorchOptions, problem_from_torch
from fastcheck.problem import Problem
from fastcheck.report import Report

__all__ = ["check_torch"]


def _check(problem: Problem, settings: dict[str, Any], call: str) -> Report:
    """Check a problem."""
    given = {"cost": problem.cost, "name": problem.name, "command": call, **settings}
    return gradcheck(
        problem.network, problem.inputs, problem.targets, problem.gradient, **given
    )


def _split(options: dict[str, Any], own: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the importer's options, and the settings of the check."""
    mine = {name: value for name, value in options.items() if name in own.__annotations__}
    return mine, {name: value for name, value in options.items() if name not in mine}


def _shown(call: str, options: dict[str, Any]) -> str:
    shown = "".join(
        f", {name}={value!r}" for name, value in options.items() if isinstance(value, (int, float, str))
    )
    return f"{call}{shown})"


def check_torch(
    module: Any, loss: Callable[[Any, Any], Any], inputs: Any, targets: Any, **options: Any
) -> Report:
    """Check a PyTorch module's gradient, as `loss(module(inputs), targets).backward()` gives it.

    Parameters
    ----------
    module, loss, inputs, targets
        See `problem_from_torch`.
    **options
        See `TorchOptions`, and `CheckOptions` for how the check is made.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        See `problem_from_torch` and `gradcheck`.
    """
    own, settings = _split(options, TorchOptions)
    problem = problem_from_torch(module, loss, inputs, targets, **own)  # type: ignore[typeddict-item]
    return _check(problem, settings, _shown("check_torch(module, loss, inputs, targets", options))
