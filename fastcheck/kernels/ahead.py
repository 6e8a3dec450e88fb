"""Where nothing is compiled yet: the largest kernel in a process of its own, others meanwhile.

numba compiles one function at a time in a process. Without a second process nothing is lost but
time: the kernel is compiled at its first call.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np

from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.probes import linear_probes, probe_state
from fastcheck.kernels.textbook import textbook_cost, textbook_differences, work_shape

__all__ = ["compile_ahead", "compile_probes"]

_SIZES, _NUMBERS, _TABLE, _PLACES = [1, 1], np.zeros(1), np.zeros((1, 1)), np.zeros(2, np.int64)
_NONE, _FIRST = np.zeros(0), np.zeros(1, np.int64)
_NETWORK = NetworkArrays(
    np.ones(2, np.int64), _FIRST, _FIRST, _FIRST, _NUMBERS, _NONE, _FIRST - 1,
    cancels=False, loss_parameter=0.0, data_scale=1.0, penalty_scale=0.0, corners=_NONE,
)  # fmt: skip


def compile_probes() -> None:
    """Compile `linear_probes`, or read it from disk: a call for no sample."""
    linear_probes(
        _NETWORK, _NUMBERS, (_NUMBERS, _NUMBERS, _TABLE), (_NONE, _PLACES), _NUMBERS,
        _NUMBERS, (0, 0), _TABLE, np.zeros(1, bool), _TABLE, _TABLE, _TABLE,
        probe_state(_SIZES, np.zeros((2, 4)), np.empty((3, 1))), _PLACES, 0,
    )  # fmt: skip


def compile_textbook() -> None:
    """The same with the textbook's kernels: calls for no sample and no component."""
    work, calls, targets = np.empty(work_shape(_SIZES)), (_PLACES, 0), np.zeros((0, 1))
    textbook_cost(_NETWORK, _NUMBERS, _NUMBERS, targets, work, calls)
    textbook_differences(_NETWORK, _NUMBERS, _NUMBERS, targets, work, _FIRST[:0], 1.0, _NONE, calls)


def compile_ahead() -> None:
    """Start to compile `linear_probes` in another process, where it helps; it is waited for.

    What a check needs next is compiled here meanwhile.
    """
    kernel: Any = linear_probes
    cache: Any = kernel._cache
    if kernel.signatures or not hasattr(cache, "pending") or cache.is_kept() or not _may_start():
        return
    code = "from fastcheck.kernels.ahead import compile_probes; compile_probes()"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    nowhere = subprocess.DEVNULL
    try:
        cache.pending = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    except OSError:  # no process to be had
        return
    compile_textbook()


def _may_start() -> bool:
    """Whether this is a Python that can be started again, and a processor is free for it."""
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return bool(sys.executable) and not getattr(sys, "frozen", False) and len(cores) > 1
