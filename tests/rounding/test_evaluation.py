"""What activations err by in the formulas in use, held against what the rounding model says."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.rounding.precision import MEAN_SQUARE, Precision
from tests.nasty.formulas import FORMS
from tests.nasty.network import DEFAULT_PARAMETERS
from tests.rounding import plain

# One rounding of a mantissa near 1 errs by 2.4σ; a block of equal errors is given 6σ.
MOST_RMS, MOST = 3.3, 5.5
INEXACT = [name for name, entry in ACTIVATIONS.items() if entry.evaluation.errors is not None]


def formulas(name: str) -> Iterator[tuple[Any, Any]]:
    """Yield (value, slope) of each formula, in the dtype of z; slope takes z and the value."""
    p = DEFAULT_PARAMETERS.get(name, 0.0)
    for form in FORMS[name]:
        yield (
            lambda z, form=form: form.value(z, p),
            lambda z, a, form=form: form.slope(z, a, p, 0.0),
        )
    for _, value, slope in plain.FORMULAS.get(name, []):
        yield value, slope


def windows(dtype: str) -> Iterator[Any]:
    """Yield numbers of a dtype that lie near each other, as those of equal units do."""
    rng = np.random.default_rng(0)
    for size in 10.0 ** np.arange(-5, 2.4, 0.3):
        for sign in (1.0, -1.0):
            yield (sign * size * (1.0 + 0.04 * rng.random(200))).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", INEXACT)
def test_no_formula_errs_by_more_than_the_model_says(name: str, dtype: str) -> None:
    entry, precision = ACTIVATIONS[name], Precision.of(dtype)
    errors = entry.evaluation.errors
    assert errors is not None
    p, seen = DEFAULT_PARAMETERS.get(name, 0.0), 0
    for z in windows(dtype):
        Z = z.astype(np.float64)
        exact = FORMS[name][0].value(z.astype(np.longdouble), p).astype(np.float64)
        slopes = entry.derivative(Z, p)
        growth = (1.0 + np.abs(Z)) ** 2 if entry.evaluation.gated else 1.0
        least = precision.underflows(1.0) * growth
        deviations = [
            np.sqrt(MEAN_SQUARE * error**2 + least) * precision.u
            for error in errors(Z, exact, p, precision.limits(1))
        ]
        for value, slope in formulas(name):
            with np.errstate(all="ignore"):
                a = np.asarray(value(z), dtype)
                found = a.astype(float), np.asarray(slope(z, a), dtype).astype(float)
            for computed, right, sigma in zip(found, (exact, slopes), deviations, strict=True):
                if np.isfinite(computed).all():
                    ratio = np.abs(computed - right) / sigma
                    assert np.sqrt(np.mean(ratio**2)) < MOST_RMS, (z[0], value, slope)
                    assert ratio.max() < MOST, (z[0], value, slope)
                    seen += 1
    assert seen > 50
