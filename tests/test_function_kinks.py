"""Functions with kinks: what looks like noise, what a step meets, and what nobody can tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastcheck import gradcheck_function
from fastcheck.methods.function import calibration
from fastcheck.methods.function.averages import averaged
from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import measure_noise, scales_of
from fastcheck.methods.function.differences import Differences
from fastcheck.model.parameter_tree import ParameterTree

DATA = np.random.default_rng(5).normal(size=(16, 10))
LABELS = np.sign(np.random.default_rng(6).normal(size=16))


def pooled(t: Any) -> float:
    return float((DATA @ t.reshape(9, 10).T).reshape(16, 3, 3).max(axis=2).sum())


def hinge(t: Any) -> float:
    return float(np.maximum(0.0, 1.0 - (DATA @ t) * LABELS).mean())


KINKED: dict[str, tuple[Callable[[Any], float], int]] = {
    "absolute values": (lambda t: float(np.abs(t).sum()), 20),
    "max pooling": (pooled, 90),
    "hinge loss": (hinge, 10),
    "clipped": (lambda t: float(np.clip(t, -0.5, 0.5).sum() + 0.1 * (t @ t)), 30),
}


def white_noise(t: Any) -> float:
    """Return a normal number that depends on every bit of θ."""
    seed = int.from_bytes(hashlib.blake2b(t.tobytes(), digest_size=8).digest(), "big")
    return float(np.random.default_rng(seed).normal())


@pytest.mark.parametrize("name", KINKED)
def test_kinks_along_a_direction_are_no_noise(name: str) -> None:
    f, size = KINKED[name]
    found = []
    for place in range(6):
        theta = np.random.default_rng([place, 77]).normal(size=size)
        tree, vector, _ = ParameterTree.of(theta)
        box = BlackBox(f, tree, vector)
        value = box.at_theta()
        found += [measure_noise(box, scales_of(box), value, seed) / value for seed in range(12)]
    # A kink makes 1e8 times as much of it.
    assert max(found) < 1e-13


@pytest.mark.parametrize("sigma", [1e-9, 1e-7])
def test_noise_is_found_among_kinks(sigma: float) -> None:
    theta = np.random.default_rng(3).normal(size=20)
    tree, vector, _ = ParameterTree.of(theta)
    box = BlackBox(lambda t: float(np.abs(t).sum()) + sigma * white_noise(t), tree, vector)
    found = [measure_noise(box, scales_of(box), box.at_theta(), seed) for seed in range(12)]
    assert sigma / 3 < min(found) <= max(found) < 8 * sigma


class Bent:
    """Σ a·max(0, x − d) + b·sin(x) + σ·noise for each component, and its gradient at θ."""

    def __init__(self, seed: int, *, nearest: float, sigma: float, size: int = 6) -> None:
        random = np.random.default_rng(seed)
        self.theta, self.sigma = random.normal(size=size), sigma
        self.places = nearest ** random.random((size, 2)) * random.choice([-1, 1], (size, 2))
        self.sizes, self.b = random.normal(size=(size, 2)), random.normal(size=size)
        left = np.sum(self.sizes * (self.places < 0), axis=1)
        self.gradient = left + self.b * np.cos(self.theta)

    def __call__(self, t: Any) -> float:
        bent = self.sizes * np.maximum((t - self.theta)[:, None] - self.places, 0.0)
        return float(bent.sum() + self.b @ np.sin(t) + self.sigma * white_noise(t))


@pytest.mark.parametrize("seed", range(20))
def test_averages_are_right_within_their_error_bars(seed: int) -> None:
    f = Bent(seed, nearest=3e-3, sigma=1e-8)
    tree, vector, _ = ParameterTree.of(f.theta)
    work = Differences(BlackBox(f, tree, vector), np.arange(6), np.full(6, 5e-3))
    found = averaged(work.box, work, f.sigma)
    assert np.all(np.abs(found.derivative - f.gradient) <= found.bar)
    # Single differences at the widest step without a kink have 8σ/(√2·h).
    free = np.minimum(5e-3, np.abs(f.places).min(axis=1))
    assert np.all(found.bar < 8 * f.sigma / (np.sqrt(2) * free / 2))


def test_right_gradients_beside_kinks_are_told_apart_from_wrong_ones() -> None:
    right, wrong = [], []
    for seed in range(30):
        f = Bent(seed, nearest=1e-3, sigma=1e-8)
        right.append(gradcheck_function(f, f.gradient, f.theta, seed=seed).status)
        g = f.gradient.copy()
        g[seed % 6] += 0.1 * np.sqrt(np.mean(g * g))
        wrong.append(gradcheck_function(f, g, f.theta, seed=seed).status)
    assert "wrong" not in right
    assert right.count("agree") >= 24
    assert "agree" not in wrong
    assert wrong.count("wrong") >= 24


def test_a_kink_that_noise_hides_may_have_others_beside_it() -> None:
    def f(t: Any) -> float:
        x = t[0] - 0.3
        bent = np.maximum(x - 1e-5, 0.0) - 0.4 * np.maximum(-3e-4 - x, 0.0)
        return float(bent + t[0] + 3e-5 * white_noise(t))

    for seed in range(30):
        right = gradcheck_function(f, np.array([1.0]), np.array([0.3]), seed=seed)
        assert right.status != "wrong", right
        assert gradcheck_function(f, np.array([5.0]), np.array([0.3]), seed=seed).status == "wrong"


def test_noise_that_a_table_missed_is_measured_again_before_it_accuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = np.random.default_rng(2).normal(size=200)

    def f(t: Any) -> float:
        return float(w @ np.sin(t)) + 1e-7 * white_noise(t)

    def missed(*arguments: Any) -> float:
        return measure_noise(*arguments) / 20.0

    monkeypatch.setattr(calibration, "measure_noise", missed)
    theta = np.random.default_rng(4).normal(size=200)
    g = w * np.cos(theta)
    assert gradcheck_function(f, g, theta).status != "wrong"
    assert gradcheck_function(f, g, theta, method="directions").status != "wrong"
    g[7] += 0.3
    assert gradcheck_function(f, g, theta).status == "wrong"
    assert gradcheck_function(f, g, theta, method="directions").status == "wrong"


@pytest.mark.parametrize("method", ["components", "directions"])
@pytest.mark.parametrize("gap", [1e-3, 0.03, 0.1])
def test_many_kinks_close_together_are_no_noise(gap: float, method: str) -> None:
    """Medians of nearly equal numbers: every table that is wide enough looks like noise."""
    random = np.random.default_rng(9)
    weights = random.normal(size=5)

    def value(x: Any) -> float:
        return float((weights * np.sort(x, axis=-1)[:, 2]).sum())

    for seed in range(25):
        random = np.random.default_rng(seed)
        x = np.eye(6)[random.integers(0, 6, 5)] + gap * random.normal(size=(5, 6))
        gradient = weights[:, None] * (np.argsort(np.argsort(x, -1), -1) == 2)
        report = gradcheck_function(value, gradient, x, seed=seed, method=method)
        assert report.status != "wrong", seed
        wrong = gradcheck_function(value, gradient * 1.1, x, seed=seed, method=method)
        assert wrong.status != "agree", seed
