"""Which components are checked: a random sample in which no block goes unseen.

The one place that draws random numbers. Only the raw words of PCG64 are used, which NumPy promises
never to change (NEP 19), so that a seed means the same sample on every machine and version.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastcheck.theta import ThetaLayout

__all__ = ["allocate", "sample"]

Integers = NDArray[np.int64]
ORDER_OF_BLOCKS = 0  # which stream of the seed; block k has stream k + 1


def sample(order: ThetaLayout, count: int, seed: int) -> Integers:
    """Draw components of θ without replacement, some of every block.

    Parameters
    ----------
    order : ThetaLayout
    count : int
        How many; all where it is N or more. With fewer than there are blocks, as many blocks as
        that are seen, drawn at random.
    seed : int
        0 or more.

    Returns
    -------
    ndarray, shape (min(count, N),), int64, increasing
        Indices of θ.
    """
    if count >= order.size:
        return np.arange(order.size, dtype=np.int64)
    sizes = [block.size for block in order.blocks]
    if count < len(sizes):
        seen = _distinct(len(sizes), count, seed, ORDER_OF_BLOCKS)
        counts = [int(k in seen) for k in range(len(sizes))]
    else:
        counts = allocate(sizes, count)
    drawn = [
        block.offset + _distinct(block.size, share, seed, k)
        for k, (block, share) in enumerate(zip(order.blocks, counts, strict=True), start=1)
    ]
    return np.concatenate(drawn)


def allocate(sizes: Sequence[int], count: int) -> list[int]:
    """Share out a sample among blocks: one half evenly, the other in proportion to size.

    The even half sees an error that is spread over a small block, such as all biases of a layer;
    the proportional one sees an error in a few places of a large block.

    Parameters
    ----------
    sizes : sequence of int
        Components in each block, 1 or more.
    count : int
        At least one for each block and at most all.

    Returns
    -------
    list of int
        Each at least 1 and at most the block's size; they sum to `count`.
    """
    even = max(count // 2, len(sizes))
    shares = _fill(sizes, [0] * len(sizes), even)
    room = [size - share for size, share in zip(sizes, shares, strict=True)]
    left = count - sum(shares)
    if left == 0:
        return shares
    total = sum(room)
    exact = [left * r for r in room]  # in units of 1/total: whole numbers, no rounding anywhere
    more = [part // total for part in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (-(exact[k] % total), k))
    for k in by_remainder[: left - sum(more)]:
        more[k] += 1
    return [share + m for share, m in zip(shares, more, strict=True)]


def _fill(sizes: Sequence[int], shares: list[int], count: int) -> list[int]:
    """Return `count` shared out as evenly as the sizes let."""
    left = count
    for place, k in enumerate(sorted(range(len(sizes)), key=lambda k: (sizes[k], k))):
        shares[k] = min(sizes[k], left // (len(sizes) - place))
        left -= shares[k]
    return shares


def _distinct(size: int, count: int, seed: int, stream: int) -> Integers:
    """Return `count` different whole numbers below `size`, increasing, every choice as likely."""
    if 2 * count > size:  # draw the fewer: those left out
        kept = np.ones(size, dtype=bool)
        kept[_distinct_few(size, size - count, seed, stream)] = False
        return np.flatnonzero(kept).astype(np.int64)
    return np.sort(_distinct_few(size, count, seed, stream))


def _distinct_few(size: int, count: int, seed: int, stream: int) -> Integers:
    """Return the first `count` different values of an endless row of draws below `size`."""
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,)))
    fair = (2**64 // size) * size  # words from here on would favour the small values
    drawn = np.zeros(0, dtype=np.int64)
    while drawn.size < count:
        raw = words.random_raw(2 * (count - drawn.size) + 8)
        raw = raw if fair == 2**64 else raw[raw < np.uint64(fair)]
        drawn = np.concatenate([drawn, (raw % np.uint64(size)).astype(np.int64)])
        _, first = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(first)]
    return drawn[:count]
