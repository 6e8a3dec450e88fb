"""How each precision rounds: the size of one rounding, of a sum of products, of an underflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.door import unit_roundoff
from fastcheck.kernels.rounding import count_repetitions

__all__ = ["MEAN_SQUARE", "Precision", "repetitions"]

Floats = NDArray[np.float64]

# Mean square of the relative error of one rounding, in units of u²: uniform within half a unit of
# the last place, mantissas distributed as 1/x.
MEAN_SQUARE = 0.18
# The products of a matrix product are summed in a row up to about this many.
SUMMED_IN_A_ROW = 512
# The absolute error where a result underflows: vectorised functions and many processors flush to
# zero below the smallest normal number; float16 has its subnormals everywhere.
UNDERFLOW = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-25,
    "bfloat16": 2.0**-126,
}
# The least variance, beside values near 1: far below what any verdict can see, above underflow.
LEAST = 1e-290
# The largest number.
LARGEST = {
    "float64": float(np.finfo(np.float64).max),
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": 2.0**127 * (2.0 - 2.0**-7),
}


@dataclass(frozen=True)
class Precision:
    """How one precision rounds. Variances are in units of u², or they would underflow.

    Attributes
    ----------
    name : str
    u : float
        Unit roundoff.
    summed : float
        Variance of the relative error of one operation inside a matrix product, which libraries
        form in float32 for half precision. Elsewhere it is `MEAN_SQUARE`.
    underflow : float
        Largest absolute error of an operation whose result underflows, in units of u.
    largest : float
        The largest number.
    """

    name: str
    u: float
    summed: float
    underflow: float
    largest: float

    @classmethod
    def of(cls, name: str) -> Precision:
        """Return the precision of that name."""
        u = unit_roundoff(name)
        inner = min(u, unit_roundoff("float32")) / u
        return cls(name, u, MEAN_SQUARE * inner * inner, UNDERFLOW[name] / u, LARGEST[name])

    def products(self, terms: int) -> float:
        """Variance of a sum of so many products, for each unit of Σ(ab)²."""
        return self.summed * (1.0 + _in_a_row(terms) / 6.0)

    def partial_sums(self, terms: int) -> float:
        """Variance of a sum of so many products, for each unit of its square."""
        return self.summed * _in_a_row(terms) / 3.0

    def loop_factor(self, terms: int) -> float:
        """By how much a sum in one row is worse than `partial_sums` has it, at most."""
        return float(np.sqrt(terms / _in_a_row(terms)))

    def underflows(self, size: float) -> float:
        """Variance of an underflow where values are given in units of `size`."""
        return max(min(self.underflow / max(size, 1e-300), 1e140) ** 2 / 3.0, LEAST)

    def holds(self, values: Floats) -> bool:
        """Whether all values are numbers of this precision."""
        if self.name == "float64":
            return True
        with np.errstate(over="ignore", invalid="ignore"):
            if self.name == "bfloat16":
                short = values.astype(np.float32)
                held = bool(np.all(short.view(np.uint32) & np.uint32(0xFFFF) == 0))
                return held and bool(np.all(short == values))
            return bool(np.all(values.astype(self.name) == values))


def _in_a_row(terms: int) -> float:
    """How many terms are summed in a row: between a library's order and a plain loop's.

    Sums of blocks of 512 have a 512th of a loop's variance for each term, sums in one row the
    whole: the geometric mean is within a factor of both that the margins cover.
    """
    return float(terms) if terms <= SUMMED_IN_A_ROW else float(np.sqrt(SUMMED_IN_A_ROW * terms))


def repetitions(values: Floats, precision: Precision, size: float = 1.0) -> Floats:
    """Return how many samples share a value, on average, as far as the precision can tell.

    Equal values are rounded equally: over a sum of samples their errors do not average out. The
    estimate counts neighbouring samples that are equal: all of them where all are, about 1/c of
    them where there are c values in random order. Zeros don't count, they are exact.

    Parameters
    ----------
    values : ndarray, shape (m, n)
        In units of `size`.

    Returns
    -------
    ndarray, shape (n,)
    """
    m, n = values.shape
    if m == 1:
        return np.ones(n)
    tiny = 4.0 * precision.underflow * precision.u / max(size, 1e-300)
    step = tiny if tiny > 1e-6 else 0.0  # fixed point is all that is left
    shift = 53 - round(-np.log2(precision.u))
    equal = np.empty(n)
    count_repetitions(np.ascontiguousarray(values), step, shift, equal)
    return np.asarray(1.0 + equal * (m / (m - 1)))
