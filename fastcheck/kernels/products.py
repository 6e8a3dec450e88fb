"""Matrix products for small batches: 8 to 32 samples side by side, W read in place and only once.

BLAS repacks W at every call, which pays off over many samples but not over 32. Here samples lie
along the vector lanes, `A[j, s]`, so that one loaded weight serves all of them, and sums stay in
registers. Each sum runs over j in increasing order, fused where the processor can, so its bits
depend neither on the tile nor on the number of workers. See docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcheck.kernels.compiling import scalar_kernel
from fastcheck.types import Floats

__all__ = ["NARROW", "WIDE", "product"]


NARROW, WIDE = 8, 32  # samples in a block: a multiple of NARROW, at most WIDE
declared: Callable[..., Any] = cgutils.get_or_insert_function
F64, I64, I32 = ir.DoubleType(), ir.IntType(64), ir.IntType(32)


class Tile(NamedTuple):
    """How much of a product stays in registers: `rows` outputs by `columns` samples."""

    rows: int
    columns: int
    lanes: int


def host_tiles() -> tuple[Tile, Tile]:
    """Return the tile for WIDE samples and the one for NARROW, by the processor's registers.

    32 registers of 8 lanes hold 4 x 32 sums and the operands; 16 registers of 4 lanes hold 6 x 8.
    """
    try:
        found = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM does not know this processor
        found = {}
    if (
        getattr(numba.config, "CPU_NAME", None) is not None
    ):  # compiled for another processor than this one
        found = {}
    if found.get("avx512f"):
        return Tile(4, WIDE, 8), Tile(4, NARROW, 8)
    narrow = Tile(6, NARROW, 4) if found.get("avx") else Tile(4, NARROW, 2)
    return narrow, narrow


def _address(context: Any, builder: Any, array: tuple[Any, Any], index: Any) -> Any:
    """Return the address of `array[index]`, given as (its type, its value)."""
    kind, value = array
    return builder.gep(context.make_array(kind)(context, builder, value).data, [index])


def _vector_at(builder: Any, base: Any, offset: Any, vector: Any) -> Any:
    """Return the address of a vector `offset` doubles behind `base`."""
    return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())


def _accumulate(
    builder: Any, tile: Tile, addresses: tuple[Any, Any], sizes: tuple[Any, Any]
) -> Any:
    """Write the loop over j: sums[r][c] += W[r, j] · A[j, c-th vector]; return the last sums."""
    (W, A), (n, stride) = addresses, sizes
    vector = ir.VectorType(F64, tile.lanes)
    zero = ir.Constant(vector, [0.0] * tile.lanes)
    name = f"llvm.fmuladd.v{tile.lanes}f64"
    fused = declared(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    before = builder.block
    loop, behind = builder.append_basic_block("products"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(I64)
    j.add_incoming(I64(0), before)
    steps = range(0, tile.columns, tile.lanes)
    sums = [[builder.phi(vector) for _ in steps] for _ in range(tile.rows)]
    start = builder.gep(A, [builder.mul(j, stride)])
    samples = [
        builder.load(_vector_at(builder, start, I64(step), vector), align=8) for step in steps
    ]
    last = []
    for r, row in enumerate(sums):
        weight = builder.load(builder.gep(W, [builder.add(builder.mul(n, I64(r)), j)]))
        same = _broadcast(builder, weight, vector)
        last.append([builder.call(fused, [same, a, s]) for a, s in zip(samples, row, strict=True)])
        for phi, grown in zip(row, last[-1], strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(grown, loop)
    following = builder.add(j, I64(1))
    j.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, behind)
    builder.position_at_end(behind)
    return last


def _broadcast(builder: Any, value: Any, vector: Any) -> Any:
    """Return a vector with the same value in each lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, I32(0))
    return builder.shuffle_vector(
        first, nothing, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    )


def _compiled_tile(tile: Tile) -> Callable[..., None]:
    """Return `(W, w, A, a, Z, z, n, stride)`: Z[z:] = the first rows of W[w:] times A[a:]."""

    @intrinsic
    def multiply(
        typing: Any, W: Any, w: Any, A: Any, a: Any, Z: Any, z: Any, n: Any, stride: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            typed = list(zip(signature.args, arguments, strict=True))
            places = [_address(context, builder, typed[k], arguments[k + 1]) for k in (0, 2, 4)]
            n, stride = arguments[6:]
            sums = _accumulate(builder, tile, (places[0], places[1]), (n, stride))
            vector = ir.VectorType(F64, tile.lanes)
            for r, row in enumerate(sums):
                start = builder.gep(places[2], [builder.mul(stride, I64(r))])
                for c, total in enumerate(row):
                    place = _vector_at(builder, start, I64(c * tile.lanes), vector)
                    builder.store(total, place, align=8)
            return context.get_dummy_value()

        index = types.intp
        return types.void(W, index, A, index, Z, index, index, index), generate

    return multiply


_WIDE, _NARROW = host_tiles()
ROWS, COLUMNS = _WIDE.rows, _WIDE.columns
_rows_wide, _row_wide = _compiled_tile(_WIDE), _compiled_tile(_WIDE._replace(rows=1))
_rows_narrow, _row_narrow = _compiled_tile(_NARROW), _compiled_tile(_NARROW._replace(rows=1))


@scalar_kernel
def product(W: Floats, A: Floats, Z: Floats, n_in: int, width: int) -> None:
    """Z = W A for some rows of W, whatever the number of rows.

    Parameters
    ----------
    W : ndarray, shape (rows · n_in,), float64
        Rows of a weight matrix, in row order.
    A : ndarray, shape (n_in · width or more,), float64
        `A[j, s]`: samples side by side.
    Z : ndarray, shape (rows · width,), float64
        Overwritten: `Z[i, s]`.
    n_in : int
    width : int
        A multiple of NARROW.
    """
    rows = W.size // n_in
    whole = rows - rows % ROWS
    for i in range(0, whole, ROWS):
        s = 0
        while s + COLUMNS <= width:
            _rows_wide(W, i * n_in, A, s, Z, i * width + s, n_in, width)
            s += COLUMNS
        while s < width:
            _rows_narrow(W, i * n_in, A, s, Z, i * width + s, n_in, width)
            s += NARROW
    for i in range(whole, rows):
        s = 0
        while s + COLUMNS <= width:
            _row_wide(W, i * n_in, A, s, Z, i * width + s, n_in, width)
            s += COLUMNS
        while s < width:
            _row_narrow(W, i * n_in, A, s, Z, i * width + s, n_in, width)
            s += NARROW
