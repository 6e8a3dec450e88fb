"""Arrays out of a zip file that nobody vouches for: headers are judged before data is read."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, damage_reported

__all__ = ["HOW_TO_WRITE", "LIMIT_BYTES", "read_entries", "read_header", "zip_entries"]

LIMIT_BYTES = 4 * 2**30  # all arrays together, counted as the float64 that they become
LIMIT_ENTRIES = 10_000
MAX_HEADER_BYTES = 12_000
MAX_TEXT_LENGTH = 2**20
READ_SIZE = 2**24
HOW_TO_WRITE = (
    "Write it with numpy.savez, or start from the file of fastcheck --write-example FILE."
)


@dataclass(frozen=True)
class Header:
    """What an entry says it holds."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the data in the file."""
        return self.count * self.dtype.itemsize

    @property
    def memory(self) -> int:
        """Size in memory, where each number becomes a float64."""
        return self.count * max(self.dtype.itemsize, 8)


def read_entries(
    path: Path, check_names: Callable[[Sequence[str]], None]
) -> dict[str, NDArray[Any] | bytes]:
    """Return the arrays of a .npz file by name; entries that end in .json as bytes.

    Parameters
    ----------
    path : Path
        The file. Nothing in it is trusted and nothing is ever unpickled.
    check_names : callable
        Called with the names before anything else is read; raises for names it does not want.

    Raises
    ------
    InputError
        If the file is missing, no zip file, truncated or corrupt, if an entry is an array of
        Python objects or says it holds more than it does, or if all arrays together take more than
        `LIMIT_BYTES`.
    """
    _check_file(path)
    with damage_reported(path.name, ".npz file", HOW_TO_WRITE), zipfile.ZipFile(path) as archive:
        entries = zip_entries(archive, path.name)
        check_names(list(entries))
        headers = {
            name: read_header(archive, entry, f"{path.name}: {name}")
            for name, entry in entries.items()
            if not name.endswith(".json")
        }
        _check_size(headers, path.name)
        return {
            name: _array(archive, entry, headers[name], f"{path.name}: {name}")
            if name in headers
            else _text(archive, entry, f"{path.name}: {name}")
            for name, entry in entries.items()
        }


def _check_file(path: Path) -> None:
    """Refuse what is no regular file of a sensible size."""
    try:
        regular, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"no file {path}", "a .npz file", HOW_TO_WRITE) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} can't be read ({reason})", "a .npz file") from None
    if not regular:
        kind = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path} is {kind}", "a .npz file", HOW_TO_WRITE)
    if size == 0:
        raise InputError(f"{path.name} is empty", "a .npz file", HOW_TO_WRITE)
    if size > LIMIT_BYTES:
        raise _too_large(path.name, size)


def _too_large(name: str, size: int) -> InputError:
    return InputError(
        f"{name} says it holds {size / 2**30:,.1f} GiB of numbers",
        f"at most {LIMIT_BYTES / 2**30:.0f} GiB, counted as float64",
        "For a network of this size call fastcheck.gradcheck from Python; else mend the headers.",
    )


def zip_entries(archive: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, without .npy; none twice."""
    listed = archive.infolist()
    if len(listed) > LIMIT_ENTRIES:
        raise InputError(f"{file} has {len(listed)} entries", f"at most {LIMIT_ENTRIES}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        name = entry.filename.removesuffix(".npy")
        if name in entries:
            raise InputError(f"{file} holds {name} twice", "each array once", HOW_TO_WRITE)
        entries[name] = entry
    return entries


def read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: str) -> Header:
    """Read and judge what an entry says it holds."""
    with damage_reported(place, ".npz file", HOW_TO_WRITE), archive.open(entry) as file:
        head = io.BytesIO(file.read(MAX_HEADER_BYTES))
        header = _parsed(head)
    if header.dtype.hasobject:
        raise InputError(
            f"{place} is an array of Python objects, which only unpickling could read",
            "plain numbers: files are never unpickled",
            "Save each array by itself with a numeric dtype, the spec as np.array(json.dumps(…)).",
        )
    if min(header.shape, default=0) < 0 or header.start + header.bytes != entry.file_size:
        raise InputError(
            f"{place} says shape {header.shape} of {header.dtype}, {header.bytes:,} bytes, "
            f"but holds {entry.file_size - header.start:,}",
            "a header that fits the data",
            f"The file is truncated or was written wrongly. {HOW_TO_WRITE}",
        )
    return header


def _parsed(head: io.BytesIO) -> Header:
    """Parse the header of a .npy entry; the two versions that plain arrays have."""
    version = np.lib.format.read_magic(head)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers of Python 2 are read, and warned about
        shape, fortran, dtype = readers[version](head)
    return Header(dtype, shape, fortran, head.tell())


def _check_size(headers: dict[str, Header], file: str) -> None:
    """Refuse more than the limit, before anything is decompressed."""
    total = sum(header.memory for header in headers.values())
    if total > LIMIT_BYTES:
        raise _too_large(file, total)


def _array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, header: Header, place: str
) -> NDArray[Any]:
    """Read an entry's data to its end, where zipfile holds it against its checksum."""
    with damage_reported(place, ".npz file", HOW_TO_WRITE), archive.open(entry) as file:
        file.read(header.start)
        flat = np.empty(header.count, dtype=header.dtype)
        _fill(file, flat.view(np.uint8) if flat.nbytes else np.empty(0, np.uint8))
        if file.read(1):
            raise ValueError("more data than its header says")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _fill(file: IO[bytes], data: NDArray[np.uint8]) -> None:
    done = 0
    while done < data.size:
        piece = file.read(min(READ_SIZE, data.size - done))
        if not piece:
            raise EOFError(f"ends after {done:,} of {data.size:,} bytes")
        data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)


def _text(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: str) -> bytes:
    if entry.file_size > MAX_TEXT_LENGTH:
        raise InputError(
            f"{place} is {entry.file_size:,} bytes long", f"at most {MAX_TEXT_LENGTH:,}"
        )
    with damage_reported(place, ".npz file", HOW_TO_WRITE), archive.open(entry) as file:
        return file.read(MAX_TEXT_LENGTH + 1)
