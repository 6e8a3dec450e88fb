"""A problem: a network, a batch, and the gradient that is to be checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from fastcheck.model.network import Network

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """What `fastcheck` checks: a network, a batch and the gradient somebody computed.

    Attributes
    ----------
    network : Network
    inputs, targets : array_like
        The batch in the layout that the network was given in.
    gradient : Any
        Any form that `read_gradient` takes: a dictionary `{"dW1": …, "db1": …}`, a list, a flat
        vector, or a callable `gradients(network, inputs, targets)` that returns one of these.
    cost : float or callable, optional
        The user's own J, or `cost(network, inputs, targets)`; it is compared first.
    name : str
        What the report calls it.
    """

    network: Network
    inputs: ArrayLike
    targets: ArrayLike
    gradient: Any
    cost: Any = None
    name: str = ""
