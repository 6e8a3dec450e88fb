"""Keras models, right ones and others, checked on the backend that KERAS_BACKEND names.

Run as a script: a backend is chosen once in a process. Prints what came out as JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from fastcheck.errors import InputError
from fastcheck.frameworks import check_keras

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((7, 3, 2)).astype("float32")
LABELS = RANDOM.integers(0, 4, 7)
ROWS = RANDOM.standard_normal((7, 4))


def chain(*parts: Any) -> Any:
    return keras.Sequential([keras.Input((3, 2)), layers.Flatten(), *parts])


def regularized(rate: float = 0.01) -> Any:
    return chain(
        layers.Dense(8, activation="relu", kernel_regularizer="l2"),
        layers.Dropout(0.5),
        layers.Dense(5, kernel_regularizer=keras.regularizers.L2(rate)),
        layers.LeakyReLU(0.1),
        layers.Dense(4, activation="softmax", kernel_regularizer="l2"),
    )


def functional() -> Any:
    given = keras.Input((3, 2))
    hidden = layers.Rescaling(0.5)(given)
    hidden = keras.ops.gelu(layers.Dense(8, name="first")(layers.Flatten()(hidden)))
    hidden = layers.Activation("silu")(layers.Dense(6, use_bias=False)(hidden))
    return keras.Model(given, layers.Dense(4)(hidden))


def nested() -> Any:
    inner = keras.Sequential([layers.Flatten(), layers.Dense(5, activation="tanh")])
    return keras.Sequential([keras.Input((3, 2)), inner, layers.Dense(1, activation="sigmoid")])


def double() -> Any:
    hidden = layers.Dense(6, activation="tanh", dtype="float64")
    return chain(hidden, layers.Dense(4, dtype="float64"))


def skip() -> Any:
    given = keras.Input((3, 2))
    flat = layers.Flatten()(given)
    return keras.Model(
        given, layers.Add(name="sum")([layers.Dense(4)(flat), layers.Dense(4)(flat)])
    )


def compiled() -> Any:
    model = regularized()
    model.compile(loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1, reduction="sum"))
    return model


def my_relu(z: Any) -> Any:
    return keras.ops.relu(z)


def leaky_backward(z: Any) -> Any:
    """ReLU whose backward pass lets a tenth through where it should let nothing through."""
    if keras.backend.backend() == "torch":
        import torch

        value = torch.relu(z)
        through = torch.where(z > 0, z, 0.1 * z)
        return through + (value - through).detach()
    import jax

    through = jax.numpy.where(z > 0, z, 0.1 * z)
    return through + jax.lax.stop_gradient(jax.nn.relu(z) - through)


def planted() -> Any:
    return chain(
        layers.Dense(8, activation=leaky_backward, name="sick"), layers.Dense(4, name="well")
    )


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CASES: dict[str, Callable[[], tuple[Any, Any, Any, dict[str, Any]]]] = {
    "regularized": lambda: (regularized(), "sparse_categorical_crossentropy", LABELS, {}),
    "compiled": lambda: (compiled(), None, np.eye(4)[LABELS], {}),
    "functional": lambda: (functional(), LOGITS, LABELS, {}),
    "squared": lambda: (functional(), "mse", ROWS, {}),
    "huber": lambda: (functional(), keras.losses.Huber(0.4), ROWS, {}),
    "logistic": lambda: (
        functional(),
        keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
        ROWS > 0,
        {},
    ),
    "nested": lambda: (nested(), "binary_crossentropy", LABELS > 1, {}),
    "named function": lambda: (
        chain(layers.Dense(5, activation=my_relu), layers.Dense(4)), "mse", ROWS,
        {"activations": {my_relu: "relu"}},
    ),
    "double layers": lambda: (double(), LOGITS, LABELS, {}),
    "double loss": lambda: (
        double(), keras.losses.MeanSquaredError(dtype="float64"), ROWS, {},
    ),
    "planted": lambda: (planted(), LOGITS, LABELS, {"activations": {"sick": "relu"}}),
    "skip": lambda: (skip(), "mse", ROWS, {}),
    "convolution": lambda: (
        keras.Sequential(
            [keras.Input((3, 2)), layers.Conv1D(2, 2), layers.Flatten(), layers.Dense(4)]
        ), "mse", ROWS, {},
    ),
    "batch norm": lambda: (
        chain(layers.Dense(4), layers.BatchNormalization()), "mse", ROWS, {},
    ),
    "unnamed function": lambda: (
        chain(layers.Dense(4, activation=my_relu, name="own")), "mse", ROWS, {},
    ),
    "L1": lambda: (chain(layers.Dense(4, kernel_regularizer="l1")), "mse", ROWS, {}),
    "two rates": lambda: (regularized(0.5), "sparse_categorical_crossentropy", LABELS, {}),
    "another loss": lambda: (functional(), "poisson", ROWS, {}),
    "logits taken for probabilities": lambda: (
        functional(), "sparse_categorical_crossentropy", LABELS, {},
    ),
}  # fmt: skip


def outcome(case: Callable[[], tuple[Any, Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """Return the report of a case, or why it was refused."""
    keras.utils.set_random_seed(0)
    model, loss, targets, options = case()
    before = [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    try:
        report = check_keras(model, loss, X, targets, **options)
    except InputError as error:
        return {"refused": str(error)}
    after = [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    return {
        "status": report.status,
        "text": report.to_text(),
        "precision": report.held_to.precision,
        "wrong": [b.parameter for b in report.blocks if b.status == "wrong"],
        "blocks": [b.parameter for b in report.blocks],
        "same": all(map(np.array_equal, before, after)),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Keras's own, about NumPy
    json.dump({name: outcome(case) for name, case in CASES.items()}, sys.stdout)
