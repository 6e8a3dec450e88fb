"""Layers of PyTorch and JAX: custom backward passes, right and wrong, and what belongs to each."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from fastcheck import (
    InputError,
    Report,
    check_jax_function,
    check_torch_function,
    gradcheck_against,
)

torch: Any = pytest.importorskip("torch")
Function: Any = torch.autograd.Function
RNG = np.random.default_rng(5)


def tensor(*shape: int, dtype: Any = torch.float64) -> Any:
    return torch.tensor(RNG.normal(size=shape)).to(dtype)


def broken(report: Report) -> set[str]:
    return {line.name for line in report.contract if line.status == "wrong"}


def make(fault: str = "") -> Any:
    """Return a linear layer with tanh as an autograd function, with a fault."""

    class Layer(Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, b: Any) -> Any:
            y = torch.tanh(x @ w + b)
            ctx.save_for_backward(x, w, y)
            top = y.argmax(dim=0)
            largest = y.max(dim=0).values
            ctx.mark_non_differentiable(top, largest)
            return y, 2.0 * y.sum(), top, largest

        @staticmethod
        def backward(ctx: Any, dy: Any, total: Any, *_: Any) -> Any:
            x, w, y = ctx.saved_tensors
            dz = (dy + (0.0 if fault == "second output" else 2.0 * total)) * (1 - y**2)
            db = dz.sum(0)
            if fault == "none":
                return dz @ w.T, None, db
            dw = x.T @ dz
            if fault == "needs" and not ctx.needs_input_grad[0]:
                dw = 2.0 * dw
            if fault == "dtype" and dy.dtype == torch.float32:
                dw = dw * 1.5
            if fault == "raises" and not ctx.needs_input_grad[2]:
                raise RuntimeError("b has no gradient")
            return dz @ w.T, dw, -db if fault == "sign" else db

    return Layer.apply


SLOW = pytest.mark.slow
INPUTS = (tensor(5, 4), tensor(4, 3), tensor(3))


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, *(pytest.param(t, marks=SLOW) for t in (torch.float32, torch.bfloat16))],
)
def test_a_right_function_agrees(dtype: Any) -> None:
    report = check_torch_function(make(), tuple(x.to(dtype) for x in INPUTS), seed=0)
    assert report.passed, report
    assert next(c for c in report.contract if c.name == "needed gradients").status == "agree"


@pytest.mark.parametrize(
    ("fault", "blocks", "lines"),
    [
        pytest.param("sign", ["x2"], set(), marks=SLOW),
        pytest.param("none", ["x1"], set(), marks=SLOW),
        pytest.param("second output", ["x0", "x1", "x2"], set(), marks=SLOW),
        ("needs", [], {"needed gradients"}),
        pytest.param("raises", [], {"needed gradients"}, marks=SLOW),
        pytest.param("dtype", [], {"precision"}, marks=SLOW),
    ],
)
def test_a_fault_is_named(fault: str, blocks: list[str], lines: set[str]) -> None:
    report = check_torch_function(make(fault), INPUTS, seed=0)
    assert report.status == "wrong"
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == blocks
    assert broken(report) - {"at another point"} == lines


def test_inputs_that_require_no_gradient_are_left_alone() -> None:
    x = tensor(4, 3).requires_grad_()
    report = check_torch_function(lambda x, mask: x * mask, (x, tensor(4, 3)), seed=0)
    assert report.passed
    assert [b.parameter for b in report.blocks] == ["x"]
    assert x.grad is None


class Square(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2.0 * dout * x.detach()  # right once, not twice


def spoiling(how: str) -> Any:
    """Return tanh as a function whose backward spoils what forward saved."""

    class Spoiling(Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = torch.tanh(x)
            ctx.slope = 1 - y**2
            ctx.save_for_backward(ctx.slope.clone())
            return y.clone()

        @staticmethod
        def backward(ctx: Any, dout: Any) -> Any:
            (saved,) = ctx.saved_tensors
            slope = saved if how == "saved tensor" else ctx.slope
            found = dout * slope
            if how:
                slope.mul_(0.5)
            return found

    return Spoiling.apply


@pytest.mark.parametrize("how", ["", "saved tensor", "attribute"])
def test_a_second_backward_pass_of_one_graph(how: str) -> None:
    report = check_torch_function(spoiling(how), (tensor(4),), seed=0)
    assert broken(report) == ({"arguments unchanged"} if how else set())
    assert report.gradient_status == "agree"
    skipped = check_torch_function(
        spoiling(how), (tensor(4),), seed=0, skip=["arguments unchanged"]
    )
    assert skipped.passed


def test_second_order_of_a_torch_function() -> None:
    assert check_torch_function(torch.sin, (tensor(4),), order=2, seed=0).passed
    report = check_torch_function(Square.apply, (tensor(4),), order=2, seed=0)
    assert report.gradient_status == "agree"
    assert report.status == "wrong"


def test_complex_tensors() -> None:
    z = torch.tensor(RNG.normal(size=4) + 1j * RNG.normal(size=4))
    assert check_torch_function(lambda z: z**3, (z,), seed=0).passed
    assert check_torch_function(lambda z: z.abs(), (z,), seed=0).passed


def test_no_tensor_is_refused() -> None:
    with pytest.raises(InputError, match="floating-point tensor"):
        check_torch_function(lambda i: i, (torch.tensor([1, 2]),))


def jax_layer(fault: str = "") -> Any:
    """Return softplus(x @ w) as a custom_vjp, with a fault."""
    jax: Any = pytest.importorskip("jax")
    jnp = jax.numpy

    layer = jax.custom_vjp(lambda x, w: jnp.log1p(jnp.exp(x @ w)))

    def forward(x: Any, w: Any) -> Any:
        return layer(x, w), (x, w)

    def backward(saved: Any, dout: Any) -> Any:
        x, w = saved
        dz = dout * jax.nn.sigmoid(x @ w)
        dw = x.T @ dz
        return dz @ w.T, -dw if fault == "sign" else dw

    layer.defvjp(forward, backward)
    return layer


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=SLOW)])
def test_a_custom_vjp(dtype: Any) -> None:
    args = (RNG.normal(size=(4, 3)).astype(dtype), RNG.normal(size=(3, 2)).astype(dtype))
    assert check_jax_function(jax_layer(), args, seed=0).passed
    report = check_jax_function(jax_layer("sign"), args, seed=0)
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == ["w"]
    assert any("its sign is wrong" in note for note in report.notes)


def custom_jvp(factor: float) -> Any:
    jax: Any = pytest.importorskip("jax")

    cube = jax.custom_jvp(lambda x: x**3)

    def rule(primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        return cube(x), factor * x**2 * t

    cube.defjvp(rule)
    return cube


@SLOW
def test_a_custom_jvp_in_both_modes() -> None:
    args = (RNG.normal(size=5),)
    report = check_jax_function(custom_jvp(3.0), args, seed=0, order=2)
    assert report.passed, report
    assert "jvp" in [line.name for line in report.contract]
    report = check_jax_function(custom_jvp(3.1), args, seed=0)
    assert report.status == "wrong"
    assert "jvp" in broken(report)


@SLOW
def test_integers_and_complex_numbers_in_jax() -> None:
    jax: Any = pytest.importorskip("jax")
    table, indices = RNG.normal(size=(6, 2)), np.array([1, 4, 1, 0])
    assert check_jax_function(lambda i, t: jax.numpy.sin(t[i]), (indices, table), seed=0).passed
    z = RNG.normal(size=3) + 1j * RNG.normal(size=3)
    assert check_jax_function(lambda z: z**2, (z,), seed=0).passed


@cache
def gpt_gradients(dtype: Any, *, fused: bool, seed: int) -> dict[str, Any]:
    """Return the gradients of a small transformer, with attention fused or written out."""
    nn, functional = torch.nn, torch.nn.functional
    torch.manual_seed(seed)
    parts = {
        "tokens": nn.Embedding(40, 16), "norm": nn.LayerNorm(16), "q": nn.Linear(16, 16),
        "k": nn.Linear(16, 16), "v": nn.Linear(16, 16), "out": nn.Linear(16, 16),
        "norm2": nn.LayerNorm(16), "up": nn.Linear(16, 64), "down": nn.Linear(64, 16),
        "head": nn.Linear(16, 40, bias=False),
    }  # fmt: skip
    model = nn.ModuleDict(parts).double().to(dtype)
    ids = torch.randint(0, 40, (3, 12))
    x = model["tokens"](ids)
    y = model["norm"](x)
    q, k, v = (model[n](y).view(3, 12, 2, 8).transpose(1, 2) for n in "qkv")
    if fused:
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(
            torch.ones(12, 12).triu(1).bool(), -torch.inf
        )
        mixed = scores.softmax(-1) @ v
    x = x + model["out"](mixed.transpose(1, 2).reshape(3, 12, 16))
    x = x + model["down"](functional.gelu(model["up"](model["norm2"](x))))
    logits = model["head"](x).double().reshape(-1, 40)
    functional.cross_entropy(logits, ids.roll(-1, 1).reshape(-1)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, *(pytest.param(t, marks=SLOW) for t in (torch.float32, torch.float16))],
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_transformer_in_low_precision_beside_float64(dtype: Any, seed: int) -> None:
    reference = gpt_gradients(torch.float64, fused=False, seed=seed)
    given = gpt_gradients(dtype, fused=True, seed=seed)
    baseline = gpt_gradients(dtype, fused=False, seed=seed)
    for plain in (baseline, None):
        report = gradcheck_against(reference, given, plain)
        assert report.status == "agree", report
        assert any("k.bias: zero up to rounding" in note for note in report.notes)
        wrong = {**given, "q.weight": given["k.weight"], "k.weight": given["q.weight"]}
        report = gradcheck_against(reference, wrong, plain)
        named = [b.parameter for b in report.blocks if b.verdict == "wrong"]
        assert named == ["q.weight", "k.weight"]


def without_rows(first: int, stop: int) -> Any:
    def change(gradient: Any) -> Any:
        made = gradient.clone()
        made[first:stop] = 0
        return made

    return change


# A block, what is done to its gradient, and the cause that is named.
GPT_SLIPS: dict[str, tuple[str, Any, str]] = {
    "sign": ("out.weight", lambda g: -g, "its sign is wrong"),
    "one head": ("v.weight", without_rows(8, 16), "only indices 8 to 15 of axis 0 are zero"),
    "factor": ("down.weight", lambda g: 1.25 * g, "every component is 1.25 times"),
    "transposed": ("q.weight", lambda g: g.T.contiguous(), "it is transposed"),
    "doubled": ("tokens.weight", lambda g: 2 * g, "it is doubled"),
    "zero": ("norm2.bias", lambda g: 0 * g, "it is zero"),
    "shifted": ("head.weight", lambda g: g.roll(1, 0), "shifted by one along axis 0"),
}


@pytest.mark.parametrize("slip", GPT_SLIPS)
def test_slips_in_a_transformer_are_named(slip: str) -> None:
    name, change, cause = GPT_SLIPS[slip]
    reference = gpt_gradients(torch.float64, fused=False, seed=2)
    given = gpt_gradients(torch.bfloat16, fused=True, seed=2)
    baseline = gpt_gradients(torch.bfloat16, fused=False, seed=2)
    report = gradcheck_against(reference, {**given, name: change(given[name])}, baseline)
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == [name]
    assert any(note.startswith(f"{name}: ") and cause in note for note in report.notes)
