"""From a drawn problem to what users hand to fastcheck: a network, a batch, a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck import Network
from fastcheck.model.network import Batch
from tests import oracle
from tests.networks import Drawn

Arrays = Sequence[Any]


def network_of(drawn: Drawn, layout: str = "rows", **options: Any) -> Network:
    """Return the network in a layout; `options` go to `Network.from_arrays`."""
    masks = drawn.masks
    if masks is not None and layout == "course":
        masks = [None if mask is None else mask.T for mask in masks]
    return Network.from_arrays(
        [_weight(W, layout) for W in drawn.weights],
        [_bias(b, layout) for b in drawn.biases],
        activations=drawn.activations,
        loss=drawn.loss,
        l2=drawn.l2,
        penalty=drawn.penalty,
        reduction=drawn.reduction,
        dropout_masks=masks,
        layout=layout,
        **options,
    )


def batch_of(drawn: Drawn, layout: str = "rows") -> tuple[Any, Any]:
    """Return inputs and targets in a layout."""
    if layout == "course":
        return drawn.inputs.T, drawn.targets.T
    return drawn.inputs, drawn.targets


def as_network(drawn: Drawn, **options: Any) -> tuple[Network, Batch]:
    """Return the network and its batch as the methods take them, in rows."""
    network = network_of(drawn, **options)
    return network, network.batch(drawn.inputs, drawn.targets)


def gradients_of(drawn: Drawn, layout: str = "rows") -> dict[str, Any]:
    """Return the oracle's gradient as `{"dW1": …, "db1": …, …}` in a layout."""
    return named(*oracle.backprop(*drawn.arrays, **drawn.conventions), layout)


def named(weights: Arrays, biases: Arrays, layout: str = "rows") -> dict[str, Any]:
    """Return gradients by their names, without those of layers that have no bias."""
    found = {}
    for layer, (dW, db) in enumerate(zip(weights, biases, strict=True), start=1):
        found[f"dW{layer}"] = _weight(dW, layout)
        if db is not None:
            found[f"db{layer}"] = _bias(db, layout)
    return found


def _weight(W: Any, layout: str) -> Any:
    return np.ascontiguousarray(W.T) if layout == "keras" else W


def _bias(b: Any, layout: str) -> Any:
    return b.reshape(-1, 1) if b is not None and layout == "course" else b
