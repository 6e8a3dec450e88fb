"""Any J(θ): its noise, its form, and what makes it depend on more than θ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastcheck import gradcheck_function
from fastcheck.errors import InputError
from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import measure_noise, scales_of
from fastcheck.model.parameter_tree import ParameterTree

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 6))
A = A + A.T
X = RNG.normal(size=6)


def quadratic(x: Any) -> float:
    return float(0.5 * x @ A @ x)


def single(x: Any) -> float:
    narrow = np.asarray(x, np.float32)
    return float(np.float32(0.5) * (narrow @ A.astype(np.float32) @ narrow))


NOISY: dict[str, tuple[Callable[[Any], float], float, float]] = {
    "float64": (quadratic, 1e-16, 1e-14),
    "float32 as float": (single, 3e-8, 3e-6),
    "rounded": (lambda x: round(quadratic(x), 6), 1e-7, 1e-6),
    "a kink at θ": (lambda x: quadratic(x) + float(np.abs(x - X).sum()), 1e-16, 1e-13),
}


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_measured_whatever_f_returns(name: str) -> None:
    f, low, high = NOISY[name]
    tree, vector, _ = ParameterTree.of(X)
    box = BlackBox(f, tree, vector)
    assert low < measure_noise(box, scales_of(box), box.at_theta(), 0) < high


@pytest.mark.parametrize("seed", range(20))
def test_a_right_gradient_in_float32_is_not_accused(seed: int) -> None:
    theta = np.random.default_rng(seed).normal(size=6)
    report = gradcheck_function(single, lambda x: np.float64(np.float32(A @ x)), theta, seed=seed)
    assert report.status == "agree"
    wrong = A @ theta
    wrong[2] += 0.05 * np.abs(wrong).max()
    assert gradcheck_function(single, wrong, theta, seed=seed).status == "wrong"


def test_a_tolerance_that_noise_hides_is_not_agreed_to() -> None:
    assert gradcheck_function(single, lambda x: A @ x, X).passed
    assert gradcheck_function(single, lambda x: A @ x, X, tol=1e-7).status == "cannot tell"
    assert gradcheck_function(single, lambda x: A @ x, X, resolution=1e-9).status == "cannot tell"


def test_at_a_minimum_nothing_can_be_told_unless_a_scale_is_given() -> None:
    def f(t: Any) -> float:
        return float(np.sum(t**2))

    assert gradcheck_function(f, np.zeros(3), np.zeros(3)).status == "cannot tell"
    assert gradcheck_function(f, np.zeros(3), np.zeros(3), atol=1e-6).status == "agree"
    assert gradcheck_function(f, np.full(3, 0.1), np.zeros(3)).status == "wrong"


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@dataclass
class Model:
    layers: list[Layer]
    name: str = "model"


def test_theta_is_any_nesting_and_leaves_reach_f_as_what_they_were() -> None:
    torch = pytest.importorskip("torch")
    seen = []

    def f(model: Model) -> float:
        first, second = model.layers
        seen.append((type(model), first.kernel.dtype, type(first.bias), type(second.bias)))
        return float((first.kernel**3).sum() + first.bias**2 + (second.bias**2).sum())

    def gradient(model: Model) -> Model:
        first, second = model.layers
        return Model([Layer(3 * first.kernel**2, 2 * first.bias), Layer(None, 2 * second.bias)])

    theta = Model([Layer(np.ones((2, 2), np.float32), 1.5), Layer(None, torch.ones(2))])
    report = gradcheck_function(f, gradient, theta)
    assert report.status == "agree"
    names = [block.parameter for block in report.blocks]
    assert names == ["params.layers[0].kernel", "params.layers[0].bias", "params.layers[1].bias"]
    assert set(seen) == {(Model, np.dtype(np.float32), float, torch.Tensor)}
    nested = {"dense_2": {"kernel": np.ones((4, 20))}}
    g = {"dense_2": {"kernel": np.ones((4, 20))}}
    g["dense_2"]["kernel"][3, 17] = 2.0
    report = gradcheck_function(lambda p: p["dense_2"]["kernel"].sum(), g, nested)
    assert report.components[0].name == 'params["dense_2"]["kernel"][3, 17]'


def test_blocks_choose_what_is_checked() -> None:
    theta = {"a": {"w": np.ones(3)}, "b": np.ones(2)}
    report = gradcheck_function(
        lambda p: (p["a"]["w"] ** 2).sum() + p["b"].sum(),
        {"a": {"w": 2 * np.ones(3)}, "b": np.zeros(2)},
        theta,
        blocks=['params["a"]'],
    )
    assert report.status == "agree"
    assert len(report.blocks) == 1
    with pytest.raises(InputError, match="blocks='c'"):
        gradcheck_function(lambda p: 0.0, theta, theta, blocks=["c"])


def test_vectorized_gives_the_same_verdict_with_few_calls() -> None:
    calls = []

    def f(thetas: Any) -> Any:
        calls.append(len(thetas))
        return 0.5 * np.einsum("pi,ij,pj->p", thetas, A, thetas)

    theta = np.array(X)
    report = gradcheck_function(f, A @ X, theta, vectorized=True)
    assert report.status == "agree"
    assert max(calls) == 12
    assert gradcheck_function(f, 1.01 * (A @ X), theta, vectorized=True).status == "wrong"


def test_a_vectorized_function_that_writes_into_theta_is_named() -> None:
    def f(thetas: Any) -> Any:
        made = 0.5 * np.einsum("pi,ij,pj->p", thetas, A, thetas)
        thetas[:, 2] *= 1.0 + 1e-9
        return made

    with pytest.raises(InputError, match=r"changes its argument \(θ\[2\]\)"):
        gradcheck_function(f, A @ X, np.array(X), vectorized=True)


def test_a_vectorized_function_may_return_a_view_and_needs_many_batches() -> None:
    weights = np.random.default_rng(1).normal(size=4000)

    def first(thetas: Any) -> Any:
        return thetas[:, 0]

    def many(thetas: Any) -> Any:
        assert thetas.nbytes <= 2_000_000
        return np.sin(thetas) @ weights

    theta = np.random.default_rng(2).normal(size=4000)
    slope = np.zeros(4000)
    slope[0] = 1.0
    assert gradcheck_function(first, slope, theta, vectorized=True).status == "agree"
    g = weights * np.cos(theta)
    assert gradcheck_function(many, g, theta, vectorized=True, sample=500).status == "agree"
    g[::7] *= 1.01
    assert gradcheck_function(many, g, theta, vectorized=True, sample=500).status == "wrong"


def test_what_a_gradient_changes_is_named() -> None:
    state = {"shift": 0.0}

    def f(x: Any) -> float:
        return quadratic(x + state["shift"])

    def gradient(x: Any) -> Any:
        state["shift"] += 0.1
        return A @ X

    with pytest.raises(InputError, match=r"once the gradient was called|two values"):
        gradcheck_function(f, gradient, X)


def test_data_that_f_writes_into_is_named() -> None:
    data = np.ones(6)

    def f(x: Any) -> float:
        data[:] *= 1.01
        return float(data @ x)

    with pytest.raises(InputError, match="writes into data"):
        gradcheck_function(f, np.ones(6), X)


def test_a_random_function_is_checked_with_reseed() -> None:
    state = {"random": np.random.default_rng(0)}

    def f(x: Any) -> float:
        return float((state["random"].random(6) > 0.5) @ x**2)

    def gradient(x: Any) -> Any:
        return 2 * (state["random"].random(6) > 0.5) * x

    def reseed() -> None:
        state["random"] = np.random.default_rng(7)

    assert gradcheck_function(f, gradient, X, reseed=reseed).passed
    with pytest.raises(InputError, match=r"two values.*reseed="):
        gradcheck_function(f, gradient, X)


def test_values_that_differ_by_rounding_are_noise() -> None:
    random = np.random.default_rng(0)

    def f(x: Any) -> float:
        return quadratic(x) * (1.0 + 1e-9 * random.normal())

    report = gradcheck_function(f, lambda x: A @ x, X)
    assert report.status == "agree"
    assert gradcheck_function(f, lambda x: 1.01 * (A @ x), X).status == "wrong"


def test_torch_modules_that_are_no_chain_are_checked_as_functions() -> None:
    torch = pytest.importorskip("torch")
    from fastcheck import check_torch

    torch.manual_seed(0)
    nn = torch.nn

    class Slip(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(context: Any, g: Any) -> Any:
            (x,) = context.saved_tensors
            s = torch.sigmoid(x)
            return g * (s + x * s)  # should be s + x·s·(1 − s)

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, act: Any) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
            self.out, self.act = nn.Linear(3, 2), act

        def forward(self, x: Any) -> Any:
            return self.out(self.act(self.norm(self.conv(x))).mean(dim=(2, 3)))

    x, y = torch.randn(6, 1, 7, 7), torch.randint(0, 2, (6,))
    net = Net(nn.SiLU())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = check_torch(net, nn.CrossEntropyLoss(), x, y)
    assert report.status == "agree", report
    assert report.blocks[0].parameter == "conv.weight"
    assert any("float64" in note for note in report.notes)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    wrong = check_torch(Net(Slip.apply), nn.CrossEntropyLoss(), x, y)
    assert wrong.status == "wrong"
    assert {b.parameter for b in wrong.blocks if b.verdict == "wrong"} >= {
        "conv.weight",
        "norm.weight",
    }
    assert wrong.blocks[-1].verdict == "agree"
