"""Which components are checked: a random sample in which no block goes unseen.

The one place that draws random numbers. Only the raw words of PCG64 are used, which NumPy promises
never to change (NEP 19), so that a seed means the same sample on every machine and version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np

from fastcheck.errors import InputError
from fastcheck.model.parameters import ThetaLayout
from fastcheck.settings import Settings
from fastcheck.types import Integers

__all__ = [
    "MISS_PROBABILITY",
    "Order",
    "allocate",
    "sample",
    "sample_units",
    "select_components",
    "size_to_detect",
]

ORDER_OF_BLOCKS = 0  # which stream of the seed; block k has stream k + 1
UNITS = 2**20  # the units of layer l have stream UNITS + l
MISS_PROBABILITY = (
    20  # a sample sees what it should in all but one of so many cases: 95 % confidence
)
# Decimal's powers are the same on every machine, those of the C library are not.
EXACT_SIZE = Context(prec=28)
MAX_STEPS = 2**40  # shares are whole numbers of 1/STEPS


class _Block(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def layer(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Order(Protocol):
    """The order of θ: `ThetaLayout`, or any other that says where its blocks lie."""

    @property
    def blocks(self) -> Sequence[_Block]:
        """The blocks, in the order in which they lie in θ."""
        ...

    @property
    def size(self) -> int:
        """N."""
        ...


def select_components(order: Order, settings: Settings) -> tuple[Integers | None, tuple[str, ...]]:
    """Return which components a check looks at, and what to say about it.

    Parameters
    ----------
    order : Order
    settings : Settings
        Of which `sample`, `detect`, `sample_units` and `seed` count.

    Returns
    -------
    indices : ndarray of int64, increasing, or None
        None for all of them.
    notes : tuple of str
    """
    if settings.sample_units is not None:
        return _chosen_units(order, settings.sample_units, settings.seed)
    if settings.detect is not None:
        shares = size_to_detect([block.size for block in order.blocks], settings.detect)
        if sum(shares) < order.size:
            return _draw(order, shares, settings.seed), ()
        note = f"To see a share of {settings.detect:g} all components are needed."
        return None, (note,)
    count = settings.sample
    if count is None:
        return None, ()
    if count >= order.size:
        note = f"A sample of {count:,} was asked for: all {order.size:,} components are checked."
        return None, (note,) if count > order.size else ()
    return sample(order, count, settings.seed), ()


def sample(order: Order, count: int, seed: int) -> Integers:
    """Draw components of θ without replacement, some of every block.

    Parameters
    ----------
    order : Order
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
    return _draw(order, _shares([block.size for block in order.blocks], count, seed), seed)


def sample_units(order: ThetaLayout, count: int, seed: int) -> Integers:
    """Draw whole units: a row of W_l and the component of b_l that goes with it.

    Parameters
    ----------
    order : ThetaLayout
    count : int
        How many units, spread over the layers as components are over blocks.
    seed : int
        0 or more.

    Returns
    -------
    ndarray of int64, increasing
        Indices of θ.
    """
    weights = [block for block in order.blocks if block.kind == "W"]
    shares = _shares([block.shape[0] for block in weights], count, seed)
    parts = []
    for block, share in zip(weights, shares, strict=True):
        rows = _distinct(block.shape[0], share, seed, UNITS + block.layer)
        columns = np.arange(block.shape[1], dtype=np.int64)
        parts.append(block.offset + (rows[:, None] * block.shape[1] + columns).ravel())
        biases = order.biases(block.layer)
        if biases is not None:
            parts.append(biases.offset + rows)
    return np.concatenate(parts)


def allocate(sizes: Sequence[int], count: int) -> list[int]:
    """Share out a sample so that the share of wrong components it may miss is even over blocks.

    What a sample of n of N may miss is about 3/n of them, whatever N is, so large blocks get equal
    shares; a block that is not much larger than its share needs fewer, and the others gain.

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
    least, most = 0, MAX_STEPS  # 1/STEPS times `most` is a share that can be afforded
    while most - least > 1:
        middle = (least + most) // 2
        if (
            sum(_estimated_size_to_detect(size, _max_undetected(size, middle)) for size in sizes)
            <= count
        ):
            most = middle
        else:
            least = middle
    shares = [1] * len(sizes)
    if most < MAX_STEPS:
        shares = [_estimated_size_to_detect(size, _max_undetected(size, most)) for size in sizes]
    return _fill(sizes, shares, count - sum(shares))


def size_to_detect(sizes: Sequence[int], share: float) -> list[int]:
    """Return how many of each block must be checked to see a share of wrong ones.

    Parameters
    ----------
    sizes : sequence of int
        Components in each block.
    share : float
        Where so large a share of a block is wrong, one of them is seen with 95 % probability.

    Returns
    -------
    list of int
        The fewest that do.
    """
    exact = Fraction(repr(float(share)))
    return [_size_to_detect(size, max(math.ceil(exact * size) - 1, 0)) for size in sizes]


def _max_undetected(size: int, share: int) -> int:
    """Return how many wrong ones are less than a share, given in 1/STEPS."""
    return max(-(-size * share // MAX_STEPS) - 1, 0)


@lru_cache(maxsize=65536)
def _estimated_size_to_detect(size: int, max_undetected: int) -> int:
    """Return about how many of `size` must be seen to meet one of `max_undetected` + 1.

    After Cannon & Roe, "Livestock disease surveys", 1982; at most a few off.
    """
    if max_undetected >= size:
        return 1
    unseen = EXACT_SIZE.power(
        EXACT_SIZE.divide(1, MISS_PROBABILITY), EXACT_SIZE.divide(1, max_undetected + 1)
    )
    needed = EXACT_SIZE.multiply(
        EXACT_SIZE.subtract(1, unseen), EXACT_SIZE.divide(2 * size - max_undetected, 2)
    )
    return min(size, max(1, int(needed.to_integral_value(ROUND_CEILING))))


def _size_to_detect(size: int, max_undetected: int) -> int:
    """Return the fewest of `size` that must be seen, by exact hypergeometric probabilities."""
    wrong = min(max_undetected + 1, size)
    count = _estimated_size_to_detect(size, wrong - 1)
    while not _sees(size, wrong, count):
        count += 1
    while count > 1 and _sees(size, wrong, count - 1):
        count -= 1
    return count


def _sees(size: int, wrong: int, count: int) -> bool:
    """Whether `count` of `size` miss all wrong ones with `MISS_PROBABILITY` at most."""
    few, many = sorted((wrong, count))
    return MISS_PROBABILITY * math.perm(size - many, few) <= math.perm(size, few)


def _shares(sizes: Sequence[int], count: int, seed: int) -> list[int]:
    """Return how many of each block; with fewer than there are blocks, one of some of them."""
    if count >= len(sizes):
        return allocate(sizes, count)
    seen = _distinct(len(sizes), count, seed, ORDER_OF_BLOCKS)
    return [int(k in seen) for k in range(len(sizes))]


def _draw(order: Order, shares: Sequence[int], seed: int) -> Integers:
    """Draw so many of each block."""
    drawn = [
        block.offset + _distinct(block.size, share, seed, k)
        for k, (block, share) in enumerate(zip(order.blocks, shares, strict=True), start=1)
    ]
    return np.concatenate(drawn)


def _chosen_units(order: Order, count: int, seed: int) -> tuple[Integers | None, tuple[str, ...]]:
    if not isinstance(order, ThetaLayout):
        raise InputError(
            f"sample_units={count} for a function",
            "a network, whose weights have rows",
            "Use sample= instead.",
        )
    every = sum(block.shape[0] for block in order.blocks if block.kind == "W")
    if count < every:
        return sample_units(order, count, seed), ()
    note = f"{count:,} units were asked for: all {every:,} are checked."
    return None, (note,) if count > every else ()


def _fill(sizes: Sequence[int], shares: Sequence[int], count: int) -> list[int]:
    """Return shares with `count` more, shared out as evenly as the sizes let."""
    shares, left = list(shares), count
    room = [size - share for size, share in zip(sizes, shares, strict=True)]
    for place, k in enumerate(sorted(range(len(sizes)), key=lambda k: (room[k], k))):
        more = min(room[k], left // (len(sizes) - place))
        shares[k] += more
        left -= more
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
