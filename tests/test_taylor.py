"""The Taylor table: rates against plain code, for functions, networks and the command."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from fastcheck import Network, Report, gradcheck, gradcheck_function
from fastcheck.methods.taylor import scaled_direction, taylor_table
from fastcheck.report import markdown
from tests import oracle

W = np.linspace(1, 2, 9)
THETA = np.linspace(-1, 1, 9) + 0.05


def f(t: Any) -> float:
    return float(W @ np.sin(t))


def test_rows_are_those_of_high_precision() -> None:
    u = scaled_direction(THETA, [slice(0, 9)], 3)
    assert np.all(np.abs(np.abs(u) / np.sqrt(np.mean(THETA**2)) - 1.0) <= 0.5)
    g = W * np.cos(THETA)
    table = taylor_table(
        lambda t: (f(THETA + t * u), float(g @ (THETA + t * u - THETA))),
        f(THETA),
        float(g @ u),
        1e-16,
    )
    with mpmath.workdps(50):
        exact: Any = [[mpmath.mpf(float(x)) for x in v] for v in (W, THETA, u)]

        def cost(t: Any) -> Any:
            return mpmath.fsum(w * mpmath.sin(x + t * d) for w, x, d in zip(*exact, strict=True))

        slope = mpmath.fsum(w * mpmath.cos(x) * d for w, x, d in zip(*exact, strict=True))
        for row in table.rows:
            remainder = abs(cost(row.step) - cost(0) - row.step * slope)
            central = (cost(row.step) - cost(-row.step)) / (2 * row.step)
            difference = abs(central - slope) / (abs(central) + abs(slope))
            noise = 1e-15 / row.step
            assert row.remainder == pytest.approx(float(remainder), rel=1e-6, abs=2e-15)
            assert row.difference == pytest.approx(float(difference), rel=1e-4, abs=noise)


def test_a_right_gradient_has_rate_two_and_a_wrong_one_rate_one() -> None:
    for factor, rate in ((1.0, 2.0), (1.001, 1.0), (-1.0, 1.0)):
        report = gradcheck_function(f, lambda t, c=factor: c * W * np.cos(t), THETA, sweep=True)
        assert report.taylor is not None
        assert report.taylor.rate == pytest.approx(rate, abs=0.05)
        assert f"h^{report.taylor.rate:.2f}" in report.to_text()
        assert f"h^{report.taylor.rate:.2f}" in report.to_html(v_curve=False)
        assert "J(θ+hu)" in markdown.render(report)
        assert Report.from_json(report.to_json()) == report
    assert gradcheck_function(f, lambda t: W * np.cos(t), THETA).taylor is None


def test_no_rate_is_told_where_noise_is_all_that_is_left() -> None:
    def linear(t: Any) -> float:
        return float(W @ t)

    report = gradcheck_function(linear, W, THETA, sweep=True)
    assert report.taylor is not None
    assert report.taylor.rate is None
    assert "Noise hides the rate" in report.to_text()
    narrow = gradcheck_function(
        lambda t: np.float32(f(t)), lambda t: W * np.cos(t), THETA, sweep=True
    )
    assert narrow.taylor is not None
    assert narrow.taylor.rate == pytest.approx(2.0, abs=0.3)
    told = [row.step for row in narrow.taylor.rows if row.rate is not None]
    assert min(told) > 1e-4


def test_networks_have_one_too() -> None:
    random = np.random.default_rng(0)
    weights = [random.normal(size=(7, 5)) / 2, random.normal(size=(3, 7)) / 2]
    biases = [random.normal(size=7) / 5, random.normal(size=3) / 5]
    network = Network.from_arrays(weights, biases, activations="tanh")
    X, y = random.normal(size=(6, 5)), random.integers(0, 3, 6)
    batch = network.batch(X, y)
    given = oracle.backprop(
        weights, biases, batch.X, batch.T,
        activations=["tanh", "identity"], loss="softmax_cross_entropy",
    )  # fmt: skip
    g = np.asarray(oracle.pack(*given), dtype=np.float64)
    report = gradcheck(network, X, y, g, sweep=True)
    assert report.passed
    assert report.taylor is not None
    assert report.taylor.rate == pytest.approx(2.0, abs=0.05)
    g[3] *= 1.5
    report = gradcheck(network, X, y, g, sweep=True)
    assert report.taylor is not None
    assert report.taylor.rate == pytest.approx(1.0, abs=0.1)


@pytest.mark.cli
def test_the_command_prints_it() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "fastcheck", "--layers", "8-6-3", "--activation", "tanh",
         "--batch", "4", "--sweep"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "J(θ+hu)−J−h·g·u" in done.stdout
    assert "The remainder falls by h^2.0" in done.stdout
