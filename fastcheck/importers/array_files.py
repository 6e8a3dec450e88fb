"""Arrays in .npz, .npy and .safetensors files, read in pieces: never a whole file."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.errors import InputError, damage_reported
from fastcheck.importers.npz_reader import read_header, zip_entries
from fastcheck.model.lazy_arrays import LazyArray, widened_bfloat16
from fastcheck.validation import precision_of

__all__ = ["open_arrays"]

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
MAX_JSON_BYTES = 10**8
RAW_BFLOAT16 = np.dtype("V2")  # what NumPy makes of JAX's bfloat16 in its own files
SAFETENSORS_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def open_arrays(path: str | os.PathLike[str]) -> dict[str, LazyArray]:
    """Return the arrays of floating-point numbers in a file by name.

    Parameters
    ----------
    path : str or path
        A .npz, .npy or .safetensors file; arrays that are not compressed are read in pieces.

    Raises
    ------
    InputError
        For another kind of file, one that is missing or damaged, and one without such arrays.
    """
    file = Path(path)
    readers = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}", "a .npz, .npy or .safetensors file")
    if not file.is_file():
        raise InputError(f"no file {file}", f"a {file.suffix} file")
    with damage_reported(file.name, f"{file.suffix.lower()} file"):
        found = readers[file.suffix.lower()](file)
    if not found:
        raise InputError(f"{file.name} holds no floating-point arrays", "gradients by name")
    return found


def _npz(file: Path) -> dict[str, LazyArray]:
    with zipfile.ZipFile(file) as archive:
        entries = zip_entries(archive, file.name)
        headers = {
            name: read_header(archive, entry, f"{file.name}: {name}")
            for name, entry in entries.items()
            if entry.filename.endswith(".npy")
        }
    found = {}
    for name, header in headers.items():
        if header.dtype.kind != "f" and header.dtype != RAW_BFLOAT16:
            continue
        if (
            entries[name].compress_type == zipfile.ZIP_STORED
            and header.count
            and not header.fortran
        ):
            start = _data_offset(file, entries[name]) + header.start
            found[name] = _stored(file, header.dtype, start, header.shape)
        else:
            found[name] = _compressed(file, name, header)
    return found


def _data_offset(file: Path, entry: zipfile.ZipInfo) -> int:
    """Return where an entry's data starts, from its local header."""
    with file.open("rb") as opened:
        opened.seek(entry.header_offset)
        fields = LOCAL_HEADER.unpack(opened.read(LOCAL_HEADER.size))
    return entry.header_offset + LOCAL_HEADER.size + int(fields[-2]) + int(fields[-1])


def _stored(file: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> LazyArray:
    """Return an array whose numbers lie one after the other from an offset of a file.

    Pieces are read, not mapped: of a mapped file all that was seen stays in memory for a while.
    """

    def piece(start: int, stop: int) -> Any:
        count, place = stop - start, offset + start * dtype.itemsize
        with damage_reported(file.name, f"{file.suffix.lower()} file"):
            values = np.fromfile(file, dtype, count, offset=place)
            if values.size != count:
                raise ValueError(f"{values.size:,} of {count:,} numbers")
        return _widened(values)

    return LazyArray(shape, _precision(dtype), piece)


def _compressed(file: Path, name: str, header: Any) -> LazyArray:
    """Return an array that is read whole when a piece of it is asked for, and kept until then."""
    kept: list[Any] = []

    def piece(start: int, stop: int) -> Any:
        if not kept:
            with damage_reported(f"{file.name}: {name}", ".npz file"), np.load(file) as archive:
                kept.append(archive[name].reshape(-1))
        values = _widened(kept[0][start:stop])
        if stop >= header.count:
            kept.clear()
        return values

    return LazyArray(header.shape, _precision(header.dtype), piece)


def _npy(file: Path) -> dict[str, LazyArray]:
    """Read a file of one array, which is called θ as an array without a name is."""
    array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind != "f" and array.dtype != RAW_BFLOAT16:
        return {}
    if array.flags.c_contiguous and array.size:
        return {"θ": _stored(file, array.dtype, array.offset, array.shape)}
    flat = array.reshape(-1)
    return {"θ": LazyArray(array.shape, _precision(array.dtype), lambda a, b: _widened(flat[a:b]))}


def _precision(dtype: np.dtype[Any]) -> str:
    return precision_of(dtype) if dtype.kind == "f" else "bfloat16"


def _widened(values: Any) -> Any:
    """Return float64 numbers; of bfloat16, which NumPy knows as raw bytes, too."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    return widened_bfloat16(np.ascontiguousarray(values).view("<u2"))


def _safetensors(file: Path) -> dict[str, LazyArray]:
    """Read the header: its length, JSON with dtype, shape and offsets of each tensor, then data."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(MAX_JSON_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in {size:,}")
        header = json.loads(opened.read(length))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in SAFETENSORS_DTYPES:
            continue
        dtype, shape = SAFETENSORS_DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
        start, stop = entry["data_offsets"]
        count = math.prod(shape)
        if stop - start != count * dtype.itemsize or min((*shape, start)) < 0:
            raise ValueError(f"{name}: {stop - start:,} bytes for shape {shape}")
        if 8 + length + stop > size:
            raise ValueError(f"{name} ends after {8 + length + stop:,} of {size:,} bytes")
        offset = 8 + length + start
        found[name] = _stored(file, dtype, offset, shape)
    return found
