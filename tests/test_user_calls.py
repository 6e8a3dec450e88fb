"""Nothing that a user's function writes into is computed with, and what it writes into is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastcheck import InputError, Network, backward_pass, gradcheck, numerical_gradient

RNG = np.random.default_rng(0)
SHAPES = [(4, 3), (4,), (2, 4), (2,)]
SOFTMAX, SIGMOID = "softmax_cross_entropy", "sigmoid_cross_entropy"


def problem(**options: Any) -> tuple[Network, Any, Any]:
    """Return a network and a batch, new ones at each call."""
    W1, b1, W2, b2 = (np.random.default_rng(k).normal(size=s) for k, s in enumerate(SHAPES))
    chosen = {"activations": "tanh", "loss": SIGMOID, **options}
    rng = np.random.default_rng(9)
    targets = rng.random((5, 2))
    return Network.from_arrays([W1, W2], [b1, b2], **chosen), rng.normal(size=(5, 3)), targets


def centre(network: Any, x: Any, y: Any) -> None:
    x -= x.mean(axis=0)


def smooth(network: Any, x: Any, y: Any) -> None:
    y *= 0.9


def shift(network: Any, x: Any, y: Any) -> None:
    network.theta[...] += 0.1


def drop(network: Any, x: Any, y: Any) -> None:
    network.masks[0][0] = 0.0


def decay(network: Any, x: Any, y: Any) -> None:
    network.parameters["W2"][...] *= 0.9


WRITES = {
    "inputs": (centre, "inputs"),
    "targets": (smooth, "targets"),
    "θ": (shift, "W1, b1, W2, b2"),
    "one block": (decay, "W2"),
    "a mask": (drop, "dropout mask 1"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_gradient_of_what_it_wrote_is_wrong_and_what_it_wrote_into_is_named(name: str) -> None:
    write, arguments = WRITES[name]
    network, X, Y = problem(dropout_masks={1: np.ones((5, 4))})
    before = network.theta.copy(), X.copy(), Y.copy(), network.masks[0].copy()  # type: ignore[union-attr]

    def gradients(network: Network, x: Any, y: Any) -> Any:
        write(network, x, y)
        return backward_pass(network, x, y)

    report = gradcheck(network, X, Y, gradients)
    assert report.status == "wrong"
    assert any(f"gradients writes into its arguments: {arguments}." in n for n in report.notes)
    for array, kept in zip((network.theta, X, Y, network.masks[0]), before, strict=True):
        assert array is not None
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("name", WRITES)
def test_a_right_gradient_is_not_accused_for_what_is_written_afterwards(name: str) -> None:
    write, arguments = WRITES[name]
    network, X, Y = problem(dropout_masks={1: np.ones((5, 4))})

    def gradients(network: Network, x: Any, y: Any) -> Any:
        found = {k: v.copy() for k, v in backward_pass(network, x, y).items()}
        write(network, x, y)
        return found

    report = gradcheck(network, X, Y, gradients)
    assert report.status == "agree"
    assert any(arguments in note for note in report.notes)


@pytest.mark.parametrize("name", WRITES)
def test_a_cost_that_writes_is_named_and_changes_nothing(name: str) -> None:
    write, arguments = WRITES[name]
    network, X, Y = problem(dropout_masks={1: np.ones((5, 4))})
    J = gradcheck(network, X, Y, backward_pass).cost.total  # type: ignore[union-attr]

    def cost(network: Network, x: Any, y: Any) -> float:
        write(network, x, y)
        return J

    report = gradcheck(network, X, Y, backward_pass, cost=cost)
    assert report.status == "agree"
    assert any(f"cost writes into its arguments: {arguments}." in note for note in report.notes)


def test_a_function_that_writes_into_nothing_has_no_note() -> None:
    network, X, Y = problem()
    assert gradcheck(network, X, Y, backward_pass).notes == ()


def test_lists_of_numbers_are_kept_too() -> None:
    network, X, Y = problem()
    rows = X.tolist()

    def gradients(network: Network, x: Any, y: Any) -> Any:
        x[0][0] = 100.0
        return backward_pass(network, np.array(x), y)

    report = gradcheck(network, rows, Y, gradients)
    assert report.status == "wrong"
    assert any("inputs" in note for note in report.notes)
    assert rows == X.tolist()


@pytest.mark.parametrize("changed", ["inputs", "targets", "W1"])
def test_a_function_that_writes_into_arrays_that_it_was_not_given_is_named(changed: str) -> None:
    network, X, Y = problem()
    arrays = {"inputs": X, "targets": Y, "W1": network.W(1)}

    def gradients(own: Network, x: Any, y: Any) -> Any:
        found = {k: v.copy() for k, v in backward_pass(own, x, y).items()}
        arrays[changed][0, 0] += 0.25
        return found

    report = gradcheck(network, X, Y, gradients)
    assert report.status == "agree"  # of the arrays as they were
    assert any(f"{changed} changed while your functions ran" in note for note in report.notes)


def changed_later(array: Any) -> None:
    array[...] = 7.0


@pytest.mark.parametrize("flat", [False, True])
def test_arrays_that_change_after_the_network_was_made_change_nothing(flat: bool) -> None:
    theta = RNG.normal(size=26)
    parts = [theta[:12].reshape(4, 3), theta[12:16], theta[16:24].reshape(2, 4), theta[24:]]
    W1, b1, W2, b2 = parts if flat else [part.copy() for part in parts]
    mask = np.ones((5, 4))
    _, X, Y = problem()
    network = Network.from_arrays(
        [W1, W2], [b1, b2], activations="tanh", loss=SIGMOID, dropout_masks={1: mask}
    )
    batch = network.batch(X, Y)
    moved = network.with_theta(theta)
    right = numerical_gradient(network, X, Y)
    kept = network.theta.copy(), batch.X.copy(), batch.T.copy()
    for array in (theta, W1, b1, W2, b2, mask, X, Y):
        changed_later(array)
    for array, before in zip((network.theta, batch.X, batch.T), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(moved.theta, kept[0])
    np.testing.assert_array_equal(numerical_gradient(network, *kept[1:]), right)


class RunningMean:
    """A backward pass with a running statistic that its J depends on."""

    def __init__(self) -> None:
        self.mean = 0.0

    def gradients(self, network: Network, x: Any, y: Any) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * float(np.mean(x))
        return backward_pass(network, x, y)

    def cost(self, network: Network, x: Any, y: Any) -> float:
        return 1.0 + self.mean


def test_a_gradient_that_changes_the_users_own_cost_is_refused() -> None:
    network, X, Y = problem()
    layer = RunningMean()
    with pytest.raises(InputError, match=r"cost is 1\.0 at θ, and .* once gradients was called"):
        gradcheck(network, X, Y, layer.gradients, cost=layer.cost)


Forms: dict[str, Callable[[dict[str, Any]], Any]] = {
    "generator": lambda d: (v for v in d.values()),
    "map": lambda d: map(np.asarray, d.values()),
    "values": lambda d: d.values(),
    "items": lambda d: d.items(),
    "zip of pairs": lambda d: zip([d["dW1"], d["dW2"]], [d["db1"], d["db2"]], strict=True),
}


@pytest.mark.parametrize("form", Forms)
@pytest.mark.parametrize("call", [False, True])
def test_gradients_may_come_one_after_the_other(form: str, call: bool) -> None:
    network, X, Y = problem()
    right = backward_pass(network, X, Y)
    given: Any = (lambda *_: Forms[form](right)) if call else Forms[form](right)
    assert gradcheck(network, X, Y, given).status == "agree"
