"""Samples that occur more than once: what rounding does to them is the same each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.network import Batch, Network
from fastcheck.rounding.arithmetic import Precision, repetitions

__all__ = ["Copies"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Copies:
    """How often the inputs of each sample occur in a batch.

    Attributes
    ----------
    counts : ndarray, shape (m,), float64
    distinct : ndarray of int64, increasing, or None
        One sample of each kind; None where all are different.
    """

    counts: Floats
    distinct: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, network: Network, batch: Batch) -> Copies:
        """Count equal rows of X; with dropout masks no two samples are taken as equal."""
        X = np.ascontiguousarray(batch.X)
        sums = X.sum(axis=1)
        masked = any(mask is not None for mask in network.masks or ())
        if masked or len(set(sums.tolist())) == batch.size:
            return cls(np.ones(batch.size))
        rows = X.view(np.dtype((np.void, X.shape[1] * X.itemsize)))[:, 0]
        _, first, kind, counts = np.unique(
            rows, return_index=True, return_inverse=True, return_counts=True
        )
        return cls(counts[kind.ravel()].astype(np.float64), np.sort(first))

    @property
    def average(self) -> float:
        """How many copies a sample has: as often a sum over samples is rounded alike."""
        return float(self.counts.mean())

    def repetitions(self, values: Floats, precision: Precision, size: float = 1.0) -> Floats:
        """Return how many samples of different inputs share a value; see `repetitions`."""
        chosen = values if self.distinct is None else values[self.distinct]
        return repetitions(chosen, precision, size)
