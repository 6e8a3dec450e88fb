"""A Keras 3 model, its loss and a batch, taken over as a problem; the backend makes the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, Layer, LossTerms, cannot_take
from fastcheck.importers.extras import framework
from fastcheck.network import NetworkOptions
from fastcheck.problem import Problem

__all__ = ["KerasOptions", "problem_from_keras"]


class KerasOptions(TypedDict, total=False):
    """How a model is read.

    Attributes
    ----------
    activations : mapping
        What activations of your own claim to be: by a layer's name, or by the function.
    """

    activations: dict[Any, Any]


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


def problem_from_keras(
    model: Any, loss: Any, inputs: Any, targets: Any, **options: Unpack[KerasOptions]
) -> Problem:
    """Take over a Keras model's parameters, loss and regularizers, and its backend's gradient.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional: a chain of Dense layers, activations, Flatten and Dropout (which
        is off: the model is called with training=False). It is left as it was found.
    loss : str, keras.losses.Loss or None
        None for the loss that the model was compiled with.
    inputs, targets : array_like
        One batch, brought into the model's precision.
    **options
        See `KerasOptions`.

    Returns
    -------
    Problem
        Kernels are (n_in, n_out) and called `dense/kernel`; an L2 regularizer λ is λ·Σ‖W‖².

    Raises
    ------
    InputError
        Without Keras; for layers, losses and regularizers that can't be taken over, named with
        their place.
    """
    keras = framework("keras", "keras")
    if not isinstance(model, keras.Model):
        raise cannot_take(f"a model of type {type(model).__name__}", "keras")
    if not model.built or not getattr(model, "outputs", None) or len(model.outputs) != 1:
        raise cannot_take(
            "a model that is subclassed, not built, or has several outputs", model.name,
            "Call a Sequential once to build it.",
        )  # fmt: skip
    objective = _loss_object(keras, model, loss)
    chain, prefix = Chain(model.name), []
    for operation in _operations(keras, model):
        if not _add(keras, chain, operation, dict(options.get("activations") or {})):
            prefix.append(operation)
    T, terms = _targets_and_terms(chain, objective, targets)
    dtype = str(model.variables[0].dtype) if not chain.layers else str(chain.layers[0].weights.dtype)
    X = np.asarray(inputs).astype(dtype)
    gradients, J = _own_gradient(keras, model, objective, (X, np.asarray(targets)))
    network = chain.network({**terms(X.shape[0]), **_penalty(keras, model)})
    found = {}
    for block in network.order.blocks:
        found[block.gradient_name] = gradients[chain.layers[block.layer - 1].names[block.kind == "b"]]
    return Problem(
        network, _entering(prefix, X), T, found, cost=J, name=f"{model.name}: {network.describe()}"
    )


# From the model to a chain.


def _operations(keras: Any, model: Any) -> Iterator[Any]:
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
            raise cannot_take(f"{type(operation).__name__} of {len(before)} branches", operation.name)
        if not before:
            break
        tensor = before[0]
    for operation in reversed(found):
        if isinstance(operation, keras.Model):
            yield from _operations(keras, operation)
        else:
            yield operation


def _add(keras: Any, chain: Chain, operation: Any, claims: dict[Any, Any]) -> bool:
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
    elif _snake(kind) in ACTIVATIONS:
        chain.activation(_of_operation(operation, kind), place)
    else:
        remedy = f"If it is an elementwise activation, say which: activations={{{operation.name!r}: 'relu'}}."
        raise cannot_take(kind, place, "" if getattr(operation, "weights", []) else remedy)
    return True


def _snake(kind: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")


def _of_operation(operation: Any, kind: str) -> Any:
    """Return the activation that an operation of keras.ops is."""
    if kind == "LeakyRelu":
        return "leaky_relu", float(operation.negative_slope)
    if kind == "Gelu":
        return "gelu_tanh" if operation.approximate else "gelu"
    if kind == "Elu":
        return "elu", float(operation.alpha)
    return ACTIVATIONS[_snake(kind)]


def _relu_layer(layer: Any, place: str) -> Any:
    top, slope, threshold = layer.max_value, float(layer.negative_slope), float(layer.threshold)
    if threshold or (top not in (None, 6.0)) or (top is not None and slope):
        raise cannot_take(f"ReLU up to {top} with threshold {threshold:g}", place)
    if slope:
        return "leaky_relu", slope
    return "relu6" if top is not None else "relu"


def _softmax_layer(layer: Any, place: str) -> Any:
    if layer.axis not in (-1, 1):
        raise cannot_take(f"Softmax over axis {layer.axis}", place)
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
        raise cannot_take(
            f"the activation {name!r}", place,
            f"Say which one it is: activations={{{place.split(' ')[0]!r}: 'relu'}}, or give its forward "
            "as a function of one float.",
        )  # fmt: skip
    return ACTIVATIONS[name]


def _dense(chain: Chain, layer: Any, claims: dict[Any, Any], place: str) -> None:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise cannot_take("a Dense layer with LoRA or quantization", place)
    kernel = _array(layer.kernel)
    biases = _array(layer.bias) if layer.use_bias else None
    names = (f"{layer.name}/kernel", f"{layer.name}/bias")
    chain.precisions.append(str(layer.compute_dtype))
    if str(layer.compute_dtype) != str(layer.kernel.dtype):
        raise cannot_take(
            f"mixed precision ({layer.compute_dtype} with weights in {layer.kernel.dtype})", place
        )
    chain.dense(Layer(kernel, biases, names, transposed=True), place)
    chain.activation(_activation(layer.activation, {**claims, **_by_layer(claims, layer)}, place), place)


def _by_layer(claims: dict[Any, Any], layer: Any) -> dict[Any, Any]:
    return {layer.activation: claims[layer.name]} if layer.name in claims else {}


def _array(variable: Any) -> NDArray[Any]:
    value = getattr(variable, "value", variable)
    if hasattr(value, "detach"):
        from fastcheck.importers.torch_operations import array_of

        return array_of(value)
    return np.asarray(value).copy()


def _entering(prefix: list[Any], X: NDArray[Any]) -> NDArray[Any]:
    """Return what enters the first Dense layer: all before it has no parameters."""
    keras = framework("keras", "keras")
    values = keras.ops.convert_to_tensor(X)
    for operation in prefix:
        if type(operation).__name__ != "InputLayer":
            values = operation(values)
    array = _array(values)
    if array.ndim != 2:
        raise cannot_take(
            f"a Dense layer on inputs of shape {array.shape}", "the first layer",
            "Dense layers take (samples, features): flatten first.",
        )  # fmt: skip
    return array


# The penalty, the loss and its targets.


def _penalty(keras: Any, model: Any) -> NetworkOptions:
    """Return the L2 regularizer of all kernels; other regularizers are refused."""
    rates = {}
    for layer in _layers(keras, model):
        for name in ("bias_regularizer", "activity_regularizer"):
            if getattr(layer, name, None) is not None:
                raise cannot_take(f"{name}", f"{layer.name} ({type(layer).__name__})")
        if isinstance(layer, keras.layers.Dense):
            rates[layer.name] = _rate(keras, layer)
    if len(set(rates.values())) > 1:
        given = ", ".join(f"{name}: {rate:g}" for name, rate in rates.items())
        raise cannot_take(f"regularizers that differ between kernels ({given})", model.name)
    return {"l2": next(iter(rates.values()), 0.0), "penalty": "l2"}


def _layers(keras: Any, model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(keras, layer)
        else:
            yield layer


def _rate(keras: Any, layer: Any) -> float:
    regularizer = layer.kernel_regularizer
    if regularizer is None:
        return 0.0
    known = type(regularizer) in (keras.regularizers.L2, keras.regularizers.L1L2)
    if not known or float(getattr(regularizer, "l1", 0.0) or 0.0):
        raise cannot_take(f"the regularizer {type(regularizer).__name__}", f"{layer.name} (Dense)")
    return float(regularizer.l2)


def _loss_object(keras: Any, model: Any, loss: Any) -> Any:
    """Return a loss object; a string or function becomes one, as `compile` does."""
    chosen = getattr(model, "loss", None) if loss is None else loss
    if chosen is None:
        raise InputError(
            "no loss, and a model that was not compiled", "loss='mse', a keras.losses.Loss, or compile"
        )
    if isinstance(chosen, keras.losses.Loss):
        return chosen
    if isinstance(chosen, type) and issubclass(chosen, keras.losses.Loss):
        return chosen()
    found = keras.losses.get(chosen) if isinstance(chosen, str) else chosen
    for kind in ("CategoricalCrossentropy", "SparseCategoricalCrossentropy", "BinaryCrossentropy",
                 "MeanSquaredError", "Huber"):  # fmt: skip
        if getattr(found, "__name__", "") == _snake(kind):
            return getattr(keras.losses, kind)()
    raise cannot_take(f"the loss {getattr(found, '__name__', found)!r}", model.name)


def _targets_and_terms(
    chain: Chain, loss: Any, targets: Any
) -> tuple[NDArray[Any], Callable[[int], NetworkOptions]]:
    """Return the targets, and the loss in fastcheck's words for m samples."""
    kind = type(loss).__name__
    # get_config leaves Huber's delta out.
    config = {**loss.get_config(), **getattr(loss, "_fn_kwargs", {})}
    if kind not in LOSSES:
        raise cannot_take(f"the loss {kind}", chain.owner)
    if not chain.layers:
        raise cannot_take("a model without a Dense layer", chain.owner)
    outputs = chain.layers[-1].outputs
    T, spec, per_sample = LOSSES[kind](chain, config, np.asarray(targets))
    reduction = config.get("reduction", "sum_over_batch_size")
    if reduction not in ("sum_over_batch_size", "mean", "sum"):
        raise cannot_take(f"reduction={reduction!r} of {kind}", chain.owner)

    def options(m: int) -> NetworkOptions:
        count = 1 if reduction == "sum" else m
        return LossTerms(spec, per_sample / count).options(m, outputs)

    return T, options


Read = tuple[NDArray[Any], Any, float]  # targets, loss, factor of a sample's loss


def _rows(chain: Chain, T: NDArray[Any]) -> NDArray[Any]:
    outputs = chain.layers[-1].outputs
    rows = T.reshape(-1, 1) if T.ndim == 1 and outputs == 1 else T
    if rows.ndim != 2 or rows.shape[1] != outputs:
        raise InputError(f"targets of shape {T.shape}", f"(m, {outputs})")
    return rows


def _smoothed(config: dict[str, Any], rows: NDArray[Any], middle: float) -> NDArray[Any]:
    smoothing = float(config.get("label_smoothing", 0.0))
    return rows * (1.0 - smoothing) + smoothing * middle if smoothing else rows


def _categorical(chain: Chain, config: dict[str, Any], T: NDArray[Any]) -> Read:
    if not config.get("from_logits"):
        chain.fuse("softmax", "CategoricalCrossentropy(from_logits=False)")
    rows = _rows(chain, T)
    return _smoothed(config, rows, 1.0 / rows.shape[1]), "softmax_cross_entropy", 1.0


def _sparse(chain: Chain, config: dict[str, Any], T: NDArray[Any]) -> Read:
    if config.get("ignore_class") is not None:
        raise cannot_take("ignore_class of SparseCategoricalCrossentropy", chain.owner)
    if not config.get("from_logits"):
        chain.fuse("softmax", "SparseCategoricalCrossentropy(from_logits=False)")
    return T.reshape(-1), "softmax_cross_entropy", 1.0


def _binary(chain: Chain, config: dict[str, Any], T: NDArray[Any]) -> Read:
    if not config.get("from_logits"):
        chain.fuse("sigmoid", "BinaryCrossentropy(from_logits=False)")
    rows = _rows(chain, T)
    return _smoothed(config, rows, 0.5), "sigmoid_cross_entropy", 1.0 / rows.shape[1]


def _squared(chain: Chain, config: dict[str, Any], T: NDArray[Any]) -> Read:
    rows = _rows(chain, T)
    return rows, "squared_error", 2.0 / rows.shape[1]


def _huber(chain: Chain, config: dict[str, Any], T: NDArray[Any]) -> Read:
    rows = _rows(chain, T)
    return rows, ("huber", float(config.get("delta", 1.0))), 1.0 / rows.shape[1]


LOSSES: dict[str, Callable[[Chain, dict[str, Any], NDArray[Any]], Read]] = {
    "CategoricalCrossentropy": _categorical,
    "SparseCategoricalCrossentropy": _sparse,
    "BinaryCrossentropy": _binary,
    "MeanSquaredError": _squared,
    "Huber": _huber,
}


# The gradient, by the backend.


def _own_gradient(
    keras: Any, model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Return the gradient by `layer/kernel`, and J with the regularizers' share."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise InputError(f"Keras on {backend}", f"one of {', '.join(BACKENDS)}")
    gradients, J = BACKENDS[backend](model, loss, batch)
    names = {}
    for layer in _layers(keras, model):
        for kind in ("kernel", "bias"):
            variable = getattr(layer, kind, None)
            if variable is not None:
                names[id(variable)] = f"{layer.name}/{kind}"
    found = {}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        found[names.get(id(variable), variable.path)] = gradient
    frozen = {id(v) for v in model.weights} - {id(v) for v in model.trainable_variables}
    if frozen & set(names):
        name = names[next(iter(frozen & set(names)))]
        raise InputError(
            f"{name} is not trainable: it has no gradient", "layers that are trainable",
            "Set layer.trainable = True for the check.",
        )  # fmt: skip
    return found, J


def _by_torch(
    model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[list[Any], NDArray[Any]]:
    torch = framework("torch", "torch")
    from fastcheck.importers.torch_operations import array_of
    from fastcheck.importers.torch_state import left_as_found

    with left_as_found(model):
        for parameter in model.parameters():
            parameter.grad = None
        J = _objective(model, loss, batch)
        J.backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        found = [None if g is None else array_of(g) for g in gradients]
        return found, array_of(torch.as_tensor(J)).reshape(())


def _objective(model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]) -> Any:
    X, T = batch
    J = loss(T, model(X, training=False))
    for share in model.losses:
        J = J + share
    return J


def _by_jax(
    model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[list[Any], NDArray[Any]]:
    jax = framework("jax", "jax")
    X, T = batch
    fixed = [v.value for v in model.non_trainable_variables]

    def objective(trainable: Any) -> Any:
        outputs, _, shares = model.stateless_call(
            trainable, fixed, X, training=False, return_losses=True
        )
        return loss(T, outputs) + sum(shares)

    values = [v.value for v in model.trainable_variables]
    J, gradients = jax.value_and_grad(objective)(values)
    return [np.asarray(g) for g in gradients], np.asarray(J)


def _by_tensorflow(
    model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[list[Any], NDArray[Any]]:
    tensorflow = framework("tensorflow", "keras")
    with tensorflow.GradientTape() as tape:
        J = _objective(model, loss, batch)
    gradients = tape.gradient(J, [v.value for v in model.trainable_variables])
    return [None if g is None else np.asarray(g) for g in gradients], np.asarray(J)


BACKENDS = {"torch": _by_torch, "jax": _by_jax, "tensorflow": _by_tensorflow}
