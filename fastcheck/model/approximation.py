"""dθ_approx as a method gives it: the values, the method's own error, and the kinks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastcheck.types import Floats, Integers

__all__ = ["Approximation", "Curve", "Kinks", "VCurve"]


@dataclass(frozen=True)
class Kinks:
    """Components whose own interval ±ε meets a kink, and what is right there.

    Attributes
    ----------
    positions : ndarray, shape (n,), int64, increasing
        Positions in the values of the approximation (not indices of θ).
    low, high : ndarray, shape (n,), float64
        The least and the greatest right value: of the secants to both sides and of the derivatives
        at θ, with units that lie on a kink taken by each convention of backward passes.
    slack : ndarray, shape (n,), float64
        What rounding may have done to low and high.
    jumps : ndarray, shape (n,), float64
        How far apart these are without the secants to one side, which differ by O(ε) also where
        only the curvature jumps; None for high − low.
    """

    positions: Integers
    low: Floats
    high: Floats
    slack: Floats | None = None
    jumps: Floats | None = None

    @classmethod
    def none(cls) -> Kinks:
        """No kinks."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))

    def at(self, which: slice | Integers | NDArray[np.bool_]) -> Kinks:
        """Return some of the kinks."""
        slack, jumps = (None if each is None else each[which] for each in (self.slack, self.jumps))
        return Kinks(self.positions[which], self.low[which], self.high[which], slack, jumps)

    def wide(self, tol: float) -> NDArray[np.bool_]:
        """Return where the slopes differ by more than a relative tolerance and rounding explain."""
        slack = 0.0 if self.slack is None else self.slack
        allowed = tol * np.abs(self.low) + tol * np.abs(self.high) + 2.0 * slack
        jumps = self.high - self.low if self.jumps is None else self.jumps
        return np.asarray(jumps > allowed)

    def nearest(self, gradient: Floats, values: Floats, target: Floats) -> Floats:
        """Return the right values nearest to a gradient.

        Parameters
        ----------
        gradient, values, target : ndarray, shape (n,), float64
            At these positions: what is given, the central differences, and these without their
            truncation, which takes the ends of the interval along.
        """
        slack = 0.0 if self.slack is None else self.slack
        shift = target - values
        low = np.minimum(self.low, values) + shift - slack
        high = np.maximum(self.high, values) + shift + slack
        return np.clip(gradient, low, high)


@dataclass(frozen=True)
class Approximation:
    """dθ_approx for all components, or for those of a sample.

    Attributes
    ----------
    method : str
        `textbook` or `unit`.
    epsilon : float
    indices : ndarray of int64, increasing, or None
        Which components of θ; None for all N in their order.
    values : ndarray, shape (n,), float64
        D(ε), the central differences. NaN where an interrupted run did not come.
    noise : float or ndarray (n,)
        Standard deviation of the method's own error, absolute: about 1e-16·|J|/ε for the textbook.
    kinks : Kinks
    curvature : float or None
        The largest O(h²) term that was measured, relative; None where it was not measured.
    complete : bool
        False after Ctrl-C.
    notes : tuple of str
        What a reader should know, a sentence each.
    self_check : str
        What the literal re-evaluation of a few components gave, in a sentence ("" where none ran).
    trace : tuple of ndarray or None
        Z and A of the forward pass at θ, where the method has made one; see `rounding.rounding`.
    derivative : ndarray, shape (n,), float64, or None
        g*: D(ε) with its measured truncation taken out, which a gradient is held to; None where
        that is `values`.
    uncertainty : float or ndarray (n,)
        τ: how far g* may still be from the derivative, absolute.
    allowance : float or ndarray (n,)
        Of a function: what a component may be off by beside tol, absolute, since J lets no one see
        it, or since its block is so much larger.
    """

    method: str
    epsilon: float
    indices: Integers | None
    values: Floats
    noise: float | Floats = 0.0
    kinks: Kinks = field(default_factory=Kinks.none)
    curvature: float | None = None
    complete: bool = True
    notes: tuple[str, ...] = ()
    self_check: str = ""
    trace: tuple[Floats, Floats] | None = None
    derivative: Floats | None = None
    uncertainty: float | Floats = 0.0
    allowance: float | Floats = 0.0

    @property
    def target(self) -> Floats:
        """What a gradient is held to: g*, or D(ε) where no truncation was taken out."""
        return self.values if self.derivative is None else self.derivative


@dataclass(frozen=True)
class Curve:
    """The difference of a sample of components against ε, by one method."""

    method: str
    epsilons: tuple[float, ...]
    differences: tuple[float, ...]


@dataclass(frozen=True)
class VCurve:
    """Difference against ε.

    Attributes
    ----------
    epsilon : float
        The one that the check used.
    components : int
        How many components were evaluated at each ε.
    curves : tuple of Curve
        One for each method.
    """

    epsilon: float
    components: int
    curves: tuple[Curve, ...]
