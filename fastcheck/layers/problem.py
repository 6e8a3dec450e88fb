"""A layer as a scalar function: J of its inputs and the gradient of J, for `gradcheck_function`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.model.layer import Layer, Values, inner_product, like, numbers, real_values, widened

__all__ = ["LayerProblem"]

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerProblem:
    """J of the inputs, and its gradient, as `gradcheck_function` takes them.

    Attributes
    ----------
    layer : Layer
    dout : tuple
    names : tuple of str
        The inputs that are θ.
    """

    layer: Layer
    dout: tuple[Any, ...]
    names: tuple[str, ...]

    def theta(self) -> dict[str, Any]:
        """Return θ by name: complex inputs as pairs, real ones as what they are."""
        made = {}
        for name in self.names:
            value = self.layer.inputs[name]
            made[name] = real_values(value, name) if name in self.complex_names else value
            if isinstance(value, list):
                made[name] = np.asarray(value)
        return made

    def scale(self) -> float:
        """Return the smallest rms of an input that is not zero; 1 where all are."""
        arrays = [numbers(self.layer.inputs[name]) for name in self.names]
        sizes = [np.linalg.norm(a.ravel()) / max(a.size, 1) ** 0.5 for a in arrays]
        return float(min((size for size in sizes if size > 0.0), default=1.0))

    @cached_property
    def complex_names(self) -> tuple[str, ...]:
        """The inputs that are complex: pairs in θ."""
        kinds = {name: numbers(self.layer.inputs[name]).dtype.kind for name in self.names}
        return tuple(name for name, kind in kinds.items() if kind == "c")

    @cached_property
    def weights(self) -> tuple[Any, ...]:
        """Each dout as float64 or complex128: J is evaluated often, and dout stays what it is."""
        return tuple(None if part is None else widened(part) for part in self.dout)

    def inputs(self, theta: dict[str, Any]) -> Values:
        """Return the inputs at some θ."""
        moved = {**self.layer.inputs, **theta}
        for name in self.complex_names:
            parts = theta[name]
            moved[name] = like(self.layer.inputs[name], parts[..., 0] + 1j * parts[..., 1])
        return moved

    def cost(self, theta: dict[str, Any]) -> float:
        """Return J = Re Σ⟨dout, forward⟩."""
        return inner_product(self.weights, self.layer.at(self.inputs(theta)).outputs())

    def gradient(self, theta: dict[str, Any]) -> dict[str, Array]:
        """Return the gradients by name."""
        found = self.layer.at(self.inputs(theta)).gradients(self.dout).values
        return {name: self._real(name, found[name]) for name in self.names}

    def _real(self, name: str, value: Array) -> Array:
        if name in self.complex_names:
            return np.stack([value.real, value.imag], axis=-1)
        return value.real if value.dtype.kind == "c" else value

    def gradient_or_value(self) -> Any:
        """Return the gradient as a callable; its value where two calls give two of them."""
        first, second = (self.gradient(self.theta()) for _ in range(2))
        same = all(np.allclose(first[n], second[n], rtol=1e-6, atol=0.0) for n in first)
        finite = all(np.isfinite(value).all() for value in first.values())
        if not finite:
            raise InputError("backward returns NaN or infinity", "finite numbers")
        return self.gradient if same else first
