"""The O(ε²) term: D(ε) is the central difference, and a gradient is held to the derivative.

Everything is held against exact arithmetic, on networks whose slopes bend, saturate or nearly
vanish, and against the plain backward pass of `tests.oracle`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest

from fastcheck import Network, gradcheck
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.methods.unit.probes import full_slopes, linear_slopes, trace_of, work_row
from fastcheck.model.approximation import Approximation
from tests import oracle, oracle_mpmath
from tests.bent_networks import KINDS, bent_network, kind_of
from tests.builders import as_network
from tests.networks import Drawn
from tests.unit_cases import blocks, exact, unit

EXACT = 1e-12
UNIT_ROUNDOFF = 2.0**-53
EPSILONS = (1e-7, 1e-5, 1e-3, 1e-2)
AT_THETA = 1e-40
PERTURBATION = 2.0**-30
DIGITS = 140
SMOOTH = [n for n, a in ACTIVATIONS.items() if not a.piecewise_linear]
TINY_RESIDUALS = [seed for seed in range(44) if kind_of(seed) == "tiny residuals"]


def exact_slopes(drawn: Drawn) -> Any:
    """The derivatives, from central differences at a step that bends nothing."""
    return exact(drawn, AT_THETA, digits=DIGITS)


def conditions(drawn: Drawn, epsilon: float, true: Any) -> Any:
    """κ: what a relative change of all θ does to the central differences, by exact arithmetic."""
    rng = np.random.default_rng(0)

    def moved(array: Any) -> Any:
        return array * (1.0 + PERTURBATION * rng.choice([-1.0, 1.0], array.shape))

    other = replace(
        drawn,
        weights=[moved(w) for w in drawn.weights],
        biases=[None if b is None else moved(b) for b in drawn.biases],
    )
    return np.abs(exact(other, epsilon, digits=DIGITS) - true) / PERTURBATION


def assert_close(drawn: Drawn, epsilon: float, found: Any, true: Any) -> None:
    """Each component, beside its block's largest one, or as far as rounding of θ moves it."""
    for part in blocks(drawn):
        error = np.abs(found - true)[part]
        largest = np.abs(true[part]).max()
        if error.max() > EXACT * largest:
            kappa = conditions(drawn, epsilon, true)[part].max()
            assert error.max() <= 10.0 * UNIT_ROUNDOFF * kappa


def assert_both(drawn: Drawn, epsilon: float) -> None:
    """D(ε) is the central difference, and g* the derivative; at kinks their interval holds it."""
    found = unit(drawn, epsilon=epsilon)
    assert_close(drawn, epsilon, found.values, exact(drawn, epsilon, digits=DIGITS))
    assert_slopes(drawn, found)


def nearest(found: Approximation, gradient: Any) -> Any:
    """Return what a gradient is held to: g*, at kinks the nearest of their interval."""
    held, at = found.target.copy(), found.kinks.positions
    held[at] = found.kinks.nearest(gradient[at], found.values[at], held[at])
    return held


def assert_slopes(drawn: Drawn, found: Approximation) -> None:
    """What gradients are held to is the derivative."""
    true = exact_slopes(drawn)
    assert_close(drawn, AT_THETA, nearest(found, true), true)


@pytest.mark.parametrize("seed", range(33))
def test_the_central_difference_and_the_derivative_of_nasty_networks(seed: int) -> None:
    assert_both(bent_network(seed), 1e-7)


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_they_differ_at_a_large_epsilon_and_both_are_exact(seed: int) -> None:
    assert_both(bent_network(seed + 33), EPSILONS[1 + seed % 3])


@pytest.mark.parametrize("size", [1e-9, 1e-14, 1e-22])
@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "mish", "tanh", "selu", "softsign"])
def test_the_slope_at_theta_of_a_curved_output_with_a_tiny_residual(name: str, size: float) -> None:
    """The output bends J by its step squared, which is more than the residual itself."""
    rng = np.random.default_rng(3)
    drawn = Drawn(
        weights=[rng.normal(size=(3, 2)), size * rng.normal(size=(2, 3))],
        biases=[rng.normal(size=3), np.zeros(2)],
        activations=["tanh", name],
        loss=("huber", 1.0) if len(name) % 2 else "squared_error",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=rng.normal(size=(2, 2)),
        targets=np.zeros((2, 2)),
        masks=None,
    )
    assert_slopes(drawn, unit(drawn))
    on_target = replace(
        drawn, targets=oracle.forward(drawn.weights, drawn.biases, drawn.activations, drawn.inputs)
    )
    found = unit(on_target)
    assert np.abs(nearest(found, 0.0 * found.values)).max() <= 8.0 * UNIT_ROUNDOFF * size


def crossing_with_truncation(seed: int) -> tuple[Drawn, float]:
    """Return one sample that meets a kink while large inputs of the others bend at the step."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(6, 3)) * np.array([1.0, 30.0, 3e3])
    inputs[0] = [1.0, 0.0, 1.0]
    W = rng.normal(size=(2, 3)) * np.array([1.0, 0.03, 3e-4])
    kinked = ("relu", "selu", "softsign", "elu")[seed % 4]
    drawn = Drawn(
        weights=[W, rng.normal(size=(3, 2)), rng.normal(size=(2, 3))],
        biases=[-W @ inputs[0], rng.normal(size=3), rng.normal(size=2)],
        activations=[kinked, "tanh", "identity"],
        loss="squared_error",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=inputs,
        targets=rng.normal(size=(6, 2)),
        masks=None,
    )
    return drawn, (3e-4, 1e-3, 3e-3)[seed % 3]


@pytest.mark.parametrize("seed", range(12))
def test_at_a_kink_the_truncation_of_other_samples_is_taken_out(seed: int) -> None:
    """Also where no polynomial follows the slopes of those, so that each is evaluated alone."""
    drawn, epsilon = crossing_with_truncation(seed)
    network, _ = as_network(drawn)
    gradient = gradient_of(drawn)
    found = unit(drawn, epsilon=epsilon)
    assert found.kinks.positions.size
    far = np.abs(found.values - found.target) > 1e-7 * np.abs(found.target)
    assert far[found.kinks.positions].any()
    for method in ("unit", "textbook"):
        report = gradcheck(
            network, drawn.inputs, drawn.targets, gradient, method=method, epsilon=epsilon
        )
        assert report.status != "wrong", report
        assert method == "textbook" or report.status in ("agree", "kink"), report
    claimed = network.order.unpack(found.values)
    assert not gradcheck(network, drawn.inputs, drawn.targets, claimed, epsilon=epsilon).passed


def gradient_of(drawn: Drawn) -> list[Any]:
    """A right gradient, by a plain backward pass."""
    dW, db = oracle.backprop(*drawn.arrays, **drawn.conventions)
    return [array for pair in zip(dW, db, strict=True) for array in pair]


# The textbook's noise is measured at θ; with residuals of 1e-30 J at θ ± ε is 1e30 times that.
ASKED = [(s, m) for s in range(22) for m in ("unit", "textbook")]
ASKED = [(s, m) for s, m in ASKED if m == "unit" or s not in TINY_RESIDUALS]


@pytest.mark.parametrize(("seed", "method"), ASKED)
def test_no_right_gradient_is_wrong_at_any_epsilon(seed: int, method: str) -> None:
    drawn = bent_network(seed)
    network, _ = as_network(drawn)
    gradient = gradient_of(drawn)
    for epsilon in EPSILONS:
        report = gradcheck(
            network, drawn.inputs, drawn.targets, gradient, method=method, epsilon=epsilon
        )
        assert report.status != "wrong", (epsilon, str(report))
        if method == "unit":
            assert report.status == "agree"


@pytest.mark.parametrize(("seed", "epsilon"), [(5, 2e-3), (18, 2e-3), (31, 4.5e-4), (41, 2e-3)])
def test_three_differences_far_from_theta_are_no_limit(seed: int, epsilon: float) -> None:
    """The step is as large as the logits: D(ε), D(ε/2) and D(ε/4) look as if they converged."""
    rng = np.random.default_rng(seed)
    features = 1e4 * (1.0 + rng.random((1, 2)))
    drawn = Drawn(
        weights=[rng.normal(size=(12, 3)) * [2e-3, 2e-3, 1.0], rng.normal(size=(1, 12))],
        biases=[rng.normal(size=12), rng.normal(size=1)],
        activations=["mish", "identity"],
        loss="sigmoid_cross_entropy",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.column_stack([features, np.ones(1)]),
        targets=np.full((1, 1), float(rng.integers(2))),
        masks=None,
    )
    network, _ = as_network(drawn)
    report = gradcheck(
        network, drawn.inputs, drawn.targets, gradient_of(drawn),
        method="textbook", epsilon=epsilon,
    )  # fmt: skip
    assert report.status != "wrong", report


@pytest.mark.parametrize("seed", range(22))
def test_a_wrong_component_is_caught_at_any_epsilon(seed: int) -> None:
    """Also one that is what the central difference at ε gives, and not the derivative."""
    drawn = bent_network(seed)
    network, _ = as_network(drawn)
    for epsilon in EPSILONS:
        gradient = np.concatenate([np.ravel(block) for block in gradient_of(drawn)])
        found = unit(drawn, epsilon=epsilon)
        smooth = np.abs(gradient)
        smooth[found.kinks.positions] = 0.0
        gradient[smooth.argmax()] *= 1.0 + 1e-5
        report = gradcheck(network, drawn.inputs, drawn.targets, gradient, epsilon=epsilon)
        assert report.status == "wrong"
        differences = network.order.unpack(found.values)
        far = np.abs(found.values - found.target) > 1e-6 * np.abs(found.target)
        far[found.kinks.positions] = False
        if far.any():
            claimed = gradcheck(network, drawn.inputs, drawn.targets, differences, epsilon=epsilon)
            assert claimed.status == "wrong"


def test_a_component_that_crosses_a_kink_is_off_by_what_rounding_moves_the_kink() -> None:
    """SELU's slope jumps at 0. z is rounded to 1e-16, which is 1e-9 of ε: so far is D off."""
    drawn = Drawn(
        weights=[np.array([[0.7, -0.1, 0.3]]), np.array([[1.0]])],
        biases=[np.array([0.0]), np.array([0.2])],
        activations=["selu", "identity"],
        loss="squared_error",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.array([[0.1, 0.4, -0.1]]),
        targets=np.array([[1.0]]),
        masks=None,
    )
    with mpmath.workdps(50):
        z = mpmath.fdot(
            [mpmath.mpf(v) for v in drawn.weights[0][0]], [mpmath.mpf(v) for v in drawn.inputs[0]]
        )
    assert 0 < abs(z) < 1e-15
    found, true = unit(drawn).values, exact(drawn, 1e-7)
    off = np.abs(found - true).max()
    assert 1e-12 < off < 2e-16 / 1e-7


@pytest.mark.parametrize("name", SMOOTH)
def test_the_bounds_of_derivatives_hold_and_are_no_guess(name: str) -> None:
    entry = ACTIVATIONS[name]
    parameter = oracle_mpmath.exact(entry.parameter or 0.0)

    def value(z: Any) -> Any:
        return oracle_mpmath.ACTIVATIONS[name](z, parameter)

    with mpmath.workdps(30):
        points = [mpmath.mpf(k) / 16 + mpmath.mpf("0.001") for k in range(-128, 128)]
        for order, bound in ((2, entry.second), (3, entry.third)):
            largest = max(abs(mpmath.diff(value, z, order, h=1e-6)) for z in points)
            assert 0.5 * bound <= largest <= bound
        for order, bound in ((2, entry.second_ratio), (3, entry.third_ratio)):
            if bound < np.inf:
                ratios = [
                    abs(mpmath.diff(value, z, order, h=1e-6) / mpmath.diff(value, z, h=1e-6))
                    for z in points
                ]
                assert 0.5 * bound <= max(ratios) <= bound * 1.001


@pytest.mark.parametrize("name", SMOOTH)
def test_the_bound_of_the_truncation_holds(name: str) -> None:
    """Beside what both signs, carried whole, change the slopes by; within a factor of ten."""
    checked = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 16, rng.integers(2, 6)).tolist()
        scale, inputs = 10.0 ** rng.uniform(-2.0, 1.5), 10.0 ** rng.uniform(-1.0, 3.0)
        network = Network.from_arrays(
            [rng.normal(size=(n, k)) * scale / np.sqrt(k) for k, n in pairwise(sizes)],
            [rng.normal(size=n) for n in sizes[1:]],
            activations=name,
            loss="squared_error",
        )
        X, T = inputs * rng.normal(size=(2, sizes[0])), rng.normal(size=(2, sizes[-1]))
        probes = trace_of(network, network.batch(X, T), 10.0 ** rng.uniform(-6.0, -4.0))
        requested = np.ones(sum(sizes[1:]), bool)
        work = np.empty((3, work_row(sizes, sum(sizes[1:-1]))))
        slopes, reach, bounds = linear_slopes(probes, (0, 2), requested, work)
        for sample in range(2):
            found = np.zeros((1, requested.size))
            met = full_slopes(probes, sample, requested, np.ones(1), found)
            change = np.abs(found[0] - slopes[sample, 0])
            layers = np.repeat(np.arange(len(sizes) - 1), sizes[1:])
            largest = np.array([np.abs(slopes[sample, 0, layers == l]).max() for l in layers])
            known = ~met & (reach[sample] > 1.0) & (change > 1e-12 * largest)
            assert np.all(change[known] <= 10.0 * bounds[sample, known])
            checked += int(known.sum())
    assert checked > 100
