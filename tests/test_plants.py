"""Every plantable slip makes the gradient wrong, is caught, and can be aimed at a layer."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from fastcheck.check import gradcheck
from fastcheck.diagnosis.bugs import buggy_gradients
from fastcheck.diagnosis.inject import PLANTS, in_words, plant
from fastcheck.errors import InputError
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import gradients
from tests import oracle

# Each has no effect in most networks: where it has one.
NEEDS_MASKS = {"mask_forgotten", "mask_not_scaled", "mask_twice"}


@cache
def case(masks: bool) -> tuple[Network, np.ndarray, np.ndarray]:
    """Return a network in which slips show: tanh, square layers, batch no multiple of a width."""
    rng = np.random.default_rng(5)
    sizes = (6, 6, 6, 4)
    weights = [rng.normal(size=(n, k)) for k, n in pairwise(sizes)]
    network = Network.from_arrays(
        weights,
        [rng.normal(size=n) for n in sizes[1:]],
        activations="tanh",
        loss="softmax_cross_entropy",
        l2=1.5,
        dropout_masks={1: (rng.random((7, 6)) < 0.6) / 0.6} if masks else None,
    )
    return network, 3.0 * rng.normal(size=(7, 6)), rng.integers(4, size=7)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught(name: str) -> None:
    network, X, Y = case(name in NEEDS_MASKS)
    planted = plant(name, network, network.batch(X, Y))
    report = gradcheck(network, X, Y, planted)
    assert report.status == "wrong", str(report)


def test_without_a_bug_the_same_networks_are_right() -> None:
    for masks in (False, True):
        network, X, Y = case(masks)
        report = gradcheck(network, X, Y, gradients(network, network.batch(X, Y)))
        assert report.passed, str(report)


def test_a_bug_is_planted_in_the_layer_asked_for() -> None:
    network, X, Y = case(False)
    batch = network.batch(X, Y)
    right = network.order.unpack(gradients(network, batch))
    for layer in (1, 2, 3):
        wrong = plant(f"doubled@{layer}", network, batch)(network, X, Y)
        for name, values in right.items():
            factor = 2.0 if name == f"W{layer}" else 1.0
            np.testing.assert_array_equal(wrong[f"d{name}"], factor * values)


def test_the_penalty_slips_are_off_by_what_they_say() -> None:
    network, X, Y = case(False)
    batch = network.batch(X, Y)
    right = gradients(network, batch)
    part = np.concatenate(
        [
            (1.5 / 7) * values.ravel() if block.kind == "W" else np.zeros(block.size)
            for block, values in network.order.views(network.theta)
        ]
    )
    factors = {"missing": -1.0, "doubled": 1.0, "halved": -0.5, "sign": -2.0, "not_divided": 6.0}
    for name, factor in factors.items():
        wrong = buggy_gradients(PLANTS[f"penalty_{name}"], network, batch)
        np.testing.assert_allclose(wrong - right, factor * part, rtol=1e-9, atol=1e-12)


def test_the_derivative_slips_are_the_oracles_with_the_slip_typed_in() -> None:
    """tanh' at a is 1 − tanh²(a); held against a backward pass written out here."""
    network, X, Y = case(False)
    batch: Batch = network.batch(X, Y)
    W = [network.W(k) for k in (1, 2, 3)]
    b = [network.theta[network.order.block(f"b{k}").slice] for k in (1, 2, 3)]
    outputs, _ = oracle.trace(W, b, ["tanh", "tanh", "identity"], X)
    dZ = (oracle.softmax(outputs[3]) - np.eye(4)[Y]) / 7
    expected: list[np.ndarray] = []
    for k in (2, 1, 0):
        expected[:0] = [(dZ.T @ outputs[k] + 1.5 / 7 * W[k]).ravel(), dZ.sum(axis=0)]
        dZ = (dZ @ W[k]) * (1 - np.tanh(outputs[k]) ** 2)
    wrong = buggy_gradients(PLANTS["derivative_at_a"], network, batch)
    np.testing.assert_allclose(wrong, np.concatenate(expected), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transpose", r"unknown bug 'transpose'.*--list-plants.*Did you mean 'transposed'"),
        ("xyz", r"unknown bug 'xyz'.*--list-plants"),
        ("doubled@4", r"layer '4' in doubled@4.*from 1 to 3"),
        ("doubled@0", r"layer '0'.*from 1 to 3"),
        ("doubled@", r"layer ''.*from 1 to 3"),
        ("doubled@two", r"layer 'two'.*from 1 to 3"),
        ("sign@2", r"sign@2.*sign without a layer"),
        ("mask_forgotten", r"mask_forgotten changes nothing in this network.*another"),
    ],
)
def test_what_cannot_be_planted_is_refused(text: str, message: str) -> None:
    network, X, Y = case(False)
    with pytest.raises(InputError, match=message):
        plant(text, network, network.batch(X, Y))


def test_names_are_read_as_people_write_them() -> None:
    network, X, Y = case(False)
    batch = network.batch(X, Y)
    assert plant("Penalty-Missing@2", network, batch).slip.name == "penalty_missing"
    assert plant(" bias axis", network, batch).slip.name == "bias_axis"


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("name", PLANTS)
def test_each_sentence_is_whole(name: str, layer: int | None) -> None:
    words = in_words(PLANTS[name], layer)
    assert "{value}" not in words
    assert "  " not in words
    assert words == words.strip()
    if layer:
        assert "{" not in words


def test_the_sentence_names_the_layers_that_are_hit() -> None:
    assert in_words(PLANTS["error_not_passed"], 2).startswith(
        "no error is passed on from layer 2 to"
    )
    assert in_words(PLANTS["transposed"], 2) == "dW2 is transposed"
    network, X, Y = case(False)
    right = network.order.unpack(gradients(network, network.batch(X, Y)))
    wrong = plant("error_not_passed@2", network, network.batch(X, Y))(network, X, Y)
    assert not wrong["db1"].any()
    np.testing.assert_array_equal(wrong["dW2"], right["W2"])
