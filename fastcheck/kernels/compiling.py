"""One place owns every compile option, and keeps kernels on disk without ever running a stale one.

numba's own cache looks at the date of the file that holds a function, not at the functions it calls
(numba #1833). Here the folder is named after a digest of all kernel sources and of everything that
shapes the machine code, so that a change anywhere is a new folder.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs

__all__ = [
    "CACHE_FOLDER",
    "array_kernel",
    "compiled_before",
    "inlined_kernel",
    "part_kernel",
    "pointer_kernel",
    "scalar_kernel",
]

F = TypeVar("F", bound=Callable[..., Any])

# "contract" fuses a·b + c into one rounding; it changes no NaN, infinity or order of sums.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


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


@contextmanager
def _our_folder() -> Iterator[None]:
    """Let numba keep what is compiled inside in our folder; where that fails, nowhere.

    Sources that changed while they were being imported belong into no folder.
    """
    if hashlib.sha256(_sources()).digest() != SOURCES_AT_START:
        raise RuntimeError("kernel sources changed while they were being imported")
    config: Any = numba.config  # its attributes are made when it is imported
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        CACHE_FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    finally:
        config.CACHE_DIR = before


def compiled_before() -> bool:
    """Return whether an earlier process has left compiled kernels of just these sources."""
    return any(CACHE_FOLDER.rglob("*.nbc"))


def scalar_kernel(function: F) -> F:
    """Compile a function of scalars, to be inlined into array kernels."""
    return numba.njit(**OPTIONS)(function)  # type: ignore[no-any-return]


def part_kernel(function: F) -> F:
    """Compile a function that only other kernels call: no way in from Python, so it is quicker."""
    options = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)  # type: ignore[no-any-return]


def inlined_kernel(function: F) -> F:
    """Make a function part of the one kernel that calls it, to be compiled once."""
    return numba.njit(inline="always", **OPTIONS)(function)  # type: ignore[no-any-return]


def array_kernel(function: F) -> F:
    """Compile a function of arrays; its machine code is kept on disk."""
    dispatcher = numba.njit(**OPTIONS)(function)
    # OSError, RuntimeError: a read-only home, so compile anew in every process. AttributeError:
    # numba is switched off for debugging, and this is the plain function.
    with suppress(OSError, RuntimeError, AttributeError), _our_folder():
        dispatcher.enable_caching()
    return dispatcher  # type: ignore[no-any-return]


def pointer_kernel(signature: str) -> Callable[[F], Any]:
    """Compile a scalar function that other kernels take as an argument; kept on disk too."""

    def compiled(function: F) -> Any:
        with suppress(OSError, RuntimeError), _our_folder():
            return numba.cfunc(signature, cache=True)(function)
        return numba.cfunc(signature)(function)

    return compiled
