"""The layers of a Keras model, read one after the other into a chain of dense layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.importers.chain import Chain, Layer, unsupported
from fastcheck.importers.optional import require

__all__ = ["add_layer", "all_layers", "entering", "operations", "snake"]

# Functions of keras.activations with their defaults; keras.ops operations by class name, too.
ACTIVATIONS: dict[str, Any] = {
    "linear": "identity", "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh",
    "softplus": "softplus", "softsign": "softsign", "soft_sign": "softsign", "silu": "silu",
    "swish": "silu", "elu": "elu", "selu": "selu", "gelu": "gelu", "mish": "mish",
    "hard_tanh": "hardtanh", "softmax": "softmax", "log_softmax": "log_softmax",
    "leaky_relu": ("leaky_relu", 0.2),
}  # fmt: skip
# Layers that are the identity when a model does not train, or that only reshape.
SILENT = {
    "InputLayer", "Flatten", "Reshape", "Identity", "Dropout", "GaussianNoise", "GaussianDropout",
    "AlphaDropout", "SpatialDropout1D", "ActivityRegularization",
}  # fmt: skip


def operations(keras: Any, model: Any) -> Iterator[Any]:
    """Yield the layers from inputs to outputs; nested models are opened."""
    found = []
    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        if operation not in getattr(model, "_operations", [operation]):
            break
        found.append(operation)
        before = operation._inbound_nodes[history.node_index].input_tensors
        if len(before) > 1:
            raise unsupported(
                f"{type(operation).__name__} of {len(before)} branches", operation.name
            )
        if not before:
            break
        tensor = before[0]
    for operation in reversed(found):
        if isinstance(operation, keras.Model):
            yield from operations(keras, operation)
        else:
            yield operation


def add_layer(keras: Any, chain: Chain, operation: Any, claims: dict[Any, Any]) -> bool:
    """Add what a layer does to the chain; return False for what comes before the first layer."""
    kind, place = type(operation).__name__, f"{operation.name} ({type(operation).__name__})"
    if isinstance(operation, keras.layers.Dense):
        _dense(chain, operation, claims, place)
    elif operation.name in claims:
        chain.activation(claims[operation.name], place)
    elif kind in SILENT:
        return bool(chain.layers)
    elif not chain.layers and not getattr(operation, "weights", []):
        return False
    elif isinstance(operation, keras.layers.Activation):
        chain.activation(_activation(operation.activation, claims, place), place)
    elif kind in LAYERS:
        chain.activation(LAYERS[kind](operation, place), place)
    elif snake(kind) in ACTIVATIONS:
        chain.activation(_of_operation(operation, kind), place)
    else:
        which = f"activations={{{operation.name!r}: 'relu'}}"
        remedy = f"If it is an elementwise activation, say which: {which}."
        raise unsupported(kind, place, "" if getattr(operation, "weights", []) else remedy)
    return True


def snake(kind: str) -> str:
    """Return `leaky_relu` for `LeakyRelu`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")


def _of_operation(operation: Any, kind: str) -> Any:
    """Return the activation that an operation of keras.ops is."""
    if kind == "LeakyRelu":
        return "leaky_relu", float(operation.negative_slope)
    if kind == "Gelu":
        return "gelu_tanh" if operation.approximate else "gelu"
    if kind == "Elu":
        return "elu", float(operation.alpha)
    return ACTIVATIONS[snake(kind)]


def _relu_layer(layer: Any, place: str) -> Any:
    top, slope, threshold = layer.max_value, float(layer.negative_slope), float(layer.threshold)
    if threshold or (top not in (None, 6.0)) or (top is not None and slope):
        raise unsupported(f"ReLU up to {top} with threshold {threshold:g}", place)
    if slope:
        return "leaky_relu", slope
    return "relu6" if top is not None else "relu"


def _softmax_layer(layer: Any, place: str) -> Any:
    if layer.axis not in (-1, 1):
        raise unsupported(f"Softmax over axis {layer.axis}", place)
    return "softmax"


LAYERS: dict[str, Callable[[Any, str], Any]] = {
    "ReLU": _relu_layer,
    "LeakyReLU": lambda layer, place: ("leaky_relu", float(layer.negative_slope)),
    "ELU": lambda layer, place: ("elu", float(layer.alpha)),
    "Softmax": _softmax_layer,
}


def _activation(function: Any, claims: dict[Any, Any], place: str) -> Any:
    """Return fastcheck's name of an activation function."""
    if function is None:
        return "identity"
    if function in claims:
        return claims[function]
    name = getattr(function, "__name__", type(function).__name__)
    own = not getattr(function, "__module__", "").startswith("keras")
    if own or name not in ACTIVATIONS:
        raise unsupported(
            f"the activation {name!r}", place,
            f"Say which one it is: activations={{{place.partition(' ')[0]!r}: 'relu'}}, or give "
            "its forward as a function of one float.",
        )  # fmt: skip
    return ACTIVATIONS[name]


def _dense(chain: Chain, layer: Any, claims: dict[Any, Any], place: str) -> None:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise unsupported("a Dense layer with LoRA or quantization", place)
    kernel = values_of(layer.kernel)
    biases = values_of(layer.bias) if layer.use_bias else None
    names = (f"{layer.name}/kernel", f"{layer.name}/bias")
    chain.precisions.append(str(layer.compute_dtype))
    if str(layer.compute_dtype) != str(layer.kernel.dtype):
        raise unsupported(
            f"mixed precision ({layer.compute_dtype} with weights in {layer.kernel.dtype})", place
        )
    chain.dense(Layer(kernel, biases, names, transposed=True), place)
    chain.activation(
        _activation(layer.activation, {**claims, **_by_layer(claims, layer)}, place), place
    )


def _by_layer(claims: dict[Any, Any], layer: Any) -> dict[Any, Any]:
    return {layer.activation: claims[layer.name]} if layer.name in claims else {}


def values_of(variable: Any) -> NDArray[Any]:
    value = getattr(variable, "value", variable)
    if hasattr(value, "detach"):
        from fastcheck.importers.torch.operations import array_of

        return array_of(value)
    return np.asarray(value).copy()


def entering(prefix: list[Any], X: NDArray[Any]) -> NDArray[Any]:
    """Return what enters the first Dense layer: all before it has no parameters."""
    keras = require("keras", "keras")
    values = keras.ops.convert_to_tensor(X)
    for operation in prefix:
        if type(operation).__name__ != "InputLayer":
            values = operation(values)
    array = values_of(values)
    if array.ndim != 2:
        raise unsupported(
            f"a Dense layer on inputs of shape {array.shape}", "the first layer",
            "Dense layers take (samples, features): flatten first.",
        )  # fmt: skip
    return array


def all_layers(keras: Any, model: Any) -> Iterator[Any]:
    """Yield the layers of a model and of those inside it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(keras, layer)
        else:
            yield layer
