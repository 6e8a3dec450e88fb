"""The giant vector θ: named blocks W1, b1, …, WL, bL, and where each component lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.types import Floats

__all__ = ["Block", "Component", "ThetaLayout"]


@dataclass(frozen=True)
class Block:
    """One array of θ: the weights or the biases of one layer.

    Attributes
    ----------
    name : str
        `W1`, `b1`, … or the user's own name for it (`net.2.weight`).
    layer : int
        1..L.
    kind : str
        `"W"` or `"b"`.
    shape : tuple of int
        `(n_l, n_{l-1})` for weights, `(n_l,)` for biases, in fastcheck's row convention.
    offset : int
        Where the block starts in θ.
    transposed : bool
        Whether the user's array is the transpose, so that names show the user's indices.
    """

    name: str
    layer: int
    kind: str
    shape: tuple[int, ...]
    offset: int
    transposed: bool = False

    @property
    def size(self) -> int:
        """Number of components."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """One past the last index of the block in θ."""
        return self.offset + self.size

    @property
    def slice(self) -> slice:
        """Where the block lies in θ."""
        return slice(self.offset, self.stop)

    @property
    def gradient_name(self) -> str:
        """`dW1`, `db1`, … or `d(net.2.weight)` for the user's own names."""
        return f"d{self.name}" if self.name.isidentifier() else f"d({self.name})"

    @property
    def user_shape(self) -> tuple[int, ...]:
        """The shape in the user's convention."""
        return self.shape[::-1] if self.transposed else self.shape


@dataclass(frozen=True)
class Component:
    """One component of θ, located: its block and its row and column there (row convention)."""

    index: int
    block: Block
    row: int
    column: int | None

    def __str__(self) -> str:
        if self.column is None:
            return f"{self.block.name}[{self.row}]"
        place = (self.column, self.row) if self.block.transposed else (self.row, self.column)
        return f"{self.block.name}[{place[0]}, {place[1]}]"


@dataclass(frozen=True)
class ThetaLayout:
    """The order of θ: which blocks there are and where each one starts.

    Notes
    -----
    θ is W1, b1, …, WL, bL, each flattened in row order and concatenated; dθ has the same order.
    A layer without biases has no b block.
    """

    blocks: tuple[Block, ...]

    @classmethod
    def from_sizes(
        cls,
        sizes: Sequence[int],
        has_biases: Sequence[bool],
        *,
        names: Mapping[str, str] | None = None,
        transposed: bool = False,
    ) -> ThetaLayout:
        """Lay out θ for layers of the given sizes.

        Parameters
        ----------
        sizes : sequence of int
            `n_0, …, n_L`.
        has_biases : sequence of bool
            One for each layer 1..L.
        names : mapping, optional
            The user's names by ours, such as `{"W1": "net.0.weight"}`.
        transposed : bool
            Whether the user's weights are `(n_{l-1}, n_l)`.
        """
        names = names or {}
        blocks: list[Block] = []
        offset = 0
        for layer, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            weights = f"W{layer}"
            shape = (int(n_out), int(n_in))
            blocks.append(Block(names.get(weights, weights), layer, "W", shape, offset, transposed))
            offset = blocks[-1].stop
            if has_biases[layer - 1]:
                biases = f"b{layer}"
                blocks.append(Block(names.get(biases, biases), layer, "b", (int(n_out),), offset))
                offset = blocks[-1].stop
        return cls(tuple(blocks))

    @cached_property
    def size(self) -> int:
        """N, the number of components of θ."""
        return self.blocks[-1].stop

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each block starts, shape (number of blocks,), int64."""
        return np.array([block.offset for block in self.blocks], dtype=np.int64)

    def block(self, name: str) -> Block:
        """Return the block of that name (`W2`, or the user's name for it)."""
        for block in self.blocks:
            if name in (block.name, f"{block.kind}{block.layer}"):
                return block
        known = [block.name for block in self.blocks]
        raise InputError(f"no block is called {name!r}", "a block of θ", near_names(name, known))

    def weights(self, layer: int) -> Block:
        """Return the weight block of a layer."""
        return self.find("W", layer) or self.block(f"W{layer}")  # which says which there are

    def biases(self, layer: int) -> Block | None:
        """Return the bias block of a layer, None where it has none."""
        return self.find("b", layer)

    def find(self, kind: str, layer: int) -> Block | None:
        """Return the block of a kind, W or b, in a layer; None where there is none."""
        return self._places.get((kind, layer))

    @cached_property
    def _places(self) -> dict[tuple[str, int], Block]:
        return {(block.kind, block.layer): block for block in self.blocks}

    def locate(self, index: int) -> Component:
        """Return the component at an index of θ."""
        if not 0 <= index < self.size:
            raise InputError(f"index {index}", f"0 <= index < {self.size}, the length of θ")
        block = self.blocks[int(np.searchsorted(self.offsets, index, side="right")) - 1]
        inside = index - block.offset
        if block.kind == "b":
            return Component(index, block, inside, None)
        row, column = divmod(inside, block.shape[1])
        return Component(index, block, row, column)

    def index(self, name: str, row: int, column: int | None = None) -> int:
        """Return the index in θ of `name[row, column]`, in the row convention."""
        block = self.block(name)
        place = (row,) if column is None else (row, column)
        if len(place) != len(block.shape) or any(
            not 0 <= p < n for p, n in zip(place, block.shape, strict=True)
        ):
            raise InputError(f"{name}{list(place)}", f"a place inside shape {block.shape}")
        return block.offset + int(np.ravel_multi_index(place, block.shape))

    def unpack(self, theta: Floats) -> dict[str, Floats]:
        """Return the blocks as views into θ, by name; nothing is copied.

        Parameters
        ----------
        theta : ndarray, shape (N,), float64
            θ or any vector in its order.
        """
        return {block.name: view for block, view in self.views(theta)}

    def views(self, theta: Floats) -> Iterator[tuple[Block, Floats]]:
        """Yield each block with its part of a vector in θ's order, as a view."""
        if theta.shape != (self.size,):
            raise InputError(f"a vector of shape {theta.shape}", f"shape ({self.size},)")
        for block in self.blocks:
            yield block, theta[block.slice].reshape(block.shape)

    def pack(self, arrays: Mapping[str, NDArray[np.floating]]) -> Floats:
        """Return the blocks flattened in row order and concatenated, float64.

        Where the arrays already are the consecutive parts of one float64 vector (what `unpack`
        gives), that vector is returned and nothing is copied.
        """
        owner = self._shared_object(arrays)
        if owner is not None:
            return owner
        theta = np.empty(self.size)
        for block, view in self.views(theta):
            view[...] = arrays[block.name]
        return theta

    def _shared_object(self, arrays: Mapping[str, NDArray[np.floating]]) -> Floats | None:
        """Return the vector all arrays are consecutive views of, None where there is none."""
        owner = arrays[self.blocks[0].name].base
        if not isinstance(owner, np.ndarray):  # a file's bytes, or another library's memory
            return None
        if owner.dtype != np.float64 or owner.shape != (self.size,):
            return None
        if not owner.flags.c_contiguous:
            return None
        start = owner.__array_interface__["data"][0]
        for block in self.blocks:
            part = arrays[block.name]
            here = part.__array_interface__["data"][0]
            right_place = here == start + 8 * block.offset and part.shape == block.shape
            if not (right_place and part.flags.c_contiguous and part.dtype == np.float64):
                return None
        return owner
