"""Two error rates on networks drawn at random: right gradients accused, wrong ones passed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import fastcheck
from fastcheck.network import Network
from tests import networks, oracle

COUNT = 200


def drawn(seed: int, dtype: Any = np.float64) -> networks.Drawn:
    rng = np.random.default_rng(seed)
    return networks.random_problem(rng, max_width=8, dtype=dtype)


def network_of(problem: networks.Drawn) -> Network:
    conventions = {k: v for k, v in problem.conventions.items() if k != "masks"}
    return Network.from_arrays(
        problem.weights, problem.biases, dropout_masks=problem.masks, **conventions
    )


def right(problem: networks.Drawn) -> dict[str, Any]:
    weights, biases = oracle.backprop(*problem.arrays, **problem.conventions)
    found = {f"dW{layer}": dW for layer, dW in enumerate(weights, start=1)}
    for layer, db in enumerate(biases, start=1):
        if db is not None:
            found[f"db{layer}"] = db
    return found


def status(problem: networks.Drawn, gradients: dict[str, Any], method: str) -> str:
    network = network_of(problem)
    inputs, targets = problem.inputs, problem.targets
    return fastcheck.gradcheck(network, inputs, targets, gradients, method=method).status


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_the_unit_method_passes_every_right_gradient(dtype: Any) -> None:
    problems = [drawn(seed, dtype) for seed in range(COUNT)]
    assert Counter(status(p, right(p), "unit") for p in problems) == {"agree": COUNT}


def test_the_textbook_accuses_no_right_gradient() -> None:
    problems = [drawn(seed) for seed in range(COUNT)]
    assert "wrong" not in Counter(status(p, right(p), "textbook") for p in problems)


@pytest.mark.parametrize("kind", ["half a percent", "one component", "a sign"])
def test_the_unit_method_passes_no_wrong_gradient(kind: str) -> None:
    missed = []
    for seed in range(COUNT):
        problem, rng = drawn(seed), np.random.default_rng(seed)
        gradients = right(problem)
        largest = {name: np.abs(g).max() for name, g in gradients.items()}
        told = [name for name, size in largest.items() if size > 1e-9]
        if not told:  # nothing to get wrong: every gradient is zero
            continue
        name = told[int(rng.integers(len(told)))]
        wrong = np.array(gradients[name])
        if kind == "half a percent":
            wrong *= 1.005
        elif kind == "one component":
            wrong.flat[np.abs(wrong).argmax()] *= 1.0 + 1e-3
        else:
            wrong *= -1.0
        if status(problem, {**gradients, name: wrong}, "unit") != "wrong":
            missed.append((seed, name))
    assert not missed
