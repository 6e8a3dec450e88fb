"""A chain of dense layers as another program holds it, gathered into a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.model.network import Network, NetworkOptions
from fastcheck.validation import lower_precision

__all__ = ["WAY_OUT", "Chain", "Layer", "LossTerms", "NoChainError", "natural_order", "unsupported"]

WAY_OUT = (
    "For a model that is no such chain, fastcheck.gradcheck_function(f, gradient, theta) checks "
    "any J(θ) as a black box."
)
CHAIN = "a chain: dense layers and elementwise activations, one after the other"
OUR_NAMES = re.compile(r"[Wb]\d+")
# Not elementwise: they stand at the end of a chain, and only together with their loss.
OUTPUT_FORMS = ("softmax", "log_softmax")
ON_PROBABILITIES = ("cross_entropy", "categorical_cross_entropy")


class NoChainError(InputError):
    """A model that is no chain of dense layers: it can still be checked as a function."""


def unsupported(what: str, place: str, remedy: str = "") -> InputError:
    """Return the error that names what is not taken over, where it stands, and the way out."""
    return NoChainError(
        f"{place}: {what} can't be taken over", CHAIN, f"{remedy} {WAY_OUT}".strip()
    )


def natural_order(names: Sequence[str]) -> list[str]:
    """Return names sorted so that `layer10` comes after `layer2`."""
    return sorted(
        names, key=lambda n: [(not p.isdigit(), p.zfill(9)) for p in re.split(r"(\d+)", n)]
    )


@dataclass
class Layer:
    """One dense layer as the user holds it.

    Attributes
    ----------
    weights : ndarray
        `(n_out, n_in)`, or `(n_in, n_out)` where `transposed`.
    biases : ndarray or None
        n_out numbers.
    names : tuple of str
        The user's names of the weights and the biases.
    activation : Any
        None until one is met.
    transposed : bool
    """

    weights: NDArray[Any]
    biases: NDArray[Any] | None
    names: tuple[str, str]
    activation: Any = None
    transposed: bool = False

    @property
    def outputs(self) -> int:
        """n_out."""
        return int(self.weights.shape[1 if self.transposed else 0])


@dataclass(frozen=True)
class LossTerms:
    """A loss in fastcheck's words.

    Attributes
    ----------
    loss : str or tuple
        A name of the table of losses, or (name, parameter).
    coefficient : float
        J's data part is coefficient · Σ_s ℓ_s, ℓ_s summed over the outputs.
    """

    loss: Any
    coefficient: float

    def options(self, m: int, outputs: int) -> NetworkOptions:
        """Return the network's loss, reduction and loss_scale for m samples."""
        if self.loss == "squared_error" and _equal(self.coefficient * m * outputs, 2.0):
            return {"loss": "mean_squared_error", "reduction": "mean"}
        counts = {"mean": m, "sum": 1, "mean_elements": m * outputs}
        for reduction, count in counts.items():
            if _equal(self.coefficient * count, 1.0):
                return {"loss": self.loss, "reduction": reduction}
        scale = self.coefficient * m
        for nice in (0.5, 2.0):
            for reduction, count in counts.items():
                if _equal(self.coefficient * count, nice):
                    return {"loss": self.loss, "reduction": reduction, "loss_scale": nice}
        return {"loss": self.loss, "reduction": "mean", "loss_scale": scale}


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-12 * abs(b)


@dataclass
class Chain:
    """Layers in their order, as they are met.

    Attributes
    ----------
    owner : str
        What the model is called; it goes before names that would read like fastcheck's own.
    precisions : list of str
        Of arrays that NumPy can't hold as they are (bfloat16).
    """

    owner: str
    layers: list[Layer] = field(default_factory=list)
    precisions: list[str] = field(default_factory=list)

    def dense(self, layer: Layer, place: str) -> None:
        """Add a dense layer."""
        if self.layers and self.layers[-1].activation in OUTPUT_FORMS:
            raise unsupported(f"{self.layers[-1].activation} between two layers", place)
        for name in layer.names[: 1 if layer.biases is None else 2]:
            if name in [n for known in self.layers for n in known.names]:
                raise unsupported(f"a second use of {name} (shared weights)", place)
        self.layers.append(layer)

    def activation(self, spec: Any, place: str) -> None:
        """Add an activation behind the last layer; `identity` changes nothing."""
        if spec == "identity":
            return
        if not self.layers:
            raise unsupported(f"the activation {spec!r} before the first layer", place)
        last = self.layers[-1]
        if last.activation is not None:
            raise unsupported(
                f"{_shown(spec)} behind {_shown(last.activation)}, with no layer between them,",
                place,
            )
        last.activation = spec

    @property
    def output(self) -> Any:
        """The last activation; None for logits."""
        return self.layers[-1].activation if self.layers else None

    def fuse(self, form: str, place: str) -> None:
        """Take the last activation into the loss, where it has to be `form` (or one of `a|b`)."""
        if self.output not in form.split("|"):
            found = "no activation" if self.output is None else _shown(self.output)
            raise InputError(
                f"{place} on outputs that come out of {found}",
                f"outputs that come out of {form.replace('|', ' or ')}",
                "Use the loss on logits for a model without it.",
            )
        self.layers[-1].activation = None

    @property
    def layout(self) -> str:
        """`keras` where all weights are `(n_in, n_out)`, else `rows`."""
        return "keras" if all(layer.transposed for layer in self.layers) else "rows"

    def in_layout(self, layer: Layer, weights: NDArray[Any]) -> NDArray[Any]:
        """Return weights of a layer, or their gradient, in the layout of the chain."""
        return weights.T if layer.transposed and self.layout == "rows" else weights

    def network(self, options: NetworkOptions) -> Network:
        """Return the network, with loss and penalty of `options`."""
        if not self.layers:
            raise unsupported("a model without a dense layer", self.owner)
        if self.output in OUTPUT_FORMS and options.get("loss") not in ON_PROBABILITIES:
            raise unsupported(
                f"{self.output} as the last activation with this loss", self.owner,
                "A loss on logits applies it itself: leave it out.",
            )  # fmt: skip
        whole: NetworkOptions = {
            **options,
            "activations": [layer.activation or "identity" for layer in self.layers],
            "layout": self.layout,
            "names": self._names(),
        }
        network = Network.from_arrays(
            [self.in_layout(layer, layer.weights) for layer in self.layers],
            [layer.biases for layer in self.layers],
            **whole,
        )
        return replace(network, precision=lower_precision(network.precision, *self.precisions))

    def _names(self) -> dict[str, str]:
        """Return the user's names by fastcheck's; `name.T` for what is turned over."""
        names = {}
        for number, layer in enumerate(self.layers, start=1):
            turned = layer.transposed and self.layout == "rows"
            weights = f"{layer.names[0]}.T" if turned else layer.names[0]
            for kind, name in zip("Wb", (weights, layer.names[1]), strict=True):
                ours = f"{kind}{number}"
                foreign = OUR_NAMES.fullmatch(name) and name != ours
                names[ours] = f"{self.owner}.{name}" if foreign else name
        return names


def _shown(spec: Any) -> str:
    if callable(spec):
        return getattr(spec, "__name__", "a function")
    return f"{spec[0]}({spec[1]:g})" if isinstance(spec, tuple) else str(spec)
