"""The user's own activations and losses: plain Python scalar functions made into pointers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numba
from numba.core.errors import NumbaError

from fastcheck.errors import InputError
from fastcheck.kernels.activations import choose
from fastcheck.kernels.compiling import part_kernel, pointer_kernel, scalar_kernel
from fastcheck.kernels.forward import NO_ACTIVATION, NO_LOSS

__all__ = ["activation_pointer", "loss_pointer"]


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
        name = getattr(function, "__name__", repr(function))
        reason = str(error).strip().splitlines()
        raise InputError(
            f"the function {name!r} can't be compiled by numba ({reason[0] if reason else error})",
            f"a function of {arguments} float(s) that returns a float, written with `math`",
            "Replace NumPy array code by scalar code: one element comes in, one goes out.",
        ) from None
    return dispatcher


def _pick_leaf(which: int, function: Any) -> tuple[int, Callable[..., Any]]:
    @part_kernel
    def own(code: int, z: float) -> float:
        return float(function(z))

    return which, own


def activation_pointer(functions: Sequence[Callable[[float], float]]) -> Any:
    """Return a numba function pointer `(k, z) -> functions[k](z)`."""
    if not functions:
        return NO_ACTIVATION
    picked = choose([_pick_leaf(k, _compiled(f, 1)) for k, f in enumerate(functions)])

    def pick(k: int, z: float) -> float:
        return picked(k, z)  # type: ignore[no-any-return]

    return pointer_kernel("float64(int64, float64)", keep=False)(pick)


def loss_pointer(function: Callable[[float, float], float] | None) -> Any:
    """Return a numba function pointer `(output, target) -> loss of one output`."""
    if function is None:
        return NO_LOSS
    compiled = _compiled(function, 2)
    return pointer_kernel("float64(float64, float64)", keep=False)(
        lambda output, target: float(compiled(output, target))
    )
