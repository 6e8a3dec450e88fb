"""The V curve: how far a gradient is from its central differences, at one ε after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastcheck.errors import InputError
from fastcheck.execution import parallel
from fastcheck.execution.blas import one_blas_thread
from fastcheck.methods.table import METHODS, preparation
from fastcheck.model.approximation import Curve, VCurve
from fastcheck.model.network import Batch, Network
from fastcheck.norms import relative_difference
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers

__all__ = ["EPSILONS", "v_curve"]


EPSILONS = tuple(10.0**-n for n in range(3, 13))
# The textbook's share: multiplications, about two seconds on one core. It says how many components
# there are, by the problem alone, so that the curve is the same on every machine.
WORK = 4e10
FEWEST, MOST = 4, 24
# Where this many more candidates agree by so much, the curve is drawn from them: a component whose
# gradient is wrong would hide the V.
CANDIDATES, AGREEING = 4, 1e-5


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
    chosen = _components(network, batch, gradient, settings, max(FEWEST, count))
    curves = []
    for method in METHODS:
        if method != "textbook" or count >= FEWEST:
            used, differences = [], []
            for epsilon in steps:
                here = replace(settings, epsilon=epsilon)
                difference = _difference(method, network, batch, gradient, chosen, here)
                if difference is not None:
                    used.append(epsilon)
                    differences.append(difference)
            curves.append(Curve(method, tuple(used), tuple(differences)))
    return VCurve(settings.epsilon, int(chosen.size), tuple(curves))


def _components(
    network: Network, batch: Batch, gradient: Floats, settings: Settings, count: int
) -> Integers:
    """Return evenly spread components, those that are wrong or zero only where all are."""
    known = np.flatnonzero(gradient)
    if known.size == 0:
        known = np.arange(gradient.size)
    candidates = _spread(known, CANDIDATES * count)
    values = _values("unit", network, batch, candidates, settings)
    error = np.abs(gradient[candidates] - values)
    right = error <= AGREEING * (np.abs(gradient[candidates]) + np.abs(values))
    return _spread(candidates[right] if right.sum() >= FEWEST else candidates, count)


def _spread(indices: Integers, count: int) -> Integers:
    places = np.linspace(0, indices.size - 1, min(count, indices.size)).astype(np.int64)
    return indices[places].astype(np.int64)


def _values(
    method: str, network: Network, batch: Batch, chosen: Integers, settings: Settings
) -> Floats:
    """Return the central differences of some components, outside any journal."""
    here = replace(settings, journal=None, progress=False, sample=None)
    with one_blas_thread():
        prepared = preparation(method)(network, batch, chosen, here)
        return prepared.assemble(parallel.run(prepared, here, "V curve")).values


def _difference(
    method: str,
    network: Network,
    batch: Batch,
    gradient: Floats,
    chosen: Integers,
    settings: Settings,
) -> float | None:
    """Return the relative difference at one ε, None where ε is lost beside θ."""
    try:
        values = _values(method, network, batch, chosen, settings)
    except InputError:
        return None
    finite = bool(np.isfinite(values).all())
    return relative_difference(gradient[chosen], values) if finite else None
