"""The Taylor test: how J(θ + h·u) − J(θ) − h·g·u falls with h, as people of PDE codes know it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaylorRow", "TaylorTable"]


@dataclass(frozen=True)
class TaylorRow:
    """One step.

    Attributes
    ----------
    step : float
        h, relative to the size of θ.
    remainder : float
        |J(θ + h·u) − J(θ) − h·g·u|.
    difference : float
        |D − g·u| / (|D| + |g·u|), D the central difference along u.
    rate, difference_rate : float or None
        The power of h by which they fell since the row above; None in the first row, and where
        the noise of J is most of what is left.
    """

    step: float
    remainder: float
    difference: float
    rate: float | None = None
    difference_rate: float | None = None


@dataclass(frozen=True)
class TaylorTable:
    """The Taylor test along one random direction through all of θ.

    Attributes
    ----------
    rows : tuple of TaylorRow
        From the widest step to the narrowest.
    slope : float
        g·u.
    rate : float or None
        The median of the last three that noise leaves: 2 for a right gradient, 1 for a wrong one.
    """

    rows: tuple[TaylorRow, ...]
    slope: float
    rate: float | None = None
