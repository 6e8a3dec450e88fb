"""A multi-layer perceptron of scikit-learn, its alpha, and its own internal gradient."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, Layer, unsupported
from fastcheck.importers.optional import require
from fastcheck.model.network import NetworkOptions
from fastcheck.model.problem import Problem

__all__ = ["problem_from_sklearn"]

# (loss, activation of the outputs) by fastcheck's loss on logits.
LOSSES = {
    ("log_loss", "softmax"): "softmax_cross_entropy",
    ("log_loss", "logistic"): "sigmoid_cross_entropy",
    ("squared_error", "identity"): "squared_error",
}


def problem_from_sklearn(model: Any, inputs: Any, targets: Any) -> Problem:
    """Take over a multi-layer perceptron and the gradient of its own backward pass.

    Parameters
    ----------
    model : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted, or partially fitted; it is left as it was found. The gradient is what its own
        `_backprop` gives at its present weights.
    inputs : array_like, shape (m, n_features)
        Dense or sparse.
    targets : array_like
        As for `fit`: labels, rows of labels for several at once, or numbers.

    Returns
    -------
    Problem
        The penalty is alpha/(2 m)·Σ‖W‖², as in scikit-learn; the names are `coefs_[0]`, ….

    Raises
    ------
    InputError
        Without scikit-learn, for another model, one that was never fitted, and for losses that
        fastcheck does not have (Poisson).

    Notes
    -----
    For several targets at once, the loss that MLPRegressor reports is averaged over the targets,
    its gradient is summed over them. The check holds the gradient against the sum.
    """
    neural = require("sklearn.neural_network", "sklearn")
    if not isinstance(model, (neural.MLPClassifier, neural.MLPRegressor)):
        raise unsupported(f"a model of type {type(model).__name__}", "sklearn")
    if not hasattr(model, "coefs_"):
        raise InputError(
            f"{type(model).__name__} without coefs_: it was never fitted",
            "a fitted model",
            "Call fit, or partial_fit once.",
        )
    X, T = _batch(model, inputs, targets)
    # On copies: a backward pass of the user's may write into its batch.
    loss, weights, biases = _own_gradient(model, X.copy(), T.copy())
    options = _options(model)
    network = _chain(model).network(options)
    several = options["loss"] == "squared_error" and T.shape[1] > 1
    gradient = {}
    for block in network.order.blocks:
        own = weights if block.kind == "W" else biases
        gradient[block.gradient_name] = own[block.layer - 1]
    return Problem(
        network,
        X,
        T,
        gradient,
        cost=None if several else np.asarray(loss),
        name=f"{type(model).__name__}: {network.describe()}",
    )


def _chain(model: Any) -> Chain:
    chain = Chain(type(model).__name__)
    for k, (W, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        names = (f"coefs_[{k}]", f"intercepts_[{k}]")
        last = k == len(model.coefs_) - 1
        chain.dense(
            Layer(W, b, names, None if last else model.activation, transposed=True), names[0]
        )
    return chain


def _options(model: Any) -> NetworkOptions:
    form = (str(model.loss), str(model.out_activation_))
    if form not in LOSSES:
        raise unsupported(f"loss={form[0]!r} with outputs {form[1]!r}", type(model).__name__)
    return {"loss": LOSSES[form], "l2": float(model.alpha), "penalty": "l2/2m"}


def _batch(model: Any, inputs: Any, targets: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return inputs (m, n_0) and targets (m, n_L), in the precision of the model."""
    dtype = model.coefs_[0].dtype
    X = np.asarray(inputs.toarray() if hasattr(inputs, "toarray") else inputs)
    if X.ndim != 2 or X.shape[1] != model.coefs_[0].shape[0] or X.shape[0] == 0:
        raise InputError(f"inputs of shape {X.shape}", f"(m, {model.coefs_[0].shape[0]})")
    y = np.asarray(targets.toarray() if hasattr(targets, "toarray") else targets)
    binarizer = getattr(model, "_label_binarizer", None)
    if binarizer is not None:
        unknown = np.setdiff1d(y, binarizer.classes_) if y.ndim == 1 else np.zeros(0)
        if unknown.size:
            raise InputError(f"label {unknown[0]!r}", f"classes of the model: {binarizer.classes_}")
        y = np.asarray(binarizer.transform(y))
    T = y.reshape(X.shape[0], -1) if y.size % max(X.shape[0], 1) == 0 else y
    if T.shape != (X.shape[0], model.n_outputs_):
        raise InputError(f"targets of shape {y.shape}", f"({X.shape[0]}, {model.n_outputs_})")
    return X.astype(dtype), T.astype(dtype)


def _own_gradient(
    model: Any, X: NDArray[Any], T: NDArray[Any]
) -> tuple[float, list[NDArray[Any]], list[NDArray[Any]]]:
    """Return J and the gradients of coefs_ and intercepts_, by the model's own `_backprop`."""
    layers = len(model.coefs_)
    activations: list[Any] = [X] + [
        np.empty((X.shape[0], W.shape[1]), W.dtype) for W in model.coefs_
    ]
    deltas: list[Any] = [None] * layers
    # Filled by _backprop, whose deltas pass through in-place functions.
    coefs = [np.empty_like(W) for W in model.coefs_]
    intercepts = [np.empty_like(b) for b in model.intercepts_]
    weights: list[Any] = [None] if _takes_sample_weight(model) else []
    loss, coefs, intercepts = model._backprop(
        X, T, *weights, activations, deltas, coefs, intercepts
    )
    return loss, list(coefs), list(intercepts)


def _takes_sample_weight(model: Any) -> bool:
    """Return whether `_backprop` takes sample weights, as it does since scikit-learn 1.7.

    A subclass may hand its arguments on as they come: then what it overrides says so.
    """
    for kind in type(model).__mro__:
        method = vars(kind).get("_backprop")
        if method is None:
            continue
        parameters = inspect.signature(method).parameters.values()
        if "sample_weight" in {p.name for p in parameters}:
            return True
        if not any(p.kind == p.VAR_POSITIONAL for p in parameters):
            return False
    return False
