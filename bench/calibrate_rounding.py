"""How far correct gradients are off, in units of what the rounding model predicts.

    python -m bench.calibrate_rounding [--networks 1000] [--seed 77]

For each precision: gradients, components, |error|/σ of the components and how many are accused,
‖error‖/‖σ‖ of the blocks, the greatest share of a block's tolerance that is used, how many blocks
are accused, and how many of the large blocks notice ten times their own error. Then the same last
figure for everyday networks. The last table is the time that the model takes, in backpropagations
on one core each: as a check pays it, which has made a forward pass and dθ_approx and asks for σ a
piece at a time; and for all of it in one array from nothing.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.execution.blas import one_blas_thread
from fastcheck.kernels.forward import forward_trace
from fastcheck.model.network import Batch, Network
from fastcheck.rounding import gradient_rounding, rounding
from fastcheck.rounding.propagation import Trace
from fastcheck.verdict.compare import PIECE_SIZE
from fastcheck.verdict.rules import ROUNDING_FACTOR
from tests.rounding_cases import (
    Ratios,
    cases,
    dense,
    exact_gradient,
    network_of,
    noticed,
    numpy_gradient,
    ratios,
    torch_gradient,
)

LARGE = 500  # components of a block
EVERYDAY = ([784, 128, 10], [784, 512, 512, 10], [784, *[256] * 8, 10])
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu")
PRECISIONS = ("float64", "float32", "float16", "bfloat16")
SIZES: tuple[tuple[list[int], int], ...] = (
    ([784, 512, 512, 10], 32),
    ([784] + [1024] * 8 + [10], 32),
)


def found(precision: str, networks: int, seed: int) -> list[Ratios]:
    results = []
    for drawn, predicted, exact in cases(seed, networks, precision):
        gradients = [torch_gradient(drawn, precision)]
        if precision != "bfloat16":
            gradients.append(numpy_gradient(drawn, np.dtype(precision)))
        finite = [g for g in gradients if np.isfinite(g).all()]
        results += [ratios(predicted, gradient, exact) for gradient in finite]
    return results


def summarise(precision: str, results: list[Ratios]) -> None:
    components = np.concatenate([r.components for r in results])
    blocks = np.concatenate([r.blocks for r in results])
    shares = np.concatenate([r.shares for r in results])
    seen = np.concatenate([noticed(r) for r in results])
    large = np.concatenate([r.sizes for r in results]) >= LARGE
    some = components[components > 0]
    print(
        f"{precision:9} {len(results):5} {components.size:10,}"
        f"  {np.median(some):6.2f} {np.quantile(components, 0.999):6.2f} {components.max():6.2f}"
        f" {int(np.sum(components > ROUNDING_FACTOR)):4}"
        f"  {np.median(blocks):6.2f} {np.quantile(blocks, 0.999):6.2f} {blocks.max():6.2f}"
        f" {shares.max():6.2f} {int(np.sum(shares > 1)):4} {np.mean(seen[large]):8.0%}"
    )


def everyday(sizes: list[int], m: int) -> tuple[Network, Batch]:
    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.normal(0, np.sqrt(2 / a), (b, a)).astype(np.float32) for a, b in pairs]
    network = Network.from_arrays(weights, [np.zeros(b, np.float32) for _, b in pairs])
    inputs = rng.random((m, sizes[0])).astype(np.float32)
    return network, network.batch(inputs, rng.integers(sizes[-1], size=m))


def backpropagation(network: Network, batch: Batch) -> list[Any]:
    A: list[Any] = [batch.X]
    gradients: list[Any] = []
    for layer in range(1, network.depth + 1):
        Z = A[-1] @ network.W(layer).T + np.asarray(network.b(layer))
        A.append(np.maximum(Z, 0.0) if layer < network.depth else Z)
    powers = np.exp(A[-1] - A[-1].max(axis=1, keepdims=True))
    delta = (powers / powers.sum(axis=1, keepdims=True) - batch.T) / batch.size
    for layer in range(network.depth, 0, -1):
        gradients += [delta.T @ A[layer - 1], delta.sum(axis=0)]
        if layer > 1:
            delta = (delta @ network.W(layer)) * (A[layer - 1] > 0)
    return gradients


def medians(works: list[Callable[[], Any]], repeats: int = 25) -> list[float]:
    """Return the seconds of each, done in turn: the machine is not always the same."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for work, known in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if repeat:
                known.append(time.perf_counter() - start)
    return [float(np.median(known)) for known in times]


def in_a_check(network: Network, batch: Batch, trace: Trace, dtheta: Any) -> None:
    """Ask for σ as the verdict does."""
    predicted = rounding(network, batch, "float32", trace, dtheta)
    for block in network.order.blocks:
        for start in range(block.offset, block.offset + block.size, PIECE_SIZE):
            predicted.between(start, min(start + PIECE_SIZE, block.offset + block.size))


def time_the_model() -> None:
    print(f"\n{'milliseconds on one core':26} backpropagation  in a check         alone")
    for sizes, m in SIZES:
        network, batch = everyday(sizes, m)
        with one_blas_thread():
            trace = forward_pass(network, batch)
            gradients = backpropagation(network, batch)
            dtheta = np.concatenate([g.ravel() for g in gradients])
            once, checked, alone = medians(
                [
                    lambda: backpropagation(network, batch),  # noqa: B023
                    lambda: in_a_check(network, batch, trace, dtheta),  # noqa: B023
                    lambda: gradient_rounding(network, batch, "float32"),  # noqa: B023
                ]
            )
        name = f"{'-'.join(map(str, sizes[:3]))}…, m = {m}"
        print(
            f"{name:26} {1e3 * once:15.2f} {1e3 * checked:6.2f} {checked / once:4.2f}×"
            f" {1e3 * alone:7.2f} {alone / once:4.2f}×"
        )


def forward_pass(network: Network, batch: Batch) -> Trace:
    flat = np.empty((2, batch.size * sum(network.sizes[1:])))
    arrays = network.arrays(batch.size)
    forward_trace(arrays, network.theta, batch.X, flat[0], flat[1], network.calls)
    return flat[0], flat[1]


def everyday_blocks() -> None:
    """Print how often ten times the error of one block is seen in networks as people have them."""
    seen = []
    for widths, activation, m in itertools.product(EVERYDAY, ACTIVATIONS, (8, 32, 128)):
        drawn = dense(3, widths, m, activation)
        predicted = rounding(*network_of(drawn, "float32"), "float32")
        exact = exact_gradient(drawn, "float32")
        for gradient in (torch_gradient(drawn, "float32"), numpy_gradient(drawn, np.float32)):
            result = ratios(predicted, gradient, exact)
            assert result.shares.max() <= 1.0
            seen.append(noticed(result)[result.sizes >= LARGE])
    counts = np.concatenate(seen)
    print(f"\n10x seen in everyday float32 networks: {np.mean(counts):.0%} of {counts.size} blocks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=77)
    chosen = parser.parse_args()
    print(f"{'':26}|error|/σ{'':21}‖error‖/‖σ‖{'':9}of tol.")
    heads = ("median  99.9%    max  >30", "median  99.9%    max    max   >1 10x seen")
    print(f"precision  runs components  {heads[0]}  {heads[1]}")
    warnings.simplefilter("ignore")
    for precision in PRECISIONS:
        summarise(precision, found(precision, chosen.networks, chosen.seed))
    everyday_blocks()
    time_the_model()


if __name__ == "__main__":
    main()
