"""A model of another program as a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["ModelFunction"]


@dataclass(frozen=True)
class ModelFunction:
    """J(θ), and the model's own gradient.

    Attributes
    ----------
    cost : callable
        `cost(theta)` is J.
    gradient : callable or tree
        `gradient(theta)`, or its value; in the form of θ.
    theta : Any
        The parameters, by the model's own names.
    name : str
        What the model is called.
    notes : tuple of str
    """

    cost: Callable[[Any], Any]
    gradient: Any
    theta: Any
    name: str
    notes: tuple[str, ...] = ()
