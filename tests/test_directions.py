"""Random directions: what they miss, and how wrong components are found among many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcheck import gradcheck_function
from fastcheck.methods.function.calibration import random_direction
from fastcheck.methods.function.directions import MISSED_SHARE, missed_error

N = 30_000
WEIGHTS = np.random.default_rng(0).normal(size=N) / np.sqrt(N)


class Counted:
    """A function that counts its evaluations."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, theta: Any) -> float:
        self.calls += 1
        return float(np.tanh(theta) @ WEIGHTS + 0.5 * np.mean(theta * theta))


def gradient(theta: Any) -> Any:
    return (1.0 - np.tanh(theta) ** 2) * WEIGHTS + theta / N


def spoilt(theta: Any, places: Any, share: float = 0.1) -> Any:
    g = gradient(theta)
    g[places] += share * np.maximum(np.abs(g[places]), np.sqrt(np.mean(g * g)))
    return g


@pytest.mark.parametrize("seed", range(3))
def test_a_right_gradient_agrees_and_says_what_it_would_have_missed(seed: int) -> None:
    theta = np.random.default_rng(seed).normal(size=N)
    report = gradcheck_function(Counted(), gradient, theta)
    assert report.status == "agree"
    assert report.method.directions == 8
    resolution = report.blocks[0].resolution
    assert resolution is not None
    assert resolution < 1e-5


def test_a_float32_theta_is_told_by_steps_as_wide_as_its_noise_asks_for() -> None:
    theta = np.random.default_rng(1).normal(size=N).astype(np.float32)

    def f(t: Any) -> float:
        return Counted()(t.astype(np.float64))

    right = gradient(theta.astype(np.float64))
    report = gradcheck_function(f, right, theta, seed=3)
    assert report.status == "agree", report
    assert gradcheck_function(f, 1.05 * right, theta, seed=3).status == "wrong"


def test_one_wrong_component_is_found_with_few_evaluations() -> None:
    theta = np.random.default_rng(5).normal(size=N)
    first = Counted()
    gradcheck_function(first, gradient, theta, seed=5)
    f = Counted()
    report = gradcheck_function(f, spoilt(theta, [12_345]), theta, seed=5)
    assert [c.name for c in report.components] == ["θ[12345]"]
    assert report.status == "wrong"
    assert f.calls - first.calls < 250  # with looks at two directions, and the noise again


@pytest.mark.parametrize("seed", range(5))
def test_ten_wrong_components_are_found_and_no_other(seed: int) -> None:
    random = np.random.default_rng(seed)
    theta, places = random.normal(size=N), sorted(random.choice(N, 10, replace=False))
    f = Counted()
    report = gradcheck_function(f, spoilt(theta, places), theta, seed=seed)
    assert sorted(c.index for c in report.components) == places
    assert f.calls < 4_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: 2.0 * g, "doubled"),
        (lambda g: -g, "sign"),
        (lambda g: 0.0 * g, "zero"),
        (lambda g: g[::-1], "flipped"),
        (lambda g: np.roll(g, 1), "shifted by one"),
    ],
)
def test_a_block_that_is_wrong_all_over_is_named_with_what_is_wrong(change: Any, said: str) -> None:
    theta = np.random.default_rng(1).normal(size=N)
    report = gradcheck_function(Counted(), change(gradient(theta)), theta, seed=1)
    assert report.status == "wrong"
    assert any(said in note for note in report.notes), report.notes


def patterns(random: np.random.Generator) -> list[Any]:
    """Return errors of norm 1 that are hard to see, each of its own kind."""
    few = [np.r_[np.ones(k), np.zeros(200 - k)] for k in (1, 2, 3, 5)]
    opposed = [np.r_[1.0, -1.0, np.zeros(198)], np.r_[1.0, -0.5, np.zeros(198)]]
    many = [np.ones(200), random.normal(size=200)]
    return [e / np.linalg.norm(e) for e in [*few, *opposed, *many]]


@pytest.mark.parametrize("count", [4, 8])
def test_no_error_of_the_stated_size_is_missed_more_often_than_stated(count: int) -> None:
    random = np.random.default_rng(3)
    size, runs = missed_error(1.0, count), 20_000
    for error in patterns(random):
        places = np.flatnonzero(error)
        u = random_direction(random, runs * count * places.size).reshape(runs, count, -1)
        seen = np.abs(u @ (size * error[places])) > 1.0
        assert np.mean(~seen.any(axis=1)) <= 1.5 * MISSED_SHARE


@pytest.mark.parametrize("convention", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_kinks_at_theta_add_up_to_more_than_the_slopes_of_their_sum(
    convention: float, share: float
) -> None:
    for seed in range(4):
        random = np.random.default_rng(seed)
        x, d = random.normal(size=300), random.normal(size=300)
        x[random.random(300) < share] = 0.0
        slopes = np.where(x == 0.0, convention, x > 0.0)

        def cost(t: Any, d: Any = d) -> float:
            return float(np.sum(np.maximum(t, 0.0) * d + np.sin(t)))

        report = gradcheck_function(cost, d * slopes + np.cos(x), x, directions=3, seed=seed)
        assert report.status != "wrong", report
