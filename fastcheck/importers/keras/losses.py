"""The loss and the regularizers of a Keras model in fastcheck's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, LossTerms, unsupported
from fastcheck.importers.keras.chain import all_layers, snake
from fastcheck.model.network import NetworkOptions

__all__ = ["loss_object", "penalty", "targets_and_terms"]


def penalty(keras: Any, model: Any) -> NetworkOptions:
    """Return the L2 regularizer of all kernels; other regularizers are refused."""
    rates = {}
    for layer in all_layers(keras, model):
        for name in ("bias_regularizer", "activity_regularizer"):
            if getattr(layer, name, None) is not None:
                raise unsupported(f"{name}", f"{layer.name} ({type(layer).__name__})")
        if isinstance(layer, keras.layers.Dense):
            rates[layer.name] = _rate(keras, layer)
    if len(set(rates.values())) > 1:
        given = ", ".join(f"{name}: {rate:g}" for name, rate in rates.items())
        raise unsupported(f"regularizers that differ between kernels ({given})", model.name)
    return {"l2": next(iter(rates.values()), 0.0), "penalty": "l2"}


def _rate(keras: Any, layer: Any) -> float:
    regularizer = layer.kernel_regularizer
    if regularizer is None:
        return 0.0
    known = type(regularizer) in (keras.regularizers.L2, keras.regularizers.L1L2)
    if not known or float(getattr(regularizer, "l1", 0.0) or 0.0):
        raise unsupported(f"the regularizer {type(regularizer).__name__}", f"{layer.name} (Dense)")
    return float(regularizer.l2)


def loss_object(keras: Any, model: Any, loss: Any) -> Any:
    """Return a loss object; a string or function becomes one, as `compile` does."""
    chosen = getattr(model, "loss", None) if loss is None else loss
    if chosen is None:
        raise InputError(
            "no loss, and a model that was not compiled",
            "loss='mse', a keras.losses.Loss, or compile",
        )
    if isinstance(chosen, keras.losses.Loss):
        return chosen
    if isinstance(chosen, type) and issubclass(chosen, keras.losses.Loss):
        return chosen()
    found = keras.losses.get(chosen) if isinstance(chosen, str) else chosen
    for kind in ("CategoricalCrossentropy", "SparseCategoricalCrossentropy", "BinaryCrossentropy",
                 "MeanSquaredError", "Huber"):  # fmt: skip
        if getattr(found, "__name__", "") == snake(kind):
            return getattr(keras.losses, kind)()
    raise unsupported(f"the loss {getattr(found, '__name__', found)!r}", model.name)


def targets_and_terms(
    chain: Chain, loss: Any, targets: Any
) -> tuple[NDArray[Any], Callable[[int], NetworkOptions]]:
    """Return the targets, and the loss in fastcheck's words for m samples."""
    kind = type(loss).__name__
    # get_config leaves Huber's delta out.
    config = {**loss.get_config(), **getattr(loss, "_fn_kwargs", {})}
    if kind not in LOSSES:
        raise unsupported(f"the loss {kind}", chain.owner)
    if not chain.layers:
        raise unsupported("a model without a Dense layer", chain.owner)
    outputs = chain.layers[-1].outputs
    T, spec, per_sample = LOSSES[kind](chain, config, np.asarray(targets))
    reduction = config.get("reduction", "sum_over_batch_size")
    if reduction not in ("sum_over_batch_size", "mean", "sum"):
        raise unsupported(f"reduction={reduction!r} of {kind}", chain.owner)

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
        raise unsupported("ignore_class of SparseCategoricalCrossentropy", chain.owner)
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
