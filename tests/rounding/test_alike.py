"""What rounding does to many samples alike adds up, where independent errors average out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, gradcheck
from fastcheck.rounding import rounding
from fastcheck.rounding.model import Variant
from tests.nasty import styles
from tests.nasty.network import Array, Nasty, named
from tests.nasty_checks import network_of, owners

M = 3000


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
HIDDEN: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "hardtanh": lambda z: np.clip(z, -1.0, 1.0),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0.0))),
    "tanh": np.tanh,
}


def fitted(rng: np.random.Generator, X: Array, activation: str, *, biases: bool = True) -> Nasty:
    """Return a network whose last layer fits its targets: no gradient is left but rounding."""
    W = [rng.normal(size=(4, X.shape[1])), rng.normal(size=(3, 4))]
    b: list[Any] = [0.5 * rng.normal(size=4), 0.5 * rng.normal(size=3)] if biases else [None] * 2
    net = Nasty(W, b, [named(activation), named("identity")], named("squared_error"), X, X[:, :0])
    hidden = HIDDEN[activation](X @ W[0].T + (b[0] if biases else 0.0))
    noise, known = rng.normal(size=(M, 3)), np.column_stack([hidden, np.ones(M)])
    left = noise - known @ np.linalg.lstsq(known, noise, rcond=None)[0]
    T = hidden @ W[1].T + (b[1] if biases else 0.0) + left
    return Nasty(W, b, net.activations, net.loss, X, T)


INPUTS: dict[str, Callable[[np.random.Generator], Array]] = {
    "normal": lambda rng: rng.normal(size=(M, 3)),
    "nearly equal": lambda rng: rng.normal(size=(1, 3)) * (1.0 + 1e-3 * rng.normal(size=(M, 3))),
    "a constant feature": lambda rng: np.column_stack(
        [rng.normal(size=(M, 2)), np.full(M, rng.normal())]
    ),
    "two values": lambda rng: rng.integers(2, size=(M, 3)) * rng.normal(size=3),
}


def off(net: Nasty, dtype: str, way: styles.Way) -> float:
    """Return the greatest ‖error‖/‖σ‖ of a block."""
    net = net.rounded(dtype)
    network = network_of(net, dtype)
    sigma = rounding(network, network.batch(net.inputs, net.targets), dtype)
    given = owners(styles.rows(net, way), "rows")
    exact = owners(styles.rows(net, styles.Way("longdouble")), "rows")
    shares = [
        float(np.linalg.norm((a - b).astype(float))) / float(np.linalg.norm(sigma.block(block)))
        for a, b, block in zip(given, exact, network.order.blocks, strict=True)
    ]
    return max(shares)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "hardtanh", "selu", "tanh"])
def test_what_is_left_of_a_fitted_layer_is_within_the_model(
    activation: str, kind: str, dtype: str
) -> None:
    shares = []
    for seed in range(4):
        rng = np.random.default_rng([seed, 22])
        net = fitted(rng, INPUTS[kind](rng), activation, biases=seed != 3)
        shares.append(off(net, dtype, styles.Way(dtype)))
    assert max(shares) < 5.0
    assert np.median(shares) > 0.2  # nor is everything forgiven


@pytest.mark.parametrize("size", [1e-17, 1e-15, 1e-13])
@pytest.mark.parametrize("activation", ["tanh", "elu", "selu"])
def test_values_below_what_a_formula_can_tell_apart_err_alike(activation: str, size: float) -> None:
    rng = np.random.default_rng(4)
    for form in range(5):
        X = rng.normal(size=(M, 3)) * 1e-3 + 1.0
        W = [size * rng.normal(size=(4, 3)), rng.normal(size=(2, 4))]
        b: list[Any] = [np.zeros(4), np.zeros(2)]
        acts = [named(activation), named("identity")]
        net = Nasty(W, b, acts, named("squared_error"), X, np.zeros((M, 2)))
        assert off(net, "float64", styles.Way(forms=(form, 0))) < 5.0


def test_products_that_underflow_are_rounded_one_by_one_in_plain_loops() -> None:
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, T = 1e-6 * rng.random((400, 6)), rng.random((400, 3))
        net = Nasty(
            [rng.normal(size=(3, 6))], [np.zeros(3)], [named("identity")],
            named("squared_error"), X, T,
        ).rounded("float16")  # fmt: skip
        network = network_of(net, "float16")
        batch = network.batch(net.inputs, net.targets)
        given = styles.samples(net, styles.Way("float16"))[0][0]
        exact = styles.rows(net, styles.Way("longdouble"))[0][0]
        made = rounding(network, batch, "float16", variant=Variant(loops=True))
        sigma = made.block(network.order.blocks[0])
        shares.append(np.linalg.norm((given - exact).astype(float)) / np.linalg.norm(sigma))
    assert 0.1 < max(shares) < 3.0


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "relu6"])
def test_a_unit_on_a_kink_may_be_off_it_where_its_inputs_are_rounded(
    activation: str, precision: str
) -> None:
    """The sum of a unit is exact, but one of its inputs is 0 only before rounding."""
    checked = 0
    for x in np.linspace(0.6, 1.4, 60):
        w = 0.3 + x * x
        bias = -(w * x)  # to cancel in float64
        leak = 0.01 if activation == "leaky_relu" else 0.0
        X, T = np.array([[x], [-1.0]]), np.array([[-1.0], [2.0]])
        network = Network.from_arrays(
            [[[w]], [[1.0]]],
            [[bias], [0.0]],
            activations=[activation] * 2,
            loss="squared_error",
        )
        low = [np.array(v, precision) for v in (X, T, w, bias, leak)]
        z1 = low[0] * low[2] + low[3]
        a1 = np.where(z1 > 0, z1, low[4] * z1)
        slope1, slope2 = (np.where(z > 0, 1, low[4]).astype(precision) for z in (z1, a1))
        out = np.where(a1 > 0, a1, low[4] * a1)
        d2 = (out - low[1]) * slope2 / np.array(2, precision)
        d1 = d2 * slope1
        given = [d1.T @ low[0], d1.sum(axis=0), d2.T @ a1, d2.sum(axis=0)]
        assert all(part.dtype == precision for part in given)
        checked += int(z1[0, 0] > 0)
        report = gradcheck(network, X, T, given, precision=precision)
        assert report.status != "wrong", (x, given)
    assert checked > 5
