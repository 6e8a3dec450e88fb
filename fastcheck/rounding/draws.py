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
# Weights in float32 up to this size serve the way back too; greater ones are made again.
KEPT_BYTES = 256 * 2**20


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
        self._kept: dict[int, ScaledWeights] = {}
        self._kept_bytes = 0

    def weights(self, layer: int, W: Floats) -> ScaledWeights:
        """Return W_l for products in float32, until the weights of another layer are asked for."""
        if layer in self._kept:
            return self._kept[layer]
        if self._kept_bytes + W.nbytes <= KEPT_BYTES:
            self._kept_bytes += W.nbytes
            self._kept[layer] = ScaledWeights(W, np.empty((2, *W.shape), np.float32))
            return self._kept[layer]
        if self._space.shape[1] < W.size:
            self._space = np.empty((2, W.size), np.float32)
        return ScaledWeights(W, self._space[:, : W.size].reshape(2, *W.shape))

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

    def __init__(self, W: Floats, space: Singles) -> None:
        self._W, self._squares = space
        with np.errstate(over="ignore", under="ignore"):
            np.copyto(self._W, W, casting="same_kind")
            mean_square = float(np.vdot(self._W, self._W)) / W.size
        self.unit = 1.0
        if not 1e-6 < mean_square < 1e6:
            self.unit = float(np.sqrt(np.vdot(W, W) / W.size)) or 1.0
            np.multiply(W, 1.0 / self.unit, out=self._W, casting="same_kind")
        np.multiply(self._W, self._W, out=self._squares)

    def values(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows Wᵀ (back: rows W)."""
        return self._product(rows, self._W.T if back else self._W, self.unit)

    def variances(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows (W²)ᵀ (back: rows W²)."""
        return self._product(rows, self._squares.T if back else self._squares, self.unit**2)

    @staticmethod
    def _product(rows: Floats, W: Singles, unit: float) -> Floats:
        """Return rows Wᵀ; BLAS is faster the other way round."""
        size = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
        size[~((size > 1e-250) & np.isfinite(size))] = 1.0
        scaled = np.empty(rows.shape, np.float32)
        np.multiply(rows, HEADROOM / size, out=scaled, casting="same_kind")
        product = W @ scaled.T
        return np.asarray(np.ascontiguousarray(product.T) * (size * (unit / HEADROOM)))
