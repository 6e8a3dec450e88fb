"""Rows whose probe met a kink: their components one by one, with the slopes to both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.kernels.propagation import FROM_KINK, UNCROSSED
from fastcheck.methods.unit.probes import Probes
from fastcheck.types import Floats, Integers

__all__ = ["SECANTS", "KinkRows", "evaluate_kinks", "merge_kinks"]


# Where in (0, 1] of the step the slopes to one side are taken, and up to which step that is exact.
SIDE_NODES = np.array([1.0, 0.5, 0.25])
LARGEST_SHARED_STEP = 1e-5
SECANTS = 2  # to the right and to the left: the first of the other right answers


@dataclass(frozen=True)
class KinkRows:
    """What kinks change, summed over samples and before the reduction's factor.

    Attributes
    ----------
    indices : ndarray, shape (n,), int64, increasing
        Indices of θ.
    change : ndarray, shape (n,), float64
        To be added to the value that the shared slope gives.
    crossing : ndarray, shape (n,), float64
        To be added to the derivative that the shared slope gives: what comes of samples that meet a
        kink, without what curvature alone does to the difference of others.
    others : ndarray, shape (K, n), float64
        What other right answers differ from the changed value by: the secants to both sides, and
        the derivative at θ by each convention for units on a kink.
    size : ndarray, shape (n,), float64
        Sum of the absolute values of the largest terms in these: what the rounding of their sums
        is in proportion to.
    """

    indices: Integers
    change: Floats
    crossing: Floats
    others: Floats
    size: Floats

    def packed(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def bounded(self) -> KinkRows:
        """Return the same with the secants and the least and the greatest of the derivatives.

        Batches whose conventions on kinks are not the same ones can be summed then.
        """
        if self.indices.size == 0:
            return self
        ways = self.others[SECANTS:]
        bounds = np.stack([*self.others[:SECANTS], ways.min(axis=0), ways.max(axis=0)])
        return replace(self, others=bounds)


def merge_kinks(parts: Sequence[KinkRows]) -> KinkRows:
    """Sum what several samples change, component by component, in their order."""
    parts = [part for part in parts if part.indices.size]
    if not parts:
        none = np.zeros(0)
        return KinkRows(np.zeros(0, np.int64), none, none, np.zeros((1, 0)), none)
    if len(parts) == 1:
        return parts[0]
    indices, places = np.unique(np.concatenate([p.indices for p in parts]), return_inverse=True)

    def total(values: Floats) -> Floats:
        return np.bincount(places, weights=values, minlength=indices.size).astype(np.float64)

    others = np.concatenate([p.others for p in parts], axis=1)
    change, crossing, size = (
        total(np.concatenate([getattr(p, name) for p in parts]))
        for name in ("change", "crossing", "size")
    )
    return KinkRows(indices, change, crossing, np.stack([total(each) for each in others]), size)


def evaluate_kinks(
    probes: Probes,
    sample: int,
    indices: Integers | None,
    flagged: NDArray[np.bool_],
    reach: Floats,
    slopes: tuple[Floats, Floats],
) -> KinkRows:
    """Evaluate the components that enter flagged units at one sample.

    Parameters
    ----------
    probes : Probes
    sample : int
    indices : ndarray of int64 or None
        Which components are asked for.
    flagged : ndarray, shape (Σ n_l,), bool
    reach : ndarray, shape (Σ n_l,), float64
        The share of the step within which no kink is met.
    slopes : tuple of ndarray
        (Q, Σ n_l) shared slopes, and (K, Σ n_l) derivatives at θ, by the conventions on kinks.
    """
    offsets = probes.unit_offsets
    found = []
    for layer in range(1, probes.network.depth + 1):
        part = slice(offsets[layer - 1], offsets[layer])
        units = np.flatnonzero(flagged[part])
        if units.size:
            here = _Layer(probes, layer, sample, slopes[0][:, part], slopes[1][:, part])
            found.append(here.evaluate(units, reach[part][units], indices))
    return merge_kinks(found)


@dataclass(frozen=True)
class _Layer:
    """The flagged units of one layer at one sample."""

    probes: Probes
    layer: int
    sample: int
    shared: Floats
    at_theta: Floats

    @property
    def step(self) -> float:
        return float(self.probes.steps[self.sample, self.layer - 1])

    def evaluate(self, units: Integers, reach: Floats, indices: Integers | None) -> KinkRows:
        """Return what kinks change in the rows of these units."""
        slopes, simple, touching = self._sides(units)
        rows, columns, index = self._components(units, indices)
        inputs = np.append(self.probes.inputs_of(self.layer)[self.sample], 1.0)[columns]
        met = (inputs != 0.0) & (
            simple[rows] | (self.probes.epsilon * np.abs(inputs) >= reach[rows] * self.step)
        )
        rows, index, inputs = rows[met], index[met], inputs[met]
        share = self.probes.epsilon * np.abs(inputs) / self.step
        powers = share ** np.arange(SIDE_NODES.size)[:, np.newaxis]
        up, down = (slopes[:, :, rows] * powers).sum(axis=1)
        # (ℓ(+ε) − ℓ(0))/ε and (ℓ(0) − ℓ(−ε))/ε
        sides = np.where(inputs > 0.0, [up, down], [down, up]) * inputs
        sides = np.vstack([sides, 0.5 * (sides[0] + sides[1])])
        crossed = touching[rows]
        self._one_by_one(units[rows], inputs, ~simple[rows], sides, crossed)
        order = np.argsort(index, kind="stable")
        return self._interval(units[rows], inputs, sides, crossed, (index, order))

    def _sides(self, units: Integers) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return each side's slope as a polynomial in δ/h, (2, 3, units), and whom it serves.

        It serves the whole row where no kink lies strictly inside (0, h] on either side: then the
        loss is smooth on each side, whatever it does at 0 itself. A slope to one side changes by
        O(δ), where the central difference changes by O(δ²): hence the three nodes.
        """
        ends = self.step * np.concatenate([SIDE_NODES, -SIDE_NODES])
        deltas = np.repeat(ends, units.size)
        grown, crossed = self.probes.change(
            self.layer, self.sample, np.tile(units, ends.size), deltas
        )
        crossed = crossed.reshape(ends.size, units.size).max(axis=0)
        slopes = (grown / deltas).reshape(2, SIDE_NODES.size, units.size)
        simple = (crossed == FROM_KINK) & (self.step <= LARGEST_SHARED_STEP)
        powers = np.vander(SIDE_NODES, increasing=True)
        coefficients = np.asarray(np.linalg.solve(powers, slopes), dtype=np.float64)
        return coefficients, simple, crossed != UNCROSSED

    def _components(
        self, units: Integers, indices: Integers | None
    ) -> tuple[Integers, Integers, Integers]:
        """Return, for each component asked for: position of its unit, its input, index in θ."""
        order = self.probes.network.order
        weights, biases = order.weights(self.layer), order.biases(self.layer)
        n_in = weights.shape[1]
        rows = np.repeat(np.arange(units.size), n_in)
        columns = np.tile(np.arange(n_in), units.size)
        index = weights.offset + units[rows] * n_in + columns
        if biases is not None:
            rows = np.append(rows, np.arange(units.size))
            columns = np.append(columns, np.full(units.size, n_in))
            index = np.append(index, biases.offset + units)
        if indices is None:
            return rows, columns, index
        place = np.minimum(np.searchsorted(indices, index), indices.size - 1)
        asked = indices[place] == index
        return rows[asked], columns[asked], index[asked]

    def _one_by_one(
        self,
        units: Integers,
        inputs: Floats,
        wanted: NDArray[np.bool_],
        sides: Floats,
        crossed: NDArray[np.bool_],
    ) -> None:
        """Evaluate each wanted component by its own ±ε; equal (unit, δ) are evaluated once.

        `sides` holds the slopes to both sides and the central difference.
        """
        if not wanted.any():
            return
        epsilon = self.probes.epsilon
        pairs = np.stack([units[wanted].astype(np.float64), epsilon * inputs[wanted]])
        distinct, back = np.unique(pairs, axis=1, return_inverse=True)
        distinct_units = distinct[0].astype(np.int64)
        odd, grown, met = self.probes.both_sides(
            self.layer, self.sample, distinct_units, distinct[1]
        )
        found = np.stack([grown[0], -grown[1], odd]) / epsilon
        sides[:, wanted] = found[:, back.reshape(-1)]
        crossed[wanted] = (met != UNCROSSED).any(axis=0)[back.reshape(-1)]

    def _interval(
        self,
        units: Integers,
        inputs: Floats,
        sides: Floats,
        crossed: NDArray[np.bool_],
        places: tuple[Integers, Integers],
    ) -> KinkRows:
        """Return the change against the shared slope, and what else is right.

        All samples move together and a backward pass takes kinks in one way, so each of these is
        summed over the samples before the least and the greatest are taken.
        """
        index, order = places
        shared = self._shared_values(units, inputs)
        value = sides[2]
        rights = np.stack([*sides[:SECANTS], *(self.at_theta[:, units] * inputs)])
        others, size = rights - value, np.maximum(np.abs(rights).max(axis=0), np.abs(shared))
        others[:, ~crossed] = 0.0
        at_theta = np.where(crossed, value - self.shared[0, units] * inputs, 0.0)
        change = value - shared
        return KinkRows(index[order], change[order], at_theta[order], others[:, order], size[order])

    def _shared_values(self, units: Integers, inputs: Floats) -> Floats:
        """What the shared slopes give to each component, all powers of (δ/h)² included."""
        nodes = self.probes.nodes
        if len(self.shared) == 1:
            return np.asarray(self.shared[0, units] * inputs)
        coefficients = np.linalg.solve(np.vander(nodes**2, increasing=True), self.shared[:, units])
        squares = (self.probes.epsilon * inputs / self.step) ** 2
        powers = squares ** np.arange(nodes.size)[:, np.newaxis]
        return np.asarray((coefficients * powers).sum(axis=0) * inputs)
