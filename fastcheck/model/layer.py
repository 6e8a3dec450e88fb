"""A layer: forward and backward, its inputs by name, and J = Σ⟨dout, forward⟩."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.model.leaves import conversion_of
from fastcheck.model.user_calls import copied
from fastcheck.types import Floats
from fastcheck.validation import finite_array, lower_precision, precision_of

__all__ = ["Gradients", "Layer", "cotangents", "inputs_by_name", "numbers"]

Array = NDArray[Any]
Values = dict[str, Any]


def numbers(values: Any) -> Array:
    """Return an array or a tensor as a NumPy array of its dtype; bfloat16 becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().resolve_conj().resolve_neg().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
    array = np.asarray(values)
    return array.astype(np.float32) if _is_bfloat16(array.dtype) else array


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    # The name of a dtype takes NumPy longer than a small forward pass does; of this kind are few.
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_real(value: Any) -> bool:
    """Return whether a value holds floating-point numbers, real or complex."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return False
    return numbers(value).dtype.kind in "fc"


def inputs_by_name(given: Any, forward: Callable[..., Any]) -> Values:
    """Return inputs by name, in the order that forward takes them in.

    Parameters
    ----------
    given : mapping, sequence of inputs, or a single array
        A mapping whose keys are all parameters of `forward` is put into the order of these.
    forward : callable
    """
    parameters = _parameters(forward)
    if isinstance(given, Mapping):
        names = [str(name) for name in given]
        if set(names) <= set(parameters):
            names.sort(key=parameters.index)
        return {name: given[name] for name in names}
    if not isinstance(given, (list, tuple)):
        given = (given,)
    if len(parameters) < len(given):
        parameters = [f"x{k}" for k in range(len(given))]
    return dict(zip(parameters, given, strict=False))


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of positional parameters; none where they can't be known."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in found if p.kind in kinds]


@dataclass(frozen=True)
class Gradients:
    """What backward returned, by input.

    Attributes
    ----------
    values : dict of str to ndarray
        Copies; only of inputs that hold floating-point numbers.
    missing : tuple of str
        Inputs of floating-point numbers whose gradient is None.
    """

    values: dict[str, Array]
    missing: tuple[str, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all are finite."""
        return all(bool(np.isfinite(value).all()) for value in self.values.values())


@dataclass(frozen=True)
class Layer:
    """A layer at some inputs.

    Attributes
    ----------
    forward, backward : callable
        `forward(*inputs)`, and `backward(dout, *inputs)` or `backward(dout, saved)`.
    inputs : dict of str to Any
    saved : bool
        Whether forward returns `(out, saved)`.
    copies : bool
        Whether both get copies: set where one of them writes into what it gets.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: Values
    saved: bool = False
    copies: bool = False
    calls: list[int] = field(default_factory=lambda: [0, 0])

    def at(self, inputs: Values) -> Layer:
        """Return the same layer at other inputs."""
        return Layer(self.forward, self.backward, inputs, self.saved, self.copies, self.calls)

    def run(self) -> tuple[Any, Any]:
        """Return forward's output, an array or a tuple of them, and what it saved."""
        self.calls[0] += 1
        inputs = copied_all(self.inputs) if self.copies else self.inputs
        made = self.forward(*inputs.values())
        if not self.saved:
            return made, None
        if not isinstance(made, tuple) or len(made) != 2:
            raise InputError(
                f"forward returns a {type(made).__name__}",
                "(out, saved), since saved=True says so",
                "Leave saved= out where forward returns its output alone.",
            )
        return made

    def outputs(self) -> tuple[Any, ...]:
        """Return forward's outputs."""
        made, _ = self.run()
        return tuple(made) if isinstance(made, (tuple, list)) else (made,)

    def gradients(self, dout: tuple[Any, ...], memory: Any = None) -> Gradients:
        """Return the gradients by input.

        Parameters
        ----------
        dout : tuple
            One cotangent for each output; None for an output of integers.
        memory : Any
            What a run saved; a new run where it is not given.
        """
        return self.read(self.called(dout, memory))

    def called(self, dout: tuple[Any, ...], memory: Any = None) -> Any:
        """Return what backward returns."""
        several = len(dout) > 1
        arguments: Iterable[Any] = self.inputs.values()
        if self.saved:
            arguments = (self.run()[1] if memory is None else memory,)
        self.calls[1] += 1
        handed = dout if several else dout[0]
        if self.copies:
            arguments = [copied(value) for value in arguments]
            handed = tuple(map(copied, dout)) if several else copied(dout[0])
        return self.backward(handed, *arguments)

    def read(self, returned: Any) -> Gradients:
        """Return gradients by input, from a mapping, a sequence or a single array."""
        real = [name for name, value in self.inputs.items() if is_real(value)]
        pairs = self._pairs(returned, real)
        values = {name: np.array(numbers(value)) for name, value in pairs if value is not None}
        missing = tuple(name for name in real if name not in values)
        return Gradients(values, missing)

    def _pairs(self, returned: Any, real: list[str]) -> list[tuple[str, Any]]:
        if isinstance(returned, Mapping):
            known = {str(key): value for key, value in returned.items()}
            found = [(name, known.get(name, known.get(f"d{name}"))) for name in real]
            if all(value is None for _, value in found):
                raise InputError(
                    f"backward returns {', '.join(map(repr, known)) or 'nothing'}",
                    f"gradients by the inputs' names: {', '.join(real)}",
                )
            return found
        parts = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        for names in (list(self.inputs), real):
            if len(names) == len(parts):
                return [
                    (name, part) for name, part in zip(names, parts, strict=True) if name in real
                ]
        raise InputError(
            f"backward returns {len(parts)} gradient{'s' * (len(parts) != 1)}",
            f"one for each of {', '.join(self.inputs)}, or of {', '.join(real)}",
            "Return None for an input that has no gradient.",
        )


def copied_all(values: Values) -> Values:
    """Return copies of inputs."""
    return {name: copied(value) for name, value in values.items()}


def cotangents(outputs: tuple[Any, ...], random: np.random.Generator) -> tuple[Any, ...]:
    """Return a random dout, ±uniform(½, 1½), for each output; None for outputs of integers."""
    return tuple(_cotangent(out, random) for out in outputs)


def _cotangent(out: Any, random: np.random.Generator) -> Any:
    values = numbers(out)
    if values.dtype.kind not in "fc":
        return None
    made = _entries(random, values.shape)
    if values.dtype.kind == "c":
        return like(out, made + 1j * _entries(random, values.shape))
    return like(out, made)


def _entries(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.asarray((random.random(shape) + 0.5) * np.where(random.random(shape) < 0.5, -1, 1))


def like(template: Any, values: Array) -> Any:
    """Return values as an array of a template's type, dtype and device."""
    if values.dtype.kind == "c":
        return _like_complex(template, values)
    made = conversion_of(template, top=True).make(values)
    if isinstance(template, np.ndarray) and made is values:
        return values.copy()
    return made.detach() if hasattr(made, "detach") else made


def _like_complex(template: Any, values: Array) -> Any:
    if hasattr(template, "detach"):
        import torch

        return torch.from_numpy(values).to(dtype=template.dtype, device=template.device)
    if type(template).__module__.partition(".")[0] in ("jax", "jaxlib"):
        import jax

        return jax.numpy.asarray(values, dtype=template.dtype)
    return values.astype(np.asarray(template).dtype)


def inner_product(dout: tuple[Any, ...], outputs: tuple[Any, ...]) -> float:
    """Return J = Re Σ⟨dout, output⟩, summed in float64."""
    total = 0.0
    for weight, out in zip(dout, outputs, strict=True):
        if weight is not None:
            total += float(np.vdot(widened(weight), widened(out)).real)
    return total


def widened(values: Any) -> Array:
    """Return an array or a tensor as float64 or complex128."""
    array = numbers(values)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)


def precision_of_inputs(layer: Layer) -> str:
    """Return the coarsest precision of the inputs that are floating-point numbers."""
    return lower_precision("float64", *(_precision(v) for v in layer.inputs.values() if is_real(v)))


def _precision(value: Any) -> str:
    text = str(getattr(value, "dtype", "float64")).rpartition(".")[2]
    if text == "bfloat16":
        return text
    dtype = numbers(value).dtype
    return precision_of(np.zeros(0, dtype).real.dtype)


def real_values(value: Any, name: str) -> Floats:
    """Return an input as finite float64, complex numbers as pairs in a last axis."""
    array = numbers(value)
    if array.dtype.kind == "c":
        wide = array.astype(np.complex128)
        array = np.stack([wide.real, wide.imag], axis=-1)
    return finite_array(array, name)[0]
