"""The textbook method beside the plain NumPy loop: components a second, accuracy, memory.

`pytest bench/test_textbook.py` prints the table. Every row checks the same components of the same
network, at the same ε; NumPy's BLAS may use all cores. Peers and ours take turns, so that a busy
machine slows all of them, and the ratios are those of the fastest turn of each.
"""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastcheck.methods.textbook import prepare
from fastcheck.network import Batch, Network
from fastcheck.parallel import run
from fastcheck.sampling import sample
from fastcheck.settings import Settings
from tests import oracle

SIZES, M, EPSILON = (784, 512, 512, 10), 32, 1e-7
COMPONENTS, TURNS = 260, 5
PENALTIES = {"with L2": 0.1, "without L2": 0.0}

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

    def fastcheck(self, jobs: int | None = None) -> Floats:
        """Ours, preparation included."""
        settings = Settings.of(epsilon=EPSILON, jobs=jobs)
        work = prepare(self.network, self.batch, self.indices, settings)
        return work.assemble(run(work, settings, "textbook")).values

    @property
    def rows(self) -> dict[str, Callable[[], Floats]]:
        """What is compared."""
        return {
            "NumPy loop, θ copied": self.numpy_copies,
            "NumPy loop, in place": self.numpy_in_place,
            "fastcheck, one worker": lambda: self.fastcheck(jobs=1),
            "fastcheck": self.fastcheck,
        }


@pytest.mark.parametrize("penalty", PENALTIES)
def test_components_a_second(penalty: str, benchmark: BenchmarkFixture) -> None:
    case = Case.of(PENALTIES[penalty])
    values = {name: row() for name, row in case.rows.items()}  # warmed up, compiled
    best = dict.fromkeys(case.rows, np.inf)
    for _ in range(TURNS):
        for name, row in case.rows.items():
            start = time.perf_counter()
            row()
            best[name] = min(best[name], time.perf_counter() - start)
    benchmark(case.fastcheck)
    print(f"\n784-512-512-10 ReLU, batch 32, softmax cross-entropy, {penalty}")
    for name, seconds in best.items():
        difference = oracle.relative_difference(case.gradient, values[name])
        ratio = best["NumPy loop, in place"] / seconds
        print(
            f"{name:24}{COMPONENTS / seconds:8.0f} components/s {ratio:6.2f}x"
            f"   difference {difference:.1e}"
        )
        benchmark.extra_info[name] = [COMPONENTS / seconds, ratio, difference]
        assert difference < 3e-7
    assert best["fastcheck"] < best["NumPy loop, in place"]


MEASURE = """
import resource
from bench.test_textbook import Case
case = Case.of(0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
case.fastcheck()
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_the_whole_process() -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    before, peak = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    print(f"\npeak of the process {peak:.0f} MiB, {before:.0f} of them before the check")
    assert peak < 1024
