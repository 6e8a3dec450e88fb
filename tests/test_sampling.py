"""Samples see every block, are drawn fairly, and are the same everywhere for the same seed."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastcheck.errors import InputError
from fastcheck.model.parameter_tree import ParameterTree
from fastcheck.model.parameters import ThetaLayout
from fastcheck.sampling.components import (
    allocate,
    sample,
    sample_units,
    select_components,
    size_to_detect,
)
from fastcheck.settings import Settings


def layout(*sizes: int, biases: bool = True) -> ThetaLayout:
    return ThetaLayout.from_sizes(sizes, [biases] * (len(sizes) - 1))


# What PCG64 gives; a change here means that no old sample can be drawn again.
SMALL = [0, 1, 8, 11, 13, 14, 15, 16, 18, 20, 21, 22]
LARGE = "c61e03ab81fa4c23"

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


def may_miss(size: int, checked: int) -> float:
    """The largest share that a sample misses with more than 5 % probability, by SciPy."""
    wrong = np.arange(min(size, 20 * (size // checked)) + 1)
    chances = stats.hypergeom.pmf(0, size, wrong, checked)
    return float(wrong[chances > 0.05 + 1e-12].max() / size)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([65536, 1024, 1048576, 1024, 10240, 10], 5000),
        ([401408, 512, 262144, 512, 5120, 10], 5000),
        ([400, 20, 400, 20, 40, 2], 200),
    ],
)
def test_what_may_be_missed_is_as_even_over_blocks_as_it_can_be(
    sizes: list[int], count: int
) -> None:
    shares = allocate(sizes, count)
    worst = max(map(may_miss, sizes, shares))
    even = [min(size, count // len(sizes)) for size in sizes]
    assert worst < max(map(may_miss, sizes, even))
    # A block that misses clearly less than the worst one could not do with fewer: its own next
    # step, one more wrong component, would be worse than the worst.
    for size, share in zip(sizes, shares, strict=True):
        if share > 1:
            assert may_miss(size, max(1, int(0.9 * share))) > 0.9 * worst


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    st.sampled_from([0.5, 0.1, 0.01, 0.001, 0.0001]),
)
def test_enough_is_the_fewest_that_see_a_share(sizes: list[int], share: float) -> None:
    for size, count in zip(sizes, size_to_detect(sizes, share), strict=True):
        wrong = max(1, int(np.ceil(round(share * size, 9))))
        assert stats.hypergeom.pmf(0, size, wrong, count) <= 0.05 + 1e-9
        if count > 1:
            assert stats.hypergeom.pmf(0, size, wrong, count - 1) > 0.05 - 1e-9


def test_a_share_to_see_decides_on_the_size() -> None:
    order = layout(784, 512, 512, 10)
    indices, notes = select_components(order, Settings.of(detect=0.01))
    assert indices is not None
    assert notes == ()
    counts = [int(((indices >= b.offset) & (indices < b.stop)).sum()) for b in order.blocks]
    assert counts == size_to_detect([b.size for b in order.blocks], 0.01)
    indices, notes = select_components(layout(4, 3), Settings.of(detect=0.01))
    assert indices is None
    assert notes == ("To see a share of 0.01 all components are needed.",)


@pytest.mark.parametrize(
    "options",
    [
        {"sample": 5, "detect": 0.1},
        {"sample": 5, "sample_units": 3},
        {"detect": 0.1, "sample_units": 3},
        {"detect": 1.0},
        {"detect": 0.0},
        {"sample_units": 0},
    ],
)
def test_one_way_to_say_how_large_and_no_nonsense(options: Any) -> None:
    with pytest.raises(InputError):
        Settings.of(**options)


@given(LAYOUTS, st.data())
def test_units_are_whole_rows_with_their_bias(order: ThetaLayout, data: st.DataObject) -> None:
    rows = {b.layer: b.shape[0] for b in order.blocks if b.kind == "W"}
    count = data.draw(st.integers(1, sum(rows.values())))
    drawn = sample_units(order, count, data.draw(st.integers(0, 99)))
    assert (np.diff(drawn) > 0).all()
    units: set[tuple[int, int]] = set()
    for block in order.blocks:
        inside = drawn[(drawn >= block.offset) & (drawn < block.stop)] - block.offset
        width = block.shape[1] if block.kind == "W" else 1
        found, sizes = np.unique(inside // width, return_counts=True)
        assert (sizes == width).all()
        mine = {(block.layer, int(row)) for row in found}
        if block.kind == "b":
            assert mine == {unit for unit in units if unit[0] == block.layer}
        units |= mine
    assert len(units) == count
    assert len({layer for layer, _ in units}) == min(count, len(rows))


def test_a_function_has_no_units() -> None:
    order, _, _ = ParameterTree.of(np.ones(5))
    with pytest.raises(InputError, match="whose weights have rows"):
        select_components(order, Settings.of(sample_units=2))


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
