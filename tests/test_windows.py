"""Batches whose trace has no room in the memory: the same numbers, some samples at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, gradcheck, numerical_gradient
from fastcheck.kernels import forward
from fastcheck.methods.unit.windows import ARRAYS_OF_UNITS, WindowedUnitMethod, prepare
from fastcheck.model.cost import cost_parts
from fastcheck.reference import backprop
from fastcheck.settings import Settings

M, SIZES = 23, [6, 9, 8, 4]
SAMPLE_BYTES = 8.0 * ARRAYS_OF_UNITS * sum(SIZES[1:])
FIVE_AT_A_TIME = 4 * 5 * SAMPLE_BYTES  # four workers' windows have room


def problem(activation: Any, **options: Any) -> tuple[Network, Any, Any]:
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(n, k)) for k, n in pairwise(SIZES)]
    biases = [0.1 * rng.normal(size=n) for n in SIZES[1:]]
    X = rng.normal(size=(M, SIZES[0]))
    X[::4] = 0.0
    biases[0][:3] = 0.0  # on a kink, in several windows
    network = Network.from_arrays(
        weights, biases, activations=activation, loss="softmax_cross_entropy", **options
    )
    return network, X, rng.integers(0, SIZES[-1], M)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"l2": 0.3}, {"l2": 0.3, "penalty": "l2/2", "reduction": "sum"}], ids=str
)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "leaky_relu", np.sin], ids=str)
def test_windows_give_the_same_differences(activation: Any, options: Any, jobs: int) -> None:
    network, X, T = problem(activation, **options)
    for more in ({}, {"epsilon": 1e-3}, {"sample": 40}):
        whole = numerical_gradient(network, X, T, jobs=jobs, **more)
        parts = numerical_gradient(network, X, T, jobs=jobs, memory=FIVE_AT_A_TIME, **more)
        largest = np.nanmax(np.abs(whole))
        own = 1e-8 if callable(activation) else 1e-13
        np.testing.assert_allclose(parts, whole, rtol=0, atol=own * largest)


def test_the_batch_is_cut_and_the_bits_depend_on_no_worker() -> None:
    network, X, T = problem("tanh")
    method = prepare(network, network.batch(X, T), None, Settings.of(memory=FIVE_AT_A_TIME))
    assert isinstance(method, WindowedUnitMethod)
    assert [last - first for first, last in method.chunks] == [5, 5, 5, 5, 3]
    found = [
        numerical_gradient(network, X, T, memory=FIVE_AT_A_TIME, **way)
        for way in ({"jobs": 1}, {"jobs": 3}, {"jobs": 2, "backend": "loky"})
    ]
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_windows_have_their_rows_of_the_dropout_masks() -> None:
    rng = np.random.default_rng(4)
    masks = [rng.integers(0, 2, (M, n)).astype(float) for n in SIZES[1:3]]
    network, X, T = problem("tanh", dropout_masks=[*masks, None], keep_prob=0.5)
    whole = numerical_gradient(network, X, T)
    parts = numerical_gradient(network, X, T, memory=FIVE_AT_A_TIME)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


@pytest.mark.parametrize("at_kink", [0.0, 0.5, 1.0])
def test_every_convention_on_kinks_is_right_and_a_wrong_gradient_is_not(at_kink: float) -> None:
    network, X, T = problem("relu", l2=0.1)
    A, slopes = [X], []
    for layer in range(1, 4):
        biases = network.b(layer)
        assert biases is not None
        Z = A[-1] @ network.W(layer).T + biases
        slopes.append(np.where(Z == 0.0, at_kink, Z > 0.0) if layer < 3 else np.ones_like(Z))
        A.append(np.maximum(Z, 0.0) if layer < 3 else Z)
    assert (slopes[0] == at_kink).any()
    P = np.exp(A[-1])
    dZ, gradient = (P / P.sum(axis=1, keepdims=True) - np.eye(4)[T]) / M, {}
    for layer in (3, 2, 1):
        gradient[f"dW{layer}"] = dZ.T @ A[layer - 1] + 0.1 / M * network.W(layer)
        gradient[f"db{layer}"] = dZ.sum(axis=0)
        if layer > 1:
            dZ = (dZ @ network.W(layer)) * slopes[layer - 2]
    assert gradcheck(network, X, T, gradient, memory=FIVE_AT_A_TIME).status == "agree"
    gradient["dW2"][3, 1] *= 1.001
    report = gradcheck(network, X, T, gradient, memory=FIVE_AT_A_TIME)
    assert report.status == "wrong"
    assert [block.name for block in report.blocks if block.status == "wrong"] == ["dW2"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_gradient_in_less_precision_is_judged_without_the_trace(dtype: str) -> None:
    network, X, T = problem("tanh")
    given = backprop.backward_pass(network, X, T)
    lower = {name: value.astype(dtype) for name, value in given.items()}
    assert gradcheck(network, X, T, lower, memory=FIVE_AT_A_TIME).status == "agree"
    lower["dW2"][3] *= np.array(1.5, dtype)
    assert gradcheck(network, X, T, lower, memory=FIVE_AT_A_TIME).status == "wrong"


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_elements"])
def test_the_reference_and_the_cost_take_some_samples_at_a_time(
    reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, X, T = problem("gelu", l2=0.2, reduction=reduction)
    batch = network.batch(X, T)
    whole, cost = backprop.backward_pass(network, X, T), cost_parts(network, batch)
    for module in (forward, backprop):
        monkeypatch.setattr(module, "TRACE_NUMBERS", 7 * sum(SIZES[1:]))
    parts, other = backprop.backward_pass(network, X, T), cost_parts(network, batch)
    assert (other.data, other.penalty) == pytest.approx((cost.data, cost.penalty), rel=1e-14)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=1e-15 * np.abs(value).max() * 8)
