"""A pytree of dense layers (JAX, Flax, Equinox) and a gradient of the same form."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, Layer, natural_order, unsupported
from fastcheck.importers.jax.activations import (
    Known,
    class_labels,
    model_outputs,
    read_activations,
    require_same,
    said,
    told,
)
from fastcheck.importers.optional import require
from fastcheck.model.network import Network, NetworkOptions
from fastcheck.model.problem import Problem
from fastcheck.model.user_calls import copied, require_unwritten

__all__ = ["JaxOptions", "problem_from_jax"]

WEIGHTS = ("w", "W", "kernel", "weight", "weights", "Ws")
BIASES = ("b", "B", "bias", "biases")
NUMBERED = re.compile(r"(w|W|kernel|weight|weights|b|B|bias|biases)_?(\d+)")
FORM = 'layers {"w": (n_in, n_out), "b": (n_out,)}, in a list or a dictionary'
MAX_LISTED = 8  # layers whose order is searched for by their shapes


class JaxOptions(NetworkOptions, total=False):
    """How a pytree is read: the network's options, and two more.

    Attributes
    ----------
    cost : float or callable
        J, or `cost(params, inputs, targets)`: it is compared first.
    order : sequence of str
        Names of the layers from inputs to outputs, where they can't be told from the tree.
    """

    cost: Any
    order: Sequence[str]


@dataclass(frozen=True)
class Group:
    """The weights and biases of one layer in a tree, and what they are called."""

    path: str
    weights: Any
    biases: Any
    names: tuple[str, str]


def problem_from_jax(
    params: Any, gradient: Any, inputs: Any, targets: Any, **options: Unpack[JaxOptions]
) -> Problem:
    """Take over a pytree of dense layers, and a gradient of the same form.

    Parameters
    ----------
    params : pytree
        Layers `{"w": (n_in, n_out), "b": (n_out,)}` (or `kernel`/`bias`, `weight`/`bias`, `(w, b)`)
        in lists or dictionaries; what Flax's `init` gives, an `nnx.Module`, or an Equinox model
        (whose weights are (n_out, n_in)).
    gradient : pytree or callable
        Of the same form; or `jax.grad(loss)`, called as `gradient(params, inputs, targets)`;
        `jax.value_and_grad(loss)` gives J as well.
    inputs, targets : array_like
        The batch, samples in rows.
    **options
        Activations, loss and penalty (see `Network.from_arrays`), `cost` and `order`. Activations
        may be functions of `jax.nn`; those that are left out are read from an Equinox `MLP` or
        `Sequential`, or told by the outputs of a module or by J; they are never assumed.

    Returns
    -------
    Problem
        Its blocks are called by their path: `Dense_0.kernel`, `0.w`, `layers.1.weight`.

    Raises
    ------
    InputError
        For arrays that are no weights or biases of a dense layer (with their path), for layers
        whose order can't be told, and for a gradient of another form.
    """
    chosen: dict[str, Any] = dict(options)
    cost, order = chosen.pop("cost", None), chosen.pop("order", None)
    rows = chosen.pop("layout", "rows" if _is_equinox(params) else "keras") == "rows"
    groups = _ordered(_groups(params), rows=rows, order=order)
    gradient, value = _called(gradient, cost, (params, inputs, targets))
    X, T = _as_jax_has_them(params, inputs, targets)
    network = _network(params, groups, rows, chosen, (X, T, model_outputs(params, inputs), value))
    given = _matched(groups, _groups(gradient))
    found = {
        block.gradient_name: given[block.layer - 1].weights
        if block.kind == "W"
        else given[block.layer - 1].biases
        for block in network.order.blocks
    }
    return Problem(
        network,
        X,
        T,
        {name: None if part is None else np.asarray(part) for name, part in found.items()},
        cost=None if value is None else np.asarray(value),
        name=f"{_title(params)}: {network.describe()}",
    )


def _called(gradient: Any, cost: Any, given: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """Return the gradient as a tree, and J where it is known; functions get copies of the batch."""
    params, inputs, targets = given

    def call(function: Any, name: str) -> Any:
        batch = copied(inputs), copied(targets)
        result = function(params, *batch)
        require_unwritten(name, {"inputs": (inputs, batch[0]), "targets": (targets, batch[1])})
        return result

    if callable(gradient) and type(gradient) is not type(params):
        gradient = call(gradient, "gradient")
    gradient, value = _without_value(gradient)
    if cost is None:
        return gradient, value
    return gradient, call(cost, "cost") if callable(cost) else cost


def _as_jax_has_them(params: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Return the batch in the precision that JAX computes with: float32 unless x64 is enabled."""
    jax = require("jax", "jax")
    leaves = jax.tree.leaves(_plain(params))
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype")]
    if any(isinstance(leaf, jax.Array) for leaf in arrays):
        inputs, targets = jax.numpy.asarray(inputs), jax.numpy.asarray(targets)
    X, T = np.asarray(inputs), np.asarray(targets)
    return (X.reshape(X.shape[0], -1) if X.ndim > 2 else X), T


def _network(
    params: Any, groups: list[Group], rows: bool, options: dict[str, Any], facts: tuple[Any, ...]
) -> Network:
    """Return the network; what was not said of it is read from the model or told by its values."""
    X, T, outputs, value = facts
    given = options.pop("activations", None)
    no_loss = "loss" not in options and "cost" not in options
    if no_loss and value is None and not class_labels(T):
        raise InputError(
            "targets that are no class labels, and no loss", "loss='squared_error', for example",
            "A tree of arrays does not say what its loss is.",
        )  # fmt: skip

    def make(specs: list[Any]) -> Network:
        return _chain(groups, rows, specs).network(options)  # type: ignore[arg-type]

    known, layers = Known(outputs, value), len(groups)
    specs = said(given, layers) if given is not None else read_activations(params, layers)
    if specs is None:
        specs = told(make, layers, known, (X, T))
    network = make(specs)
    missing = {"loss=": no_loss, "activations=": given is None}
    require_same(network, known, (X, T), " and ".join(k for k, left in missing.items() if left))
    return network


def _title(params: Any) -> str:
    return type(params).__name__ if _is_equinox(params) or _is_nnx(params) else "pytree"


def _is_equinox(params: Any) -> bool:
    return any(base.__module__.startswith("equinox") for base in type(params).__mro__)


def _is_nnx(params: Any) -> bool:
    return any(base.__module__.startswith("flax.nnx") for base in type(params).__mro__)


def _is_tree(gradient: Any) -> bool:
    return (
        _is_equinox(gradient) or _is_nnx(gradient) or isinstance(gradient, (Mapping, list, tuple))
    )


def _without_value(gradient: Any) -> tuple[Any, Any]:
    """Return the gradient and J, where both came from value_and_grad."""
    pair = isinstance(gradient, tuple) and len(gradient) == 2
    if (
        pair
        and hasattr(gradient[0], "shape")
        and np.ndim(gradient[0]) == 0
        and _is_tree(gradient[1])
    ):
        return gradient[1], gradient[0]
    return gradient, None


def _groups(tree: Any) -> list[Group]:
    """Return the layers of a tree."""
    groups = list(_walk(_plain(tree), ()))
    if not groups:
        raise unsupported(f"a tree of type {type(tree).__name__} without weights", "params")
    return groups


def _plain(tree: Any) -> Any:
    """Return Flax's states and modules as dictionaries."""
    if not _is_nnx(tree):
        return tree
    nnx = require("flax.nnx", "jax")
    state = nnx.state(tree, nnx.Param) if isinstance(tree, nnx.Module) else tree
    return nnx.to_pure_dict(state) if hasattr(nnx, "to_pure_dict") else state.to_pure_dict()


def _children(tree: Any) -> dict[str, Any] | None:
    """Return the parts of a node by name, None for a leaf."""
    if isinstance(tree, Mapping):
        return {str(k): v for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        fields = getattr(tree, "_fields", None)
        return dict(zip(fields or map(str, range(len(tree))), tree, strict=True))
    if _is_equinox(tree):
        return {k: v for k, v in vars(tree).items() if v is not None and not callable_leaf(v)}
    return None


def callable_leaf(value: Any) -> bool:
    """Return whether a part of an Equinox model is a function or a setting, no parameter."""
    own = isinstance(value, (str, bool, int, float)) or callable(value)
    return own and not _is_equinox(value)


def _is_array(value: Any, dimensions: int) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) == dimensions


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[Group]:
    here = ".".join(path)
    children = _children(tree)
    if children is None:
        if tree is None or (hasattr(tree, "shape") and np.size(tree) == 0):
            return
        raise unsupported(
            f"{type(tree).__name__} of shape {np.shape(tree)}", here or "params", f"Give {FORM}."
        )
    pair = isinstance(tree, (list, tuple)) and len(tree) == 2 and _is_array(tree[0], 2)
    if pair and (tree[1] is None or np.ndim(tree[1]) == 1):
        yield Group(here, tree[0], tree[1], (f"{here}[0]", f"{here}[1]"))
        return
    w = next((k for k in WEIGHTS if _is_array(children.get(k), 2)), None)
    if w is not None:
        yield _layer(children, w, path)
        return
    other = next((k for k in WEIGHTS if hasattr(children.get(k), "shape")), None)
    if other is not None:
        raise unsupported(f"{other} of shape {np.shape(children[other])}", here or "params")
    numbered = _numbered(children)
    if numbered:
        yield from numbered
        return
    for name in children if isinstance(tree, (list, tuple)) else natural_order(list(children)):
        yield from _walk(children[name], (*path, name))


def _layer(children: dict[str, Any], w: str, path: tuple[str, ...]) -> Group:
    b = next((k for k in BIASES if k in children), "")
    sizes = ("in_features", "out_features", "use_bias", "in_size", "out_size")
    extra = [k for k, v in children.items() if k not in (w, b, *sizes) and v is not None]
    here = ".".join(path)
    if extra:
        raise unsupported(f"{extra[0]!r} beside {w!r}", here or "params", f"Give {FORM}.")
    return Group(
        here, children[w], children.get(b), (".".join([*path, w]), ".".join([*path, b or "b"]))
    )


def _numbered(children: dict[str, Any]) -> list[Group]:
    """Read {"W1": …, "b1": …, "W2": …} in one dictionary; empty for anything else."""
    matches = {name: NUMBERED.fullmatch(name) for name in children}
    if not children or not all(matches.values()):
        return []
    if not all(_is_array(v, 2) or np.ndim(v) == 1 for v in children.values()):
        return []
    layers: dict[int, dict[str, str]] = {}
    for name, match in matches.items():
        if match:
            kind = "w" if match[1] in WEIGHTS else "b"
            layers.setdefault(int(match[2]), {})[kind] = name
    return [
        Group(str(k), children[names["w"]], children.get(names.get("b", "")),
              (names["w"], names.get("b", f"b{k}")))
        for k, names in sorted(layers.items())
        if "w" in names
    ]  # fmt: skip


def _ordered(groups: list[Group], *, rows: bool, order: Sequence[str] | None) -> list[Group]:
    """Return the layers from inputs to outputs."""
    by_path = {group.path: group for group in groups}
    if order is not None:
        if sorted(order) != sorted(by_path):
            raise InputError(f"order={list(order)}", f"each of {', '.join(by_path)} once")
        return [by_path[name] for name in order]
    numbered = all(re.search(r"\d", group.path) for group in groups)
    if _chained(groups, rows) and (numbered or len(groups) > MAX_LISTED):
        return groups
    if len(groups) <= MAX_LISTED:
        fitting = [p for p in itertools.permutations(groups) if _chained(p, rows)]
        if len(fitting) == 1:
            return list(fitting[0])
        if fitting:
            raise InputError(
                f"layers {', '.join(by_path)}, whose shapes chain in {len(fitting)} orders",
                "names with numbers, or shapes that chain in one order",
                "Give order=[…] from inputs to outputs.",
            )
    shapes = ", ".join(f"{g.path} {tuple(g.weights.shape)}" for g in groups)
    raise InputError(
        f"layers whose shapes don't chain ({shapes})",
        "the outputs of one layer as the inputs of the next, weights "
        + ("(n_out, n_in)" if rows else "(n_in, n_out)"),
        f"Give order=[…] from inputs to outputs, or layout={'keras' if rows else 'rows'!r}.",
    )


def _chained(groups: Sequence[Group], rows: bool) -> bool:
    out, into = (0, 1) if rows else (1, 0)
    return all(a.weights.shape[out] == b.weights.shape[into] for a, b in itertools.pairwise(groups))


def _chain(groups: list[Group], rows: bool, activations: list[Any]) -> Chain:
    chain = Chain("params")
    for group, spec in zip(groups, activations, strict=True):
        biases = None if group.biases is None else np.asarray(group.biases)
        layer = Layer(np.asarray(group.weights), biases, group.names, spec, transposed=not rows)
        chain.dense(layer, group.path)
    return chain


def _matched(groups: list[Group], given: list[Group]) -> list[Group]:
    """Return the gradient's layers in the order of the network's."""
    by_path = {group.path: group for group in given}
    missing = [group.path for group in groups if group.path not in by_path]
    if missing or len(given) != len(groups):
        raise InputError(
            f"a gradient with layers {', '.join(by_path)}",
            f"the form of params: {', '.join(g.path for g in groups)}",
            "jax.grad gives a tree of the same form.",
        )
    return [by_path[group.path] for group in groups]
