"""A JAX function as a layer: its forward pass, and what `jax.vjp` makes of its custom rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fastcheck.errors import InputError

__all__ = ["JaxLayer"]


def _x64() -> Any:
    """Return a context in which float64 stays float64."""
    enable = getattr(jax, "enable_x64", None)
    return enable(True) if enable is not None else jax.experimental.enable_x64()


@dataclass(frozen=True)
class JaxLayer:
    """A function of arrays; what goes in and comes out are NumPy arrays.

    Attributes
    ----------
    function : callable
    """

    function: Callable[..., Any]

    def forward(self, *args: Any) -> Any:
        """Return the outputs."""
        with _x64():
            made = self.function(*map(_array, args))
            outputs = made if isinstance(made, (tuple, list)) else (made,)
            found = tuple(np.asarray(out) for out in outputs)
        return found if len(found) > 1 else found[0]

    def backward(self, dout: Any, *args: Any) -> tuple[Any, ...]:
        """Return the gradients that `jax.vjp` gives; complex ones as PyTorch defines them."""
        with _x64():
            made, pull = jax.vjp(lambda *real: self._called(args, real), *_real(args))
            found = pull(_cotangents(dout, made))
            return _filled(args, [np.conj(np.asarray(g)) for g in found])

    def jvp(self, tangents: tuple[Any, ...], *args: Any) -> Any:
        """Return the tangents of the outputs."""
        with _x64():
            real = _real(args)
            directions = [_array(t) for t in tangents if t is not None]
            pairs = zip(real, directions, strict=True)
            moved = tuple(jax.numpy.asarray(t, x.dtype) for x, t in pairs)
            _, found = jax.jvp(lambda *values: self._called(args, values), real, moved)
            made = tuple(np.asarray(t) for t in found) if isinstance(found, tuple) else found
        return made if isinstance(made, tuple) else np.asarray(made)

    def double_backward(self, ddx: Any, dout: Any, *args: Any) -> tuple[Any, ...]:
        """Return the gradients of ⟨ddx, backward(dout, *args)⟩ for dout and the arguments."""
        with _x64():

            def first(start: Any, *real: Any) -> tuple[Any, ...]:
                _, pull = jax.vjp(lambda *values: self._called(args, values), *real)
                return tuple(pull(start))

            _, pull = jax.vjp(first, _array(dout), *_real(args))
            weights = ddx if isinstance(ddx, tuple) else (ddx,)
            found = [np.asarray(g) for g in pull(tuple(map(_array, weights)))]
            return (found[0], *_filled(args, found[1:]))

    def has_forward_mode(self, *args: Any) -> bool:
        """Return whether the function has forward mode, which `custom_vjp` has not."""
        try:
            self.jvp(tuple(np.zeros_like(a) if _is_real(a) else None for a in args), *args)
        except TypeError:
            return False
        return True

    def _called(self, args: tuple[Any, ...], real: tuple[Any, ...]) -> Any:
        made = self.function(*_filled([_array(a) for a in args], real))
        return tuple(made) if isinstance(made, list) else made


def _array(value: Any) -> Any:
    return jax.numpy.asarray(value) if hasattr(value, "shape") else value


def _is_real(value: Any) -> bool:
    return hasattr(value, "shape") and np.asarray(value).dtype.kind not in "iub"


def _real(args: tuple[Any, ...]) -> tuple[Any, ...]:
    found = tuple(_array(a) for a in args if _is_real(a))
    if not found:
        raise InputError("arguments without a floating-point array", "an array at least")
    return found


def _filled(args: Any, real: Any) -> tuple[Any, ...]:
    """Return arguments with those of real numbers replaced; None for the others' gradients."""
    parts = iter(real)
    keep = not isinstance(args, tuple)
    return tuple(next(parts) if _is_real(a) else (a if keep else None) for a in args)


def _cotangents(dout: Any, made: Any) -> Any:
    """Return a cotangent for each output; outputs of integers take zeros of float0."""
    outputs = made if isinstance(made, tuple) else (made,)
    given = dout if isinstance(dout, tuple) else (dout,)
    found = tuple(
        np.zeros(out.shape, jax.dtypes.float0)
        if out.dtype.kind in "iub"
        else jax.numpy.asarray(np.conj(d), out.dtype)
        for out, d in zip(outputs, given, strict=True)
    )
    return found if isinstance(made, tuple) else found[0]
