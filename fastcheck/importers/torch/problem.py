"""From a recording of a PyTorch module to a problem: chain, loss, penalty, gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastcheck.errors import InputError, near_names
from fastcheck.importers.activation_names import GRID, activation_values
from fastcheck.importers.chain import Chain, unsupported
from fastcheck.importers.torch.decay import weight_decay
from fastcheck.importers.torch.losses import LossReader
from fastcheck.importers.torch.operations import add_to_chain, array_of, precision_of, refused
from fastcheck.importers.torch.recording import Operation, Recorder, Value
from fastcheck.importers.torch.state import failed, left_as_found, own_gradient, run
from fastcheck.model.network import Network, NetworkOptions
from fastcheck.model.problem import Problem
from fastcheck.validation import unit_roundoff

__all__ = ["read_module"]

# How far a claimed activation may be from its own forward, in units of the unit roundoff.
CLOSE = 64.0
# How far two passes through the same module may be apart: sums in another order, no more.
REORDERED = 1e4


@dataclass(frozen=True)
class Recorded:
    """One pass: the operations from the first layer to J, and where the module ends.

    Attributes
    ----------
    operations : list of Operation
    inside : int
        How many of them are the module's; the others are the loss's.
    X : Value
        What enters the first layer.
    J : torch.Tensor or None
        None where the loss was not recorded.
    """

    operations: list[Operation]
    inside: int
    X: Value
    J: Any


def read_module(
    module: Any, loss: Callable[[Any, Any], Any], batch: tuple[Any, Any], options: Mapping[str, Any]
) -> Problem:
    """Return a module with its loss and a batch as a problem; see `problem_from_torch`."""
    _check_module(module, loss)
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    loss = loss() if isinstance(loss, type) else loss
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    with left_as_found(module):
        inputs, targets = _tensors(module, batch)
        recorded = _record(module, loss, (inputs, targets), options)
        chain = Chain(type(module).__name__)
        reader = _read(chain, recorded, inputs.shape[0])
        gradients, J = own_gradient(module, loss, inputs, targets)
        _check_same(J, recorded.J)
        decay = weight_decay(module, chain, gradients, options.get("optimizer"))
    network = chain.network(_network_options(chain, reader, (decay.rate, options)))
    cost: Any = array_of(J).reshape(())
    if decay.rate:
        cost = float(cost) + network.penalty_scale(1) * sum(
            float(np.vdot(layer.weights, layer.weights)) for layer in chain.layers
        )
    thawed = [f"{name} is frozen; checked all the same" for name in frozen]
    return Problem(
        network,
        array_of(recorded.X.tensor),
        array_of(targets) if reader.targets is None else reader.targets,
        _by_block(network, chain, gradients),
        cost=cost,
        name="; ".join([f"{chain.owner}: {network.describe()}", *decay.notes, *thawed]),
    )


def _check_module(module: Any, loss: Any) -> None:
    """Refuse what is no module, and modules without parameters of their own."""
    if isinstance(module, torch.jit.ScriptModule) or not isinstance(module, torch.nn.Module):
        raise InputError(
            f"a module of type {type(module).__name__}",
            "a torch.nn.Module in Python",
            "Give the module that it was made from.",
        )
    if not callable(loss):
        raise InputError(
            f"a loss of type {type(loss).__name__}", "nn.CrossEntropyLoss() or the like"
        )
    parameters = dict(module.named_parameters())
    if not parameters:
        raise unsupported("a module without parameters", type(module).__name__)
    for name, parameter in parameters.items():
        if torch.nn.parameter.is_lazy(parameter):
            raise InputError(
                f"{name} is not initialised yet (a lazy module)",
                "parameters of a known shape",
                "Run the module once before the check.",
            )


def _tensors(module: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return inputs and targets in the module's precision, copies of what was given."""
    like = next(module.parameters())
    try:
        inputs, targets = (torch.as_tensor(_plain(part)).detach().clone() for part in batch)
    except (TypeError, ValueError, RuntimeError) as error:
        raise failed("reading the batch", error) from error
    if inputs.ndim < 2 or inputs.shape[0] == 0:
        raise InputError(
            f"inputs of shape {tuple(inputs.shape)}", "a batch: (samples, features)",
            "For one sample, give inputs[None].",
        )  # fmt: skip
    inputs = inputs.to(like.device, like.dtype)
    targets = targets.to(like.device)
    if targets.is_floating_point():
        return inputs, targets.to(like.dtype)
    labels = targets.to(torch.int64)
    return inputs, labels.to(like.dtype) if _same_shape(module, inputs, labels) else labels


def _plain(values: Any) -> Any:
    return values if isinstance(values, torch.Tensor) else np.asarray(values)


def _same_shape(module: Any, inputs: Any, targets: Any) -> bool:
    """Return whether whole numbers are targets of the outputs' shape, and so no labels."""
    try:
        with torch.no_grad():
            outputs = module(inputs.clone())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise failed("module(inputs)", error) from error
    return bool(getattr(outputs, "shape", None) == targets.shape)


def _record(module: Any, loss: Any, batch: tuple[Any, Any], options: Mapping[str, Any]) -> Recorded:
    """Run the module and its loss once, and find the way from the first layer to J."""
    claims = dict(options.get("activations") or {})
    own_loss = options.get("loss_as") is not None
    ends: list[Value] = []

    def noted(outputs: Any, targets: Any) -> Any:
        if not isinstance(outputs, torch.Tensor):
            raise InputError(
                f"{type(module).__name__} gives a {type(outputs).__name__}", "one tensor of outputs"
            )
        ends.append(recorder.value(outputs))
        recorder.enter_loss()
        return loss(outputs, targets)

    for parameter in module.parameters():
        parameter.requires_grad_(True)
    with Recorder(module, claims) as recorder:
        for part in batch:
            recorder.data(part)
        _, J = run(module, noted, *batch)
        last = ends[0] if own_loss else recorder.value(J)
    _check_claims_used(module, claims, recorder.used)
    operations, X = _way(last, type(module).__name__)
    _check_claims(operations)
    inside = [k for k, o in enumerate(operations, start=1) if o.output is ends[0]]
    if not inside:
        raise InputError("a loss that does not use the module's outputs", "loss(outputs, targets)")
    return Recorded(operations, inside[0], X, J.detach())


def _way(value: Value, owner: str) -> tuple[list[Operation], Value]:
    """Return the operations from the first layer to a value, and what enters the first."""
    operations: list[Operation] = []
    while True:
        if not value.flow:
            raise unsupported("outputs that depend on no parameter", owner)
        operation = value.maker
        if operation is None:
            raise unsupported(
                f"{type(value.node).__name__} (an operation that can't be seen)", owner
            )
        operation.output = value
        operations.append(operation)
        if len(operation.flow) > 1:
            raise refused(operation, " of two branches (a skip, a gate, a sum of losses)")
        if not operation.flow:
            break
        value = operation.flow[0]
    entering = [v for v in operation.inputs if not v.theta]
    if not entering:
        raise refused(operation)
    return operations[::-1], entering[0]


def _check_claims_used(module: Any, claims: Mapping[Any, Any], used: set[Any]) -> None:
    for key in claims:
        if key not in used:
            known = [name for name, _ in module.named_modules() if name]
            near = near_names(key, known) if isinstance(key, str) and known else ""
            raise InputError(
                f"activations={{{key!r}: …}}, which the forward pass does not come through",
                "a submodule's name or class, an autograd.Function, or a torch function",
                near,
            )


def _check_claims(operations: list[Operation]) -> None:
    """Hold each named activation's own forward against what it claims to be."""
    for operation in operations:
        if operation.name != "activation" or not operation.flow:
            continue
        like = operation.flow[0].tensor
        grid = torch.as_tensor(GRID).to(like.device, like.dtype)
        call = getattr(operation.function, "apply", operation.function)
        if isinstance(operation.function, torch.nn.Module):
            call = operation.function
        try:
            with torch.no_grad():
                own = array_of(call(grid.clone())).astype(np.float64)
        except (RuntimeError, TypeError, ValueError):
            continue  # it wants another shape; J is compared in any case
        z = array_of(grid).astype(np.float64)
        claimed = activation_values(operation.claim, z)
        if own.shape != z.shape:
            raise refused(operation, f", which makes {own.shape} of {z.shape},")
        u = unit_roundoff(precision_of(like))
        apart = np.abs(own - claimed) - CLOSE * u * (1.0 + np.abs(z))
        worst = int(np.argmax(apart))
        if not apart.flat[worst] <= 0:
            raise InputError(
                f"{operation.place} gives {own.flat[worst]:.6g} at z = {z.flat[worst]:.6g}, "
                f"where {_name(operation.claim)} is {claimed.flat[worst]:.6g}",
                "a forward that is what activations= says",
                "Name the activation it is, or give its forward as a function of one float.",
            )


def _name(claim: Any) -> str:
    return getattr(claim, "__name__", str(claim))


def _read(chain: Chain, recorded: Recorded, m: int) -> LossReader:
    """Take layers and activations into the chain, and what follows them into the loss."""
    reader = LossReader(chain, m)
    for operation in recorded.operations[: recorded.inside]:
        if not add_to_chain(chain, operation, m):
            raise refused(operation)
    for operation in recorded.operations[recorded.inside :]:
        started = reader.loss is not None or reader.residual is not None
        if started or not add_to_chain(chain, operation, m):
            reader.read(operation)
    return reader


def _check_same(J: Any, recorded: Any) -> None:
    apart = float((J - recorded).abs())
    if not apart <= REORDERED * unit_roundoff(precision_of(J)) * float(J.abs()):
        raise InputError(
            f"J is {float(recorded):.9g} and then {float(J):.9g} for the same parameters",
            "the same value for the same θ: random numbers in the forward pass make J another "
            "function at each call",
            "Call module.eval() first, or fix what is random.",
        )


def _network_options(
    chain: Chain, reader: LossReader, penalty: tuple[float, Mapping[str, Any]]
) -> NetworkOptions:
    """Return loss and penalty in fastcheck's words."""
    decay, options = penalty
    l2 = float(options.get("l2", 0.0))
    if decay and l2:
        raise InputError(
            "both optimizer= with weight_decay and l2=", "one of them", "A network has one penalty."
        )
    if reader.penalty and not l2:
        raise InputError(
            "a loss that adds something made of the parameters alone",
            "to be told which penalty it is: l2=λ and penalty='l2/2' for λ/2·Σ‖W‖²",
        )
    convention = "l2/2" if decay else options.get("penalty", "l2/2")
    chosen: NetworkOptions = {"l2": l2 or decay, "penalty": convention}
    if options.get("loss_as") is not None:
        return {**chosen, "loss": options["loss_as"], "reduction": options.get("reduction", "mean")}
    return {**chosen, **reader.terms().options(reader.m, chain.layers[-1].outputs)}


def _by_block(network: Network, chain: Chain, gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gradient by the names that a gradient has."""
    found: dict[str, Any] = {}
    for block in network.order.blocks:
        layer = chain.layers[block.layer - 1]
        tensor = gradients[layer.names[0 if block.kind == "W" else 1]]
        if tensor is not None and block.kind == "W":
            found[block.gradient_name] = chain.in_layout(layer, array_of(tensor))
        else:
            found[block.gradient_name] = None if tensor is None else array_of(tensor)
    return found
