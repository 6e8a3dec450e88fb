"""What a JAX model's activations are is said, read or told by its values, and never assumed."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.frameworks import check_jax

jax: Any = pytest.importorskip("jax")
eqx: Any = pytest.importorskip("equinox")
linen: Any = pytest.importorskip("flax.linen")
nnx: Any = pytest.importorskip("flax.nnx")
jnp: Any = jax.numpy

KEY = jax.random.PRNGKey(0)
X = jax.random.normal(KEY, (7, 6))
Y = jnp.array([0, 1, 2, 3, 0, 1, 2])


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def rows_loss(model: Any, x: Any, y: Any) -> Any:
    return cross_entropy(jax.vmap(model)(x), y)


def batch_loss(model: Any, x: Any, y: Any) -> Any:
    return cross_entropy(model(x), y)


FUNCTIONS: dict[str, tuple[Any, str]] = {
    "silu": (jax.nn.silu, "silu"),
    "softplus": (jax.nn.softplus, "softplus"),
    "tanh of jnp": (jnp.tanh, "tanh"),
    "exact gelu": (functools.partial(jax.nn.gelu, approximate=False), "gelu"),
    "gelu": (jax.nn.gelu, "gelu_tanh"),
    "elu": (jax.nn.elu, "elu(1)"),
    "a lambda": (lambda z: jnp.maximum(z, 0.0), "relu"),
    "leaky": (functools.partial(jax.nn.leaky_relu, negative_slope=0.2), "leaky_relu(0.2)"),
}
TOLD = [name for name in FUNCTIONS if name != "leaky"]  # no parameter is searched for


class Own(eqx.Module):
    first: Any
    second: Any
    phi: Any = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        return self.second(self.phi(self.first(x)))


class Stack(linen.Module):
    phi: Any

    @linen.compact
    def __call__(self, x: Any) -> Any:
        for n in (8, 5):
            x = self.phi(linen.Dense(n)(x))
        return linen.Dense(4)(x)


class Pair(nnx.Module):
    def __init__(self, phi: Any) -> None:
        self.first = nnx.Linear(6, 9, rngs=nnx.Rngs(0))
        self.second = nnx.Linear(9, 4, rngs=nnx.Rngs(1))
        self.phi = phi

    def __call__(self, x: Any) -> Any:
        return self.second(self.phi(self.first(x)))


def sequential(*between: Any) -> Any:
    return eqx.nn.Sequential([eqx.nn.Linear(6, 8, key=KEY), *between, eqx.nn.Linear(8, 4, key=KEY)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_equinox_sequential_is_read(name: str) -> None:
    phi, expected = FUNCTIONS[name]
    report = check_jax(sequential(eqx.nn.Lambda(phi)), eqx.filter_grad(rows_loss), X, Y)
    assert report.passed, report.to_text()
    assert report.network is not None
    assert report.network.activations == (expected, "identity")


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("kind", ["equinox", "nnx"])
def test_a_module_of_ones_own_is_told_by_its_outputs(kind: str, name: str) -> None:
    phi, expected = FUNCTIONS[name]
    if kind == "equinox":
        model: Any = Own(eqx.nn.Linear(6, 8, key=KEY), eqx.nn.Linear(8, 4, key=KEY), phi)
        report = check_jax(model, eqx.filter_grad(rows_loss), X, Y)
    else:
        report = check_jax(Pair(phi), nnx.grad(batch_loss), X, Y)
    assert report.passed, report.to_text()
    assert report.network is not None
    assert report.network.activations == (expected, "identity")


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("way", ["cost", "value_and_grad"])
def test_a_tree_of_arrays_is_told_by_j(way: str, name: str) -> None:
    phi, expected = FUNCTIONS[name]
    model = Stack(phi)
    variables = model.init(KEY, X)

    def loss(variables: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.apply(variables, x), y)

    if way == "cost":
        report = check_jax(variables, jax.grad(loss), X, Y, cost=loss)
    else:
        report = check_jax(variables, jax.value_and_grad(loss), X, Y)
    assert report.passed, report.to_text()
    assert report.network is not None
    assert report.network.activations == (expected, expected, "identity")


def test_a_wrong_gradient_of_a_model_that_was_told_is_still_wrong() -> None:
    model = Stack(jax.nn.silu)
    variables = model.init(KEY, X)

    def loss(variables: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.apply(variables, x), y)

    def twice(*arguments: Any) -> Any:
        return jax.tree.map(lambda a: 1.5 * a, jax.grad(loss)(*arguments))

    assert check_jax(variables, twice, X, Y, cost=loss).status == "wrong"


def test_a_tree_of_arrays_alone_is_refused() -> None:
    model = Stack(jax.nn.silu)
    variables = model.init(KEY, X)

    def loss(variables: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model.apply(variables, x), y)

    with pytest.raises(InputError, match=r"does not say what its activations are.*activations="):
        check_jax(variables, jax.grad(loss), X, Y)


class Skip(Own):
    def __call__(self, x: Any) -> Any:
        z = self.first(x)
        return self.second(z + self.phi(z))


class Scaled(Own):
    def __call__(self, x: Any) -> Any:
        return 2.0 * self.second(self.phi(self.first(x)))


@pytest.mark.parametrize("said", [{}, {"activations": jax.nn.silu}])
@pytest.mark.parametrize("kind", [Skip, Scaled])
def test_a_model_that_is_no_such_chain_is_refused_and_not_accused(kind: Any, said: Any) -> None:
    model = kind(eqx.nn.Linear(6, 8, key=KEY), eqx.nn.Linear(8, 4, key=KEY), jax.nn.silu)
    with pytest.raises(InputError, match=r"outputs"):
        check_jax(model, eqx.filter_grad(rows_loss), X, Y, **said)


def test_layers_in_another_order_than_their_names_are_refused() -> None:
    params = {
        name: {"w": 0.4 * jax.random.normal(key, (6, 6)), "b": jnp.zeros(6)}
        for name, key in zip(("into", "final"), jax.random.split(KEY), strict=True)
    }

    def loss(params: Any, x: Any, y: Any) -> Any:
        x = jnp.tanh(x @ params["into"]["w"] + params["into"]["b"])
        return cross_entropy(x @ params["final"]["w"] + params["final"]["b"], y)

    with pytest.raises(InputError, match=r"chain in 2 orders.*order="):
        check_jax(params, jax.grad(loss), X, Y, activations="tanh")
    order = ["into", "final"]
    assert check_jax(params, jax.grad(loss), X, Y, activations="tanh", order=order).passed


@pytest.mark.parametrize("between", [eqx.nn.Dropout(0.5), eqx.nn.LayerNorm(8)])
def test_dropout_and_norms_of_a_sequential_are_refused(between: Any) -> None:
    with pytest.raises(InputError, match=r"dropout of 0.5|weight of shape|beside"):
        check_jax(
            sequential(eqx.nn.Lambda(jax.nn.relu), between), eqx.filter_grad(keyed_loss), X, Y
        )


def keyed_loss(model: Any, x: Any, y: Any) -> Any:
    return cross_entropy(jax.vmap(lambda row: model(row, key=KEY))(x), y)


def test_dropout_that_is_off_is_nothing() -> None:
    model = eqx.nn.inference_mode(sequential(eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.5)))
    assert check_jax(model, eqx.filter_grad(rows_loss), X, Y).passed


def squared(model: Any, x: Any, y: Any) -> Any:
    return 0.5 * jnp.mean(jnp.sum((jax.vmap(model)(x) - y) ** 2, axis=1))


def test_a_loss_is_not_assumed() -> None:
    model, T = sequential(eqx.nn.Lambda(jnp.tanh)), jnp.abs(X[:, :4])
    T = T / T.sum(axis=1, keepdims=True)  # could be probabilities
    with pytest.raises(InputError, match="no loss"):
        check_jax(model, eqx.filter_grad(squared), X, T)
    with pytest.raises(InputError, match=r"loss= .*was not said"):
        check_jax(model, eqx.filter_grad(squared), X, T, cost=squared)
    assert check_jax(model, eqx.filter_grad(squared), X, T, loss="squared_error").passed


def test_a_batch_that_jax_rounds_is_checked_as_it_was_rounded() -> None:
    model = sequential(eqx.nn.Lambda(jnp.tanh))
    x = np.random.default_rng(0).normal(size=(7, 6)) * 1e3
    assert x.dtype == np.float64
    report = check_jax(model, eqx.filter_grad(rows_loss), x, np.asarray(Y))
    assert report.passed, report.to_text()


def test_a_gradient_that_writes_into_its_batch_is_refused() -> None:
    model = sequential(eqx.nn.Lambda(jnp.tanh))
    x = np.asarray(X).copy()

    def gradient(model: Any, x: Any, y: Any) -> Any:
        x -= x.mean(axis=0)
        return eqx.filter_grad(rows_loss)(model, x, y)

    with pytest.raises(InputError, match="gradient writes into its arguments: inputs"):
        check_jax(model, gradient, x, np.asarray(Y))
    np.testing.assert_array_equal(x, np.asarray(X))
