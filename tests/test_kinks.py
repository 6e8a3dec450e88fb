"""Gradients at kinks: right by any convention, wrong beyond all of them, whatever the network.

`tests/kinked_networks.py` draws the networks and both kinds of gradients without fastcheck.
"""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, gradcheck
from fastcheck.methods.unit.method import prepare
from fastcheck.report.data import Report
from fastcheck.settings import Settings
from tests import kinked_networks as kinked

LAYOUTS = ("rows", "course", "keras")


def network_of(net: kinked.Kinked, layout: str = "rows") -> Network:
    activations = [(n, p) if n in kinked.PARAMETERS else n for n, p in net.activations]
    transposed = layout == "keras"
    return Network.from_arrays(
        [w.T if transposed else w for w in net.weights],
        [b.reshape(-1, 1) if layout == "course" else b for b in net.biases],
        activations=activations,
        loss=net.loss if net.loss[0] == "huber" else net.loss[0],
        layout=layout,
    )


def checked(
    net: kinked.Kinked, gradient: list[kinked.Array], layout: str = "rows", **options: Any
) -> Report:
    given = [g.T if layout == "keras" and g.ndim == 2 else g for g in gradient]
    X, Y = net.inputs, net.targets
    if layout == "course":
        X, Y, given = X.T, Y.T, [g if g.ndim == 2 else g.reshape(-1, 1) for g in given]
    return gradcheck(network_of(net, layout), X, Y, given, jobs=1, **options)


def right_case(seed: int) -> tuple[kinked.Kinked, list[kinked.Array]]:
    net = kinked.draw(seed)
    ways = kinked.conventions(np.random.default_rng([21, seed]), net)
    return net, kinked.backward(net, ways)


# Where the central difference's O(ε²) term is more than rounding, or equal samples' errors add up,
# other parts of the check have their say.
@pytest.mark.parametrize("seed", range(150))
def test_no_right_gradient_is_accused(seed: int) -> None:
    net, gradient = right_case(seed)
    report = checked(net, gradient, LAYOUTS[seed % 3])
    assert report.status != "wrong", report


@pytest.mark.parametrize("seed", range(300, 340))
def test_no_right_gradient_is_accused_by_the_textbook(seed: int) -> None:
    report = checked(*right_case(seed), method="textbook")
    assert report.status != "wrong", report


@pytest.mark.parametrize("seed", range(400, 440))
def test_no_right_gradient_of_a_sample_is_accused(seed: int) -> None:
    report = checked(*right_case(seed), sample=7)
    assert report.status != "wrong", report


@pytest.mark.parametrize("seed", range(500, 580))
def test_what_no_convention_gives_is_wrong(seed: int) -> None:
    net = kinked.draw(seed)
    for gradient in kinked.wrong_gradients(seed, net):
        report = checked(net, gradient)
        assert report.status == "wrong", report


@pytest.mark.parametrize("family", ["near", "tiny", "corners"])
@pytest.mark.parametrize("seed", range(12))
def test_the_derivative_itself_lies_in_the_interval(family: str, seed: int) -> None:
    net = kinked.draw(seed, "float64", family)
    network = network_of(net)
    work = prepare(network, network.batch(net.inputs, net.targets), None, Settings())
    found = work.assemble([work.differences(chunk) for chunk in work.chunks])
    kinks = found.kinks
    slack = np.zeros(kinks.low.size) if kinks.slack is None else kinks.slack
    for convention in ("left", "right"):
        g = kinked.flat(kinked.backward(net, [convention] * len(net.weights)))
        beyond = np.maximum(kinks.low - g[kinks.positions], g[kinks.positions] - kinks.high)
        assert np.all(beyond <= slack + 1e-13 * np.abs(g[kinks.positions]) + 1e-17)


# --- reproducers --------------------------------------------------------------------------------


def test_an_output_unit_on_its_kink_with_a_gradient_of_zeros() -> None:
    Y = np.array([0.1, 0.2, 0.3, 0.7, -0.9])[:, None]
    network = Network.from_arrays([[[1.0]]], [[0.0]], activations=["relu"], loss="squared_error")
    report = gradcheck(network, np.zeros((5, 1)), Y, [np.zeros((1, 1)), np.zeros(1)])
    assert report.passed, report


def test_an_output_unit_within_epsilon_of_its_kink() -> None:
    X = np.array([[1.0, 1], [1, -1]])
    W, Y = np.array([[0.0, 1e-8]]), np.array([[-1.0], [1.0]])
    z = X @ W.T
    d = (np.maximum(z, 0) - Y) * (z > 0) / 2
    network = Network.from_arrays([W], [[0.0]], activations=["relu"], loss="squared_error")
    report = gradcheck(network, X, Y, [d.T @ X, d.sum(0)])
    assert report.passed, report
    # J's own noise is more than this ε can see beside two kinks.
    report = gradcheck(network, X, Y, [d.T @ X, d.sum(0)], method="textbook")
    assert report.status != "wrong", report
    assert not gradcheck(network, X, Y, [2.5 * d.T @ X, d.sum(0)]).passed


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("seed", range(8))
def test_units_on_the_kink_carry_rounding_on(precision: str, seed: int) -> None:
    """relu'(0) = 1 for 20-20-5 ReLU without biases, half the rows zero."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, 20)) * (rng.random((30, 1)) < 0.5)
    net = kinked.Kinked(
        [rng.standard_normal((20, 20)) / 4, rng.standard_normal((5, 20)) / 4],
        [np.zeros(20), np.zeros(5)],
        [("relu", 0.0), ("identity", 0.0)],
        ("softmax_cross_entropy", 0.0),
        X,
        np.eye(5)[rng.integers(0, 5, 30)],
        "",
    ).in_precision(precision)
    report = checked(net, kinked.backward(net, ["right", "right"]))
    assert report.passed, report


def test_no_kink_is_reported_whose_slopes_are_equal() -> None:
    """ELU with α = 1 and softsign bend at 0 without a jump of the slope."""
    for name in (("elu", 1.0), ("softsign", 0.0)):
        net = kinked.draw(3, "float64", "zero rows")
        net = replace(net, activations=[name] * len(net.weights))
        report = checked(net, kinked.backward(net, ["left"] * len(net.weights)))
        assert report.whole.kinks == 0
        assert not re.search("kink", str(report)), report


def test_rounding_where_a_kink_changes_no_difference() -> None:
    """With one class J is constant: p − t is rounding, which relu'(0) = 1 hands on, 0 does not."""
    target = float(np.nextafter(1.0, 0.0))
    network = Network.from_arrays(
        [np.ones((1, 3))], [np.zeros(1)], activations=["relu"], loss="softmax_cross_entropy"
    )
    for slope in (0.0, 0.5, 1.0):
        gradient = [np.zeros((1, 3)), np.full(1, slope * (1.0 - target))]
        report = gradcheck(network, np.zeros((4, 3)), np.full((4, 1), target), gradient, jobs=1)
        assert report.passed, (slope, str(report))
    assert not gradcheck(
        network, np.zeros((4, 3)), np.full((4, 1), target), [np.zeros((1, 3)), np.ones(1)], jobs=1
    ).passed


@pytest.mark.parametrize("seed", [*range(4), 61])
@pytest.mark.parametrize("closed", [False, True])
def test_layers_whose_kinks_are_taken_by_different_hands(seed: int, closed: bool) -> None:
    """JAX's hard tanh has slope 1 on both of its kinks, its ReLU6 slope ½."""
    rng = np.random.default_rng(seed)
    W = [rng.integers(-1, 2, shape).astype(float) for shape in ((4, 5), (6, 4), (5, 6))]
    X, T = rng.integers(-1, 2, (40, 5)).astype(float), rng.normal(size=(40, 5))
    A, slopes = [X], []
    for w in W[:2]:
        z = A[-1] @ w.T
        slopes.append(1.0 * (np.abs(z) <= 1.0 if closed else np.abs(z) < 1.0))
        A.append(np.clip(z, -1.0, 1.0))
    z = A[-1] @ W[2].T
    slopes.append(0.5 * (1.0 * ((z > 0) & (z < 6)) + ((z >= 0) & (z <= 6))))
    d = (np.clip(z, 0.0, 6.0) - T) / 40
    gradient: list[Any] = []
    for l in (2, 1, 0):
        d = d * slopes[l]
        gradient = [d.T @ A[l], d.sum(axis=0), *gradient]
        d = d @ W[l]
    network = Network.from_arrays(
        W, [np.zeros(len(w)) for w in W],
        activations=["hardtanh", "hardtanh", "relu6"], loss="squared_error",
    )  # fmt: skip
    report = gradcheck(network, X, T, gradient, jobs=1)
    assert report.passed, report
