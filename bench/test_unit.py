"""The unit method beside one backpropagation of the same network; `pytest bench/test_unit.py`.

`python -m bench.unit` prints the whole table of ratios.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastcheck
from bench.unit import Case
from fastcheck.backprop import gradients
from fastcheck.verdict import relative_difference

SIZES = {"784-128-10": [784, 128, 10], "784-512-512-10": [784, 512, 512, 10]}


@pytest.fixture(params=SIZES, name="case")
def _case(request: pytest.FixtureRequest) -> Case:
    return Case.of(SIZES[request.param], 32)


@pytest.mark.benchmark(group="all components")
def test_numpy_backpropagation(benchmark: BenchmarkFixture, case: Case) -> None:
    benchmark(case.backprop)


@pytest.mark.benchmark(group="all components")
def test_numerical_gradient(benchmark: BenchmarkFixture, case: Case) -> None:
    case.numerical()
    dtheta = benchmark(case.numerical)
    off = relative_difference(dtheta, gradients(case.network, case.batch))
    benchmark.extra_info["difference"] = off
    assert off < 1e-11


@pytest.mark.benchmark(group="all components")
def test_gradcheck(benchmark: BenchmarkFixture, case: Case) -> None:
    dtheta = gradients(case.network, case.batch)
    network, X, T = case.network, case.batch.X, case.batch.T
    report = benchmark(fastcheck.gradcheck, network, X, T, dtheta)
    assert report.passed, report
