"""The gradient of a Keras model, by whichever backend it runs on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.keras.chain import all_layers
from fastcheck.importers.optional import require

__all__ = ["own_gradient"]


def own_gradient(
    keras: Any, model: Any, loss: Any, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Return the gradient by `layer/kernel`, and J with the regularizers' share."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise InputError(f"Keras on {backend}", f"one of {', '.join(BACKENDS)}")
    gradients, J = BACKENDS[backend](model, loss, batch)
    names = {}
    for layer in all_layers(keras, model):
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
    torch = require("torch", "torch")
    from fastcheck.importers.torch.operations import array_of
    from fastcheck.importers.torch.state import left_as_found

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
    jax = require("jax", "jax")
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
    tensorflow = require("tensorflow", "keras")
    with tensorflow.GradientTape() as tape:
        J = _objective(model, loss, batch)
    gradients = tape.gradient(J, [v.value for v in model.trainable_variables])
    return [None if g is None else np.asarray(g) for g in gradients], np.asarray(J)


BACKENDS = {"torch": _by_torch, "jax": _by_jax, "tensorflow": _by_tensorflow}
