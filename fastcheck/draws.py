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

DRAWN = 12  # rows of drawn errors, whatever the batch
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

    Attributes
    ----------
    rows : ndarray, shape (r,), int64
        The samples.
    """

    def __init__(self, m: int) -> None:
        self.rows = np.arange(DRAWN) * m // DRAWN
        self._at = 0
        self._space = np.empty((2, 0), np.float32)

    def weights(self, W: Floats) -> ScaledWeights:
        """Return W_l for products in float32; what was returned before is overwritten."""
        if self._space.shape[1] < W.size:
            self._space = np.empty((2, W.size), np.float32)
        values, squares = self._space[:, : W.size]
        return ScaledWeights(W, values.reshape(W.shape), squares.reshape(W.shape))

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

    def __init__(self, W: Floats, values: Singles, squares: Singles) -> None:
        self._W, self._squares = values, squares
        size = float(np.sqrt(np.vdot(W, W) / W.size))
        self.unit = 1.0 if 1e-3 < size < 1e3 or size == 0.0 else size
        if self.unit == 1.0:
            np.copyto(values, W, casting="same_kind")
        else:
            np.multiply(W, 1.0 / size, out=values, casting="same_kind")

    def values(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows Wᵀ (back: rows W)."""
        return self._product(rows, self._W if back else self._W.T, self.unit)

    def variances(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows (W²)ᵀ (back: rows W²)."""
        squares = np.multiply(self._W, self._W, out=self._squares)
        return self._product(rows, squares if back else squares.T, self.unit**2)

    @staticmethod
    def _product(rows: Floats, W: Singles, unit: float) -> Floats:
        size = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
        size[~((size > 1e-250) & np.isfinite(size))] = 1.0
        scaled = np.empty(rows.shape, np.float32)
        np.multiply(rows, HEADROOM / size, out=scaled, casting="same_kind")
        return np.asarray((scaled @ W) * (size * (unit / HEADROOM)))
