"""Wrong gradients: a slip planted on a network, and the blocks that it makes wrong."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.nasty.network import Array, Gradient, Nasty
from tests.nasty.slip import Slip
from tests.nasty.slips import planted
from tests.nasty.tape import backward

TOL = 1e-7
# What is off by less than this many tolerances is left out: it is at the edge.
CLEARLY = 5.0
NOISE = 1e-12  # of a block's largest component


@dataclass(frozen=True)
class Wrong:
    """A wrong gradient, and which blocks it makes wrong.

    Attributes
    ----------
    name : str
        Network, slip and layer.
    net : Nasty
    slip : str
    layer : int
        0 for all of them.
    gradient : Gradient
    blocks : tuple of str
        Those that are clearly off.
    unclear : tuple of str
        Those that are off by about the tolerance.
    """

    name: str
    net: Nasty
    slip: str
    layer: int
    gradient: Gradient
    blocks: tuple[str, ...]
    unclear: tuple[str, ...]


def _off(given: Array, right: Array) -> float:
    """Return by how many tolerances the worst component is off."""
    error = np.abs(given - right)
    allowed = TOL * (np.abs(given) + np.abs(right)) + NOISE * np.abs(right).max(initial=0.0)
    return float((error / np.maximum(allowed, 1e-300)).max())


def wrong_of(name: str, net: Nasty, slip: Slip) -> Iterator[Wrong]:
    """Yield the wrong gradients that a slip gives on a network."""
    right = backward(net)
    for layer, gradient in planted(net, slip):
        off = {}
        for l, (given, true) in enumerate(zip(gradient, right, strict=True), start=1):
            for kind, a, b in zip("Wb", given, true, strict=True):
                if a is not None and b is not None:
                    off[f"d{kind}{l}"] = _off(a, b)
        if not np.isfinite(list(off.values())).all() or max(off.values()) <= CLEARLY:
            continue
        blocks = tuple(block for block, times in off.items() if times > CLEARLY)
        unclear = tuple(block for block, times in off.items() if 0.2 < times <= CLEARLY)
        yield Wrong(
            f"{name}: {slip.name} @{layer}", net, slip.name, layer, gradient, blocks, unclear
        )
