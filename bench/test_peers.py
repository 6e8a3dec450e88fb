"""Every peer that is installed gets the same, right answer; `pytest bench/test_peers.py`.

`python -m bench.peers` prints the tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers import CHECKERS, FIRST, SEED, SIZES, Case, Checker, installed
from fastcheck.sampling.components import sample
from tests import oracle

# Forward differences are off by O(ε), all others by the rounding of J over ε.
NOISE = 1e-6


@pytest.fixture(name="case", scope="module")
def _case() -> Case:
    return Case.of(SIZES[0])


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.benchmark(group="peers")
@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.name)
def test_a_right_gradient_agrees(checker: Checker, case: Case, benchmark: BenchmarkFixture) -> None:
    if not installed(checker.module):
        pytest.skip(f"{checker.module} is not installed")
    run, count = checker.make(case), case.size if checker.whole else FIRST
    indices = sample(case.network.order, count, SEED)
    run(indices)
    measure: Any = benchmark.pedantic
    answer = measure(run, args=(indices,), rounds=3)
    benchmark.extra_info["components"] = count
    if isinstance(answer, str):  # a verdict, and at the peer's own tolerances not always this one
        benchmark.extra_info["verdict"] = answer
        return
    known = np.isfinite(answer)
    difference = oracle.relative_difference(case.gradient[indices][known], answer[known])
    benchmark.extra_info["difference"] = difference
    if "its own steps" in checker.name:  # these meet kinks, and say so or not
        return
    assert known.all()
    assert difference < (1e-12 if checker.name == "fastcheck, unit" else NOISE)
