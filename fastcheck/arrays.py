"""θ as users of any function keep it: a number, an array, a dictionary or a list of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.door import finite_array, lower_precision
from fastcheck.errors import InputError, near_names

__all__ = ["ArrayBlock", "ArrayOrder"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArrayBlock:
    """One array of θ: its name, shape, and where it starts."""

    name: str
    shape: tuple[int, ...]
    offset: int
    layer: int
    kind: str = "array"

    @property
    def size(self) -> int:
        """Number of components."""
        return int(np.prod(self.shape))

    @property
    def slice(self) -> slice:
        """Where the block lies in θ."""
        return slice(self.offset, self.offset + self.size)

    @property
    def owner_shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.shape

    @property
    def gradient_name(self) -> str:
        """`dθ`, `dw`, or `d(net.2.weight)`."""
        return f"d{self.name}" if self.name.isidentifier() else f"d({self.name})"


@dataclass(frozen=True)
class ArrayOrder:
    """The order of θ, and the form that the function takes it in.

    Attributes
    ----------
    blocks : tuple of ArrayBlock
    form : str
        `number`, `array`, `mapping` or `sequence`.
    """

    blocks: tuple[ArrayBlock, ...]
    form: str

    @classmethod
    def of(cls, theta: Any) -> tuple[ArrayOrder, Floats, str]:
        """Read θ.

        Returns
        -------
        order : ArrayOrder
        vector : ndarray, shape (N,), float64
            A copy.
        precision : str
            The coarsest that it came in.
        """
        form, given = _parts(theta)
        blocks, values, precisions, offset = [], [], ["float64"], 0
        for layer, (name, array) in enumerate(given.items(), start=1):
            converted, precision = finite_array(array, name)
            blocks.append(ArrayBlock(name, converted.shape, offset, layer))
            values.append(converted.ravel())
            precisions.append(precision)
            offset += converted.size
        if offset == 0:
            raise InputError("θ is empty", "at least one number")
        return cls(tuple(blocks), form), np.concatenate(values), lower_precision(*precisions)

    @cached_property
    def size(self) -> int:
        """N."""
        return self.blocks[-1].offset + self.blocks[-1].size

    def locate(self, index: int) -> str:
        """Return a component's name: `θ[3]`, `w[2, 0]`."""
        block = next(b for b in self.blocks if index < b.slice.stop)
        if not block.shape:
            return block.name
        place = np.unravel_index(index - block.offset, block.shape)
        return f"{block.name}[{', '.join(str(int(p)) for p in place)}]"

    def form_of(self, vector: Floats) -> Any:
        """Return a vector in the form of θ; arrays are views into it."""
        views = [vector[b.slice].reshape(b.shape) for b in self.blocks]
        if self.form == "number":
            return float(vector[0])
        if self.form == "array":
            return views[0]
        if self.form == "sequence":
            return views
        return {b.name: v for b, v in zip(self.blocks, views, strict=True)}

    def read(self, gradient: Any) -> tuple[Floats, str]:
        """Read a gradient in the form of θ, or as a flat vector.

        Returns
        -------
        vector : ndarray, shape (N,), float64
        precision : str

        Raises
        ------
        InputError
            For other shapes, missing or extra names, NaN or infinity.
        """
        vector, precisions = np.empty(self.size), ["float64"]
        for block, values in self._given(gradient):
            array, precision = finite_array(values, block.gradient_name)
            if array.shape != block.shape and not (array.size == block.size == max(array.shape)):
                turned = array.shape == block.shape[::-1]
                raise InputError(
                    f"{block.gradient_name} has shape {array.shape}",
                    f"{block.shape}, the shape of {block.name}",
                    "Its transpose would fit." if turned else "",
                )
            vector[block.slice] = array.ravel()
            precisions.append(precision)
        return vector, lower_precision(*precisions)

    def _given(self, gradient: Any) -> list[tuple[ArrayBlock, Any]]:
        """Return what was given for each block."""
        if self.form == "mapping" and isinstance(gradient, Mapping):
            return [(block, _entry(gradient, block)) for block in self.blocks]
        if self.form == "sequence" and isinstance(gradient, (list, tuple)):
            if len(gradient) != len(self.blocks):
                raise InputError(f"a gradient of {len(gradient)} arrays", f"{len(self.blocks)}")
            return list(zip(self.blocks, gradient, strict=True))
        if len(self.blocks) == 1:
            return [(self.blocks[0], gradient)]
        vector, precision = finite_array(gradient, "the gradient")
        if vector.shape != (self.size,):
            raise InputError(
                f"a gradient of shape {vector.shape}", f"the form of θ, or shape ({self.size},)"
            )
        cut = vector if precision == "float64" else np.asarray(gradient)
        return [(block, cut[block.slice].reshape(block.shape)) for block in self.blocks]


def _parts(theta: Any) -> tuple[str, dict[str, Any]]:
    """Return the form of θ and its arrays by name."""
    if isinstance(theta, Mapping):
        return "mapping", {str(name): array for name, array in theta.items()}
    if isinstance(theta, (list, tuple)) and any(getattr(part, "ndim", 0) for part in theta):
        return "sequence", {f"θ{i}": part for i, part in enumerate(theta)}
    if isinstance(theta, (int, float, np.number)):
        return "number", {"θ": theta}
    return "array", {"θ": theta}


def _entry(gradient: Mapping[str, Any], block: ArrayBlock) -> Any:
    """Return a mapping's entry for a block, under the parameter's name or the gradient's."""
    for name in (block.name, block.gradient_name, f"d{block.name}"):
        if name in gradient:
            return gradient[name]
    near = near_names(block.name, map(str, gradient)) if gradient else ""
    raise InputError(f"the gradient has no {block.name!r}", "one entry for each of θ's", near)
