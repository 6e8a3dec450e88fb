"""Marks of a lower precision, of clipping and of decimals in one block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.block_view import BlockView, Explanation
from fastcheck.diagnosis.fitting import (
    are_clipped,
    lower_precision_of,
    rounded_to,
)
from fastcheck.types import Floats
from fastcheck.validation import UNIT_ROUNDOFF

__all__ = ["coarse", "in_precision"]

MIN_SHARE_ROUNDED = 0.97  # of the components of a block that was rounded once


def coarse(view: BlockView) -> Iterator[Explanation]:
    """Rounding to, or computing in, a lower precision; clipping; decimals."""
    yield from _low_precision(view)
    u, expected = view.u, view.expected
    for decimals in range(2, 9):
        if np.any(u) and np.array_equal(np.round(u, decimals), u):
            if np.all(np.abs(u - expected) <= 0.5001 * 10.0**-decimals):
                yield (view.found("rounded", f"{decimals} decimals"),)
            break
    limit = float(np.abs(u).max(initial=0.0))
    at_limit = int(np.count_nonzero(np.abs(u) == limit))
    telling = at_limit >= 2 or _round_number(limit)
    if (
        limit > 0.0
        and telling
        and are_clipped(expected, limit)
        and view.matches(np.clip(expected, -limit, limit))
    ):
        yield (view.found("clipped", f"{limit:.4g}"),)


def _low_precision(view: BlockView) -> Iterator[Explanation]:
    """Rounding has a signature: numbers of that precision, its errors, and no common direction.

    The penalty may have been added in the gradient's own precision.
    """
    for rest in (0.0, view.penalty) if np.any(view.penalty) else (0.0,):
        slack = UNIT_ROUNDOFF[view.sight.precision] * 2.0 * (np.abs(view.u) + np.abs(rest))
        slack = slack if np.any(rest) else 0.0 * slack
        coarser = lower_precision_of(view.u - rest, view.sight.precision, slack)
        if coarser is None or lower_precision_of(view.data, view.sight.precision) is not None:
            continue
        if _is_rounded(view, coarser, rest):
            name = "rounded_float16" if coarser == "float16" else "rounded"
            yield (view.found(name, "" if name != "rounded" else coarser),)
        elif in_precision(view, coarser).matches(view.expected) and not _is_biased(view):
            yield (view.found("low_precision", coarser),)


def in_precision(view: BlockView, precision: str) -> BlockView:
    """Return a view with the tolerances of another precision."""
    rtol = max(1.01 * UNIT_ROUNDOFF[precision], view.sight.rtol)
    return replace(view, sight=replace(view.sight, precision=precision, rtol=rtol))


def _is_biased(view: BlockView) -> bool:
    """Whether the error has a direction in common with the block."""
    error, size = (view.u - view.expected).ravel(), view.expected.ravel()
    norms = float(np.linalg.norm(error) * np.linalg.norm(size))
    return bool(abs(float(error @ size)) > 4.0 / np.sqrt(error.size) * norms)


def _is_rounded(view: BlockView, precision: str, rest: Floats | float) -> bool:
    """Whether every component is the expected one, rounded once."""
    rounded = rounded_to(view.expected - rest, precision)
    ulp = 2.0 * UNIT_ROUNDOFF[precision] * np.abs(rounded)
    off = np.abs(view.u - rest - rounded)
    # Where the expected value lies between two numbers, its own rounding decides.
    return bool(np.mean(off <= 0.01 * ulp + view.floor(view.expected)) > MIN_SHARE_ROUNDED)


def _round_number(value: float) -> bool:
    """Whether it looks like a number that someone wrote."""
    return value > 0.0 and abs(float(f"{value:.2g}") - value) <= 1e-9 * value
