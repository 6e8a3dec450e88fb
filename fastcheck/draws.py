"""Drawn errors of a few samples, carried along with their signs, and products in float32.

Variances that travel through W² know nothing of how errors of different units go together. A few
samples' drawn errors do, so they tell by how much a layer's variances fall short.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws", "ScaledWeights"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

DRAWN = 16  # rows of drawn errors, whatever the batch
POOL = 1 << 16
HEADROOM = 2.0**40  # products keep the lower end of float32's range free


@cache
def _pool() -> Floats:
    """Standard normal numbers, the same in every run."""
    return np.random.Generator(np.random.PCG64(20190225)).standard_normal(POOL)


class Draws:
    """Which samples' errors are drawn, and the numbers that they are drawn with.

    Parameters
    ----------
    m : int
        Size of the batch. A batch of fewer than `DRAWN` samples has several draws of each.
    """

    def __init__(self, m: int) -> None:
        self.rows = np.arange(DRAWN) * m // DRAWN
        self._at = 0

    def errors(self, variance: Floats) -> Floats:
        """Return errors (DRAWN, n) of a variance (m, n), for the samples that are drawn."""
        picked = variance[self.rows]
        start = self._at
        self._at += picked.size
        numbers = _pool().take(np.arange(start, self._at), mode="wrap").reshape(picked.shape)
        return np.asarray(numbers * np.sqrt(picked))

    def shortfall(self, errors: Floats, variance: Floats) -> float:
        """Return how many times greater the drawn errors' variance is than the given one, ≥ 1."""
        expected = variance[self.rows].sum(axis=1)
        seen = np.einsum("rn,rn->r", errors, errors)
        usable = (expected > 0.0) & np.isfinite(expected) & np.isfinite(seen)
        if not usable.any():
            return 1.0
        seen, expected = seen[usable], expected[usable]
        of_each, of_all = np.mean(seen / expected), seen.sum() / expected.sum()
        return float(np.clip(max(of_each, of_all), 1.0, 1e6))


class ScaledWeights:
    """W_l in float32, in units of its root mean square, for products that only size tolerances."""

    def __init__(self, W: Floats) -> None:
        self.unit = float(np.sqrt(np.vdot(W, W) / W.size)) or 1.0
        self._W = np.empty(W.shape, np.float32)
        np.multiply(W, 1.0 / self.unit, out=self._W, casting="same_kind")
        self._squared = False

    def values(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows Wᵀ (back: rows W); to be called before `variances`."""
        assert not self._squared
        return self._product(rows, self._W if back else self._W.T, self.unit)

    def variances(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows (W²)ᵀ (back: rows W²)."""
        if not self._squared:
            np.multiply(self._W, self._W, out=self._W)
            self._squared = True
        return self._product(rows, self._W if back else self._W.T, self.unit**2)

    @staticmethod
    def _product(rows: Floats, W: Singles, unit: float) -> Floats:
        size = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
        size[~((size > 1e-250) & np.isfinite(size))] = 1.0
        scaled = np.empty(rows.shape, np.float32)
        np.multiply(rows, HEADROOM / size, out=scaled, casting="same_kind")
        return np.asarray((scaled @ W) * (size * (unit / HEADROOM)))
