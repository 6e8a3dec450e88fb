"""The unit method on all components, and one backpropagation; `pytest bench/test_unit.py`.

`python -m bench.unit` prints the whole table of ratios.
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastcheck
from bench.conftest import Rate
from bench.unit import Case
from fastcheck.reference.backprop import gradients

SIZES = {"784-128-10": [784, 128, 10], "784-512-512-10": [784, 512, 512, 10]}
LIMIT = 1e-11  # of the difference to backpropagation


@pytest.fixture(params=SIZES, name="network")
def _network(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(name="case")
def _case(network: str) -> Case:
    return Case.of(SIZES[network], 32)


@pytest.mark.benchmark(group="a forward and backward pass")
def test_numpy_backpropagation(benchmark: BenchmarkFixture, case: Case) -> None:
    benchmark(case.backprop)


def test_numerical_gradient(network: str, case: Case, rate: Rate) -> None:
    gradient = gradients(case.network, case.batch)
    assert rate(network, "unit, all components", case.numerical, gradient) < LIMIT


def test_gradcheck(network: str, case: Case, rate: Rate) -> None:
    gradient = gradients(case.network, case.batch)

    def check() -> np.ndarray:
        given = case.batch.X, case.batch.T, gradient
        report = fastcheck.gradcheck(case.network, *given)
        assert report.passed, report
        return gradient

    rate(network, "unit, the whole gradcheck", check, gradient)
