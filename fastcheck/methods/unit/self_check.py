"""fastcheck checks itself: a few components, literally, through the textbook's forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastcheck.execution.buffers import borrow
from fastcheck.kernels.textbook import (
    in_blocks,
    textbook_calls,
    textbook_cost,
    textbook_differences,
    work_shape,
)
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.model.parameters import Block
from fastcheck.types import Floats, Integers

__all__ = ["SelfCheckError", "self_checked"]


# J is rounded once a forward pass and its sum over units more often: this many units of its last
# place, or √m for the sum over many samples, bound what two literal passes can be off by.
NOISE_IN_ULPS = 64.0
# Where J is nearly 0 the rounding of the outputs is what counts. Only where a value is off it is
# looked at: so many times the spread over steps that differ by a thousandth each, and so many times
# what rounding does to the gradient itself.
SPREADS, ROUNDINGS = 20.0, 30.0
NEARBY = 1.0 + 1e-3 * np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
SAMPLES_AT_ONCE = 4096
# An interval at a kink that is narrower than this share of its ends is one value.
NARROW = 1e-12
# A component below this many times the noise proves nothing.
TELLING = 10.0


class SelfCheckError(RuntimeError):
    """The unit method and the textbook disagree: a bug of fastcheck, not of the user's gradient."""


def self_checked(network: Network, batch: Batch, approximation: Approximation) -> Approximation:
    """Return the approximation with a sentence on what the literal re-evaluation gave.

    Raises
    ------
    SelfCheckError
        If a component differs from its textbook value by more than the textbook's own noise.
    """
    positions = _chosen(network, approximation)
    if positions.size == 0:
        return replace(
            approximation, self_check="Nothing to re-evaluate: every weight lies on a kink."
        )
    indices = positions if approximation.indices is None else approximation.indices[positions]
    epsilon = approximation.epsilon
    values = approximation.values[positions]
    together, J = _together(network, batch, indices, np.sign(values), epsilon)
    ulps = max(NOISE_IN_ULPS, np.sqrt(batch.size))
    noise = ulps * 2.0**-52 * max(abs(J), 1e-300) / epsilon
    if abs(together - np.abs(values).sum()) <= noise + 1e-6 * np.abs(values).sum():
        return replace(approximation, self_check=_sentence(values, noise))
    # One of them is off, or a kink lies where they move together: each on its own.
    literal = _literal(network, batch, indices, epsilon)
    allowed = noise + 1e-6 * np.abs(values)
    doubtful = np.flatnonzero(np.abs(literal - values) > allowed)
    if doubtful.size:
        allowed[doubtful] += _rounding(network, batch, indices[doubtful], epsilon)
        noise = max(noise, float(allowed[doubtful].max()))
    wrong = np.flatnonzero(np.abs(literal - values) > allowed)
    if wrong.size:
        worst = wrong[np.argmax(np.abs(literal - values)[wrong])]
        raise SelfCheckError(
            f"the unit method gives {float(values[worst])!r} for "
            f"{network.order.locate(int(indices[worst]))}, two literal forward passes give "
            f"{float(literal[worst])!r} (noise {allowed[worst]:.1e}). This is a bug of fastcheck, "
            f"not of your gradient: please report it. Meanwhile use method='textbook'."
        )
    return replace(approximation, self_check=_sentence(values, noise))


def _sentence(values: Floats, noise: float) -> str:
    """Say what was re-evaluated, and how much of it the noise hides."""
    hidden = int((np.abs(values) <= TELLING * noise).sum())
    if values.size == 1:
        count, agree, hides = "1 component", "it agrees", "it"
    else:
        count, agree, hides = f"{values.size} components", "all agree", f"{hidden} of them"
    return (
        f"{count} re-evaluated by literal forward passes: {agree} within the textbook's noise of "
        f"{noise:.0e}" + (f", which hides {hides}." if hidden else ".")
    )


def _together(
    network: Network, batch: Batch, indices: Integers, signs: Floats, epsilon: float
) -> tuple[float, float]:
    """Return the literal central difference of several components moved at once, and J."""
    net, X = network.arrays(batch.size), in_blocks(batch.X)
    costs = []
    with borrow(network.size) as theta, borrow(*work_shape(network.sizes)) as work:
        theta[:] = network.theta
        for side in (epsilon, -epsilon):
            theta[indices] = network.theta[indices] + side * signs
            costs.append(textbook_cost(net, theta, X, batch.T, work, textbook_calls(network.calls)))
    return (costs[0] - costs[1]) / (2.0 * epsilon), 0.5 * (costs[0] + costs[1])


def _rounding(network: Network, batch: Batch, indices: Integers, epsilon: float) -> Floats:
    """Return what rounding can do to literal values: their spread at nearly the same ε, and σ."""
    from fastcheck.rounding import rounding  # its kernels are seldom needed here

    near = np.stack([_literal(network, batch, indices, epsilon * share) for share in NEARBY])
    spread = near.max(axis=0) - near.min(axis=0)
    sigma, m = np.zeros(indices.size), batch.size
    for first in range(0, m, SAMPLES_AT_ONCE):  # as if all of them erred alike
        part = batch.part(first, min(first + SAMPLES_AT_ONCE, m))
        share = network.data_scale(m) / network.data_scale(part.size)
        here = network.part(first, first + part.size)
        sigma += share * rounding(here, part, "float64").at(indices)
    return np.asarray(SPREADS * spread + ROUNDINGS * sigma)


def _chosen(network: Network, approximation: Approximation) -> Integers:
    """Return the position of the largest component of each weight matrix that is no kink."""
    chosen = []
    for block in network.order.blocks:
        part = _part(block, approximation)
        if block.kind != "W" or part.start == part.stop:
            continue
        kinks = approximation.kinks.positions[approximation.kinks.wide(NARROW)]
        inside = kinks[(kinks >= part.start) & (kinks < part.stop)] - part.start
        if inside.size < part.stop - part.start:
            chosen.append(part.start + _largest(approximation.values[part], inside))
    return np.array(chosen, dtype=np.int64)


def _largest(values: Floats, without: Integers) -> int:
    """Return where the largest absolute value is, some positions left out."""
    if without.size:
        values = values.copy()
        values[without] = 0.0
        if not values.any():
            return int(np.setdiff1d(np.arange(values.size), without)[0])
    most, least = int(values.argmax()), int(values.argmin())
    return most if values[most] >= -values[least] else least


def _part(block: Block, approximation: Approximation) -> slice:
    """Return where a block's values lie."""
    if approximation.indices is None:
        return block.slice
    first, last = np.searchsorted(approximation.indices, (block.offset, block.stop))
    return slice(int(first), int(last))


def _literal(network: Network, batch: Batch, indices: Integers, epsilon: float) -> Floats:
    """Return the textbook's values."""
    net, theta = network.arrays(batch.size), network.theta.copy()
    X, work = in_blocks(batch.X), np.empty(work_shape(network.sizes))
    out = np.empty(indices.size)
    textbook_differences(
        net, theta, X, batch.T, work, indices, epsilon, out, textbook_calls(network.calls)
    )
    return out
