"""Chunks of work in threads, or in processes through joblib; knows nothing of gradients.

joblib is imported once processes are asked for, for a quick start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from fastcheck.errors import InputError
from fastcheck.execution.blas import limit_openmp_blas, one_blas_thread
from fastcheck.execution.clusters import CLUSTERS
from fastcheck.execution.journal import Journal
from fastcheck.execution.progress import Progress
from fastcheck.settings import Settings

__all__ = ["Chunked", "run"]

Finished = tuple[int, Any]  # the number of a chunk and its result

# What takes less runs at once: workers would hardly begin.
MIN_PARALLEL_SECONDS = 0.03


class Chunked(Protocol):
    """Work in chunks. Some attributes are optional.

    `seconds` (float) estimates the whole work on one core: little work runs at once, without
    workers. `worker_bytes` (float) is what one worker allocates: there are no more workers than
    `Settings.memory` has room for. `digest` (str) stands for all that the results depend on; only
    with it can there be a journal. `collect(number, result)` is called as soon as a chunk is done,
    in this process, and returns what is kept of the result. `packed(result)` and
    `unpacked(arrays)` turn one that is no array into a dict of arrays, for a journal, and back.
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
        collect = getattr(work, "collect", _result)
        journal = _journal(work, settings)
        if journal is not None:
            stack.enter_context(journal)
            unpacked = getattr(work, "unpacked", _same)
            for number, result in sorted(journal.finished.items()):
                results[number] = collect(number, unpacked(result))
            journal.finished.clear()
        todo = [number for number, result in enumerate(results) if result is None]
        weights, packed = work.weights, getattr(work, "packed", _same)
        total = sum(int(w) for w in weights)
        progress = Progress(settings.progress, title, total)
        stack.enter_context(progress)
        stack.enter_context(one_blas_thread())
        progress.start_at(total - sum(int(weights[number]) for number in todo))
        try:
            with _closing(_finished_chunks(work, todo, settings)) as finished:
                for number, result in finished:
                    if journal is not None and not _recorded(journal, number, packed(result)):
                        journal = None
                    results[number] = collect(number, result)
                    progress.advance(int(weights[number]))
        except KeyboardInterrupt:
            pass  # the caller sees by the Nones that chunks are missing
        return results


def _same(result: Any) -> Any:
    return result


def _result(_: int, result: Any) -> Any:
    return result


def _journal(work: Chunked, settings: Settings) -> Journal | None:
    """Open the journal that was asked for."""
    if settings.journal is None:
        return None
    path = Path(settings.journal)
    if path.exists() and not path.is_file():  # a device, a pipe
        _say_not_recorded(f"{str(path)!r} is no regular file")
        return None
    digest = getattr(work, "digest", None)
    if digest is None:
        raise InputError(
            f"journal={str(settings.journal)!r} for work that keeps none",
            "a method that takes long enough for one",
            "Leave journal out.",
        )
    return Journal(settings.journal, digest, len(work.chunks))


def _recorded(journal: Journal, number: int, result: Any) -> bool:
    """Keep a result; where the disk has no room left, say so: the check goes on without."""
    try:
        journal.record(number, result)
    except InputError as error:
        _say_not_recorded(error.given)
        return False
    return True


def _say_not_recorded(reason: str) -> None:
    logging.getLogger("fastcheck").warning(
        "fastcheck: what is done from here on is not recorded: %s.", reason
    )


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
        from fastcheck.execution.processes import in_processes

        yield from in_processes(work, todo, settings, workers)


def _room_for(work: Chunked, settings: Settings) -> int:
    """Return how many workers the memory has room for, at least one."""
    each = float(getattr(work, "worker_bytes", 0.0))
    return max(1, int(settings.memory // each)) if each > 0 else settings.workers


def _by_threads(work: Chunked, todo: list[int], workers: int) -> Iterator[Finished]:
    """Do chunks in threads of this process, each result as soon as it is there.

    Not by joblib, which looks for finished work every 10 ms. After Ctrl-C, what is done counts.
    """
    pool = ThreadPoolExecutor(workers)
    futures = {pool.submit(_here, work, number): number for number in todo}
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
        for future, number in futures.items():
            if not future.cancelled():
                yield number, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _here(work: Chunked, number: int) -> Any:
    """Do a chunk in a thread of this process, where `one_blas_thread` holds already."""
    limit_openmp_blas()
    return work.differences(work.chunks[number])


@contextmanager
def _closing(finished: Iterator[Finished]) -> Iterator[Iterator[Finished]]:
    """Close a generator at the end, so that workers stop when and not until this block does."""
    try:
        yield finished
    finally:
        close = getattr(finished, "close", None)
        if close is not None:
            close()
