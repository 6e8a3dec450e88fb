"""The line of the contract on sizes 0 and 1, where the user's function of inputs takes a size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.layers.options import LayerSettings
from fastcheck.layers.other_inputs import accused_by, listed
from fastcheck.layers.problem import LayerProblem
from fastcheck.model.contract import ContractLine
from fastcheck.model.layer import Layer, cotangents, inputs_by_name, numbers

__all__ = ["line_of_sizes"]

NAME = "sizes 0 and 1"
SIZES = (1, 0)


def line_of_sizes(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, settings: LayerSettings
) -> ContractLine | None:
    """Check at sizes 1 and 0; None where inputs is no function with a parameter `size`."""
    if not callable(inputs) or "size" not in inspect.signature(inputs).parameters:
        return None
    refused = []
    for size in SIZES:
        made = inputs_by_name(inputs(settings.seed, size=size), forward)
        layer = Layer(forward, backward, made, settings.saved)
        status, text = _at_size(layer, settings)
        if status == "wrong":
            return ContractLine(NAME, "wrong", f"{text} at size {size}")
        if text:
            refused.append(f"{text} at size {size}")
    return ContractLine(NAME, "not checked" if refused else "agree", "; ".join(refused))


def _at_size(layer: Layer, settings: LayerSettings) -> tuple[str, str]:
    """Return what holds; a forward that raises is not defined there, a backward that does is."""
    try:
        dout = cotangents(layer.outputs(), np.random.default_rng([settings.seed, 14]))
    except Exception as error:
        return "not checked", f"forward raises {type(error).__name__}"
    try:
        found = layer.gradients(dout).values
    except Exception as error:
        return "wrong", f"backward raises {type(error).__name__}"
    shapes = {name: numbers(layer.inputs[name]).shape for name in found}
    odd = [name for name, value in found.items() if value.shape != shapes[name]]
    if odd:
        return "wrong", f"{listed(odd)} has another shape"
    undefined = [name for name, value in found.items() if not np.isfinite(value).all()]
    if undefined:
        return "wrong", f"{listed(undefined)} holds NaN or infinity"
    names = tuple(name for name, value in found.items() if value.size)
    try:
        accused = accused_by(LayerProblem(layer, dout, names), settings)[0] if names else ()
    except Exception as error:
        return "not checked", f"differences raise {type(error).__name__}"
    return ("wrong", f"{listed(accused)} is not the gradient") if accused else ("agree", "")
