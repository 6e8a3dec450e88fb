"""fastcheck catches a fault of its own before it accuses anybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastcheck
from fastcheck.methods.unit import method as unit
from fastcheck.methods.unit import probes
from fastcheck.methods.unit.self_check import SelfCheckError, self_checked
from fastcheck.model.network import Batch, Network
from fastcheck.settings import Settings

Plant = Callable[[unit.UnitMethod], None]
SIZES = [20, 30, 30, 10]


def problem(activation: str = "relu", seed: int = 0) -> tuple[Network, Batch]:
    rng = np.random.default_rng(seed)
    shapes = list(zip(SIZES[1:], SIZES[:-1], strict=True))
    weights = [rng.normal(size=shape) * np.sqrt(2.0 / shape[1]) for shape in shapes]
    biases = [rng.normal(size=n) for n, _ in shapes]
    network = Network.from_arrays(weights, biases, activations=activation, l2=0.1)
    return network, network.batch(rng.normal(size=(16, 20)), rng.integers(0, 10, 16))


def approximation(network: Network, batch: Batch, plant: Plant | None = None) -> Any:
    """Run the unit method; a fault is planted when it has been made ready."""
    prepared = unit.prepare(network, batch, None, Settings())
    if plant is not None:
        plant(prepared)
    return prepared.assemble([prepared.differences(chunk) for chunk in prepared.chunks])


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_a_right_run_says_what_was_re_evaluated(activation: str) -> None:
    found = approximation(*problem(activation))
    assert "3 components re-evaluated" in found.self_check
    assert "hides" not in found.self_check


def test_a_fault_in_the_probes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = vars(probes)["linear_probes"]

    def wrong(*arguments: Any) -> None:
        kernel(*arguments)
        arguments[9][...] *= 1.001  # the slopes that it fills in

    with pytest.raises(SelfCheckError, match="bug of fastcheck"):
        approximation(*problem(), lambda _: monkeypatch.setattr(probes, "linear_probes", wrong))


def test_a_fault_in_the_slopes_of_activations_is_caught() -> None:
    def wrong(prepared: unit.UnitMethod) -> None:
        prepared.probes.left[...] *= 0.999

    with pytest.raises(SelfCheckError, match="two literal forward passes"):
        approximation(*problem(), wrong)


def test_slopes_that_are_wrong_from_the_start_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = vars(probes)["layer_slopes"]

    def wrong(*arguments: Any) -> Any:
        on_kink = kernel(*arguments)
        arguments[5][0][...] *= 0.999  # the gains to the left of a kink
        return on_kink

    monkeypatch.setattr(probes, "layer_slopes", wrong)
    with pytest.raises(SelfCheckError):
        approximation(*problem())


def test_a_forgotten_penalty_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcheck.methods.unit import assembly as unit_rows

    monkeypatch.setattr(unit_rows, "_add_penalty", lambda *arguments: None)
    with pytest.raises(SelfCheckError):
        approximation(*problem())


def test_each_weight_matrix_is_looked_at() -> None:
    network, batch = problem()
    for layer in range(1, network.depth + 1):
        found = approximation(network, batch)
        found.values[network.order.weights(layer).slice] *= 1.001
        with pytest.raises(SelfCheckError, match=rf"W{layer}\["):
            self_checked(network, batch, found)


def test_gradcheck_reports_the_self_check() -> None:
    network, batch = problem()
    dtheta = fastcheck.numerical_gradient(network, batch.X, batch.T)
    report = fastcheck.gradcheck(network, batch.X, batch.T, dtheta)
    assert "re-evaluated" in report.method.self_check
