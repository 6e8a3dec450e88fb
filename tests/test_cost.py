"""J in its parts, and the user's J beside it: equal, close, or another with the slip named."""

import math
import re
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.model.cost import compare_cost, cost_parts
from fastcheck.model.network import Batch, Network
from tests import networks, oracle
from tests.builders import network_of

M = 6


def problem(l2: float = 0.7, **options: Any) -> tuple[Network, Batch]:
    rng = np.random.default_rng(3)
    W = [rng.normal(size=(4, 5)), rng.normal(size=(3, 4))]
    net = Network.from_arrays(W, [rng.normal(size=4), rng.normal(size=3)], l2=l2, **options)
    return net, net.batch(rng.normal(size=(M, 5)), rng.integers(0, 3, M))


@pytest.mark.parametrize("seed", range(8))
def test_the_parts_are_the_oracles(seed: int) -> None:
    drawn = networks.random_problem(np.random.default_rng(seed))
    net = network_of(drawn)
    parts = cost_parts(net, net.batch(drawn.inputs, drawn.targets))
    J = oracle.cost(*drawn.arrays, **drawn.conventions)
    data = oracle.cost(*drawn.arrays, **{**drawn.conventions, "l2": 0.0})
    assert parts.total == pytest.approx(J, rel=1e-12)
    assert parts.data == pytest.approx(data, rel=1e-12)


def test_an_infinite_cost_is_refused() -> None:
    net = Network.from_arrays([np.full((2, 2), 1e200)], loss="squared_error")
    with pytest.raises(InputError, match=r"J.* is inf"):
        cost_parts(net, net.batch(np.ones((1, 2)) * 1e200, np.ones((1, 2))))


def squares(net: Network) -> float:
    return sum(float((W**2).sum()) for W in net.weights)


SLIPS: dict[str, tuple[Any, str]] = {
    "no penalty": (lambda D, P, net: D, r"lower by exactly \(λ/2m\)·Σ‖W‖².*the penalty is missing"),
    "twice": (lambda D, P, net: D + 2 * P, "penalty is twice"),
    "half": (lambda D, P, net: D + P / 2, "penalty is half"),
    "subtracted": (lambda D, P, net: D - P, "subtracted"),
    "not by m": (lambda D, P, net: D + M * P, "not divided by m"),
    "biases": (
        lambda D, P, net: D + P + 0.7 / (2 * M) * sum(float((b**2).sum()) for b in net.biases),
        "includes the biases",
    ),
    "one layer": (
        lambda D, P, net: D + 0.7 / (2 * M) * float((net.W(1) ** 2).sum()),
        "penalty on W2 is missing",
    ),
    "norms": (
        lambda D, P, net: D + 0.7 / (2 * M) * sum(np.linalg.norm(W) for W in net.weights),
        "instead of their squares",
    ),
    "sum": (lambda D, P, net: M * D + P, "sum over the 6 samples"),
    "nothing by m": (lambda D, P, net: M * (D + P), "not divided by m at all"),
    "base 2": (lambda D, P, net: D / math.log(2) + P, "base 2"),
    "sign": (lambda D, P, net: -D + P, "data part has the wrong sign"),
    "two slips": (lambda D, P, net: M * D, r"sum over the 6 samples.*; and .*penalty is missing"),
    "nonsense": (lambda D, P, net: 3.21 * D, "no slip that I know"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_in_the_cost_is_named(name: str) -> None:
    net, batch = problem()
    ours = cost_parts(net, batch)
    wrong, sentence = SLIPS[name]
    found = compare_cost(net, batch, wrong(ours.data, ours.penalty, net))
    assert not found.agrees
    assert re.search(sentence, found.explanation), found.explanation


def test_the_right_cost_agrees_up_to_its_rounding() -> None:
    net, batch = problem()
    J = cost_parts(net, batch).total
    values: list[Any] = [J, J * (1 + 1e-13), np.float32(J), np.array([[J]])]
    for value in values:
        found = compare_cost(net, batch, value)
        assert (found.agrees, found.explanation) == (True, "")
    assert not compare_cost(net, batch, J * 1.001).agrees


def test_a_small_number_in_the_logarithm_is_no_other_cost() -> None:
    net, batch = problem(l2=0.0)
    Z = oracle.forward(net.weights, net.biases, ["relu", "identity"], batch.X)
    guarded = float(np.mean(-np.sum(batch.T * np.log(oracle.softmax(Z) + 1e-8), axis=1)))
    found = compare_cost(net, batch, guarded)
    assert found.agrees
    assert "log" in found.explanation


def guarded_cost(
    net: Network, batch: Batch, guard: Any, log: Any = np.log, sign: float = -1.0, m: int = M
) -> float:
    """The cost that course code has, with a guard on p; plain NumPy."""
    Z = oracle.forward(net.weights, net.biases, ["relu", "identity"], batch.X)
    if net.loss.name == "softmax_cross_entropy":
        terms = batch.T * log(guard(oracle.softmax(Z)))
    else:
        p = 1 / (1 + np.exp(-Z))
        terms = batch.T * log(guard(p)) + (1 - batch.T) * log(guard(1 - p))
    return sign * float(terms.sum()) / m + net.l2 / (2 * M) * squares(net)


GUARDS: dict[str, tuple[Any, str]] = {
    "added": (lambda p: p + 1e-3, r"log\(p \+ 0.001\)"),
    "added, small": (lambda p: p + 1e-9, r"log\(p \+ 1e-09\)"),
    "clipped": (lambda p: np.clip(p, 0.2, 0.8), r"clipped to \[0.2, 1 − 0.2\]"),
    "clipped below": (lambda p: np.maximum(p, 0.2), r"clipped below 0.2"),
}


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
@pytest.mark.parametrize("name", GUARDS)
def test_a_guarded_logarithm_is_named(name: str, loss: str) -> None:
    net, batch = problem()
    if loss == "sigmoid_cross_entropy":
        net = Network.from_arrays(net.weights, net.biases, l2=0.7, loss=loss)
        batch = net.batch(batch.X, np.random.default_rng(1).integers(0, 2, (M, 3)).astype(float))
    guard, sentence = GUARDS[name]
    cost = guarded_cost(net, batch, guard)
    if name == "clipped below" and loss == "sigmoid_cross_entropy":
        sentence = "clipped"  # below 0.2 in p and in 1 − p: the same as on both sides or nearly
    found = compare_cost(net, batch, cost)
    assert re.search(sentence, found.explanation), found.explanation
    assert found.agrees == (name == "added, small")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"log": np.log2}, "base 2"),
        ({"m": 1}, "sum over the 6 samples"),
        ({"sign": 1.0}, "wrong sign"),
    ],
)
def test_a_guarded_logarithm_is_named_beside_another_slip(
    more: dict[str, Any], sentence: str
) -> None:
    net, batch = problem()
    found = compare_cost(net, batch, guarded_cost(net, batch, lambda p: p + 1e-3, **more))
    assert not found.agrees
    assert re.search(r"log\(p \+ 0.001\).*" + sentence, found.explanation), found.explanation


def test_no_number_in_a_logarithm_is_made_up() -> None:
    """A J that is another one for no reason is never called a guarded logarithm."""
    net, batch = problem()
    rng = np.random.default_rng(0)
    for factor in 1.0 - 10.0 ** rng.uniform(-6, -0.1, 200):
        found = compare_cost(net, batch, factor * cost_parts(net, batch).total)
        assert "log" not in found.explanation or "small number in a log" in found.explanation


def test_a_slip_is_named_only_where_it_explains_the_whole_gap() -> None:
    net, batch = problem(l2=1e-9)
    ours = cost_parts(net, batch)
    assert ours.penalty < 1e-8 * ours.total
    part_of_it = compare_cost(net, batch, ours.total - 1.5 * ours.penalty)
    assert "penalty" not in part_of_it.explanation


def test_the_callable_gets_what_its_owner_gave() -> None:
    net, batch = problem()
    given: list[Any] = []

    def cost(network: Network, inputs: Any, targets: Any) -> float:
        given.append((inputs, targets))
        return cost_parts(network, batch).total

    assert compare_cost(net, batch, cost, ("X", "Y")).agrees
    assert given == [("X", "Y")] * 2


def test_a_cost_with_dropout_is_refused() -> None:
    net, batch = problem()
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"cost gives two values.*keep_prob=1"):
        compare_cost(net, batch, lambda n, x, t: rng.random())


@pytest.mark.parametrize("value", [np.nan, np.ones(3), "high", 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    net, batch = problem()
    with pytest.raises(InputError):
        compare_cost(net, batch, value)
