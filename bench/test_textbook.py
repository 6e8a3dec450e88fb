"""Both methods beside the plain NumPy loop: components a second, accuracy, memory.

`pytest bench/test_textbook.py` prints the table at its end. Every row checks the same components of
the same network, at the same ε; NumPy's BLAS may use all cores.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.conftest import YARDSTICK, Rate
from fastcheck.execution.parallel import run
from fastcheck.methods import textbook
from fastcheck.methods.unit import method as unit
from fastcheck.model.network import Batch, Network
from fastcheck.sampling.components import sample
from fastcheck.settings import Settings
from tests import oracle

ROOT = Path(__file__).parent.parent
SIZES, M, EPSILON = (784, 512, 512, 10), 32, 1e-7
COMPONENTS = 130
PLAIN = "without L2"
PENALTIES = {"with L2": 0.1, PLAIN: 0.0}

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Case:
    """One network, its batch, the components to check and their gradient by backpropagation."""

    network: Network
    batch: Batch
    indices: Any
    gradient: Floats

    @classmethod
    def of(cls, l2: float) -> "Case":
        """Draw the network, the same at every run."""
        rng = np.random.default_rng(0)
        pairs = list(itertools.pairwise(SIZES))
        W = [rng.standard_normal((n, k)) * np.sqrt(2 / k) for k, n in pairs]
        b = [0.01 * rng.standard_normal(n) for n in SIZES[1:]]
        network = Network.from_arrays(W, b, activations="relu", l2=l2)
        batch = network.batch(rng.standard_normal((M, SIZES[0])), rng.integers(0, SIZES[-1], M))
        indices = sample(network.order, COMPONENTS, seed=0)
        names = ["relu", "relu", "identity"]
        gradient = oracle.backprop(
            W, b, batch.X, batch.T, activations=names, loss="softmax_cross_entropy", l2=l2
        )
        return cls(
            network, batch, indices, np.asarray(oracle.pack(*gradient)[indices], dtype=np.float64)
        )

    def numpy_cost(self, theta: Floats) -> float:
        """J(θ), as one writes it in NumPy."""
        network, A = self.network, self.batch.X
        squares = 0.0
        for layer in range(1, network.depth + 1):
            weights, biases = network.order.weights(layer), network.order.biases(layer)
            assert biases is not None
            W = theta[weights.slice].reshape(weights.shape)
            A = A @ W.T + theta[biases.slice]
            if layer < network.depth:
                A = np.maximum(A, 0.0)
            if network.l2:
                squares += np.sum(W * W)
        top = A.max(axis=1, keepdims=True)
        log_total = top + np.log(np.exp(A - top).sum(axis=1, keepdims=True))
        return float(np.sum(self.batch.T * (log_total - A)) + network.l2 / 2 * squares) / M

    def numpy_in_place(self) -> Floats:
        """The loop at its fastest: θ is perturbed in place, its blocks are views."""
        theta, values = self.network.theta.copy(), np.empty(COMPONENTS)
        for k, i in enumerate(self.indices):
            kept = theta[i]
            theta[i] = kept + EPSILON
            above = self.numpy_cost(theta)
            theta[i] = kept - EPSILON
            below = self.numpy_cost(theta)
            theta[i] = kept
            values[k] = (above - below) / (2 * EPSILON)
        return values

    def numpy_copies(self) -> Floats:
        """The loop as courses write it: a copy of θ for each side."""
        theta, values = self.network.theta, np.empty(COMPONENTS)
        for k, i in enumerate(self.indices):
            plus, minus = theta.copy(), theta.copy()
            plus[i] += EPSILON
            minus[i] -= EPSILON
            values[k] = (self.numpy_cost(plus) - self.numpy_cost(minus)) / (2 * EPSILON)
        return values

    def textbook(self, jobs: int | None = None) -> Floats:
        """Ours, preparation included."""
        settings = Settings.of(epsilon=EPSILON, jobs=jobs)
        work = textbook.prepare(self.network, self.batch, self.indices, settings)
        return work.assemble(run(work, settings, "textbook")).values

    def unit(self) -> Floats:
        """The unit method on the same components, preparation included."""
        settings = Settings.of(epsilon=EPSILON)
        work = unit.prepare(self.network, self.batch, self.indices, settings)
        return work.assemble(run(work, settings, "unit")).values


ROWS: dict[str, Callable[[Case], Floats]] = {
    "NumPy loop, θ copied": Case.numpy_copies,
    YARDSTICK: Case.numpy_in_place,
    "textbook, one worker": lambda case: case.textbook(jobs=1),
    "textbook": Case.textbook,
    "unit, the same components": Case.unit,
}


@pytest.fixture(params=PENALTIES, name="penalty", scope="module")
def _penalty(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(name="case", scope="module")
def _case(penalty: str) -> Case:
    return Case.of(PENALTIES[penalty])


@pytest.mark.parametrize("method", ROWS)
def test_components_a_second(method: str, penalty: str, case: Case, rate: Rate) -> None:
    network = "784-512-512-10" if penalty == PLAIN else f"784-512-512-10, {penalty}"
    difference = rate(network, method, lambda: ROWS[method](case), case.gradient)
    assert difference < (1e-11 if method.startswith("unit") else 3e-7)


MEASURE = """
import resource, sys
sys.path.append({root!r})
from bench.test_textbook import Case
case = Case.of(0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
case.textbook()
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_the_whole_process() -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURE.format(root=str(ROOT))],
        capture_output=True,
        text=True,
        check=True,
    )
    before, peak = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    print(f"\npeak of the process {peak:.0f} MiB, {before:.0f} of them before the check")
    assert peak < 1024
