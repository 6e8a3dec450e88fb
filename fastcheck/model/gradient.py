"""Read the gradient that is to be checked, in any of the forms that people keep it in."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcheck.determinism import require_deterministic
from fastcheck.errors import InputError, near_names
from fastcheck.model.cost import CostComparison, compare_cost
from fastcheck.model.network import Network, bias_vector
from fastcheck.model.parameters import Block
from fastcheck.model.user_calls import Handed, call_on_copies
from fastcheck.norms import relative_difference
from fastcheck.types import Floats
from fastcheck.validation import finite_array, lower_precision, unit_roundoff

__all__ = ["CostComparison", "Gradient", "compare_cost", "read_gradient"]


FORMS = (
    "a dictionary {'dW1': …, 'db1': …}, a list [dW1, db1, …] or [(dW1, db1), …], a flat vector, or "
    "a function gradients(network, inputs, targets) that returns one of these"
)
# What courses keep in the same dictionary: the gradients of the activations and of Z.
BY_THE_WAY = re.compile(r"d[AZ]\d+")
# Two calls that differ by no more than so many roundings differ in the order of their sums.
REORDERED = 1e4


@dataclass(frozen=True)
class Gradient:
    """The given gradient.

    Attributes
    ----------
    vector : ndarray, shape (N,), float64
        In the order of θ.
    precision : str
        The coarsest precision among its arrays and the parameters.
    missing : tuple of str
        Blocks that were given as None and are taken as zero.
    notes : tuple of str
        What a reader should know, a sentence each.
    """

    vector: Floats
    precision: str
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_gradient(network: Network, gradient: Any, inputs: Any, targets: Any) -> Gradient:
    """Read a gradient; a callable is called on copies, and what it writes into is noted.

    Parameters
    ----------
    network : Network
    gradient : mapping, sequence, array_like or callable
        `{"dW1": …, "db1": …}` (or by the parameters' own names), `[dW1, db1, …]`,
        `[(dW1, db1), …]`, `(dWs, dbs)`, a flat vector in the user's layout, or a function
        `gradients(network, inputs, targets)` that returns one of these. None for a block is zero.
    inputs, targets : array_like
        The batch in the user's layout, for the function, which is called twice.

    Returns
    -------
    Gradient

    Raises
    ------
    InputError
        For blocks that are missing or of another shape, unknown names, NaN or infinity, and for a
        function that gives two values for the same θ.
    """
    if not callable(gradient):
        return _read(network, gradient)

    handed = Handed(network, inputs, targets)

    def call() -> Gradient:
        given, written = call_on_copies(gradient, "gradients", handed)
        read = _read(network, given)
        # A copy: a function may fill the same arrays every time.
        return replace(read, vector=read.vector.copy(), notes=(*read.notes, *written.notes))

    first: Gradient = require_deterministic(call, "gradients", _same)
    return first


def _same(first: Gradient, second: Gradient) -> bool:
    if np.array_equal(first.vector, second.vector):
        return True
    apart = relative_difference(first.vector, second.vector)
    return apart <= REORDERED * unit_roundoff(first.precision)


def _read(network: Network, given: Any) -> Gradient:
    """Read anything but a callable."""
    given = _collected(given)
    arrays = _by_block(network, given)
    if arrays is None:
        return _from_vector(network, given)
    missing = tuple(block.gradient_name for block, values in arrays if values is None)
    notes = tuple(f"{name} was given as None and is taken as zero." for name in missing)
    parts: dict[str, Floats] = {}
    precisions = [network.precision]
    for block, values in arrays:
        if values is None:
            parts[block.name] = np.zeros(block.shape)
            continue
        parts[block.name], precision = _block_array(network, block, values)
        precisions.append(precision)
    return Gradient(network.order.pack(parts), lower_precision(*precisions), missing, notes)


def _by_block(network: Network, given: Any) -> list[tuple[Block, Any]] | None:
    """Return what was given for each block, None for a flat vector."""
    blocks = network.order.blocks
    if isinstance(given, Mapping):
        return _from_mapping(blocks, given)
    if isinstance(given, (list, tuple)) and not _all_numbers(given):
        return _from_sequence(network, given)
    one_matrix = len(blocks) == 1 and given is not None and np.ndim(given) == 2
    return [(blocks[0], given)] if one_matrix else None


def _collected(given: Any) -> Any:
    """Return as a list or dictionary what can be read only once, or has no places."""
    if isinstance(given, ItemsView):
        return dict(given)
    return list(given) if isinstance(given, (Iterator, ValuesView, deque)) else given


def _all_numbers(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(v, (int, float, np.number)) for v in values)


def _names(block: Block) -> list[str]:
    """Return the keys under which a block's gradient may be found, the best first."""
    short = f"{block.kind}{block.layer}"
    return list(dict.fromkeys([block.gradient_name, f"d{short}", block.name, short]))


def _from_mapping(blocks: Sequence[Block], given: Mapping[str, Any]) -> list[tuple[Block, Any]]:
    found: list[tuple[Block, Any]] = []
    used: set[str] = set()
    for block in blocks:
        names = _names(block)
        key = next((name for name in names if name in given), None)
        if key is None:
            known = ", ".join(map(str, given)) or "nothing"
            unread = [str(k) for k in given if not any(k in _names(b) for b in blocks)]
            near = near_names(names[0], unread) if unread else ""
            raise InputError(
                f"the gradient has no {names[0]!r}; it has {known}",
                f"one entry for each of {', '.join(b.gradient_name for b in blocks)}",
                near if near.startswith("Did") else "",
            )
        used.update(names)
        found.append((block, given[key]))
    extra = [str(k) for k in given if k not in used and not BY_THE_WAY.fullmatch(str(k))]
    if extra:
        raise InputError(
            f"the gradient has {extra[0]!r}, which is no parameter of this network",
            f"{', '.join(b.gradient_name for b in blocks)} and no others",
            "A layer without biases has no db; a penalty's or a later layer's gradient belongs to "
            "another network.",
        )
    return found


def _from_sequence(network: Network, given: Sequence[Any]) -> list[tuple[Block, Any]]:
    """Read [dW1, db1, …], [(dW1, db1), …] or (dWs, dbs)."""
    blocks = list(network.order.blocks)
    if all(isinstance(v, (list, tuple)) for v in given):
        leaves = [v for pair in given for v in pair]
        separate = [b for kind in "Wb" for b in blocks if b.kind == kind]
        two_lists = len(given) == 2 and len(leaves) == len(blocks)
        if two_lists and _fits(separate, leaves) and not _fits(blocks, leaves):
            return list(zip(separate, leaves, strict=True))
    else:
        leaves = list(given)
    if len(leaves) != len(blocks):  # None stands where a layer has no biases
        every = [network.order.biases(layer) is not None for layer in range(1, network.depth + 1)]
        if len(leaves) == 2 * network.depth:
            has = [keep for layer in every for keep in (True, layer)]
            leaves = [v for v, keep in zip(leaves, has, strict=True) if keep or v is not None]
    if len(leaves) != len(blocks):
        raise InputError(
            f"a gradient of {len(leaves)} arrays",
            f"{len(blocks)}: {', '.join(b.gradient_name for b in blocks)}",
        )
    return list(zip(blocks, leaves, strict=True))


def _size(values: Any) -> int:
    return int(np.prod(np.shape(values)))


def _fits(blocks: Sequence[Block], values: Sequence[Any]) -> bool:
    """Return whether every array has the size of its block."""
    return all(
        v is None or np.shape(v) == b.user_shape or (b.kind == "b" and _size(v) == b.size)
        for b, v in zip(blocks, values, strict=True)
    )


def _from_vector(network: Network, given: Any) -> Gradient:
    """Read a flat vector in the user's layout."""
    if given is None or isinstance(given, (str, bytes)):
        raise InputError(f"a gradient of type {type(given).__name__}", FORMS)
    array, precision = finite_array(given, "the gradient")
    order = network.order
    if array.size != order.size or max(array.shape, default=1) != array.size:
        raise InputError(f"a gradient of shape {array.shape}", f"({order.size},), or {FORMS}")
    vector = array.reshape(-1)
    if any(block.transposed for block in order.blocks):
        parts = {b.name: vector[b.slice].reshape(b.user_shape) for b in order.blocks}
        turned = {b.name: parts[b.name].T if b.transposed else parts[b.name] for b in order.blocks}
        vector = order.pack(turned)
    return Gradient(vector, lower_precision(precision, network.precision))


def _block_array(network: Network, block: Block, values: Any) -> tuple[Floats, str]:
    """Return a block's gradient in row convention, and its precision."""
    name = block.gradient_name
    if block.kind == "b":
        return bias_vector(values, block.size, name)
    array, precision = finite_array(values, name)
    if array.shape != block.user_shape:
        remedy = ""
        if array.shape == block.user_shape[::-1]:
            remedy = "Its transpose would fit."
        elif array.size == block.size:
            remedy = f"It has as many components: {name}.reshape({block.user_shape})?"
        raise InputError(
            f"{name} has shape {array.shape}",
            f"{block.user_shape}, the shape of {block.name}",
            remedy,
        )
    return (array.T if block.transposed else array), precision
