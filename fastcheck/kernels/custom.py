"""The user's own activations and losses: plain Python scalar functions, as entries like others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numba
from numba.core.errors import NumbaError

from fastcheck.errors import InputError
from fastcheck.kernels.arrays import fill
from fastcheck.kernels.compiling import scalar_kernel
from fastcheck.types import Floats

__all__ = ["Own", "own_activation", "own_loss"]


@dataclass(frozen=True, eq=False)
class Own:
    """What kernels call of a function of the user's own; `odd` for losses alone."""

    name: str
    value: Callable[..., Any]
    difference: Callable[..., Any]
    odd: Callable[..., Any] | None = None


def _calling_one(function: Any) -> Callable[[float], float]:
    return lambda z: float(function(z))


def _calling_two(function: Any) -> Callable[[float, float], float]:
    return lambda output, target: float(function(output, target))


# By the number of arguments.
CALLING: dict[int, Callable[[Any], Callable[..., float]]] = {1: _calling_one, 2: _calling_two}


def _compiled(function: Callable[..., float], arguments: int) -> Any:
    """Return the user's function compiled, or say why numba can't."""
    inner = getattr(function, "py_func", function)
    if not isinstance(inner, FunctionType):  # math.erf, np.arctan: compiled inside of a function
        inner = CALLING[arguments](inner)
    try:
        dispatcher: Any = scalar_kernel(inner)
        dispatcher.compile((numba.float64,) * arguments)
    except (NumbaError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"the function {_name(function)!r} can't be compiled by numba "
            f"({reason[0] if reason else error})",
            f"a function of {arguments} float(s) that returns a float, written with `math`",
            "Replace NumPy array code by scalar code: one element comes in, one goes out.",
        ) from None
    return dispatcher


def _name(function: Callable[..., float]) -> str:
    return getattr(function, "__name__", repr(function))


def own_activation(function: Callable[[float], float]) -> Own:
    """Return the user's own activation as an entry.

    Raises
    ------
    InputError
        Where numba can't compile it.
    """
    own = _compiled(function, 1)

    @scalar_kernel
    def value(z: float, p: float) -> float:
        return float(own(z))

    @scalar_kernel
    def difference(z: float, d: float, p: float) -> float:
        return float(own(z + d)) - float(own(z))

    return Own(_name(function), value, difference)


def own_loss(function: Callable[[float, float], float]) -> Own:
    """Return the user's own loss of one output as an entry.

    Raises
    ------
    InputError
        Where numba can't compile it.
    """
    own = _compiled(function, 2)

    @scalar_kernel
    def value(z: Floats, t: Floats, p: float) -> float:
        loss = 0.0
        for k in range(z.size):
            loss += float(own(z[k], t[k]))
        return loss

    @scalar_kernel
    def difference(z: Floats, t: Floats, p: float, d: Floats, out: Floats) -> None:
        fill(out, 0.0)
        for k in range(z.size):
            here = float(own(z[k], t[k]))
            for c in range(out.size):
                out[c] += float(own(z[k] + d[k, c], t[k])) - here

    @scalar_kernel
    def odd(z: Floats, t: Floats, p: float, up: Floats, down: Floats, out: Floats) -> None:
        fill(out, 0.0)
        for k in range(z.size):
            for c in range(out.size):
                above, below = own(z[k] + up[k, c], t[k]), own(z[k] + down[k, c], t[k])
                out[c] += 0.5 * (float(above) - float(below))

    return Own(_name(function), value, difference, odd)
