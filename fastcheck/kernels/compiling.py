"""One place owns every compile option, and keeps kernels on disk without ever running a stale one.

numba's own cache looks at the date of the file that holds a function, not at the functions it calls
(numba #1833). Here the folder is named after a digest of all kernel sources and of everything that
shapes the machine code, so that a change anywhere is a new folder.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import platform
import secrets
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs
from numba.core.bytecode import FunctionIdentity

from fastcheck.kernels.disk_cache import KernelCache, say_not_kept

__all__ = [
    "CACHE_FOLDER",
    "array_kernel",
    "c_function",
    "compiled_before",
    "inlined_kernel",
    "part_kernel",
    "scalar_kernel",
]

ccallback: Any = importlib.import_module("numba.core.ccallback")  # typed in recent releases only
sigutils: Any = importlib.import_module("numba.core.sigutils")

F = TypeVar("F", bound=Callable[..., Any])

# "contract" fuses a·b + c into one rounding; it changes no NaN, infinity or order of sums.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
KERNEL_OPTIONS: dict[str, Any] = OPTIONS | {"no_cfunc_wrapper": True}  # nothing calls them from C
PART_OPTIONS: dict[str, Any] = KERNEL_OPTIONS | {"no_cpython_wrapper": True}


def _sources() -> bytes:
    """Return the names and the text of all kernel sources, as they are now."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return b"".join(
        source.name.encode() + b"\0" + source.read_bytes() + b"\0" for source in sources
    )


@cache
def _source_digest() -> str:
    """Return a digest of all kernel sources and of the compilers' versions."""
    digest = hashlib.sha256(_sources())
    for package in ("numba", "llvmlite", "numpy", "scipy"):
        digest.update(f"{package} {version(package)} ".encode())
    digest.update(f"{platform.python_version()} {platform.machine()}".encode())
    return digest.hexdigest()[:20]


SOURCES_AT_START = hashlib.sha256(_sources()).digest()
CACHE_FOLDER = Path(platformdirs.user_cache_dir("fastcheck", appauthor=False)) / _source_digest()


def _count_from_anywhere() -> None:
    """Let numba number the functions of this process from a random place on.

    It tells functions of one name apart by a count that starts at 1 in every process. Kernels that
    two processes left on disk then hold different functions under one symbol, and the linker takes
    the first of them for both (numba #10486).
    """
    counted: Any = FunctionIdentity
    counted._unique_ids = itertools.count(secrets.randbits(62))


# Where a release of numba counts in another way, nothing is kept on disk.
SAFE_TO_KEEP = isinstance(getattr(FunctionIdentity, "_unique_ids", None), itertools.count)
if SAFE_TO_KEEP:
    _count_from_anywhere()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_count_from_anywhere)


def _kept(function: Callable[..., Any]) -> KernelCache | None:
    """Return the cache of a function; None where nothing of it may be kept on disk.

    Sources that changed while they were being imported belong into no folder.
    """
    if not SAFE_TO_KEEP or not CACHE_FOLDER.is_absolute():
        say_not_kept(CACHE_FOLDER, "this release of numba, or no home to keep them in")
        return None
    try:
        if hashlib.sha256(_sources()).digest() != SOURCES_AT_START:
            return None
        return KernelCache(function, CACHE_FOLDER)
    except OSError as error:  # the source can't be read
        say_not_kept(CACHE_FOLDER, error.strerror)
        return None


def compiled_before() -> bool:
    """Return whether an earlier process has left compiled kernels of just these sources."""
    return any(CACHE_FOLDER.rglob("*.nbc"))


def scalar_kernel(function: F) -> F:
    """Compile a function of scalars, to be inlined into array kernels."""
    return numba.njit(**KERNEL_OPTIONS)(function)  # type: ignore[no-any-return]


def part_kernel(function: F) -> F:
    """Compile a function that only other kernels call: no way in from Python, so it is quicker."""
    return numba.njit(**PART_OPTIONS)(function)  # type: ignore[no-any-return]


def inlined_kernel(function: F) -> F:
    """Make a function part of the one kernel that calls it, to be compiled once."""
    return numba.njit(inline="always", **OPTIONS)(function)  # type: ignore[no-any-return]


def array_kernel(function: F) -> F:
    """Compile a function of arrays; its machine code is kept on disk."""
    dispatcher = numba.njit(**KERNEL_OPTIONS)(function)
    found = _kept(dispatcher.py_func)
    if found is not None:
        dispatcher._cache = found
    return dispatcher  # type: ignore[no-any-return]


def c_function(signature: str, function: Callable[..., Any], *, keep: bool) -> Any:
    """Compile a function with C's calling convention; `address` is where this process has it.

    Parameters
    ----------
    signature : str
    function : callable
    keep : bool
        Whether its machine code is kept on disk.
    """
    callback = ccallback.CFunc(function, sigutils.normalize_signature(signature), {}, OPTIONS)
    found = _kept(function) if keep else None
    if found is not None:
        callback._cache = found
    callback.compile()
    return callback
