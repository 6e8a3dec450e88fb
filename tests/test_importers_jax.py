"""Pytrees of JAX, Flax and Equinox with their gradients."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.frameworks import check_jax
from fastcheck.importers.jax.model import problem_from_jax

jax: Any = pytest.importorskip("jax")
jnp: Any = jax.numpy

KEY = jax.random.PRNGKey(0)
X = jax.random.normal(KEY, (7, 6))
Y = jnp.array([0, 1, 2, 3, 0, 1, 2])


def layers(*sizes: Any) -> Any:
    keys = jax.random.split(KEY, len(sizes))
    return [
        {"w": jax.random.normal(k, (a, b)) / a**0.5, "b": 0.1 * jax.random.normal(k, (b,))}
        for k, a, b in zip(keys[1:], sizes[:-1], sizes[1:], strict=True)
    ]


PARAMS = layers(6, 8, 5, 4)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def loss_of(phi: Any) -> Any:
    def loss(params: Any, x: Any, y: Any) -> Any:
        for layer in params[:-1]:
            x = phi(x @ layer["w"] + layer["b"])
        return cross_entropy(x @ params[-1]["w"] + params[-1]["b"], y)

    return loss


RELU = loss_of(jax.nn.relu)


@jax.custom_vjp
def leaky_backward(z: Any) -> Any:
    return jnp.maximum(z, 0.0)


leaky_backward.defvjp(
    lambda z: (leaky_backward(z), z), lambda z, g: (jnp.where(z > 0, g, 0.1 * g),)
)


@pytest.mark.parametrize(
    ("phi", "name"),
    [
        (jax.nn.relu, "relu"),
        (jnp.tanh, "tanh"),
        (jax.nn.gelu, "gelu_tanh"),
        (functools.partial(jax.nn.gelu, approximate=False), "gelu"),
        (jax.nn.silu, "silu"),
        (jax.nn.sigmoid, "sigmoid"),
        (jax.nn.softplus, "softplus"),
        (jax.nn.elu, "elu"),
    ],
)
def test_a_right_gradient_passes_and_jax_functions_are_known(phi: Any, name: Any) -> None:
    loss = loss_of(phi)
    for activations in (phi, name):
        report = check_jax(PARAMS, jax.grad(loss), X, Y, activations=activations, cost=loss)
        assert report.passed, report.to_text()
        assert report.network is not None
        assert report.network.activations[0] == name or name == "elu"


def test_blocks_are_called_by_their_path() -> None:
    report = check_jax(PARAMS, jax.grad(RELU)(PARAMS, X, Y), X, Y, activations="relu")
    assert [b.parameter for b in report.blocks[:3]] == ["0.w", "0.b", "1.w"]


def test_value_and_grad_gives_the_cost() -> None:
    problem = problem_from_jax(PARAMS, jax.value_and_grad(RELU), X, Y, activations="relu")
    assert float(problem.cost) == pytest.approx(float(RELU(PARAMS, X, Y)))


def test_a_wrong_custom_vjp_is_named() -> None:
    wrong = jax.grad(loss_of(leaky_backward))
    report = check_jax(PARAMS, wrong, X, Y, activations="relu", cost=RELU)
    assert report.status == "wrong"
    # The last layer lies behind every activation.
    assert {b.parameter for b in report.blocks if b.status == "wrong"} == {
        "0.w",
        "0.b",
        "1.w",
        "1.b",
    }


def test_other_forms_of_the_tree() -> None:
    flat = {f"{kind}{k}": p[kind.lower()] for k, p in enumerate(PARAMS, 1) for kind in "Wb"}
    named = {f"layer{9 + k}": p for k, p in enumerate(PARAMS)}
    pairs = [(p["w"], p["b"]) for p in PARAMS]
    gradient = jax.grad(RELU)(PARAMS, X, Y)
    forms = {
        "flat": (flat, {f"{c}{k}": p[c.lower()] for k, p in enumerate(gradient, 1) for c in "Wb"}),
        "named": (named, {f"layer{9 + k}": p for k, p in enumerate(gradient)}),
        "pairs": (pairs, [(p["w"], p["b"]) for p in gradient]),
    }
    for name, (params, given) in forms.items():
        assert check_jax(params, given, X, Y, activations="relu").passed, name


def test_layers_without_biases_and_bfloat16() -> None:
    params = [{"w": p["w"]} for p in PARAMS]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["w"])
        return cross_entropy(x @ params[-1]["w"], y)

    assert check_jax(params, jax.grad(loss), X, Y, activations="tanh").passed
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS)
    x = X.astype(jnp.bfloat16)
    report = check_jax(low, jax.grad(RELU), x, Y, activations="relu")
    assert report.passed, report.to_text()
    assert report.held_to.precision == "bfloat16"


def test_flax_linen() -> None:
    linen: Any = pytest.importorskip("flax.linen")

    class Dense(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            for n in (8, 8, 5):
                x = linen.silu(linen.Dense(n)(x))
            return linen.Dense(4)(x)

    model = Dense()
    variables = model.init(KEY, X)

    def loss(variables: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.apply(variables, x), y)

    report = check_jax(variables, jax.grad(loss), X, Y, activations=linen.silu, cost=loss)
    assert report.passed, report.to_text()
    assert report.blocks[0].parameter == "params.Dense_0.kernel"


def test_flax_nnx_in_the_order_of_its_shapes() -> None:
    nnx: Any = pytest.importorskip("flax.nnx")

    class Dense(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.z = nnx.Linear(6, 9, rngs=rngs)
            self.a = nnx.Linear(9, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.a(nnx.tanh(self.z(x)))

    model = Dense(nnx.Rngs(0))

    def loss(model: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model(x), y)

    report = check_jax(model, nnx.grad(loss), X, Y, activations="tanh", cost=loss)
    assert report.passed, report.to_text()
    assert [b.parameter for b in report.blocks[::2]] == ["z.kernel", "a.kernel"]


def test_equinox_reads_its_own_activations() -> None:
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(6, 4, 8, 2, activation=jax.nn.softplus, key=KEY)

    def loss(model: Any, x: Any, y: Any) -> Any:
        return cross_entropy(jax.vmap(model)(x), y)

    for gradient in (equinox.filter_grad(loss), equinox.filter_grad(loss)(model, X, Y)):
        report = check_jax(model, gradient, X, Y, cost=loss)
        assert report.passed, report.to_text()
    assert report.blocks[2].parameter == "layers.1.weight"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"c": {"kernel": np.ones((3, 3, 1, 2)), "bias": np.ones(2)}}, "c: kernel of shape"),
        ([{**PARAMS[0], "scale": np.ones(8)}], "0: 'scale' beside 'w'"),
        ([PARAMS[0], PARAMS[0]], "don't chain"),
        ({}, "without weights"),
    ],
)
def test_other_trees_are_refused_with_the_path(params: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        problem_from_jax(params, params, X, Y)


def test_a_gradient_of_another_form_is_refused() -> None:
    with pytest.raises(InputError, match="form of params"):
        problem_from_jax(PARAMS, jax.grad(RELU)(PARAMS, X, Y)[:2], X, Y, activations="relu")
