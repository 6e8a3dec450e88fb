"""The file format `problem.safetensors`: the arrays of a .npz file, the spec in its metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.npz import arrays_of, check_names, problem_of
from fastcheck.importers.optional import require
from fastcheck.model.problem import Problem

__all__ = ["read_arrays", "read_problem", "write_problem"]

SPEC = "fastcheck"  # the metadata entry that holds the spec, as JSON


def read_problem(path: str | os.PathLike[str]) -> Problem:
    """Read a problem from a .safetensors file.

    Parameters
    ----------
    path : str or path
        `W1`, `b1`, …, `X`, `Y`, `dW1`, `db1`, … as in a .npz file; the spec is the metadata entry
        `fastcheck` (or `spec`). The file is mapped into memory, not read whole.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        Without safetensors, for a file that is missing or damaged, and for all that a .npz file is
        refused for.
    """
    file = Path(path)
    arrays, metadata = read_arrays(file)
    spec = metadata.get(SPEC, metadata.get("spec"))
    if spec is None:
        raise InputError(
            f"{file.name} has no metadata entry {SPEC!r}",
            'the spec there, as JSON: {"activations": ["relu", "identity"], "loss": …}',
            'save_file(tensors, path, metadata={"fastcheck": json.dumps(spec)}) adds it.',
        )
    check_names([*arrays, "spec"], file.name)
    return problem_of({**arrays, "spec": spec.encode()}, file.name)


def read_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays of a file by name, and its metadata."""
    safetensors = require("safetensors", "safetensors")
    if not file.is_file():
        raise InputError(f"no file {file}", "a .safetensors file")
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file.name} is truncated or corrupt ({reason})",
            "a complete .safetensors file",
            "Copy or write the file again.",
        ) from None


def write_problem(path: str | os.PathLike[str], problem: Problem) -> None:
    """Write a problem to a .safetensors file; an older one is replaced only when all is written.

    Raises
    ------
    InputError
        Without safetensors, and where a .npz file could not be written either.
    """
    numpy_format = require("safetensors.numpy", "safetensors")
    arrays = arrays_of(problem)
    spec = str(arrays.pop("spec").reshape(-1)[0])
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    file = Path(path)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        numpy_format.save_file(tensors, unfinished, metadata={SPEC: spec})
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(
            f"{file} can't be written ({error.strerror or error})",
            "a folder that can be written to",
        ) from None
