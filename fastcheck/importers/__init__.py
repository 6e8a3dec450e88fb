"""From files and from other programs' objects to a network, a batch and its gradient."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcheck.errors import InputError, damage_reported, near_names

if TYPE_CHECKING:
    from fastcheck.model.problem import Problem

__all__ = ["FORMATS", "IN_TWO_FILES", "read_problem", "write_problem"]

# The module that reads and writes each kind of file; imported only when one comes.
FORMATS = {
    ".npz": "fastcheck.importers.npz",
    ".safetensors": "fastcheck.importers.safetensors",
    ".onnx": "fastcheck.importers.onnx.problem",
}
# Those that hold no gradient: their readers take a second file, `gradient=`.
IN_TWO_FILES = (".onnx",)


def _module(path: str | os.PathLike[str]) -> Any:
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"file {file.name!r}",
            f"a name that ends in {', '.join(FORMATS)}",
            near_names(suffix, FORMATS) if suffix else "",
        )
    return importlib.import_module(FORMATS[suffix])


def read_problem(path: str | os.PathLike[str], **options: Any) -> Problem:
    """Read a problem from a file of any kind in `FORMATS`, told by its suffix.

    Parameters
    ----------
    path : str or path
    **options
        What the format's own reader takes: `gradient`, the second file beside an ONNX graph.

    Raises
    ------
    InputError
        For another suffix, for all that the format's reader refuses, and for whatever else is
        raised on the way: a file can always be damaged in a way that no reader has thought of.
    """
    file = Path(path)
    with damage_reported(file.name, f"{file.suffix.lower()} file"):
        problem: Problem = _module(file).read_problem(file, **options)
    return problem


def write_problem(path: str | os.PathLike[str], problem: Problem) -> None:
    """Write a problem to a file of any kind in `FORMATS`, told by its suffix."""
    _module(path).write_problem(path, problem)
