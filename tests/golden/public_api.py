"""The public API as text: names, signatures, fields, options, JSON keys, documented paths."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fastcheck
from fastcheck import Report, pytest_plugin
from tests.golden.problems import CASES, FUNCTIONS

FILE = Path(__file__).parent / "public_api.txt"
ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATH = re.compile(r"\bfastcheck(?:\.[A-Za-z_]\w*)+")
# Written with a dot, and no path: files, and what users call on an object of their own.
NO_PATHS = re.compile(r"\.(?:md|npz|html|json|xml|txt|png|yml|toml)$")
STARS: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}
# Reports with keys of every kind.
REPORTED = ("sample wrong", "kinks relu sampled", "trained", "one row", "function cubic")


def document() -> str:
    """Return the whole file."""
    sections = {
        "names of fastcheck": names(),
        "records of a report": records(),
        "options of functions": options(),
        "fastcheck --help": command_options(),
        "fastcheck explain --help": command_options("explain"),
        "pytest plugin": plugin_options(),
        "keys of a report's JSON": json_keys(),
        "paths in the documentation": documented_paths(),
    }
    return "\n".join("\n".join([f"## {title}", *lines, ""]) for title, lines in sections.items())


def names() -> list[str]:
    """Return the names that `fastcheck` exports, with signatures and members."""
    lines: list[str] = ["__version__"]
    for name in sorted(fastcheck.__all__):
        lines += _described(name, getattr(fastcheck, name))
    lines += _described("pytest_plugin.GradientFixture", pytest_plugin.GradientFixture)
    return lines


def records() -> list[str]:
    """Return the fields and members of the dataclasses that hang on a report."""
    found = [cls for cls in _reachable(Report) if cls is not Report]
    return [line for cls in found for line in _described(cls.__name__, cls)]


def options() -> list[str]:
    """Return the keys of the TypedDicts that are options of public functions."""
    found: dict[str, Any] = {}
    for name in sorted(fastcheck.__all__):
        value = getattr(fastcheck, name)
        members = [getattr(value, m) for m in dir(value)] if inspect.isclass(value) else [value]
        for function in members:
            found |= _unpacked(function)
    return [
        f"{name}.{key}: {getattr(kind, '__forward_arg__', kind)}"
        for name, cls in sorted(found.items())
        for key, kind in sorted(cls.__annotations__.items())
    ]


def _unpacked(function: Any) -> dict[str, Any]:
    """Return the TypedDicts of a function's `**options: Unpack[…]` by name."""
    plain = getattr(function, "__func__", function)
    written = " ".join(map(str, getattr(plain, "__annotations__", {}).values()))
    return {name: plain.__globals__[name] for name in re.findall(r"\bUnpack\[(\w+)\]", written)}


def command_options(*words: str) -> list[str]:
    """Return the options and arguments that `--help` shows, with their metavars."""
    plain = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    ran = subprocess.run(
        [sys.executable, "-m", "fastcheck", *words, "--help"],
        env=plain, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    rows = re.findall(r"^\W*?(--[a-z][a-z0-9-]*|\[?[A-Z]+\]?)(?: +([A-Z]+)\b)?  ", ran.stdout, re.M)
    return sorted({" ".join(filter(None, row)) for row in rows})


class _Options:
    """Stands in for pytest's parser and writes down what the plugin adds."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def getgroup(self, name: str, *_: Any, **__: Any) -> _Options:
        self.lines.append(f"group {name}")
        return self

    def addoption(self, *names: str, **attributes: Any) -> None:
        shown = {k: attributes[k] for k in ("metavar", "choices", "default") if k in attributes}
        self.lines.append(" ".join([*names, *(f"{k}={v!r}" for k, v in shown.items())]))

    addini = addoption


def plugin_options() -> list[str]:
    """Return the options, the fixture and the marker that the pytest plugin adds."""
    parser = _Options()
    pytest_plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    fixture = typing.cast(Any, pytest_plugin.gradcheck)
    return [*parser.lines, f"fixture {fixture.__name__}", f"marker {pytest_plugin.MARKER}"]


def json_keys() -> list[str]:
    """Return the keys of reports' JSON, each with the types that were seen."""
    reports = [(CASES[n].report if n in CASES else FUNCTIONS[n])() for n in REPORTED]
    seen: dict[str, set[str]] = {}
    for report in (*reports, reports[0].with_pictures()):
        for key, kind in _keys(json.loads(report.to_json()), ""):
            seen.setdefault(key, set()).add(kind)
    return [f"{key}: {' | '.join(sorted(kinds))}" for key, kinds in sorted(seen.items())]


def documented_paths() -> list[str]:
    """Return the dotted names under `fastcheck` that README and docs/ write."""
    found = {path for page in PAGES for path in PATH.findall(page.read_text("utf-8"))}
    return sorted(path for path in found if not NO_PATHS.search(path))


def resolve(path: str) -> Any:
    """Import what a dotted name names.

    Raises
    ------
    ImportError, AttributeError
        Where there is none.
    """
    words = path.split(".")
    for count in range(len(words), 0, -1):
        module = ".".join(words[:count])
        try:
            value: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            continue
        for word in words[count:]:
            value = getattr(value, word)
        return value
    raise ImportError(path)


def _described(name: str, value: Any) -> list[str]:
    """Return a name with its signature; a class with its fields and members too."""
    if not inspect.isclass(value):
        return [f"{name}{_signature(value)}"]
    if is_dataclass(value):
        own = [f"{name}.{f.name}: {f.type}{_default(f)}" for f in fields(value)]
    else:
        own = [f"{name}{_signature(value)}"]
    return [*own, *(f"{name}.{line}" for line in _members(value))]


def _default(field: Field[Any]) -> str:
    """Return what a field is where it is not given."""
    if field.default_factory is not MISSING:
        return f" = {field.default_factory()!r}"
    return "" if field.default is MISSING else f" = {field.default!r}"


def _members(cls: type) -> Iterator[str]:
    """Yield the public methods and properties of a class, those of its bases too."""
    plain = {f.name for f in fields(cls)} if is_dataclass(cls) else set()
    for name in sorted(set(dir(cls)) - plain):
        value = inspect.getattr_static(cls, name)
        if (name.startswith("_") and name != "__call__") or _foreign(cls, name):
            continue
        if isinstance(value, (property, cached_property)):
            getter: Any = value.fget if isinstance(value, property) else value.func
            yield f"{name} -> {getter.__annotations__.get('return')}"
        elif callable(getattr(cls, name)):
            yield f"{name}{_signature(getattr(cls, name))}"


def _foreign(cls: type, name: str) -> bool:
    """Whether a member comes from Python's own classes, as an exception's do."""
    owner = next(base for base in cls.__mro__ if name in vars(base))
    return not owner.__module__.startswith("fastcheck")


def _signature(value: Any) -> str:
    """Return a signature, annotations as they are written."""
    found = inspect.signature(value)
    words = []
    mark = ""
    for parameter in found.parameters.values():
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and mark != "*":
            words.append("*")
        mark = "*" if kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL) else mark
        star = STARS.get(kind, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        words.append(f"{star}{parameter.name}{_annotation(parameter.annotation)}{default}")
    returned = found.return_annotation
    arrow = "" if returned in (found.empty, None, "None") else f" -> {returned}"
    return f"({', '.join(words)}){arrow}"


def _annotation(annotation: Any) -> str:
    return "" if annotation is inspect.Parameter.empty else f": {annotation}"


def _reachable(cls: type, seen: tuple[type, ...] = ()) -> tuple[type, ...]:
    """Return a dataclass and those that its fields hold, each once."""
    if cls in seen:
        return seen
    seen = (*seen, cls)
    plain = {f.name for f in fields(typing.cast(Any, cls)) if f.metadata.get("plain", True)}
    for name, hint in typing.get_type_hints(cls).items():
        for kind in _kinds(hint) if name in plain else ():
            if is_dataclass(kind):
                seen = _reachable(typing.cast(type, kind), seen)
    return seen


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types that a type hint is made of."""
    yield hint
    for argument in typing.get_args(hint):
        yield from _kinds(argument)


def _keys(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a JSON document with its type; `[]` stands for a list's items."""
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    kind = kinds.get(type(value), "number")
    if place and kind not in ("object", "list"):
        yield place, kind
    if isinstance(value, dict):
        if set(value) == {"$float"}:
            yield place, "number"
            return
        place = place.removeprefix("after_training[]")  # a report, too
        for key, item in value.items():
            free = place.endswith(("run.versions", "run.seconds"))
            yield from _keys(item, f"{place}.{'*' if free else key}".lstrip("."))
    elif isinstance(value, list):
        yield place, "list"
        for item in value:
            yield from _keys(item, f"{place}[]")
