"""A Keras 3 model, its loss and a batch as a problem; the backend makes the gradient."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import numpy as np

from fastcheck.importers.chain import Chain, unsupported
from fastcheck.importers.keras.chain import add_layer, entering, operations
from fastcheck.importers.keras.gradient import own_gradient
from fastcheck.importers.keras.losses import loss_object, penalty, targets_and_terms
from fastcheck.importers.optional import require
from fastcheck.model.problem import Problem
from fastcheck.validation import lower_precision

__all__ = ["KerasOptions", "problem_from_keras"]


class KerasOptions(TypedDict, total=False):
    """How a model is read.

    Attributes
    ----------
    activations : mapping
        What activations of your own claim to be: by a layer's name, or by the function.
    """

    activations: dict[Any, Any]


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
    keras = require("keras", "keras")
    if not isinstance(model, keras.Model):
        raise unsupported(f"a model of type {type(model).__name__}", "keras")
    if not model.built or not getattr(model, "outputs", None) or len(model.outputs) != 1:
        raise unsupported(
            "a model that is subclassed, not built, or has several outputs", model.name,
            "Call a Sequential once to build it.",
        )  # fmt: skip
    objective = loss_object(keras, model, loss)
    chain, prefix = Chain(model.name), []
    for operation in operations(keras, model):
        if not add_layer(keras, chain, operation, dict(options.get("activations") or {})):
            prefix.append(operation)
    T, terms = targets_and_terms(chain, objective, targets)
    X = np.asarray(inputs).astype(_entry_dtype(model, chain))
    # On copies: NumPy arrays share their memory with some backends' tensors.
    gradients, J = own_gradient(keras, model, objective, (X.copy(), np.array(targets)))
    # What J came out in, whatever the loss says of itself: on torch it computes in floatx.
    chain.precisions += [str(getattr(objective, "dtype", None) or keras.config.floatx())]
    chain.precisions += [str(J.dtype)]
    network = chain.network({**terms(X.shape[0]), **penalty(keras, model)})
    found = {}
    for block in network.order.blocks:
        found[block.gradient_name] = gradients[
            chain.layers[block.layer - 1].names[block.kind == "b"]
        ]
    return Problem(
        network, entering(prefix, X), T, found, cost=J, name=f"{model.name}: {network.describe()}"
    )


def _entry_dtype(model: Any, chain: Chain) -> str:
    """Return the precision in which the batch enters the first layer."""
    layer = chain.layers[0].weights.dtype if chain.layers else model.variables[0].dtype
    entry = str(model.inputs[0].dtype)
    return (
        lower_precision(str(layer), entry) if entry.startswith(("float", "bfloat")) else str(layer)
    )
