"""Samples see every block, are drawn fairly, and are the same everywhere for the same seed."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck.sampling import allocate, sample
from fastcheck.theta import ThetaLayout


def layout(*sizes: int, biases: bool = True) -> ThetaLayout:
    return ThetaLayout.from_sizes(sizes, [biases] * (len(sizes) - 1))


# What PCG64 gives; a change here means that no old sample can be drawn again.
SMALL = [0, 1, 3, 5, 8, 11, 13, 14, 16, 17, 19, 22]
LARGE = "10517fa8449b70a7"

LAYOUTS = st.builds(
    lambda sizes, biases: layout(*sizes, biases=biases),
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.booleans(),
)


@given(LAYOUTS, st.data())
def test_a_sample_is_distinct_indices_of_the_size_asked_for(
    order: ThetaLayout, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, order.size + 3))
    drawn = sample(order, count, data.draw(st.integers(0, 2**40)))
    assert drawn.dtype == np.int64
    assert drawn.size == min(count, order.size)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < order.size


@given(LAYOUTS, st.data())
def test_no_block_goes_unseen(order: ThetaLayout, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, order.size))
    drawn = sample(order, count, data.draw(st.integers(0, 99)))
    seen = sum(bool(((drawn >= b.offset) & (drawn < b.stop)).any()) for b in order.blocks)
    assert seen == min(count, len(order.blocks))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.data())
def test_shares_fit_the_blocks(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(len(sizes), sum(sizes)))
    shares = allocate(sizes, count)
    assert sum(shares) == count
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
    by_size = sorted(zip(sizes, shares, strict=True))
    assert all(small[1] <= large[1] + 1 for small, large in itertools.pairwise(by_size))


def test_half_is_even_and_half_in_proportion() -> None:
    # 600 evenly over three blocks: 200 each, but one block has only 10, so 10, 295, 295.
    # 600 in proportion to what is left of them, 0, 705 and 9705: 0, 41 and 559.
    assert allocate([1000, 10, 10000], 1200) == [295 + 41, 10, 295 + 559]


def test_a_seed_means_these_components_on_every_machine() -> None:
    order = layout(784, 512, 512, 10)
    small = sample(layout(4, 3, 2), 12, seed=3)
    assert small.tolist() == SMALL
    large = sample(order, 5000, seed=0)
    assert hashlib.sha256(large.astype("<i8").tobytes()).hexdigest()[:16] == LARGE


def test_seeds_differ() -> None:
    order = layout(30, 20, 10)
    assert len({sample(order, 50, seed).tobytes() for seed in range(50)}) == 50


@pytest.mark.parametrize("count", [3, 12, 17])  # fewer than half of a block, and more
def test_every_component_of_a_block_is_as_likely(count: int) -> None:
    order = layout(20, 1, biases=False)
    hits = np.zeros(20)
    runs = 1500
    for seed in range(runs):
        hits[sample(order, count, seed)] += 1
    expected = runs * count / 20
    deviation = np.sqrt(expected * (1 - count / 20))
    assert np.abs(hits - expected).max() < 4.5 * deviation


def test_pairs_of_components_are_as_likely() -> None:
    order = layout(6, 1, biases=False)
    together = np.zeros((6, 6))
    runs = 3000
    for seed in range(runs):
        i, j = sample(order, 2, seed)
        together[i, j] += 1
    counts = together[np.triu_indices(6, 1)]
    assert np.abs(counts - runs / 15).max() < 4.5 * np.sqrt(runs / 15)


def test_more_than_there_are_means_all() -> None:
    order = layout(4, 3)
    for count in (order.size, order.size + 1, 10**9):
        assert sample(order, count, 0).tolist() == list(range(order.size))


def test_fewer_than_there_are_blocks_sees_other_blocks_with_another_seed() -> None:
    order = layout(4, 3, 2)
    drawn = {order.locate(int(sample(order, 1, seed)[0])).block.name for seed in range(60)}
    assert drawn == {"W1", "b1", "W2", "b2"}
