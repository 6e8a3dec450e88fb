"""BLAS held to one thread while workers run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController

__all__ = ["limit_openmp_blas", "one_blas_thread"]


@cache
def _controller() -> ThreadpoolController:
    """Return the handle on all BLAS libraries of the process, those of the kernels included."""
    import scipy.linalg.cython_blas  # noqa: F401 - what is not loaded yet can't be limited

    return ThreadpoolController()


def limit_openmp_blas() -> None:
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
