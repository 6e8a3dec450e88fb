"""Chunks come back in order whoever did them, Ctrl-C keeps what is done, BLAS has one thread."""

import _thread
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from cloudpickle import register_pickle_by_value  # noqa: TID251 - it only sends, to our own workers
from threadpoolctl import threadpool_info

from fastcheck.errors import InputError
from fastcheck.execution.blas import one_blas_thread
from fastcheck.execution.journal import Journal
from fastcheck.execution.parallel import run
from fastcheck.settings import Settings

# Worker processes can't import the tests, which are no installed package: send what they define.
register_pickle_by_value(sys.modules[__name__])


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@dataclass
class Squares:
    """Chunk k is an array that holds k², and notes who made it."""

    count: int = 12
    seconds: float = 10.0
    worker_bytes: float = 0.0
    digest: str = "squares"
    pause: float = 0.0
    made_by: list[tuple[int, int, set[int]]] = field(default_factory=list)

    @property
    def chunks(self) -> range:
        return range(self.count)

    @property
    def weights(self) -> list[int]:
        return [k + 1 for k in self.chunks]

    def differences(self, chunk: int) -> Any:
        time.sleep(self.pause * (self.count - chunk))  # the first ones arrive last
        self.made_by.append((os.getpid(), threading.get_ident(), blas_threads()))
        return np.array([float(chunk) ** 2])

    def threads(self) -> set[int]:
        return {thread for _, thread, _ in self.made_by}


def values(results: list[Any]) -> list[float | None]:
    return [None if r is None else float(r[0]) for r in results]


EXPECTED = [float(k * k) for k in range(12)]


@pytest.mark.parametrize("jobs", [1, 2, 5, 40])
def test_results_are_in_order_for_any_number_of_workers(jobs: int) -> None:
    work = Squares(pause=0.001)
    assert values(run(work, Settings.of(jobs=jobs), "")) == EXPECTED
    assert len(work.made_by) == 12


def test_several_threads_take_part_and_each_has_one_blas_thread() -> None:
    work = Squares(pause=0.004)
    run(work, Settings.of(jobs=3), "")
    assert len(work.threads()) > 1
    assert threading.get_ident() not in work.threads()
    assert all(threads == {1} for _, _, threads in work.made_by)


@pytest.mark.parametrize(
    ("work", "jobs"),
    [(Squares(count=1), 4), (Squares(), 1), (Squares(seconds=0.001), 4)],
    ids=["one chunk", "one job", "little work"],
)
def test_small_work_stays_in_the_calling_thread(work: Squares, jobs: int) -> None:
    results = run(work, Settings.of(jobs=jobs), "")
    assert values(results) == EXPECTED[: work.count]
    assert work.threads() == {threading.get_ident()}
    assert all(threads == {1} for _, _, threads in work.made_by)  # the same bits as with workers


def test_memory_bounds_the_number_of_workers() -> None:
    alone = Squares(worker_bytes=6e8)
    run(alone, Settings.of(jobs=4, memory=1e9), "")
    assert alone.threads() == {threading.get_ident()}
    two = Squares(worker_bytes=4e8, pause=0.004)
    run(two, Settings.of(jobs=4, memory=1e9), "")
    assert len(two.threads()) == 2


def test_processes_give_the_same() -> None:
    class Elsewhere(Squares):
        def differences(self, chunk: int) -> Any:
            return np.array([float(chunk) ** 2, os.getpid(), *blas_threads()])

    results = run(Elsewhere(), Settings.of(jobs=2, backend="loky"), "")
    assert values(results) == EXPECTED
    assert os.getpid() not in {int(r[1]) for r in results if r is not None}
    assert {tuple(r[2:]) for r in results if r is not None} == {(1.0,)}


def test_a_worker_process_keeps_what_it_has_made() -> None:
    class Costly(Squares):
        def differences(self, chunk: int) -> Any:
            self.uses = getattr(self, "uses", 0) + 1
            return np.array([float(self.uses)])

    work = Costly(count=20)
    results = run(work, Settings.of(jobs=2, backend="loky"), "")
    assert max(float(r[0]) for r in results if r is not None) >= 10
    again = run(Costly(count=2), Settings.of(jobs=2, backend="loky"), "")  # but not for others
    assert {float(r[0]) for r in again if r is not None} <= {1.0, 2.0}


def test_the_ambient_backend_decides_with_context() -> None:
    work = Squares(pause=0.004)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert values(run(work, Settings.of(backend="context"), "")) == EXPECTED
    assert len(work.threads()) == 2
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):  # can't stream results
        assert values(run(Squares(), Settings.of(backend="context"), "")) == EXPECTED


@pytest.mark.parametrize(("jobs", "backend"), [(1, "threads"), (2, "threads"), (2, "loky")])
def test_an_error_in_a_chunk_comes_out(jobs: int, backend: str) -> None:
    class Broken(Squares):
        def differences(self, chunk: int) -> Any:
            raise ZeroDivisionError(f"chunk {chunk}")

    with pytest.raises(ZeroDivisionError, match="chunk"):
        run(Broken(), Settings.of(jobs=jobs, backend=backend), "")


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Python's own handler: a shell's background jobs are started to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_keeps_what_is_done(jobs: int) -> None:
    class Interrupted(Squares):
        def differences(self, chunk: int) -> Any:
            if chunk == 5:
                _thread.interrupt_main()
                time.sleep(0.05)
            return super().differences(chunk)

    before = blas_threads()
    results = values(run(Interrupted(count=400, pause=1e-5), Settings.of(jobs=jobs), ""))
    assert len(results) == 400
    # Another thread may be held up with a chunk that it began before.
    assert (5 if jobs == 1 else 1) <= 400 - results.count(None) < 300
    assert all(r is None or r == float(k * k) for k, r in enumerate(results))
    time.sleep(0.1)  # a chunk may still be under way
    assert blas_threads() == before


def test_ctrl_c_in_the_middle_of_a_result_closes_the_workers_quietly() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    results = run(Squares(count=50, pause=1e-4), Settings.of(jobs=2, progress=interrupt), "")
    assert 1 <= 50 - results.count(None) < 50


def test_progress_tells_a_callable_the_weights_done() -> None:
    told: list[tuple[int, int]] = []
    run(Squares(), Settings.of(jobs=2, progress=lambda *pair: told.append(pair)), "")
    assert len(told) == 12
    assert [total for _, total in told] == [78] * 12
    assert sorted({done for done, _ in told}) == [done for done, _ in told]
    assert told[-1] == (78, 78)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "progress", "patience", "shown"),
    [
        (True, True, 0.0, True),
        (False, True, 0.0, False),
        (True, False, 0.0, False),
        (True, True, 9.0, False),
    ],
    ids=["shown", "no terminal", "not wanted", "too quick"],
)
def test_the_bar_is_for_long_work_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, progress: bool, patience: float, shown: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("fastcheck.execution.progress.PROGRESS_DELAY_SECONDS", patience)
    run(Squares(pause=0.003), Settings.of(jobs=2, progress=progress), "a textbook")
    assert ("a textbook" in stream.getvalue()) is shown
    assert ("/s" in stream.getvalue()) is shown


def test_a_journal_saves_chunks_and_the_next_run_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"

    class Limited(Squares):
        def differences(self, chunk: int) -> Any:
            if chunk == 7:
                _thread.interrupt_main()
                time.sleep(0.02)
            return super().differences(chunk)

    first = values(run(Limited(), Settings.of(jobs=1, journal=path), ""))
    done = [k for k, r in enumerate(first) if r is not None]
    assert done[:7] == list(range(7))
    with Journal(path, "squares", 12) as journal:
        assert sorted(journal.finished) == done
    told: list[int] = []
    rest = Squares()
    settings = Settings.of(jobs=2, journal=path, progress=lambda d, t: told.append(d))
    assert values(run(rest, settings, "")) == EXPECTED
    assert len(rest.made_by) == 12 - len(done)
    assert told[0] == sum(k + 1 for k in done)
    third = Squares()
    assert values(run(third, settings, "")) == EXPECTED
    assert third.made_by == []


def test_a_journal_of_other_work_is_refused(tmp_path: Path) -> None:
    settings = Settings.of(jobs=1, journal=tmp_path / "run.journal")
    run(Squares(), settings, "")
    with pytest.raises(InputError, match="another problem"):
        run(Squares(digest="cubes"), settings, "")


def test_work_without_a_digest_has_no_journal(tmp_path: Path) -> None:
    work = Squares()
    work.digest = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="keeps none"):
        run(work, Settings.of(journal=tmp_path / "x"), "")


def test_blas_threads_come_back_when_the_last_one_leaves() -> None:
    run(Squares(count=1), Settings.of(), "")  # all BLAS libraries are loaded
    before = blas_threads()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        inside.wait()
    assert blas_threads() == {1}  # the other one is still inside
    leave.set()
    thread.join()
    assert blas_threads() == before
