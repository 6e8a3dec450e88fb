"""numba's cache of compiled functions, with entries that are verified when they are read.

numba unpickles whatever its files hold: one flipped bit ends in any exception, KeyboardInterrupt
among them, or in other machine code. Here an entry that is not byte for byte what was written
counts as absent, so that its kernel is compiled again and the entry replaced. Where nothing can be
written, kernels stay in memory.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import pickle  # noqa: TID251  # of our own entries, once their digest is right
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["KernelCache", "say_not_kept"]

caching: Any = importlib.import_module("numba.core.caching")  # typed in recent releases only
runtime: Any = importlib.import_module("numba.core.runtime")
MAGIC = b"fastcheck kernel 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size
LONGEST_WAIT = 300.0  # seconds for a kernel that another process compiles
listeners: list[Callable[[str], None]] = []  # told the name of each function that is compiled
_said: set[str] = set()


def say_not_kept(folder: Path, reason: object) -> None:
    """Say, once in a process, that compiled kernels are not kept on disk."""
    if not _said:
        _said.add(str(folder))
        logging.getLogger("fastcheck").warning(
            "fastcheck: compiled kernels can't be kept in %s (%s); they are compiled again in each "
            "process.", folder, reason,
        )  # fmt: skip


class _Locator:
    """Where the entries of a function lie: in a folder of its file's, whether it exists or not."""

    def __init__(self, function: Callable[..., Any], root: Path) -> None:
        self._py_file = function.__code__.co_filename
        source = Path(self._py_file).resolve()
        place = hashlib.sha256(str(source.parent).encode("utf-8", "surrogateescape")).hexdigest()
        self._folder = root / f"{source.parent.name}_{place[:16]}"
        self._line = function.__code__.co_firstlineno
        status = source.stat()
        self._stamp = status.st_mtime, status.st_size

    def ensure_cache_path(self) -> None:
        """Make the folder and try to write to it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self._folder).close()

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self._folder)

    def get_source_stamp(self) -> tuple[float, int]:
        """Return the date and size of the file."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """Return the line, which tells functions of one name apart."""
        return str(self._line)


class _CompiledKernels(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """How a compiled function is written down; numba's own, but for where."""

    def __init__(self, function: Callable[..., Any], root: Path) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, root)
        module = Path(function.__code__.co_filename).stem
        name = f"{module}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _VerifiedFiles(caching.IndexDataCacheFile):  # type: ignore[misc]
    """The index of a function and its entries, each behind a digest of what follows.

    An entry names its function and its key: a file that was put in another's place is no entry.
    """

    def load(self, key: Any) -> Any:
        """Return the data of a key, None where there is none that is whole."""
        name = self._load_index().get(key)
        entry = None if name is None else _verified(self._data_path(name))
        if entry is None or entry[:2] != (self._index_name, key):
            return None
        return entry[2]

    def save(self, key: Any, data: Any) -> None:
        """Write an entry, then the index."""
        digest = hashlib.sha256(repr(key).encode("utf-8", "replace")).hexdigest()
        name = f"{self._index_name.removesuffix('.nbi')}.{digest[:16]}.nbc"
        self._write(self._data_path(name), (self._index_name, key, data))
        overloads = self._load_index()
        if overloads.get(key) != name:
            self._save_index({**overloads, key: name})

    def _load_index(self) -> dict[Any, str]:
        found = _verified(self._index_path)
        if found is None or found[:2] != (self._index_name, self._source_stamp):
            return {}
        overloads: dict[Any, str] = found[2]
        return overloads

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._index_name, self._source_stamp, overloads))

    def _write(self, path: str, content: Any) -> None:
        body = self._dump(content)
        with self._open_for_write(path) as file:
            file.write(MAGIC + hashlib.sha256(body).digest() + body)


def _verified(path: str) -> Any:
    """Return what a file holds; None where it is absent, unreadable or damaged."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + DIGEST_SIZE
    body = memoryview(content)[start:]
    if content[:start] != MAGIC + hashlib.sha256(body).digest():
        return None
    return pickle.loads(body)  # noqa: S301


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """The cache of one function: nothing that happens to its files ends a check.

    Parameters
    ----------
    function : callable
    root : Path
        The folder; it is made when the first kernel is kept.
    """

    def __init__(self, function: Callable[..., Any], root: Path) -> None:
        self._name = repr(function)
        self._py_func = function
        self._root = root
        self._impl = _CompiledKernels(function, root)
        self._cache_path = self._impl.locator.get_cache_path()
        self._cache_file = _VerifiedFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )
        self.pending: subprocess.Popen[bytes] | None = None  # a process that compiles it
        self.enable()

    def is_kept(self) -> bool:
        """Return whether there is an index of the function; a damaged one counts, too."""
        return Path(self._cache_file._index_path).exists()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function of a signature, None where it has to be compiled."""
        found = self._load(sig, target_context)
        if found is None:
            for tell in listeners:
                tell(self._py_func.__name__)
        if found is None and self.pending is not None:
            pending, self.pending = self.pending, None
            with suppress(subprocess.TimeoutExpired):
                pending.wait(LONGEST_WAIT)
            found = self._load(sig, target_context)
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        """Read the machine code as it is: only to compile, numba has to know all that it can type.

        Its own `load_overload` makes that known first, which takes longer than all the rest; what
        machine code calls is its runtime, which allocates.
        """
        try:
            runtime.rtsys.initialize(target_context)
            return self._load_overload(sig, target_context)
        except Exception:  # whole, but of no use: an entry that can't be rebuilt is replaced
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; where that fails it stays in memory."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            reason = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            )
            say_not_kept(self._root, reason)
