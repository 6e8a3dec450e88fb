"""An ONNX graph that is a chain of dense layers; batch, gradient and loss come in a second file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain
from fastcheck.importers.npz import SPEC_FIELDS, arrays_of
from fastcheck.importers.npz_reader import read_entries
from fastcheck.importers.onnx.chain import read_chain
from fastcheck.importers.onnx.graph import graph_of
from fastcheck.importers.optional import require
from fastcheck.model.network import Network
from fastcheck.model.problem import Problem

__all__ = ["read_problem", "write_problem"]

SPEC = "fastcheck"  # the metadata entry that holds the spec, as JSON
SECOND = (".gradient.npz", ".gradient.safetensors")
OPTIONS = ("loss", "l2", "penalty", "reduction", "loss_scale")


def read_problem(
    path: str | os.PathLike[str], gradient: str | os.PathLike[str] | None = None, **options: Any
) -> Problem:
    """Read a problem from an ONNX file and a second one.

    Parameters
    ----------
    path : str or path
        A graph of Gemm, or MatMul and Add, and elementwise activations, one after the other.
    gradient : str or path, optional
        A .npz or .safetensors file with `X`, `Y` and the gradient of each initializer, by the
        initializer's name with a d before it, as dW1, db1, …, or by the initializer's own name;
        optionally `J` and `spec`.
        Without it, `model.gradient.npz` or `model.gradient.safetensors` beside `model.onnx`.
    **options
        `loss`, `l2`, `penalty`, `reduction`, where no spec says them.

    Returns
    -------
    Problem
        Its blocks are called as the initializers are.

    Raises
    ------
    InputError
        Without onnx, for files that are missing or damaged, and for nodes that are no part of such
        a chain, named.
    """
    onnx = require("onnx", "onnx")
    file = Path(path)
    model = _loaded(onnx, file)
    second = _second(file, gradient)
    arrays, spec = _arrays(second)
    written = {entry.key: entry.value for entry in model.metadata_props}.get(SPEC, "{}")
    chosen = {**_object(written, file), **spec, **options}
    name = str(chosen.get("name", "") or f"{file.name}, {second.name}")
    if "loss" not in chosen:
        raise InputError(
            f"{second.name} does not say the loss, which a graph does not hold",
            'a spec such as {"loss": "softmax_cross_entropy"}',
            "numpy.savez(…, spec=json.dumps({…})) adds it.",
        )
    X, Y = (_taken(arrays, key, second) for key in "XY")
    chain = Chain("graph")
    entering = read_chain(onnx, model.graph, chain, X)
    network = chain.network({k: v for k, v in chosen.items() if k in OPTIONS})  # type: ignore[arg-type]
    cost = arrays.pop("J").reshape(()) if "J" in arrays else None
    return Problem(network, entering, Y, _gradient(network, chain, arrays, second), cost, name)


def _loaded(onnx: Any, file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"no file {file}", "an .onnx file")
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise kinds of their own
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file.name} is no ONNX model ({reason})", "a complete .onnx file"
        ) from None
    return model


def _second(file: Path, gradient: str | os.PathLike[str] | None) -> Path:
    """Return the file with batch and gradient."""
    if gradient is not None:
        return Path(gradient)
    beside = [file.with_name(file.stem + ending) for ending in SECOND]
    found = [path for path in beside if path.is_file()]
    if not found:
        raise InputError(
            f"{file.name} without a gradient: no {beside[0].name} beside it",
            "X, Y and the gradient of each initializer in a second file",
            f"Write {beside[0].name} with numpy.savez, or name another file by --gradient "
            "(gradient= in Python).",
        )
    return found[0]


def _arrays(second: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of the second file, and its spec."""
    if second.suffix == ".safetensors":
        from fastcheck.importers.safetensors import read_arrays

        arrays, metadata = read_arrays(second)
        return arrays, _object(metadata.get(SPEC, "{}"), second)
    entries = read_entries(second, lambda names: None)
    text: Any = entries.pop("spec", entries.pop("spec.json", b"{}"))
    if not isinstance(text, bytes):
        text = str(text.reshape(-1)[0]) if text.dtype.kind == "U" else text.tobytes()
    numbers = {k: v for k, v in entries.items() if not isinstance(v, bytes)}
    return numbers, _object(text, second)


def _object(text: str | bytes, file: Path) -> dict[str, Any]:
    """Return a spec; its fields are all known."""
    try:
        spec = json.loads(text)
    except ValueError:
        raise InputError(f"the spec of {file.name} is not JSON", "a JSON object") from None
    unknown = sorted(set(spec) - set(SPEC_FIELDS)) if isinstance(spec, dict) else ["no object"]
    if unknown:
        raise InputError(
            f"the spec of {file.name} has {unknown[0]!r}", f"fields among {', '.join(SPEC_FIELDS)}"
        )
    return dict(spec)


def _taken(arrays: dict[str, NDArray[Any]], key: str, file: Path) -> NDArray[Any]:
    if key not in arrays:
        raise InputError(f"{file.name} has no {key}", "X, Y and the gradient of each initializer")
    return arrays.pop(key)


def _gradient(
    network: Network, chain: Chain, arrays: dict[str, NDArray[Any]], file: Path
) -> dict[str, NDArray[Any]]:
    """Return the gradient of each block; the file may call it in several ways."""
    found = {}
    for block in network.order.blocks:
        layer = chain.layers[block.layer - 1]
        own = layer.names[0 if block.kind == "W" else 1]
        short = f"{block.kind}{block.layer}"
        # The own name comes last: a whole problem file holds W1 beside dW1.
        keys = [k for k in (f"d{own}", f"d({own})", f"d{short}", own) if k in arrays]
        if not keys:
            raise InputError(
                f"{file.name} has no gradient of {own}",
                f"{own!r} or 'd{short}'",
                f"It has {', '.join(arrays) or 'nothing'}.",
            )
        values = arrays[keys[0]]
        found[block.gradient_name] = (
            chain.in_layout(layer, values) if block.kind == "W" else values.reshape(-1)
        )
    return found


def write_problem(path: str | os.PathLike[str], problem: Problem) -> None:
    """Write a problem as `model.onnx` and `model.gradient.npz` beside it.

    Raises
    ------
    InputError
        Without onnx, and where a .npz file could not be written either.
    """
    onnx = require("onnx", "onnx")
    file = Path(path)
    rows = _in_rows(problem)
    arrays = arrays_of(rows)
    spec = str(arrays["spec"].reshape(-1)[0])
    if any(mask is not None for mask in rows.network.masks):
        raise InputError(
            "a network with dropout masks", "a network that a graph can hold",
            "Write a .npz or .safetensors file.",
        )  # fmt: skip
    singles = ("X", "Y", "J", "spec")
    kept = {k: v for k, v in arrays.items() if k in singles or k.startswith("d")}
    model = graph_of(onnx, rows.network)
    onnx.helper.set_model_props(model, {SPEC: spec})
    try:
        onnx.save(model, file)
        np.savez(file.with_name(file.stem + SECOND[0]), **kept)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(
            f"{file} can't be written ({error.strerror or error})",
            "a folder that can be written to",
        ) from None


def _in_rows(problem: Problem) -> Problem:
    """Return the same problem with samples in rows: an ONNX graph knows no other."""
    if problem.network.layout != "course":
        return problem
    from fastcheck.model.gradient import read_gradient

    network = problem.network
    batch = network.batch(problem.inputs, problem.targets)
    gradient = read_gradient(network, problem.gradient, problem.inputs, problem.targets)
    return replace(
        problem,
        network=replace(network, layout="rows"),
        inputs=batch.X,
        targets=batch.T,
        gradient=gradient.vector,
    )
