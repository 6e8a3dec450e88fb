"""Evaluates J along one direction for the Taylor test."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numpy as np

from fastcheck.methods.function.calibration import random_direction
from fastcheck.model.taylor import TaylorRow, TaylorTable
from fastcheck.types import Floats

__all__ = ["scaled_direction", "taylor_table"]


STEPS = tuple(10.0 ** (-k / 2) for k in range(2, 15))
# A remainder of fewer standard deviations of its noise has no rate, and so has a difference.
TOLD = 10.0
LAST_RATES = 3
UNIT_ROUNDOFF = 2.0**-53


def scaled_direction(theta: Floats, blocks: list[slice], seed: int) -> Floats:
    """Return entries ±uniform(½, 1½) times the rms of their block, or of θ where that is zero.

    Parameters
    ----------
    theta : ndarray, shape (N,), float64
    blocks : list of slice
    seed : int
    """
    u = random_direction(np.random.default_rng([seed, 12]), theta.size)
    whole = math.sqrt(float(np.mean(theta**2))) or 1.0
    for block in blocks:
        part = theta[block]
        u[block] *= math.sqrt(float(np.mean(part**2))) or whole if part.size else 1.0
    return u


def taylor_table(
    values: Callable[[float], tuple[float, float]], start: float, slope: float, noise: float
) -> TaylorTable:
    """Return remainders and differences at one step after another.

    Parameters
    ----------
    values : callable
        `values(t)`: J at θ + t·u as floats hold it, and g·(that − θ); NaN where J is not defined.
    start, slope, noise : float
        J(θ), g·u, and the standard deviation of J's noise.
    """
    rows, errors = [], []
    for step in STEPS:
        (high, up), (low, down) = values(step), values(-step)
        remainder = abs((high - start) - up)
        central, given = (high - low) / (2.0 * step), (up - down) / (2.0 * step)
        sizes = abs(central) + abs(given)
        difference = abs(central - given) / sizes if sizes > 0.0 else 0.0
        spread = max(noise, UNIT_ROUNDOFF * abs(start))
        told = TOLD * spread
        errors.append((told, told / (step * sizes) if sizes > 0.0 else math.inf))
        rows.append(TaylorRow(step, remainder, difference))
    pairs = pairwise(zip(rows, errors, strict=True))
    rated = [rows[0], *(_rated(wide, row, told) for (wide, _), (row, told) in pairs)]
    known = [row.rate for row in rated if row.rate is not None]
    return TaylorTable(tuple(rated), slope, median(known[-LAST_RATES:]) if known else None)


def _rated(wide: TaylorRow, row: TaylorRow, told: tuple[float, float]) -> TaylorRow:
    """Return a row with its rates, where its figures stand out of the noise."""
    ratio = math.log(wide.step / row.step)

    def rate(before: float, now: float, least: float) -> float | None:
        if not (now > least and 0.0 < before < math.inf):
            return None
        return math.log(before / now) / ratio

    return TaylorRow(
        row.step,
        row.remainder,
        row.difference,
        rate(wide.remainder, row.remainder, told[0]),
        rate(wide.difference, row.difference, told[1]),
    )
