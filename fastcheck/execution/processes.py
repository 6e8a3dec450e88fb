"""Chunks in other processes or on a cluster, through joblib."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from fastcheck.execution.blas import one_blas_thread
from fastcheck.execution.clusters import CLUSTERS, cluster
from fastcheck.execution.shipping import opened, shipped
from fastcheck.settings import Settings

if TYPE_CHECKING:
    from fastcheck.execution.parallel import Chunked, Finished

__all__ = ["in_processes"]

# What joblib's backends raise where a process that held work or data has died: loky, Dask, Ray.
LOST_WORKERS = ("TerminatedWorkerError", "FutureCancelledError", "KilledWorker", "RayActorError")
MOST_ATTEMPTS = 4  # after so many runs with workers that died, something is wrong with the work


def in_processes(
    work: Chunked, todo: list[int], settings: Settings, workers: int
) -> Iterator[Finished]:
    """Yield the number and result of each chunk as soon as it is done, by the backend chosen."""
    ambient = settings.backend in ("context", *CLUSTERS)
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
