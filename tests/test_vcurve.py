"""The V curve: it is a V for the textbook, stays down for the unit method, and is repeatable."""

import numpy as np
import pytest

from fastcheck.methods.epsilon_sweep import v_curve
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import gradients
from fastcheck.reference.example import Example, make_problem
from fastcheck.settings import Settings


@pytest.fixture(scope="module")
def task() -> tuple[Network, Batch, np.ndarray]:
    problem = make_problem(Example(layers=(16, 12, 5), activation="tanh", batch=8))
    batch = problem.network.batch(problem.inputs, problem.targets)
    return problem.network, batch, gradients(problem.network, batch)


def test_the_textbook_draws_a_v_and_the_unit_method_stays_down(
    task: tuple[Network, Batch, np.ndarray],
) -> None:
    curves = {c.method: c for c in v_curve(*task, Settings()).curves}
    textbook, unit = (dict(zip(c.epsilons, c.differences, strict=True)) for c in (
        curves["textbook"], curves["unit"]))  # fmt: skip
    assert textbook[1e-12] > 100 * textbook[1e-5] < textbook[1e-3]
    assert unit[1e-12] < 1e-13 < textbook[1e-7]
    assert unit[1e-3] == pytest.approx(textbook[1e-3], rel=1e-3)


def test_wrong_components_do_not_hide_the_v(task: tuple[Network, Batch, np.ndarray]) -> None:
    network, batch, gradient = task
    wrong = gradient.copy()
    wrong[: network.order.weights(1).stop] *= 2.0
    curve = v_curve(network, batch, wrong, Settings(), (1e-7,))
    assert all(c.differences[0] < 1e-6 for c in curve.curves)
    everywhere = v_curve(network, batch, 2.0 * gradient, Settings(), (1e-7,))
    assert all(c.differences[0] == pytest.approx(1 / 3) for c in everywhere.curves)


def test_an_epsilon_that_is_lost_beside_theta_is_left_out(
    task: tuple[Network, Batch, np.ndarray],
) -> None:
    curves = v_curve(*task, Settings(epsilon=1e-18)).curves
    assert {c.method: 1e-18 in c.epsilons for c in curves}["textbook"] is False


def test_the_same_check_draws_the_same_curve(task: tuple[Network, Batch, np.ndarray]) -> None:
    assert v_curve(*task, Settings(jobs=1)) == v_curve(*task, Settings(jobs=2))
