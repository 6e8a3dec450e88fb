"""What is compared: the gradient beside the differences, and what blurs each component."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.norms import norm
from fastcheck.types import Floats, Integers
from fastcheck.verdict.rules import Blur

__all__ = ["AlignedPair", "Evidence", "RoundingModel", "align"]

# An interval that is narrower than this share of its ends is shown as one value: where only the
# curvature jumps, the one-sided differences differ by O(ε).
SHOWN_WIDTH = 1e-5


class RoundingModel(Protocol):
    """σ of all N components, made where it is asked for: it need not lie in memory as a whole."""

    @property
    def loop_factor(self) -> float:
        """What `block_rounding` takes it for."""
        ...

    def between(self, start: int, stop: int) -> Floats:
        """Return σ of the components start..stop−1 of θ."""
        ...

    def at(self, indices: Integers) -> Floats:
        """Return σ of some components of θ."""
        ...


@dataclass(frozen=True)
class Evidence:
    """What is compared.

    Attributes
    ----------
    gradient, values : ndarray, shape (n,), float64, finite
        The given gradient and the central differences at the checked components.
    target : ndarray, shape (n,), float64, finite
        g*, which the gradient is held to: often `values` itself.
    rounding : float, ndarray (n,) or RoundingModel
        σ of the gradient's own rounding, absolute; a model where all N components are there.
    noise, uncertainty : float or ndarray (n,)
        Standard deviation of the method's own error, and τ; absolute.
    kinks : Kinks
        Positions in these arrays.
    loop_factor : float or None
        As for `block_rounding`, where one model of the whole backward pass made all σ.
    """

    gradient: Floats
    values: Floats
    target: Floats
    rounding: float | Floats | RoundingModel
    noise: float | Floats
    uncertainty: float | Floats
    kinks: Kinks
    loop_factor: float | None = None
    allowance: float | Floats = 0.0

    def kinks_within(self, start: int, stop: int) -> slice:
        """Return which of the kinks lie at positions start..stop−1."""
        positions = self.kinks.positions
        if positions.size == 0:
            return slice(0, 0)
        return slice(int(positions.searchsorted(start)), int(positions.searchsorted(stop)))

    def nearest(self, which: slice | Integers) -> Floats:
        """Return for some kinks the point of their interval nearest to the gradient."""
        at = self.kinks.positions[which]
        return self.kinks.at(which).nearest(self.gradient[at], self.values[at], self.target[at])

    def wide_kinks(self, which: slice, tol: float) -> Integers:
        """Return the positions of those kinks whose slopes differ by more than tol and in print."""
        kinks = self.kinks.at(which)
        return kinks.positions[kinks.wide(max(tol, SHOWN_WIDTH))]

    def accepted(self, piece: slice) -> Floats:
        """Return what each component is held to: g*, at kinks the nearest of their interval."""
        kinks = self.kinks_within(piece.start, piece.stop)
        if kinks.start == kinks.stop:
            return self.target[piece]
        accepted = self.target[piece].copy()
        accepted[self.kinks.positions[kinks] - piece.start] = self.nearest(kinks)
        return accepted

    def rounding_at(self, positions: slice | Integers) -> float | Floats:
        """Return σ at some positions."""
        if isinstance(self.rounding, (float, int, np.ndarray)):
            return _at(self.rounding, positions)
        if isinstance(positions, slice):
            return self.rounding.between(positions.start, positions.stop)
        return self.rounding.at(positions)

    def blur_at(self, positions: slice | Integers) -> Blur:
        """Return what blurs the components at some positions."""
        blurs = (self.noise, self.uncertainty, self.allowance)
        return Blur(self.rounding_at(positions), *(_at(blur, positions) for blur in blurs))


def _at(values: float | Floats, positions: slice | Integers) -> float | Floats:
    return values[positions] if isinstance(values, np.ndarray) else values


@dataclass(frozen=True)
class AlignedPair:
    """The evidence, and where it lies in θ.

    Attributes
    ----------
    evidence : Evidence
    indices : ndarray of int64, increasing, or None
        Of θ; None where all N components are there.
    not_finite : ndarray of int64, increasing
        Indices of θ whose approximation came out as NaN or infinity; they are not in the evidence.
    """

    evidence: Evidence
    indices: Integers | None
    not_finite: Integers

    def index(self, position: int) -> int:
        """Return the index in θ of a position in the evidence."""
        return position if self.indices is None else int(self.indices[position])

    def part(self, start: int, stop: int) -> slice:
        """Return the positions of the components start..stop−1 of θ."""
        if self.indices is None:
            return slice(start, stop)
        first, last = np.searchsorted(self.indices, (start, stop))
        return slice(int(first), int(last))

    def broken(self, start: int, stop: int) -> int:
        """Return how many approximations of the components start..stop−1 are not finite."""
        first, last = np.searchsorted(self.not_finite, (start, stop))
        return int(last - first)


def align(
    gradient: Floats, approximation: Approximation, sigma: float | Floats | RoundingModel
) -> AlignedPair:
    """Line the gradient up with the approximation, and set aside what is not finite.

    Parameters
    ----------
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
    sigma : float, ndarray of shape (n,) or (N,), or RoundingModel
    """
    size = gradient.size
    indices, values = approximation.indices, approximation.values
    loop_factor = None if isinstance(sigma, (float, int, np.ndarray)) else sigma.loop_factor
    if indices is not None:
        gradient = gradient[indices]
        if isinstance(sigma, np.ndarray):
            sigma = sigma if sigma.size == indices.size else sigma[indices]
        elif not isinstance(sigma, (float, int)):
            sigma = sigma.at(indices)
    evidence = Evidence(
        gradient=gradient,
        values=values,
        target=approximation.target,
        rounding=sigma,
        noise=approximation.noise,
        uncertainty=approximation.uncertainty,
        allowance=approximation.allowance,
        kinks=approximation.kinks,
        loop_factor=loop_factor,
    )
    if approximation.complete and math.isfinite(norm(values) + norm(evidence.target)):
        return AlignedPair(evidence, indices, np.zeros(0, np.int64))
    finite = np.isfinite(values) & np.isfinite(evidence.target)
    if indices is None:
        indices = np.arange(size)
    # In an interrupted run NaN is what was not reached, in a complete one it is what J gave.
    not_finite = indices[~finite] if approximation.complete else np.zeros(0, np.int64)
    keep = np.flatnonzero(finite)
    return AlignedPair(_subset(evidence, keep), indices[keep], not_finite)


def _subset(evidence: Evidence, keep: Integers) -> Evidence:
    """Return the evidence at increasing positions."""
    kinks = evidence.kinks.at(np.isin(evidence.kinks.positions, keep))
    blur = evidence.blur_at(keep)
    values = evidence.values[keep]
    apart = evidence.target is not evidence.values
    return Evidence(
        gradient=evidence.gradient[keep],
        values=values,
        target=evidence.target[keep] if apart else values,
        rounding=blur.sigma,
        noise=blur.noise,
        uncertainty=blur.uncertainty,
        allowance=blur.allowance,
        kinks=replace(kinks, positions=np.searchsorted(keep, kinks.positions)),
        loop_factor=evidence.loop_factor,
    )
