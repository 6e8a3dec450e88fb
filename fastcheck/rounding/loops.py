"""Whether a gradient in half precision was summed by a library or by plain loops.

Libraries add up products of float16 and bfloat16 in float32. A plain loop rounds every addition,
which is many times worse. No tolerance suits both, so the blocks tell which one it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastcheck.rounding.model import Rounding
from fastcheck.verdict.rules import MANY_ERRORS_RATIO

__all__ = ["HALF_PRECISIONS", "rounds_every_addition"]

HALF_PRECISIONS = ("float16", "bfloat16")
# A block tells loops from libraries where ‖σ‖ of both are so many times apart, ...
TIMES_APART = 2.5
# ... and speaks for loops where its ‖error‖ is beyond so many times a library's ‖σ‖.
BEYOND = 1.5


class BlockError(NamedTuple):
    """‖g − g_approx‖ of one block, and how many components were compared."""

    error: float
    checked: int


def rounds_every_addition(blocks: Iterable[BlockError], library: Rounding, loops: Rounding) -> bool:
    """Return whether a gradient's errors are, or may be, those of plain loops.

    They are not where a block that tells has an error of the size that a library makes: one wrong
    block among several does not speak for loops. Without any such block they may be.

    Parameters
    ----------
    blocks : iterable of BlockError
        In the order of θ.
    library, loops : Rounding
        σ of the same gradient by either.
    """
    ratios = []
    with np.errstate(all="ignore"):
        for block, layout in zip(blocks, library.network.order.blocks, strict=True):
            sigma, larger = library.block(layout), loops.block(layout)
            size, wide = float(np.linalg.norm(sigma)), float(np.linalg.norm(larger))
            many = wide > MANY_ERRORS_RATIO * float(larger.max())
            if block.checked and many and wide > TIMES_APART * size:
                share = np.sqrt(block.checked / layout.size)
                ratios.append(block.error / (size * share) if size else np.inf)
    if not ratios:
        return True
    return sorted(ratios)[-2:][0] > BEYOND
