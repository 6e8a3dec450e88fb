"""A PyTorch module that is no dense chain, as a function of its parameters.

J comes from a float64 copy where the module has one, the gradient from the module's own precision
and its own `backward`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastcheck.errors import InputError
from fastcheck.importers.function import ModelFunction
from fastcheck.importers.torch.state import failed, left_as_found, own_gradient

__all__ = ["function_from_torch"]

# A float64 copy whose J is farther from the module's own computes something else.
SAME_J = 1e-3


def function_from_torch(
    module: Any, loss: Callable[[Any, Any], Any], inputs: Any, targets: Any
) -> ModelFunction:
    """Return J as a function of a module's parameters, and the module's own gradient.

    Parameters
    ----------
    module : torch.nn.Module
        Left as it was found.
    loss : callable
        `loss(module(inputs), targets)`.
    inputs, targets : tensor or array_like
        One batch; floating point is brought into the module's precision.

    Raises
    ------
    InputError
        Where the module or the loss does not take the batch.
    """
    module = getattr(module, "_orig_mod", module)
    loss = loss() if isinstance(loss, type) else loss
    own = {name: p.detach() for name, p in module.named_parameters()}
    like = next(iter(own.values()))
    batch = tuple(_moved(part, like.dtype, like.device) for part in (inputs, targets))

    def gradient(theta: dict[str, Any]) -> dict[str, Any]:
        with left_as_found(module):
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(theta[name])
            found = own_gradient(module, loss, *batch)[0]
        return {name: None if g is None else g.detach().cpu() for name, g in found.items()}

    with left_as_found(module):
        J = float(own_gradient(module, loss, *batch)[1])
    cost, theta, precision = _cost(module, loss, batch, J)
    notes = [
        f"J was evaluated in {precision}, the gradient is backward()'s in {_name(like.dtype)}.",
        *_notes(module),
    ]
    return ModelFunction(cost, gradient, theta, type(module).__name__, tuple(notes))


def _moved(values: Any, dtype: Any, device: Any) -> Any:
    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
    tensor = tensor.detach().clone().to(device)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _cost(
    module: Any, loss: Any, batch: tuple[Any, ...], J: float
) -> tuple[Callable[[Any], float], dict[str, Any], str]:
    """Return J as a function, where it is, and its precision: float64 where that is possible."""
    dtype = next(module.parameters()).dtype
    for wanted in dict.fromkeys((torch.float64, dtype)):
        cost, theta = _in_precision(module, loss, batch, wanted)
        try:
            value = cost(theta)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if wanted == dtype:
                raise failed("loss(module(inputs), targets)", error) from error
            continue
        if wanted == dtype or abs(value - J) <= SAME_J * max(abs(J), 1e-30):
            return cost, theta, _name(wanted)
    raise InputError(f"J is {J:g} and then another value", "the same J for the same parameters")


def _in_precision(
    module: Any, loss: Any, batch: tuple[Any, ...], dtype: Any
) -> tuple[Callable[[Any], float], dict[str, Any]]:
    """Return J and its parameters in a precision, of a copy of the module."""
    twin = copy.deepcopy(module).to(dtype)
    device = next(twin.parameters()).device
    inputs, targets = (_moved(part, dtype, device) for part in batch)
    buffers = {name: b.detach().clone() for name, b in twin.named_buffers()}
    criterion = copy.deepcopy(loss).to(dtype) if isinstance(loss, torch.nn.Module) else loss

    def cost(theta: Any) -> float:
        # Batch norm writes its running statistics: each evaluation has buffers of its own.
        state = {**theta, **{name: b.clone() for name, b in buffers.items()}}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = torch.func.functional_call(twin, state, (inputs.clone(),))
            return float(criterion(outputs, targets))

    return cost, {name: p.detach().clone() for name, p in twin.named_parameters()}


def _notes(module: Any) -> list[str]:
    """Name what is frozen, and what is the same parameter under two names."""
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    notes = [f"{name} is frozen; checked all the same." for name in frozen]
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            notes.append(
                f"{name} is tied to {first}: one parameter, with the sum of both gradients."
            )
    return notes
