"""A PyTorch function as a layer: its forward pass, and what autograd makes of its backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from fastcheck.errors import InputError
from fastcheck.model.contract import ContractLine

__all__ = ["TorchLayer"]

MAX_COMBINED = 4  # inputs whose every combination is tried; of more, each one alone and all others
# Two gradients of one function in one precision differ by no more, relative to the largest.
SAME_GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-4}
HALF_GRADIENT = 2e-2


@dataclass(frozen=True)
class TorchLayer:
    """A function of tensors.

    Attributes
    ----------
    function : callable
    needed : tuple of int
        Positions of the inputs that are differentiated by.
    """

    function: Callable[..., Any]
    needed: tuple[int, ...]

    @classmethod
    def of(cls, function: Callable[..., Any], inputs: tuple[Any, ...]) -> TorchLayer:
        """Take the tensors that require a gradient; where none does, all of real numbers."""
        tensors = [k for k, x in enumerate(inputs) if isinstance(x, torch.Tensor)]
        real = [k for k in tensors if inputs[k].is_floating_point() or inputs[k].is_complex()]
        asked = [k for k in real if inputs[k].requires_grad]
        if not real:
            raise InputError("inputs without a floating-point tensor", "a tensor at least")
        return cls(function, tuple(asked or real))

    def _run(
        self, inputs: tuple[Any, ...], needed: tuple[int, ...], *, keep: bool = False
    ) -> tuple[tuple[Any, ...], list[Any]]:
        """Return the differentiable outputs, and the inputs that require a gradient.

        Parameters
        ----------
        inputs : tuple
        needed : tuple of int
        keep : bool
            Whether the inputs are used as they are, in a graph that is differentiated again.
        """
        own = list(inputs)
        for k in needed:
            own[k] = own[k] if keep else own[k].detach().requires_grad_()
        with torch.enable_grad():
            made = self.function(*own)
        outputs = made if isinstance(made, (tuple, list)) else (made,)
        # Views, since some functions return an input itself.
        kept = tuple(o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad)
        return kept, [own[k] for k in needed]

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs that can be differentiated."""
        outputs, _ = self._run(inputs, self.needed)
        if not outputs:
            raise InputError(
                "no output requires a gradient", "an output that depends on the inputs"
            )
        made = tuple(out.detach() for out in outputs)
        return made if len(made) > 1 else made[0]

    def backward(self, dout: Any, *inputs: Any) -> tuple[Any, ...]:
        """Return the gradients that autograd gives; one that it leaves out is zero."""
        found = self._gradients(dout, inputs, self.needed)
        return tuple(found.get(k) for k in range(len(inputs)))

    def _gradients(
        self, dout: Any, inputs: tuple[Any, ...], needed: tuple[int, ...]
    ) -> dict[int, Any]:
        outputs, leaves = self._run(inputs, needed)
        given = dout if isinstance(dout, tuple) else (dout,)
        if len(outputs) != len(given):
            raise InputError(
                f"{len(outputs)} outputs require a gradient where {needed} do", f"{len(given)}"
            )
        found = torch.autograd.grad(outputs, leaves, given, allow_unused=True)
        return {
            k: torch.zeros_like(leaf) if gradient is None else gradient
            for k, leaf, gradient in zip(needed, leaves, found, strict=True)
        }

    def double_backward(self, ddx: Any, dout: Any, *inputs: Any) -> tuple[Any, ...]:
        """Return the gradients of ⟨ddx, backward(dout, *inputs)⟩ for dout and the inputs."""
        start = dout.detach().requires_grad_()
        own = list(inputs)
        for k in self.needed:
            own[k] = own[k].detach().requires_grad_()
        outputs, leaves = self._run(tuple(own), self.needed, keep=True)
        first = torch.autograd.grad(outputs, leaves, (start,), create_graph=True, allow_unused=True)
        weights = ddx if isinstance(ddx, tuple) else (ddx,)
        pairs = [
            (g, w) for g, w in zip(first, weights, strict=True) if g is not None and g.requires_grad
        ]
        places = [start, *leaves]
        found = torch.autograd.grad(
            [g for g, _ in pairs], places, [w for _, w in pairs], allow_unused=True
        )
        full = [torch.zeros_like(p) if g is None else g for p, g in zip(places, found, strict=True)]
        by_place = dict(zip(self.needed, full[1:], strict=True))
        return (full[0], *(by_place.get(k) for k in range(len(inputs))))

    def twice(self, dout: Any, inputs: tuple[Any, ...], names: list[str]) -> ContractLine | None:
        """Compare two backward passes through one graph; None where that has only one."""
        outputs, leaves = self._run(inputs, self.needed)
        given = dout if isinstance(dout, tuple) else (dout,)
        options = {"allow_unused": True, "retain_graph": True}
        first = torch.autograd.grad(outputs, leaves, given, **options)
        kept = [None if g is None else g.clone() for g in first]
        text = "backward writes into what forward saved"
        try:
            second = torch.autograd.grad(outputs, leaves, given, **options)
        except RuntimeError as error:
            changed = "modified by an inplace operation" in str(error)
            return ContractLine("arguments unchanged", "wrong", text) if changed else None
        pairs = zip(self.needed, kept, second, strict=True)
        wrong = [
            names[k] for k, a, b in pairs if a is not None and b is not None and not _same(b, a)
        ]
        if not wrong:
            return None
        shown = ", ".join(f"d{name}" for name in wrong)
        text = f"{shown} is another one at a second backward pass of one graph"
        return ContractLine("arguments unchanged", "wrong", text)

    def combinations(self, dout: Any, inputs: tuple[Any, ...], names: list[str]) -> ContractLine:
        """Compare the gradients with those where fewer inputs require one."""
        name = "needed gradients"
        full = self._gradients(dout, inputs, self.needed)
        for needed in self._subsets():
            shown = ", ".join(names[k] for k in needed)
            try:
                found = self._gradients(dout, inputs, needed)
            except InputError:
                continue  # an output that depends on none of these
            except Exception as error:
                text = f"raises {type(error).__name__} where only {shown} requires a gradient"
                return ContractLine(name, "wrong", text)
            wrong = [names[k] for k in needed if not _same(found[k], full[k])]
            if wrong:
                text = f"d{wrong[0]} is another one where only {shown} requires a gradient"
                return ContractLine(name, "wrong", text)
        return ContractLine(name, "agree")

    def _subsets(self) -> Iterator[tuple[int, ...]]:
        count = len(self.needed)
        sizes = range(1, count) if count <= MAX_COMBINED else (1, count - 1)
        for size in sizes:
            yield from combinations(self.needed, size)


def _same(a: Any, b: Any) -> bool:
    """Return whether two gradients are the same up to the order of sums."""
    size = float(b.abs().max()) if b.numel() else 0.0
    apart = float((a - b).abs().max()) if b.numel() else 0.0
    real = torch.empty(0, dtype=b.dtype).real.dtype if b.is_complex() else b.dtype
    return apart <= SAME_GRADIENT.get(real, HALF_GRADIENT) * size
