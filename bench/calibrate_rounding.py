"""How far correct gradients are off, in units of what the rounding model predicts.

    python -m bench.calibrate_rounding [--networks 1000] [--seed 77]

For each precision: gradients, components, |error|/σ of the components and how many are accused,
‖error‖/‖σ‖ of the blocks, the greatest share of a block's tolerance that is used, how many blocks
are accused, and how many of the large blocks notice ten times their own error. The last table is
the time that the model takes, in backpropagations.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import threadpoolctl

from fastcheck.network import Batch, Network
from fastcheck.rounding import COMPONENT_FACTOR, gradient_rounding, rounding
from tests.rounding_cases import Ratios, cases, numpy_gradient, ratios, torch_gradient

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
    large = np.concatenate([r.sizes for r in results]) >= 500
    some = components[components > 0]
    print(
        f"{precision:9} {len(results):5} {components.size:10,}"
        f"  {np.median(some):6.2f} {np.quantile(components, 0.999):6.2f} {components.max():6.2f}"
        f" {int(np.sum(components > COMPONENT_FACTOR)):4}"
        f"  {np.median(blocks):6.2f} {np.quantile(blocks, 0.999):6.2f} {blocks.max():6.2f}"
        f" {shares.max():6.2f} {int(np.sum(shares > 1)):4} {np.mean(shares[large] > 0.1):8.0%}"
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


def seconds(work: Callable[[], Any], repeats: int = 15) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(min(times))


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
    print("\nmilliseconds, one thread:  backpropagation  factors  σ of all  in backpropagations")
    with threadpoolctl.threadpool_limits(1):
        for sizes, m in SIZES:
            network, batch = everyday(sizes, m)
            once = seconds(lambda: backpropagation(network, batch))  # noqa: B023
            factors = seconds(lambda: rounding(network, batch, "float32"))  # noqa: B023
            whole = seconds(lambda: gradient_rounding(network, batch, "float32"))  # noqa: B023
            name = f"{'-'.join(map(str, sizes[:3]))}…, m = {m}"
            print(
                f"{name:26} {1e3 * once:15.2f} {1e3 * factors:8.2f} {1e3 * whole:9.2f}"
                f" {whole / once:20.2f}"
            )


if __name__ == "__main__":
    main()
