"""A backward pass without differences: determinism, linearity, strides, precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.model.contract import ContractLine
from fastcheck.model.layer import (
    Gradients,
    Layer,
    copied_all,
    cotangents,
    inner_product,
    is_real,
    like,
    numbers,
    precision_of_inputs,
    widened,
)
from fastcheck.model.user_calls import _equal, copied
from fastcheck.validation import unit_roundoff

__all__ = ["Subject", "contract_lines", "misshapen"]

Array = NDArray[Any]

# Two results that differ by no more, relative to the largest component, differ by rounding.
RELATIVE = {"float64": 1e-7, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
SCATTER_FACTOR = 30.0
ROUNDINGS = 1e3
ULPS = 2.0  # by which inputs are moved to measure the rounding of a gradient
SCATTER_CALLS = 2
STRIDE_PADDING = 3
# A gradient of another shape: the step of a look at a changed one, and what that may be off by.
FITTING_STEP = {"float64": 1e-5, "float32": 1e-2, "float16": 0.1, "bfloat16": 0.2}
FITTING_SHARE = {"float64": 1e-3, "float32": 0.02, "float16": 0.1, "bfloat16": 0.1}
FITTING_DIRECTIONS = 3


@dataclass
class Subject:
    """A backward pass at some inputs, with what it returned there.

    Attributes
    ----------
    layer : Layer
    dout : tuple
    first : Gradients
    seed : int
    """

    layer: Layer
    dout: tuple[Any, ...]
    first: Gradients
    seed: int
    _scatter: dict[str, float] | None = None

    @cached_property
    def precision(self) -> str:
        """The coarsest of the inputs."""
        return precision_of_inputs(self.layer)

    @property
    def scatter(self) -> dict[str, float]:
        """How far the largest component of each gradient moves with the last bits of the inputs."""
        if self._scatter is None:
            self._scatter = self._measured()
        return self._scatter

    def _measured(self) -> dict[str, float]:
        found = dict.fromkeys(self.first.values, 0.0)
        random = np.random.default_rng([self.seed, 5])
        for _ in range(SCATTER_CALLS):
            moved = {k: _moved(v, random, self.precision) for k, v in self.layer.inputs.items()}
            try:
                there = self.layer.at(moved).gradients(self.dout).values
            except Exception:  # not defined beside the inputs
                return found
            for name, value in self.first.values.items():
                if name in there and there[name].shape == value.shape:
                    found[name] = max(found[name], _largest(there[name] - value))
        return {name: value if np.isfinite(value) else 0.0 for name, value in found.items()}

    def apart(self, a: dict[str, Array], b: dict[str, Array]) -> list[str]:
        """Return the names of gradients that differ by more than rounding."""
        return [n for n in self.unequal(a, b) if n not in a or not self._close(a[n], b[n], n)]

    def unequal(self, a: dict[str, Array], b: dict[str, Array]) -> list[str]:
        """Return the names of gradients that differ by more than the order of a sum does."""
        return [n for n in b if n not in a or not self._close(a[n], b[n])]

    def _close(self, a: Array, b: Array, scattered: str = "") -> bool:
        if a.shape != b.shape:
            return False
        precision = self.precision
        size = max(_largest(a), _largest(b))
        everything = max((_largest(v) for v in self.first.values.values()), default=0.0)
        everything += max((_largest(numbers(d)) for d in self.dout if d is not None), default=0.0)
        allowed = RELATIVE[precision] * size + ROUNDINGS * unit_roundoff(precision) * everything
        if scattered:
            allowed += SCATTER_FACTOR * self.scatter.get(scattered, 0.0)
        wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
        return bool(_largest(a.astype(wide) - b.astype(wide)) <= allowed)


def _fresh(layer: Layer) -> Layer:
    """Return the layer with inputs of its own, which are handed over as they are."""
    return replace(layer, inputs=copied_all(layer.inputs), copies=False)


def _largest(values: Array) -> float:
    return float(np.max(np.abs(values), initial=0.0)) if values.size else 0.0


def _moved(value: Any, random: np.random.Generator, precision: str) -> Any:
    """Return an input moved by some units in its last place."""
    if not is_real(value):
        return value
    array = numbers(value)
    ulp = 2.0 * unit_roundoff(precision)
    return like(
        value, np.asarray(array * (1.0 + ULPS * ulp * (2.0 * random.random(array.shape) - 1.0)))
    )


def misshapen(subject: Subject) -> dict[str, str]:
    """Return gradients whose shape is not their input's, with what is wrong of each."""
    found = {}
    for name, value in subject.first.values.items():
        shape = numbers(subject.layer.inputs[name]).shape
        if value.shape != shape:
            reason = _reason(subject, name, shape)
            found[name] = f"d{name} has shape {value.shape}, {name} has {shape}{reason}"
    return found


def _reason(subject: Subject, name: str, right: tuple[int, ...]) -> str:
    """Return which change would make a gradient of another shape the right one."""
    value = subject.first.values[name]
    for text, candidate in _reshaped(value, right):
        if candidate.shape == right and _fits(subject, name, candidate):
            return f": {text}"
    return ""


def _reshaped(value: Array, right: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Yield what a gradient of another shape may have been meant to be."""
    given, extra = value.shape, value.ndim - len(right)
    yield "it is transposed", value.T
    if value.size == math.prod(right):
        yield "it only needs another shape", value.reshape(right)
        return
    if extra > 0:
        axes = "axis 0" if extra == 1 else f"the first {extra} axes"
        yield f"the sum over {axes} is missing", value.sum(axis=tuple(range(extra)))
    if extra == 0:
        pairs = zip(given, right, strict=True)
        wider = tuple(k for k, (a, b) in enumerate(pairs) if a != b and b == 1)
        axes = "axis " + " and ".join(map(str, wider))
        yield f"the sum over {axes} is missing", value.sum(axis=wider, keepdims=True)


def _fits(subject: Subject, name: str, gradient: Array) -> bool:
    """Return whether J moves along some directions of an input as a gradient says."""
    random = np.random.default_rng([subject.seed, 13])
    try:
        return all(_fits_along(subject, name, gradient, random) for _ in range(FITTING_DIRECTIONS))
    except Exception:  # not defined beside the inputs
        return False


def _fits_along(subject: Subject, name: str, gradient: Array, random: np.random.Generator) -> bool:
    layer, precision = subject.layer, subject.precision
    start = layer.inputs[name]
    values = widened(start)
    step = FITTING_STEP[precision] * (_largest(values) or 1.0)
    move = step * random.uniform(0.5, 1.5, values.shape) * random.choice([-1.0, 1.0], values.shape)
    ends = [like(start, np.asarray(values + sign * move)) for sign in (1.0, -1.0)]
    high, low = (
        inner_product(subject.dout, layer.at({**layer.inputs, name: end}).outputs()) for end in ends
    )
    terms = np.conj(gradient) * (widened(ends[0]) - widened(ends[1]))
    apart = abs(float(terms.sum().real) - (high - low))
    return apart <= FITTING_SHARE[precision] * float(np.linalg.norm(terms.ravel()))


def contract_lines(
    subject: Subject, wide: Layer | None, skip: tuple[str, ...]
) -> Iterator[ContractLine]:
    """Yield the lines that need no differences.

    Parameters
    ----------
    subject : Subject
    wide : Layer or None
        The same layer in float64, where it has less.
    skip : tuple of str
        Lines that the user leaves out.
    """
    checks: dict[str, Callable[[Subject], ContractLine | tuple[str, str]]] = {
        "shapes and dtypes": _shapes,
        "deterministic": _deterministic,
        "arguments unchanged": _unchanged,
        "linear in dout": _linear,
        "dout of zeros": _zeros,
        "strides of dout": _strides_of_dout,
        "expanded dout": _expanded,
        "strides of inputs": _strides_of_inputs,
        "precision": lambda s: _precisions(s, wide),
    }
    for name, check in checks.items():
        if name in skip:
            continue
        if not subject.first.finite and check is not _shapes:
            yield ContractLine(name, "not checked", "the gradient is not finite")
            continue
        try:
            status, text = check(subject)  # type: ignore[misc]
        except InputError:
            raise
        except Exception as error:
            status, text = "not checked", _raised(error)
        yield ContractLine(name, status, text)


def _raised(error: Exception) -> str:
    return f"raises {type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _listed(names: list[str]) -> str:
    return ", ".join(f"d{name}" for name in names)


def _shapes(subject: Subject) -> tuple[str, str]:
    wrong = list(misshapen(subject).values())
    for name, value in subject.first.values.items():
        given = numbers(subject.layer.inputs[name])
        if value.dtype.kind == "c" and given.dtype.kind != "c" and np.any(value.imag):
            wrong.append(f"d{name} is complex, {name} is not")
        if not np.isfinite(value).all():
            wrong.append(f"d{name} holds NaN or infinity")
    if wrong:
        return "wrong", "; ".join(wrong)
    others = [
        f"d{name} is {value.dtype}, {name} is {numbers(subject.layer.inputs[name]).dtype}"
        for name, value in subject.first.values.items()
        if value.dtype != numbers(subject.layer.inputs[name]).dtype
    ]
    return "agree", "; ".join(others)


def _deterministic(subject: Subject) -> tuple[str, str]:
    """Call backward twice with what one forward pass saved, and once with another pass's."""
    memory = subject.layer.run()[1]
    again = subject.layer.gradients(subject.dout, memory).values
    third = subject.layer.gradients(subject.dout, memory).values
    for found in (again, third):
        apart = subject.unequal(found, subject.first.values)
        if apart:
            return "wrong", f"{_listed(apart)} is another one at the next call with the same dout"
    same = all(np.array_equal(v, third[n], equal_nan=True) for n, v in again.items())
    return "agree", "" if same else "the last bits vary, as with atomic additions"


def _unchanged(subject: Subject) -> tuple[str, str]:
    layer = subject.layer
    own = _fresh(layer)
    dout = tuple(copied(part) for part in subject.dout)
    memory = own.run()[1]
    wrote = [f"forward writes into {n}" for n in _changed(layer.inputs, own.inputs)]
    before = copied_all(own.inputs)
    saved = _parts(memory)
    kept = [copied(part) for part in saved]
    own.called(dout, memory)
    wrote += [f"backward writes into {n}" for n in _changed(before, own.inputs)]
    if not all(_equal(a, b) for a, b in zip(subject.dout, dout, strict=True) if a is not None):
        wrote.append("backward writes into dout")
    if not all(_equal(a, b) for a, b in zip(kept, saved, strict=True)):
        wrote.append("backward writes into what forward saved")
    return ("wrong", "; ".join(wrote)) if wrote else ("agree", "")


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in before.items()
        if hasattr(value, "shape") and not _equal(value, after[name])
    ]


def _parts(memory: Any) -> list[Any]:
    """Return the arrays that forward saved, in any nesting."""
    if isinstance(memory, dict):
        memory = list(memory.values())
    if isinstance(memory, (list, tuple)):
        return [part for entry in memory for part in _parts(entry)]
    return [memory] if hasattr(memory, "shape") and hasattr(memory, "dtype") else []


def _combined(template: tuple[Any, ...], *terms: tuple[float, tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return a sum of multiples of cotangents."""
    return tuple(
        None if part is None else like(part, sum(a * numbers(d[k]) for a, d in terms))  # type: ignore[arg-type]
        for k, part in enumerate(template)
    )


def _linear(subject: Subject) -> tuple[str, str]:
    """Compare backward(2·d − e) with 2·backward(d) − backward(e), and backward(1000·d)."""
    random = np.random.default_rng([subject.seed, 6])
    other = cotangents(subject.layer.outputs(), random)
    e = subject.layer.gradients(other).values
    both = _combined(subject.dout, (2.0, subject.dout), (-1.0, other))
    found = subject.layer.gradients(both).values
    if not all(np.isfinite(value).all() for value in found.values()):
        return "not checked", "a sum of two douts overflows"
    d = subject.first.values
    wrong = subject.apart(found, {name: 2.0 * d[name] - e[name] for name in d if name in e})
    scale = 16.0 if subject.precision == "float16" else 1024.0
    large = subject.layer.gradients(_combined(subject.dout, (scale, subject.dout))).values
    if all(np.isfinite(value).all() for value in large.values()):  # else it overflows
        scaled = {name: value / scale for name, value in large.items()}
        wrong += [name for name in subject.apart(scaled, d) if name not in wrong]
    if wrong:
        return "wrong", f"{_listed(wrong)} of a sum of two douts is not the sum of theirs"
    return "agree", ""


def _zeros(subject: Subject) -> tuple[str, str]:
    nothing = _combined(subject.dout, (0.0, subject.dout))
    found = subject.layer.gradients(nothing).values
    wrong = [name for name, value in found.items() if _largest(value) != 0.0]
    wrong = [
        n for n in wrong if not _largest(found[n]) <= 1e-12 * _largest(subject.first.values[n])
    ]
    return ("wrong", f"{_listed(wrong)} is not 0 for a dout of zeros") if wrong else ("agree", "")


def _layouts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the same numbers with other strides."""
    if hasattr(value, "detach") and value.dim() > 0:
        wide = value.detach().repeat_interleave(2, dim=-1)
        yield "non-contiguous", wide[..., ::2]
        if value.dim() > 1:
            yield "transposed", value.detach().transpose(0, -1).contiguous().transpose(0, -1)
    elif isinstance(value, np.ndarray) and value.ndim > 0:
        padded = np.full((*value.shape[:-1], STRIDE_PADDING * value.shape[-1]), 7, value.dtype)
        padded[..., ::STRIDE_PADDING] = value
        yield "non-contiguous", padded[..., ::STRIDE_PADDING]
        yield (
            "reversed",
            np.ascontiguousarray(np.flip(value))[(slice(None, None, -1),) * value.ndim],
        )
        if value.ndim > 1:
            yield "in Fortran order", np.asfortranarray(value)


def _strides_of_dout(subject: Subject) -> tuple[str, str]:
    refused: list[str] = []
    options = [dict(_layouts(part)) for part in subject.dout if part is not None]
    kinds = list(dict.fromkeys(kind for option in options for kind in option))
    if not kinds:
        return "not checked", "these arrays have no strides"
    for kind in kinds:
        made = tuple(
            None if part is None else dict(_layouts(part)).get(kind, part) for part in subject.dout
        )
        wrong = _tried(partial(_fresh(subject.layer).called, made), subject, refused, kind)
        if wrong:
            return "wrong", f"{_listed(wrong)} is another one where dout is {kind}"
    return ("not checked", refused[0]) if refused else ("agree", ", ".join(kinds))


def _tried(call: Callable[[], Any], subject: Subject, refused: list[str], kind: str) -> list[str]:
    """Return the gradients that differ; what is refused by an exception is no wrong gradient."""
    try:
        found = subject.layer.read(call()).values
    except Exception as error:
        refused.append(f"{kind}: {_raised(error)}")
        return []
    return subject.apart(found, subject.first.values)


def _expanded(subject: Subject) -> tuple[str, str]:
    """Hand over the dout that `out.sum()` makes: one number with strides of 0."""
    views = tuple(None if part is None else _one(part) for part in subject.dout)
    if all(view is None for view in views):
        return "not checked", "these arrays have no strides"
    full = tuple(None if v is None else like(v, np.ones_like(numbers(v))) for v in views)
    expected = subject.layer.gradients(full).values
    try:
        found = _fresh(subject.layer).gradients(views).values
    except Exception as error:
        if "read-only" in str(error):
            return "wrong", "backward writes into dout"
        return "not checked", _raised(error)
    wrong = subject.apart(found, expected)
    if wrong:
        return "wrong", f"{_listed(wrong)} is another one where dout is expanded (stride 0)"
    return "agree", ""


def _one(part: Any) -> Any:
    if hasattr(part, "detach"):
        return part.detach().new_ones(()).expand(part.shape)
    if isinstance(part, np.ndarray):
        return np.broadcast_to(np.ones((), part.dtype), part.shape)
    return None


def _strides_of_inputs(subject: Subject) -> tuple[str, str]:
    layer, seen = subject.layer, list[str]()
    refused: list[str] = []
    for name, value in layer.inputs.items():
        for kind, other in _layouts(value) if hasattr(value, "shape") else ():
            moved = _fresh(layer)
            moved = moved.at({**moved.inputs, name: other})
            seen.append(kind)
            wrong = _tried(partial(moved.called, subject.dout), subject, refused, f"{name} {kind}")
            if wrong:
                return "wrong", f"{_listed(wrong)} is another one where {name} is {kind}"
    if not seen:
        return "not checked", "these arrays have no strides"
    return ("not checked", refused[0]) if refused else ("agree", "")


def _precisions(subject: Subject, wide: Layer | None) -> tuple[str, str]:
    """Hold the gradients in float32 to those in float64."""
    if wide is None:
        return "not checked", "forward takes one precision"
    narrow, same = subject, wide
    if subject.precision == "float64":
        narrow = _narrowed(subject)
        inputs = narrow.layer.inputs
        same = wide.at({n: cast(v, np.float64) if is_real(v) else v for n, v in inputs.items()})
    expected = same.gradients(tuple(_wider(part) for part in narrow.dout)).values
    wrong = narrow.apart(narrow.first.values, expected)
    pair = f"{narrow.precision} against float64"
    if wrong:
        return "wrong", f"{pair}: {_listed(wrong)} is another one"
    return "agree", pair


def _narrowed(subject: Subject) -> Subject:
    """Return the subject in float32."""
    layer = subject.layer
    inputs = {n: cast(v, np.float32) if is_real(v) else v for n, v in layer.inputs.items()}
    dout = tuple(None if part is None else cast(part, np.float32) for part in subject.dout)
    narrow = layer.at(inputs)
    first = narrow.gradients(dout)
    return Subject(narrow, dout, first, subject.seed)


def _wider(part: Any) -> Any:
    return None if part is None else cast(part, np.float64)


def cast(value: Any, dtype: Any) -> Any:
    """Return an array in another precision, complex numbers in the one that matches."""
    if hasattr(value, "detach"):
        import torch

        wide = dtype == np.float64
        if value.is_complex():
            return value.detach().to(torch.complex128 if wide else torch.complex64)
        return value.detach().to(torch.float64 if wide else torch.float32)
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return value.astype(dtype)
    array = np.asarray(value)
    if array.dtype.kind == "c":
        dtype = np.complex128 if dtype == np.float64 else np.complex64
    return array.astype(dtype)
