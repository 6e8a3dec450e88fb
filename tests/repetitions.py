"""More draws of one claim: a few by default, the rest among the slow tests."""

from __future__ import annotations

import pytest


def draws(few: int, all_of_them: int, step: int = 1) -> pytest.MarkDecorator:
    """Parametrize by a `seed`: 0, step, 2·step, …; from `few` on they are marked slow.

    What runs by default makes the whole claim on fewer draws; `pytest -m ""` runs them all.
    """
    seeds = range(0, all_of_them, step)
    return pytest.mark.parametrize(
        "seed",
        [pytest.param(s, marks=[pytest.mark.slow] if s >= few else []) for s in seeds],
    )
