"""`check_torch` and its kin: a model of another program checked in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.check import gradcheck
from fastcheck.errors import InputError
from fastcheck.function_options import FUNCTION_METHODS, FunctionOptions
from fastcheck.functions import gradcheck_function
from fastcheck.importers.chain import NoChainError
from fastcheck.importers.function import ModelFunction
from fastcheck.importers.jax.model import JaxOptions, problem_from_jax
from fastcheck.importers.keras.model import KerasOptions, problem_from_keras
from fastcheck.importers.sklearn import problem_from_sklearn
from fastcheck.importers.torch.model import TorchOptions, problem_from_torch
from fastcheck.layers import gradcheck_layer
from fastcheck.model.contract import CONTRACT
from fastcheck.model.layer import cotangents, inputs_by_name
from fastcheck.model.problem import Problem
from fastcheck.report import Report

__all__ = [
    "check_jax",
    "check_jax_function",
    "check_keras",
    "check_sklearn",
    "check_torch",
    "check_torch_function",
]


def _check(problem: Problem, settings: dict[str, Any], call: str) -> Report:
    """Check a problem."""
    given = {"cost": problem.cost, "name": problem.name, "command": call, **settings}
    return gradcheck(problem.network, problem.inputs, problem.targets, problem.gradient, **given)


def _check_function(
    function: ModelFunction, settings: dict[str, Any], call: str, reason: InputError
) -> Report:
    """Check a model that is no dense chain as a function of its parameters."""
    mine = {k: v for k, v in settings.items() if k in FunctionOptions.__annotations__}
    if mine.get("method") not in FUNCTION_METHODS:
        mine.pop("method", None)
    given: Any = {"name": f"{function.name}, as a function of its parameters", "command": call}
    report = gradcheck_function(
        function.cost, function.gradient, function.theta, **{**given, **mine}
    )
    why = f"No chain of dense layers ({reason.given}): checked as a black box."
    return replace(report, notes=(why, *function.notes, *report.notes))


def _split(options: dict[str, Any], own: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the importer's options, and the settings of the check."""
    mine = {name: value for name, value in options.items() if name in own.__annotations__}
    return mine, {name: value for name, value in options.items() if name not in mine}


def _shown(call: str, options: dict[str, Any]) -> str:
    shown = "".join(
        f", {name}={value!r}"
        for name, value in options.items()
        if isinstance(value, (int, float, str))
    )
    return f"{call}{shown})"


def check_torch(
    module: Any, loss: Callable[[Any, Any], Any], inputs: Any, targets: Any, **options: Any
) -> Report:
    """Check a PyTorch module's gradient, as `loss(module(inputs), targets).backward()` gives it.

    A module that is no chain of dense layers is checked as a function of its parameters, in a
    float64 copy where there is one; the report says so.

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
    call = _shown("check_torch(module, loss, inputs, targets", options)
    try:
        problem = problem_from_torch(module, loss, inputs, targets, **own)
    except InputError as error:
        tokens = "float" not in str(getattr(inputs, "dtype", "float"))
        if own or not (isinstance(error, NoChainError) or tokens):
            raise
        from fastcheck.importers.torch.function import function_from_torch

        function = function_from_torch(module, loss, inputs, targets)
        return _check_function(function, settings, call, error)
    return _check(problem, settings, call)


def check_keras(model: Any, loss: Any, inputs: Any, targets: Any, **options: Any) -> Report:
    """Check a Keras model's gradient, as its backend gives it.

    Parameters
    ----------
    model, loss, inputs, targets
        See `problem_from_keras`.
    **options
        See `KerasOptions`, and `CheckOptions` for how the check is made.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        See `problem_from_keras` and `gradcheck`.
    """
    own, settings = _split(options, KerasOptions)
    problem = problem_from_keras(model, loss, inputs, targets, **own)
    return _check(problem, settings, _shown("check_keras(model, loss, inputs, targets", options))


def check_sklearn(model: Any, inputs: Any, targets: Any, **settings: Any) -> Report:
    """Check the gradient that scikit-learn's own `_backprop` gives at a model's present weights.

    Parameters
    ----------
    model, inputs, targets
        See `problem_from_sklearn`.
    **settings
        See `CheckOptions`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        See `problem_from_sklearn` and `gradcheck`.
    """
    problem = problem_from_sklearn(model, inputs, targets)
    return _check(problem, settings, _shown("check_sklearn(model, inputs, targets", settings))


def check_jax(params: Any, gradient: Any, inputs: Any, targets: Any, **options: Any) -> Report:
    """Check the gradient of a pytree of dense layers.

    Other models are checked as functions of their parameters, where `cost=` is a function.

    Parameters
    ----------
    params, gradient, inputs, targets
        See `problem_from_jax`.
    **options
        See `JaxOptions`, and `CheckOptions` for how the check is made.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        See `problem_from_jax` and `gradcheck`.
    """
    own, settings = _split(options, JaxOptions)
    call = _shown("check_jax(params, gradient, inputs, targets", options)
    try:
        problem = problem_from_jax(params, gradient, inputs, targets, **own)
    except NoChainError as error:
        if not callable(own.get("cost")) or set(own) - {"cost"}:
            raise
        from fastcheck.importers.jax.function import function_from_jax

        function = function_from_jax(params, gradient, inputs, targets, own["cost"])
        return _check_function(function, settings, call, error)
    return _check(problem, settings, call)


def check_torch_function(
    function: Callable[..., Any], inputs: Any, *, order: int = 1, **options: Any
) -> Report:
    """Check what autograd makes of a PyTorch function: `MyFunction.apply`, or any other.

    Parameters
    ----------
    function : callable
        `function(*inputs)` returns a tensor or a tuple of tensors. Outputs that are marked as
        non-differentiable are left out.
    inputs : sequence or mapping
        Tensors and other values. Where some require a gradient, only these are checked.
    order : int
        2 for the backward pass of the backward pass, too.
    **options
        See `gradcheck_layer`.

    Returns
    -------
    Report
        As of `gradcheck_layer`. `needed gradients` tells whether a gradient changes where fewer
        inputs require one.

    Raises
    ------
    InputError
        See `gradcheck_layer`; and where no tensor holds floating-point numbers.
    """
    from fastcheck.importers.torch.layer import TorchLayer

    named = inputs_by_name(inputs, getattr(function, "__wrapped__", function))
    if "args" in named or len(named) != len(inputs):
        named = {f"x{k}": value for k, value in enumerate(inputs)}
    values = tuple(named.values())
    layer = TorchLayer.of(function, values)
    if order == 2:
        options["double_backward"] = layer.double_backward
    detached = {n: v.detach() if hasattr(v, "detach") else v for n, v in named.items()}
    report = gradcheck_layer(layer.forward, layer.backward, detached, order=order, **options)
    made = layer.forward(*detached.values())
    outputs = made if isinstance(made, tuple) else (made,)
    dout = cotangents(outputs, np.random.default_rng(0))
    found = (tuple(detached.values()), list(named))
    lines = {line.name: line for line in report.contract}
    skip = options.get("skip", ())
    for name, check in (
        ("needed gradients", layer.combinations),
        ("arguments unchanged", layer.twice),
    ):
        line = None if name in skip else check(dout, *found)
        if line is not None:
            lines[name] = line
    return replace(report, contract=tuple(lines[name] for name in CONTRACT if name in lines))


def check_jax_function(
    function: Callable[..., Any], args: Any, *, order: int = 1, **options: Any
) -> Report:
    """Check what `jax.vjp` makes of a function with `custom_vjp` or `custom_jvp`, or any other.

    Forward mode is held to the same differences where the function has it.

    Parameters
    ----------
    function : callable
        `function(*args)` returns an array or a tuple of arrays.
    args : sequence or mapping
        Arrays and other values.
    order : int
        2 for the backward pass of the backward pass, too.
    **options
        See `gradcheck_layer`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        See `gradcheck_layer`; and where no argument holds floating-point numbers.
    """
    from fastcheck.importers.jax.layer import JaxLayer

    layer = JaxLayer(function)
    named = {
        name: np.asarray(value) if hasattr(value, "shape") else value
        for name, value in inputs_by_name(args, getattr(function, "__wrapped__", function)).items()
    }
    if order == 2:
        options["double_backward"] = layer.double_backward
    if "jvp" not in options and layer.has_forward_mode(*named.values()):
        options["jvp"] = layer.jvp
    strides = ("strides of dout", "strides of inputs", "expanded dout")
    options["skip"] = (*options.get("skip", ()), *strides)  # JAX's arrays have none
    return gradcheck_layer(layer.forward, layer.backward, named, order=order, **options)
