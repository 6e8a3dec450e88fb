"""The textbook's noise is measured wherever θ lies: no right gradient is accused."""

from typing import Any

import numpy as np
import pytest

from fastcheck import Network, gradcheck
from tests.rounding import plain

STYLE = plain.Style("library", "sum", {"sigmoid": 6})
SIZES = (5, 6, 3)


def problem_of(seed: int, m: int, **changes: Any) -> plain.Problem:
    rng = np.random.default_rng(seed)
    problem = plain.Problem(
        weights=[rng.normal(0, n**-0.5, (k, n)) for n, k in ((5, 6), (6, 3))],
        biases=[np.zeros(6), np.zeros(3)],
        activations=["tanh", "identity"],
        loss="softmax_cross_entropy",
        l2=0.0,
        inputs=rng.normal(size=(m, 5)),
        targets=np.eye(3)[rng.integers(3, size=m)],
    )
    return problem._replace(**changes)


def status_of(problem: plain.Problem) -> str:
    given = plain.gradient(problem, np.float64, STYLE)
    network = Network.from_arrays(
        problem.weights, problem.biases,
        activations=problem.activations, loss=problem.loss, l2=problem.l2,
    )  # fmt: skip
    inputs, targets = problem.inputs, problem.targets
    return gradcheck(network, inputs, targets, given, method="textbook").status


CASES: dict[str, Any] = {
    "zero inputs and biases": lambda p: p._replace(inputs=0.0 * p.inputs),
    "zero weights": lambda p: p._replace(weights=[0.0 * W for W in p.weights]),
    "a huge penalty": lambda p: p._replace(l2=1e8),
    "saturated": lambda p: p._replace(weights=[200.0 * W for W in p.weights]),
    "squared error": lambda p: p._replace(loss="squared_error", inputs=0.0 * p.inputs),
    "an exact J": lambda p: p._replace(
        loss="squared_error", weights=[0.0 * W for W in p.weights], targets=0.0 * p.targets
    ),
    "raw inputs": lambda p: p._replace(inputs=1e3 * p.inputs),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("m", [1, 239, 1000])
def test_no_right_gradient_is_accused(case: str, m: int) -> None:
    for seed in range(5):
        assert status_of(CASES[case](problem_of(seed, m))) != "wrong", seed


@pytest.mark.parametrize("m", [1, 239])
def test_one_parameter(m: int) -> None:
    for weight in (0.0, 1.0, -0.3):
        problem = problem_of(0, m, weights=[np.full((1, 1), weight)], biases=[np.zeros(1)])
        rng = np.random.default_rng(1)
        problem = problem._replace(
            activations=["tanh"], loss="squared_error",
            inputs=rng.normal(size=(m, 1)), targets=rng.normal(size=(m, 1)),
        )  # fmt: skip
        assert status_of(problem) != "wrong"


def test_what_is_far_above_the_noise_is_still_seen() -> None:
    problem = problem_of(0, 239, inputs=np.zeros((239, 5)))
    given = plain.gradient(problem, np.float64, STYLE)
    given[3] = given[3] * (1.0 + 1e-4)
    network = Network.from_arrays(
        problem.weights, problem.biases, activations=problem.activations, loss=problem.loss
    )
    report = gradcheck(network, problem.inputs, problem.targets, given, method="textbook")
    assert report.status == "wrong"
