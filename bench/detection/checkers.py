"""Gradient checkers behind one face: ours, and the peers with the defaults that they document."""

from __future__ import annotations

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from bench.detection.cases import SMALL, Case
from fastcheck import gradcheck

RIGHT, WRONG, CANNOT_TELL = "right", "wrong", "cannot tell"
COURSE_EPSILON, COURSE_LIMIT = 1e-7, 2e-7
SPARSE_CHECKS, SPARSE_STEP, UNCOMFORTABLE, PROBABLY_WRONG = 10, 1e-5, 1e-4, 1e-2
SCIPY_LIMIT = 1e-6


@dataclass(frozen=True)
class Checker:
    """One checker.

    Attributes
    ----------
    name, rule : str
        What it is, and what it calls wrong.
    check : callable
        `case -> ` one of RIGHT, WRONG and CANNOT_TELL.
    most : int
        Components up to which it is asked at all.
    ours : bool
    """

    name: str
    rule: str
    check: Callable[[Case], str]
    most: int = SMALL
    ours: bool = False

    def timed(self, case: Case) -> tuple[str, float]:
        """Return the verdict and the seconds that it took."""
        start = time.perf_counter()
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict = self.check(case)
        return verdict, time.perf_counter() - start


def _fastcheck(**settings: Any) -> Callable[[Case], str]:
    def check(case: Case) -> str:
        problem, chosen = case.problem, dict(settings)
        if "share" in chosen:
            chosen["sample"] = max(30, int(chosen.pop("share") * case.size))
        if "units" in chosen:
            every = sum(problem.network.sizes[1:])
            chosen["sample_units"] = max(1, int(chosen.pop("units") * every))
        report = gradcheck(
            problem.network, problem.drawn.inputs, problem.drawn.targets, case.gradient,
            jobs=1, **chosen,
        )  # fmt: skip
        return {"agree": RIGHT, "wrong": WRONG}.get(report.status, CANNOT_TELL)

    return check


def _course(case: Case) -> str:
    """Return what the check of the deep-learning course says: every component, ε = 1e-7, 2e-7."""
    theta, cost = case.problem.network.theta, case.problem.cost
    approximation = np.empty(theta.size)
    for i in range(theta.size):
        plus, minus = theta.copy(), theta.copy()
        plus[i] += COURSE_EPSILON
        minus[i] -= COURSE_EPSILON
        approximation[i] = (cost(plus) - cost(minus)) / (2 * COURSE_EPSILON)
    given = case.vector
    size = np.linalg.norm(given) + np.linalg.norm(approximation)
    difference = np.linalg.norm(given - approximation) / size if size else 0.0
    return RIGHT if difference <= COURSE_LIMIT else WRONG


def _sparse(case: Case) -> str:
    """Return what cs231n's `grad_check_sparse` says: ten random components of each array."""
    problem = case.problem
    theta, given = problem.network.theta.copy(), case.vector
    rng, worst = np.random.default_rng(len(case.name)), 0.0
    for block in problem.network.order.blocks:
        for i in block.offset + rng.integers(block.size, size=SPARSE_CHECKS):
            kept = theta[i]
            theta[i] = kept + SPARSE_STEP
            above = problem.cost(theta)
            theta[i] = kept - SPARSE_STEP
            below = problem.cost(theta)
            theta[i] = kept
            numerical = (above - below) / (2 * SPARSE_STEP)
            size = abs(numerical) + abs(given[i])
            worst = max(worst, abs(numerical - given[i]) / size if size else 0.0)
    if worst <= UNCOMFORTABLE:
        return RIGHT
    return WRONG if worst > PROBABLY_WRONG else CANNOT_TELL


def _scipy(case: Case) -> str:
    def given(_: Any) -> Any:
        return case.vector

    error = optimize.check_grad(case.problem.cost, given, case.problem.network.theta.copy())
    return RIGHT if error <= SCIPY_LIMIT else WRONG


def _torch(fast: bool) -> Callable[[Case], str]:
    import torch

    def check(case: Case) -> str:
        given = torch.from_numpy(case.vector.copy())

        class Cost(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(_: Any, theta: Any) -> Any:
                return torch.tensor(case.problem.cost(theta.detach().numpy()), dtype=torch.float64)

            @staticmethod
            def backward(_: Any, upstream: Any) -> Any:
                return upstream * given

        theta = torch.from_numpy(case.problem.network.theta.copy()).requires_grad_()
        passed = torch.autograd.gradcheck(
            Cost.apply, (theta,), fast_mode=fast, raise_exception=False
        )
        return RIGHT if passed else WRONG

    return check


def _jax() -> Callable[[Case], str]:
    import jax
    from jax import test_util

    jax.config.update("jax_enable_x64", True)

    def check(case: Case) -> str:
        def cost(theta: Any) -> Any:
            return np.float64(case.problem.cost(np.asarray(theta)))

        def with_gradient(theta: Any) -> Any:
            return cost(theta), lambda upstream: (upstream * case.vector,)

        with contextlib.suppress(AssertionError):
            test_util.check_vjp(cost, with_gradient, (case.problem.network.theta.copy(),))
            return RIGHT
        return WRONG

    return check


def checkers() -> list[Checker]:
    """Return all whose packages are installed."""
    huge = 10**9
    found = [
        Checker("fastcheck", "tol = 1e-7 and rounding", _fastcheck(), huge, True),
        Checker("fastcheck, 10 % sampled", "the same", _fastcheck(share=0.1), huge, True),
        Checker("fastcheck, a third of the units", "the same", _fastcheck(units=1 / 3), huge, True),
        Checker("fastcheck, textbook", "the same", _fastcheck(method="textbook"), SMALL, True),
        Checker(
            "fastcheck, textbook, 10 % sampled", "the same",
            _fastcheck(method="textbook", share=0.1), SMALL, True,
        ),
        Checker("the course's check", "difference > 2e-7", _course),
        Checker("cs231n's sparse check", "relative error > 1e-2; > 1e-4: can't tell", _sparse),
    ]  # fmt: skip
    if importlib.util.find_spec("torch"):
        rule = "atol = 1e-5, rtol = 1e-3"
        found.append(Checker("torch gradcheck", rule, _torch(fast=False)))
        found.append(Checker("torch gradcheck, fast", rule, _torch(fast=True)))
    if importlib.util.find_spec("jax"):
        found.append(Checker("JAX check_vjp", "atol = rtol = 1e-5, one direction", _jax()))
    found.append(Checker("SciPy check_grad", "error > 1e-6 (it has no limit of its own)", _scipy))
    return found
