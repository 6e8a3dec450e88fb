"""How each precision rounds: the size of one rounding, of a sum of products, of an underflow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.evaluation_errors import Limits
from fastcheck.kernels.rounding import count_repetitions
from fastcheck.types import Floats
from fastcheck.validation import unit_roundoff

__all__ = ["MEAN_SQUARE", "Precision", "alike_in_sums", "on_grid", "repetitions"]


# Mean square of the relative error of one rounding, in units of u²: uniform within half a unit of
# the last place, mantissas distributed as 1/x.
MEAN_SQUARE = 0.18
# The products of a matrix product are summed in a row up to about this many.
SUMMED_IN_A_ROW = 512
# The absolute error where a result underflows: vectorised functions and many processors flush to
# zero below the smallest normal number; float16 has its subnormals everywhere.
UNDERFLOW_ERROR = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-25,
    "bfloat16": 2.0**-126,
}
# Libraries treat the last rows of a product apart: equal rows differ in so many bits.
LAST_BITS = 6
# A running sum of m terms of one size stagnates where m·u comes near 1.
LEAST_STAGNATION = 2.0**-6
# The least variance, beside values near 1: far below what any verdict can see, above underflow.
MIN_VARIANCE = 1e-290
# The largest number.
LARGEST_NUMBER = {
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
    loops : bool
        Whether sums are plain loops that round every addition to this precision.
    """

    name: str
    u: float
    summed: float
    underflow: float
    largest: float
    loops: bool = False

    @classmethod
    def of(cls, name: str, *, loops: bool = False) -> Precision:
        """Return the precision of that name."""
        u = unit_roundoff(name)
        inner = 1.0 if loops else min(u, unit_roundoff("float32")) / u
        summed = MEAN_SQUARE * inner * inner
        return cls(name, u, summed, UNDERFLOW_ERROR[name] / u, LARGEST_NUMBER[name], loops)

    def products(self, terms: int, repeated: float = 1.0) -> float:
        """Variance of a sum of so many products, for each unit of Σ(ab)².

        `repeated` is how often a product occurs: the same addition is rounded to the same side.
        """
        return self.summed * (1.0 + self._in_a_row(terms) * repeated / 6.0)

    def partial_sums(self, terms: int, repeated: float = 1.0) -> float:
        """Variance of a sum of so many products, for each unit of its square; see `products`."""
        return self.summed * self._in_a_row(terms) * repeated / 3.0

    def loop_factor(self, terms: int) -> float:
        """By how much a sum in one row is worse than `partial_sums` has it, at most."""
        return float(np.sqrt(terms / self._in_a_row(terms)))

    def _in_a_row(self, terms: int) -> float:
        """How many terms are summed in a row: between a library's order and a plain loop's.

        Sums of blocks of 512 have a 512th of a loop's variance for each term, sums in one row the
        whole: the geometric mean is within a factor of both that the margins cover.
        """
        if self.loops or terms <= SUMMED_IN_A_ROW:
            return float(terms)
        return float(np.sqrt(SUMMED_IN_A_ROW * terms))

    def limits(self, samples: int) -> Limits:
        """Return what the evaluation of activations and losses depends on."""
        return Limits(self.u, self.largest, self.underflow, samples)

    @property
    def equal_bits(self) -> int:
        """How many of a float64's last bits two equal values may differ in."""
        return max(53 + int(np.log2(self.u)), LAST_BITS)

    def underflows(self, size: float) -> float:
        """Variance of an underflow where values are given in units of `size`."""
        return max(min(self.underflow / max(size, 1e-300), 1e140) ** 2 / 3.0, MIN_VARIANCE)

    def underflows_in_sum(self, terms: int, size: float) -> float:
        """Variance of a sum of products that underflow: plain loops round each of them."""
        return self.underflows(size) * (terms if self.loops else 1)

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


@lru_cache(maxsize=64)
def _shuffled(m: int) -> NDArray[np.int64]:
    """Return 0, …, m − 1 in random order, the same in every run."""
    return np.random.Generator(np.random.PCG64(m)).permutation(m)


def repetitions(values: Floats, precision: Precision, size: float = 1.0) -> Floats:
    """Return how many samples share a value, on average, as far as the precision can tell.

    Equal values are rounded equally: over a sum of samples their errors do not average out, they
    add up. A variance times this is the variance that independent errors of the same sum have.
    Samples are weighted with their squared values. Zeros don't count, they are exact.

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
    counts = np.empty(n)
    values = np.ascontiguousarray(values)
    count_repetitions(values, _shuffled(m), step, precision.equal_bits, counts)
    return counts


def on_grid(values: Floats, errors: Floats) -> Floats:
    """Return values as far as a formula that makes such errors can tell them apart.

    A sum of numbers near 1 that leaves a small value knows only multiples of its last bit: values
    between two of them are rounded alike. Zeros alone become 0.

    Parameters
    ----------
    values, errors : ndarray, shape (m, n)
    """
    steps = np.ldexp(1.0, np.frexp(errors)[1] - 1)
    rounded = np.rint(values / steps) * steps
    rounded = np.where(rounded == 0.0, 0.5 * steps, rounded)
    return np.where((values == 0.0) | (errors == 0.0), values, rounded)


def alike_in_sums(values: Floats, precision: Precision) -> Floats:
    """Return how many terms of a running sum over the samples are rounded alike, at least 1.

    Once the sum is so large that neighbouring terms differ by less than its last bit, all of them
    are rounded to the same side. In float16 that takes some hundred samples.

    Parameters
    ----------
    values : ndarray, shape (m, n)

    Returns
    -------
    ndarray, shape (n,)
    """
    m = values.shape[0]
    if m * precision.u < LEAST_STAGNATION:
        return np.ones(values.shape[1])
    last_bit = precision.u * np.abs(values.sum(axis=0))
    near = np.abs(np.diff(values, axis=0)) < last_bit
    return np.asarray(1.0 + np.count_nonzero(near, axis=0))
