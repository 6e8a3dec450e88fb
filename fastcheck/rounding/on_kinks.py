"""Rounding where units lie on a kink: a backward pass may take them by one slope or another.

Units that one convention leaves dead carry rounding errors on by another, so σ is made for each
convention, and the largest one serves.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.network import Batch, Network
from fastcheck.rounding.evaluation import SIDES, slope_by_side
from fastcheck.rounding.model import USUAL, Rounding, Variant, rounding
from fastcheck.rounding.propagation import Trace, values_of
from fastcheck.types import Floats

__all__ = ["RoundingOnKinks", "rounding_on_kinks"]


@dataclass(frozen=True)
class RoundingOnKinks:
    """The largest σ of several conventions for units on a kink, made where it is asked for.

    Attributes
    ----------
    conventions : tuple of Rounding
    """

    conventions: tuple[Rounding, ...]

    @property
    def loop_factor(self) -> float:
        """By how much a plain loop over the samples is worse than the order that σ is made for."""
        return self.conventions[0].loop_factor

    def between(self, start: int, stop: int) -> Floats:
        """Return σ of the components start..stop−1 of θ."""
        return _largest([each.between(start, stop) for each in self.conventions])

    def at(self, indices: NDArray[np.int64]) -> Floats:
        """Return σ of some components of θ."""
        return _largest([each.at(indices) for each in self.conventions])


def _largest(sigmas: list[Floats]) -> Floats:
    return np.asarray(np.maximum.reduce(sigmas))


def rounding_on_kinks(
    network: Network,
    batch: Batch,
    precision: str,
    trace: Trace | None = None,
    dtheta: Floats | None = None,
    variant: Variant = USUAL,
) -> Rounding | RoundingOnKinks:
    """Return what rounding does to a correct backward pass, by whichever convention on kinks.

    Parameters
    ----------
    network, batch, precision, trace, dtheta, variant
        As for `rounding`.
    """
    made = rounding(network, batch, precision, trace, dtheta, variant)
    sides = _distinct_sides(network, batch, trace)
    others = [
        rounding(network, batch, precision, trace, variant=variant._replace(side=side))
        for side in sides
    ]
    return RoundingOnKinks((made, *others)) if others else made


def _distinct_sides(network: Network, batch: Batch, trace: Trace | None) -> list[str]:
    """Return the sides that give different slopes; none where no unit lies on a kink."""
    logits = values_of(network, batch, trace)[0]
    if not any(
        np.isin(Z, activation.kinks).any()
        for Z, activation in zip(logits, network.activations, strict=True)
        if activation.kinks
    ):
        return []
    slopes = {
        side: np.concatenate(
            [
                slope_by_side(activation, Z, side).ravel()
                for Z, activation in zip(logits, network.activations, strict=True)
            ]
        )
        for side in SIDES
    }
    same = {b for a, b in itertools.combinations(SIDES, 2) if np.array_equal(slopes[a], slopes[b])}
    return [side for side in SIDES if side not in same]
