"""The V curve: how far a gradient is from its central differences, at one ε after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastcheck import parallel
from fastcheck.errors import InputError
from fastcheck.methods.table import METHODS, preparation
from fastcheck.network import Batch, Network
from fastcheck.report.pictures import Curve, VCurve
from fastcheck.settings import Settings
from fastcheck.verdict import relative_difference

__all__ = ["EPSILONS", "v_curve"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EPSILONS = tuple(10.0**-n for n in range(2, 13))
# The textbook's share: multiplications, about two seconds on one core. It says how many components
# there are, by the problem alone, so that the curve is the same on every machine.
WORK = 4e10
FEWEST, MOST = 4, 64


def v_curve(
    network: Network,
    batch: Batch,
    gradient: Floats,
    settings: Settings,
    epsilons: tuple[float, ...] = EPSILONS,
) -> VCurve:
    """Return the relative difference against ε by each method, over a few components.

    Parameters
    ----------
    network, batch : Network, Batch
    gradient : ndarray, shape (N,), float64
        The gradient that was checked.
    settings : Settings
        Workers and memory count; ε is taken from `epsilons`, and its own ε is among them.
    epsilons : tuple of float

    Returns
    -------
    VCurve
        Without the textbook's curve where a single component takes too long.
    """
    steps = tuple(sorted({*epsilons, settings.epsilon}, reverse=True))
    cost = 2.0 * len(steps) * network.size * batch.size
    count = int(min(MOST, WORK // cost))
    chosen = _components(gradient, max(FEWEST, count))
    curves = []
    for method in METHODS:
        if method != "textbook" or count >= FEWEST:
            curves.append(_curve(method, network, batch, gradient, chosen, settings, steps))
    return VCurve(settings.epsilon, int(chosen.size), tuple(curves))


def _components(gradient: Floats, count: int) -> Integers:
    """Return evenly spread components, those of slope zero only where there are no others."""
    known = np.flatnonzero(gradient)
    if known.size == 0:
        known = np.arange(gradient.size)
    places = np.linspace(0, known.size - 1, min(count, known.size)).astype(np.int64)
    return known[places].astype(np.int64)


def _curve(  # noqa: PLR0913, PLR0917 - a loop's body
    method: str,
    network: Network,
    batch: Batch,
    gradient: Floats,
    chosen: Integers,
    settings: Settings,
    steps: tuple[float, ...],
) -> Curve:
    """Return one method's curve; an ε that is lost beside θ is left out."""
    used, differences = [], []
    for epsilon in steps:
        here = replace(settings, epsilon=epsilon, journal=None, progress=False, sample=None)
        try:
            prepared = preparation(method)(network, batch, chosen, here)
        except InputError:
            continue
        values = prepared.assemble(parallel.run(prepared, here, "V curve")).values
        if np.isfinite(values).all():
            used.append(epsilon)
            differences.append(relative_difference(gradient[chosen], values))
    return Curve(method, tuple(used), tuple(differences))
