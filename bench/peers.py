"""Set gradient checkers side by side: components a second, and the error of each.

`python -m bench.peers` prints one Markdown table per size and takes a few minutes on two cores;
with `--quick` each row gets one second in place of five, with `--size 64-32-10` there is one table.

Every row has the same network, batch and ε. It is warmed up first, so that no compilation is
timed; then its sample of components grows until the run fills its time or θ is covered, and the
fastest run at that size is shown. Samples are spread over all blocks. Peers that only
differentiate a whole function get J as a function of the sampled components, and at most
`FUNCTION_MOST` of these. PyTorch gets one thread or all, whichever is faster in its warm-up.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastcheck import numerical_gradient
from fastcheck.model.network import Batch, Network
from fastcheck.sampling.components import sample
from tests import oracle

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Answer: TypeAlias = Floats | str
Run: TypeAlias = Callable[[Integers], Answer]

SIZES = ((64, 32, 10), (784, 128, 10), (784, 512, 512, 10))
M, EPSILON, SEED = 32, 1e-7, 0
SECONDS, QUICK_SECONDS = 5.0, 1.0
FIRST, GROWTH, TURNS = 8, 16, 5
FUNCTION_MOST = 2_500  # beyond, k × k arrays and the scattering of k numbers would be timed
CHUNK_BYTES = 64 * 2**20  # of perturbed copies of θ


@dataclass(frozen=True)
class Case:
    """One network, its batch and its gradient by backpropagation in float64."""

    sizes: tuple[int, ...]
    network: Network
    batch: Batch
    gradient: Floats

    @classmethod
    def of(cls, sizes: tuple[int, ...]) -> Case:
        """Draw the network, the same at every run."""
        rng = np.random.default_rng(SEED)
        pairs = list(itertools.pairwise(sizes))
        W = [rng.standard_normal((n, k)) * np.sqrt(2 / k) for k, n in pairs]
        b = [0.01 * rng.standard_normal(n) for n in sizes[1:]]
        network = Network.from_arrays(W, b, activations="relu")
        batch = network.batch(rng.standard_normal((M, sizes[0])), rng.integers(0, sizes[-1], M))
        gradient = oracle.backprop(
            W,
            b,
            batch.X,
            batch.T,
            activations=["relu"] * (len(W) - 1) + ["identity"],
            loss="softmax_cross_entropy",
        )
        return cls(sizes, network, batch, np.asarray(oracle.pack(*gradient), dtype=np.float64))

    @property
    def size(self) -> int:
        """N."""
        return self.network.order.size

    @property
    def layers(self) -> list[tuple[slice, tuple[int, ...], slice]]:
        """Where W_l lies in θ, its shape, and where b_l lies."""
        found = []
        for layer in range(1, self.network.depth + 1):
            weights, biases = self.network.order.weights(layer), self.network.order.biases(layer)
            assert biases is not None
            found.append((weights.slice, weights.shape, biases.slice))
        return found

    @property
    def chunk(self) -> int:
        """How many components go through a vectorising map at once, two copies of θ each."""
        return max(1, min(256, CHUNK_BYTES // (16 * self.size)))


# --- J(θ), as one writes it in each library -------------------------------------------------------


def numpy_cost(case: Case) -> Callable[[Floats], float]:
    """J in NumPy; the blocks of θ are views."""
    X, T, layers = case.batch.X, case.batch.T, case.layers

    def cost(theta: Floats) -> float:
        A = X
        for weights, shape, biases in layers:
            Z = A @ theta[weights].reshape(shape).T + theta[biases]
            A = np.maximum(Z, 0.0)
        top = Z.max(axis=1, keepdims=True)
        log_total = top + np.log(np.exp(Z - top).sum(axis=1, keepdims=True))
        return float(np.sum(T * (log_total - Z))) / M

    return cost


def torch_cost(case: Case) -> Callable[[Any], Any]:
    """J in PyTorch, of a tensor θ."""
    import torch

    X, T, layers = torch.tensor(case.batch.X), torch.tensor(case.batch.T), case.layers

    def cost(theta: Any) -> Any:
        A = X
        for weights, shape, biases in layers:
            Z = A @ theta[weights].reshape(shape).T + theta[biases]
            A = torch.relu(Z)
        return -(T * torch.log_softmax(Z, dim=1)).sum() / M

    return cost


def jax_cost(case: Case) -> Callable[[Any], Any]:
    """J in JAX, of an array θ."""
    import jax

    jax.config.update("jax_enable_x64", True)
    X, T, layers = jax.numpy.asarray(case.batch.X), jax.numpy.asarray(case.batch.T), case.layers

    def cost(theta: Any) -> Any:
        A = X
        for weights, shape, biases in layers:
            Z = A @ theta[weights].reshape(shape).T + theta[biases]
            A = jax.nn.relu(Z)
        return -(T * jax.nn.log_softmax(Z, axis=1)).sum() / M

    return cost


def restricted(case: Case, indices: Integers) -> Callable[[Floats], float]:
    """J as a function of some components of θ, the others held; nothing of length N is copied."""
    cost, theta = numpy_cost(case), case.network.theta.copy()
    if indices.size == case.size:
        return cost

    def of_part(part: Floats) -> float:
        theta[indices] = part
        return cost(theta)

    return of_part


# --- the checkers: each takes a case and returns what checks the components it is given -----------


def numpy_loop(case: Case) -> Run:
    """The textbook loop at its fastest: θ is perturbed in place."""
    cost, theta = numpy_cost(case), case.network.theta.copy()

    def run(indices: Integers) -> Floats:
        values = np.empty(indices.size)
        for k, i in enumerate(indices):
            kept = theta[i]
            theta[i] = kept + EPSILON
            above = cost(theta)
            theta[i] = kept - EPSILON
            values[k] = (above - cost(theta)) / (2 * EPSILON)
            theta[i] = kept
        return values

    return run


def scipy_approx_fprime(case: Case) -> Run:
    """Forward differences."""
    from scipy.optimize import approx_fprime

    def run(indices: Integers) -> Floats:
        start = case.network.theta[indices]
        return np.asarray(approx_fprime(start, restricted(case, indices), EPSILON))

    return run


def scipy_jacobian(case: Case, **options: Any) -> Run:
    """The public face of SciPy's adaptive differences, for a function of a vector."""
    jacobian: Any = importlib.import_module("scipy.differentiate").jacobian

    def run(indices: Integers) -> Floats:
        cost = restricted(case, indices)

        def vectorized(points: Floats) -> Floats:
            rows = np.ascontiguousarray(points.reshape(indices.size, -1).T)
            return np.array([cost(row) for row in rows]).reshape(1, *points.shape[1:])

        return np.asarray(jacobian(vectorized, case.network.theta[indices], **options).df[0])

    return run


def numdifftools_gradient(case: Case, **options: Any) -> Run:
    """Central differences, extrapolated where several steps are taken."""
    gradient: Any = importlib.import_module("numdifftools").Gradient

    def run(indices: Integers) -> Floats:
        check = gradient(restricted(case, indices), **options)
        return np.atleast_1d(np.asarray(check(case.network.theta[indices]), dtype=np.float64))

    return run


def at_best_threads(run: Run) -> Run:
    """Let PyTorch use one thread or all, whichever is faster in the first call."""
    import torch

    every = torch.get_num_threads()
    chosen: list[int] = []

    def with_threads(indices: Integers, count: int) -> Measured:
        torch.set_num_threads(count)
        try:
            return timed(run, indices)
        finally:
            torch.set_num_threads(every)

    def threaded(indices: Integers) -> Answer:
        if not chosen:
            run(indices)
            chosen.append(min((1, every), key=lambda count: with_threads(indices, count).seconds))
        return with_threads(indices, chosen[0]).answer

    return threaded


def torch_gradcheck(case: Case, fast_mode: bool) -> Run:
    """Compare autograd's own gradient, which is right, with central differences."""
    import torch

    cost, theta = torch_cost(case), torch.tensor(case.network.theta)

    def run(indices: Integers) -> str:
        places = torch.tensor(indices)
        whole = indices.size == case.size

        def of_part(part: Any) -> Any:
            return cost(part if whole else theta.index_put((places,), part))

        part = theta[places].clone().requires_grad_()
        passed = torch.autograd.gradcheck(
            of_part, (part,), eps=EPSILON, fast_mode=fast_mode, raise_exception=False
        )
        return "passes it" if passed else "**fails it**"

    return at_best_threads(run)


def in_chunks(case: Case, differences: Callable[[Integers], Floats]) -> Run:
    """Give a vectorised checker chunks of one length; the last one is filled up."""

    def run(indices: Integers) -> Floats:
        filled = np.resize(indices, -(-indices.size // case.chunk) * case.chunk)
        parts = [differences(part) for part in filled.reshape(-1, case.chunk)]
        return np.concatenate(parts)[: indices.size]

    return run


def torch_vmap(case: Case) -> Run:
    """`torch.func.vmap` of J over perturbed copies of θ."""
    import torch

    costs, theta = torch.func.vmap(torch_cost(case)), torch.tensor(case.network.theta)
    steps = torch.tensor([EPSILON, -EPSILON], dtype=theta.dtype).repeat(case.chunk)
    rows = torch.arange(2 * case.chunk)

    def differences(indices: Integers) -> Floats:
        copies = theta.repeat(2 * case.chunk, 1)
        copies[rows, torch.tensor(indices).repeat_interleave(2)] += steps
        J = costs(copies).reshape(-1, 2)
        return np.asarray(((J[:, 0] - J[:, 1]) / (2 * EPSILON)).numpy())

    return at_best_threads(in_chunks(case, differences))


def jax_mapped(case: Case, over: str) -> Run:
    """`jax.jit` of a central difference, mapped over components by `vmap` or `lax.map`."""
    import jax

    cost = jax_cost(case)
    theta = jax.numpy.asarray(case.network.theta)

    def one(theta: Any, index: Any) -> Any:
        above, below = theta.at[index].add(EPSILON), theta.at[index].add(-EPSILON)
        return (cost(above) - cost(below)) / (2 * EPSILON)

    def mapped(theta: Any, indices: Any) -> Any:
        if over == "vmap":
            return jax.vmap(one, in_axes=(None, 0))(theta, indices)
        return jax.lax.map(functools.partial(one, theta), indices)

    compiled = jax.jit(mapped)
    return in_chunks(case, lambda indices: np.asarray(compiled(theta, indices)))


def fastcheck_method(case: Case, method: str) -> Run:
    """Ours; it draws the sample itself, the same one."""
    check: Any = numerical_gradient

    def run(indices: Integers) -> Floats:
        count = None if indices.size == case.size else indices.size
        options = {"method": method, "epsilon": EPSILON, "sample": count, "seed": SEED}
        found = check(case.network, case.batch.X, case.batch.T, **options)
        return np.asarray(found)[indices]

    return run


@dataclass(frozen=True)
class Checker:
    """One row: what it is called, what it needs, how it is made and what it can be given."""

    name: str
    module: str
    make: Callable[[Case], Run]
    most: int = sys.maxsize
    whole: bool = False


def of_function(name: str, module: str, make: Callable[[Case], Run]) -> Checker:
    """A peer that only differentiates whole functions."""
    return Checker(name, module, make, most=FUNCTION_MOST)


# With one iteration `jacobian` takes the step `initial_step`.
AT_EPSILON = {"order": 2, "maxiter": 1, "initial_step": EPSILON}
CHECKERS = (
    Checker("NumPy textbook loop, in place", "numpy", numpy_loop),
    of_function("scipy.optimize.approx_fprime (forward)", "scipy", scipy_approx_fprime),
    of_function(
        "scipy.differentiate.jacobian, at ε",
        "scipy.differentiate",
        lambda case: scipy_jacobian(case, **AT_EPSILON),
    ),
    of_function(
        "scipy.differentiate.jacobian, its own steps", "scipy.differentiate", scipy_jacobian
    ),
    of_function(
        "numdifftools.Gradient, at ε",
        "numdifftools",
        lambda case: numdifftools_gradient(case, step=EPSILON),
    ),
    of_function("numdifftools.Gradient, its own steps", "numdifftools", numdifftools_gradient),
    of_function(
        "torch.autograd.gradcheck, slow", "torch", lambda case: torch_gradcheck(case, False)
    ),
    Checker(
        "torch.autograd.gradcheck, fast (one projection)",
        "torch",
        lambda case: torch_gradcheck(case, True),
        whole=True,
    ),
    Checker("torch.func.vmap, in chunks", "torch", torch_vmap),
    Checker("jax.jit(jax.vmap), in chunks", "jax", lambda case: jax_mapped(case, "vmap")),
    Checker("jax.jit(jax.lax.map), in chunks", "jax", lambda case: jax_mapped(case, "lax.map")),
    Checker("fastcheck, textbook", "fastcheck", lambda case: fastcheck_method(case, "textbook")),
    Checker("fastcheck, unit", "fastcheck", lambda case: fastcheck_method(case, "unit")),
)


# --- measuring and printing ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What one checker did: how many components, in what time, with which answer."""

    indices: Integers
    seconds: float
    answer: Answer

    @property
    def rate(self) -> float:
        """Components a second."""
        return self.indices.size / self.seconds

    def difference(self, case: Case) -> str:
        """Return ‖g − g_a‖ / (‖g‖ + ‖g_a‖) on what was checked, or the verdict."""
        if isinstance(self.answer, str):
            return self.answer
        wanted = case.gradient[self.indices]
        known = np.isfinite(self.answer)
        text = f"{oracle.relative_difference(wanted[known], self.answer[known]):.1e}"
        return text if known.all() else f"{text}, {int((~known).sum()):,} NaN"


def installed(module: str) -> bool:
    """Whether the module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def timed(run: Run, indices: Integers) -> Measured:
    """Run once."""
    start = time.perf_counter()
    answer = run(indices)
    return Measured(indices, time.perf_counter() - start, answer)


def measure(checker: Checker, case: Case, cap: float) -> Measured:
    """Warm up, grow the sample until it fills the time, and keep the fastest run of that size."""
    run, limit = checker.make(case), min(case.size, checker.most)
    indices = sample(case.network.order, limit if checker.whole else min(FIRST, limit), SEED)
    run(indices)
    best = timed(run, indices)
    while best.indices.size < limit and best.seconds < cap / 3:
        growth = min(GROWTH, max(2.0, cap / (2 * best.seconds)))
        count = min(limit, int(growth * best.indices.size))
        best = timed(run, sample(case.network.order, count, SEED))
    spent, turns = best.seconds, 1
    while turns < TURNS and spent + best.seconds < cap:
        again = timed(run, best.indices)
        spent, turns = spent + again.seconds, turns + 1
        best = min(best, again, key=lambda measured: measured.seconds)
    return best


def print_row(checker: Checker, case: Case, measured: Measured | None, loop: float) -> None:
    """Print a line of the table."""
    if measured is None:
        print(f"| {checker.name} | not installed | | | |", flush=True)
        return
    count, ratio = measured.indices.size, measured.rate / loop
    checked = f"all {count:,}" if count == case.size else f"on {count:,} components"
    shown = f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.3g}×"
    cells = (checker.name, checked, f"{measured.rate:,.0f}", shown, measured.difference(case))
    print(f"| {' | '.join(cells)} |", flush=True)


def print_table(case: Case, cap: float) -> None:
    """Measure all checkers on one network; the first row is the one the others are held to."""
    name = "-".join(map(str, case.sizes))
    print(f"\n### {name}, {case.size:,} components\n")
    print("| checker | components checked | components/s | ratio to the NumPy loop |", end="")
    print(" difference to a correct gradient |")
    print("| --- | --- | ---: | ---: | ---: |")
    loop = np.nan
    for checker in CHECKERS:
        measured = measure(checker, case, cap) if installed(checker.module) else None
        if measured is not None and np.isnan(loop):
            loop = measured.rate
        print_row(checker, case, measured, loop)


def processor() -> str:
    """Return the name of the processor's kind, as far as the system tells it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def print_head(cap: float) -> None:
    """Print what was measured, when and on what."""
    names = ("numpy", "scipy", "numdifftools", "torch", "jax", "fastcheck")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names if installed(name)]
    print(f"{date.today()}, Python {platform.python_version()}, {', '.join(versions)};")
    print(f"{os.cpu_count()} cores, {processor()}, {platform.machine()}, {platform.system()}.\n")
    print(
        f"ReLU, softmax cross-entropy, batch {M}, no penalty, float64, ε = {EPSILON:g}; all cores."
    )
    print(f"Warmed up, compilation excluded; up to about {cap:g} s a run, else on a random sample.")
    print("PyTorch has one thread or all, whichever is faster in the warm-up.")
    print("`gradcheck` answers with a verdict, shown for the correct gradient; its fast mode sees")
    print("all components, but as one projection.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one second a row in place of five")
    named = {"-".join(map(str, sizes)): sizes for sizes in SIZES}
    parser.add_argument("--size", choices=named, help="only this one")
    options = parser.parse_args(arguments)
    cap = QUICK_SECONDS if options.quick else SECONDS
    print_head(cap)
    for sizes in [named[options.size]] if options.size else SIZES:
        print_table(Case.of(sizes), cap)


if __name__ == "__main__":
    main()
