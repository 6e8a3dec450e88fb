"""Calls of the user's functions on copies, which are then compared with what was handed over."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from fastcheck.errors import InputError

__all__ = ["Handed", "Written", "call_on_copies", "copied", "require_unwritten"]


@dataclass(frozen=True)
class Written:
    """What a function of the user's wrote into.

    Attributes
    ----------
    function : str
        What messages call the function: `gradients`, `cost`.
    arguments : tuple of str
        `inputs`, `targets`, `W1`, `dropout mask 1`; empty where it left all as it was.
    """

    function: str
    arguments: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: one sentence, or none."""
        if not self.arguments:
            return ()
        return (
            f"{self.function} writes into its arguments: {', '.join(self.arguments)}. It was "
            "called on copies, and the check is of the arrays as they were before.",
        )


@dataclass(frozen=True)
class Handed:
    """A network and a batch as the user holds them.

    Attributes
    ----------
    network : Network
    inputs, targets : array_like
        Anything that `np.asarray` reads.
    """

    network: Any
    inputs: Any
    targets: Any

    def copy(self) -> Self:
        """Return copies that share no memory with these."""
        network = self.network
        masks = tuple(None if mask is None else mask.copy() for mask in network.masks)
        own = replace(network, theta=network.theta.copy(), masks=masks)
        return type(self)(own, copied(self.inputs), copied(self.targets))

    def changed_in(self, other: Handed) -> tuple[str, ...]:
        """Return the names of the arrays that are not equal: `inputs`, `W1`, `dropout mask 2`."""
        return tuple(self._changed_in(other))

    def _changed_in(self, other: Handed) -> Iterator[str]:
        for name in ("inputs", "targets"):
            if not _equal(getattr(self, name), getattr(other, name)):
                yield name
        order = self.network.order
        thetas = self.network.theta, other.network.theta
        for block in order.blocks if thetas[0] is not thetas[1] else ():
            if not np.array_equal(thetas[0][block.slice], thetas[1][block.slice]):
                yield block.name
        masks = zip(self.network.masks, other.network.masks, strict=True)
        for layer, (before, after) in enumerate(masks, start=1):
            if before is not None and after is not None and not np.array_equal(before, after):
                yield f"dropout mask {layer}"


def call_on_copies(
    function: Callable[[Any, Any, Any], Any], name: str, handed: Handed
) -> tuple[Any, Written]:
    """Call `function(network, inputs, targets)` on copies; say what it wrote into.

    Parameters
    ----------
    function : callable
    name : str
        What messages call it.
    handed : Handed

    Returns
    -------
    value : Any
        What the function returns.
    written : Written
    """
    copies = handed.copy()
    value = function(copies.network, copies.inputs, copies.targets)
    return value, Written(name, handed.changed_in(copies))


def copied(values: Any) -> Any:
    """Return a copy of an array, a tensor or a list of numbers; what can't be copied, itself."""
    if isinstance(values, np.ndarray):
        return values.copy(order="K")
    if hasattr(values, "detach") and hasattr(values, "clone"):  # only leaves have a deep copy
        return values.detach().clone().requires_grad_(bool(values.requires_grad))
    try:
        return copy.deepcopy(values)
    except Exception:  # a lock, a handle of a file: nothing that is computed with
        return values


def require_unwritten(function: str, arrays: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse a framework's function that wrote into what it was given.

    Parameters
    ----------
    function : str
        What the message calls it.
    arrays : mapping
        By name: an array as it was before, and the copy that the function was given.
    """
    written = [name for name, (before, after) in arrays.items() if not _equal(before, after)]
    if written:
        raise InputError(
            f"{function} writes into its arguments: {', '.join(written)}",
            "a function that leaves the batch as it is",
            "Copy what it changes: x = x - x.mean(axis=0) instead of x -= x.mean(axis=0).",
        )


def _equal(a: Any, b: Any) -> bool:
    """Return whether two arrays, tensors or lists hold the same numbers, NaN being equal to NaN."""
    if a is b:
        return True
    if hasattr(a, "detach"):
        a, b = a.detach().cpu(), b.detach().cpu()
        return bool(a.shape == b.shape and ((a == b) | (a.isnan() & b.isnan())).all())
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")
