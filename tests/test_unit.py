"""The unit method gives the central differences at ε: held against exact arithmetic.

The claim everywhere: every block's relative difference from the exact central differences is below
1e-12, at any ε from 1e-12 to 1e-2. Only components that cross a kink are also off by what rounding
of z does to where the kink lies in ±ε: 1e-16·|z|/ε.
"""

from __future__ import annotations

import itertools
import math
import pickle  # noqa: TID251 - how work reaches another process
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck.model.network import Network
from fastcheck.reference import backprop
from fastcheck.settings import Settings
from tests import networks, oracle, oracle_mpmath
from tests.builders import as_network
from tests.networks import Drawn, problems, random_problem
from tests.oracle import Named
from tests.repetitions import draws
from tests.unit_cases import blocks, exact, prepared, unit, worst_block

EXACT = 1e-12
EPSILONS = [10.0**-k for k in range(2, 13)]
IDENTITY = {"activations": ["identity"], "loss": "squared_error"}

KINK_EPSILON = 2.0**-20  # with half-integers everywhere, z ± ε is exact
KINKS: dict[str, tuple[float, ...]] = {**networks.KINKS, "softsign": (0.0,)}


def drawn_with(seed: int, **given: Any) -> Drawn:
    return random_problem(np.random.default_rng(seed), **given)


def assert_exact(drawn: Drawn, epsilon: float, *, digits: int = 100) -> None:
    found = unit(drawn, epsilon=epsilon).values
    assert worst_block(drawn, found, exact(drawn, epsilon, digits=digits)) < EXACT


# --- every activation, loss and convention, at any ε ----------------------------------------------


@pytest.mark.parametrize("loss", networks.LOSSES, ids=str)
@pytest.mark.parametrize("activation", networks.ACTIVATIONS, ids=str)
def test_every_activation_with_every_loss(activation: Named, loss: Named) -> None:
    seed = networks.ACTIVATIONS.index(activation) * 10 + networks.LOSSES.index(loss)
    for epsilon in (1e-12, 1e-7, 1e-4, 1e-2):
        assert_exact(drawn_with(seed, activations=activation, loss=loss, max_width=4), epsilon)


@pytest.mark.parametrize("penalty", networks.PENALTIES)
@pytest.mark.parametrize("reduction", networks.REDUCTIONS)
def test_every_convention(penalty: str, reduction: str) -> None:
    drawn = drawn_with(5, activations=["tanh", "relu", "identity"], loss="softmax_cross_entropy")
    keep = np.random.default_rng(0).random((2, drawn.inputs.shape[0], 1)) < 0.7
    masks: list[Any] = [
        np.broadcast_to(k / 0.7, (drawn.inputs.shape[0], n)).copy()
        for k, n in zip(keep, drawn.widths[1:-1], strict=True)
    ]
    drawn = replace(drawn, l2=0.7, penalty=penalty, reduction=reduction, masks=[*masks, None])
    for epsilon in (1e-9, 1e-3):
        assert_exact(drawn, epsilon)


@draws(1, 4)
@given(drawn=problems(), epsilon=st.sampled_from(EPSILONS))
@settings(max_examples=50, deadline=None)
def test_any_network_at_any_epsilon(seed: int, drawn: Drawn, epsilon: float) -> None:
    assert_exact(drawn, epsilon)


@pytest.mark.parametrize("seed", range(8))
def test_deep_networks(seed: int) -> None:
    depth = 7 + seed % 4
    for epsilon in (1e-9, 1e-6, 1e-2):
        assert_exact(drawn_with(seed, depth=depth, max_width=3), epsilon)


@pytest.mark.parametrize("scale", [1e-3, 1e-1, 10.0, 1e3])
@draws(6, 12)
def test_weights_of_any_size(scale: float, seed: int) -> None:
    assert_exact(drawn_with(seed, scale=scale), EPSILONS[seed % 11], digits=400)


@pytest.mark.parametrize("factor", [1e4, 1e-6, 1e-200, 0.0])
@draws(6, 12)
def test_inputs_of_any_size(factor: float, seed: int) -> None:
    drawn = drawn_with(seed)
    drawn = replace(drawn, inputs=drawn.inputs * factor)
    assert_exact(drawn, EPSILONS[seed % 11], digits=500)


@draws(10, 20)
def test_one_outlying_sample(seed: int) -> None:
    """Its step is a thousand times that of the others."""
    drawn, rng = drawn_with(seed), np.random.default_rng(seed)
    X = drawn.inputs.copy()
    X[rng.integers(X.shape[0])] *= 10.0 ** rng.integers(1, 4)
    assert_exact(replace(drawn, inputs=X), EPSILONS[seed % 11], digits=400)


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
@pytest.mark.parametrize("epsilon", [1e-7, 1e-3])
def test_curvature_that_only_one_sample_shows(loss: str, epsilon: float) -> None:
    """The others are masked out, so that all that is seen of them is linear."""
    rng = np.random.default_rng(1)
    drawn = drawn_with(1, activations=["tanh", "gelu", "identity"], loss=loss)
    m, live = 9, 4
    masks: list[Any] = [np.zeros((m, n)) for n in drawn.widths[1:-1]] + [None]
    for mask in masks[:-1]:
        mask[live] = 1.0
    targets = networks.random_targets(rng, loss, (m, drawn.widths[-1]))
    inputs = rng.normal(size=(m, drawn.widths[0]))
    assert_exact(replace(drawn, masks=masks, inputs=inputs, targets=targets), epsilon)


@pytest.mark.parametrize("activation", ["sigmoid", "elu", "relu", "softsign"])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_a_batch_that_starts_and_ends_with_empty_samples(activation: str, epsilon: float) -> None:
    drawn = drawn_with(3, activations=activation, loss="softmax_cross_entropy")
    X = np.zeros((7, drawn.widths[0]))
    X[2] = 1.0 + np.arange(drawn.widths[0])
    targets = networks.random_targets(
        np.random.default_rng(0), "softmax_cross_entropy", (7, drawn.widths[-1])
    )
    assert_exact(replace(drawn, inputs=X, targets=targets, masks=None), epsilon)


@pytest.mark.parametrize("size", [30.0, 300.0, 1e4])
def test_where_no_polynomial_reaches(size: float) -> None:
    """A step of many times what the logistic function bends over: each component on its own."""
    drawn = Drawn(
        weights=[np.array([[0.3, -0.2], [0.1, 0.4]])],
        biases=[np.array([0.1, -0.3])],
        activations=["identity"],
        loss="sigmoid_cross_entropy",
        l2=0.5,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.array([[size, 0.5], [-0.1, 1.0]]),
        targets=np.array([[0.3, 1.0], [0.0, 0.6]]),
        masks=None,
    )
    assert_exact(drawn, 1e-2, digits=800)


def test_logits_of_a_hundred_million_lose_no_digits() -> None:
    drawn = drawn_with(2, activations=["identity"], loss="softmax_cross_entropy", max_width=4)
    m, n = drawn.inputs.shape
    drawn = replace(
        drawn,
        weights=[np.full((3, n), 1.0)],
        biases=[np.array([1e8, 1e8, 1e8 - 1.0])],
        targets=np.tile([0.2, 0.5, 0.3], (m, 1)),
        inputs=np.round(drawn.inputs * 4) / 4,
    )
    assert_exact(drawn, 1e-7)


@pytest.mark.parametrize("loss", networks.LOSSES, ids=str)
@pytest.mark.parametrize("widths", [(1, 1), (1, 1, 1), (3, 1), (1, 4)])
def test_the_smallest_networks(widths: tuple[int, ...], loss: Named) -> None:
    """One sample, one unit, one layer."""
    rng = np.random.default_rng(len(widths))
    hidden: list[Named] = ["sigmoid"] * (len(widths) - 2)
    drawn = Drawn(
        weights=[rng.normal(size=(k, n)) for n, k in itertools.pairwise(widths)],
        biases=[None] * (len(widths) - 1),
        activations=[*hidden, "identity"],
        loss=loss,
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=rng.normal(size=(1, widths[0])),
        targets=networks.random_targets(rng, loss, (1, widths[-1])),
        masks=None,
    )
    assert_exact(drawn, 1e-7)


# --- larger networks, against the definition ------------------------------------------------------


def larger(seed: int, activation: Named, loss: Named, sizes: tuple[int, ...], m: int) -> Drawn:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(sizes))
    return Drawn(
        weights=[rng.normal(0.0, np.sqrt(1.7 / n), (k, n)) for n, k in pairs],
        biases=[rng.normal(0.0, 0.1, k) for k in sizes[1:]],
        activations=[activation] * (len(pairs) - 1) + ["identity"],
        loss=loss,
        l2=0.1,
        penalty="l2/2m",
        reduction="mean",
        inputs=rng.normal(size=(m, sizes[0])),
        targets=networks.random_targets(rng, loss, (m, sizes[-1])),
        masks=None,
    )


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "softsign", "hardtanh"])
def test_random_components_of_larger_networks(activation: Named) -> None:
    drawn = larger(1, activation, "softmax_cross_entropy", (200, 120, 90, 7), 40)
    values = unit(drawn, epsilon=1e-5).values
    weights, biases, inputs, targets = drawn.arrays
    J = oracle.cost_of_theta(weights, biases, inputs, targets, **drawn.conventions)
    theta = oracle.pack(weights, biases)
    chosen = np.random.default_rng(0).choice(theta.size, 60, replace=False)
    literal = oracle.central_differences(J, theta, 1e-5, chosen)
    np.testing.assert_allclose(values[chosen], literal, rtol=1e-8, atol=3e-10)


@pytest.mark.parametrize("loss", networks.LOSSES, ids=str)
@pytest.mark.parametrize("activation", networks.ACTIVATIONS, ids=str)
def test_a_right_float64_gradient_agrees_to_thirteen_digits(activation: Named, loss: Named) -> None:
    drawn = larger(2, activation, loss, (30, 24, 18, 6), 12)
    network, batch = as_network(drawn)
    gradient = backprop.gradients(network, batch)
    assert worst_block(drawn, unit(drawn).values, gradient) < 1e-13


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_right_gradient_of_a_deep_network_agrees(activation: Named) -> None:
    drawn = larger(3, activation, "softmax_cross_entropy", (40, *[32] * 9, 5), 8)
    network, batch = as_network(drawn)
    gradient = backprop.gradients(network, batch)
    assert worst_block(drawn, unit(drawn).values, gradient) < 1e-12


# --- the user's own functions ---------------------------------------------------------------------


def bent(z: float) -> float:
    return z / math.sqrt(1.0 + z * z)


def log_cosh(output: float, target: float) -> float:
    return math.log(math.cosh(output - target))


@pytest.mark.parametrize("epsilon", [1e-7, 1e-4, 1e-2])
def test_ones_own_activation_and_loss_are_evaluated_directly(epsilon: float) -> None:
    """Cancellation is back, and the method says how much of it."""
    drawn = larger(4, "tanh", "squared_error", (6, 5, 4, 3), 5)
    network = Network.from_arrays(
        drawn.weights, drawn.biases, activations=[bent, "relu", "identity"], loss=log_cosh, l2=0.1
    )
    batch = network.batch(drawn.inputs, drawn.targets)

    def J(theta: Any) -> Any:
        W, found = oracle.unpack(theta, drawn.weights, drawn.biases)
        b: list[Any] = list(found)
        A1 = drawn.inputs @ W[0].T + b[0]
        A2 = np.maximum(A1 / np.sqrt(1 + A1**2) @ W[1].T + b[1], 0.0)
        data = np.log(np.cosh(A2 @ W[2].T + b[2] - drawn.targets)).sum() / 5
        return data + 0.01 * sum(float((w * w).sum()) for w in W)

    from fastcheck.methods.unit.method import prepare

    work = prepare(network, batch, None, Settings.of(epsilon=epsilon))
    found = work.assemble([work.differences(chunk) for chunk in work.chunks])
    literal = oracle.central_differences(J, network.theta, epsilon)
    allowed = 1e-15 / epsilon + 1e-12
    np.testing.assert_allclose(found.values, literal, rtol=0.0, atol=10 * allowed)
    assert any("differences cancel" in note for note in found.notes)


# --- kinks ----------------------------------------------------------------------------------------


def on_the_grid(seed: int, **given: Any) -> Drawn:
    """A network of half-integers: many logits lie exactly on a kink."""
    drawn = drawn_with(seed, **given)
    targets = drawn.targets if "cross" in str(drawn.loss) else np.round(drawn.targets)
    return replace(
        drawn,
        weights=[np.round(w * 2) / 2 for w in drawn.weights],
        biases=[None if b is None else np.round(b * 2) / 2 for b in drawn.biases],
        inputs=np.round(drawn.inputs),
        targets=targets,
    )


def rooms(drawn: Drawn, theta: Any) -> Any:
    """How far every logit (and residual, for Huber's loss) is from every kink, flat."""
    W, b = oracle.unpack(theta, drawn.weights, drawn.biases)
    outputs, logits = oracle.trace(W, b, drawn.activations, drawn.inputs, drawn.masks)
    found: list[Any] = [np.zeros(0)]
    for z, named in zip(logits, drawn.activations, strict=True):
        found += [(z - kink).ravel() for kink in KINKS.get(oracle.split(named)[0], ())]
    name, delta = oracle.split(drawn.loss)
    if name == "huber":
        residuals = (outputs[-1] - drawn.targets).ravel()
        found += [residuals - delta, residuals + delta]
    return np.concatenate(found)


def crossing(drawn: Drawn, epsilon: float) -> tuple[Any, Any]:
    """Return which components move a logit onto, off or over a kink; and which are in doubt."""
    theta = oracle.pack(drawn.weights, drawn.biases)
    here = rooms(drawn, theta)
    crossed, doubtful = np.zeros((2, theta.size), bool)
    for i in range(theta.size):
        for step in (epsilon, -epsilon):
            moved = theta.copy()
            moved[i] += step
            there = rooms(drawn, moved)
            crossed[i] |= np.any((there * here < 0) | ((here == 0) != (there == 0)))
            near = (np.abs(there) < 1e-3 * epsilon) | ((np.abs(here) < 1e-14) & (here != 0))
            doubtful[i] |= np.any(near & (there != here))
    return crossed, doubtful


def sided_gradient(drawn: Drawn, sides: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gradient by backpropagation with φ' on a kink taken to a side, or as a mean over sides.

    On side 0 it is as torch takes it.
    """
    with monkeypatch.context() as patch:
        for name, (value, slope) in list(oracle.ACTIVATIONS.items()):
            places = KINKS.get(name, ())

            def moved(z: Any, p: float, slope: Any = slope, places: Any = places) -> Any:
                on = np.isin(z, places)
                return np.mean([slope(np.where(on, z + s * 1e-9, z), p) for s in sides], axis=0)

            patch.setitem(oracle.ACTIVATIONS, name, (value, moved))
        return oracle.pack(*oracle.backprop(*drawn.arrays, **drawn.conventions))


@draws(20, 60)
def test_on_kinks_the_value_is_the_central_difference(seed: int) -> None:
    drawn = on_the_grid(seed)
    found = unit(drawn, epsilon=KINK_EPSILON)
    true = exact(drawn, KINK_EPSILON)
    allowed = EXACT * np.abs(true).max()
    allowed = np.full(true.size, allowed)
    allowed[found.kinks.positions] += 30 * 2.0**-53 / KINK_EPSILON * max(1.0, np.abs(true).max())
    assert np.all(np.abs(found.values - true) <= allowed)


@draws(20, 60)
def test_kinks_are_marked_where_they_are_crossed(seed: int) -> None:
    drawn = on_the_grid(seed)
    found = unit(drawn, epsilon=KINK_EPSILON).kinks.positions
    crossed, doubtful = crossing(drawn, KINK_EPSILON)
    marked = np.isin(np.arange(crossed.size), found)
    assert not np.any(marked & ~crossed & ~doubtful)
    for i in np.flatnonzero(crossed & ~marked & ~doubtful):  # crossed, but to no effect
        above, below = oracle_mpmath.one_sided_slopes(drawn, int(i), KINK_EPSILON)
        assert abs(above - below) < 100 * KINK_EPSILON


@pytest.mark.parametrize("sides", [(0.0,), (-1.0,), (1.0,), (-1.0, 1.0)])
@draws(20, 60)
def test_every_convention_at_a_kink_is_right(
    seed: int, sides: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = on_the_grid(seed)
    gradient = sided_gradient(drawn, sides, monkeypatch)
    found = unit(drawn, epsilon=KINK_EPSILON)
    low, high = found.values.copy(), found.values.copy()
    low[found.kinks.positions], high[found.kinks.positions] = found.kinks.low, found.kinks.high
    slack = 3e-6 * np.abs(gradient).max() + 1e-5 * np.abs(found.values)
    assert np.all((gradient >= low - slack) & (gradient <= high + slack))


def test_kinks_that_cancel_over_the_samples_leave_no_room() -> None:
    """Samples of zeros lie on every kink, but J does not bend where one has each of the labels."""
    rng = np.random.default_rng(0)
    drawn = Drawn(
        weights=[rng.standard_normal((5, 4)), rng.standard_normal((3, 5))],
        biases=[np.zeros(5), np.zeros(3)],
        activations=["relu", "identity"],
        loss="softmax_cross_entropy",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.zeros((3, 4)),
        targets=np.eye(3),
        masks=None,
    )
    together = unit(drawn).kinks
    assert np.all(together.high - together.low < 1e-6)
    alone = unit(replace(drawn, inputs=drawn.inputs[:1], targets=drawn.targets[:1])).kinks
    assert np.all(alone.high - alone.low > 0.01)


def test_an_output_and_a_hidden_unit_on_a_kink_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(
        weights=[np.array([[1.0]]), np.array([[1.5]])],
        biases=[np.zeros(1), np.zeros(1)],
        activations=[("leaky_relu", 0.25), ("elu", 0.5)],
        loss="squared_error",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=np.zeros((1, 1)),
        targets=np.array([[2.0]]),
        masks=None,
    )
    found = unit(drawn).kinks
    for side in (0.0, -1.0, 1.0):
        gradient = sided_gradient(drawn, (side,), monkeypatch)[found.positions]
        assert np.all((gradient > found.low - 1e-6) & (gradient < found.high + 1e-6))


@pytest.mark.parametrize("activation", [a for a in networks.ACTIVATIONS if str(a) != "identity"])
@pytest.mark.parametrize("room", [0.0, 0.3, 1.0, -0.6, 3.0])
def test_a_logit_within_epsilon_of_a_kink(activation: Named, room: float) -> None:
    """Layer 1's first unit lies so many ε from the kink, and others meet it downstream."""
    epsilon = 1e-6
    drawn = larger(7, activation, "softmax_cross_entropy", (3, 3, 4, 3), 2)
    name = oracle.split(activation)[0]
    kink = KINKS.get(name, (0.0,))[-1]
    Z = oracle.trace(*drawn.arrays[:2], drawn.activations, drawn.inputs)[1][0]
    assert drawn.biases[0] is not None
    drawn.biases[0][0] += kink + room * epsilon - Z[0, 0]
    true = exact(drawn, epsilon)
    found = unit(drawn, epsilon=epsilon).values
    np.testing.assert_allclose(found, true, atol=1e-9 * np.abs(true).max(), rtol=0.0)


@pytest.mark.parametrize("activation", ["relu", "hardtanh", "elu", ("leaky_relu", 0.25), "relu6"])
def test_nothing_but_zeros(activation: Named) -> None:
    drawn = larger(8, activation, "huber", (4, 3, 3, 2), 5)
    drawn = replace(
        drawn,
        weights=[w * 0 for w in drawn.weights],
        biases=[None if b is None else b * 0 for b in drawn.biases],
    )
    for epsilon in (1e-7, 1e-3):
        assert_exact(drawn, epsilon)


# --- parts, samples, workers ----------------------------------------------------------------------

SHAPES: list[tuple[Named, float]] = [("relu", 1e-7), ("tanh", 1e-7), ("elu", 1e-3), ("gelu", 1e-2)]


@pytest.mark.parametrize(("activation", "epsilon"), SHAPES)
def test_a_sample_gives_what_the_whole_gives(activation: Named, epsilon: float) -> None:
    drawn = larger(5, activation, "softmax_cross_entropy", (20, 15, 12, 5), 9)
    drawn.inputs[2] = 0.0
    whole = unit(drawn, epsilon=epsilon)
    chosen = np.sort(np.random.default_rng(0).choice(whole.values.size, 80, replace=False))
    some = unit(drawn, [int(i) for i in chosen], epsilon=epsilon)
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(some.values, whole.values[chosen], rtol=1e-13, atol=1e-14 * scale)


def test_a_sample_finds_the_kinks_that_the_whole_finds() -> None:
    drawn = on_the_grid(12, activations="relu", loss="squared_error")
    whole = unit(drawn, epsilon=KINK_EPSILON)
    chosen = np.arange(0, whole.values.size, 2)
    some = unit(drawn, [int(i) for i in chosen], epsilon=KINK_EPSILON)
    shared = np.isin(whole.kinks.positions, chosen)
    np.testing.assert_array_equal(chosen[some.kinks.positions], whole.kinks.positions[shared])
    np.testing.assert_allclose(some.kinks.low, whole.kinks.low[shared], rtol=1e-12)


@pytest.mark.parametrize(("activation", "epsilon"), SHAPES)
def test_little_memory_changes_nothing(activation: Named, epsilon: float) -> None:
    drawn = larger(5, activation, "softmax_cross_entropy", (20, 15, 12, 5), 9)
    work = prepared(drawn, epsilon=epsilon, memory=2e4)
    assert any(chunk.parts > 1 for chunk in work.chunks)
    whole, parts = unit(drawn, epsilon=epsilon), unit(drawn, epsilon=epsilon, memory=2e4)
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-13, atol=1e-14 * scale)


@pytest.mark.parametrize(("activation", "epsilon"), SHAPES)
def test_the_same_bits_for_any_number_of_workers(
    activation: Named, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcheck.methods.unit.method.CHUNK_FLOPS", 1.0)
    monkeypatch.setattr("fastcheck.execution.parallel.MIN_PARALLEL_SECONDS", 0.0)
    drawn = larger(5, activation, "softmax_cross_entropy", (20, 15, 12, 5), 9)
    drawn.inputs[2] = 0.0
    assert len(prepared(drawn).chunks) > 3
    alone = unit(drawn, epsilon=epsilon, jobs=1)
    for jobs in (2, 3):
        together = unit(drawn, epsilon=epsilon, jobs=jobs)
        np.testing.assert_array_equal(together.values, alone.values)
        np.testing.assert_array_equal(together.kinks.low, alone.kinks.low)


def test_it_crosses_to_other_processes() -> None:
    work = prepared(larger(5, "relu", "softmax_cross_entropy", (20, 15, 12, 5), 9))
    there = pickle.loads(pickle.dumps(work))  # noqa: S301
    chunk = work.chunks[0]
    np.testing.assert_array_equal(there.differences(chunk).slopes, work.differences(chunk).slopes)


# --- the check of itself accuses nobody -----------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "mean_squared_error", "huber"])
@pytest.mark.parametrize("seed", range(8))
def test_a_perfect_fit_is_no_fault(seed: int, loss: str) -> None:
    """J is 0 or nearly so: what is left of it is how the outputs are rounded."""
    drawn = drawn_with(seed, loss=loss)
    outputs = oracle.forward(*drawn.arrays[:2], drawn.activations, drawn.inputs, drawn.masks)
    for off in (0.0, 1e-15, 1e-9):
        unit(replace(drawn, targets=outputs * (1 + off), l2=0.0), epsilon=EPSILONS[seed])


def test_blocks_are_where_theta_has_them() -> None:
    """What the claims above are made of."""
    drawn = drawn_with(0)
    network, _ = as_network(drawn)
    assert [block.slice for block in network.order.blocks] == blocks(drawn)
