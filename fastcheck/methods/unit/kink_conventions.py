"""The derivative at θ itself, with the units that lie on a kink taken as backward passes take them.

A backward pass takes such a unit by one of its one-sided slopes: the left or the right one, the
flatter (PyTorch's hard tanh is flat on both of its kinks) or the steeper one, or the middle
(NumPy's `maximum` under autograd). It does so for all units of a layer, and mostly of all layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastcheck.methods.unit.probes import Probes, with_gains
from fastcheck.types import Floats

__all__ = ["probes_at_theta"]


# Differences are formed without cancellation, so a step may be so small that no kink but one that
# a unit lies on is met, and that the O(h²) term is far below rounding.
DERIVATIVE_EPSILON = 1e-13
# The user's own functions cancel: there a smaller step is no better.
DIRECT_EPSILON = 1e-7
# So many mixtures of the layers' conventions are tried one by one.
MAX_MIXTURES = 64
EXTREMES = 4  # left, right, flatter, steeper


def probes_at_theta(probes: Probes) -> list[Probes]:
    """Return probes that give the derivative at θ, one for each convention on kinks.

    Where no unit lies on a kink that is one, and the derivative exists.
    """
    smallest = DIRECT_EPSILON if probes.direct else DERIVATIVE_EPSILON
    share = min(1.0, smallest / probes.epsilon)
    near = with_gains(replace(probes, steps=probes.steps * share, nodes=np.ones(1)))
    return [_turned(near, local_slopes) for local_slopes in _conventions(near)]


def _conventions(probes: Probes) -> list[Floats]:
    """Return the units' slopes, (m · Σ n_l,), by each convention.

    One for all layers, and mixtures, since layers may be written by different hands. J's derivative
    is linear in the slopes of one layer, so mixtures of the extreme ones bound all others.
    """
    if probes.on_kink == 0:
        return [probes.left]
    left, right = probes.left, probes.right
    flatter = np.where(np.abs(left) <= np.abs(right), left, right)
    steeper = np.where(np.abs(left) <= np.abs(right), right, left)
    found = _distinct([left, right, flatter, steeper, 0.5 * (left + right)])
    sizes = probes.batch.size * np.array(probes.network.sizes[1:])
    parts = [np.split(each, np.cumsum(sizes)[:-1]) for each in (left, right, flatter, steeper)]
    layers = [_distinct(list(ways)) for ways in zip(*parts, strict=True)]
    if sum(len(ways) > 1 for ways in layers) > 1:
        found += [np.concatenate(mixture) for mixture in _mixtures(layers)]
    return _distinct(found)


def _mixtures(layers: Sequence[list[Floats]]) -> list[tuple[Floats, ...]]:
    """Return every choice of one convention a layer, or where they are many one layer's turned."""
    if np.prod([float(len(ways)) for ways in layers]) <= MAX_MIXTURES:
        return list(itertools.product(*layers))
    found = []
    for others, turned in itertools.permutations(range(EXTREMES), 2):
        for layer in range(len(layers)):
            picks = [others if k != layer else turned for k in range(len(layers))]
            found.append(tuple(ways[k % len(ways)] for ways, k in zip(layers, picks, strict=True)))
    return found


def _distinct(ways: Sequence[Floats]) -> list[Floats]:
    found: list[Floats] = []
    for way in ways:
        if not any(np.array_equal(way, known) for known in found):
            found.append(way)
    return found


def _turned(probes: Probes, local_slopes: Floats) -> Probes:
    """Return the same probes with given slopes, those of the outputs too.

    The output activation becomes what its gains multiply by, as a mask does.
    """
    net, outputs = probes.net, probes.batch.size * probes.network.sizes[-1]
    activations, places = net.activations.copy(), net.mask_offsets.copy()
    activations[-1], places[-1] = activations.size, net.masks.size  # the identity
    masks = np.concatenate([net.masks, local_slopes[local_slopes.size - outputs :]])
    cancels = probes.network.loss.entry is None
    net = net._replace(activations=activations, masks=masks, mask_offsets=places, cancels=cancels)
    return replace(probes, net=net, left=local_slopes)
