"""Leaves of θ: from float64 values to an array of the type, dtype and device that it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.types import Floats

__all__ = ["Conversion", "conversion_of", "is_parameter"]

EXACT = ("float64", "longdouble", "float128")


@dataclass(frozen=True)
class Conversion:
    """How a leaf is made of float64 values.

    Attributes
    ----------
    make : callable
        From an array of float64 to the leaf.
    held : callable or None
        From values to what the leaf's dtype makes of them; None where it holds them all.
    shared : bool
        Whether `make` returns the array itself.
    """

    make: Callable[[Floats], Any]
    held: Callable[[Floats], Floats] | None = None
    shared: bool = False


def is_parameter(leaf: Any) -> bool:
    """Return whether a leaf inside a tree can be differentiated by."""
    if isinstance(leaf, (bool, np.bool_, str, bytes)) or leaf is None:
        return False
    if isinstance(leaf, (int, float, np.number, list, tuple)):
        return True
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "fiu" or leaf.dtype.name == "bfloat16"
    if _is_torch(leaf):
        return bool(leaf.is_floating_point())
    dtype = getattr(leaf, "dtype", None)
    return hasattr(leaf, "shape") and ("float" in str(dtype))


def conversion_of(leaf: Any, *, top: bool) -> Conversion:
    """Return how to make a leaf like a given one.

    Parameters
    ----------
    leaf : Any
    top : bool
        Whether it is all of θ: then lists of numbers become arrays.
    """
    if _is_torch(leaf):
        return _torch_conversion(leaf)
    if type(leaf).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return _jax_conversion(leaf)
    if isinstance(leaf, (list, tuple)) and not top:
        return Conversion(_nested(type(leaf)))
    return _numpy_conversion(leaf)


def _numpy_conversion(leaf: Any) -> Conversion:
    if isinstance(leaf, (int, float)) and not isinstance(leaf, np.generic):
        return Conversion(_number)
    dtype = np.asarray(leaf).dtype
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    if isinstance(leaf, np.generic):
        kind = dtype.type if floating else np.float64
        return Conversion(_scalar(kind), _held_by(dtype) if floating else None)
    if not floating or dtype == np.float64:
        return Conversion(_itself, shared=True)
    return Conversion(_as_type(dtype), _held_by(dtype))


def _is_torch(leaf: Any) -> bool:
    return any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in type(leaf).__mro__)


def _itself(values: Floats) -> Floats:
    return values


def _number(values: Floats) -> Any:
    return values.item() if values.ndim == 0 else values


def _scalar(kind: Any) -> Callable[[Floats], Any]:
    return lambda values: kind(values) if values.ndim == 0 else values.astype(kind)


def _nested(kind: type) -> Callable[[Floats], Any]:
    def make(values: Floats) -> Any:
        return kind(make(v) if v.ndim else v.item() for v in values)

    return make


def _as_type(dtype: np.dtype[Any]) -> Callable[[Floats], Any]:
    return lambda values: values.astype(dtype)


def _held_by(dtype: np.dtype[Any]) -> Callable[[Floats], Floats] | None:
    if dtype.name in EXACT:
        return None
    return lambda values: values.astype(dtype).astype(np.float64)


def _torch_conversion(leaf: Any) -> Conversion:
    import torch

    dtype, device = leaf.dtype, leaf.device
    grad, parameter = leaf.requires_grad, isinstance(leaf, torch.nn.Parameter)
    plain = dtype == torch.float64 and device.type == "cpu"

    def make(values: Floats) -> Any:
        # `ascontiguousarray` makes a single number an array of one.
        tensor = torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))
        tensor = tensor if plain else tensor.to(dtype=dtype, device=device)
        if parameter:
            return torch.nn.Parameter(tensor, requires_grad=grad)
        return tensor.requires_grad_(grad)

    def held(values: Floats) -> Floats:
        array: Floats = torch.from_numpy(values).to(dtype).to(torch.float64).numpy()
        return array

    return Conversion(make, None if dtype == torch.float64 else held, shared=plain)


def _jax_conversion(leaf: Any) -> Conversion:
    import jax

    dtype = np.dtype(leaf.dtype)
    devices = leaf.devices() if hasattr(leaf, "devices") else set()
    device = next(iter(devices)) if len(devices) == 1 else None

    def make(values: Floats) -> Any:
        # JAX may keep the memory that it is given, so that it has to be its own.
        return jax.device_put(np.array(values, dtype=dtype), device)

    return Conversion(make, _held_by(dtype))
