"""The two oracles and the backward pass are right: held against each other and closed forms."""

import ast
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from tests import networks, oracle, oracle_mpmath
from tests.networks import Drawn
from tests.oracle import Array, Named

ACTIVATION_IDS = [str(named) for named in networks.ACTIVATIONS]
LOSS_IDS = [str(named) for named in networks.LOSSES]

# phi(1) and phi(-1), by PyTorch in float64
KNOWN_VALUES = {
    "identity": (1.0, -1.0),
    "relu": (1.0, 0.0),
    "leaky_relu": (1.0, -0.01),
    "elu": (1.0, -0.6321205588285577),
    "selu": (1.0507009873554805, -1.1113307378125628),
    "softplus": (1.3132616875182228, 0.3132616875182228),
    "sigmoid": (0.7310585786300049, 0.2689414213699951),
    "tanh": (0.7615941559557649, -0.7615941559557649),
    "hardtanh": (1.0, -1.0),
    "relu6": (1.0, 0.0),
    "silu": (0.7310585786300049, -0.2689414213699951),
    "gelu": (0.8413447460685429, -0.15865525393145707),
    "gelu_tanh": (0.8411919906082768, -0.15880800939172324),
    "softsign": (0.5, -0.5),
    "mish": (0.8650983882673103, -0.30340146137410895),
}


def single(
    weight: float,
    bias: float,
    *,
    activation: Named = "identity",
    loss: Named = "squared_error",
    target: float = 0.0,
    l2: float = 0.0,
) -> Drawn:
    """Return the network of one unit and one sample with input 1."""
    return Drawn(
        weights=[np.array([[weight]])],
        biases=[np.array([bias])],
        activations=[activation],
        loss=loss,
        l2=l2,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.array([[1.0]]),
        targets=np.array([[target]]),
        masks=None,
    )


def exact_gradient(drawn: Drawn, epsilon: float = 1e-7) -> Array:
    return np.array([float(v) for v in oracle_mpmath.central_differences(drawn, epsilon)])


def backprop_theta(drawn: Drawn) -> Array:
    return oracle.pack(*oracle.backprop(*drawn.arrays, **drawn.conventions))


def converted(drawn: Drawn, dtype: npt.DTypeLike) -> Drawn:
    """Return the problem with every array in another dtype."""

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(v) for v in value]
        return value.astype(dtype) if isinstance(value, np.ndarray) else value

    return Drawn(**{f.name: convert(getattr(drawn, f.name)) for f in fields(drawn)})


# --- against each other ----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(networks.problems())
def test_both_oracles_give_the_same_cost(drawn: Drawn) -> None:
    plain = oracle.cost(*drawn.arrays, **drawn.conventions)
    assert plain == pytest.approx(float(oracle_mpmath.cost(drawn)), rel=1e-13, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(networks.problems(max_width=4))
def test_backprop_is_the_limit_of_exact_central_differences(drawn: Drawn) -> None:
    np.testing.assert_allclose(
        backprop_theta(drawn), exact_gradient(drawn, 1e-10), rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("activation", networks.ACTIVATIONS, ids=ACTIVATION_IDS)
def test_backprop_knows_every_activation(activation: Named) -> None:
    for seed in range(3):
        drawn = networks.random_problem(
            np.random.default_rng(seed), activations=activation, depth=3, max_width=4, scale=2.0
        )
        np.testing.assert_allclose(
            backprop_theta(drawn), exact_gradient(drawn, 1e-10), rtol=1e-11, atol=1e-13
        )


@pytest.mark.parametrize("loss", networks.LOSSES, ids=LOSS_IDS)
def test_backprop_knows_every_loss(loss: Named) -> None:
    for seed in range(3):
        drawn = networks.random_problem(np.random.default_rng(seed), loss=loss, scale=2.0)
        np.testing.assert_allclose(
            backprop_theta(drawn), exact_gradient(drawn, 1e-10), rtol=1e-11, atol=1e-13
        )


@settings(max_examples=30, deadline=None)
@given(networks.problems(max_width=4))
def test_textbook_central_differences_are_the_exact_ones_within_the_rounding_of_the_cost(
    drawn: Drawn,
) -> None:
    cost_of_theta = oracle.cost_of_theta(*drawn.arrays, **drawn.conventions)
    theta = oracle.pack(drawn.weights, drawn.biases)
    floor = 1e-14 * (1 + abs(cost_of_theta(theta))) / 1e-7  # rounding of J and of theta +- epsilon
    textbook = oracle.central_differences(cost_of_theta, theta)
    np.testing.assert_allclose(textbook, exact_gradient(drawn), rtol=1e-8, atol=floor)


def test_central_differences_of_chosen_components_come_in_their_order() -> None:
    drawn = networks.random_problem(np.random.default_rng(5), depth=2)
    cost_of_theta = oracle.cost_of_theta(*drawn.arrays, **drawn.conventions)
    theta = oracle.pack(drawn.weights, drawn.biases)
    every = oracle.central_differences(cost_of_theta, theta, 1e-5)
    some = oracle.central_differences(cost_of_theta, theta, 1e-5, indices=[3, 0, 2])
    np.testing.assert_array_equal(some, every[[3, 0, 2]])
    exact = oracle_mpmath.central_differences(drawn, 1e-5, [3, 0])
    assert exact == [oracle_mpmath.central_difference(drawn, i, 1e-5) for i in (3, 0)]


# --- against closed forms --------------------------------------------------------------------


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activations_have_their_known_values(name: str) -> None:
    z = np.array([1.0, -1.0])
    plain = oracle.ACTIVATIONS[name][0](z, oracle.split(name)[1])
    np.testing.assert_allclose(plain, KNOWN_VALUES[name], rtol=1e-15)
    parameter = oracle_mpmath.split(name)[1]
    exact = [float(oracle_mpmath.ACTIVATIONS[name](mpmath.mpf(v), parameter)) for v in z]
    np.testing.assert_allclose(exact, KNOWN_VALUES[name], rtol=1e-15)


@pytest.mark.parametrize(("name", "bounds"), [("hardtanh", (-1, 1)), ("relu6", (0, 6))])
def test_bounded_activations_are_the_identity_between_their_bounds(
    name: str, bounds: tuple[float, float]
) -> None:
    z = np.linspace(-8, 8, 33)
    value, slope = (function(z, 0.0) for function in oracle.ACTIVATIONS[name])
    np.testing.assert_array_equal(value, np.clip(z, *bounds))
    np.testing.assert_array_equal(slope, (bounds[0] < z) & (z < bounds[1]))
    exact = [float(oracle_mpmath.ACTIVATIONS[name](mpmath.mpf(v), None)) for v in z]
    np.testing.assert_array_equal(exact, value)


def test_linear_regression_has_its_closed_gradient() -> None:
    drawn = networks.random_problem(
        np.random.default_rng(1), activations=["identity"], loss="squared_error"
    )
    (weight,), inputs, m = drawn.weights, drawn.inputs, len(drawn.inputs)
    bias = np.linspace(-1, 1, len(weight))
    drawn = replace(drawn, biases=[bias], l2=0.5, penalty="l2/2m", reduction="mean")
    residuals = inputs @ weight.T + bias - drawn.targets
    (d_weight,), (d_bias,) = oracle.backprop(*drawn.arrays, **drawn.conventions)
    assert d_bias is not None
    np.testing.assert_allclose(d_weight, residuals.T @ inputs / m + 0.5 / m * weight, rtol=1e-13)
    np.testing.assert_allclose(d_bias, residuals.mean(axis=0), rtol=1e-13)


def test_softmax_of_equal_logits_costs_log_k_and_its_gradient_is_known() -> None:
    inputs, targets = np.random.default_rng(2).normal(size=(4, 3)), np.eye(4)
    arrays = [np.zeros((4, 3))], [np.zeros(4)], inputs, targets
    conventions: dict[str, Any] = {"activations": ["identity"], "loss": "softmax_cross_entropy"}
    assert oracle.cost(*arrays, **conventions) == pytest.approx(math.log(4), rel=1e-15)
    (d_weight,), _ = oracle.backprop(*arrays, **conventions)
    np.testing.assert_allclose(d_weight, (0.25 - targets).T @ inputs / 4, rtol=1e-13, atol=1e-16)


def test_targets_of_softmax_need_not_sum_to_one() -> None:
    drawn = networks.random_problem(
        np.random.default_rng(6), loss="softmax_cross_entropy", max_width=4
    )
    weighted = drawn.targets * np.linspace(0.5, 3, len(drawn.targets))[:, None] + 0.25
    drawn = replace(drawn, targets=weighted)
    plain = oracle.cost(*drawn.arrays, **drawn.conventions)
    assert plain == pytest.approx(float(oracle_mpmath.cost(drawn)), rel=1e-13)
    np.testing.assert_allclose(
        backprop_theta(drawn), exact_gradient(drawn, 1e-10), rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0.5, 20.0])
def test_the_central_difference_of_softplus_at_zero_is_a_half_at_every_epsilon(
    epsilon: float,
) -> None:
    drawn = single(0.0, 0.0, loss="sigmoid_cross_entropy")
    assert abs(oracle_mpmath.central_difference(drawn, 0, epsilon) - 0.5) < 1e-50


@pytest.mark.parametrize("epsilon", [1e-7, 0.5, 20.0])
def test_the_central_difference_of_a_square_is_its_slope_at_every_epsilon(epsilon: float) -> None:
    drawn = single(0.75, -0.25, target=2.0, l2=0.5)
    assert abs(oracle_mpmath.central_difference(drawn, 0, epsilon) - (-1.5 + 0.375)) < 1e-50
    assert abs(oracle_mpmath.central_difference(drawn, 1, epsilon) + 1.5) < 1e-50


def test_one_sided_slopes_differ_at_a_kink_and_enclose_the_central_difference() -> None:
    drawn, epsilon = single(1.0, -1.0, activation="relu", target=-1.0), 2.0**-20
    forward, backward = oracle_mpmath.one_sided_slopes(drawn, 1, epsilon)
    assert (forward, backward) == (1 + epsilon / 2, 0)  # J is (relu(z) + 1)^2 / 2 at z = 0
    assert oracle_mpmath.central_difference(drawn, 1, epsilon) == (forward + backward) / 2


@pytest.mark.parametrize("loss", networks.LOSSES, ids=LOSS_IDS)
def test_reductions_differ_by_their_factor(loss: Named) -> None:
    drawn = networks.random_problem(np.random.default_rng(3), loss=loss)
    drawn = replace(drawn, l2=0.0)
    m, n = drawn.targets.shape
    costs = {
        reduction: oracle.cost(*drawn.arrays, **{**drawn.conventions, "reduction": reduction})
        for reduction in networks.REDUCTIONS
    }
    assert costs["sum"] == pytest.approx(m * costs["mean"], rel=1e-14)
    assert costs["sum"] == pytest.approx(m * n * costs["mean_elements"], rel=1e-14)


@pytest.mark.parametrize(
    ("penalty", "factor"), [("l2/2m", 0.5 / 4), ("l2/2", 0.5), ("l2/m", 1 / 4), ("l2", 1.0)]
)
def test_the_penalty_is_on_weights_and_never_on_biases(penalty: str, factor: float) -> None:
    weights, biases = [np.array([[3.0, 4.0]])], [np.array([7.0])]
    inputs, targets = np.zeros((4, 2)), np.full((4, 1), 7.0)
    cost = oracle.cost(
        weights,
        biases,
        inputs,
        targets,
        activations=["identity"],
        loss="squared_error",
        l2=0.1,
        penalty=penalty,
    )
    assert cost == pytest.approx(0.1 * factor * 25, rel=1e-14)


def test_huber_is_a_parabola_inside_delta_and_a_line_outside() -> None:
    def cost(target: float) -> Any:
        return oracle_mpmath.cost(single(0.0, 0.0, loss=("huber", 0.5), target=target))

    assert [cost(0.25), cost(0.5), cost(-2.0)] == [0.25**2 / 2, 0.5**2 / 2, 0.5 * (2 - 0.25)]


def test_a_unit_that_is_masked_out_does_not_move_the_cost() -> None:
    drawn = networks.random_problem(np.random.default_rng(4), activations="tanh", depth=2)
    mask = np.ones((len(drawn.inputs), drawn.widths[1]))
    mask[:, 0] = 0
    drawn = replace(drawn, masks=[mask, None], l2=0.0)
    (d_weight, _), _ = oracle.backprop(*drawn.arrays, **drawn.conventions)
    assert not d_weight[0].any()
    assert not exact_gradient(drawn)[: drawn.widths[0]].any()


# --- theta, dtypes, draws --------------------------------------------------------------------


def test_theta_is_weights_and_biases_in_row_order_without_the_missing() -> None:
    weights, biases = [np.array([[1.0, 2], [3, 4]]), np.array([[7.0, 8]])], [np.array([5.0, 6])]
    np.testing.assert_array_equal(oracle.pack(weights, [*biases, None]), range(1, 9))
    np.testing.assert_array_equal(oracle.pack(weights, None), [1, 2, 3, 4, 7, 8])
    again = oracle.unpack(np.arange(8.0), weights, [*biases, None])
    np.testing.assert_array_equal(again[0][0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(again[1][0], [4, 5])
    np.testing.assert_array_equal(again[0][1], [[6, 7]])
    assert again[1][1] is None


def test_the_relative_difference_is_zero_for_zeros_and_one_for_opposites() -> None:
    assert oracle.relative_difference(np.zeros(3), np.zeros(3)) == 0
    assert oracle.relative_difference(np.ones(3), -np.ones(3)) == 1
    assert oracle.relative_difference(np.array([3.0, 4]), np.array([3.0, 0])) == 0.5


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 3e-2)])
@pytest.mark.parametrize("activation", networks.ACTIVATIONS, ids=ACTIVATION_IDS)
def test_backprop_stays_in_the_dtype_of_its_arrays(
    activation: Named, dtype: npt.DTypeLike, tolerance: float
) -> None:
    for seed, loss in enumerate(networks.LOSSES):
        rng = np.random.default_rng(seed)
        drawn = networks.random_problem(
            rng, activations=activation, loss=loss, depth=3, dtype=dtype
        )
        d_weights, d_biases = oracle.backprop(*drawn.arrays, **drawn.conventions)
        assert {g.dtype for g in (*d_weights, *d_biases) if g is not None} == {np.dtype(dtype)}
        outputs, logits = oracle.trace(
            drawn.weights, drawn.biases, drawn.activations, drawn.inputs, drawn.masks
        )
        assert {a.dtype for a in (*outputs, *logits)} == {np.dtype(dtype)}
        wide = backprop_theta(converted(drawn, np.float64))
        assert oracle.relative_difference(oracle.pack(d_weights, d_biases), wide) < tolerance


@settings(max_examples=50, deadline=None)
@given(networks.problems())
def test_a_drawn_problem_fits_together(drawn: Drawn) -> None:
    widths, m = drawn.widths, len(drawn.inputs)
    assert [w.shape for w in drawn.weights] == list(zip(widths[1:], widths, strict=False))
    assert all(b is None or b.shape == (n,) for b, n in zip(drawn.biases, widths[1:], strict=True))
    assert drawn.targets.shape == (m, widths[-1])
    assert len(drawn.activations) == len(drawn.weights)
    outputs = oracle.forward(
        drawn.weights, drawn.biases, drawn.activations, drawn.inputs, drawn.masks
    )
    assert np.isfinite(outputs).all()


def test_the_same_seed_draws_the_same_problem() -> None:
    one, other = (networks.random_problem(np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_equal(vars(one), vars(other))


def test_networks_name_every_activation_and_every_loss() -> None:
    for names, plain, exact in (
        (networks.ACTIVATIONS, oracle.ACTIVATIONS, oracle_mpmath.ACTIVATIONS),
        (networks.LOSSES, oracle.LOSSES, oracle_mpmath.LOSSES),
    ):
        assert {oracle.split(named)[0] for named in names} == set(plain) == set(exact)


@pytest.mark.parametrize("name", ["oracle", "oracle_mpmath", "networks"])
def test_the_oracles_import_nothing_of_fastcheck(name: str) -> None:
    path = Path(__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("fastcheck") for name in imported)


# --- single differences ----------------------------------------------------------------------


def assert_equal_to_20_digits(value: Any, expected: Any) -> None:
    with mpmath.workdps(50):
        assert abs(value - expected) <= mpmath.mpf(10) ** -20 * abs(expected)


TAILS = {  # phi'(z) far out, to more digits than are asked for
    ("sigmoid", -700.0): mpmath.exp,
    ("sigmoid", 700.0): lambda z: mpmath.exp(-z),
    ("softplus", -700.0): mpmath.exp,
    ("tanh", -700.0): lambda z: 4 * mpmath.exp(2 * z),
    ("tanh", 700.0): lambda z: 4 * mpmath.exp(-2 * z),
    ("elu", -700.0): mpmath.exp,
    ("silu", -700.0): lambda z: (1 + z) * mpmath.exp(z),
    ("mish", -700.0): lambda z: (1 + z) * mpmath.exp(z),
    ("gelu", -37.0): lambda z: mpmath.ncdf(z) + z * mpmath.npdf(z),
    ("gelu", 700.0): lambda z: mpmath.mpf(1),
    ("softsign", 700.0): lambda z: 1 / (1 + z) ** 2,
}


@pytest.mark.parametrize(("name", "z"), TAILS)
@pytest.mark.parametrize("d", [1e-300, -1e-150])
def test_a_tiny_difference_far_out_is_the_slope_times_the_step(
    name: str, z: float, d: float
) -> None:
    with mpmath.workdps(50):
        expected = TAILS[name, z](mpmath.mpf(z)) * mpmath.mpf(d)
    assert_equal_to_20_digits(oracle_mpmath.activation_difference(name, None, z, d), expected)


@pytest.mark.parametrize("name", oracle_mpmath.ACTIVATIONS)
@pytest.mark.parametrize("z", [-700.0, -0.3, -1e-300, 0.0, 1e-20, 1.0, 700.0])
def test_more_digits_do_not_change_an_activation_difference(name: str, z: float) -> None:
    for d in (1e-300, -1e-7, 3.0):
        value = oracle_mpmath.activation_difference(name, None, z, d)
        more = oracle_mpmath.activation_difference(name, None, z, d, extra_digits=211)
        assert_equal_to_20_digits(value, more)


def test_piecewise_linear_differences_are_exact_across_a_kink() -> None:
    def difference(name: str, parameter: float | None, z: float, d: float) -> float:
        return float(oracle_mpmath.activation_difference(name, parameter, z, d))

    assert difference("relu", None, -1e-7, 3e-7) == 3e-7 - 1e-7
    assert difference("leaky_relu", 0.25, -1.0, 3.0) == 2.25
    assert difference("hardtanh", None, -3.0, 7.0) == 2
    assert difference("relu6", None, 5.0, 1e9) == 1
    assert difference("relu", None, -700.0, 1e-300) == 0


@pytest.mark.parametrize("name", oracle_mpmath.LOSSES)
def test_more_digits_do_not_change_a_loss_difference(name: str) -> None:
    for z in ([1.0, -1.0, 0.3], [700.0, -700.0, 20.0]):
        for d in ([1e-300, 0.0, 0.0], [0.0, 1e-7, -1e-7], [2.0, 1.0, 0.0]):
            value = oracle_mpmath.loss_difference(name, None, z, d, [0.0, 1.0, 0.0])
            more = oracle_mpmath.loss_difference(
                name, None, z, d, [0.0, 1.0, 0.0], extra_digits=211
            )
            assert_equal_to_20_digits(value, more)


def test_loss_differences_have_their_closed_forms() -> None:
    def difference(name: str, z: list[float], d: list[float], t: list[float]) -> Any:
        return oracle_mpmath.loss_difference(name, None, z, d, t)

    with mpmath.workdps(50):
        d = mpmath.mpf(1e-300)
        saturated = mpmath.exp(-1400) * d
        far_logistic = mpmath.exp(-700) * d
    assert_equal_to_20_digits(
        difference("softmax_cross_entropy", [700.0, -700.0], [0.0, 1e-300], [1.0, 0.0]), saturated
    )
    assert_equal_to_20_digits(
        difference("sigmoid_cross_entropy", [-700.0], [1e-300], [0.0]), far_logistic
    )
    assert difference("squared_error", [3.0], [0.5], [1.0]) == 0.5 * (2 * 2 + 0.5) / 2
    assert difference("mean_squared_error", [1.0, 5.0], [2.0, 0.0], [1.0, 0.0]) == 2
    assert difference("huber", [5.0], [0.5], [0.0]) == 0.5


def test_the_same_shift_of_all_logits_changes_nothing() -> None:
    change = oracle_mpmath.loss_difference(
        "softmax_cross_entropy", None, [0.3, -2.0, 5.0], [1e-3] * 3, [0.0, 1.0, 0.0]
    )
    assert change == 0


@pytest.mark.parametrize("z", [0.3, 1.0, 20.0])
def test_a_change_of_sign_changes_nothing_where_the_logistic_loss_is_even(z: float) -> None:
    loss_difference = oracle_mpmath.loss_difference
    assert loss_difference("sigmoid_cross_entropy", None, [z], [-2 * z], [0.5]) == 0
