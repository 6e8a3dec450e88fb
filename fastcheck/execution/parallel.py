"""Chunks through joblib: workers, thread limits, progress, Ctrl-C; knows nothing of gradients."""

from __future__ import annotations

import itertools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Protocol

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from threadpoolctl import OpenBLASController, ThreadpoolController

from fastcheck.errors import InputError
from fastcheck.execution.clusters import CLUSTERS, cluster
from fastcheck.execution.journal import Journal
from fastcheck.execution.shipping import opened, shipped
from fastcheck.settings import Settings

__all__ = ["Chunked", "one_blas_thread", "run"]

Finished = tuple[int, Any]  # the number of a chunk and its result

# joblib looks for finished work every 10 ms; what takes less than a few of those runs at once.
MIN_PARALLEL_SECONDS = 0.03
PROGRESS_DELAY_SECONDS = 1.0  # before a progress bar appears
REFRESHES_A_SECOND = 10
# What joblib's backends raise where a process that held work or data has died: loky, Dask, Ray.
LOST_WORKERS = ("TerminatedWorkerError", "FutureCancelledError", "KilledWorker", "RayActorError")
MOST_ATTEMPTS = 4  # after so many runs with workers that died, something is wrong with the work


class Chunked(Protocol):
    """Work in chunks. Three attributes are optional.

    `seconds` (float) estimates the whole work on one core: little work runs at once, without
    workers. `worker_bytes` (float) is what one worker allocates: there are no more workers than
    `Settings.memory` has room for. `digest` (str) stands for all that the results depend on; only
    with it can there be a journal.
    """

    @property
    def chunks(self) -> Sequence[Any]:
        """What there is to do."""
        ...

    @property
    def weights(self) -> Sequence[int]:
        """The work in each chunk, in units of progress."""
        ...

    def differences(self, chunk: Any) -> Any:
        """Do one chunk."""
        ...


def run(work: Chunked, settings: Settings, title: str) -> list[Any | None]:
    """Do all chunks and return their results in order, whoever did them and whenever.

    Parameters
    ----------
    work : Chunked
    settings : Settings
        `jobs`, `backend`, `progress`, `journal` and `memory` are used.
    title : str
        What the progress bar says.

    Returns
    -------
    list
        One result a chunk; None for those not done when Ctrl-C was pressed.

    Raises
    ------
    InputError
        If the journal is another problem's, or the work has no digest to keep a journal by.
    """
    with ExitStack() as stack:
        results: list[Any | None] = [None] * len(work.chunks)
        journal = _journal(work, settings)
        if journal is not None:
            stack.enter_context(journal)
            for number, result in journal.finished.items():
                results[number] = result
        todo = [number for number, result in enumerate(results) if result is None]
        weights = work.weights
        total = sum(int(w) for w in weights)
        progress = _Progress(settings.progress, title, total)
        stack.enter_context(progress)
        stack.enter_context(one_blas_thread())
        progress.start_at(total - sum(int(weights[number]) for number in todo))
        try:
            with _closing(_finished_chunks(work, todo, settings)) as finished:
                for number, result in finished:
                    results[number] = result
                    if journal is not None:
                        journal.record(number, result)
                    progress.advance(int(weights[number]))
        except KeyboardInterrupt:
            pass  # the caller sees by the Nones that chunks are missing
        return results


def _journal(work: Chunked, settings: Settings) -> Journal | None:
    """Open the journal that was asked for."""
    if settings.journal is None:
        return None
    digest = getattr(work, "digest", None)
    if digest is None:
        raise InputError(
            f"journal={str(settings.journal)!r} for work that keeps none",
            "a method that takes long enough for one",
            "Leave journal out, or choose method='textbook'.",
        )
    return Journal(settings.journal, digest, len(work.chunks))


def _finished_chunks(work: Chunked, todo: list[int], settings: Settings) -> Iterator[Finished]:
    """Yield each chunk's number and result as soon as it is done."""
    workers = min(settings.workers, _room_for(work, settings))
    share = len(todo) / max(len(work.chunks), 1)
    seconds = getattr(work, "seconds", None)
    brief = seconds is not None and seconds * share < MIN_PARALLEL_SECONDS
    ambient = settings.backend in ("context", *CLUSTERS)
    if len(todo) <= 1 or brief or (workers == 1 and not ambient):
        chunks = work.chunks
        for number in todo:
            yield number, work.differences(chunks[number])
    elif settings.backend == "threads":
        yield from _by_threads(work, todo, min(workers, len(todo)))
    else:
        options = {"n_jobs": workers, "backend": "loky"}
        with cluster(settings):
            yield from _by_processes(work, todo, _ambient(settings) if ambient else options)


def _ambient(settings: Settings) -> dict[str, Any]:
    """Return the options for the backend that is active: as many workers as it has by itself."""
    backend, jobs = get_active_backend()
    if settings.jobs is not None:
        return {"n_jobs": settings.jobs}
    distributed = type(backend).__name__ in ("DaskDistributedBackend", "RayBackend")
    return {"n_jobs": -1 if distributed and jobs in (None, 1) else jobs}


def _by_processes(work: Chunked, todo: list[int], options: dict[str, Any]) -> Iterator[Finished]:
    """Do chunks in other processes; what a process that died had not finished is done again."""
    token = f"{os.getpid()} {time.time_ns()} {next(_TOKENS)}"
    sent = shipped(work, options.get("backend") or get_active_backend()[0])
    left = dict.fromkeys(todo)
    for attempt in itertools.count(1):
        tasks = (delayed(_elsewhere)(token, sent, number) for number in list(left))
        try:
            for number, result in _in_order_of_arrival({**options, "mmap_mode": "c"}, tasks):
                del left[number]
                yield number, result
        except BaseException as error:  # Dask's is no Exception
            if attempt == MOST_ATTEMPTS or type(error).__name__ not in LOST_WORKERS:
                raise
        else:
            return


def _room_for(work: Chunked, settings: Settings) -> int:
    """Return how many workers the memory has room for, at least one."""
    each = float(getattr(work, "worker_bytes", 0.0))
    return max(1, int(settings.memory // each)) if each > 0 else settings.workers


def _by_threads(work: Chunked, todo: list[int], workers: int) -> Iterator[Finished]:
    """Do chunks in threads. What is done when Ctrl-C comes, and joblib has not seen yet, counts."""
    arrived: deque[Finished] = deque()
    tasks = (delayed(_here)(work, number, arrived) for number in todo)
    try:
        for _ in _in_order_of_arrival({"n_jobs": workers, "backend": "threading"}, tasks):
            yield arrived.popleft()
    except KeyboardInterrupt:
        while arrived:
            yield arrived.popleft()


def _in_order_of_arrival(options: dict[str, Any], tasks: Iterator[Any]) -> Iterator[Any]:
    """Run tasks through joblib; results come as they arrive wherever the backend can do that."""
    backend = options.get("backend") or get_active_backend()[0]
    streams = getattr(backend, "supports_return_generator", True)
    parallel = Parallel(
        **options, batch_size=1, return_as="generator_unordered" if streams else "list"
    )
    finished = parallel(tasks)
    try:
        for done in finished:  # noqa: UP028 - `yield from` would close `finished`, with a warning
            yield done
    finally:
        if hasattr(finished, "close"):
            with warnings.catch_warnings():  # joblib warns of work it drops: that is meant here
                warnings.simplefilter("ignore")
                finished.close()


def _here(work: Chunked, number: int, arrived: deque[Finished]) -> None:
    """Do a chunk in a thread of this process, where `one_blas_thread` holds already."""
    _limit_openmp_blas()
    arrived.append((number, work.differences(work.chunks[number])))


_TOKENS = itertools.count()
_CACHED_WORK: dict[str, Chunked] = {}


def _elsewhere(token: str, sent: Any, number: int) -> Finished:
    """Do a chunk in another process.

    A worker keeps the work, and with it all that was made in there: buffers, and functions of the
    user's that have been compiled.
    """
    if token not in _CACHED_WORK:
        _CACHED_WORK.clear()
        _CACHED_WORK[token] = opened(sent)
    kept = _CACHED_WORK[token]
    with one_blas_thread():
        return number, kept.differences(kept.chunks[number])


@contextmanager
def _closing(finished: Iterator[Finished]) -> Iterator[Iterator[Finished]]:
    """Close a generator at the end, so that workers stop when and not until this block does."""
    try:
        yield finished
    finally:
        close = getattr(finished, "close", None)
        if close is not None:
            close()


@cache
def _controller() -> ThreadpoolController:
    """Return the handle on all BLAS libraries of the process, those of the kernels included."""
    import scipy.linalg.cython_blas  # noqa: F401 - what is not loaded yet can't be limited

    return ThreadpoolController()


def _limit_openmp_blas() -> None:
    """Limit a BLAS that counts threads for each calling thread; workers end, so it is for good."""
    if any(getattr(c, "threading_layer", "") == "openmp" for c in _controller().lib_controllers):
        _controller().select(threading_layer="openmp").limit(limits=1)


class _Hold:
    """Who holds BLAS to one thread right now. The limit is the whole process's."""

    lock = threading.Lock()
    count = 0
    limiter: Any = None
    owner = 0

    @classmethod
    def begin(cls) -> None:
        """Set the limit."""
        cls.owner = threading.get_ident()
        cls.limiter = _controller().limit(limits=1, user_api="blas")

    @classmethod
    def end(cls) -> None:
        """Bring back the limit that was there before."""
        # threadpoolctl from 3.7 on listens only to the thread that has set a limit first, which
        # need not be the one that leaves last.
        clear = getattr(OpenBLASController, "clear_controlling_thread", lambda force: None)
        clear(force=cls.owner != threading.get_ident())
        cls.limiter.restore_original_limits()
        clear(force=False)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread in this process while the block runs.

    Several threads may be inside at once; the limit that was there before comes back when the last
    one leaves.
    """
    with _Hold.lock:
        if _Hold.count == 0:
            _Hold.begin()
        _Hold.count += 1
    try:
        yield
    finally:
        with _Hold.lock:
            _Hold.count -= 1
            if _Hold.count == 0:
                _Hold.end()


class _Progress:
    """How far a run has come: told to a callable, or shown on stderr if it is a terminal."""

    def __init__(self, wanted: Any, title: str, total: int) -> None:
        self._tell = wanted if callable(wanted) else None
        self._shown = wanted is True
        self._title, self._total = title, total
        self._done = self._restored = 0
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def start_at(self, done: int) -> None:
        """Count what earlier runs have done."""
        self._done = self._restored = done
        if done and self._tell is not None:
            self._tell(self._done, self._total)

    def advance(self, weight: int) -> None:
        """Count one more chunk."""
        self._done += weight
        if self._tell is not None:
            self._tell(self._done, self._total)
        elapsed = time.monotonic() - self._began
        if self._shown and self._bar is None and elapsed > PROGRESS_DELAY_SECONDS:
            self._show()
        if self._bar is not None:
            rate = (self._done - self._restored) / elapsed
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s")

    def _show(self) -> None:
        """Put the bar on stderr; nothing where that is a file or a pipe."""
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=REFRESHES_A_SECOND,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            self._title, total=self._total, completed=self._restored, rate=""
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
