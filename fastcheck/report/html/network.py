"""The network as its layers: which there are, how wide, and which are sick."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastcheck.report.data import Report
from fastcheck.verdict.verdict import BlockVerdict, worst_status

__all__ = ["LayerDrawing", "layers"]

MIN_WIDTH = 0.16  # a layer of one unit, as a share of the widest


@dataclass(frozen=True)
class LayerDrawing:
    """One layer.

    Attributes
    ----------
    number : int
    units : int
    activation : str
    width, width_before : float
        As shares of the widest layer, on a logarithmic scale.
    status : str
        The worst of its blocks.
    weights, biases : tuple of (int, BlockVerdict), or None
        With their places among the report's blocks.
    """

    number: int
    units: int
    activation: str
    width: float
    width_before: float
    status: str
    weights: tuple[int, BlockVerdict] | None
    biases: tuple[int, BlockVerdict] | None


def layers(report: Report) -> list[LayerDrawing]:
    """Return the layers 1..L of the network, none for a function."""
    facts = report.network
    if facts is None:
        return []
    widths = _widths(facts.sizes)
    drawings = []
    for layer, activation in enumerate(facts.activations, start=1):
        weights, biases = (_block(report, layer, kind) for kind in "Wb")
        found = [part[1].verdict for part in (weights, biases) if part is not None]
        drawings.append(
            LayerDrawing(
                layer, facts.sizes[layer], activation, widths[layer], widths[layer - 1],
                worst_status(*found), weights, biases,
            )
        )  # fmt: skip
    return drawings


def _block(report: Report, layer: int, kind: str) -> tuple[int, BlockVerdict] | None:
    pairs = enumerate(report.blocks)
    return next(((k, b) for k, b in pairs if (b.layer, b.kind) == (layer, kind)), None)


def _widths(sizes: tuple[int, ...]) -> list[float]:
    largest = math.log(max(*sizes, 2))
    return [MIN_WIDTH + (1.0 - MIN_WIDTH) * math.log(max(n, 1)) / largest for n in sizes]
