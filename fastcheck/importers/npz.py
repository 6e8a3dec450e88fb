"""The file format `problem.npz`: W1…, b1…, X, Y, dW1…, db1… and a JSON spec, read and written."""

from __future__ import annotations

import json
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.importers.npz_reader import HOW_TO_WRITE, read_entries
from fastcheck.model.gradient import read_gradient
from fastcheck.model.network import Network
from fastcheck.model.problem import Problem

__all__ = ["SPEC_FIELDS", "arrays_of", "check_names", "problem_of", "read_problem", "write_problem"]

NUMBERED = re.compile(r"(W|b|dW|db|D)([1-9]\d{0,4})")
SINGLE = ("X", "Y", "J", "spec", "spec.json")
SPEC_FIELDS = {
    "activations": 'one a layer: ["relu", ["elu", 0.5], "identity"], or one for all hidden layers',
    "loss": 'a name, or [name, parameter] as ["huber", 0.5]',
    "l2": "λ, default 0",
    "penalty": '"l2/2m" (default), "l2/m", "l2/2" or "l2"',
    "reduction": '"mean" (default), "sum" or "mean_elements"',
    "loss_scale": "what the reduced loss is multiplied by, default 1",
    "layout": '"rows" (default), "course" or "keras"',
    "keep_prob": "what the masks D1… are divided by, default 1",
    "names": 'the user\'s names of the arrays: {"W1": "net.0.weight"}',
    "name": "what the report calls the problem",
}
REQUIRED_FIELDS = ("activations", "loss")
SPEC_EXAMPLE = '{"activations": ["relu", "identity"], "loss": "softmax_cross_entropy", "l2": 0.1}'


def read_problem(path: str | os.PathLike[str]) -> Problem:
    """Read a problem from a .npz file.

    Parameters
    ----------
    path : str or path
        A zip file of .npy arrays, as `numpy.savez` writes it: `W1`, `b1` (left out for a layer
        without biases), …, `X`, `Y`, `dW1`, `db1`, …, optionally dropout masks `D1`, … and the
        user's cost `J`, and `spec`, a JSON object with the fields of `SPEC_FIELDS`, as a string
        array, as an array of UTF-8 bytes, or as an entry `spec.json`.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        For a file that is missing, damaged or too large, missing and extra arrays, arrays of
        Python objects, a spec that is no JSON or has unknown fields, and for all that
        `Network.from_parameters` and `Network.batch` refuse.
    """
    file = Path(path)
    return problem_of(read_entries(file, lambda names: check_names(names, file.name)), file.name)


def problem_of(arrays: dict[str, Any], file: str) -> Problem:
    """Return the problem that the named arrays of a file are.

    Parameters
    ----------
    arrays : dict
        `W1`, `b1`, …, `X`, `Y`, `dW1`, …, and `spec` as an array or as bytes.
    file : str
        What messages call the file.
    """
    with _named(file):
        spec = _spec(arrays)
        title = spec.pop("name", "")
        network = Network.from_parameters(
            _numbered(arrays, "W", "b"),
            dropout_masks=_masks(arrays),
            **spec,
        )
        network.batch(_numbers(arrays, "X"), _numbers(arrays, "Y"))
        return Problem(
            network,
            arrays["X"],
            arrays["Y"],
            _numbered(arrays, "dW", "db"),
            cost=_cost(arrays),
            name=str(title) or file,
        )


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Put the file's name before whatever is said about what it holds."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {error.given}", error.expected, error.remedy) from None


def check_names(names: Sequence[str], file: str) -> None:
    """Refuse a file with arrays that are missing or that nobody knows."""
    numbered = [match for name in names if (match := NUMBERED.fullmatch(name))]
    layers = {int(match[2]) for match in numbered if match[1] == "W"}
    kinds = ("W", "b", "dW", "db", "D")
    known = {*SINGLE, *(f"{kind}{layer}" for layer in layers for kind in kinds)}
    if layers != set(range(1, max(layers, default=0) + 1)) or not layers:
        found = ", ".join(f"W{layer}" for layer in sorted(layers)) or "no W1"
        near = "" if layers else _near_weights(names)
        raise InputError(
            f"{file} holds {found}", "W1, W2, …, WL without a gap", near or HOW_TO_WRITE
        )
    stray = sorted(set(names) - known)
    if stray:
        raise InputError(
            f"{file} holds {stray[0]!r}",
            "W1, b1, …, X, Y, dW1, db1, …, spec, and optionally D1, … and J",
            _near(stray[0], known - set(names)),
        )
    _check_pairs(set(names), len(layers), file)


def _near_weights(names: Sequence[str]) -> str:
    """Say which entry may be meant by W1."""
    like = [name for name in names if re.fullmatch(r"(?i)(w|weights?)[\W_]*[01]", name)]
    return f"Rename {like[0]!r} to 'W1', and so on." if like else ""


def _check_pairs(names: set[str], depth: int, file: str) -> None:
    wanted = ["X", "Y"]
    for layer in range(1, depth + 1):
        wanted += [f"dW{layer}"] + ([f"db{layer}"] if f"b{layer}" in names else [])
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{file} has no {', '.join(missing)}",
            f"{', '.join(wanted)} and spec beside the parameters",
            "Y are the targets, dW1 the gradient to check, of W1's shape.",
        )
    alone = [k for k in range(1, depth + 1) if f"db{k}" in names and f"b{k}" not in names]
    if alone:
        raise InputError(
            f"{file} has db{alone[0]} and no b{alone[0]}",
            "a gradient for each array of parameters, and no other",
            f"Add b{alone[0]}, or leave db{alone[0]} out for a layer without biases.",
        )
    specs = names & {"spec", "spec.json"}
    if len(specs) != 1:
        raise InputError(
            f"{file} has {'both spec and spec.json' if specs else 'no spec'}",
            f"a JSON spec such as {SPEC_EXAMPLE}",
            "Write one of the two." if specs else "numpy.savez(…, spec=json.dumps({…})) adds it.",
        )


def _near(name: str, known: set[str]) -> str:
    """Suggest the same name in other letters, or else a near one."""
    plain = re.sub(r"[\W_]", "", name).casefold()
    for other in sorted(known):
        if other.casefold() == plain:
            return f"Did you mean {other!r}?"
    near = near_names(name, known)
    return near if near.startswith("Did") else "Rename it or leave it out."


def _numbers(arrays: dict[str, Any], name: str) -> NDArray[Any]:
    array: NDArray[Any] = arrays[name]
    if array.dtype.kind in "SUV":
        raise InputError(
            f"{name} has dtype {array.dtype}", "numbers", "Save it as float64, float32 or float16."
        )
    return array


def _numbered(arrays: dict[str, Any], *kinds: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of some kinds, such as W1, b1, W2, …."""
    found = {}
    for name in arrays:
        match = NUMBERED.fullmatch(name)
        if match and match[1] in kinds:
            found[name] = _numbers(arrays, name)
    return found


def _masks(arrays: dict[str, Any]) -> dict[int, NDArray[Any]] | None:
    return {int(name[1:]): mask for name, mask in _numbered(arrays, "D").items()} or None


def _cost(arrays: dict[str, Any]) -> float | None:
    """Return the user's J, None where the file has none."""
    if "J" not in arrays:
        return None
    values = _numbers(arrays, "J")
    if values.size != 1 or values.dtype.kind not in "fiu":
        raise InputError(
            f"J has shape {values.shape} of {values.dtype}", "one real number, the cost"
        )
    return float(values.reshape(-1)[0])


def _spec(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the spec's fields, all of them known."""
    text = _spec_text(arrays["spec"] if "spec" in arrays else arrays["spec.json"])
    try:
        spec = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"the spec is not JSON: {error.msg} at character {error.pos} of {_shown(text)}",
            f"a JSON object such as {SPEC_EXAMPLE}",
            "Write it with a JSON library (json.dumps in Python).",
        ) from None
    except RecursionError:
        raise InputError(
            "the spec is nested too deeply", f"a JSON object such as {SPEC_EXAMPLE}"
        ) from None
    if not isinstance(spec, dict):
        raise InputError(f"the spec is {_shown(text)}", f"a JSON object such as {SPEC_EXAMPLE}")
    _check_fields(spec)
    return spec


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "…")


def _spec_text(given: NDArray[Any] | bytes) -> str:
    """Return the text of a string array, of bytes, or of an array of UTF-8 bytes."""
    if not isinstance(given, bytes):
        if given.dtype.kind == "U" and given.size == 1:
            return str(given.reshape(-1)[0])
        as_text = given.dtype.kind == "S" and given.size == 1
        if not as_text and given.dtype not in (np.uint8, np.int8):
            raise InputError(
                f"the spec has dtype {given.dtype} and shape {given.shape}",
                "one string, or an array of uint8 with its UTF-8 bytes",
            )
        given = given.tobytes()
    try:
        return given.rstrip(b"\0").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the spec's byte {error.start} is not UTF-8", "JSON text in UTF-8"
        ) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InputError(f"the spec says {twice!r} twice", "each field once")
    return fields


def _no_constant(name: str) -> float:
    raise InputError(f"the spec holds {name}", "finite numbers")


def _check_fields(spec: dict[str, Any]) -> None:
    unknown = sorted(set(spec) - set(SPEC_FIELDS))
    if unknown:
        raise InputError(
            f"the spec has an unknown field {unknown[0]!r}",
            f"fields among {', '.join(SPEC_FIELDS)}",
            near_names(unknown[0], SPEC_FIELDS),
        )
    missing = [name for name in REQUIRED_FIELDS if name not in spec]
    if missing:
        raise InputError(
            f"the spec has no {missing[0]!r}",
            f"{missing[0]}: {SPEC_FIELDS[missing[0]]}",
            f"For example {SPEC_EXAMPLE}.",
        )
    if not isinstance(spec["activations"], (str, list)):
        raise InputError(f"activations {spec['activations']!r}", SPEC_FIELDS["activations"])
    names = spec.get("names", {})
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise InputError(f"names {_shown(json.dumps(names))} in the spec", SPEC_FIELDS["names"])
    for name in ("l2", "loss_scale", "keep_prob"):
        if isinstance(spec.get(name, 0.0), (bool, str)):
            raise InputError(f"{name} {json.dumps(spec[name])} in the spec", "a number")


def write_problem(path: str | os.PathLike[str], problem: Problem) -> None:
    """Write a problem to a .npz file; an older one is replaced only when all is written.

    Parameters
    ----------
    path : str or path
    problem : Problem
        A gradient or cost that is a function is called, and its values are written.

    Raises
    ------
    InputError
        If an activation or the loss is the user's own function, which a file can't hold, or if
        the file can't be written.
    """
    file = Path(path)
    arrays = arrays_of(problem)
    try:
        _write(file, arrays)
    except OSError as error:
        raise InputError(
            f"{file} can't be written ({error.strerror or error})",
            "a folder that can be written to",
        ) from None


def _write(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    handle, unfinished = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                for name, array in arrays.items():
                    # A fixed date: the same problem gives the same bytes.
                    with archive.open(
                        zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True
                    ) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(unfinished, 0o666 & ~mask)
        os.replace(unfinished, file)
    except BaseException:
        os.unlink(unfinished)
        raise


def arrays_of(problem: Problem) -> dict[str, NDArray[Any]]:
    """Return what a file holds, by name; `spec` is a string array."""
    network = problem.network
    gradient = read_gradient(network, problem.gradient, problem.inputs, problem.targets)
    arrays = {
        f"{block.kind}{block.layer}": network.user_array(block, values)
        for block, values in network.order.views(network.theta)
    }
    arrays |= {"X": np.asarray(problem.inputs), "Y": np.asarray(problem.targets)}
    for block, values in network.order.views(gradient.vector):
        array = network.user_array(block, values)
        exact = gradient.precision if gradient.precision in ("float32", "float16") else "float64"
        arrays[f"d{block.kind}{block.layer}"] = array.astype(exact)
    for layer, mask in enumerate(network.masks, start=1):
        if mask is not None:
            arrays[f"D{layer}"] = mask.T if network.layout == "course" else mask
    if problem.cost is not None:
        cost = problem.cost
        value = cost(network, problem.inputs, problem.targets) if callable(cost) else cost
        arrays["J"] = np.array(float(value))
    arrays["spec"] = np.array(json.dumps(_spec_of(problem), ensure_ascii=False))
    return arrays


def _spec_of(problem: Problem) -> dict[str, Any]:
    network = problem.network
    own = [a.name for a in network.activations if a.entry is None]
    own += [network.loss.name] if network.loss.entry is None else []
    if own:
        raise InputError(
            f"{own[0]!r}, a function of your own",
            "activations and a loss that fastcheck has, since a file can't hold a function",
            "Check it from Python with fastcheck.gradcheck.",
        )
    spec: dict[str, Any] = {
        "activations": [a.spec() for a in network.activations],
        "loss": network.loss.spec(),
        "l2": network.l2,
        "penalty": network.penalty,
        "reduction": network.reduction,
        "layout": network.layout,
    }
    spec |= {"loss_scale": network.loss_scale} if network.loss_scale != 1.0 else {}
    names = {f"{b.kind}{b.layer}": b.name for b in network.order.blocks}
    own_names = {ours: name for ours, name in names.items() if ours != name}
    spec |= {"names": own_names} if own_names else {}
    return spec | ({"name": problem.name} if problem.name else {})
