"""Two error rates on networks drawn at random: right gradients accused, wrong ones passed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastcheck
from tests import networks
from tests.builders import batch_of, gradients_of, network_of
from tests.repetitions import draws

PART = 50
IN_PARTS = draws(PART, 4 * PART, PART)  # each from a seed on


def drawn(seed: int, dtype: Any = np.float64) -> networks.Drawn:
    rng = np.random.default_rng(seed)
    return networks.random_problem(rng, max_width=8, dtype=dtype)


def status(problem: networks.Drawn, gradients: dict[str, Any], method: str) -> str:
    inputs, targets = batch_of(problem)
    return fastcheck.gradcheck(
        network_of(problem), inputs, targets, gradients, method=method
    ).status


def statuses(first: int, method: str, dtype: Any = np.float64) -> dict[int, str]:
    """The verdict on the right gradient of each network, by its seed: `drawn(seed)` replays it."""
    problems = {seed: drawn(seed, dtype) for seed in range(first, first + PART)}
    return {seed: status(p, gradients_of(p), method) for seed, p in problems.items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@IN_PARTS
def test_the_unit_method_passes_every_right_gradient(dtype: Any, seed: int) -> None:
    found = statuses(seed, "unit", dtype)
    assert len(found) == PART
    assert {seed: status for seed, status in found.items() if status != "agree"} == {}


@IN_PARTS
def test_the_textbook_accuses_no_right_gradient(seed: int) -> None:
    found = statuses(seed, "textbook")
    assert [seed for seed, status in found.items() if status == "wrong"] == []


@pytest.mark.parametrize("kind", ["half a percent", "one component", "a sign"])
@IN_PARTS
def test_the_unit_method_passes_no_wrong_gradient(kind: str, seed: int) -> None:
    missed = []
    for number in range(seed, seed + PART):
        problem, rng = drawn(number), np.random.default_rng(number)
        gradients = gradients_of(problem)
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
            missed.append((number, name))
    assert missed == []
