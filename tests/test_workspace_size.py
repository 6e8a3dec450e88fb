"""The workspace of the unit method grows with what is carried, not with the widest squared."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from fastcheck import Network, gradcheck
from fastcheck.methods.unit.method import prepare
from fastcheck.settings import Settings

RNG = np.random.default_rng(0)
# A worker may take so much beside what the parameters and the trace take themselves.
SPARE = 64 * 2**20


def problem(sizes: tuple[int, ...], m: int = 2) -> tuple[Network, np.ndarray, np.ndarray]:
    weights = [RNG.normal(size=(b, a)) / a for a, b in itertools.pairwise(sizes)]
    network = Network.from_arrays(
        weights, [RNG.normal(size=b) for b in sizes[1:]], activations="tanh", loss="squared_error"
    )
    return network, RNG.normal(size=(m, sizes[0])), RNG.normal(size=(m, sizes[-1]))


def plain_gradient(network: Network, X: np.ndarray, Y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the gradient of a tanh network with half the squared error by a plain loop."""
    p, depth, A = network.parameters, network.depth, [X]
    for k in range(1, depth + 1):
        Z = A[-1] @ p[f"W{k}"].T + p[f"b{k}"]
        A.append(np.tanh(Z) if k < depth else Z)
    found, dZ = {}, (A[-1] - Y) / len(X)
    for k in range(depth, 0, -1):
        found[f"dW{k}"], found[f"db{k}"] = dZ.T @ A[k - 1], dZ.sum(0)
        dZ = (dZ @ p[f"W{k}"]) * (1 - A[k - 1] ** 2)
    return found


@pytest.mark.parametrize(
    "sizes",
    [
        (64, 8, 50_000),
        (1, 200_000, 1),
        (3, 20_000, 4),
        (5, 9_000, 2, 3),
        (2, 3, 9_000, 1),
        (4, 9_000),
    ],
)
def test_a_worker_takes_what_its_probes_need(sizes: tuple[int, ...]) -> None:
    network, X, Y = problem(sizes)
    method = prepare(network, network.batch(X, Y), None, Settings())
    carried = sum(sizes[1:-1]) * max(sizes[2:], default=1)
    weights = max((a * b for a, b in itertools.pairwise(sizes[1:])), default=0)
    assert method.worker_bytes <= 8.0 * 6 * (carried + weights) + SPARE


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 200_000, 1),
        (3, 20_000, 4),
        (5, 9_000, 2, 3),
        (6, 5, 3_000),
        (4, 3_000),
    ],
)
@pytest.mark.usefixtures("traced")
def test_wide_layers_are_checked_within_what_they_need(sizes: tuple[int, ...]) -> None:
    network, X, Y = problem(sizes)
    right = plain_gradient(network, X, Y)
    gradcheck(network, X[:1], Y[:1], plain_gradient(network, X[:1], Y[:1]), jobs=1)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    report = gradcheck(network, X, Y, right, jobs=1)
    assert report.passed, report
    assert report.difference < 1e-9
    own = 8 * (20 * network.size + 60 * len(X) * sum(sizes))
    assert tracemalloc.get_traced_memory()[1] - before < own + SPARE


@pytest.mark.parametrize("sizes", [(6, 40, 30, 5), (6, 5, 40, 30), (6, 40, 3), (6, 3, 40), (6, 4)])
@pytest.mark.parametrize("sample", [1, 3, 40])
def test_few_components_have_a_workspace_that_is_large_enough(
    sizes: tuple[int, ...], sample: int
) -> None:
    network, X, Y = problem(sizes)
    for seed in range(5):
        right = plain_gradient(network, X, Y)
        report = gradcheck(network, X, Y, right, sample=sample, seed=seed, jobs=1)
        assert report.passed, report


def test_a_small_budget_cuts_the_units_and_leaves_the_gradient() -> None:
    network, X, Y = problem((5, 300, 200, 7), m=3)
    batch = network.batch(X, Y)
    method = prepare(network, batch, None, Settings(memory=8e6))
    assert method.chunks[0].parts > 1
    assert method.worker_bytes < 8e6
    report = gradcheck(network, X, Y, plain_gradient(network, X, Y), memory=8e6)
    assert report.passed, report
    tiny = prepare(network, batch, None, Settings(memory=1.0))
    assert len(tiny.chunks) <= 500 * 3
