"""A PyTorch module, its loss and a batch, taken over as a problem.

What the module does is read off one recorded forward pass, so any module counts whose forward
comes down to a chain of dense layers and activations. torch is imported when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from fastcheck.errors import InputError, near_names
from fastcheck.importers.optional import require
from fastcheck.model.network import Network, NetworkOptions
from fastcheck.model.problem import Problem

__all__ = ["TorchOptions", "network_from_state_dict", "problem_from_torch"]

NESTED = ("state_dict", "model_state_dict", "model")


class TorchOptions(TypedDict, total=False):
    """How a module is read.

    Attributes
    ----------
    activations : mapping
        What activations of your own claim to be: by a submodule's name (`"2"`), its class, an
        `autograd.Function`, or a torch function. The claim is a name (`"gelu"`), `(name,
        parameter)`, or a function of one float that numba can compile.
    optimizer : torch.optim.Optimizer
        Its `weight_decay` λ is added to gradient and J, as λ/2·Σ‖W‖².
    l2, penalty : float, str
        The penalty that the loss itself adds, in fastcheck's words; `penalty` is `"l2/2"` unless
        told otherwise.
    loss_as, reduction : str
        What a loss of your own claims to be: `"squared_error"`, `"mean"`.
    """

    activations: Mapping[Any, Any]
    optimizer: Any
    l2: float
    penalty: str
    loss_as: Any
    reduction: str


def problem_from_torch(
    module: Any,
    loss: Callable[[Any, Any], Any],
    inputs: Any,
    targets: Any,
    **options: Unpack[TorchOptions],
) -> Problem:
    """Take over a module's parameters, its loss, and its gradient by `backward()`.

    Parameters
    ----------
    module : torch.nn.Module
        A chain of dense layers and activations, in eval mode where it has dropout. Its parameters,
        buffers, `.grad` and hooks are left as they were found.
    loss : callable
        `loss(module(inputs), targets)`: a module or function of torch, or your own made of these.
    inputs, targets : tensor or array_like
        One batch; brought into the module's precision.
    **options
        See `TorchOptions`.

    Returns
    -------
    Problem
        Its blocks have the module's own names; the gradient is in the module's own precision.

    Raises
    ------
    InputError
        Without torch; for what is no chain (a convolution, a skip, batch norm), named with its
        place; for dropout that is switched on; for an activation whose forward is not what it
        claims to be; and for weights or classes that the loss weighs differently.

    Examples
    --------
    >>> problem = problem_from_torch(net, nn.CrossEntropyLoss(), x, y)  # doctest: +SKIP
    """
    require("torch", "torch")
    from fastcheck.importers.torch.problem import read_module

    unknown = sorted(set(options) - set(TorchOptions.__annotations__))
    if unknown:
        raise InputError(
            f"unknown option {unknown[0]!r}",
            "an option of problem_from_torch",
            near_names(unknown[0], TorchOptions.__annotations__),
        )
    return read_module(module, loss, (inputs, targets), options)


def network_from_state_dict(
    state: str | os.PathLike[str] | Mapping[str, Any], **options: Unpack[NetworkOptions]
) -> Network:
    """Return a network with the weights and biases of a state dict.

    Parameters
    ----------
    state : path or mapping
        A file of `torch.save(module.state_dict(), …)`, loaded with `weights_only=True`, or the
        dictionary itself. `name.weight` (n_out, n_in) and `name.bias` make a layer, in their order.
    **options
        Activations, loss and penalty, which a state dict does not hold; see
        `Network.from_arrays`.

    Raises
    ------
    InputError
        For a file that holds more than tensors, which is never unpickled, and for tensors that are
        no weights or biases of a dense layer.
    """
    torch = require("torch", "torch")
    from fastcheck.importers.chain import Chain

    arrays = dict(state) if isinstance(state, Mapping) else _loaded(torch, Path(state))
    for key in NESTED:
        if isinstance(arrays.get(key), Mapping):
            arrays = dict(arrays[key])
    chain = Chain("state")
    _gather(chain, arrays)
    chosen: NetworkOptions = {**options}
    activations: Any = chosen.pop("activations", "relu")
    if isinstance(activations, str) or callable(activations):
        activations = [activations] * (len(chain.layers) - 1) + ["identity"]
    for layer, spec in zip(chain.layers, activations, strict=len(chain.layers) == len(activations)):
        layer.activation = spec
    return chain.network(chosen)


def _loaded(torch: Any, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"no file {file}", "a file of torch.save(module.state_dict(), …)")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it does not load
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file.name} can't be loaded with weights_only=True ({reason})",
            "a state dict: tensors by name",
            "Save module.state_dict() with torch.save. Whole modules are never unpickled.",
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(f"{file.name} holds a {type(found).__name__}", "a state dict")
    return dict(found)


def _gather(chain: Any, arrays: Mapping[str, Any]) -> None:
    """Pair weights and biases, in their order."""
    from fastcheck.importers.chain import Layer, unsupported
    from fastcheck.importers.torch.operations import array_of, precision_of

    left = dict(arrays)
    for name in list(arrays):
        stem, dot, last = name.rpartition(".")
        if last != "weight":
            continue
        weights = left.pop(name)
        if getattr(weights, "ndim", 0) != 2:
            raise unsupported(
                f"{name} of shape {tuple(getattr(weights, 'shape', ()))}", "state dict"
            )
        biases = left.pop(f"{stem}{dot}bias", None)
        chain.precisions.append(precision_of(weights))
        vector = None if biases is None else array_of(biases)
        chain.dense(Layer(array_of(weights), vector, (name, f"{stem}{dot}bias")), name)
    if left:
        raise unsupported(
            f"{next(iter(left))!r}, no weight or bias of a dense layer,", "state dict"
        )
