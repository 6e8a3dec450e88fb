"""Small networks whose slopes bend, saturate or nearly vanish, each told by its seed.

Made of plain data; nothing here imports fastcheck.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.networks import LOSSES, Drawn, random_targets
from tests.oracle import Named

ACTIVATIONS: tuple[Named, ...] = (
    "tanh", "selu", "elu", "gelu", "mish", "softsign", "sigmoid", "softplus", "silu", "gelu_tanh",
    "relu", ("elu", 0.5),
)  # fmt: skip


@dataclass
class Parts:
    """What a kind may change before the network is made."""

    rng: np.random.Generator
    sizes: list[int]
    weights: list[Any] = field(default_factory=list)
    biases: list[Any] = field(default_factory=list)
    inputs: Any = None
    zero_targets: bool = False

    def scaled(self, factor: float, layer: int | None = None) -> None:
        """Multiply all weights, or those of one layer."""
        chosen = range(len(self.weights)) if layer is None else [layer]
        for k in chosen:
            self.weights[k] = self.weights[k] * factor


def _raw_features(p: Parts) -> None:
    m, n = p.inputs.shape
    p.inputs = np.column_stack([1e4 * (1 + p.rng.random((m, n - 1))), np.ones(m)])
    p.weights[0] = p.weights[0] * np.append(np.full(n - 1, 1e-4), 1.0)


def _pixels(p: Parts) -> None:
    p.inputs = p.rng.integers(0, 256, p.inputs.shape).astype(float)
    p.scaled(0.01, 0)


def _tiny_residuals(p: Parts) -> None:
    p.scaled(1e-10)
    p.biases = [np.zeros_like(b) for b in p.biases]
    p.zero_targets = True


def _one_hot(p: Parts) -> None:
    m, n = p.inputs.shape
    p.inputs = np.eye(m, n) * p.rng.choice([1.0, 100.0], m)[:, np.newaxis]


def _mixed_columns(p: Parts) -> None:
    scales = np.array([1e4, 1.0, 1e-4])[: p.inputs.shape[1]]
    p.inputs = p.inputs * scales
    p.weights[0] = p.weights[0] * np.array([1e-4, 1.0, 1.0])[: scales.size]


def _tiny_inputs(p: Parts) -> None:
    p.inputs = p.inputs * 1e-8


KINDS: dict[str, Callable[[Parts], None]] = {
    "tiny inputs": _tiny_inputs,
    "raw features": _raw_features,
    "pixels": _pixels,
    "saturated logits": lambda p: p.scaled(300.0, -1),
    "tiny residuals": _tiny_residuals,
    "narrow deep": lambda p: None,
    "plain": lambda p: None,
    "large weights": lambda p: p.scaled(6.0),
    "tiny weights": lambda p: p.scaled(1e-4),
    "one-hot": _one_hot,
    "mixed columns": _mixed_columns,
}


def kind_of(seed: int) -> str:
    """Return what is nasty about the network of a seed."""
    return list(KINDS)[seed % len(KINDS)]


def bent_network(seed: int) -> Drawn:
    """Return the network of a seed."""
    rng, kind, m = np.random.default_rng(seed), kind_of(seed), 3
    hidden = [1 + int(rng.integers(2)) for _ in range(7)]
    sizes = [2, *hidden, 2] if kind == "narrow deep" else [3, 4, 3]
    activation = ACTIVATIONS[(seed * 5 + seed // 11) % len(ACTIVATIONS)]
    loss = LOSSES[(seed * 7 + seed // 3) % len(LOSSES)]
    parts = Parts(
        rng,
        sizes,
        [rng.normal(0, 1.2 / np.sqrt(a), (b, a)) for a, b in itertools.pairwise(sizes)],
        [rng.normal(0, 0.3, n) for n in sizes[1:]],
        rng.normal(size=(m, sizes[0])),
    )
    targets = random_targets(rng, loss, (m, sizes[-1]), soft=bool(seed % 2))
    KINDS[kind](parts)
    if parts.zero_targets and "cross" not in str(loss):
        targets = np.zeros_like(targets)
    return Drawn(
        parts.weights, parts.biases, [activation] * (len(sizes) - 2) + ["identity"], loss,
        0.0, "l2/2m", "mean", parts.inputs, targets, None,
    )  # fmt: skip
