"""A PyTorch module left as it was found: parameters, buffers, .grad, and torch's random numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastcheck.errors import InputError

__all__ = ["left_as_found", "own_gradient"]


@contextmanager
def left_as_found(module: Any) -> Iterator[None]:
    """Put back what a pass may change: batch norm counts, hooks may step optimizers."""
    tensors = [t for _, t in _all_tensors(module)]
    held = [t.detach().clone() for t in tensors]
    places = list(_places(module))
    grads = [(p, p.grad, p.requires_grad) for p in module.parameters()]
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            yield
    finally:
        for store, name, tensor in places:
            store[name] = tensor
        with torch.no_grad():
            for tensor, before in zip(tensors, held, strict=True):
                if not _identical(tensor, before):
                    tensor.copy_(before)
        for parameter, grad, required in grads:
            parameter.requires_grad_(required)
            parameter.grad = grad


def _all_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _places(module: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield where each buffer hangs: some modules hang up another one in each pass."""
    for child in module.modules():
        for name, tensor in child._buffers.items():
            yield child._buffers, name, tensor


def _identical(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))


def own_gradient(module: Any, loss: Any, inputs: Any, targets: Any) -> tuple[dict[str, Any], Any]:
    """Return the gradients that `loss(module(inputs), targets).backward()` leaves, and J.

    Returns
    -------
    tuple
        Gradients by parameter name (None where there is none), and J. Frozen parameters
        (requires_grad=False) are thawed for the pass.

    Raises
    ------
    InputError
        If the pass fails or steps an optimizer.
    """
    parameters = dict(module.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    _, J = run(module, loss, inputs, targets)
    try:
        J.backward()
    except RuntimeError as error:
        raise failed("J.backward()", error) from error
    moved = [name for name, p in parameters.items() if not _identical(p.detach(), before[name])]
    if moved:
        raise InputError(
            f"{moved[0]} changes during backward() (a hook steps an optimizer?)",
            "a backward pass that leaves the parameters alone",
            "Remove the hook for the check.",
        )
    found = {name: p.grad for name, p in parameters.items()}
    return found, J.detach()


def run(module: Any, loss: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Return the module's outputs, and J, one number with a gradient."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is refused with a reason later
            outputs = module(inputs.clone())
            J = loss(outputs, targets)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise failed("loss(module(inputs), targets)", error) from error
    if not isinstance(J, torch.Tensor) or J.numel() != 1:
        kind = f"shape {tuple(J.shape)}" if isinstance(J, torch.Tensor) else type(J).__name__
        raise InputError(f"a loss of {kind}", "one number", "Reduce it by .mean() or .sum().")
    if not J.requires_grad:
        raise InputError(
            "a loss without a gradient (no grad_fn)", "a loss that depends on the parameters"
        )
    return outputs, J


def failed(what: str, error: Exception) -> InputError:
    """Return what PyTorch says of a pass that fails."""
    reason = " ".join(str(error).split())[:240]
    return InputError(f"{what} fails: {reason}", "a module and a loss that take this batch")
