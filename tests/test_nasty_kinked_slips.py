"""Invented slips on networks with units on kinks: what no convention explains is caught."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastcheck import Report, gradcheck
from tests.nasty.families import KINK_PLACES
from tests.nasty.formulas import FORMS
from tests.nasty.network import Array, Gradient, Nasty, named
from tests.nasty.slip import Slip
from tests.nasty.slipped_networks import NETWORKS
from tests.nasty.slips import SLIPS, planted
from tests.nasty.tape import RIGHT, Steps, Tape, backward, forward
from tests.nasty_checks import network_of, owners

SLOPES_ON_KINKS = (0.0, 0.5, 1.0)
KINKED_NETWORKS = ("relu", "relu, penalty", "selu", "relu6", "deep hardtanh", "elu")
# A component is off by what is left beyond the conventions and so many times their width: units may
# follow conventions of their own. It is clearly off where that is so many tolerances.
WIDTHS, TOLERANCES = 2.0, 5.0


def on_kinks(name: str) -> Nasty:
    """Return a network in which two units of each hidden layer lie on a kink for one sample."""
    net = NETWORKS[name]()
    rng = np.random.default_rng(len(name))
    biases: list[Any] = [*net.biases]
    for l in range(1, net.depth):
        tape = forward(replace(net, biases=biases))
        kind = net.activations[l - 1][0]
        kinks: Any = KINK_PLACES.get(kind, (0.0,))
        units = rng.choice(net.sizes[l], size=2, replace=False)
        samples = rng.integers(net.m, size=2)
        bias: Array = np.array(biases[l - 1])
        bias[units] += rng.choice(kinks, size=2) - tape.Z[l][samples, units]
        biases[l - 1] = bias
    return replace(net, biases=biases)


def with_slopes(steps: Steps, slopes: tuple[float, ...]) -> Steps:
    """Return steps whose layers take a kink by given slopes; a slip's own slope stays."""
    if steps.slope is not RIGHT.slope:
        return steps

    def slope(tape: Tape, l: int) -> Array:
        name, p = tape.net.activations[l - 1]
        return FORMS[name][0].slope(tape.Z[l], tape.V[l], p, slopes[l - 1])

    return replace(steps, slope=slope)


def conventions(net: Nasty) -> list[Gradient]:
    """Return the right gradients of every mixture of conventions of the layers."""
    mixtures = itertools.product(SLOPES_ON_KINKS, repeat=net.depth - 1)
    return [backward(net, with_slopes(RIGHT, (*mixture, 0.0))) for mixture in mixtures]


def bounds(right: list[Gradient]) -> list[tuple[Array, Array]]:
    """Return the least and the greatest value of each component, a pair for each block."""
    blocks = zip(*([a for pair in gradient for a in pair] for gradient in right), strict=True)
    return [(np.min(values, axis=0), np.max(values, axis=0)) for values in map(list, blocks)]


def beyond(given: Gradient, limits: list[tuple[Array, Array]]) -> list[Array]:
    """Return by how much each component is beyond what mixtures of conventions explain."""
    found = []
    values: list[Array] = [a for pair in given for a in pair]
    for value, (low, high) in zip(values, limits, strict=True):
        left = np.maximum(low - value, value - high) - WIDTHS * (high - low)
        tolerance = 1e-7 * (np.abs(value) + np.maximum(np.abs(low), np.abs(high)))
        slack = TOLERANCES * tolerance + 1e-12 * float(np.abs(high).max())
        found.append(np.where(left > slack, left, 0.0))
    return found


def slipped(net: Nasty, slip: Slip, number: int) -> Iterator[Gradient]:
    """Yield the slip's gradients at each layer, by one convention or another."""
    kink = SLOPES_ON_KINKS[number % 3]
    for layer, _ in planted(net, slip):
        yield backward(net, with_slopes(slip.steps(layer), (kink,) * net.depth))


def report_on(net: Nasty, gradient: Gradient) -> Report:
    """Return the report on a gradient."""
    return gradcheck(network_of(net), net.inputs, net.targets, owners(gradient, "rows"), jobs=1)


@pytest.fixture(autouse=True)
def without_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcheck.check._Comparison.diagnosis", lambda *_: {})


@pytest.mark.parametrize("name", KINKED_NETWORKS)
def test_no_convention_is_accused(name: str) -> None:
    net = on_kinks(name)
    right = conventions(net)
    limits = bounds(right)
    assert any((high > low).any() for low, high in limits) == (net.activations[0] != named("elu"))
    for gradient in right[:: max(1, len(right) // 9)]:
        assert report_on(net, gradient).status != "wrong"


@pytest.mark.parametrize("name", KINKED_NETWORKS)
def test_slips_beside_kinks_are_caught(name: str) -> None:
    net = on_kinks(name)
    limits = bounds(conventions(net))
    said = []
    for number, slip in enumerate(SLIPS):
        for gradient in itertools.islice(slipped(net, slip, number), 1):
            left = beyond(gradient, limits) if _finite(gradient) else []
            if not any(part.any() for part in left):
                continue
            report = report_on(net, gradient)
            said.append(report.status)
            for block, part in zip(report.blocks, left, strict=True):
                if np.linalg.norm(part) > block.tolerance:
                    assert block.verdict == "wrong", (slip.name, block.name)
    assert len(said) > 0.5 * len(SLIPS)
    # Beside a jump of its slope a unit's rounding may hide some, but few.
    assert said.count("wrong") >= 0.98 * len(said)


def _finite(gradient: Gradient) -> bool:
    return all(np.isfinite(np.asarray(a, float)).all() for pair in gradient for a in pair)
