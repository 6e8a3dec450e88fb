"""Workspaces: nobody shares one at the same time, and not much memory stays behind."""

import numpy as np
import pytest

from fastcheck.execution import buffers
from fastcheck.execution.buffers import MAX_FREE_BYTES, borrow, kept_bytes, release


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_free", [])


def test_two_at_a_time_are_two_and_one_after_the_other_is_one() -> None:
    with borrow(2, 50) as first, borrow(100) as second:
        assert first.shape == (2, 50)
        assert not np.shares_memory(first, second)
    before = kept_bytes()
    with borrow(3, 30) as again:
        assert np.shares_memory(again, first) or np.shares_memory(again, second)
    assert kept_bytes() == before == 200 * 8


def test_an_error_inside_gives_the_array_back() -> None:
    with pytest.raises(ZeroDivisionError), borrow(10):
        raise ZeroDivisionError
    assert kept_bytes() == 80


def test_the_largest_go_first_when_memory_is_given_back() -> None:
    numbers = MAX_FREE_BYTES // 8
    with borrow(100), borrow(numbers):
        pass
    release()
    assert kept_bytes() == 800
    release()
    assert kept_bytes() == 800
