"""How fast and how exact the unit method is: `python -m bench.unit` prints the table.

Every row is a ratio of two things measured in turns in one run, with the accuracy beside it. Parts
go by their names, as in `python -m bench.unit small deep start growth wide`; without a name, all
but `wide`, which takes minutes and gigabytes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastcheck
from fastcheck.model.network import Batch, Network
from fastcheck.norms import relative_difference
from fastcheck.reference.backprop import gradients

Floats = NDArray[np.float64]
TURNS = 15


@dataclass(frozen=True)
class Case:
    """A network at its random initialisation, and a batch."""

    network: Network
    batch: Batch

    @classmethod
    def of(cls, sizes: list[int], m: int, activation: str = "relu") -> Case:
        """Draw one, the same at every run."""
        rng = np.random.default_rng(0)
        local_slope = 2.0 if activation == "relu" else 1.0
        weights = [
            rng.standard_normal((n, k)) * np.sqrt(local_slope / k) for k, n in pairwise(sizes)
        ]
        biases = [0.01 * rng.standard_normal(n) for n in sizes[1:]]
        network = Network.from_arrays(weights, biases, activations=activation)
        inputs = rng.standard_normal((m, sizes[0]))
        return cls(network, network.batch(inputs, rng.integers(0, sizes[-1], m)))

    def b(self, layer: int) -> Floats:
        """Return b_l."""
        biases = self.network.b(layer)
        assert biases is not None
        return biases

    def numerical(self, **settings: Any) -> Floats:
        """Return dθ_approx of all components."""
        return fastcheck.numerical_gradient(self.network, self.batch.X, self.batch.T, **settings)

    def backprop(self) -> list[Floats]:
        """One forward and backward pass, as one writes it in NumPy for ReLU or tanh."""
        network, A, T = self.network, [self.batch.X], self.batch.T
        relu = network.activations[0].name == "relu"
        layers = range(1, network.depth + 1)
        for layer in layers:
            Z = A[-1] @ network.W(layer).T + self.b(layer)
            hidden = np.maximum(Z, 0.0) if relu else np.tanh(Z)
            A.append(hidden if layer < network.depth else Z)
        powers = np.exp(A[-1] - A[-1].max(axis=1, keepdims=True))
        dZ = (powers / powers.sum(axis=1, keepdims=True) - T) / len(T)
        found = []
        for layer in reversed(layers):
            found += [dZ.T @ A[layer - 1], dZ.sum(axis=0)]
            if layer > 1:
                slope = (A[layer - 1] > 0) if relu else 1.0 - A[layer - 1] ** 2
                dZ = (dZ @ network.W(layer)) * slope
        return found

    def cost(self, theta: Floats) -> float:
        """J(θ), as one writes it in NumPy."""
        A = self.batch.X
        for layer in range(1, self.network.depth + 1):
            weights, biases = self.network.order.weights(layer), self.network.order.biases(layer)
            assert biases is not None
            A = A @ theta[weights.slice].reshape(weights.shape).T + theta[biases.slice]
            A = np.maximum(A, 0.0) if layer < self.network.depth else A
        below = A - A.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(below).sum(axis=1, keepdims=True))
        return float((self.batch.T * (log_total - below)).sum() / len(A))

    def necessary_flops(self) -> float:
        """What multiplying by the weights between active units takes, probe by probe."""
        sizes, A, layers = self.network.sizes, self.batch.X, range(1, self.network.depth + 1)
        active = np.zeros((self.network.depth, self.batch.size))
        for layer in layers:
            Z = A @ self.network.W(layer).T + self.b(layer)
            relu = self.network.activations[layer - 1].name == "relu"
            A = np.maximum(Z, 0.0) if relu else Z
            active[layer - 1] = (A > 0).sum(axis=1) if relu else sizes[layer]
            A = A if relu else np.tanh(Z)
        pairs = [(k, l) for k in range(2, self.network.depth) for l in range(k - 1)]
        return float(sum((2 * active[l] * active[k] * active[k - 1]).sum() for k, l in pairs))


def seconds(work: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(works: list[Callable[[], Any]], turns: int = TURNS) -> list[float]:
    """Return the median time of each, measured in turns after a warm-up."""
    for work in works:
        work()
    return [
        float(m) for m in np.median([[seconds(w) for w in works] for _ in range(turns)], axis=0)
    ]


def row(what: str, ratio: str, detail: str) -> None:
    """Print one row of the table."""
    print(f"| {what} | {ratio} | {detail} |", flush=True)


def small() -> None:
    """784-512-512-10 against one backpropagation, and against the textbook loop."""
    case = Case.of([784, 512, 512, 10], 32)
    dtheta = gradients(case.network, case.batch)
    network, X, T = case.network, case.batch.X, case.batch.T
    theta = network.theta.copy()
    times = in_turns(
        [
            case.backprop,
            case.numerical,
            lambda: fastcheck.gradcheck(network, X, T, dtheta),
            lambda: [case.cost(theta) for _ in range(10)],
        ]
    )
    backprop, numerical, check, costs = times
    off = relative_difference(case.numerical(), dtheta)
    each = 2 * costs / 10
    row("numerical_gradient, 784-512-512-10, m = 32, against a NumPy forward + backward",
        f"{numerical / backprop:.1f}×", f"{1e3 * numerical:.1f} ms, off by {off:.1e}")  # fmt: skip
    row("gradcheck in full on the same", f"{check / backprop:.1f}×", f"{1e3 * check:.1f} ms")
    row("the same against the NumPy textbook loop, a component",
        f"{each * network.size / numerical:,.0f}×",
        f"{network.size / numerical:,.0f} components/s")  # fmt: skip


def deep() -> None:
    """784-1024⁸-10: the share of dgemm's rate, and two workers against one."""
    square = np.random.default_rng(0).standard_normal((1024, 1024))
    for activation in ("relu", "tanh", "gelu"):
        case = Case.of([784, *[1024] * 8, 10], 32 if activation == "relu" else 8, activation)
        work = case.necessary_flops()
        dgemm, two = in_turns([lambda: [square @ square for _ in range(8)], case.numerical], 3)
        share = (work / two) / (8 * 2 * 1024.0**3 / dgemm)
        off = relative_difference(case.numerical(), gradients(case.network, case.batch))
        row(f"784-1024⁸-10 {activation}, m = {case.batch.size}: rate against 1024³ dgemm, 2 cores",
            f"{100 * share:.0f} %", f"{two:.2f} s, difference {off:.1e}")  # fmt: skip
        if activation == "relu":
            one, two = in_turns([lambda c=case: c.numerical(jobs=1), case.numerical], 3)  # type: ignore[misc]
            row("two workers against one on it", f"{one / two:.2f}×", f"{one:.2f} s, {two:.2f} s")


def wide() -> None:
    """784-4096⁸-10 with m = 8: time and memory."""
    case = Case.of([784, *[4096] * 8, 10], 8)
    taken = seconds(case.numerical)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row(f"784-4096⁸-10 relu, m = 8, all {case.network.size:,}", f"{taken:.0f} s", f"{peak:.1f} GiB")


def start() -> None:
    """Time the whole process, with kernels compiled and on a fresh cache."""
    command = [sys.executable, "-m", "fastcheck", "--sample", "5000", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        fresh = {**os.environ, "XDG_CACHE_HOME": folder}

        def run() -> None:
            subprocess.run(command, env=fresh, check=True, capture_output=True)

        compiling = seconds(run)
        compiled = float(np.median([seconds(run) for _ in range(5)]))
        bare = [sys.executable, "-c", "import numba"]
        numba = float(
            np.median([seconds(lambda: subprocess.run(bare, check=True)) for _ in range(5)])
        )
    beside = f"whole process; `import numba` alone {numba:.2f} s"
    row("`fastcheck --sample 5000`, kernels compiled", f"{compiled:.2f} s", beside)
    row("the same on a fresh install, compiling", f"{compiling:.1f} s", beside)


def growth() -> None:
    """How the time grows with the batch, the width and the depth: fitted exponents."""
    grids: dict[str, Iterator[tuple[int, Case]]] = {
        "m": ((m, Case.of([256, 256, 256, 10], m)) for m in (16, 32, 64, 128, 256)),
        "width": ((n, Case.of([256, n, n, n, 10], 16)) for n in (128, 256, 512, 1024)),
        "depth": ((d, Case.of([256] * (d + 1) + [10], 16)) for d in (2, 4, 8, 16)),
    }
    for name, grid in grids.items():
        values, times, sizes = [], [], []
        for value, case in grid:
            values.append(value)
            times.append(in_turns([case.numerical], 5)[0])
            sizes.append(case.network.size)
        exponent = np.polyfit(np.log(values), np.log(times), 1)[0]
        shown = ", ".join(f"{v}: {1e3 * t:.1f} ms" for v, t in zip(values, times, strict=True))
        row(f"growth with {name}", f"exponent {exponent:.2f}", shown)
        if name == "width":
            exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
            row("growth with N (by width)", f"exponent {exponent:.2f}", f"N up to {sizes[-1]:,}")


PARTS = {"small": small, "deep": deep, "start": start, "growth": growth, "wide": wide}


def main() -> None:
    """Print the table of the parts that are named, or of all but `wide`."""
    print("| what | measured | beside it |\n| --- | --- | --- |")
    for name in sys.argv[1:] or [part for part in PARTS if part != "wide"]:
        PARTS[name]()


if __name__ == "__main__":
    main()
