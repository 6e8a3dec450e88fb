"""Differences without cancellation: every activation's, every loss's, and the primitive's.

All are held against exact arithmetic. The claims:

- an activation's difference is right to 1e-15 of itself, times what the value itself is conditioned
  by in a tail (|z| in an exponential one, z² and z³ in GELU's two), for |z| up to 700 and |d| from
  1e-300 to 1; below 1e-290, where floats run out of digits, to 1e-304 absolute;
- a loss's difference is right to 1e-14 of the sum of its terms' sizes, and softmax's to |z|·1e-16
  where logits lie that far apart;
- `loss_change` is right to 1e-13 of the largest change of its layer.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.losses import LOSSES
from fastcheck.methods.unit.probes import trace_of
from tests import networks, oracle_mpmath
from tests.builders import as_network
from tests.networks import Drawn

LOGITS = (
    0.0, 1e-300, 1e-12, 1e-3, 0.1, 0.5, 0.999999, 1.0, 1.0000001, 1.2, 2.0, 3.0, 5.0, 5.999999,
    6.0, 6.1, 8.0, 20.0, 26.0, 36.7, 38.0, 60.0, 100.0, 350.0, 372.0, 600.0, 699.0, 700.0,
)  # fmt: skip
STEPS = (1e-300, 1e-200, 1e-50, 1e-20, 1e-16, 1e-12, 1e-7, 1e-5, 1e-3, 0.03, 0.24, 0.26, 0.5, 1.0)
TINY = 1e-300  # floats have few digits left there
# Near its minimum a function falls on one side and rises on the other: there the terms cancel that
# make the difference, and only their size can be held to.
MINIMA = {"silu": -1.28, "gelu": -0.75, "gelu_tanh": -0.75, "mish": -1.19}


def conditioning(name: str, z: float) -> float:
    """How many roundings a difference is off by: exp(−z) alone is conditioned by |z|."""
    tail = {"gelu": 4 * z * z, "gelu_tanh": abs(z) ** 3}.get(
        name, abs(z) if name != "softsign" else 0
    )
    return 8.0 + (2.0 * tail if z < 0 or name in ("sigmoid", "tanh") else 0.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activations_difference_keeps_every_digit(name: str, sign: float) -> None:
    entry = ACTIVATIONS[name]
    parameter = float(entry.parameter or 0.0)
    for size in LOGITS:
        z = sign * size
        for d in (*STEPS, *(-step for step in STEPS)):
            found = entry.difference(z, d, parameter)
            true = oracle_mpmath.activation_difference(name, entry.parameter, z, d)
            # silu and its kind: d·gate(z + d) + z·(gate's difference)
            terms = abs(float(true)) + (abs(d) * 0.3 if abs(z - MINIMA.get(name, z + 9)) < 1 else 0)
            allowed = conditioning(name, z) * 2.0**-53 * terms + 1e-304 * max(1.0, size)
            assert abs(found - true) <= allowed, (z, d, found, float(true))


@pytest.mark.parametrize("name", [name for name, entry in ACTIVATIONS.items() if entry.kinks])
@pytest.mark.parametrize("step", [1e-300, 1e-30, 1e-16, 1e-12, 1e-7, 1e-2])
def test_on_a_kink_a_step_of_any_size_counts_whole(name: str, step: float) -> None:
    entry = ACTIVATIONS[name]
    parameter = float(entry.parameter or 0.0)
    for kink in entry.kinks:
        for d in (step, -step):
            found = entry.difference(kink, d, parameter)
            true = oracle_mpmath.activation_difference(name, entry.parameter, kink, d)
            assert found == pytest.approx(float(true), rel=1e-15, abs=0.0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_difference_is_that_of_the_value(name: str) -> None:
    """The two entries of the table belong together."""
    entry, rng = ACTIVATIONS[name], np.random.default_rng(0)
    parameter = float(entry.parameter or 0.0)
    for z, d in rng.normal(0.0, 3.0, (200, 2)):
        apart = entry.value(z + d, parameter) - entry.value(z, parameter)
        assert entry.difference(z, d, parameter) == pytest.approx(apart, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("z", [1e3, 1e5, 1e100, -1e3, -1e5, -1e100])
def test_far_out_nothing_overflows(name: str, z: float) -> None:
    entry = ACTIVATIONS[name]
    parameter = float(entry.parameter or 0.0)
    for d in (1e-7, -1e-7, 1.0, -1.0):
        found = entry.difference(z, d, parameter)
        slope = float(entry.derivative(np.array([z]), parameter)[0])
        assert found == pytest.approx(slope * d, rel=0.01, abs=1e-300)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_step_is_too_long(name: str) -> None:
    entry = ACTIVATIONS[name]
    parameter = float(entry.parameter or 0.0)
    for z in (0.0, 0.5, -3.0, 800.0, -800.0, 1e5, -1e5):
        for d in (20.0, -20.0, 790.0, -790.0, 2e3, -2e3, 9e4, -9e4, 2e5, -2e5):
            apart = entry.value(z + d, parameter) - entry.value(z, parameter)
            found = entry.difference(z, d, parameter)
            assert found == pytest.approx(apart, rel=1e-12, abs=1e-15), (z, d)


def grown(name: str, z: Any, t: Any, d: Any, parameter: float | None = None) -> float:
    """What the kernel says that a loss grows by."""
    entry = LOSSES[name]
    p = float(entry.parameter or 0.0) if parameter is None else parameter
    change, out = np.array(d, dtype=np.float64).reshape(-1, 1), np.empty(1)
    entry.difference(np.array(z, dtype=np.float64), np.array(t, dtype=np.float64), p, change, out)
    return float(out[0])


def sizes_of_terms(name: str, z: Any, t: Any, d: Any) -> float:
    """The sum of the sizes of what a loss's difference is the sum of."""
    z, t, d = (np.asarray(v, dtype=np.float64) for v in (z, t, d))
    if name == "softmax_cross_entropy":
        e = d - (t @ d) / t.sum()
        p = np.exp(z - z.max())
        p /= p.sum()
        return float(np.minimum(p @ np.abs(e) * np.exp(min(np.abs(e).max(), 1.0)), np.abs(e).max()))
    if name == "sigmoid_cross_entropy":
        p = 1.0 / (1.0 + np.exp(-np.clip(np.stack([z, -z]), -700, 700)))
        both = ((1 - t) * p[0] + t * p[1]) * np.abs(d) * np.exp(np.minimum(np.abs(d), 1.0))
        return float(np.sum(np.where(np.abs(d) > 1, np.abs(d), both)))
    return float(np.sum(np.abs(d) * (np.abs(z - t) + np.abs(d)) + np.abs(d) * 1e-16 * np.abs(z)))


@pytest.mark.parametrize("spread", [1e-3, 1.0, 10.0, 100.0, 700.0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_difference_keeps_every_digit(name: str, soft: bool, spread: float) -> None:
    rng = np.random.default_rng(round(spread * 1e3) + soft)
    for outputs in (1, 2, 3, 10):
        for size in (1e-300, 1e-100, 1e-20, 1e-12, 1e-7, 1e-4, 7e-3, 9e-3, 0.1, 1.0, 10.0, 1e3):
            z, d = rng.normal(0.0, spread, outputs), rng.normal(0.0, size, outputs)
            t = networks.random_targets(rng, name, (1, outputs), soft=soft)[0]
            true = oracle_mpmath.loss_difference(name, None, list(z), list(d), list(t))
            precision = max(1e-14, 2e-16 * float(np.ptp(z)))
            allowed = precision * max(abs(float(true)), sizes_of_terms(name, z, t, d)) + TINY
            assert abs(grown(name, z, t, d) - float(true)) <= allowed, (z, d, t)


@pytest.mark.parametrize("outlying", [10.0, 40.0, 100.0, 600.0])
def test_a_sure_and_right_softmax_does_not_cancel(outlying: float) -> None:
    """p_y is 1 to the last digit, and yet the loss's change is known to all digits."""
    z, t = [outlying, 0.0, 0.5], [1.0, 0.0, 0.0]
    for d in ([1e-7, -2e-7, 3e-7], [1e-3, 1e-3, -1e-3], [1e-200, 0.0, 0.0]):
        true = oracle_mpmath.loss_difference("softmax_cross_entropy", None, z, d, t)
        found = grown("softmax_cross_entropy", z, t, d)
        assert found == pytest.approx(float(true), rel=1e-13, abs=0.0)


HUGE = [
    ([-3e7, -5e7, 6.7e6, -6e7], [-244.3, -357.8, 49.3, -483.2]),
    ([-3e7, -5e7, 6.7e6, -6e7], [244.3, 357.8, -749.3, 483.2]),
    ([1e8, 1e8, 0.0, 0.0], [1e-7, -2e-7, 3e-8, 0.0]),
    ([1e8, 1e8, 0.0, 0.0], [300.0, -200.0, 10.0, -700.0]),
    ([100.0, 100.0, 3.0, 4.0], [1e-3, 2e-3, 3.0, 4.0]),
]


@pytest.mark.parametrize("target", [[1, 0, 0, 0], [0, 0, 1, 0], [0.25] * 4, [0.5, 0, 0.5, 0]])
@pytest.mark.parametrize(("z", "d"), HUGE)
def test_softmax_of_huge_logits_and_changes(z: Any, d: Any, target: Any) -> None:
    with mpmath.workdps(1000):
        exact, loss = oracle_mpmath.exact, oracle_mpmath.LOSSES["softmax_cross_entropy"]
        moved = [a + b for a, b in zip(exact(z), exact(d), strict=True)]
        true = loss(moved, exact(target), None) - loss(exact(z), exact(target), None)
    found = grown("softmax_cross_entropy", z, target, d)
    assert found == pytest.approx(float(true), rel=1e-14, abs=1e-300)


@pytest.mark.parametrize(
    ("z", "d"), [(-1065.0, 1632.0), (-1065.0, 632.0), (1e6, 31.0), (1020.0, -1117.0), (20.0, -1e4)]
)
def test_sigmoid_cross_entropy_of_huge_changes(z: float, d: float) -> None:
    softplus = [max(v, 0.0) + math.log1p(math.exp(-abs(v))) for v in (z + d, z)]
    found = grown("sigmoid_cross_entropy", [z], [0.0], [d])
    assert found == pytest.approx(softplus[0] - softplus[1], rel=1e-13)


@pytest.mark.parametrize("corner", [-0.5, 0.5])
@pytest.mark.parametrize("room", [0.0, 1e-300, 1e-12, 1e-3])
def test_hubers_corners(corner: float, room: float) -> None:
    for d in (1e-12, -1e-12, 2e-3, -2e-3, 1.5, -1.5, 1e3):
        for z in (corner + room, corner - room):
            true = oracle_mpmath.loss_difference("huber", 0.5, [z], [d], [0.0])
            found = grown("huber", [z], [0.0], [d], 0.5)
            assert found == pytest.approx(float(true), rel=1e-15 * (1 + 1 / max(abs(d), 1e-3)))


def exact_change(drawn: Drawn, layer: int, sample: int, unit: int, delta: float) -> Any:
    """ℓ_s when Z_l[s, unit] grows by δ, minus ℓ_s, in exact numbers (biases must be there)."""
    with mpmath.workdps(120):
        held = oracle_mpmath.ExactProblem(drawn)
        name, parameter = oracle_mpmath.split(drawn.loss)
        loss, target = oracle_mpmath.LOSSES[name], held.targets[sample]
        layers = held.layers(held.theta)
        before = loss(held.outputs(layers, sample), target, parameter)
        layers[layer - 1][1][unit] += oracle_mpmath.exact(delta)
        return loss(held.outputs(layers, sample), target, parameter) - before


@pytest.mark.parametrize("delta", [1e-100, 1e-12, -1e-7, 1e-3, -1.0])
@pytest.mark.parametrize("seed", range(24))
def test_loss_change_of_whole_networks(seed: int, delta: float) -> None:
    rng = np.random.default_rng(seed)
    drawn = networks.random_problem(rng)
    while any(b is None for b in drawn.biases):
        drawn = networks.random_problem(rng)
    probes = trace_of(*as_network(drawn), 1e-7)
    for layer, width in enumerate(drawn.widths[1:], start=1):
        for sample in range(drawn.inputs.shape[0]):
            units = np.arange(width)
            found, _ = probes.change(layer, sample, units, np.full(width, delta))
            true = [float(exact_change(drawn, layer, sample, unit, delta)) for unit in range(width)]
            largest = max(map(abs, true))
            np.testing.assert_allclose(found, true, rtol=1e-13, atol=1e-13 * largest)
