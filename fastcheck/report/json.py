"""Reports as JSON, out and in without loss: floats to the last bit, NaN and infinity too.

JSON has no NaN and no infinity; they are written as `{"$float": "NaN"}`, `"Infinity"` and
`"-Infinity"`.
"""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from fastcheck.errors import InputError, printable
from fastcheck.report.data import Report
from fastcheck.verdict.verdict import GRADES, SEVERITIES

__all__ = ["FORMAT", "VERSION", "from_json", "to_json"]

T = TypeVar("T")

FORMAT = "fastcheck report"
VERSION = 1
# Written for other programs to read; they follow from the rest and are not read back.
SUMMARY = ("passed", "status", "grade", "difference")
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# What some fields may say: the texts and pages look these up.
CHOICES: dict[str, tuple[str, ...]] = {
    "Report.gradient_status": ("agree", "vacuous", "cannot tell", "wrong"),
    "Report.gradient_grade": GRADES,
    "BlockVerdict.status": SEVERITIES,
    "BlockVerdict.grade": GRADES,
    "ComponentVerdict.status": SEVERITIES,
    "ContractLine.status": SEVERITIES,
}
LARGEST_INTEGER = 2**63
NAMES = {repr(value): name for name, value in NOT_FINITE.items()}


def to_json(report: Report, *, indent: int | None = 2) -> str:
    """Return a report as JSON.

    Parameters
    ----------
    report : Report
    indent : int or None
        None for a single line.
    """
    document = {"format": FORMAT, "version": VERSION}
    document |= {name: encode(getattr(report, name)) for name in SUMMARY}
    document |= encode(report)
    return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)


def encode(value: Any) -> Any:
    """Return plain data as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = [f.name for f in fields(value) if f.metadata.get("plain", True)]
        return {name: encode(getattr(value, name)) for name in plain}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": NAMES[repr(float(value))]}
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "item"):  # a NumPy number
        return encode(value.item())
    raise TypeError(f"no JSON for {type(value).__name__}")


def from_json(text: str) -> Report:
    """Read a report.

    Parameters
    ----------
    text : str
        What `to_json` wrote.

    Raises
    ------
    InputError
        For text that is no such report, or that a newer fastcheck wrote.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"text that is no JSON ({error})", "a report written as JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError("JSON that is no report", f'an object with "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise InputError(
            f"a report of version {document.get('version')}",
            f"version {VERSION}",
            "Read it with the fastcheck that wrote it.",
        )
    return _dataclass(Report, document, "report")


def _dataclass(cls: type[T], value: Any, place: str) -> T:
    """Return a dataclass of the entries that it knows; all without a default must be there."""
    if not isinstance(value, dict):
        raise _unexpected(value, "an object", place)
    plain = {f.name for f in fields(typing.cast(Any, cls)) if f.metadata.get("plain", True)}
    hints = {k: v for k, v in _hints(typing.cast(Any, cls)).items() if k in plain}
    known = {k: _decode(hints[k], v, f"{place}.{k}") for k, v in value.items() if k in hints}
    for name, said in known.items():
        choices = CHOICES.get(f"{cls.__name__}.{name}")
        if choices and said not in choices:
            raise _unexpected(said, f"one of {', '.join(choices)}", f"{place}.{name}")
    try:
        return cls(**known)
    except ValueError as error:
        raise InputError(f"{place} with {error}", "a whole report") from None
    except TypeError:
        missing = sorted(set(hints) - set(known))
        raise InputError(f"{place} without {', '.join(missing)}", "a whole report") from None


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, value: Any, place: str) -> Any:
    """Return a JSON value as what a type hint asks for."""
    value = _not_finite(value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _any(value)
    if origin in (types.UnionType, typing.Union):
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _decode(inner, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _unexpected(value, "a list", place)
        return tuple(_decode(args[0], v, f"{place}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _unexpected(value, "an object", place)
        return {k: _decode(args[1], v, f"{place}.{k}") for k, v in value.items()}
    if is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), value, place)
    return _scalar(hint, value, place)


def _any(value: Any) -> Any:
    """Return free JSON values, with NaN and infinity put back."""
    value = _not_finite(value)
    if isinstance(value, dict):
        return {printable(k): _any(v) for k, v in value.items()}
    if isinstance(value, str):
        return printable(value)
    return [_any(v) for v in value] if isinstance(value, list) else value


def _not_finite(value: Any) -> Any:
    """Return NaN or infinity where a value stands for one."""
    if isinstance(value, dict) and set(value) == {"$float"} and isinstance(value["$float"], str):
        return NOT_FINITE.get(value["$float"], value)
    return value


def _scalar(hint: type, value: Any, place: str) -> Any:
    if hint is float and type(value) is int and abs(value) < LARGEST_INTEGER:
        return float(value)
    if type(value) is str and hint is str:
        return printable(value)
    if type(value) is not hint or (type(value) is int and abs(value) >= LARGEST_INTEGER):
        raise _unexpected(
            value, {float: "a number", int: "a whole number"}.get(hint, hint.__name__), place
        )
    return value


def _unexpected(value: Any, expected: str, place: str) -> InputError:
    return InputError(f"{place} is {str(value)[:40]!r}", expected)
