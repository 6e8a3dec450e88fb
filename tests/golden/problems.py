"""The problems whose numbers are kept: one row each, small, and the same on every machine.

Weights, biases and inputs are multiples of 1/64, so that the first layer's sums are exact in any
order of summation, and a kink lies where it was put.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck import Network, Report, gradcheck, gradcheck_function
from tests import networks, oracle, planted
from tests.builders import batch_of, gradients_of, named, network_of
from tests.networks import Drawn
from tests.oracle import Named, split

GRID = 64.0
EPSILON = 1e-7
SIZES = (6, 7, 5, 4)
PLANTED_LOSSES = {
    "softmax_cross_entropy": "softmax",
    "sigmoid_cross_entropy": "logistic",
    "squared_error": "squared",
}


@dataclass(frozen=True)
class Case:
    """A network with a batch and a gradient, and how it is checked.

    Attributes
    ----------
    name : str
        Its place in the golden file, and its seed.
    hidden, output : name or (name, parameter)
        Activations.
    bug : str
        A mistake of `tests.planted`, made at `layer` (0: everywhere); empty for a right gradient.
    kinks : bool
        Whether some units of the first layer lie within ε of their kinks, and on them.
    options : dict
        Of the check; `settings` are those that `numerical_gradient` takes too.
    """

    name: str
    hidden: Named = "relu"
    loss: Named = "softmax_cross_entropy"
    output: Named = "identity"
    sizes: tuple[int, ...] = SIZES
    batch: int = 5
    l2: float = 0.25
    penalty: str = "l2/2m"
    reduction: str = "mean"
    keep: float = 1.0
    biases: bool = True
    layout: str = "rows"
    dtype: str = "float64"
    bug: str = ""
    layer: int = 0
    kinks: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def drawn(self) -> Drawn:
        """The problem as plain arrays."""
        rng = np.random.default_rng(list(self.name.encode()))

        def numbers(scale: float, *shape: int) -> Any:
            return (np.round(rng.normal(0.0, scale, shape) * GRID) / GRID).astype(self.dtype)

        sizes = self.sizes
        pairs = list(itertools.pairwise(sizes))
        biases = [numbers(0.3, n) if self.biases else None for n in sizes[1:]]
        masks = [
            ((rng.random((self.batch, n)) < self.keep) / self.keep).astype(self.dtype)
            for n in sizes[1:-1]
        ]
        drawn = Drawn(
            weights=[numbers(1.3 / np.sqrt(n), k, n) for n, k in pairs],
            biases=biases,
            activations=[self.hidden] * (len(sizes) - 2) + [self.output],
            loss=self.loss,
            l2=self.l2,
            penalty=self.penalty,
            reduction=self.reduction,
            inputs=numbers(1.0, self.batch, sizes[0]),
            targets=networks.random_targets(
                rng, self.loss, (self.batch, sizes[-1]), dtype=np.dtype(self.dtype)
            ),
            masks=None if self.keep == 1.0 else [*masks, None],
        )
        if self.kinks:
            _move_to_kinks(drawn, split(self.hidden)[0])
        return drawn

    @property
    def network(self) -> Network:
        """The network in the case's layout."""
        return network_of(self.drawn, self.layout)

    @property
    def batches(self) -> tuple[Any, Any]:
        """Inputs and targets in the case's layout."""
        return batch_of(self.drawn, self.layout)

    @property
    def gradient(self) -> dict[str, Any]:
        """The gradient that is checked, right or with the bug."""
        if not self.bug:
            return gradients_of(self.drawn, self.layout)
        blocks = planted.backward(self._planted, {self.bug: self.layer})
        return named(blocks[::2], blocks[1::2], self.layout)

    @property
    def _planted(self) -> planted.Net:
        drawn, keep = self.drawn, self.keep
        masks = drawn.masks and [None if k is None else (k > 0) * 1.0 for k in drawn.masks]
        biases: list[Any] = list(drawn.biases)
        loss, hidden = PLANTED_LOSSES[split(self.loss)[0]], split(self.hidden)[0]
        return planted.Net(
            self.name, drawn.weights, biases, hidden, loss, self.l2, drawn.inputs, drawn.targets,
            masks, keep,
        )  # fmt: skip

    def report(self) -> Report:
        """Check the gradient."""
        gradient: Any = self.gradient
        if "train_steps" in self.options:
            gradient = _backward(self.drawn)
        inputs, targets = self.batches
        return gradcheck(self.network, inputs, targets, gradient, **self.settings, **self.options)


def _backward(drawn: Drawn) -> Callable[..., dict[str, Any]]:
    """Return the oracle's backward pass as a callable (in rows)."""

    def backward(network: Network, inputs: Any, targets: Any) -> dict[str, Any]:
        arrays = network.weights, network.biases, inputs, targets
        return named(*oracle.backprop(*arrays, **drawn.conventions))

    return backward


def _move_to_kinks(drawn: Drawn, activation: str) -> None:
    """Shift three biases of the first layer: 0.3 ε beside a kink, on one, and 0.9 ε beside one."""
    W, b, X = drawn.weights[0], drawn.biases[0], drawn.inputs
    assert b is not None
    kinks = networks.KINKS[activation]
    for unit, beside in enumerate((0.3, 0.0, -0.9)):
        kink = kinks[unit % len(kinks)]
        b[unit] = kink - float(X[unit] @ W[unit]) + beside * EPSILON


def _functions() -> dict[str, Callable[[], Report]]:
    """Return checks of functions that are no networks."""
    rng = np.random.default_rng(7)
    A = np.round(rng.normal(size=(6, 6)) * GRID) / GRID
    start = np.round(rng.normal(size=6) * GRID) / GRID

    def value(x: Any) -> float:
        return float(np.sum((A @ x) ** 2) / 2 + np.sum(x**4))

    def slope(x: Any) -> Any:
        return A.T @ (A @ x) + 4 * x**3

    return {
        "function cubic": lambda: gradcheck_function(
            lambda t: t**3, lambda t: 3 * t**2, 1.0, epsilon=0.01
        ),
        "function quartic": lambda: gradcheck_function(value, slope, start),
        "function quartic wrong": lambda: gradcheck_function(
            value, lambda x: slope(x) * np.array([1, 1, 1.01, 1, 1, 1]), start
        ),
    }


FUNCTIONS = _functions()

SMOOTH_CASES = [
    Case("identity", "identity", "squared_error", layout="course"),
    Case("softplus", "softplus", layout="keras", penalty="l2/2"),
    Case("sigmoid", "sigmoid", "sigmoid_cross_entropy", l2=0.0),
    Case("tanh", "tanh", layout="course", penalty="l2/m"),
    Case("silu", "silu", "mean_squared_error", "tanh"),
    Case("gelu", "gelu", layout="keras", reduction="sum"),
    Case("gelu_tanh", "gelu_tanh", "squared_error", reduction="mean_elements"),
    Case("softsign", "softsign", ("huber", 0.5), layout="course", penalty="l2"),
    Case("mish", "mish", "sigmoid_cross_entropy", reduction="mean_elements"),
]
PIECEWISE_CASES = [
    Case("relu", "relu", layout="keras"),
    Case("relu squared", "relu", "squared_error", l2=0.0, reduction="sum"),
    Case("leaky_relu", "leaky_relu", "sigmoid_cross_entropy", layout="course"),
    Case("leaky_relu 0.25", ("leaky_relu", 0.25), "huber"),
    Case("elu", "elu", "mean_squared_error", "sigmoid"),
    Case("elu 0.5", ("elu", 0.5), layout="keras"),
    Case("selu", "selu", "huber", l2=1.5),
    Case("hardtanh", "hardtanh", "squared_error", "hardtanh", layout="course"),
    Case("relu6", "relu6", "mean_squared_error", "relu6"),
]
KINK_CASES = [
    Case("kinks relu", "relu", kinks=True),
    Case("kinks leaky_relu", "leaky_relu", "squared_error", kinks=True, layout="keras"),
    Case("kinks elu 0.5", ("elu", 0.5), kinks=True),
    Case("kinks selu", "selu", "sigmoid_cross_entropy", kinks=True),
    Case("kinks hardtanh", "hardtanh", "huber", kinks=True, layout="course"),
    Case("kinks relu6", "relu6", kinks=True, keep=0.8),
    Case("kinks relu textbook", "relu", kinks=True, settings={"method": "textbook"}),
    Case("kinks relu sampled", "relu", kinks=True, settings={"sample": 40, "seed": 3}),
]
TEXTBOOK = {"method": "textbook"}
TEXTBOOK_CASES = [
    Case("textbook relu", settings=TEXTBOOK),
    Case("textbook tanh", "tanh", "squared_error", settings=TEXTBOOK, layout="course"),
    Case("textbook gelu", "gelu", "sigmoid_cross_entropy", settings=TEXTBOOK, keep=0.8),
    Case("textbook huber", "softplus", "huber", settings={**TEXTBOOK, "chunk_size": 17}),
    Case("textbook sampled", "silu", settings={**TEXTBOOK, "sample": 30, "epsilon": 1e-5}),
    Case("textbook large batch", "sigmoid", "mean_squared_error", batch=70, settings=TEXTBOOK),
]
SAMPLE_CASES = [
    Case("sample", "tanh", settings={"sample": 25, "seed": 1}),
    Case("sample units", "relu", settings={"sample_units": 6, "seed": 2}, layout="keras"),
    Case("detect", "gelu", settings={"detect": 0.2, "seed": 5}, sizes=(9, 12, 8, 3)),
    Case("sample wrong", "relu", bug="dW doubled", layer=2, settings={"sample": 60}),
]
EPSILON_CASES = [
    Case("epsilon 1e-3 tanh", "tanh", settings={"epsilon": 1e-3}),
    Case("epsilon 1e-2 gelu", "gelu", "squared_error", settings={"epsilon": 1e-2, "tol": 1e-6}),
    Case("epsilon 1e-4 relu", "relu", settings={"epsilon": 1e-4}),
    Case("epsilon 1e-9 mish", "mish", settings={"epsilon": 1e-9}),
]
PRECISION_CASES = [
    Case("float32 relu", dtype="float32"),
    Case("float32 tanh", "tanh", "squared_error", dtype="float32", layout="course"),
    Case("float16 relu", dtype="float16"),
    Case("float16 sigmoid", "sigmoid", "sigmoid_cross_entropy", dtype="float16", layout="keras"),
    Case("bfloat16 tanh", "tanh", options={"precision": "bfloat16"}),
    Case("float32 wrong", "tanh", bug="slope missing", layer=1, options={"precision": "float32"}),
]
SHAPE_CASES = [
    Case("masks relu", keep=0.5),
    Case("masks tanh", "tanh", "squared_error", keep=0.8, layout="course"),
    Case("masks sampled", "gelu", keep=0.8, layout="keras", settings={"sample_units": 5}),
    Case("one layer", sizes=(6, 4)),
    Case("one sample", "tanh", "squared_error", sizes=(6, 5, 1), batch=1),
    Case("no biases", "softplus", biases=False),
    Case("deep", "tanh", sizes=(5, 6, 6, 6, 6, 6, 6, 3), layout="keras"),
    Case("wide", "relu", sizes=(40, 30, 10), batch=12),
    Case("trained", "tanh", options={"train_steps": 3, "learning_rate": 0.5}),
]
BUG_CASES = [
    Case("slope missing", "relu", bug="slope missing", layer=1, layout="course"),
    Case("slope at a", "tanh", bug="slope at a", layer=2),
    Case("no penalty", "sigmoid", bug="no penalty"),
    Case("penalised biases", "relu", bug="db penalised"),
    Case("transposed", "tanh", sizes=(6, 6, 6, 4), bug="dW transposed", layer=2),
    Case("own inputs", "relu", sizes=(6, 6, 6, 4), bug="own A", layer=2, layout="keras"),
    Case("twice", "softplus", "squared_error", bug="twice"),
    Case("no mean", "tanh", "sigmoid_cross_entropy", bug="dW no mean", layer=3),
    Case("mask forgotten", "relu", keep=0.8, bug="mask forgotten", layer=1),
    Case("one row", "relu", bug="dW row", layer=2),
    Case("bias zero textbook", "tanh", bug="db zero", layer=2, settings=TEXTBOOK),
    Case("clipped", "relu", bug="norm clipped", l2=0.0),
]
CASES = {
    case.name: case
    for case in itertools.chain(
        SMOOTH_CASES,
        PIECEWISE_CASES,
        KINK_CASES,
        TEXTBOOK_CASES,
        SAMPLE_CASES,
        EPSILON_CASES,
        PRECISION_CASES,
        SHAPE_CASES,
        BUG_CASES,
    )
}
