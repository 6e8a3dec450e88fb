"""Lines of the contract that need differences: other inputs, repeated indices, forward mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.functions import gradcheck_function
from fastcheck.layers.options import LayerSettings
from fastcheck.layers.problem import LayerProblem
from fastcheck.methods.contract import Subject
from fastcheck.model.contract import ContractLine
from fastcheck.model.layer import (
    Layer,
    Values,
    cotangents,
    inner_product,
    is_real,
    like,
    numbers,
)

__all__ = ["accused_by", "forward_mode", "lines_at_other_inputs", "listed", "problem_at"]

Array = NDArray[Any]

POINT_SPREAD = 0.1  # relative distance of the other point
POINT_DIRECTIONS = 2


def lines_at_other_inputs(
    subject: Subject, wide: Layer | None, settings: LayerSettings, wrong: set[str]
) -> Iterator[ContractLine]:
    """Yield the lines that need differences at other inputs.

    Parameters
    ----------
    subject : Subject
    wide : Layer or None
        The same layer in float64, where it has less.
    settings : LayerSettings
    wrong : set of str
        Inputs whose gradient is wrong already, which are left out.
    """
    for name, moved in (("repeated indices", _repeated), ("at another point", _elsewhere)):
        if name in settings.skip:
            continue
        layer = subject.layer if wide is None else wide
        inputs, reason = moved(layer, settings.seed)
        if inputs is None:
            if reason:
                yield ContractLine(name, "not checked", reason)
            continue
        yield ContractLine(name, *_verdict_at(subject, layer.at(inputs), settings, wrong))


def _repeated(layer: Layer, seed: int) -> tuple[Values | None, str]:
    """Return inputs whose indices occur twice."""
    indices = {
        n: numbers(v)
        for n, v in layer.inputs.items()
        if hasattr(v, "shape") and numbers(v).dtype.kind in "iu" and numbers(v).size > 1
    }
    if not indices:
        return None, ""
    made = {}
    for name, values in indices.items():
        flat = values.ravel().copy()
        if np.array_equal(np.sort(flat), np.arange(flat.size)):
            return None, f"{name} is a permutation"
        flat[1::2] = flat[: flat.size // 2 * 2 : 2]
        made[name] = _integers(layer.inputs[name], flat.reshape(values.shape))
    return {**layer.inputs, **made}, ""


def _integers(template: Any, values: Array) -> Any:
    if hasattr(template, "detach"):
        import torch

        return torch.from_numpy(values).to(template.device)
    if type(template).__module__.partition(".")[0] in ("jax", "jaxlib"):
        import jax

        return jax.numpy.asarray(values)
    return values


def _elsewhere(layer: Layer, seed: int) -> tuple[Values | None, str]:
    """Return inputs a tenth away."""
    random = np.random.default_rng([seed, 8])
    moved = {}
    for name, value in layer.inputs.items():
        if is_real(value):
            array = numbers(value)
            away = 1.0 + POINT_SPREAD * (2.0 * random.random(array.shape) - 1.0)
            moved[name] = like(value, np.asarray(array * away))
    return {**layer.inputs, **moved}, ""


def _verdict_at(
    subject: Subject, layer: Layer, settings: LayerSettings, wrong: set[str]
) -> tuple[str, str]:
    """Return what random directions in each input say at other inputs.

    A gradient that was right before and is the same here, where it is wrong, does not follow the
    inputs.
    """
    try:
        problem = problem_at(subject, layer, wrong)
        if isinstance(problem, str):
            return "not checked", problem
        accused, agrees = accused_by(problem, settings)
    except Exception as error:
        return "not checked", f"raises {type(error).__name__}: {str(error).splitlines()[0][:80]}"
    if not accused:
        return ("agree" if agrees else "not checked"), ""
    found, first = layer.gradients(problem.dout).values, subject.first.values
    stale = [n for n in accused if np.array_equal(found[n], first[n])]
    if stale:
        return "wrong", f"{listed(stale)} stays the same, while the differences change"
    return "wrong", f"{listed(accused)} is not the gradient there"


def problem_at(subject: Subject, layer: Layer, wrong: set[str]) -> LayerProblem | str:
    """Return J at other inputs, of those that are not wrong already; or why there is none."""
    dout = _dout_there(subject, layer)
    if dout is None:
        return "the outputs have other shapes there"
    first = subject.first.values
    fits = [n for n in first if first[n].shape == numbers(layer.inputs[n]).shape]
    names = tuple(n for n in fits if n not in wrong)
    return LayerProblem(layer, dout, names) if names else "no gradient is right at these inputs"


def accused_by(
    problem: LayerProblem, settings: LayerSettings, gradient: dict[str, Array] | None = None
) -> tuple[tuple[str, ...], bool]:
    """Return the inputs whose gradient random directions show wrong, and whether all agree.

    Parameters
    ----------
    problem : LayerProblem
    settings : LayerSettings
    gradient : dict of str to ndarray, optional
        Unless it is that of the layer.
    """
    theta = problem.theta()
    given = problem.gradient(theta) if gradient is None else gradient
    report = gradcheck_function(
        problem.cost, {name: given[name] for name in problem.names}, theta,
        method="directions", directions=POINT_DIRECTIONS, seed=settings.seed,
        resolution=settings.function.get("resolution", 1e-2),
    )  # fmt: skip
    accused = tuple(block.parameter for block in report.blocks if block.verdict == "wrong")
    return accused, report.status == "agree"


def _dout_there(subject: Subject, layer: Layer) -> tuple[Any, ...] | None:
    """Return dout in the form of a layer's outputs; None where these have other shapes."""
    outputs = layer.outputs()
    shapes = [np.shape(numbers(d)) for d in subject.dout if d is not None]
    if [
        numbers(o).shape for o, d in zip(outputs, subject.dout, strict=True) if d is not None
    ] != shapes:
        return None
    pairs = zip(subject.dout, outputs, strict=True)
    return tuple(None if d is None else like(o, numbers(d)) for d, o in pairs)


def listed(names: Iterable[str]) -> str:
    """Return `dx, dw`."""
    return ", ".join(f"d{name}" for name in names)


def forward_mode(subject: Subject, wide: Layer | None, settings: LayerSettings) -> ContractLine:
    """Hold ⟨dout, jvp(u)⟩ to the differences of J along u."""
    layer = subject.layer if wide is None else wide
    random = np.random.default_rng([settings.seed, 9])
    assert settings.jvp is not None
    for name in subject.first.values:
        zero = {
            n: like(v, 0.0 * numbers(v)) if is_real(v) else None for n, v in layer.inputs.items()
        }
        u = cotangents((layer.inputs[name],), random)[0]
        tangents = settings.jvp(tuple({**zero, name: u}.values()), *layer.inputs.values())
        tangents = tangents if isinstance(tangents, tuple) else (tangents,)
        value = inner_product(subject.dout, tangents)

        def along(t: float, n: str = name, u: Any = u) -> float:
            start = layer.inputs[n]
            moved = like(start, np.asarray(numbers(start) + t * numbers(u)))
            return inner_product(subject.dout, layer.at({**layer.inputs, n: moved}).outputs())

        report = gradcheck_function(along, value, 0.0)
        if report.status != "agree":
            return ContractLine("jvp", report.status, f"along a direction of {name}")
    return ContractLine("jvp", "agree")
