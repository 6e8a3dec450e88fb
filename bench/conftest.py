"""What the benches share: the repository's folder on the path, and a table of components a second.

pytest's importlib mode keeps the folder off `sys.path`, so that what is installed is measured. Here
it comes last: `tests.oracle` is found there, fastcheck only where it is not installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.append(str(Path(__file__).parent.parent))

YARDSTICK = "NumPy loop, in place"
Floats = NDArray[np.float64]
Rate = Callable[[str, str, Callable[[], Floats], Floats], float]


@dataclass(frozen=True)
class Row:
    """One method on one network.

    Attributes
    ----------
    rate : float
        Components a second, in the fastest round.
    difference : float
        To the gradient by backpropagation.
    """

    network: str
    method: str
    rate: float
    difference: float


ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def rate(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Rate:
    """Return what measures a method and puts it into the table: `rate(network, method, run, g)`.

    `run()` returns the numerical gradient of the components whose gradient is `g`; the relative
    difference of both is returned.
    """
    from tests import oracle

    def measured(network: str, method: str, run: Callable[[], Floats], gradient: Floats) -> float:
        benchmark.group = network
        values: Any = run()  # warmed up, compiled
        benchmark(run)
        difference = oracle.relative_difference(gradient, values)
        benchmark.extra_info["difference"] = difference
        if benchmark.stats is not None:  # None with --benchmark-disable
            a_second = gradient.size / benchmark.stats.stats.min
            benchmark.extra_info["components a second"] = a_second
            rows = request.config.stash.setdefault(ROWS, [])
            rows.append(Row(network, method, a_second, difference))
        return difference

    return measured


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    rows = config.stash.get(ROWS, [])
    for network in dict.fromkeys(row.network for row in rows):
        terminalreporter.section(f"{network}: components a second")
        of_network = [row for row in rows if row.network == network]
        loop = next((row.rate for row in of_network if row.method == YARDSTICK), None)
        for row in of_network:
            ratio = f"{row.rate / loop:12,.1f}×" if loop else ""
            terminalreporter.write_line(
                f"{row.method:32}{row.rate:14,.0f}/s{ratio}   difference {row.difference:.1e}"
            )
