"""The rounding model: no correct gradient is accused, and ten times the rounding does not pass."""

import importlib.util
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastcheck import Report, gradcheck
from fastcheck.model.network import Network
from fastcheck.rounding import gradient_rounding, rounding
from fastcheck.verdict.rules import (
    BLOCK_CEILING,
    MIN_BLOCK_FACTOR,
    ROUNDING_FACTOR,
    BlockErrors,
    block_rounding,
)
from tests.networks import Drawn
from tests.repetitions import draws
from tests.rounding_cases import (
    cases,
    dense,
    draw,
    exact_gradient,
    network_of,
    noticed,
    numpy_gradient,
    ratios,
    torch_gradient,
)

PRECISIONS = ("float64", "float32", "float16", "bfloat16")


def _gradients(drawn: Drawn, precision: str, maker: str) -> np.ndarray | None:
    """Return a gradient in a precision; None where it overflows."""
    if maker == "torch":
        gradient = torch_gradient(drawn, precision)
    else:
        gradient = numpy_gradient(drawn, np.dtype(precision))
    return gradient if np.isfinite(gradient).all() else None


def _makers(precision: str) -> list[str]:
    """Return who computes gradients in a precision."""
    makers = [] if precision == "bfloat16" else ["numpy"]
    return [*makers, "torch"] if importlib.util.find_spec("torch") else makers


@draws(1, 2)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_correct_gradient_is_accused(precision: str, seed: int) -> None:
    makers = _makers(precision)
    if not makers:
        pytest.skip("needs torch")
    seen = []
    for drawn, predicted, exact in cases(20250101 + seed, 25, precision):
        for maker in makers:
            gradient = _gradients(drawn, precision, maker)
            if gradient is None:
                continue
            found = ratios(predicted, gradient, exact)
            seen.append(found)
            assert np.max(found.components) <= ROUNDING_FACTOR, predicted.network.describe()
            assert np.max(found.shares, initial=0.0) <= 1.0, predicted.network.describe()
    large = np.concatenate([f.blocks[f.sizes >= 50] for f in seen])
    # ... and σ is about as large as the errors are, or the above would say nothing.
    assert len(seen) > 20
    assert 0.2 < np.median(large) < 1.5


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
def test_ten_times_the_rounding_of_a_block_does_not_pass(activation: str) -> None:
    caught = []
    for seed in range(3):
        drawn = dense(seed, (60, 80, 80, 10), activation=activation)
        predicted = rounding(*network_of(drawn, "float32"), "float32")
        gradient = numpy_gradient(drawn, np.float32)
        found = ratios(predicted, gradient, exact_gradient(drawn, "float32"))
        assert np.max(found.shares) <= 1.0
        caught.extend(noticed(found)[found.sizes >= 500])
    assert len(caught) == 9
    assert np.mean(caught) >= 8 / 9


def test_a_check_sees_ten_times_the_rounding_of_any_large_block() -> None:
    drawn = dense(0, (60, 80, 80, 10), activation="relu")
    network, batch = network_of(drawn, "float32")
    exact = exact_gradient(drawn, "float32")
    right = numpy_gradient(drawn, np.float32).astype(np.float64)

    def check(gradient: Any) -> Report:
        return gradcheck(network, batch.X, batch.T, gradient, precision="float32")

    assert check(right).status == "agree"
    for block in network.order.blocks:
        if block.size >= 500:
            wrong = right.copy()
            wrong[block.slice] += 9.0 * (right - exact)[block.slice]
            report = check(wrong)
            assert report.status == "wrong", block.name
            assert [b.name for b in report.blocks if b.status != "agree"] == [f"d{block.name}"]


@pytest.mark.parametrize("order", ["tiled", "sorted", "shuffled"])
def test_samples_that_occur_often_are_rounded_alike(order: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        drawn = dense(seed, (6, 8, 3), m=4)
        times = {"tiled": np.tile(range(4), 500), "sorted": np.repeat(range(4), 500)}
        rows = times.get(order, rng.integers(4, size=2000))
        drawn = replace(drawn, inputs=drawn.inputs[rows], targets=drawn.targets[rows])
        predicted = rounding(*network_of(drawn, "float32"), "float32")
        found = ratios(
            predicted, numpy_gradient(drawn, np.float32), exact_gradient(drawn, "float32")
        )
        assert np.max(found.shares) <= 0.5
        assert np.max(found.blocks) > 0.05  # nor is everything forgiven


def test_a_plain_loop_over_many_samples_is_not_accused() -> None:
    m, sizes = 150_000, (50, 10)
    drawn = dense(0, sizes, m=m)
    network, batch = network_of(drawn, "float32")
    logits = drawn.inputs @ drawn.weights[0].T + np.asarray(drawn.biases[0])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta = powers / powers.sum(axis=1, keepdims=True) - drawn.targets
    total = np.zeros((1, sizes[1], sizes[0]), np.float32)
    for start in range(0, m, 5000):  # NumPy adds along the first axis one row after the other
        some = slice(start, start + 5000)
        products = delta[some, :, np.newaxis] * drawn.inputs[some, np.newaxis]
        total = np.add.reduce(np.concatenate([total, products]), axis=0, keepdims=True)
    exact_sum = delta.sum(axis=0, dtype=np.float64)  # the biases say nothing of the loop
    given = [total[0] / np.float32(m), (exact_sum / m).astype(np.float32)]
    report = gradcheck(network, batch.X, batch.T, given, precision="float32")
    sigma = rounding(network, batch, "float32").block(network.order.blocks[0])
    assert report.blocks[0].error_norm > MIN_BLOCK_FACTOR * np.linalg.norm(sigma)
    assert report.status == "agree"


def test_no_block_forgives_ten_times_its_sigma() -> None:
    for _, predicted, _ in cases(7, 10, "float32"):
        for block in predicted.network.order.blocks:
            sigma = predicted.block(block)
            errors = BlockErrors(0.0, float(np.linalg.norm(sigma)), float(sigma.max()))
            assert block_rounding(errors) <= BLOCK_CEILING * errors.norm < 10.0 * errors.norm


@pytest.mark.parametrize("precision", PRECISIONS)
def test_block_components_and_vector_agree(precision: str) -> None:
    rng = np.random.default_rng(3)
    for _, predicted, _ in cases(11, 5, precision):
        vector = predicted.vector()
        some = np.sort(rng.integers(vector.size, size=50))
        np.testing.assert_allclose(predicted.at(some), vector[some], rtol=1e-4)
        for block, part in predicted.network.order.views(vector):
            np.testing.assert_array_equal(predicted.block(block), part)


def test_a_component_that_all_but_cancels_is_not_accused() -> None:
    # Two samples pull dW1[0, 0] to either side; what is left is 1e-9 of either.
    network = Network.from_arrays(
        [[[1.0]], [[0.7]]], [[0.1], None], activations=["tanh", "identity"], loss="squared_error"
    )
    x, z = 0.3, 0.7 * math.tanh(0.4)
    batch = network.batch([[x], [x]], [[z - 0.37], [z + 0.37 * (1.0 + 1e-9)]])
    sigma = gradient_rounding(network, batch, "float64")
    slope = 0.7 / math.cosh(0.4) ** 2
    whole = 0.37 * slope * x / 2.0
    assert 1e-17 * whole < sigma[0] < 1e-14 * whole  # of its terms, not of its 1e-9 of them
    assert ROUNDING_FACTOR * sigma[0] > 1e-7 * (1e-9 * whole)


def test_a_unit_on_either_side_of_its_kink_is_not_accused() -> None:
    # z is 2⁻²⁶ before rounding: its float32 sum is 0 in one order, 2⁻²⁶ in another.
    tiny = 2.0**-26
    network = Network.from_arrays(
        [[[1.0, tiny, -1.0]], [[2.0]]], activations=["relu", "identity"], loss="squared_error"
    )
    batch = network.batch([[1.0, 1.0, 1.0]], [[1.0]])
    sigma = gradient_rounding(network, batch, "float32")
    lost = 2.0  # |dW1| with the unit on; it is 0 with the unit off
    assert ROUNDING_FACTOR * sigma[0] > lost
    far = network.batch([[1.0, 1.0, 0.5]], [[1.0]])
    assert ROUNDING_FACTOR * gradient_rounding(network, far, "float32")[0] < 1e-4


def test_a_unit_that_no_input_reaches_is_not_undecided() -> None:
    network = Network.from_arrays(
        [np.ones((3, 4)), np.ones((3, 3)), np.ones((1, 3))],
        activations=["relu", "relu", "identity"],
        loss="squared_error",
    )
    batch = network.batch([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.5, 1.5]], [[1.0], [2.0]])
    gradient = np.abs(numpy_gradient(_as_drawn(network, batch.X, batch.T), np.float64))
    sigma = gradient_rounding(network, batch, "float32")
    assert np.all(sigma <= 1e-5 * gradient)


def _as_drawn(network: Network, X: np.ndarray, T: np.ndarray) -> Drawn:
    return Drawn(
        weights=[np.asarray(w) for w in network.weights],
        biases=[None] * network.depth,
        activations=[a.name for a in network.activations],
        loss=network.loss.name,
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=X,
        targets=T,
        masks=None,
    )


def test_what_underflows_in_float16_is_not_accused() -> None:
    rng = np.random.default_rng(5)
    shift = np.float16(2.0**-11)
    lost = 0
    for _ in range(10):
        drawn = draw(rng, np.float16, [20, 30, 10], 64)
        drawn = _dense_like(drawn, shift)
        exact = exact_gradient(drawn, "float16")
        gradient = numpy_gradient(drawn, np.float16)
        found = ratios(rounding(*network_of(drawn, "float16"), "float16"), gradient, exact)
        lost += int(np.sum((gradient == 0.0) & (exact != 0.0)))
        assert np.max(found.components) <= ROUNDING_FACTOR
    assert lost > 100


def _dense_like(drawn: Drawn, shift: np.float16) -> Drawn:
    """Return a network whose gradients lie at the lower end of float16."""
    rng = np.random.default_rng(drawn.inputs.size)
    weights = [rng.normal(0, 0.2, w.shape).astype(np.float16) for w in drawn.weights]
    return Drawn(
        weights=[weights[0], weights[1] * shift],
        biases=[None, None],
        activations=["tanh", "identity"],
        loss="squared_error",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=drawn.inputs,
        targets=(rng.normal(size=drawn.targets.shape) * 0.05).astype(np.float16),
        masks=None,
    )


def _my_tanh(z: float) -> float:
    return math.tanh(z)


def _my_square(output: float, target: float) -> float:
    return 0.5 * (output - target) ** 2


def test_own_functions_are_judged_like_those_of_the_table() -> None:
    rng = np.random.default_rng(1)
    W = [rng.normal(size=(6, 4)), rng.normal(size=(3, 6))]
    own = Network.from_arrays(W, activations=[_my_tanh, "identity"], loss=_my_square)
    known = Network.from_arrays(W, activations=["tanh", "identity"], loss="squared_error")
    X, T = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    ratio = gradient_rounding(own, own.batch(X, T), "float32") / gradient_rounding(
        known, known.batch(X, T), "float32"
    )
    assert ratio.min() > 0.5
    assert ratio.max() < 6.0


def test_parameters_of_more_digits_than_the_gradient_are_taken_as_rounded() -> None:
    rng = np.random.default_rng(2)
    drawn = dense(0, (60, 80, 80, 10))
    wide = Network.from_arrays(
        [w + 1e-9 * rng.normal(size=w.shape) for w in drawn.weights],
        [np.asarray(b, np.float64) for b in drawn.biases if b is not None],
        activations=drawn.activations,
        loss=drawn.loss,
    )
    exact, batch = network_of(drawn, "float32")
    assert (
        np.median(
            gradient_rounding(wide, batch, "float32") / gradient_rounding(exact, batch, "float32")
        )
        > 1.01
    )


def test_overflow_is_named() -> None:
    network = Network.from_arrays(
        [[[300.0]], [[300.0]]], activations=["identity", "identity"], loss="squared_error"
    )
    batch = network.batch([[1.0]], [[0.0]])
    assert rounding(network, batch, "float16").overflowing == (2,)
    assert rounding(network, batch, "float32").overflowing == ()


def test_the_same_bits_each_time() -> None:
    network, batch = network_of(dense(4, (60, 80, 80, 10)), "float32")
    first, second = (gradient_rounding(network, batch, "float32") for _ in range(2))
    np.testing.assert_array_equal(first, second)
