"""θ of any function: a number, an array, or any nesting of containers of arrays.

Leaves may be NumPy, PyTorch or JAX arrays; the function gets them back as what they were.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.model.leaves import Conversion, conversion_of, is_parameter
from fastcheck.types import Floats
from fastcheck.validation import finite_array, lower_precision

__all__ = ["ArrayBlock", "ParameterTree"]

Step = tuple[str, Any]  # how to get from a container to a part: by "key", "index" or "field"
Path = tuple[Step, ...]
NUMBERS = (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class ArrayBlock:
    """One array of θ: its name, shape, and where it starts."""

    name: str
    shape: tuple[int, ...]
    offset: int
    layer: int
    kind: str = "array"

    @cached_property
    def size(self) -> int:
        """Number of components."""
        return math.prod(self.shape)

    @property
    def slice(self) -> slice:
        """Where the block lies in θ."""
        return slice(self.offset, self.offset + self.size)

    @property
    def user_shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.shape

    @property
    def gradient_name(self) -> str:
        """`dθ`, `dw`, or `d(net.2.weight)`."""
        return f"d{self.name}" if self.name.isidentifier() else f"d({self.name})"


@dataclass(frozen=True)
class ParameterTree:
    """The order of θ, and the form that the function takes it in.

    Attributes
    ----------
    blocks : tuple of ArrayBlock
        One for each leaf that is a parameter.
    paths : tuple of Path
        Where the leaves are in the tree.
    conversions : tuple of Conversion
        From a block's float64 values to the leaf, and to what the leaf's dtype can hold.
    original : Any
        θ as it was given; whatever is no parameter is taken from it.
    form : str
        `number`, `array`, `flat mapping`, `flat sequence` or `tree`.
    """

    blocks: tuple[ArrayBlock, ...]
    paths: tuple[Path, ...]
    conversions: tuple[Conversion, ...]
    original: Any
    form: str

    @classmethod
    def of(
        cls, theta: Any, chosen: Sequence[str] | None = None
    ) -> tuple[ParameterTree, Floats, str]:
        """Read θ.

        Parameters
        ----------
        theta : Any
        chosen : sequence of str, optional
            Names of blocks, or patterns (`encoder.*`); the others are not parameters.

        Returns
        -------
        tree : ParameterTree
        vector : ndarray, shape (N,), float64
            A copy.
        precision : str
            The coarsest that it came in.

        Raises
        ------
        InputError
            For an empty θ, values that are no finite numbers, and an unknown block.
        """
        form = _form(theta)
        leaves = [(_name(path, form), path, leaf) for path, leaf in _leaves(theta)]
        leaves = _selected(leaves, chosen)
        blocks, values, precisions, offset = [], [], ["float64"], 0
        for layer, (name, _, leaf) in enumerate(leaves, start=1):
            converted, precision = finite_array(leaf, name)
            blocks.append(ArrayBlock(name, converted.shape, offset, layer))
            values.append(converted.ravel())
            precisions.append(precision)
            offset += converted.size
        if offset == 0:
            raise InputError("θ is empty", "at least one number")
        conversions = tuple(conversion_of(leaf, top=not path) for _, path, leaf in leaves)
        paths = tuple(path for _, path, _ in leaves)
        tree = cls(tuple(blocks), paths, conversions, theta, form)
        return tree, np.concatenate(values), lower_precision(*precisions)

    @cached_property
    def size(self) -> int:
        """N."""
        return self.blocks[-1].offset + self.blocks[-1].size

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where the blocks start."""
        return np.array([block.offset for block in self.blocks])

    @property
    def shared(self) -> bool:
        """Whether all leaves are views into the vector that they are made of."""
        return all(conversion.shared for conversion in self.conversions)

    def number_of(self, index: int) -> int:
        """Return the number of the block that a component is in."""
        return int(np.searchsorted(self.offsets, index, side="right")) - 1

    def locate(self, index: int) -> str:
        """Return a component's name: `θ[3]`, `w[2, 0]`, `params["dense"]["kernel"][3, 17]`."""
        block = self.blocks[self.number_of(index)]
        if not block.shape:
            return block.name
        place = np.unravel_index(index - block.offset, block.shape)
        return f"{block.name}[{', '.join(str(int(p)) for p in place)}]"

    def leaf(self, number: int, vector: Floats) -> Any:
        """Return a leaf made of its values in a vector, (…, N); leading axes stay in front."""
        block = self.blocks[number]
        view = vector[..., block.slice].reshape((*vector.shape[:-1], *block.shape))
        return self.conversions[number].make(view)

    def form_of(self, vector: Floats) -> Any:
        """Return a vector, (…, N), in the form of θ; float64 arrays are views into it."""
        return self.with_leaves([self.leaf(k, vector) for k in range(len(self.blocks))])

    def with_leaves(self, leaves: Sequence[Any]) -> Any:
        """Return θ with other leaves."""
        if self.paths == ((),):
            return leaves[0]
        return _rebuilt(self.original, dict(zip(self.paths, leaves, strict=True)), ())

    def held(self, start: int, values: Floats) -> Floats:
        """Return values of the components from `start` on as the dtypes of their leaves hold them.

        Parameters
        ----------
        start : int
        values : ndarray, shape (n,), float64
        """
        stop = start + values.size
        for number in range(self.number_of(start), self.number_of(stop - 1) + 1):
            conversion, block = self.conversions[number], self.blocks[number]
            if conversion.held is not None:
                low, high = max(start, block.offset), min(stop, block.slice.stop)
                part = slice(low - start, high - start)
                values[part] = conversion.held(values[part])
        return values

    def held_at(self, indices: NDArray[np.int64], values: Floats) -> Floats:
        """Return values of some components as the dtypes of their leaves hold them.

        Parameters
        ----------
        indices : ndarray, shape (n,), int64, increasing
        values : ndarray, shape (n,) or (n, k), float64
        """
        ends = np.searchsorted(indices, [block.slice.stop for block in self.blocks])
        first = 0
        for conversion, stop in zip(self.conversions, ends.tolist(), strict=True):
            if conversion.held is not None and stop > first:
                values[first:stop] = conversion.held(values[first:stop])
            first = stop
        return values

    def read(self, gradient: Any) -> tuple[Floats, str, tuple[str, ...]]:
        """Read a gradient in the form of θ, or as a flat vector.

        Returns
        -------
        vector : ndarray, shape (N,), float64
        precision : str
        notes : tuple of str
            Which blocks have no gradient (None), which is taken as zero.

        Raises
        ------
        InputError
            For other shapes, missing or extra names, NaN or infinity.
        """
        vector, precisions, missing = np.zeros(self.size), ["float64"], []
        for block, values in self._given(gradient):
            if values is None:
                missing.append(block.name)
                continue
            array, precision = finite_array(values, block.gradient_name)
            _check_shape(array, block)
            vector[block.slice] = array.ravel()
            precisions.append(precision)
        notes = [f"There is no gradient of {name} (None): it is taken as zero." for name in missing]
        return vector, lower_precision(*precisions), tuple(notes)

    def _given(self, gradient: Any) -> list[tuple[ArrayBlock, Any]]:
        """Return what was given for each block."""
        container = _children(gradient) is not None
        if self.form == "flat sequence" and isinstance(gradient, (list, tuple)):
            total = len(self.original)
            if len(gradient) != total:
                raise InputError(f"a gradient of {len(gradient)} arrays", f"{total}")
        elif not container or self.form in ("number", "array"):
            return self._cut(gradient)
        pairs = zip(self.blocks, self.paths, strict=True)
        return [(block, _followed(gradient, path, block)) for block, path in pairs]

    def _cut(self, gradient: Any) -> list[tuple[ArrayBlock, Any]]:
        """Return the blocks of a flat vector, or the gradient of the only block."""
        if len(self.blocks) == 1:
            return [(self.blocks[0], gradient)]
        vector, precision = finite_array(gradient, "the gradient")
        if vector.shape != (self.size,):
            raise InputError(
                f"a gradient of shape {vector.shape}", f"the form of θ, or shape ({self.size},)"
            )
        cut = vector if precision == "float64" else np.asarray(gradient)
        return [(block, cut[block.slice].reshape(block.shape)) for block in self.blocks]


def _check_shape(array: Floats, block: ArrayBlock) -> None:
    if array.shape == block.shape or array.size == block.size == max(array.shape, default=1):
        return
    turned = array.shape == block.shape[::-1]
    raise InputError(
        f"{block.gradient_name} has shape {array.shape}",
        f"{block.shape}, the shape of {block.name}",
        "Its transpose would fit." if turned else "",
    )


def _children(node: Any) -> list[tuple[Step, Any]] | None:
    """Return the parts of a container, None for a leaf."""
    if isinstance(node, Mapping):
        return [(("key", key), part) for key, part in node.items()]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return [(("field", name), getattr(node, name)) for name in node._fields]
    if isinstance(node, (list, tuple)):
        if node and _is_numbers(node):
            return None
        return [(("index", i), part) for i, part in enumerate(node)]
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = dataclasses.fields(node)
        return [(("field", f.name), getattr(node, f.name)) for f in fields if hasattr(node, f.name)]
    return None


def _is_numbers(values: Any) -> bool:
    """Return whether a list holds plain numbers alone, in lists of any depth."""
    return all(
        _is_numbers(v) if isinstance(v, (list, tuple)) else isinstance(v, NUMBERS) for v in values
    )


def _leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the parameters of a tree with their paths."""
    children = _children(node)
    if children is not None:
        for step, part in children:
            yield from _leaves(part, (*path, step))
    elif not path or is_parameter(node):
        yield path, node


def _form(theta: Any) -> str:
    """Return which form θ has."""
    children = _children(theta)
    if children is None:
        return "number" if isinstance(theta, NUMBERS) else "array"
    flat = all(_children(part) is None for _, part in children)
    if flat and isinstance(theta, Mapping):
        return "flat mapping"
    if flat and type(theta) in (list, tuple):
        return "flat sequence"
    return "tree"


def _name(path: Path, form: str) -> str:
    """Return a leaf's name: `θ`, `w`, `θ0`, or its path from `params` on."""
    if not path:
        return "θ"
    if form == "flat mapping":
        return str(path[0][1])
    if form == "flat sequence":
        return f"θ{path[0][1]}"
    return "params" + "".join(_shown(kind, step) for kind, step in path)


def _shown(kind: str, step: Any) -> str:
    if kind == "field":
        return f".{step}"
    return f"[{_quoted(step)}]" if kind == "key" else f"[{step}]"


def _quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def _selected(
    leaves: list[tuple[str, Path, Any]], chosen: Sequence[str] | None
) -> list[tuple[str, Path, Any]]:
    """Return the leaves whose names were chosen."""
    if chosen is None:
        return leaves
    names = [name for name, _, _ in leaves]
    for pattern in [chosen] if isinstance(chosen, str) else chosen:
        if not any(_matches(name, pattern) for name in names):
            raise InputError(f"blocks={pattern!r}", "a block of θ", near_names(pattern, names))
    patterns = [chosen] if isinstance(chosen, str) else list(chosen)
    return [leaf for leaf in leaves if any(_matches(leaf[0], p) for p in patterns)]


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern names a block, or a container that it is in."""
    return (
        name == pattern
        or fnmatch.fnmatchcase(name, pattern)
        or name.startswith((f"{pattern}.", f"{pattern}["))
    )


def _followed(gradient: Any, path: Path, block: ArrayBlock) -> Any:
    """Return the part of a gradient that is where a leaf of θ is."""
    node = gradient
    for depth, (kind, step) in enumerate(path):
        if node is None:
            return None
        node = _part(node, kind, step, block if depth == len(path) - 1 else None)
    return node


def _part(node: Any, kind: str, step: Any, block: ArrayBlock | None) -> Any:
    """Return one part of a container; a leaf's may also be under the gradient's name."""
    if isinstance(node, Mapping):
        names = [step] if block is None else [step, str(step), block.gradient_name, f"d{step}"]
        for name in names:
            if name in node:
                return node[name]
        near = near_names(str(step), map(str, node)) if node else ""
        raise InputError(f"the gradient has no {str(step)!r}", "one entry for each of θ's", near)
    if kind == "field" and hasattr(node, step):
        return getattr(node, step)
    try:
        return node[step]
    except (TypeError, IndexError, KeyError, ValueError):
        raise InputError(
            f"the gradient has no {str(step)!r} in a {type(node).__name__}", "the form of θ"
        ) from None


def _rebuilt(node: Any, leaves: dict[Path, Any], path: Path) -> Any:
    """Return a tree with its leaves replaced, in containers of its own."""
    if path in leaves:
        return leaves[path]
    children = _children(node)
    if children is None:
        return node
    parts = [(step, _rebuilt(part, leaves, (*path, step))) for step, part in children]
    if isinstance(node, Mapping):
        return _mapping(node, {step[1]: part for step, part in parts})
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        make: Any = type(node)
        return make(*(part for _, part in parts))
    if isinstance(node, (list, tuple)):
        remake: Any = type(node)
        return remake(part for _, part in parts)
    rebuilt = copy.copy(node)
    for (_, name), part in parts:
        object.__setattr__(rebuilt, name, part)
    return rebuilt


def _mapping(node: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """Return a mapping of the same type."""
    if type(node) is dict:
        return parts
    make: Callable[[Any], Any] = type(node)
    try:
        return make(parts)
    except TypeError:  # a defaultdict, or a class with a constructor of its own
        return parts
