"""What activations and losses are called, and what a name stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from fastcheck.errors import InputError, near_names
from fastcheck.kernels.activations import ACTIVATIONS, Activation
from fastcheck.kernels.calls import Numerics
from fastcheck.kernels.custom import own_activation, own_loss
from fastcheck.kernels.losses import LOSSES, Loss
from fastcheck.validation import positive_number

__all__ = ["ActivationInput", "ActivationSpec", "LossInput", "LossSpec", "bind"]

Entry = TypeVar("Entry", Activation, Loss)

ACTIVATION_ALIASES = {
    "linear": "identity", "none": "identity", "swish": "silu", "logistic": "sigmoid",
    "leakyrelu": "leaky_relu", "hard_tanh": "hardtanh",
}  # fmt: skip
LOSS_ALIASES = {
    "softmax_crossentropy": "softmax_cross_entropy",
    "categorical_crossentropy": "softmax_cross_entropy",
    "bce_with_logits": "sigmoid_cross_entropy",
    "mse": "mean_squared_error",
}
# (last activation, loss) as courses write it, by the fused form it stands for.
FUSED = {
    ("softmax", "cross_entropy"): "softmax_cross_entropy",
    ("softmax", "categorical_cross_entropy"): "softmax_cross_entropy",
    ("sigmoid", "binary_cross_entropy"): "sigmoid_cross_entropy",
    ("sigmoid", "cross_entropy"): "sigmoid_cross_entropy",
}

ActivationInput = str | tuple[str, float] | Callable[[float], float]
LossInput = str | tuple[str, float] | Callable[[float, float], float]


@dataclass(frozen=True)
class ActivationSpec:
    """An activation of the table with its parameter, or the user's own function.

    Attributes
    ----------
    entry : Activation or None
        None for the user's own.
    parameter : float
    function : callable or None
        The user's own `f(z)`.
    """

    entry: Activation | None
    parameter: float = 0.0
    function: Callable[[float], float] | None = None

    @property
    def name(self) -> str:
        """`relu`, or the name of the user's function."""
        if self.entry is not None:
            return self.entry.name
        return getattr(self.function, "__name__", "custom")

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where it is not analytic; nothing is known of the user's own."""
        return self.entry.kinks if self.entry is not None else ()

    @cached_property
    def numerics(self) -> Numerics:
        """What kernels call: the entry, or the user's function compiled."""
        if self.entry is not None:
            return self.entry
        assert self.function is not None
        return own_activation(self.function)

    def spec(self) -> str | list[Any]:
        """What a file says of it: the name, or `[name, parameter]`."""
        if self.entry is not None and self.entry.parameter is not None:
            return [self.name, self.parameter]
        return self.name

    def __str__(self) -> str:
        spec = self.spec()
        return spec if isinstance(spec, str) else f"{spec[0]}({spec[1]:g})"

    def __reduce__(self) -> tuple[Callable[..., ActivationSpec], tuple[Any, ...]]:
        # By name: the entry's kernels are not to travel to other processes.
        name = None if self.entry is None else self.entry.name
        return _activation_again, (name, self.parameter, self.function)


def _activation_again(name: str | None, *rest: Any) -> ActivationSpec:
    return ActivationSpec(None if name is None else ACTIVATIONS[name], *rest)


@dataclass(frozen=True)
class LossSpec:
    """A loss of the table with its parameter, or the user's own function of (output, target)."""

    entry: Loss | None
    parameter: float = 0.0
    function: Callable[[float, float], float] | None = None

    @property
    def corners(self) -> tuple[float, ...]:
        """At which residuals it is not analytic; nothing is known of the user's own."""
        return self.entry.corners(self.parameter) if self.entry is not None else ()

    @cached_property
    def numerics(self) -> Numerics:
        """What kernels call: the entry, or the user's function compiled."""
        if self.entry is not None:
            return self.entry
        assert self.function is not None
        return own_loss(self.function)

    @property
    def name(self) -> str:
        """`softmax_cross_entropy`, or the name of the user's function."""
        if self.entry is not None:
            return self.entry.name
        return getattr(self.function, "__name__", "custom")

    def spec(self) -> str | list[Any]:
        """What a file says of it: the name, or `[name, parameter]`."""
        if self.entry is not None and self.entry.parameter is not None:
            return [self.name, self.parameter]
        return self.name

    def __str__(self) -> str:
        spec = self.spec()
        return spec if isinstance(spec, str) else f"{spec[0]}({spec[1]:g})"

    def __reduce__(self) -> tuple[Callable[..., LossSpec], tuple[Any, ...]]:
        # By name: the entry's kernels are not to travel to other processes.
        name = None if self.entry is None else self.entry.name
        return _loss_again, (name, self.parameter, self.function)


def _loss_again(name: str | None, *rest: Any) -> LossSpec:
    return LossSpec(None if name is None else LOSSES[name], *rest)


def _entry(name: str, table: Mapping[str, Entry], aliases: Mapping[str, str], what: str) -> Entry:
    """Return the entry of a table by its name or alias."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    plain = aliases.get(plain, plain)
    if plain not in table:
        raise InputError(
            f"unknown {what} {name!r}", f"one of {len(table)}", near_names(plain, table)
        )
    return table[plain]


def _bind(
    spec: Any, table: Mapping[str, Entry], aliases: Mapping[str, str], what: str
) -> tuple[Entry | None, float, Any]:
    """Return (entry, parameter, user's function) for 'relu', 'elu(0.5)', ('elu', 0.5) or f."""
    spec = _known(spec)
    if callable(spec):
        return None, 0.0, spec
    parameter: Any = None
    if isinstance(spec, (tuple, list)) and len(spec) == 2:
        spec, parameter = spec
    if not isinstance(spec, str):
        raise InputError(f"{what} {spec!r}", "a name, (name, parameter) or a function")
    written = re.fullmatch(r"\s*([\w \-]+?)\s*\(\s*([-+.\deE]+)\s*\)\s*", spec)
    if written:
        spec, parameter = written.group(1), _number(written.group(2))
    entry = _entry(spec, table, aliases, what)
    if parameter is None:
        return entry, entry.parameter or 0.0, None
    if entry.parameter is None:
        raise InputError(f"{entry.name} with parameter {parameter}", f"no parameter: {entry.name}")
    return entry, positive_number(parameter, f"parameter of {entry.name}"), None


def _number(text: str) -> float | str:
    """Return a written parameter as a number; what is none is refused with its name."""
    try:
        return float(text)
    except ValueError:
        return text


# Python's and NumPy's own functions that numba can't see into.
SAME_AS = {"tanh": "tanh", "expit": "sigmoid"}
THEIR_MODULES = {"builtin_function_or_method", "ufunc"}


def _known(spec: Any) -> Any:
    """Return the name of `math.tanh`, `np.tanh` and `scipy.special.expit`; else what was given."""
    if type(spec).__name__ in THEIR_MODULES:
        return SAME_AS.get(spec.__name__, spec)
    return spec


def _fuse(activations: list[Any], loss: Any) -> tuple[list[Any], Any]:
    """Read ("softmax", "cross_entropy") and the like as the fused loss on logits."""
    if not isinstance(loss, str):
        return activations, loss
    last = activations[-1]
    fused = FUSED.get((last, loss)) if isinstance(last, str) else None
    if fused:
        return [*activations[:-1], "identity"], fused
    if last == "softmax":
        raise InputError(
            f"softmax with loss {loss!r}",
            "softmax as the last activation with loss 'cross_entropy'",
            "Use activations ending in 'softmax' with loss='cross_entropy'.",
        )
    if loss in {"cross_entropy", "binary_cross_entropy"}:
        fit = "softmax" if loss == "cross_entropy" else "sigmoid"
        raise InputError(
            f"loss {loss!r} on a last activation {last!r}",
            f"{fit!r} as the last activation",
            f"For a last layer of logits, use loss='{fit}_cross_entropy'.",
        )
    return activations, loss


def _activation_list(spec: Any, layers: int) -> list[Any]:
    """Return one activation a layer; a single one stands for all hidden layers."""
    if isinstance(spec, str) or callable(spec):
        _bind(spec, ACTIVATIONS, ACTIVATION_ALIASES, "activation")  # a misspelt one is refused here
        return [spec] * (layers - 1) + ["identity"]
    try:
        activations = [_known(each) for each in spec]
    except TypeError:
        raise InputError(
            f"activations={spec!r}", "a name, a function, or a list with one of them a layer"
        ) from None
    if len(activations) != layers:
        hint = ""
        if len(activations) == layers - 1:
            hint = "The last layer's is missing: add 'identity' for logits."
        raise InputError(f"{len(activations)} activations", f"{layers}, one for each layer", hint)
    return activations


def bind(
    activations: str | Sequence[ActivationInput], loss: LossInput, layers: int
) -> tuple[tuple[ActivationSpec, ...], LossSpec]:
    """Return what the names stand for, one activation a layer.

    Parameters
    ----------
    activations : str or sequence
        One a layer, or a single one for all hidden layers.
    loss : str, tuple or callable
    layers : int
        L.
    """
    listed, fused = _fuse(_activation_list(activations, layers), loss)
    bound = [_bind(a, ACTIVATIONS, ACTIVATION_ALIASES, "activation") for a in listed]
    return (
        tuple(ActivationSpec(*each) for each in bound),
        LossSpec(*_bind(fused, LOSSES, LOSS_ALIASES, "loss")),
    )
