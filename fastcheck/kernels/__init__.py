"""All numba code: activations, losses, the forward pass, difference propagation. Arrays only."""

from __future__ import annotations

import os

from fastcheck.errors import InputError

__all__: list[str] = []


def _check_environment() -> None:
    """Refuse variables with which numba does not start, or does not compile."""
    threads = os.environ.get("NUMBA_NUM_THREADS", "1")
    if not threads.isdecimal() or int(threads) == 0:
        raise InputError(
            f"NUMBA_NUM_THREADS={threads}", "a whole number, 1 or more", "Set it, or unset it."
        )
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        raise InputError(
            "NUMBA_DISABLE_JIT is set",
            "a compiler: fastcheck's kernels are not run as plain Python",
            "Unset it.",
        )


_check_environment()
