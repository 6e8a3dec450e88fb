"""No right gradient of a nasty network is accused, whatever the precision and the formula."""

import functools
import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fastcheck import Network, gradcheck
from tests.rounding import nasty, plain

PRECISIONS: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
COUNT = 25
QUIET = functools.partial(np.errstate, all="ignore")


def network_of(problem: plain.Problem, dtype: Any) -> Network:
    """Return fastcheck's network, its arrays of a dtype (bfloat16 as float32)."""
    kept = np.float32 if np.dtype(dtype).name == "bfloat16" else dtype
    weights, biases = (
        [a.astype(kept) for a in arrays] for arrays in (problem.weights, problem.biases)
    )
    return Network.from_arrays(
        weights, biases, activations=problem.activations, loss=problem.loss, l2=problem.l2
    )


def status_of(
    problem: plain.Problem, given: list[Any], precision: str, *, wide: bool = False
) -> str:
    """Return what a check of a gradient in a precision says."""
    network = network_of(problem, np.float64 if wide else PRECISIONS[precision])
    arrays = [a.astype(np.float64) for a in given]
    report = gradcheck(network, problem.inputs, problem.targets, arrays, precision=precision)
    return report.status


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_right_gradient_is_accused(precision: str) -> None:
    dtype, finite = PRECISIONS[precision], 0
    for seed in range(COUNT):
        rng = np.random.default_rng([seed, 20261121])
        style, wide = nasty.styles(rng), rng.random() < 0.15
        problem = nasty.nasty(rng, dtype, nasty.WORK[style.product] / 100, wide=wide)
        with QUIET():
            given = plain.gradient(problem, dtype, style)
        if not all(np.isfinite(a.astype(np.float64)).all() for a in given):
            continue
        finite += 1
        assert status_of(problem, given, precision, wide=wide) != "wrong", (seed, problem, style)
    assert finite > 0.8 * COUNT


def dense(
    rng: np.random.Generator, m: int, sizes: list[int], activation: str, **changes: Any
) -> plain.Problem:
    """Return an everyday network in float16, with some fields replaced."""
    labels = rng.integers(sizes[-1], size=m)
    problem = plain.Problem(
        weights=[
            nasty.held(rng.normal(0, 1.4 / np.sqrt(n), (k, n)), np.float16)
            for n, k in itertools.pairwise(sizes)
        ],
        biases=[nasty.held(rng.normal(0, 0.3, k), np.float16) for k in sizes[1:]],
        activations=[*[activation for _ in sizes[2:]], "identity"],
        loss="softmax_cross_entropy",
        l2=0.0,
        inputs=nasty.held(rng.normal(size=(m, sizes[0])), np.float16),
        targets=np.eye(sizes[-1])[labels],
    )
    return problem._replace(**changes)


@pytest.mark.parametrize("m", [480, 481, 1000, 3000])
@pytest.mark.parametrize("kind", ["zero", "constant", "zero first layer", "equal inputs", "dead"])
@pytest.mark.parametrize("product", ["library", "loop"])
def test_equal_values_are_rounded_alike(m: int, kind: str, product: str) -> None:
    for seed, activation in enumerate(("tanh", "sigmoid", "relu", "softplus", "elu")):
        rng = np.random.default_rng(seed)
        problem = dense(rng, m, [20, 30, 10], activation)
        weights, biases, inputs = problem.weights, problem.biases, problem.inputs
        if kind in ("zero", "constant"):
            weights = [np.full_like(W, 0.0 if kind == "zero" else 0.0625) for W in weights]
        if kind == "zero first layer":
            weights = [0.0 * weights[0], weights[1]]
        if kind == "equal inputs":
            inputs = np.repeat(inputs[:1], m, axis=0)
        if kind == "dead":
            biases = [biases[0] - 30.0, biases[1]]
        problem = problem._replace(weights=weights, biases=biases, inputs=inputs)
        given = plain.gradient(problem, np.float32, plain.Style(product, "sum"))
        assert status_of(problem, given, "float32") == "agree"


@pytest.mark.parametrize("activation", plain.FORMULAS)
@pytest.mark.parametrize("bias", [-11.5, -6.0, 0.0, 9.0])
def test_no_common_formula_is_accused_in_float16(activation: str, bias: float) -> None:
    formulas = plain.FORMULAS[activation]
    rng = np.random.default_rng(3)
    problem = dense(rng, 50, [10, 40, 5], activation)
    problem = problem._replace(biases=[problem.biases[0] + bias, problem.biases[1]])
    for k, formula in enumerate(formulas):
        style = plain.Style("library", "sum", {activation: k})
        with QUIET():
            given = plain.gradient(problem, np.float16, style)
        if all(np.isfinite(a).all() for a in given):
            assert status_of(problem, given, "float16") != "wrong", formula[0]


@pytest.mark.parametrize("product", plain.PRODUCTS)
@pytest.mark.parametrize("sizes", [[300, 200, 10], [600, 5], [20, 300, 300, 3]])
def test_no_order_of_summation_is_accused_in_float16(product: str, sizes: list[int]) -> None:
    for total in plain.TOTALS:
        problem = dense(np.random.default_rng(len(sizes)), 100, sizes, "tanh")
        given = plain.gradient(problem, np.float16, plain.Style(product, total))
        assert status_of(problem, given, "float16") != "wrong", total


@pytest.mark.parametrize("name", ["one block", "one component"])
def test_loops_are_no_excuse_for_a_wrong_block(name: str) -> None:
    problem = dense(np.random.default_rng(0), 100, [300, 200, 200, 10], "tanh")
    given = plain.gradient(problem, np.float16, plain.Style("library", "ones"))
    exact = plain.gradient(problem, np.float64, plain.Style("library", "sum"))
    right = [a.astype(np.float64) for a in given]
    assert status_of(problem, right, "float16") == "agree"
    if name == "one block":
        right[2] += 10.0 * (right[2] - exact[2])
    else:
        right[2][3, 5] += 100.0 * np.std(right[2] - exact[2])
    assert status_of(problem, right, "float16") == "wrong"


def test_weights_that_are_lost_when_cast_are_not_accused() -> None:
    for seed in range(5):
        problem = dense(np.random.default_rng(seed), 100, [10, 20, 5], "tanh")
        problem = problem._replace(weights=[problem.weights[0], 1e-8 * problem.weights[1]])
        given = plain.gradient(problem, np.float16, plain.Style("library", "sum"))
        assert not given[0].any()  # what comes back through the lost weights
        assert status_of(problem, given, "float16", wide=True) != "wrong"


def test_swish_of_raw_inputs_is_not_accused() -> None:
    for k, formula in enumerate(plain.FORMULAS["silu"]):
        problem = dense(np.random.default_rng(1), 50, [5, 20, 3], "silu", loss="huber")
        problem = problem._replace(inputs=np.float32(1e7) * problem.inputs)
        with QUIET():
            given = plain.gradient(problem, np.float32, plain.Style("library", "sum", {"silu": k}))
        assert status_of(problem, given, "float32") != "wrong", formula[0]
