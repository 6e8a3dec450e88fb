"""The reference backward pass is right: held against the oracle's and against closed forms."""

import numpy as np
import pytest
from hypothesis import given

from fastcheck.errors import InputError
from fastcheck.model.network import Network
from fastcheck.reference.backprop import backward_pass, gradients
from tests import networks, oracle
from tests.builders import network_of
from tests.networks import Drawn


@given(networks.problems())
def test_the_gradient_is_the_oracles(drawn: Drawn) -> None:
    net = network_of(drawn)
    found = gradients(net, net.batch(drawn.inputs, drawn.targets))
    expected = oracle.pack(*oracle.backprop(*drawn.arrays, **drawn.conventions))
    assert oracle.relative_difference(found, expected) < 1e-12


@given(networks.problems(activations="tanh", loss="squared_error"))
def test_the_gradient_is_that_of_the_oracles_cost(drawn: Drawn) -> None:
    net = network_of(drawn)
    J = oracle.cost_of_theta(*drawn.arrays, **drawn.conventions)
    differences = oracle.central_differences(J, net.theta, 1e-5)
    found = gradients(net, net.batch(drawn.inputs, drawn.targets))
    scale = max(1.0, abs(J(net.theta)), float(np.abs(found).max()))
    np.testing.assert_allclose(found, differences, atol=1e-7 * scale)


@pytest.mark.parametrize("layout", ["rows", "course", "keras"])
def test_the_callable_form_is_in_the_owners_layout_and_precision(layout: str) -> None:
    rng = np.random.default_rng(0)
    W, X, Y = rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    b = rng.normal(size=3)
    dZ = (X @ W.T + b - Y) / 6
    course = layout == "course"
    net = Network.from_arrays(
        [(W.T if layout == "keras" else W).astype("f4")], [b.astype("f4")], loss="squared_error",
        layout=layout,
    )  # fmt: skip
    found = backward_pass(net, X.T if course else X, Y.T if course else Y)
    dW = dZ.T @ X
    np.testing.assert_allclose(found["dW1"], dW.T if layout == "keras" else dW, atol=1e-6)
    np.testing.assert_allclose(
        found["db1"], dZ.sum(0).reshape(-1, 1) if course else dZ.sum(0), atol=1e-6
    )
    assert found["dW1"].dtype == np.float32


def square(z: float) -> float:
    return z * z


def test_an_activation_of_the_users_own_has_no_known_derivative() -> None:
    net = Network.from_arrays([np.ones((2, 2))] * 2, activations=[square, square])
    with pytest.raises(InputError, match="your own activation"):
        gradients(net, net.batch(np.ones((1, 2)), [0]))
