"""A run that was cut off goes on from its journal, by every method, and ends with the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck import InputError, Network, gradcheck, numerical_gradient
from fastcheck.execution.journal import Journal
from fastcheck.methods.textbook import PreparedTextbook
from fastcheck.methods.unit.method import UnitMethod
from fastcheck.methods.unit.windows import ARRAYS_OF_UNITS, WindowedUnitMethod

SIZES, M = [5, 40, 30, 4], 64
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "unit": (UnitMethod, {}),
    "windows": (WindowedUnitMethod, {"memory": 4 * 9 * 8.0 * ARRAYS_OF_UNITS * sum(SIZES[1:])}),
    "textbook": (PreparedTextbook, {"method": "textbook", "chunk_size": 150}),
}


def problem(activation: Any = "relu") -> tuple[Network, Any, Any]:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(n, k)) / np.sqrt(k) for k, n in pairwise(SIZES)]
    biases = [0.1 * rng.normal(size=n) for n in SIZES[1:]]
    biases[0][0] = 0.0
    X = rng.normal(size=(M, SIZES[0]))
    X[::7] = 0.0  # on kinks
    network = Network.from_arrays(
        weights, biases, activations=activation, loss="softmax_cross_entropy", l2=0.1
    )
    return network, X, rng.integers(0, SIZES[-1], M)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcheck.methods.unit.method.CHUNK_FLOPS", 1.0)


class Cut:
    """Progress that presses Ctrl-C after so many chunks."""

    def __init__(self, after: int) -> None:
        self.calls, self.after = 0, after

    def __call__(self, done: int, total: int) -> None:
        self.calls += done > 0
        if self.calls > self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("way", WAYS)
def test_it_goes_on_where_it_stopped_and_ends_with_the_same_bits(
    way: str, activation: str, epsilon: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, options = WAYS[way]
    network, X, T = problem(activation)
    options = {**options, "epsilon": epsilon, "jobs": 1}
    whole = numerical_gradient(network, X, T, **options)
    journal, done = tmp_path / "run.journal", []
    differences = method.differences

    def counted(self: Any, chunk: Any) -> Any:
        done.append(chunk)
        return differences(self, chunk)

    monkeypatch.setattr(method, "differences", counted)
    cut = numerical_gradient(network, X, T, journal=journal, progress=Cut(3), **options)
    assert np.isnan(cut).any()
    first = len(done)
    found = numerical_gradient(network, X, T, journal=journal, **options)
    assert found.tobytes() == whole.tobytes()
    second = len(done) - first
    again = numerical_gradient(network, X, T, journal=journal, **options)
    assert again.tobytes() == whole.tobytes()
    assert len(done) == first + second  # nothing was left to do
    assert 3 <= first < first + second <= first + len(set(map(repr, done)))


@pytest.mark.parametrize("way", WAYS)
def test_another_problem_is_refused(way: str, tmp_path: Path) -> None:
    _, options = WAYS[way]
    network, X, T = problem()
    journal = tmp_path / "run.journal"
    numerical_gradient(network, X, T, journal=journal, **options)
    others: list[tuple[Network, Any, Any, dict[str, Any]]] = [
        (network, X + 1e-9, T, {}),
        (network, X, np.roll(T, 1), {}),
        (network.with_theta(network.theta * (1 + 1e-12)), X, T, {}),
        (network, X, T, {"epsilon": 2e-7}),
        (network, X, T, {"sample": 100}),
        (problem("leaky_relu")[0], X, T, {}),
    ]
    kept = journal.read_bytes()
    for other, inputs, targets, more in others:
        with pytest.raises(InputError, match="another problem"):
            numerical_gradient(other, inputs, targets, journal=journal, **{**options, **more})
    assert journal.read_bytes() == kept


def test_a_damaged_record_is_computed_again(tmp_path: Path) -> None:
    network, X, T = problem()
    journal = tmp_path / "run.journal"
    whole = numerical_gradient(network, X, T, journal=journal)
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 4
    journal.write_bytes(bytes(content))
    assert numerical_gradient(network, X, T, journal=journal).tobytes() == whole.tobytes()


def test_a_whole_check_goes_on_too(tmp_path: Path) -> None:
    network, X, T = problem("tanh")
    gradient = numerical_gradient(network, X, T)
    journal = tmp_path / "run.journal"
    cut = gradcheck(network, X, T, gradient, journal=journal, progress=Cut(2), jobs=1)
    assert not cut.method.complete
    report = gradcheck(network, X, T, gradient, journal=journal, jobs=2)
    assert report.status == "agree"
    gradient[100] *= 1.01
    assert gradcheck(network, X, T, gradient, journal=journal).status == "wrong"


KILLED = """
import sys
import numpy as np
import fastcheck.methods.unit.method as method
from fastcheck import numerical_gradient
from tests.test_resume import problem
method.CHUNK_FLOPS = 1.0
network, X, T = problem("tanh")
found = numerical_gradient(network, X, T, journal=sys.argv[1], jobs=2)
np.save(sys.argv[2], found)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bits(tmp_path: Path) -> None:
    journal, result = tmp_path / "run.journal", tmp_path / "found.npy"
    command = [sys.executable, "-c", KILLED, str(journal), str(result)]
    network, X, T = problem("tanh")
    whole = numerical_gradient(network, X, T)
    for _ in range(4):
        started = subprocess.Popen(command)
        size, patience = journal.stat().st_size if journal.exists() else 0, time.monotonic() + 120
        while started.poll() is None and time.monotonic() < patience:
            if journal.exists() and journal.stat().st_size > size + 2000:
                started.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        started.wait()
    subprocess.run(command, check=True)
    assert np.load(result).tobytes() == whole.tobytes()
    with pytest.raises(InputError):
        Journal(journal, "another", 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_is_full_ends_no_check(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, options = WAYS[way]
    network, X, T = problem()
    whole = numerical_gradient(network, X, T, **options)
    sync, calls = Journal._sync, []

    def full(self: Journal) -> None:
        calls.append(1)
        if len(calls) > 2:  # the header and one chunk
            raise OSError(28, "No space left on device")
        sync(self)

    journal = tmp_path / "run.journal"
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_sync", full)
        found = numerical_gradient(network, X, T, journal=journal, jobs=1, **options)
    assert found.tobytes() == whole.tobytes()
    assert caplog.text.count("not recorded") == 1
    again = numerical_gradient(network, X, T, journal=journal, jobs=1, **options)
    assert again.tobytes() == whole.tobytes()


def test_what_is_no_regular_file_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    network, X, T = problem()
    whole = numerical_gradient(network, X, T)
    assert numerical_gradient(network, X, T, journal="/dev/null").tobytes() == whole.tobytes()
    assert "not recorded" in caplog.text
