"""What the command's TARGET stands for: a file, or a `Problem` in a module or a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fastcheck.errors import InputError, near_names
from fastcheck.importers import FORMATS, read_problem
from fastcheck.model.problem import Problem

__all__ = ["failure", "find_problem"]

PYTHON_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
FORMS = "a problem.npz (.safetensors, .onnx), module:attribute or file.py:attribute"
PACKAGE = str(Path(__file__).parent)


def find_problem(target: str, gradient: Path | None = None) -> Problem:
    """Return the problem that a TARGET stands for.

    Parameters
    ----------
    target : str
        A .npz, .safetensors or .onnx file; `module:attribute` or `file.py:attribute`, where the
        attribute is a `Problem` or a function without parameters that returns one.
    gradient : path, optional
        The second file of a problem in two, as an .onnx file is; not looked at for others.

    Raises
    ------
    InputError
        If there is no such file, module or attribute, if running it fails, and for all that
        `read_problem` refuses.
    """
    place, colon, attribute = target.rpartition(":")
    if not target.endswith(tuple(FORMATS)) and colon and PYTHON_NAME.fullmatch(attribute):
        if place.endswith(".py"):
            return _problem(_from_file(Path(place)), attribute, target)
        if PYTHON_NAME.fullmatch(place):
            return _problem(_from_path(place), attribute, target)
    file = Path(target)
    if file.suffix == ".py":
        raise InputError(
            f"{target} without an attribute",
            f"{target}:attribute, a Problem or a function that returns one",
            f"For example {target}:problem.",
        )
    if file.exists() or file.suffix in FORMATS:
        return read_problem(file, **({} if gradient is None else {"gradient": gradient}))
    raise InputError(
        f"TARGET {target!r}", FORMS, "Start from the file of fastcheck --write-example FILE."
    )


def _from_file(file: Path) -> ModuleType:
    """Run a Python file and return it as a module."""
    if not file.is_file():
        raise InputError(f"no file {file}", "a Python file")
    name = f"fastcheck_target_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} can't be loaded", "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent.resolve()))
    with _failures_explained(str(file)):
        spec.loader.exec_module(module)
    return module


def _from_path(name: str) -> ModuleType:
    """Import a module; those in the working folder are found too."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        hint = f"For a file, write {name}.py:attribute." if Path(f"{name}.py").is_file() else ""
        raise InputError(
            f"no module {name!r}",
            "a module that Python can import from here",
            hint or "Change to its folder, install it, or write path/to/file.py:attribute.",
        )
    with _failures_explained(f"module {name}"):
        return importlib.import_module(name)


def _problem(module: ModuleType, attribute: str, target: str) -> Problem:
    """Return the attribute if it is a problem, or call it if it is a function that makes one."""
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            named = [n for n in dir(module) if not n.startswith("_")]
            problems = [n for n in named if isinstance(getattr(module, n), Problem)]
            raise InputError(
                f"{target}: there is no {part!r}",
                "a Problem or a function that returns one",
                near_names(part, problems or named) if named else "",
            )
        value = getattr(value, part)
    if callable(value) and not isinstance(value, Problem):
        _check_parameters(value, target)
        with _failures_explained(target):
            value = value()
    if not isinstance(value, Problem):
        raise InputError(
            f"{target} gives {type(value).__name__}",
            "a fastcheck.Problem",
            "Return fastcheck.Problem(network, inputs, targets, gradient).",
        )
    return value


def _check_parameters(function: Any, target: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise InputError(
            f"{target} needs {', '.join(needed)}",
            "a Problem, or a function without parameters that returns one",
            "Wrap it in a function that passes them.",
        )


@contextmanager
def _failures_explained(place: str) -> Iterator[None]:
    """Turn whatever somebody's code raises into one line that says where."""
    try:
        yield
    except (KeyboardInterrupt, InputError):
        raise
    except BaseException as error:  # SystemExit too: the check ends with its own exit code
        raise InputError(
            f"{place} failed: {failure(error)}", "a Problem", "Run it with Python to see more."
        ) from error


def failure(error: BaseException) -> str:
    """Return an exception in one line, with the place in the user's own code where it arose."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _foreign(f.filename)]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text


def _foreign(file: str) -> bool:
    """Return whether a file is fastcheck's, a library's or the interpreter's."""
    folders = (PACKAGE, str(Path(traceback.__file__).parent))
    return file.startswith(folders) or "site-packages" in file or file.startswith("<")
