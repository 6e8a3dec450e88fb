"""A pytree of JAX that is no dense chain, with its J, as a function of its parameters.

J is evaluated in float64 where JAX can do that, the gradient is taken as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fastcheck.errors import InputError
from fastcheck.importers.function import ModelFunction

__all__ = ["function_from_jax"]

SAME_J = 1e-3


def function_from_jax(
    params: Any, gradient: Any, inputs: Any, targets: Any, cost: Any
) -> ModelFunction:
    """Return J as a function of a pytree, and its gradient.

    Parameters
    ----------
    params : pytree
    gradient : pytree or callable
        `gradient(params, inputs, targets)`; `jax.value_and_grad(loss)` gives J as well.
    inputs, targets : array_like
    cost : callable
        `cost(params, inputs, targets)`.

    Raises
    ------
    InputError
        Without a cost that can be called.
    """
    if not callable(cost):
        raise InputError(
            "a model that is no chain of dense layers, without its J",
            "cost=, a function cost(params, inputs, targets)",
            "Give the loss that was differentiated: cost=loss.",
        )
    leaves, form = jax.tree.flatten(params)
    places = [k for k, leaf in enumerate(leaves) if _floating(leaf)]
    names = _names(params)

    def tree(theta: dict[str, Any]) -> Any:
        filled = list(leaves)
        for k in places:
            filled[k] = theta[names[k]]
        return jax.tree.unflatten(form, filled)

    def own_gradient(theta: dict[str, Any]) -> dict[str, Any]:
        own = {n: np.asarray(theta[n]).astype(leaves[k].dtype) for k, n in _at(places, names)}
        found = gradient(tree({n: jax.numpy.asarray(v) for n, v in own.items()}), inputs, targets)
        return _read(found)

    def _read(found: Any) -> dict[str, Any]:
        pair = isinstance(found, tuple) and len(found) == 2 and np.ndim(found[0]) == 0
        parts = jax.tree.leaves(found[1] if pair and hasattr(found[0], "dtype") else found)
        if len(parts) != len(leaves) and len(parts) != len(places):
            raise InputError(f"a gradient of {len(parts)} arrays", f"{len(leaves)}, as params has")
        chosen = parts if len(parts) == len(places) else [parts[k] for k in places]
        return {names[k]: np.asarray(part) for k, part in zip(places, chosen, strict=True)}

    evaluate, precision = _cost(cost, tree, leaves, (places, names), (inputs, targets))
    theta = {n: np.asarray(leaves[k]).astype(np.float64) for k, n in _at(places, names)}
    given = own_gradient if callable(gradient) and not _is_tree(gradient) else _read(gradient)
    note = f"J was evaluated in {precision}; the gradient is as it was given."
    return ModelFunction(evaluate, given, theta, type(params).__name__, (note,))


def _is_tree(gradient: Any) -> bool:
    return any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(gradient))


def _at(places: list[int], names: list[str]) -> list[tuple[int, str]]:
    return [(k, names[k]) for k in places]


def _floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)


def _names(params: Any) -> list[str]:
    """Return the leaves' paths: `['conv']['kernel']` is `conv.kernel`."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return [".".join(_key(key) for key in path) or "params" for path in paths]


def _key(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _cost(
    cost: Any,
    tree: Callable[[dict[str, Any]], Any],
    leaves: list[Any],
    parts: tuple[list[int], list[str]],
    batch: tuple[Any, Any],
) -> tuple[Callable[[Any], float], str]:
    """Return J as a function of float64 arrays by name, and the precision that it computes in."""

    def wide(theta: dict[str, Any]) -> float:
        with _double():
            inside = tree({n: jax.numpy.asarray(v) for n, v in theta.items()})
            values = (_widened(part) for part in batch)
            return float(cost(inside, *values))

    def own(theta: dict[str, Any]) -> float:
        kinds = {n: leaves[k].dtype for k, n in _at(*parts)}
        return float(
            cost(tree({n: jax.numpy.asarray(v, kinds[n]) for n, v in theta.items()}), *batch)
        )

    start = {n: np.asarray(leaves[k]).astype(np.float64) for k, n in _at(*parts)}
    J = own(start)
    try:
        same = abs(wide(start) - J) <= SAME_J * max(abs(J), 1e-30)
    except Exception:  # a model may hold to float32 in many ways
        same = False
    return (wide, "float64") if same else (own, "its own precision")


def _double() -> Any:
    """Return a context in which JAX computes in float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def _widened(part: Any) -> Any:
    array = np.asarray(part)
    return jax.numpy.asarray(array.astype(np.float64) if array.dtype.kind == "f" else array)
