"""The embedded example: a network at its initialisation, and handwritten digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.model.network import Network
from fastcheck.model.problem import Problem
from fastcheck.reference.backprop import backward_pass
from fastcheck.reference.data import load_digits
from fastcheck.types import Floats

__all__ = ["Example", "make_problem"]

SIDE = 8  # a digit is 8 by 8 pixels
PRECISIONS = ("float64", "float32", "float16")
BIAS_SPREAD = 0.1


@dataclass(frozen=True)
class Example:
    """A problem to be made up: a network at its initialisation and a batch of digits.

    Attributes
    ----------
    layers : tuple of int
        `n_0, …, n_L`.
    activation : str
        Of the hidden layers; a parameter in parentheses, as in `elu(0.5)`.
    loss : str
    l2 : float
        λ.
    batch : int
        m.
    seed : int
        Of the weights, the biases and the choice of samples.
    dtype : str
        Precision of parameters and data, and so of the gradient.
    """

    layers: tuple[int, ...] = (64, 1024, 1024, 10)
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"
    l2: float = 0.1
    batch: int = 32
    seed: int = 0
    dtype: str = "float64"


def make_problem(example: Example | None = None) -> Problem:
    """Make a network at its He initialisation with a batch of data, and its right gradient.

    Parameters
    ----------
    example : Example, optional
        The default is the embedded example: 64-1024-1024-10, ReLU, on handwritten digits.

    Returns
    -------
    Problem
        Its gradient is the reference backward pass, as a callable; its name says which data.

    Raises
    ------
    InputError
        For fewer than two layers or sizes below 1, and for what `Network.from_arrays` refuses.

    Notes
    -----
    He et al., "Delving deep into rectifiers", ICCV 2015, start the biases at 0. Here they are small
    random numbers, since a penalty wrongly put on biases can't be seen where they are 0.
    """
    example = example or Example()
    _check(example)
    generator = np.random.default_rng(example.seed)
    weights, biases = _initial(example.layers, generator)
    network = Network.from_arrays(
        [W.astype(example.dtype) for W in weights],
        [b.astype(example.dtype) for b in biases],
        activations=example.activation,
        loss=example.loss,
        l2=example.l2,
    )
    images, labels, source = _samples(example, generator)
    kind = network.loss.entry.targets if network.loss.entry is not None else "real"
    targets = _targets(labels, example.layers[-1], kind)
    name = f"an example on {example.batch} {source}"
    return Problem(network, images.astype(example.dtype), targets, backward_pass, name=name)


def _check(example: Example) -> None:
    layers = example.layers
    if len(layers) < 2 or min(layers) < 1:
        raise InputError(
            f"layers {'-'.join(map(str, layers)) or 'none'}",
            "at least two sizes, each 1 or more",
            "Write them as 784-512-512-10: inputs, hidden units, outputs.",
        )
    if example.batch < 1:
        raise InputError(f"batch={example.batch}", "at least one sample")
    if example.seed < 0:
        raise InputError(f"seed={example.seed}", "a whole number, 0 or more")
    if example.dtype not in PRECISIONS:
        raise InputError(
            f"dtype={example.dtype!r}", "a precision", near_names(example.dtype, PRECISIONS)
        )


def _initial(
    layers: Sequence[int], generator: np.random.Generator
) -> tuple[list[Floats], list[Floats]]:
    """Return weights of variance 2/n_in and small biases."""
    weights, biases = [], []
    for n_in, n_out in pairwise(layers):
        weights.append(generator.standard_normal((n_out, n_in)) * math.sqrt(2.0 / n_in))
        biases.append(generator.standard_normal(n_out) * BIAS_SPREAD)
    return weights, biases


def _samples(
    example: Example, generator: np.random.Generator
) -> tuple[Floats, NDArray[np.int64], str]:
    """Return inputs (m, n_0), labels (m,) and where they are from.

    Digits fill a square of any size; inputs that form no square are random numbers.
    """
    images, labels = load_digits()
    chosen = np.resize(generator.permutation(len(images)), example.batch)
    width = example.layers[0]
    side = math.isqrt(width)
    if side * side != width:
        inputs = generator.standard_normal((example.batch, width))
        return (
            inputs,
            labels[chosen],
            f"samples of random numbers ({width} inputs are no square image)",
        )
    place = np.arange(side) * SIDE // side
    scaled = images[chosen].reshape(-1, SIDE, SIDE)[:, place][:, :, place].reshape(-1, width)
    size = "" if side == SIDE else f", scaled to {side}×{side}"
    return scaled, labels[chosen], f"handwritten digits{size}"


def _targets(labels: NDArray[np.int64], outputs: int, kind: str) -> NDArray[Any]:
    """Return targets that suit the loss: labels, or rows with a 1 in the label's place."""
    if outputs == 1:
        parity = (labels % 2)[:, np.newaxis].astype(np.float64)
        return np.ones_like(parity) if kind == "probabilities" else parity
    if kind == "probabilities":
        return labels % outputs
    return np.eye(outputs)[labels % outputs]
