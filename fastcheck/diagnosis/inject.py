"""Plant a slip of the table in the reference backward pass, to see one caught."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcheck.diagnosis.bugs import BUGS, Bug, buggy_gradients
from fastcheck.errors import InputError, near_names
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import gradients

__all__ = ["PLANTS", "PlantedGradient", "in_words", "plant"]

# The others are found by fitting and have nothing to plant without a fitted value.
PLANTS: dict[str, Bug] = {name: slip for name, slip in BUGS.items() if slip.plantable}
FITTED = re.compile(r" \(\{value\}\)|: \{value\}|, \{value\},| at \{value\}$|: it has.*\{value\}$")
ANY_LAYER = {"{l}": "", "{k}": "_{l−1}", "{n}": "_{l+1}"}


@dataclass(frozen=True)
class PlantedGradient:
    """The reference backward pass with a slip in it, as a callable that `gradcheck` takes."""

    slip: Bug
    layer: int | None = None

    def __call__(
        self, network: Network, inputs: ArrayLike, targets: ArrayLike
    ) -> dict[str, NDArray[Any]]:
        """Return `{"dW1": …, "db1": …}` in the user's layout and precision."""
        batch = network.batch(inputs, targets)
        dtheta = buggy_gradients(self.slip, network, batch, self.layer)
        return {
            block.gradient_name: network.user_array(block, values)
            for block, values in network.order.views(dtheta)
        }

    def __str__(self) -> str:
        return in_words(self.slip, self.layer)


def in_words(slip: Bug, layer: int | None = None) -> str:
    """Return what is wrong, of one layer or (None) of any; what only a fit can tell is left out."""
    sentence = FITTED.sub("", slip.sentence).replace("{value}", "…")
    if layer is not None:
        # What goes wrong on the way back from layer n is told of the layer that it comes to.
        layer -= "error_before" in slip.steps
        return sentence.format(l=layer, k=layer - 1, n=layer + 1)
    sentence = sentence.replace("layer {l}", "layer l").replace("layer {n}", "layer l+1")
    for written, words in ANY_LAYER.items():
        sentence = sentence.replace(written, words)
    return sentence


def plant(text: str, network: Network, batch: Batch) -> PlantedGradient:
    """Read `NAME` or `NAME@LAYER` and return the gradient with that slip in it.

    Raises
    ------
    InputError
        For an unknown name or layer, and for a slip that changes nothing in this network.
    """
    name, at, number = text.partition("@")
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    if name not in PLANTS:
        near = near_names(name, PLANTS)
        raise InputError(
            f"unknown bug {text!r}",
            "one of the bugs that fastcheck --list-plants shows",
            near if near.startswith("Did") else "",
        )
    slip = PLANTS[name]
    layer = _layer(slip, number, network.depth) if at else None
    wrong = buggy_gradients(slip, network, batch, layer)
    if np.array_equal(wrong, gradients(network, batch)):
        raise InputError(
            f"{text} changes nothing in this network ({network.describe()})",
            "a bug that makes the gradient wrong",
            "Try another bug or layer, or another --activation, --loss, --l2 or --layers.",
        )
    return PlantedGradient(slip, layer)


def _layer(slip: Bug, number: str, depth: int) -> int:
    if not slip.any_layer:
        raise InputError(
            f"{slip.name}@{number}", f"{slip.name} without a layer: it acts on the whole gradient"
        )
    if not number.isdecimal() or not 1 <= int(number) <= depth:
        raise InputError(f"layer {number!r} in {slip.name}@{number}", f"a layer from 1 to {depth}")
    return int(number)
