"""A second look at textbook differences that do not agree: their truncation, and their kinks.

D(ε) is the derivative plus c·ε² and smaller terms, so D(ε/2) tells c (Richardson, "The approximate
arithmetical solution by finite differences", 1911), and D(ε/4) what is left uncertain. Where ε is
far too large, three differences may look as if that were so: how far their limit is from the unit
method's is uncertain too, so that nothing is wrong that only one of the methods calls wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastcheck.execution import parallel
from fastcheck.execution.blas import one_blas_thread
from fastcheck.methods import textbook
from fastcheck.methods.unit import method as unit
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.norms import ignore_overflow
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers
from fastcheck.verdict.rules import NOISE_FACTOR

__all__ = ["look_again"]


# The noise of D(ε/2) is twice that of D(ε): (4·D(ε/2) − D(ε))/3 and D(ε/2) − D(ε/4) have so many
# times it.
FINEST_NOISE = float(np.hypot(2.0, 4.0))
# Truncation falls to a quarter with half the step. Where it falls less than this, ε is too large
# for it to be known; and what is left of it is taken to be so many times what a third step shows,
# and more where the truncation was larger than the derivative.
LEAST_FALL, SLACK = 3.0, 2.0
EXTRAPOLATED_NOISE = float(np.hypot(8.0, 1.0)) / 3.0


def look_again(
    network: Network,
    batch: Batch,
    gradient: Floats,
    approximation: Approximation,
    settings: Settings,
) -> Approximation:
    """Return textbook differences with their truncation and kinks where a gradient is off.

    Parameters
    ----------
    network, batch : Network, Batch
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
        Returned as it is unless it is the textbook's, and complete.
    settings : Settings

    Returns
    -------
    Approximation
        The values stay the central differences at ε.
    """
    if approximation.method != "textbook" or not approximation.complete:
        return approximation
    values, every = approximation.values, approximation.indices
    given = gradient if every is None else gradient[every]
    with ignore_overflow():
        off = np.abs(given - values) > settings.tol * (np.abs(given) + np.abs(values))
    positions = np.flatnonzero(off)
    if positions.size == 0:
        return approximation
    indices = positions if every is None else every[positions]
    here = replace(settings, journal=None)
    with one_blas_thread():
        other = _by_unit(network, batch, indices, here)
        half, quarter = (
            _values(network, batch, indices, replace(here, epsilon=settings.epsilon / divisor))
            for divisor in (2.0, 4.0)
        )
        least = textbook.noise_in_blocks(textbook.without_noise(network, batch, indices, here))
    noise = np.array(np.broadcast_to(np.maximum(approximation.noise, least), values.shape))
    target, left, factor = _extrapolated((values[positions], half, quarter), noise[positions])
    with ignore_overflow():
        left = np.maximum(left, np.abs(target - other.target))
        correction = other.target - other.values
    on_kink = other.kinks.positions
    target[on_kink] = values[positions][on_kink] + correction[on_kink]
    left[on_kink], factor[on_kink] = 0.0, 1.0
    derivative, uncertainty = values.copy(), np.zeros(values.size)
    derivative[positions], uncertainty[positions] = target, left
    noise[positions] *= factor
    return replace(
        approximation,
        derivative=derivative,
        uncertainty=uncertainty,
        noise=noise,
        kinks=replace(other.kinks, positions=positions[on_kink]),
    )


def _extrapolated(
    differences: tuple[Floats, Floats, Floats], noise: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return g*, τ and what the noise is multiplied by, from D at ε, ε/2 and ε/4.

    The difference itself serves where its truncation drowns in its noise. Where the truncation
    does not fall as ε², nothing is known of it: τ is infinite.
    """
    wide, half, quarter = differences
    with ignore_overflow():
        first, second = np.abs(wide - half), np.abs(half - quarter)
        found, finer = (4.0 * half - wide) / 3.0, (4.0 * quarter - half) / 3.0
        left = SLACK * np.abs(found - finer)
        drowned = second <= NOISE_FACTOR * FINEST_NOISE * noise
        left[~drowned & (second > first / LEAST_FALL)] = np.inf
        left *= 1.0 + first / np.maximum(np.abs(found), np.finfo(float).tiny)
        second_derivative = SLACK * first
        plain = (
            second_derivative + NOISE_FACTOR * noise
            <= left + NOISE_FACTOR * EXTRAPOLATED_NOISE * noise
        )
        plain &= drowned
    unknown = ~np.isfinite(found) | ~np.isfinite(left)
    return (
        np.where(plain | unknown, wide, found),
        np.where(plain, second_derivative, np.where(unknown, np.inf, left)),
        np.where(plain | unknown, 1.0, EXTRAPOLATED_NOISE),
    )


def _values(network: Network, batch: Batch, indices: Integers, settings: Settings) -> Floats:
    """Return the textbook's values of some components."""
    prepared = textbook.without_noise(network, batch, indices, settings)
    return prepared.assemble(parallel.run(prepared, settings, "a second look")).values


def _by_unit(
    network: Network, batch: Batch, indices: Integers, settings: Settings
) -> Approximation:
    """Return what the unit method says of some components, and which kinks they cross."""
    prepared = unit.prepare(network, batch, indices, settings)
    return prepared.assemble(parallel.run(prepared, settings, "kinks"))
