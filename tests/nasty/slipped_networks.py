"""Ordinary networks in which slips are planted; everything that a slip can touch is there."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.nasty.families import targets
from tests.nasty.network import Nasty, named


def _net(
    seed: int, sizes: list[int], hidden: str, loss: str, *, l2: float = 0.0, keep: float = 1.0
) -> Nasty:
    rng, m = np.random.default_rng(seed), 11
    masks: Any = None
    if keep < 1.0:
        masks = [(rng.random((m, n)) < keep) / keep for n in sizes[1:-1]] + [None]
    return Nasty(
        weights=[rng.normal(size=(k, n)) * np.sqrt(1.7 / n) for n, k in itertools.pairwise(sizes)],
        biases=[0.4 * rng.normal(size=n) for n in sizes[1:]],
        activations=[named(hidden)] * (len(sizes) - 2) + [named("identity")],
        loss=named(loss),
        inputs=rng.normal(size=(m, sizes[0])) + 0.2,
        targets=targets(rng, loss, m, sizes[-1]),
        masks=masks,
        l2=l2,
    )


SOFTMAX, LOGISTIC = "softmax_cross_entropy", "sigmoid_cross_entropy"
NETWORKS: dict[str, Callable[[], Nasty]] = {
    "relu": lambda: _net(1, [6, 7, 7, 3], "relu", SOFTMAX),
    "relu, penalty": lambda: _net(2, [5, 5, 5, 5], "relu", SOFTMAX, l2=0.4),
    "tanh, dropout": lambda: _net(3, [6, 8, 8, 2], "tanh", "squared_error", keep=0.7),
    "sigmoid, penalty": lambda: _net(4, [6, 7, 1], "sigmoid", LOGISTIC, l2=0.3),
    "silu, dropout": lambda: _net(5, [7, 6, 6, 4], "silu", SOFTMAX, keep=0.6, l2=0.1),
    "selu": lambda: _net(6, [4, 6, 6, 3], "selu", "huber"),
    "gelu": lambda: _net(7, [5, 9, 4], "gelu", LOGISTIC),
    "softsign": lambda: _net(8, [5, 6, 6, 6, 3], "softsign", "mean_squared_error", l2=0.2),
    "relu6": lambda: _net(9, [5, 6, 2], "relu6", "squared_error"),
    "deep hardtanh": lambda: _net(10, [4, 5, 5, 5, 5, 3], "hardtanh", SOFTMAX),
    "elu": lambda: _net(11, [5, 6, 3], "elu", SOFTMAX, l2=0.5),
    "linear": lambda: _net(12, [6, 4], "relu", SOFTMAX, l2=0.3),
}
