"""Finished chunks on disk: a run that was cut off goes on where it stopped.

The file is one line of JSON (format, digest of the problem, number of chunks), then one record a
chunk: its number, length and SHA-256, then the arrays as plain bytes. A torn record at the end is
what a crash leaves behind; it is cut off and its chunk computed again. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: two runs at once on one journal go unnoticed there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal", "digest"]

FORMAT = "fastcheck journal 1"
RECORD = struct.Struct("<QQ32s")  # chunk, length of the payload, SHA-256 of all but itself
LONGEST_LINE = 4096
KINDS = "fiub"  # floats, signed and unsigned integers, booleans


def digest(parts: Iterable[Any]) -> str:
    """Return a digest of arrays (dtype, shape and bytes) and of anything with a faithful `repr`.

    Parameters
    ----------
    parts : iterable
        What makes one problem another: changing, adding or regrouping parts changes the digest.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head = f"array {part.dtype.str} {part.shape}"
            body: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            head, body = f"value {type(part).__name__}", repr(part).encode()
        total.update(f"{head} {len(body)}\n".encode())
        total.update(body)
    return total.hexdigest()


def _encode(result: Any) -> bytes:
    """Return an array, or a plain tuple or dict of arrays, as a line of JSON and bytes."""
    if type(result) is dict:
        names, arrays = list(result), list(result.values())
    elif type(result) in (tuple, np.ndarray):
        names, arrays = None, list(result) if type(result) is tuple else [result]
    else:
        raise TypeError(f"a journal keeps arrays, tuples and dicts of them, not {type(result)}")
    arrays = [np.asarray(array) for array in arrays]
    if any(array.dtype.kind not in KINDS for array in arrays):
        raise TypeError("a journal keeps arrays of numbers only")
    head = {
        "form": type(result).__name__,
        "names": names,
        "arrays": [[array.dtype.str, list(array.shape)] for array in arrays],
    }
    return b"\n".join([json.dumps(head).encode(), b"".join(array.tobytes() for array in arrays)])


def _decode(payload: bytes) -> Any:
    """Return what `_encode` was given; ValueError or KeyError where it was something else."""
    line, _, body = payload.partition(b"\n")
    head = json.loads(line)
    arrays: list[NDArray[Any]] = []
    start = 0
    for name, shape in head["arrays"]:
        dtype = np.dtype(name)
        if dtype.kind not in KINDS:
            raise ValueError(f"dtype {dtype}")
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(body, dtype, count, start).reshape(shape).copy())
        start += count * dtype.itemsize
    if head["form"] == "dict":
        return dict(zip(head["names"], arrays, strict=True))
    return tuple(arrays) if head["form"] == "tuple" else arrays[0]


def _checksum(chunk: int, payload: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<QQ", chunk, len(payload)) + payload).digest()


class Journal:
    """The finished chunks of one problem, in a file of the user's.

    Parameters
    ----------
    path : str or Path
        Made where there is none yet.
    problem : str
        Digest of the problem, as `digest` gives it.
    chunks : int
        How many chunks the problem has.

    Attributes
    ----------
    finished : dict
        What earlier runs have left: chunk → result.

    Raises
    ------
    InputError
        If the file is no journal, is another problem's, or is in use by another run.
    """

    def __init__(self, path: str | Path, problem: str, chunks: int) -> None:
        self.path = Path(path)
        self.chunks = chunks
        head = {"format": FORMAT, "problem": problem, "chunks": chunks}
        self._head = json.dumps(head).encode() + b"\n"
        self._file = self._opened()
        try:
            self.finished = self._read()
        except BaseException:
            self._file.close()
            raise

    def _opened(self) -> BinaryIO:
        """Return the file, made if there is none, and locked against a second run."""
        try:
            file = open(self.path, "a+b")  # noqa: SIM115 - kept open until `close`
        except OSError as error:
            raise InputError(
                f"journal {str(self.path)!r} can't be opened ({error.strerror})",
                "a file in a folder that can be written to",
            ) from None
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise InputError(
                f"journal {str(self.path)!r} is in use by another run",
                "a journal for each run",
                "Wait until the other run has ended, or name another file.",
            ) from None
        return file

    def _read(self) -> dict[int, Any]:
        """Return the finished chunks and cut off what a crash has left at the end."""
        self._file.seek(0)
        line = self._file.read(len(self._head))
        if line != self._head:
            if not self._head.startswith(line):  # not even a header that a crash has torn
                self._refuse(line)
            self._restart()
        finished: dict[int, Any] = {}
        end = len(self._head)
        for chunk, result, stop in self._records():
            finished[chunk] = result
            end = stop
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        return finished

    def _refuse(self, line: bytes) -> None:
        """Say what the file is instead."""
        self._file.seek(0)
        line = self._file.readline(LONGEST_LINE)
        known = line.startswith(json.dumps({"format": FORMAT})[:-1].encode())
        raise InputError(
            f"{str(self.path)!r} is " + ("another problem's journal" if known else "no journal"),
            "a journal of this network, batch, sample, ε and version of fastcheck, or a new file",
            "Name another file, or delete this one to start anew.",
        )

    def _restart(self) -> None:
        """Write the header into an empty file (or over one that was torn)."""
        self._file.truncate(0)
        self._file.write(self._head)
        self._sync()
        self._file.seek(len(self._head))

    def _records(self) -> Iterator[tuple[int, Any, int]]:
        """Yield (chunk, result, where its record ends) up to the first record that is not whole."""
        size = os.fstat(self._file.fileno()).st_size
        while True:
            start = self._file.read(RECORD.size)
            if len(start) < RECORD.size:
                return
            chunk, length, checksum = RECORD.unpack(start)
            if chunk >= self.chunks or length > size - self._file.tell():
                return
            payload = self._file.read(length)
            if _checksum(chunk, payload) != checksum:
                return
            try:
                result = _decode(payload)
            except (ValueError, KeyError, TypeError, IndexError):
                return
            yield chunk, result, self._file.tell()

    def record(self, chunk: int, result: Any) -> None:
        """Keep the result of a chunk; it is on the disk when this returns.

        Parameters
        ----------
        chunk : int
        result : ndarray, or tuple or dict of ndarray
            Numbers; comes back as it is.

        Raises
        ------
        TypeError
            For anything else.
        """
        payload = _encode(result)
        start = RECORD.pack(chunk, len(payload), _checksum(chunk, payload))
        try:
            self._file.write(start + payload)  # a crash leaves a whole record or a torn end
            self._sync()
        except OSError as error:
            raise InputError(
                f"journal {str(self.path)!r} can't be written ({error.strerror})",
                "room on the disk",
                "Make room and run again: it goes on after the chunks written so far.",
            ) from None

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and let go of its lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
