"""Drawn errors of a few samples, carried along with their signs, and products in float32.

Variances that travel through W² know nothing of how errors of different units go together. A few
samples' drawn errors do, so they tell by how much a layer's variances fall short.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from fastcheck.kernels.rounding import (
    add_draws,
    add_products,
    first_equals,
    row_singles,
    shortfall,
    single_weights,
)
from fastcheck.rounding.precision import Precision, repetitions
from fastcheck.types import Floats, Integers, Singles

__all__ = ["SampledErrors", "ScaledWeights"]


MIN_ROWS = 16  # rows of drawn errors, whatever the batch and the network
MAX_DRAWS_PER_SAMPLE = 4  # draws of each sample, where they cost little:
DRAW_BUDGET = 4_000_000  # draws times N
POOL_SIZE = 1 << 16
PRODUCT_HEADROOM = 2.0**40  # products keep the lower end of float32's range free
# Weights in float32 up to this size serve the way back too; greater ones are made again.
MAX_CACHED_BYTES = 256 * 2**20


@cache
def _pool() -> Floats:
    """Standard normal numbers, the same in every run."""
    return np.random.Generator(np.random.PCG64(20190225)).standard_normal(POOL_SIZE)


@cache
def _none_equal() -> Integers:
    return np.empty((0, 0), np.int64)


class SampledErrors:
    """Which samples' errors are drawn, and the numbers that they are drawn with.

    Parameters
    ----------
    m : int
        Size of the batch.
    size : int
        N: errors of small networks are cheap to carry, so there are more of them.
    precision : Precision
        Which values are equal.

    Attributes
    ----------
    rows : ndarray, shape (r,), int64, in order
        The samples; a sample may have several draws.
    """

    def __init__(self, m: int, size: int, precision: Precision) -> None:
        self._precision = precision
        count = max(MIN_ROWS, min(MAX_DRAWS_PER_SAMPLE * m, DRAW_BUDGET // size))
        self.rows = np.arange(count) * m // count
        self._at = 0
        self._space = np.empty((2, 0), np.float32)
        self._cached: dict[int, ScaledWeights] = {}
        self._cached_bytes = 0

    def weights(self, layer: int, W: Floats) -> ScaledWeights:
        """Return W_l for products in float32, until the weights of another layer are asked for."""
        if layer in self._cached:
            return self._cached[layer]
        if self._cached_bytes + W.nbytes <= MAX_CACHED_BYTES:
            self._cached_bytes += W.nbytes
            self._cached[layer] = ScaledWeights(W, np.empty((2, *W.shape), np.float32))
            return self._cached[layer]
        if self._space.shape[1] < W.size:
            self._space = np.empty((2, W.size), np.float32)
        return ScaledWeights(W, self._space[:, : W.size].reshape(2, *W.shape))

    def add(self, errors: Floats, variance: Floats, values: Floats | None = None) -> Floats:
        """Add drawn errors of a variance (m, n) to those that are drawn, in place.

        Units that have equal `values` (m, n) in a sample have equal errors.
        """
        firsts = _none_equal() if values is None else self.first_equals(values)
        add_draws(variance, self.rows, _pool(), self._at, firsts, errors)
        self._at += errors.size
        return errors

    def first_equals(self, values: Floats) -> Integers:
        """Return where each value of a drawn sample first occurs in it; (0, 0) if none repeats."""
        values = np.ascontiguousarray(values)
        firsts = np.empty((self.rows.size, values.shape[1]), np.int64)
        repeated = first_equals(values, self.rows, self._precision.equal_bits, firsts)
        return firsts if repeated else _none_equal()

    def repeated_terms(self, values: Floats, W: Floats) -> float:
        """Return how often a term of values Wᵀ occurs in its sum, at most: on a few rows of each.

        Parameters
        ----------
        values : ndarray, shape (m, n)
        W : ndarray, shape (k, n)
        """
        of_weights = self._repeated_in_rows(W)
        return 1.0 if of_weights == 1.0 else min(of_weights, self._repeated_in_rows(values))

    def _repeated_in_rows(self, rows: Floats) -> float:
        count = min(rows.shape[0], MIN_ROWS)
        some = np.arange(count) * rows.shape[0] // count
        return float(repetitions(rows[some].T, self._precision).max())

    def shortfall(self, errors: Floats, variance: Floats, common: Floats, values: Floats) -> Floats:
        """Return how many times each row's variance falls short of that of the drawn errors, ≥ 1.

        Parameters
        ----------
        errors : ndarray, shape (r, n)
        variance, values : ndarray, shape (m, n)
        common : ndarray, shape (m, 1)
            What falls short is variance + common · values².

        Returns
        -------
        ndarray, shape (m, 1)
            Of a row that has no draw what all of them have together.
        """
        factors = np.empty(variance.shape[0])
        shortfall(errors, variance, common, values, self.rows, 1e6, factors)
        return factors[:, np.newaxis]


class ScaledWeights:
    """W_l in float32, in units of its size, for products that only size tolerances."""

    def __init__(self, W: Floats, space: Singles) -> None:
        self._W, self._squares = space
        self.unit = 1.0
        largest = single_weights(W, 1.0, self._W, self._squares)
        if not 1e-6 < largest < 1e6 and 0.0 < largest < np.inf:
            self.unit = largest
            single_weights(W, 1.0 / largest, self._W, self._squares)

    def values(self, rows: Floats, *, back: bool = False) -> Floats:
        """Return rows Wᵀ (back: rows W)."""
        W = self._W.T if back else self._W
        return _add_product(rows, W, self.unit, 0.0, np.zeros((rows.shape[0], W.shape[0])))

    def add_variances(
        self, rows: Floats, sums: Floats, *, least: float = 0.0, back: bool = False
    ) -> Floats:
        """Add rows (W²)ᵀ (back: rows W²), and `least` where the sum is not 0, in place."""
        squares = self._squares.T if back else self._squares
        return _add_product(rows, squares, self.unit * self.unit, least, sums)


def _add_product(rows: Floats, W: Singles, unit: float, least: float, sums: Floats) -> Floats:
    """Add rows (unit · W)ᵀ, made in float32; BLAS is faster the other way round."""
    singles, sizes = np.empty(rows.shape, np.float32), np.empty(rows.shape[0])
    row_singles(rows, PRODUCT_HEADROOM, singles, sizes)
    add_products(W @ singles.T, sizes, unit, least, sums)
    return sums
