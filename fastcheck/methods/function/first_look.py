"""The first look at each component: a derivative, its noise, and what its step leaves uncertain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import Calibration
from fastcheck.methods.function.complex_step import complex_derivatives
from fastcheck.methods.function.differences import Differences, spacing_steps
from fastcheck.types import Floats, Integers

__all__ = ["FirstLook", "by_complex_step", "by_differences"]

Run = Callable[[Differences, str], list[Floats | None]]


@dataclass(frozen=True)
class FirstLook:
    """What is known of some components after a first look: arrays of shape (n,).

    Attributes
    ----------
    method : str
        In words.
    indices : ndarray of int64, increasing
    values, noise, truncation : ndarray, float64
        The derivatives, σ of their noise, and how far the step leaves them off.
    work : Differences
        The components with the steps that further looks begin with.
    complete : bool
    every : bool
        Whether these are all components of θ.
    exact : bool
        Whether the values are finer than any difference.
    """

    method: str
    indices: Integers
    values: Floats
    noise: Floats
    truncation: Floats
    work: Differences
    complete: bool
    every: bool
    exact: bool = False


def _prepared(box: BlackBox, calibration: Calibration, indices: Integers | None) -> Differences:
    """Return the components with the steps of their blocks."""
    every = np.arange(box.theta.size) if indices is None else indices
    blocks = np.searchsorted(box.tree.offsets, every, side="right") - 1
    steps = calibration.steps[blocks]
    if not calibration.named:
        steps = spacing_steps(box.theta[every], steps)
    return Differences(box, every, steps)


def by_differences(
    box: BlackBox, calibration: Calibration, indices: Integers | None, run: Run
) -> FirstLook:
    """Return central differences.

    Parameters
    ----------
    box : BlackBox
    calibration : Calibration
    indices : ndarray of int64, increasing, or None
        The components; None for all.
    run : callable
        `run(work, title)` does the chunks of prepared work.
    """
    work = _prepared(box, calibration, indices)
    results = run(work, "differences")
    level = work.gathered(results)
    blocks = np.searchsorted(box.tree.offsets, work.indices, side="right") - 1
    return FirstLook(
        "central differences",
        work.indices,
        level.slopes(),
        level.noise(calibration.noise),
        calibration.truncations[blocks],
        work,
        complete=all(result is not None for result in results),
        every=indices is None,
    )


def by_complex_step(box: BlackBox, calibration: Calibration) -> FirstLook:
    """Return complex steps of all components; their noise is that of f without cancellation."""
    values, roundoff = complex_derivatives(box, calibration.scales)
    amplified = max(1.0, calibration.noise / (roundoff * abs(calibration.value) + 1e-300))
    noise = np.empty(values.size)
    for block in box.tree.blocks:
        part = values[block.slice]
        rms = float(np.sqrt(np.mean(part**2))) if part.size else 0.0
        noise[block.slice] = amplified * roundoff * (np.abs(part) + rms)
    work = _prepared(box, calibration, None)
    nothing = np.zeros(values.size)
    return FirstLook(
        "complex step", work.indices, values, noise, nothing, work,
        complete=True, every=True, exact=True,
    )  # fmt: skip
