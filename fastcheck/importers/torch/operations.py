"""What each recorded PyTorch operation is in a chain of dense layers, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, Layer, unsupported
from fastcheck.importers.torch.recording import Operation, Value

__all__ = ["ACTIVATION_READERS", "RESHAPES", "add_to_chain", "array_of", "precision_of"]

PRECISIONS = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def precision_of(tensor: Any) -> str:
    """Return the precision of a tensor's dtype."""
    return PRECISIONS.get(tensor.dtype, "float64")


def array_of(tensor: Any) -> NDArray[Any]:
    """Return a tensor's values as an array of its own, bfloat16 as float32."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    return np.asarray(plain.numpy()).copy()


def refused(operation: Operation, why: str = "") -> InputError:
    """Return the error that names an operation and its place."""
    remedy = ""
    path = operation.path
    flow = operation.flow
    elementwise = flow and operation.output is not None and flow[0].shape == operation.output.shape
    if elementwise and not operation.parameters and path:
        remedy = (
            f"If {path!r} is an elementwise activation, say which: "
            f"activations={{{path!r}: 'relu'}}, or give its forward as a function of one float."
        )
    return unsupported(f"{operation.name}{why}", operation.place, remedy)


# Readers of activations: operation -> what fastcheck calls it.

Reader = Callable[[Operation], Any]


def _plain(name: str) -> Reader:
    return lambda operation: name


def _with_parameter(name: str, argument: str, default: float) -> Reader:
    def read(operation: Operation) -> Any:
        return name, float(operation.argument(1, argument, default))

    return read


def _leaky_relu(operation: Operation) -> Any:
    slope = float(operation.argument(1, "negative_slope", 0.01))
    if slope <= 0:
        return "relu" if slope == 0 else _refuse(operation, f" with negative_slope={slope:g}")
    return "leaky_relu", slope


def _refuse(operation: Operation, why: str) -> Any:
    raise refused(operation, why)


def _clipped(low: str, high: str, defaults: tuple[float | None, float | None]) -> Reader:
    known = {(0.0, None): "relu", (-1.0, 1.0): "hardtanh", (0.0, 6.0): "relu6"}

    def read(operation: Operation) -> Any:
        given = (operation.argument(1, low, defaults[0]), operation.argument(2, high, defaults[1]))
        bounds = tuple(_number(b) for b in given)
        if bounds not in known:
            raise refused(operation, f" to {given[0]}..{given[1]}")
        return known[bounds]

    return read


def _number(value: Any) -> float | None:
    if isinstance(value, Value):
        return (
            float(value.tensor) if value.tensor.numel() == 1 and not value.theta else float("nan")
        )
    return None if value is None else float(value)


def _gelu(operation: Operation) -> Any:
    return "gelu_tanh" if operation.argument(1, "approximate", "none") == "tanh" else "gelu"


def _softplus(operation: Operation) -> Any:
    beta = float(operation.argument(1, "beta", 1.0))
    threshold = float(operation.argument(2, "threshold", 20.0))
    if beta != 1.0 or threshold < 15.0:
        raise refused(operation, f" with beta={beta:g}, threshold={threshold:g}")
    return "softplus"


def _celu(operation: Operation) -> Any:
    if float(operation.argument(1, "alpha", 1.0)) != 1.0:
        raise refused(operation, " with alpha other than 1")
    return "elu"


def _threshold(operation: Operation) -> Any:
    if (operation.argument(1, "threshold"), operation.argument(2, "value")) != (0, 0):
        raise refused(operation, " at another place than 0")
    return "relu"


def _maximum(operation: Operation) -> Any:
    others = [v for v in operation.inputs if not v.flow]
    if len(others) != 1 or others[0].theta or bool(torch.any(others[0].tensor != 0)):
        raise refused(operation)
    return "relu"


def _softmax_like(name: str) -> Reader:
    def read(operation: Operation) -> Any:
        dim = operation.argument(1, "dim")
        if len(operation.flow[0].shape) != 2 or dim not in (None, 1, -1):
            raise refused(operation, f" over dimension {dim}, which is not the classes',")
        return name

    return read


ACTIVATION_READERS: dict[str, Reader] = {
    **{
        name: _plain(name)
        for name in ("relu", "relu6", "selu", "sigmoid", "tanh", "silu", "softsign", "mish")
    },
    "expit": _plain("sigmoid"),
    "leaky_relu": _leaky_relu,
    "elu": _with_parameter("elu", "alpha", 1.0),
    "celu": _celu,
    "hardtanh": _clipped("min_val", "max_val", (-1.0, 1.0)),
    "clamp": _clipped("min", "max", (None, None)),
    "clamp_min": _clipped("min", "max", (None, None)),
    "gelu": _gelu,
    "softplus": _softplus,
    "threshold": _threshold,
    "maximum": _maximum,
    "softmax": _softmax_like("softmax"),
    "log_softmax": _softmax_like("log_softmax"),
    "activation": lambda operation: operation.claim,
}

# Operations that leave the values and their order as they are.
RESHAPES = {
    "flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone", "identity",
    "view_as", "reshape_as", "unflatten", "ravel", "positive", "requires_grad",
}  # fmt: skip
CONVERSIONS = {"to", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda"}
DROPOUTS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout", "rrelu",
}  # fmt: skip


def active_dropout(operation: Operation) -> bool:
    """Return whether an operation draws random numbers now."""
    if operation.name not in DROPOUTS:
        return False
    return bool(operation.argument(2, "training", True)) and operation.argument(1, "p", 0.5) != 0


def refuse_dropout(operation: Operation) -> InputError:
    """Return the error for dropout that is switched on."""
    return InputError(
        f"{operation.place}: {operation.name} is switched on: J is another function at each call",
        "a J(θ) that gives the same value for the same θ",
        "Call module.eval() first, or check with p=0.",
    )


def leaves_as_is(operation: Operation) -> bool:
    """Return whether an operation only hands its input on."""
    name = operation.name
    if not operation.flow:
        return False
    before, after = operation.flow[0], operation.output
    if name in DROPOUTS:
        return name != "rrelu" and not active_dropout(operation)
    if after is None or operation.parameters:
        return False
    if name in CONVERSIONS:
        return bool(before.tensor.dtype == after.tensor.dtype)
    if name == "getitem":
        index = operation.args[1] if isinstance(operation.args[1], tuple) else (operation.args[1],)
        one_column = before.shape[-1] == 1 and index[-1] in (0, -1)
        whole = all(part in (slice(None), ...) for part in index[:-1]) and len(index) > 1
        return one_column and whole
    return name in RESHAPES


def add_to_chain(chain: Chain, operation: Operation, m: int) -> bool:
    """Add what an operation does to the chain; return False for an operation that it can't hold.

    Parameters
    ----------
    chain : Chain
    operation : Operation
    m : int
        Number of samples.

    Raises
    ------
    InputError
        For dropout that is switched on, and for layers and activations of a kind that a network
        does not have.
    """
    if active_dropout(operation):
        raise refuse_dropout(operation)
    if operation.name in LAYERS:
        LAYERS[operation.name](chain, operation, m)
    elif operation.name == "add" and len(operation.parameters) == 1:
        _add_biases(chain, operation)
    elif operation.name in ACTIVATION_READERS:
        chain.activation(ACTIVATION_READERS[operation.name](operation), operation.place)
    else:
        return leaves_as_is(operation)
    return True


def _linear(chain: Chain, operation: Operation, m: int) -> None:
    x, W = operation.argument(0, "input"), operation.argument(1, "weight")
    _dense(chain, operation, (x, W, True), m)
    bias = operation.argument(2, "bias")
    if bias is not None:
        _set_biases(chain, operation, bias)


def _matmul(chain: Chain, operation: Operation, m: int) -> None:
    x, W = operation.args[:2]
    if not (W.theta and not W.data):
        raise refused(operation, " of weights with samples in columns (W @ X)")
    _dense(chain, operation, (x, W, False), m)


def _addmm(chain: Chain, operation: Operation, m: int) -> None:
    bias, x, W = operation.args[:3]
    if any(operation.kwargs.get(k, 1) != 1 for k in ("alpha", "beta")) or not W.theta or W.data:
        raise refused(operation, " with factors, or with samples in columns,")
    _dense(chain, operation, (x, W, False), m)
    _set_biases(chain, operation, bias)


LAYERS: dict[str, Callable[[Chain, Operation, int], None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "addmm": _addmm,
}


def _root(value: Value, operation: Operation, what: str) -> Value:
    """Return the parameter that a value is a view of."""
    here = value
    while not here.parameter:
        makers = [] if here.maker is None else here.maker.inputs
        if len(makers) != 1:
            raise unsupported(
                f"{what} of {operation.name}, which are computed and not a parameter of their own "
                "(weight_norm, a mask, …),", operation.place,
            )  # fmt: skip
        here = makers[0]
    return here


def _dense(chain: Chain, operation: Operation, factors: tuple[Value, Value, bool], m: int) -> None:
    """Add x Wᵀ (or, not `turned`, x W) as a layer without biases."""
    x, W, turned = factors
    root = _root(W, operation, "the weights")
    if len(x.shape) != 2 or x.shape[0] != m:
        raise unsupported(
            f"{operation.name} on inputs of shape {x.shape} for a batch of {m}", operation.place,
            "Dense layers take (samples, features): flatten first.",
        )  # fmt: skip
    here, stored = W.tensor.detach(), root.tensor.detach()
    rows = here if turned else here.T  # (n_out, n_in)
    transposed = not _same(rows, stored)
    if transposed and not _same(rows.T, stored):
        raise unsupported(
            f"the weights of {operation.name}, which are computed from {root.parameter},",
            operation.place,
        )
    chain.precisions.append(precision_of(stored))
    names = (root.parameter, "")
    chain.dense(Layer(array_of(stored), None, names, transposed=transposed), operation.place)


def _same(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and torch.equal(a, b))


def _set_biases(chain: Chain, operation: Operation, value: Any) -> None:
    """Give the last layer its biases."""
    layer = chain.layers[-1]
    root = _root(value, operation, "the biases")
    n_out = layer.outputs
    stored = root.tensor.detach().reshape(-1)
    used = value.tensor.detach()
    fits = stored.numel() == n_out and used.shape[-1:] in ((n_out,), ())
    if not fits or not bool((used.reshape(-1, n_out) == stored).all()):
        raise unsupported(
            f"{operation.name} of {root.parameter}, which is no vector of {n_out} biases,",
            operation.place,
        )
    layer.biases = array_of(stored)
    layer.names = (layer.names[0], root.parameter)


def _add_biases(chain: Chain, operation: Operation) -> None:
    layer = chain.layers[-1] if chain.layers else None
    behind = layer is not None and layer.biases is None and layer.activation is None
    if not behind or operation.kwargs.get("alpha", 1) != 1:
        raise refused(operation, " of a parameter that is no layer's bias")
    _set_biases(chain, operation, operation.parameters[0])
