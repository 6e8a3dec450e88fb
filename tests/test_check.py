"""The whole check: right gradients pass, wrong ones are named, every option does something."""

from typing import Any

import numpy as np
import pytest

import fastcheck
from fastcheck import Network, Report, gradcheck, numerical_gradient
from fastcheck.errors import InputError
from fastcheck.methods.table import METHODS
from tests import networks, oracle
from tests.builders import network_of

EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def backward(network: Network, inputs: Any, targets: Any) -> dict[str, Any]:
    """A backward pass of the oracle: tanh, then softmax, l2 = 0.2."""
    dW, db = oracle.backprop(
        network.weights, network.biases, np.asarray(inputs), np.eye(3)[targets],
        activations=["tanh", "identity"], loss="softmax_cross_entropy", l2=0.2,
    )  # fmt: skip
    return {f"d{n}{k}": v for n, vs in (("W", dW), ("b", db)) for k, v in enumerate(vs, start=1)}


def problem(dtype: Any = float) -> tuple[Network, Any, Any]:
    rng = np.random.default_rng(5)
    W = [rng.normal(size=(6, 4)).astype(dtype), rng.normal(size=(3, 6)).astype(dtype)]
    b = [rng.normal(size=6).astype(dtype), rng.normal(size=3).astype(dtype)]
    net = Network.from_arrays(W, b, activations="tanh", l2=0.2)
    return net, rng.normal(size=(8, 4)).astype(dtype), rng.integers(0, 3, 8)


@EVERY_METHOD
def test_a_right_gradient_passes(method: str) -> None:
    report = gradcheck(*problem(), backward, method=method)
    assert report.passed
    assert (report.status, report.grade) == ("agree", "great")
    assert report.difference < 1e-7
    assert report.method.name == method
    assert report.method.checked == report.method.size == 51


@EVERY_METHOD
@pytest.mark.parametrize("block", ["dW1", "db1", "dW2", "db2"])
def test_a_wrong_block_is_caught_and_named(method: str, block: str) -> None:
    net, X, y = problem()
    g = backward(net, X, y)
    g[block] = g[block] * 1.001
    report = gradcheck(net, X, y, g, method=method)
    assert report.status == "wrong"
    assert [b.name for b in report.blocks if b.verdict == "wrong"] == [block]


@EVERY_METHOD
@pytest.mark.parametrize("seed", range(6))
def test_random_networks_with_their_gradient_are_not_accused(method: str, seed: int) -> None:
    drawn = networks.random_problem(np.random.default_rng(seed))
    net = network_of(drawn)
    g = oracle.pack(*oracle.backprop(*drawn.arrays, **drawn.conventions))
    report = gradcheck(net, drawn.inputs, drawn.targets, g, method=method)
    assert report.status != "wrong", report.to_text()
    differences = oracle.central_differences(
        oracle.cost_of_theta(*drawn.arrays, **drawn.conventions), net.theta
    )
    found = numerical_gradient(net, drawn.inputs, drawn.targets, method=method)
    J = oracle.cost(*drawn.arrays, **drawn.conventions)
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-7 * max(1.0, abs(J)))


def test_auto_is_the_unit_method() -> None:
    assert gradcheck(*problem(), backward).method.name == "unit"


def test_a_float32_gradient_is_held_to_its_rounding_and_the_report_says_so() -> None:
    net, X, y = problem("float32")
    report = gradcheck(net, X, y, backward)
    assert report.passed
    assert report.held_to.precision == "float32"
    assert "float32" in report.held_to.reason
    wrong = backward(net, X, y)
    wrong["dW2"] = wrong["dW2"] * np.float32(1.01)
    assert gradcheck(net, X, y, wrong).status == "wrong"
    strict = gradcheck(net, X, y, backward, precision="float64")
    assert strict.status == "wrong"  # what it would be without


def test_a_sample_checks_so_many_and_says_which_seed() -> None:
    net, X, y = problem()
    report = gradcheck(net, X, y, backward, sample=20, seed=3)
    assert report.passed
    assert (report.method.checked, report.method.size, report.method.seed) == (20, 51, 3)
    assert all(b.checked > 0 for b in report.blocks)
    assert sum(b.checked for b in report.blocks) == 20
    found = numerical_gradient(net, X, y, sample=20, seed=3)
    assert np.isfinite(found).sum() == 20
    every = numerical_gradient(net, X, y)
    np.testing.assert_allclose(found[np.isfinite(found)], every[np.isfinite(found)], rtol=1e-9)


def test_a_sample_larger_than_all_checks_all_and_says_so() -> None:
    report = gradcheck(*problem(), backward, sample=1000)
    assert report.method.checked == 51
    assert any("1,000" in note for note in report.notes)
    assert not gradcheck(*problem(), backward, sample=51).notes


def test_the_cost_is_compared_first() -> None:
    net, X, y = problem()
    report = gradcheck(net, X, y, backward)
    assert report.cost is not None
    assert report.cost.data is not None
    J = oracle.cost(
        net.weights, net.biases, X, np.eye(3)[y], activations=["tanh", "identity"],
        loss="softmax_cross_entropy", l2=0.2,
    )  # fmt: skip
    assert report.cost.total == pytest.approx(J, rel=1e-12)
    assert gradcheck(net, X, y, backward, cost=J).passed
    without = gradcheck(net, X, y, backward, cost=lambda n, x, t: report.cost.data)  # type: ignore[union-attr]
    assert without.status == "wrong"
    assert "the penalty is missing" in " ".join(without.to_text().split())


def test_a_bug_that_shows_only_after_training_is_found() -> None:
    net, X, y = problem()
    zero = net.with_theta(net.theta * np.repeat([1, 0, 1, 0], [24, 6, 18, 3]))  # no biases yet

    def penalty_on_biases(network: Network, inputs: Any, targets: Any) -> Any:
        g = backward(network, inputs, targets)
        return {**g, "db1": g["db1"] + 0.2 / 8 * np.asarray(network.biases[0])}

    assert gradcheck(zero, X, y, penalty_on_biases).passed
    report = gradcheck(zero, X, y, penalty_on_biases, train_steps=2, learning_rate=0.5)
    assert report.gradient_status == "agree"
    assert report.status == "wrong"
    later = report.after_training[0]
    assert [b.name for b in later.blocks if b.verdict == "wrong"] == ["db1"]
    assert later.cost is not None
    assert report.cost is not None
    assert later.cost.total < report.cost.total
    assert gradcheck(zero, X, y, backward, train_steps=2).passed


def test_training_moves_float32_parameters_to_float32_parameters() -> None:
    net, X, y = problem("float32")
    seen: list[Any] = []

    def watched(network: Network, inputs: Any, targets: Any) -> Any:
        seen.append(network)
        return backward(network, inputs, targets)

    assert gradcheck(net, X, y, watched, train_steps=1).passed
    theta = seen[-1].theta
    assert not np.array_equal(theta, net.theta)
    np.testing.assert_array_equal(theta, theta.astype("float32"))


def test_a_number_as_cost_is_compared_before_training_only() -> None:
    net, X, y = problem()
    total = gradcheck(net, X, y, backward).cost.total  # type: ignore[union-attr]
    assert gradcheck(net, X, y, backward, cost=total, train_steps=1).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_steps": 2}, "a function gradients"),
        ({"train_steps": -1}, "train_steps=-1"),
        ({"train_steps": True}, "train_steps=True"),
        ({"sampel": 3}, r"unknown option 'sampel'.*sample"),
        ({"method": "unitt"}, "unit"),
        ({"epsilon": 0}, "epsilon"),
        ({"sample": 0}, "sample"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, message: str) -> None:
    net, X, y = problem()
    with pytest.raises(InputError, match=message):
        gradcheck(net, X, y, backward(net, X, y), **options)


def test_training_that_diverges_is_refused_with_what_to_do() -> None:
    net, X, y = problem()
    with pytest.raises(InputError, match="smaller learning_rate"):
        gradcheck(
            net, X, y, lambda n, x, t: np.sign(n.theta) * -1e300, train_steps=3, learning_rate=1e9
        )


def test_the_report_says_what_was_checked_and_with_what() -> None:
    report = gradcheck(*problem(), backward, name="tanh", command="fastcheck tanh.npz", jobs=1)
    assert report.name == "tanh"
    assert report.run.command == "fastcheck tanh.npz"
    assert report.run.threads == 1
    assert set(report.run.versions) >= {"fastcheck", "python", "numpy", "numba"}
    assert set(report.run.seconds) == {"reading", "differences", "comparison"}
    assert report.network is not None
    assert report.network.sizes == (4, 6, 3)
    assert Report.from_json(report.to_json()) == report


def test_the_command_of_python_repeats_the_options() -> None:
    report = gradcheck(*problem(), backward, sample=20, seed=3)
    assert report.run.command == "gradcheck(network, inputs, targets, gradients, sample=20, seed=3)"


def test_public_names_are_there_and_documented() -> None:
    for name in fastcheck.__all__:
        assert getattr(fastcheck, name).__doc__
    assert set(fastcheck.__all__) == set(fastcheck.PLACES)
    assert isinstance(fastcheck.__version__, str)
    with pytest.raises(AttributeError, match="no attribute 'gradchek'"):
        _ = fastcheck.gradchek


@pytest.mark.parametrize("size", [1.0, 50.0, 255.0])
def test_a_layer_of_zeros_with_large_inputs_is_not_accused_for_its_curvature(size: float) -> None:
    # softsign bends at 0 from both sides: at W = 0 the central difference is off by ε·|a|.
    X, T = size * np.array([[1.0], [0.3]]), np.array([[1.0], [0.5]])
    W = [np.zeros((1, 1)), np.array([[1.5]])]
    network = Network.from_arrays(
        W, [np.zeros(1), np.zeros(1)], activations="softsign", loss="squared_error"
    )
    dZ2 = -T / 2
    dZ1 = 1.5 * dZ2
    right = {"dW1": dZ1.T @ X, "db1": dZ1.sum(0), "dW2": np.zeros((1, 1)), "db2": dZ2.sum(0)}
    assert gradcheck(network, X, T, right).status == "agree"
    wrong = right | {"dW1": 1.001 * right["dW1"]}
    assert gradcheck(network, X, T, wrong).status == "wrong"


def test_a_gradient_of_zeros_at_a_kink_is_right() -> None:
    one = [[1.0]]
    network = Network.from_arrays([one, one], [[0.0], [0.0]], loss="squared_error")
    gradients = {"dW1": [[0.0]], "db1": [0.0], "dW2": [[0.0]], "db2": [-1.0]}
    report = gradcheck(network, [[0.0]], one, gradients)
    assert report.passed
    assert report.whole.kinks == 1


def test_what_nothing_explains_is_said_once() -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.standard_normal((8, 6))])
    X, Y = rng.standard_normal((10, 6)), rng.integers(0, 8, 10)
    wrong = fastcheck.numerical_gradient(network, X, Y) + rng.standard_normal(network.size)
    text = " ".join(str(gradcheck(network, X, Y, wrong)).split())
    assert text.count("No slip that I know explains this") == 1
    assert "most likely No slip" not in text


def test_a_factor_near_one_is_not_called_one() -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.standard_normal((8, 6))])
    X, Y = rng.standard_normal((10, 6)), rng.integers(0, 8, 10)
    gradient = fastcheck.numerical_gradient(network, X, Y)
    report = gradcheck(network, X, Y, 1.0005 * gradient, tol=np.float64(1e-7))
    assert "1.0005 times what it should be" in " ".join(str(report).split())
    assert "tol=1e-07" in " ".join(str(report).split())
