"""The complex step: as exact as f itself where f is analytic, and refused where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from fastcheck import gradcheck_function
from fastcheck.errors import InputError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5)), RNG.normal(size=12)


def network(p: Any) -> Any:
    a = np.maximum(X @ p["W"].T + p["b"], 0)
    return np.mean((np.tanh(a) @ p["v"] - Y) ** 2)


def gradient(p: Any) -> Any:
    z = X @ p["W"].T + p["b"]
    a = np.tanh(np.maximum(z, 0))
    r = 2 * (a @ p["v"] - Y) / len(Y)
    dz = np.outer(r, p["v"]) * (1 - a**2) * (z > 0)
    return {"W": dz.T @ X, "b": dz.sum(axis=0), "v": a.T @ r}


def parameters(seed: int) -> Any:
    random = np.random.default_rng(seed)
    return {"W": random.normal(size=(4, 5)), "b": random.normal(size=4), "v": random.normal(size=4)}


def test_it_is_as_exact_as_f_itself() -> None:
    def f(x: Any) -> Any:
        return 1e4 + np.exp(x[0]) * np.sin(x[1]) / (1 + x[2] * x[2])  # noise for differences

    with mpmath.workdps(40):
        theta = [0.3, -1.7, 2.9]
        exact = [
            mpmath.diff(
                lambda a, b, c: mpmath.exp(a) * mpmath.sin(b) / (1 + c * c),
                tuple(map(mpmath.mpf, theta)),
                tuple(int(k == i) for k in range(3)),
            )
            for i in range(3)
        ]
    right = np.array([float(value) for value in exact])
    report = gradcheck_function(f, right, np.array(theta), method="complex", tol=1e-9)
    assert report.status == "agree"
    assert report.method.name == "complex step"
    wrong = right * (1 + 1e-8 * np.array([0, 0, 1]))
    report = gradcheck_function(f, wrong, np.array(theta), method="complex", tol=1e-9)
    assert [c.name for c in report.components if c.status == "wrong"] == ["θ[2]"]
    assert report.components[0].approximation == pytest.approx(right[2], rel=4e-16)


@pytest.mark.parametrize("seed", range(5))
def test_right_networks_agree_and_wrong_blocks_are_named(seed: int) -> None:
    p = parameters(seed)
    assert gradcheck_function(network, gradient, p, method="complex").status == "agree"
    g = gradient(p)
    g["b"] *= 1.001
    report = gradcheck_function(network, g, p, method="complex")
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == ["b"]


def test_one_evaluation_a_component_beside_the_guard() -> None:
    random = np.random.default_rng(1)
    w, theta = random.normal(size=3000), random.normal(size=3000)
    report = gradcheck_function(
        lambda t: np.sum(w * np.sin(t)), w * np.cos(theta), theta, method="complex"
    )
    assert report.status == "agree"
    assert 3000 < (report.method.evaluations or 0) < 3200


SILENT: dict[str, Callable[[Any], Any]] = {
    "abs": lambda x: np.sum(np.abs(x) * x),
    "abs of a mean": lambda x: np.sum(x**3) + np.abs(np.mean(x)),
    "var": lambda x: np.var(x) + np.sum(np.sin(x)),
    "std": lambda x: np.std(x) * np.sum(x),
    "norm": lambda x: np.linalg.norm(x) * np.sum(np.exp(x)),
    "norm of rows": lambda x: np.sum(np.linalg.norm(x.reshape(2, 3), axis=1) + x[0] * x[1]),
    "vdot": lambda x: np.vdot(x, x) + x[0] * 1j * 0,
    "conj": lambda x: np.sum(x * x.conj()) + np.sum(x),
    "one component": lambda x: np.sum(x**2) + np.abs(x[4]),
}


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_silently_wrong_in_the_complex_plane_is_found(name: str, seed: int) -> None:
    f, theta = SILENT[name], np.random.default_rng(seed).normal(size=6)
    step = np.array([(f(theta + 1e-20j * e)).imag * 1e20 for e in np.eye(6)])
    # The gradient is what the complex step makes of f: without a guard it would agree.
    with pytest.raises(InputError, match=r"real differences disagree|real number"):
        gradcheck_function(f, step, theta, method="complex", seed=seed)


def into_real(x: Any) -> Any:
    out = np.zeros(6)
    out[:] = x * x
    return out.sum() + 0.0 * x[0]


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "ComplexWarning": (into_real, "ComplexWarning"),
    "astype": (lambda x: np.sum(x.astype(np.float64)) + 0.0 * x[0], "ComplexWarning"),
    "float": (lambda x: float(x[0]), "TypeError|ComplexWarning"),
    "real part": (lambda x: np.sum(x.real), "real number"),
    "logaddexp": (lambda x: np.logaddexp(0, x).sum(), "TypeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_drops_the_imaginary_part_is_refused(name: str) -> None:
    f, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        gradcheck_function(f, np.ones(6), np.linspace(1, 2, 6), method="complex")


def test_a_kink_is_right_on_both_sides() -> None:
    theta = np.array([0.0, 1.0, -2.0])

    def f(x: Any) -> Any:
        return np.sum(np.maximum(x, 0))

    for slope in (0.0, 0.4, 1.0):
        report = gradcheck_function(f, [slope, 1.0, 0.0], theta, method="complex")
        assert report.status in ("agree", "cannot tell"), report
    assert gradcheck_function(f, [1.5, 1.0, 0.0], theta, method="complex").status == "wrong"


def test_a_guard_that_can_not_tell_is_no_agreement() -> None:
    def f(x: Any) -> Any:
        return 3.0 + np.sum(np.maximum(x, 0))

    # The complex step takes one side of every kink: it agrees with a gradient that does, too.
    report = gradcheck_function(f, np.ones(20), np.zeros(20), method="complex")
    assert report.status == "cannot tell"


def test_vectorized_functions_and_samples() -> None:
    w = np.arange(1.0, 7.0)

    def f(x: Any) -> Any:
        return np.sum(w * x**2, axis=-1)

    theta = np.linspace(1, 2, 6)
    given = 2 * w * theta
    assert gradcheck_function(f, given, theta, method="complex", vectorized=True).passed
    with pytest.raises(InputError, match="with a sample"):
        gradcheck_function(f, given, theta, method="complex", sample=2)
