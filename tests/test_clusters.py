"""Dask and Ray clusters of separate processes on this machine, and workers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, numerical_gradient
from fastcheck.errors import InputError
from fastcheck.execution import parallel, shipping
from fastcheck.settings import Settings

PATIENCE = 120  # seconds for anything to happen


class Slow:
    """Chunks that take a while, beside an array that is large for a task."""

    def __init__(self, seconds: float, folder: Path | None = None) -> None:
        self.chunks = list(range(16))
        self.weights = [1] * 16
        self.data = np.arange(400_000.0)
        self.pause, self.folder = seconds, folder

    def differences(self, chunk: int) -> float:
        if self.folder is not None:
            (self.folder / f"{os.getpid()}").touch()
        time.sleep(self.pause)
        return float(self.data[chunk]) * 2.0


RIGHT = [2.0 * number for number in range(16)]


def problem() -> tuple[Network, Any, Any]:
    rng = np.random.default_rng(0)
    W = [rng.normal(size=(20, 10)) / 4, rng.normal(size=(5, 20)) / 5]
    network = Network.from_arrays(W, activations="tanh", loss="softmax_cross_entropy", l2=0.1)
    return network, rng.normal(size=(40, 10)), np.eye(5)[rng.integers(0, 5, 40)]


def differences(**options: Any) -> Any:
    return numerical_gradient(*problem(), method="textbook", chunk_size=40, **options)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=PATIENCE)


def waited_for(process: subprocess.Popen[str], words: str) -> str:
    """Return the first line of a process's log with some words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"{process.args!r} ended without {words!r}")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Return the address of a Dask scheduler with two workers, each a process."""
    pytest.importorskip("distributed")
    processes = [start("distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0",
                       "--no-dashboard")]  # fmt: skip
    try:
        address = waited_for(processes[0], "Scheduler at").split()[-1]
        for _ in range(2):
            processes.append(start("distributed.cli.dask_worker", address, "--nthreads=1",
                                   "--no-nanny", "--no-dashboard"))  # fmt: skip
        for worker in processes[1:]:
            waited_for(worker, "Registered to")
        yield address
    finally:
        for process in processes:
            end(process)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers do even what takes milliseconds."""
    monkeypatch.setattr(parallel, "MIN_PARALLEL_SECONDS", 0.0)


def test_work_comes_out_as_it_went_in() -> None:
    rng = np.random.default_rng(0)
    scale = rng.normal()
    work: dict[str, Any] = {
        "arrays": [rng.normal(size=shape) for shape in ((3, 5), (), (0, 2), (7,))],
        "turned": np.asfortranarray(rng.normal(size=(4, 3))),
        "function": lambda x: scale * x,
        "text": "θ",
    }
    blob = shipping.packed(work)
    blob.setflags(write=False)
    back = shipping.unpacked(blob)
    for one, other in zip(back["arrays"], work["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.flags.writeable
        assert one.flags.aligned
    np.testing.assert_array_equal(back["turned"], work["turned"])
    assert (back["function"](2.0), back["text"]) == (2.0 * scale, "θ")


@pytest.mark.usefixtures("at_once")
def test_a_dask_cluster_gives_the_same_bits(scheduler: str) -> None:
    alone = differences(jobs=1)
    there = differences(backend="dask", scheduler=scheduler)
    np.testing.assert_array_equal(there, alone)


def test_work_travels_once_however_many_chunks(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    whole = shipping.packed

    def counted(work: Any) -> Any:
        sent.append(work)
        return whole(work)

    monkeypatch.setattr(shipping, "packed", counted)
    work = Slow(0.0)
    before = loopback_bytes()
    assert parallel.run(work, Settings(backend="dask", scheduler=scheduler), "") == RIGHT
    assert loopback_bytes() - before < 8 * work.data.nbytes  # in each of 16 tasks it would be 16
    assert parallel.run(work, Settings(backend="loky", jobs=2), "") == RIGHT
    assert len(sent) == 2


def loopback_bytes() -> int:
    """Return what has been sent over the loopback device."""
    line = next(s for s in Path("/proc/net/dev").read_text().splitlines() if "lo:" in s)
    return int(line.split(":")[1].split()[8])


def killed(folder: Path, ours: set[int]) -> None:
    """Kill the first process that has begun a chunk."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        there = {int(file.name) for file in folder.iterdir()} - ours
        if there:
            os.kill(min(there), signal.SIGKILL)
            return
        time.sleep(0.01)


def test_a_killed_process_costs_its_chunks_only(tmp_path: Path) -> None:
    from threading import Thread

    thread = Thread(target=killed, args=(tmp_path, {os.getpid()}))
    thread.start()
    results = parallel.run(Slow(0.05, tmp_path), Settings(backend="loky", jobs=2), "")
    thread.join(PATIENCE)
    assert results == RIGHT
    assert len(list(tmp_path.iterdir())) > 2  # another process took its place


def test_a_dask_worker_that_is_killed_costs_its_chunks_only(scheduler: str, tmp_path: Path) -> None:
    from threading import Thread

    more = start("distributed.cli.dask_worker", scheduler, "--nthreads=1", "--no-nanny",
                 "--no-dashboard")  # fmt: skip
    try:
        waited_for(more, "Registered to")

        def kill() -> None:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until and not (tmp_path / str(more.pid)).exists():
                time.sleep(0.01)
            more.kill()

        thread = Thread(target=kill)
        thread.start()
        settings = Settings(backend="dask", scheduler=scheduler)
        assert parallel.run(Slow(0.1, tmp_path), settings, "") == RIGHT
        thread.join(PATIENCE)
        assert more.poll() is not None
    finally:
        end(more)


@pytest.mark.slow
@pytest.mark.usefixtures("at_once")
def test_a_ray_cluster_gives_the_same_bits() -> None:
    pytest.importorskip("ray")
    np.testing.assert_array_equal(differences(backend="ray"), differences(jobs=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "dask", "scheduler": "tcp://127.0.0.1:9"}, "no Dask scheduler at tcp://127"),
        ({"backend": "dask"}, "backend='dask' without a cluster"),
        ({"scheduler": "tcp://127.0.0.1:9"}, "scheduler='tcp://127.0.0.1:9' with backend='threads"),
        ({"backend": "dask", "ray_address": "auto"}, "ray_address='auto' with backend='dask'"),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_a_cluster_that_is_not_there_is_named(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("fastcheck.execution.clusters.CONNECT_SECONDS", 1)
    with pytest.raises(InputError) as caught:
        differences(**options)
    assert words in str(caught.value)
