"""`numerical_gradient` on nasty networks against differences to fifty digits and more."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastcheck
from tests import oracle_mpmath
from tests.nasty import families
from tests.nasty.cases import FAMILIES
from tests.nasty.families import Rng
from tests.nasty.network import Array, Nasty
from tests.nasty_checks import network_of

UNIT_ROUNDOFF = 2.0**-53
ABSOLUTE, TIMES = 1e-12, 10.0  # the error allowed: max(1e-12, 10·u·κ), relative to the block
SEEDS = 3
MOST = 16  # parameters
KINDS = (
    "plain", "scales", "features", "zeros", "constant", "whole numbers", "inputs", "saturated",
    "residuals", "narrow", "near kinks", "corners", "raw features", "output near kink", "curved",
)  # fmt: skip


def small(rng: Rng, kind: str) -> Nasty:
    """Return a network of a family that mpmath can differentiate in a moment."""
    while True:
        net = FAMILIES[kind](rng)
        net = replace(
            net,
            inputs=net.inputs[:2],
            targets=net.targets[:2],
            masks=None if net.masks is None else [m if m is None else m[:2] for m in net.masks],
        )
        if net.finite and sum(W.size + W.shape[0] for W in net.weights) <= MOST:
            return net


def exact(net: Nasty, epsilon: float) -> Array:
    """Return all central differences by mpmath."""
    drawn: Any = SimpleNamespace(
        **{name: getattr(net, name) for name in ("weights", "biases", "activations", "loss")},
        **{name: getattr(net, name) for name in ("inputs", "targets", "masks")},
        l2=net.l2 / net.loss_scale, penalty=net.penalty, reduction=net.reduction,
    )  # fmt: skip
    digits = 60 + digits_lost(net)
    found = oracle_mpmath.central_differences(drawn, epsilon, digits=digits)
    # Two samples that cancel exactly leave nothing but the last of these digits.
    return np.array([float(net.loss_scale * v) if abs(v) > 1e-80 else 0.0 for v in found])


def digits_lost(net: Nasty) -> int:
    """Return how many digits a saturated unit or a tiny residual may cost."""
    return 60 + int(min(2e3, max(np.abs(families.outputs(net)).max(), 1.0)))


def blocks(net: Nasty) -> list[slice]:
    """Return where W1, b1, … lie in θ."""
    sizes = []
    for W, b in zip(net.weights, net.biases, strict=True):
        sizes += [W.size] if b is None else [W.size, b.size]
    ends = np.cumsum(sizes)
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def shaken(net: Nasty, seed: int, size: float) -> Nasty:
    """Return the network with each number of θ changed by a relative ±size."""
    rng = np.random.default_rng(seed)

    def shake(v: Array) -> Array:
        return v * (1.0 + size * rng.choice((-1.0, 1.0), size=v.shape))

    return replace(
        net,
        weights=[shake(W) for W in net.weights],
        biases=[None if b is None else shake(b) for b in net.biases],
    )


def condition(net: Nasty, epsilon: float, right: Array) -> list[float]:
    """Return κ of each block: by how much more than itself one rounding of θ changes it."""
    size = 2.0**-40
    moved = exact(shaken(net, 0, size), epsilon)
    found = []
    for part in blocks(net):
        largest = np.abs(right[part]).max()
        change = np.abs(moved[part] - right[part]).max()
        found.append(float(change / largest / size) if largest > 0 else 0.0)
    return found


def off(net: Nasty, epsilon: float = 1e-7) -> list[tuple[float, float]]:
    """Return each block's error, relative to its largest component, and its κ."""
    right = exact(net, epsilon)
    kappas = condition(net, epsilon, right)
    given = fastcheck.numerical_gradient(
        network_of(net), net.inputs, net.targets, epsilon=epsilon, jobs=1
    )
    found = []
    for part, kappa in zip(blocks(net), kappas, strict=True):
        largest = np.abs(right[part]).max()
        error = np.abs(given[part] - right[part]).max()
        found.append((float(error / largest if largest else error), kappa))
    return found


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind in KINDS for seed in range(SEEDS)]
)
def test_numerical_gradient_is_the_central_difference_to_rounding(kind: str, seed: int) -> None:
    net = small(np.random.default_rng([seed, KINDS.index(kind)]), kind)
    for error, kappa in off(net):
        assert error <= max(ABSOLUTE, TIMES * UNIT_ROUNDOFF * kappa), (error, kappa)
