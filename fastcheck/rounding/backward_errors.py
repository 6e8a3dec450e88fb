"""What a backward pass carries from layer to layer: a gradient and three accounts of its errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastcheck.kernels import rounding as kernels
from fastcheck.rounding.sampled_errors import SampledErrors
from fastcheck.types import Floats

__all__ = ["Backward"]


@dataclass
class Backward:
    """What travels back: ∂J/∂A_l or ∂J/∂Z_l and its errors, all over `size`.

    Attributes
    ----------
    gradient : ndarray, shape (m, n)
    variance : ndarray, shape (m, n)
        Of errors that are independent from unit to unit.
    common : ndarray, shape (m, 1)
        Relative variance of one factor that all units of a sample share.
    errors : ndarray, shape (r, n)
        Drawn errors of a few samples.
    """

    size: float
    gradient: Floats
    variance: Floats
    common: Floats
    errors: Floats

    def normalised(self) -> Backward:
        """Return this with the largest gradient between 1 and 2, by a power of two.

        Where the errors are far larger than the gradient, they are what is kept from overflow.
        """
        largest = max(float(self.gradient.max()), -float(self.gradient.min()))
        largest = max(largest, 1e-100 * float(np.sqrt(self.variance.max())))
        if not 0.0 < largest < np.inf:
            return self
        factor = float(np.ldexp(1.0, 1 - int(np.frexp(largest)[1])))
        self.size = max(self.size / factor, 1e-300)
        self.gradient *= factor
        self.variance *= factor
        self.variance *= factor
        self.errors *= factor
        return self

    def corrected(self, draws: SampledErrors) -> Backward:
        """Return this with variances no smaller than the drawn errors show them."""
        more = draws.shortfall(self.errors, self.variance, self.common, self.gradient)
        self.variance *= more
        self.common = self.common * more
        return self

    def split(self, u: float) -> Backward:
        """Return the same with what is along the gradient moved from `variance` to `common`.

        It reaches every unit of the next layer as one factor, where independent errors average out.
        """
        variance, common = split_along(self.gradient, self.variance, 1.0 / u**2)
        return replace(self, variance=variance, common=self.common + common)


def split_along(values: Floats, variance: Floats, most: float) -> tuple[Floats, Floats]:
    """Split independent errors of each row into one along `values` and the rest.

    Where the former would be greater than `most`, next to nothing is left of the values, and the
    errors stay as they are.

    Returns
    -------
    rest : ndarray, shape (m, n)
        Variance of e − (e·v / v·v) v.
    common : ndarray, shape (m, 1)
        Variance of e·v / v·v.
    """
    rest, common = np.empty_like(variance), np.empty((values.shape[0], 1))
    kernels.split_along(values, variance, most, rest, common)
    return rest, common
