"""Activations and losses as C functions, which kernels call by address.

A kernel that held the whole table would compile every entry, again in each kernel. Here a process
compiles the functions in use, once, and hands their addresses to the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, c_double, c_int64, c_void_p
from functools import cached_property
from types import FunctionType
from typing import Any, NoReturn, Protocol
from weakref import WeakKeyDictionary

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.compiling import c_function, part_kernel
from fastcheck.kernels.losses import LOSSES
from fastcheck.types import Floats, Integers

__all__ = ["Calls", "Numerics", "activate", "change", "loss_growth", "loss_odd", "loss_value"]

carray: Any = vars(numba)["carray"]  # typed in no release
unpack_tuple: Callable[..., Any] = cgutils.unpack_tuple


class Numerics(Protocol):
    """What kernels call of an activation or a loss: an entry of its table, or the user's own."""

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def value(self) -> Callable[..., Any]:
        """As in the table, and so are `difference` and a loss's `odd`."""
        ...

    @property
    def difference(self) -> Callable[..., Any]:
        """See `value`."""
        ...


@intrinsic
def _call_address(_: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address; arrays in the tuple of arguments go as pointers."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if any(isinstance(kind, types.Array) and kind.layout != "C" for kind in signature.args[1]):
            raise TypeError("arrays go to C functions in row order")
        given = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args[1], unpack_tuple(builder, values[1]), strict=True)
        ]
        function = ir.FunctionType(ir.DoubleType(), [value.type for value in given])
        return builder.call(builder.inttoptr(values[0], function.as_pointer()), given)

    return types.float64(types.int64, arguments), code


_call: Callable[..., Any] = _call_address


@part_kernel
def activate(address: int, p: float, z: Floats) -> None:
    """z becomes φ(z), in place; p is the activation's parameter."""
    _call(address, (p, z, np.int64(z.size)))


@part_kernel
def change(address: int, p: float, z: float, d: Floats) -> None:
    """d becomes φ(z + d) − φ(z), in place, for one z and many d."""
    _call(address, (p, z, d, np.int64(d.size)))


@part_kernel
def loss_value(address: int, p: float, z: Floats, t: Floats) -> float:
    """ℓ of one sample."""
    return _call(address, (p, z, t, np.int64(1), np.int64(z.size)))  # type: ignore[no-any-return]


@part_kernel
def loss_growth(address: int, p: float, z: Floats, t: Floats, d: Floats, out: Floats) -> None:
    """out[c] = ℓ(z + d[:, c]) − ℓ(z) of one sample; d is overwritten."""
    _call(address, (p, z, t, d, out, np.int64(z.size), np.int64(out.size)))


@part_kernel
def loss_odd(
    address: int, p: float, z: Floats, t: Floats, up: Floats, down: Floats, out: Floats
) -> None:
    """out[c] = (ℓ(z + up[:, c]) − ℓ(z + down[:, c])) / 2 of one sample; overwrites up and down."""
    _call(address, (p, z, t, up, down, out, np.int64(z.size), np.int64(out.size)))


# The bodies of the C functions. `function` is the entry's kernel: see `_c_function`.
function: Any = None


def _activation_value(p: float, z: Any, n: int) -> float:
    values = carray(z, (n,))
    for i in range(n):
        values[i] = function(values[i], p)
    return 0.0


def _activation_difference(p: float, z: float, d: Any, n: int) -> float:
    changes = carray(d, (n,))
    for i in range(n):
        changes[i] = function(z, changes[i], p)
    return 0.0


def _loss_value(p: float, z: Any, t: Any, m: int, n: int) -> float:
    outputs, targets = carray(z, (m, n)), carray(t, (m, n))
    total = 0.0
    for s in range(m):
        total += function(outputs[s], targets[s], p)
    return total


def _loss_difference(p: float, z: Any, t: Any, d: Any, out: Any, n: int, columns: int) -> float:
    function(carray(z, (n,)), carray(t, (n,)), p, carray(d, (n, columns)), carray(out, (columns,)))
    return 0.0


def _loss_odd(
    p: float, z: Any, t: Any, up: Any, down: Any, out: Any, n: int, columns: int
) -> float:
    function(
        carray(z, (n,)), carray(t, (n,)), p,
        carray(up, (n, columns)), carray(down, (n, columns)), carray(out, (columns,)),
    )  # fmt: skip
    return 0.0


F = "CPointer(float64)"
# By body: which of an entry's kernels it calls, and its signature.
BODIES: dict[Callable[..., float], tuple[str, str]] = {
    _activation_value: ("value", f"float64(float64, {F}, int64)"),
    _activation_difference: ("difference", f"float64(float64, float64, {F}, int64)"),
    _loss_value: ("value", f"float64(float64, {F}, {F}, int64, int64)"),
    _loss_difference: ("difference", f"float64(float64, {F}, {F}, {F}, {F}, int64, int64)"),
    _loss_odd: ("odd", f"float64(float64, {F}, {F}, {F}, {F}, {F}, int64, int64)"),
}
# Compiled functions live as long as their entry, those of the tables as long as the process.
_compiled: WeakKeyDictionary[Numerics, dict[Callable[..., float], Any]] = WeakKeyDictionary()


def _address(body: Any, entry: Numerics) -> int:
    """Return where this process has a C function; it is compiled at the first call.

    It is a copy of its body in which `function` is the entry's kernel. A closure would never be
    found in the cache again; a function that has a name of its own is. The user's own are not kept:
    no cache tells two of one name apart.
    """
    known = _compiled.setdefault(entry, {})
    if body not in known:
        column, signature = BODIES[body]
        name = f"{body.__name__}_{entry.name}"
        copy = FunctionType(
            body.__code__.replace(co_name=name, co_qualname=name),
            {**body.__globals__, "function": getattr(entry, column)},
            name,
        )
        of_table = any(entry is one for one in [*ACTIVATIONS.values(), *LOSSES.values()])
        known[body] = c_function(signature, copy, keep=of_table)
    return int(known[body].address)


class Calls:
    """Where this process has the activations and the loss of a network.

    Nothing is compiled before it is asked for, and no address leaves the process.

    Parameters
    ----------
    activations : sequence of Numerics
        One a layer.
    loss : Numerics
    """

    def __init__(self, activations: Sequence[Numerics], loss: Numerics) -> None:
        self._activations = (*activations, ACTIVATIONS["identity"])
        self._loss = loss

    def __reduce__(self) -> NoReturn:
        raise TypeError("addresses of one process are not valid in another")

    @cached_property
    def values(self) -> Integers:
        """Of φ_1, …, φ_L, and of the identity, shape (L + 1,)."""
        return np.array([_address(_activation_value, a) for a in self._activations], np.int64)

    @cached_property
    def differences(self) -> Integers:
        """The same of their differences."""
        return np.array([_address(_activation_difference, a) for a in self._activations], np.int64)

    @cached_property
    def loss_value(self) -> int:
        """Of ℓ."""
        return _address(_loss_value, self._loss)

    @cached_property
    def loss_growth(self) -> int:
        """Of ℓ's difference."""
        return _address(_loss_difference, self._loss)

    @cached_property
    def loss_odd(self) -> int:
        """Of its odd part."""
        return _address(_loss_odd, self._loss)

    def compile_all(self) -> None:
        """Compile whatever any method calls."""
        _ = self.values, self.differences, self.loss_value, self.loss_growth, self.loss_odd

    def activate(self, layer: int, p: float, z: Floats) -> None:
        """Make z φ_l(z), in place; z is contiguous."""
        apply = CFUNCTYPE(c_double, c_double, c_void_p, c_int64)(int(self.values[layer - 1]))
        apply(p, z.ctypes.data, z.size)

    def sum_of_losses(self, p: float, z: Floats, t: Floats) -> float:
        """Return Σ_s ℓ_s of outputs and targets (m, K), both in row order."""
        value = CFUNCTYPE(c_double, c_double, *[c_void_p] * 2, *[c_int64] * 2)(self.loss_value)
        return float(value(p, z.ctypes.data, np.ascontiguousarray(t).ctypes.data, *z.shape))
