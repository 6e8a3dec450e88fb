"""The gradient of a function as the user gives it, and what its own rounding does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.model.parameter_tree import ParameterTree
from fastcheck.types import Floats
from fastcheck.validation import lower_precision, unit_roundoff

__all__ = ["GivenGradient", "read_gradient"]


ROUNDING_LIKE = 1e-5  # of the largest component: what threads and atomics may change
ULPS = 2.0  # by which θ is moved to see how the gradient's rounding changes
SCATTER_CALLS = 2
# The scatter of a gradient at a kink is no rounding.
LARGEST_SCATTER = {"float64": 1e-8, "float32": 1e-3}
ROUNDING_FACTOR = 30.0
LARGEST_SCATTERED = 10**6
FEWEST_FLOAT32 = 8  # values that float32 holds exactly, from which on that is no coincidence


@dataclass(frozen=True)
class GivenGradient:
    """A gradient.

    Attributes
    ----------
    vector : ndarray, shape (N,), float64
    precision : str
        What it was computed in, as far as its values tell.
    scatter : ndarray, shape (N,), float64, or float
        How far a callable's components move with the last bits of θ.
    notes : tuple of str
    """

    vector: Floats
    precision: str
    scatter: Floats | float = 0.0
    notes: tuple[str, ...] = ()

    def rounding(self, precision: str) -> Floats:
        """Return a bound of what rounding in a precision does to each component.

        One rounding of it and of the largest component (nothing is known of the function), or what
        was measured.
        """
        size = np.abs(self.vector)
        sigma = unit_roundoff(precision) * (size + float(size.max())) / 2.0
        return np.asarray(ROUNDING_FACTOR * np.maximum(sigma, self.scatter))

    def rounding_bound(self, precision: str) -> float:
        """Return a bound for a typical component, without an array of N."""
        scatter = self.scatter
        typical = float(np.sqrt(np.mean(np.square(scatter))))
        largest = max(float(self.vector.max()), -float(self.vector.min()))
        return ROUNDING_FACTOR * max(unit_roundoff(precision) * largest, typical)


def read_gradient(
    gradient: Any, tree: ParameterTree, theta: Floats, reseed: Callable[[], Any] | None
) -> GivenGradient:
    """Read a gradient; a callable is called twice at θ, and beside it.

    Raises
    ------
    InputError
        See `ParameterTree.read`; and for a callable that gives two gradients for one θ.
    """
    if not callable(gradient) or _is_container(gradient):
        vector, precision, notes = tree.read(gradient)
        return GivenGradient(vector, lower_precision(precision, _held_in(vector)), 0.0, notes)

    def at(place: Floats) -> tuple[Floats, str, tuple[str, ...]]:
        if reseed is not None:
            reseed()
        return tree.read(gradient(tree.form_of(place.copy())))

    vector, precision, notes = at(theta)
    again = at(theta)[0]
    apart = np.abs(again - vector)
    if np.any(apart > ROUNDING_LIKE * float(np.abs(vector).max())):
        raise InputError(
            "gradient gives two values for the same θ",
            "the same value for the same θ: dropout and other random numbers make it another "
            "function at each call",
            "Check with keep_prob=1 (or .eval()), fix the masks, or give reseed=.",
        )
    precision = lower_precision(precision, _held_in(vector))
    if theta.size > LARGEST_SCATTERED:  # copies of θ count where there are millions
        return GivenGradient(vector, precision, float(np.max(apart)), notes)
    scatter = np.maximum(
        apart, _scatter(lambda place: at(place)[0], tree, theta, vector, precision)
    )
    largest = LARGEST_SCATTER.get(precision, 1e-3) * float(np.abs(vector).max())
    return GivenGradient(vector, precision, np.minimum(scatter, largest), notes)


def _is_container(gradient: Any) -> bool:
    """Return whether something callable is a gradient all the same: a module of arrays."""
    return hasattr(gradient, "__dataclass_fields__") and not hasattr(gradient, "__code__")


def _scatter(
    at: Callable[[Floats], Floats],
    tree: ParameterTree,
    theta: Floats,
    vector: Floats,
    precision: str,
) -> Floats:
    """Return how far each component moves where θ moves by its last bits."""
    random = np.random.default_rng(0)
    squares = np.zeros(theta.size)
    for _ in range(SCATTER_CALLS):
        ulp = np.empty(theta.size)
        for block, conversion in zip(tree.blocks, tree.conversions, strict=True):
            exact = conversion.held is None and precision == "float64"
            ulp[block.slice] = 2.0**-52 if exact else 2.0**-23
        moved = theta * (1.0 + ULPS * ulp * (2.0 * random.random(theta.size) - 1.0))
        try:
            squares += (at(tree.held(0, moved)) - vector) ** 2
        except (InputError, ArithmeticError):  # not defined beside θ
            return np.zeros(theta.size)
    return np.sqrt(squares / SCATTER_CALLS)


def _held_in(vector: Floats) -> str:
    """Return float32 where float64 values are those of a float32 computation."""
    with np.errstate(over="ignore"):
        narrow = vector.astype(np.float32)
        long = narrow.astype(np.float16).astype(np.float64) != vector
    values = np.unique(vector[long & (vector != 0.0)][:1000])
    exact = bool(np.all(narrow.astype(np.float64) == vector))
    return "float32" if exact and values.size >= FEWEST_FLOAT32 else "float64"
