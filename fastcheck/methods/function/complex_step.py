"""The complex step: Im f(θ + i·h·e) / h, a derivative without a difference (Squire & Trapp, 1998).

It is right only for an f that is analytic as it is written: `np.abs`, `np.var` and
`np.linalg.norm` take the modulus of complex numbers, and give a wrong derivative without a word.
So every block is held to real differences along random directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import Calibration
from fastcheck.methods.function.directions import DirectionalTest, Directions, hold_block
from fastcheck.types import Floats
from fastcheck.validation import unit_roundoff

__all__ = ["complex_derivatives", "guarded_blocks"]


STEP = 1e-20  # relative to the size of a block: its square is lost beside 1
FIRST_STEP = 1e-5  # of the real differences, relative to the size of a block
# What goes wrong in the complex plane is no small matter: the guard allows for cancellation.
ALLOWED_ERROR = 1e-9
REMEDY = "Use method='components', or write f without what drops the imaginary part."


def complex_derivatives(box: BlackBox, scales: Floats) -> tuple[Floats, float]:
    """Return the derivative of f by each component, and the unit roundoff that f computed with.

    Parameters
    ----------
    box : BlackBox
    scales : ndarray, shape (blocks,), float64
        The size of each block's components.

    Raises
    ------
    InputError
        For an f that fails for complex θ, drops the imaginary part, or returns real numbers.
    """
    steps = np.repeat(STEP * scales, [block.size for block in box.tree.blocks])
    vector = box.theta.astype(np.complex128)
    found, roundoff = np.empty(box.theta.size), 0.0
    for index, value in enumerate(_values(box, vector, steps)):
        found[index] = value.imag / steps[index]
        roundoff = max(
            roundoff, unit_roundoff("float32" if value.dtype.itemsize < 16 else "float64")
        )
    if not np.isfinite(found).all():
        name = box.tree.locate(int(np.argmin(np.isfinite(found))))
        raise InputError(f"the complex step gives no number at {name}", "a finite one", REMEDY)
    if not np.array_equal(vector, box.theta):
        raise InputError("f changes its argument", "an f that leaves θ as it is")
    return found, roundoff


def _values(box: BlackBox, vector: Any, steps: Floats) -> Iterator[Any]:
    """Yield f with an imaginary step in one component after the other."""
    shared, form = box.tree.shared, None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        for index, step in enumerate(steps.tolist()):
            vector[index] += 1j * step
            try:
                if form is None or not shared:
                    form = box.tree.form_of(vector[None] if box.vectorized else vector)
                raw = box._called(form)
            except Exception as error:
                raise InputError(
                    f"the complex step of f: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}",
                    "an f of complex θ",
                    REMEDY,
                ) from error
            vector[index] = box.theta[index]
            yield _number(raw)


def _number(raw: Any) -> Any:
    """Return what f returned as a complex number."""
    value = np.asarray(raw.detach().cpu() if hasattr(raw, "detach") else raw)
    if value.size != 1:
        raise InputError(f"f(θ) has shape {value.shape}", "one number")
    if value.dtype.kind != "c":
        raise InputError("f returns a real number for a complex θ", "a complex one", REMEDY)
    return value.reshape(())


def guarded_blocks(
    box: BlackBox, derivatives: Floats, calibration: Calibration, count: int, seed: int
) -> tuple[DirectionalTest, ...]:
    """Hold the complex step to real differences along random directions in each block.

    Parameters
    ----------
    box : BlackBox
    derivatives : ndarray, shape (N,), float64
    calibration : Calibration
    count : int
        Directions a block.
    seed : int

    Raises
    ------
    InputError
        Where they disagree: f is not analytic.
    """
    largest = float(np.abs(derivatives).max(initial=0.0))
    asked = Directions(derivatives, ALLOWED_ERROR * largest, count, 0.0, 1.0, seed)
    noise, tests, step = (calibration.noise, calibration.value), [], FIRST_STEP
    for number, block in enumerate(box.tree.blocks):
        test, _ = hold_block(box, asked, number, step=step, noise=noise)
        tests.append(test)
        step = test.step
        if test.status == "wrong":
            raise InputError(
                f"the complex step of f is not its derivative in {block.name}: real differences "
                "disagree",
                "an f that is analytic as it is written",
                "np.abs, np.linalg.norm, np.var, np.vdot and conj are not: write "
                "np.sqrt(x * x), and x * x for the square. Or use method='components'.",
            )
    return tuple(tests)
