"""Gradient checkers on the functions of `examples/functions`, side by side.

`python -m bench.function_peers [points]` gives each checker the same f and gradient of one vector,
right and with every slip, in float64 and float32: evaluations of f, CPU time, right ones accused,
slips passed. A peer without a limit of its own gets the one that its row names.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.functions import functions, leaves, mapped
from fastcheck import gradcheck_function
from fastcheck.errors import InputError

Check = Callable[["Case"], str]
SCIPY_LIMIT = 1e-6
POINTS = 2
TINY = 1e-7  # a slip that changes the gradient by less, relative, is none at that θ


@dataclass
class Case:
    """One f of a vector with its gradient; counts the evaluations of f."""

    f: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    theta: Any
    seed: int
    calls: int = 0

    def cost(self, theta: Any) -> Any:
        """Return f, counted."""
        self.calls += 1
        return self.f(theta)


@dataclass
class Row:
    """What a checker said of right gradients and of slips."""

    right: Counter[str] = field(default_factory=Counter)
    slips: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    checks: int = 0
    seconds: float = 0.0


def cases(points: int, dtype: str) -> Iterator[tuple[str, Case]]:
    """Yield `right` or `slip`, and the case."""
    for _, module in functions():
        for seed in range(points):
            form = mapped(
                lambda leaf: np.asarray(leaf, dtype), module.draw(np.random.default_rng([seed, 13]))
            )
            right = joined(module.gradient(form))
            for slip in ("", *module.SLIPS):
                wrong = joined(module.gradient(form, slip))
                if slip and np.linalg.norm(wrong - right) <= TINY * np.linalg.norm(right):
                    continue
                yield ("slip" if slip else "right"), one(module, form, slip, seed)


def one(module: Any, form: Any, slip: str, seed: int) -> Case:
    """Return the function of a vector, and its gradient with a slip."""

    def f(theta: Any) -> Any:
        return module.f(split(np.asarray(theta), form))

    def gradient(theta: Any) -> Any:
        return joined(module.gradient(split(np.asarray(theta), form), slip))

    return Case(f, gradient, joined(form), seed)


def joined(tree: Any) -> Any:
    """Return the leaves of a tree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in leaves(tree)])


def split(theta: Any, form: Any) -> Any:
    """Return a vector in a form, with its own dtype."""
    start = 0

    def cut(leaf: Any) -> Any:
        nonlocal start
        part = theta[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
        return part

    return mapped(cut, form)


def ours(**options: Any) -> Check:
    """Return a check by `gradcheck_function`."""

    def check(case: Case) -> str:
        try:
            given = (case.cost, case.gradient, case.theta)
            return gradcheck_function(*given, seed=case.seed, **options).status
        except InputError:
            return "not run"

    return check


def scipy_check_grad(case: Case) -> str:
    """Hold the root of the squared errors to a limit, as its documentation's example prints it."""
    from scipy.optimize import check_grad

    error = check_grad(case.cost, case.gradient, case.theta)
    return "agree" if error <= SCIPY_LIMIT else "wrong"


def scipy_approx_fprime(case: Case) -> str:
    """Compare with `approx_fprime` by `np.allclose`, both with their defaults."""
    from scipy.optimize import approx_fprime

    return close(case, approx_fprime(case.theta, case.cost))


def numdifftools_gradient(case: Case) -> str:
    """Compare with `numdifftools.Gradient` by `np.allclose`, both with their defaults."""
    import numdifftools

    return close(case, numdifftools.Gradient(case.cost)(case.theta))


def close(case: Case, numerical: Any) -> str:
    """Return what `np.allclose` says."""
    return "agree" if np.allclose(case.gradient(case.theta), numerical) else "wrong"


def torch_gradcheck(fast: bool) -> Check:
    """Return a check by `torch.autograd.gradcheck` with its defaults."""
    import torch

    def check(case: Case) -> str:
        class J(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, theta: Any) -> Any:
                ctx.save_for_backward(theta)
                return torch.as_tensor(case.cost(theta.detach().numpy()), dtype=theta.dtype)

            @staticmethod
            def backward(ctx: Any, dout: Any) -> Any:
                (theta,) = ctx.saved_tensors
                found = case.gradient(theta.detach().numpy())
                return dout * torch.as_tensor(np.array(found), dtype=theta.dtype)

        theta = torch.tensor(case.theta, requires_grad=True)
        torch.manual_seed(case.seed)
        passed = torch.autograd.gradcheck(J.apply, (theta,), fast_mode=fast, raise_exception=False)
        return "agree" if passed else "wrong"

    return check


def jax_check_grads(case: Case) -> str:
    """Return what JAX's `check_vjp`, the reverse mode of `check_grads`, says: one direction."""
    import jax
    from jax._src import public_test_util as util

    def pull(theta: Any) -> Any:
        at = np.asarray(theta)
        return case.cost(at), lambda dout: (np.asarray(dout) * case.gradient(at),)

    with jax.enable_x64(True):
        try:
            util.check_vjp(lambda theta: case.cost(np.asarray(theta)), pull, (case.theta,))
        except (AssertionError, ValueError, TypeError):
            return "wrong"
    return "agree"


def checkers() -> dict[str, Check]:
    """Return the rows of the table."""
    return {
        "fastcheck": ours(),
        "fastcheck, directions": ours(method="directions"),
        "fastcheck, complex step": ours(method="complex"),
        "scipy check_grad, error > 1e-6": scipy_check_grad,
        "scipy approx_fprime, np.allclose": scipy_approx_fprime,
        "numdifftools Gradient, np.allclose": numdifftools_gradient,
        "torch.autograd.gradcheck": torch_gradcheck(fast=False),
        "torch.autograd.gradcheck, fast": torch_gradcheck(fast=True),
        "JAX check_grads (reverse)": jax_check_grads,
    }


def measured(check: Check, points: int, dtype: str) -> Row:
    """Return what a checker said, and what it took."""
    row = Row()
    for kind, case in cases(points, dtype):
        start = time.process_time()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            status = check(case)
        (row.slips if kind == "slip" else row.right)[status] += 1
        if status != "not run":
            row.seconds += time.process_time() - start
            row.calls += case.calls
            row.checks += 1
    return row


def printed(name: str, row: Row) -> str:
    """Return a row of the table."""
    right, slips = row.right.total() - row.right["not run"], row.slips
    unsure = row.right["cannot tell"] + slips["cannot tell"]
    tried = slips.total() - slips["not run"]
    each = f"{row.calls / row.checks:,.0f} | {1e3 * row.seconds / row.checks:,.1f}"
    if not right:
        each = "– | –"
    return (
        f"| {name} | {row.right['wrong']} of {right} | {slips['agree']} of {tried} | {unsure} "
        f"| {each} |"
    )


def main() -> None:
    """Print one table for each precision."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    for dtype in ("float64", "float32"):
        print(f"\n| {dtype} | right ones accused | slips passed | can't tell | evaluations | ms |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, check in checkers().items():
            row = measured(check, points, dtype)
            if row.checks:
                print(printed(name, row), flush=True)


if __name__ == "__main__":
    main()
