"""The example that is checked where there is no other: its size, its data, its right gradient."""

import numpy as np
import pytest

from fastcheck.check import gradcheck
from fastcheck.errors import InputError
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.losses import LOSSES
from fastcheck.reference.data import load_digits
from fastcheck.reference.example import Example, make_problem


def test_the_default_is_a_million_parameters_on_digits() -> None:
    problem = make_problem()
    network = problem.network
    assert network.sizes == [64, 1024, 1024, 10]
    assert network.size == 1_126_410
    assert network.describe() == "64-1024-1024-10 relu/identity, softmax_cross_entropy, λ = 0.1"
    images, labels = load_digits()
    X, Y = np.asarray(problem.inputs), np.asarray(problem.targets)
    assert X.shape == (32, 64)
    rows = [int(np.flatnonzero((images == x).all(axis=1))[0]) for x in X]
    assert len(set(rows)) == 32
    np.testing.assert_array_equal(labels[rows], Y)


def test_the_weights_have_hes_variance_and_no_bias_is_zero() -> None:
    network = make_problem().network
    for layer, n_in in enumerate((64, 1024, 1024), start=1):
        assert network.W(layer).std() == pytest.approx(np.sqrt(2 / n_in), rel=0.05)
        biases = network.b(layer)
        assert biases is not None
        assert np.all(biases != 0.0)


def test_the_seed_decides_everything() -> None:
    small = Example(layers=(64, 5, 10), batch=4)
    first, again = make_problem(small), make_problem(small)
    other = make_problem(Example(layers=(64, 5, 10), batch=4, seed=1))
    np.testing.assert_array_equal(first.network.theta, again.network.theta)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.network.theta, other.network.theta)
    assert not np.array_equal(first.inputs, other.inputs)


def test_other_squares_are_the_digits_scaled_and_the_name_says_so() -> None:
    problem = make_problem(Example(layers=(784, 5, 10), batch=4))
    assert problem.name == "an example on 4 handwritten digits, scaled to 28×28"
    wide = np.asarray(problem.inputs).reshape(4, 28, 28)
    narrow = np.asarray(make_problem(Example(layers=(64, 5, 10), batch=4)).inputs)
    images, _ = load_digits()
    corners = wide[:, [0, 27], :][:, :, [0, 27]]
    same = [i for i in images.reshape(-1, 8, 8) if np.array_equal(i[::7, ::7], corners[0])]
    assert same
    assert {*np.unique(wide)} <= {*np.unique(images)}
    assert narrow.shape == (4, 64)


def test_what_is_no_square_gets_random_numbers_and_the_name_says_so() -> None:
    problem = make_problem(Example(layers=(20, 5, 10), batch=4))
    assert "random numbers (20 inputs are no square image)" in problem.name
    assert np.asarray(problem.inputs).std() == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 3, 12])
def test_its_gradient_is_right_for_every_loss(loss: str, outputs: int) -> None:
    problem = make_problem(Example(layers=(16, 6, outputs), activation="tanh", loss=loss, batch=5))
    report = gradcheck(problem.network, problem.inputs, problem.targets, problem.gradient)
    assert report.passed, str(report)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_its_gradient_is_right_for_every_activation(activation: str) -> None:
    problem = make_problem(Example(layers=(16, 6, 6, 4), activation=activation, batch=5))
    report = gradcheck(problem.network, problem.inputs, problem.targets, problem.gradient)
    assert report.passed, str(report)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_lower_precision_is_remembered_and_right(dtype: str) -> None:
    problem = make_problem(Example(layers=(16, 6, 4), batch=5, dtype=dtype))
    assert problem.network.precision == dtype
    report = gradcheck(problem.network, problem.inputs, problem.targets, problem.gradient)
    assert report.passed, str(report)
    assert report.held_to.precision == dtype


def test_more_samples_than_digits_repeat_them() -> None:
    problem = make_problem(Example(layers=(64, 3, 10), batch=1001))
    assert np.asarray(problem.inputs).shape == (1001, 64)
    np.testing.assert_array_equal(
        np.asarray(problem.inputs)[:500], np.asarray(problem.inputs)[500:1000]
    )


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example(layers=(64,)), "layers 64.*at least two sizes"),
        (Example(layers=()), "layers none.*at least two sizes"),
        (Example(layers=(64, 0, 10)), "layers 64-0-10.*each 1 or more"),
        (Example(layers=(64, 10), batch=0), "batch=0.*at least one"),
        (Example(layers=(64, 10), seed=-1), "seed=-1"),
        (Example(layers=(64, 10), dtype="float23"), "dtype='float23'.*Did you mean"),
        (Example(layers=(64, 5, 10), activation="rleu"), "unknown activation 'rleu'"),
        (Example(layers=(64, 10), l2=-1.0), "l2=-1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(example: Example, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_problem(example)
