"""How a layer is checked: the options of `gradcheck_layer`, validated."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fastcheck.errors import InputError, near_names
from fastcheck.function_options import FunctionOptions
from fastcheck.layers.input_kinds import KINDS
from fastcheck.model.contract import CONTRACT

__all__ = ["LayerOptions", "LayerSettings"]

TRIES = 4  # seeds of an input factory


class LayerOptions(FunctionOptions, total=False):
    """The keyword arguments of `gradcheck_layer`: its own, and those of `gradcheck_function`."""

    saved: bool
    order: int
    jvp: Callable[..., Any] | None
    double_backward: Callable[..., Any] | None
    tries: int
    kinds: Sequence[str]
    skip: Sequence[str]


@dataclass(frozen=True)
class LayerSettings:
    """What is particular to a layer."""

    saved: bool = False
    order: int = 1
    jvp: Callable[..., Any] | None = None
    double_backward: Callable[..., Any] | None = None
    tries: int = TRIES
    kinds: Sequence[str] = tuple(KINDS)
    skip: Sequence[str] = ()
    seed: int = 0
    function: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: dict[str, Any]) -> LayerSettings:
        """Split keyword arguments into those of the layer and those of the function."""
        mine = {f.name for f in fields(cls)} - {"function", "seed"}
        own = {name: options.pop(name) for name in list(options) if name in mine}
        seed = options.pop("seed", None)
        made = cls(**own, seed=secrets.randbelow(2**31) if seed is None else seed, function=options)
        return made.checked()

    def checked(self) -> LayerSettings:
        """Return the same, or refuse what is out of range."""
        if self.order not in (1, 2):
            raise InputError(f"order={self.order!r}", "1 or 2")
        if self.order == 2 and self.double_backward is None:
            raise InputError(
                "order=2 without double_backward=",
                "double_backward(ddx, dout, *inputs), which returns the gradients of dout and of "
                "the inputs",
            )
        if isinstance(self.tries, bool) or not isinstance(self.tries, int) or self.tries < 1:
            raise InputError(f"tries={self.tries!r}", "a whole number, 1 or more")
        skip = _known("skip", self.skip, CONTRACT, "lines of the contract")
        kinds = _known("kinds", self.kinds, KINDS, "kinds of inputs")
        return replace(self, skip=skip, kinds=kinds)


def _known(
    option: str, given: Sequence[str], known: Collection[str], expected: str
) -> tuple[str, ...]:
    """Return names as a tuple, or refuse one that is none of the known ones."""
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in known:
            raise InputError(f"{option}={name!r}", expected, near_names(str(name), known))
    return names
