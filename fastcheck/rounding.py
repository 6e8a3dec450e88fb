"""What rounding in the gradient's precision does to each component of a correct backward pass.

The result only sizes tolerances; no value of dθ_approx ever comes from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.arithmetic import MEAN_SQUARE, Precision
from fastcheck.draws import Draws
from fastcheck.network import Batch, Network
from fastcheck.theta import Block
from fastcheck.variances import LayerFactors, backward, factor_variance, forward

__all__ = ["BLOCK_FACTOR", "COMPONENT_FACTOR", "Rounding", "gradient_rounding", "rounding"]

Floats = NDArray[np.float64]

# How many σ a correct component, and how many ‖σ‖ a correct block, may be off; see
# bench/calibrate_rounding.py.
COMPONENT_FACTOR = 30.0
BLOCK_FACTOR = 5.0
# Numbers gathered at a time where σ is asked for at some places only.
CHUNK = 4_000_000


@dataclass(frozen=True)
class Rounding:
    """The standard deviation of each component's rounding error, made where it is asked for.

    Attributes
    ----------
    network : Network
    precision : Precision
    layers : tuple of LayerFactors
    samples : int
        m.
    overflowing : tuple of int
        Layers where a value exceeds the largest number of the precision.
    """

    network: Network
    precision: Precision
    layers: tuple[LayerFactors, ...]
    samples: int
    overflowing: tuple[int, ...] = ()

    def block(self, block: Block) -> Floats:
        """Return σ of one block, in its shape (row convention), float64."""
        factors = self.layers[block.layer - 1]
        if block.kind == "b":
            return np.asarray(np.sqrt(factors.bias) * (factors.size * self.precision.u))
        product = factors.delta.T @ factors.A
        return self._deviation(
            factors, factors.P.T @ factors.Q, product, self.network.W(block.layer)
        )

    def _deviation(
        self, factors: LayerFactors, variance: Floats, product: Floats, W: Floats
    ) -> Floats:
        """Add what rounding g = product + penalty does to a variance, in place; return σ."""
        stored = MEAN_SQUARE + self.precision.partial_sums(self.samples)
        stored += factor_variance(self.network, self.samples, self.precision)
        decay = 2.0 * self.network.penalty_scale(self.samples)
        if decay:
            penalty = W * (decay / factors.size)
            product += penalty
            penalty *= penalty
            penalty *= 3.0 * MEAN_SQUARE
            variance += penalty
        product *= product
        product *= stored
        variance += product
        variance += self.precision.underflows(factors.size)
        sigma = np.sqrt(variance, out=variance)
        sigma *= factors.size * self.precision.u
        return sigma

    def at(self, indices: NDArray[np.int64]) -> Floats:
        """Return σ of some components.

        Parameters
        ----------
        indices : ndarray, shape (n,), int64
            Positions in θ.
        """
        order = self.network.order
        sigma = np.empty(indices.size)
        which = np.searchsorted(order.offsets, indices, side="right") - 1
        for number, block in enumerate(order.blocks):
            places = np.flatnonzero(which == number)
            step = max(1, CHUNK // self.layers[block.layer - 1].P.shape[0])
            for start in range(0, places.size, step):
                some = places[start : start + step]
                sigma[some] = self._some(block, indices[some] - block.offset)
        return sigma

    def _some(self, block: Block, inside: NDArray[np.int64]) -> Floats:
        """Return σ at some places of one block."""
        factors = self.layers[block.layer - 1]
        if block.kind == "b":
            return np.asarray(np.sqrt(factors.bias[inside]) * (factors.size * self.precision.u))
        i, j = np.divmod(inside, block.shape[1])
        variance = np.einsum("rn,rn->n", factors.P[:, i], factors.Q[:, j])
        product = np.einsum("rn,rn->n", factors.delta[:, i], factors.A[:, j])
        return self._deviation(factors, variance, product, self.network.W(block.layer)[i, j])

    def vector(self) -> Floats:
        """Return σ of all components, shape (N,), float64."""
        sigma = np.empty(self.network.size)
        for block, view in self.network.order.views(sigma):
            view[...] = self.block(block)
        return sigma


def rounding(network: Network, batch: Batch, precision: str) -> Rounding:
    """Return what rounding in a precision does to a correct backward pass.

    Parameters
    ----------
    network : Network
    batch : Batch
    precision : str
        `float64`, `float32`, `float16` or `bfloat16`.

    Notes
    -----
    Higham & Mary, "A new approach to probabilistic rounding error analysis", SISC 2019. Memory is
    a few (m, Σ n_l) arrays and one W_l; σ itself is made block by block.
    """
    arithmetic = Precision.of(precision)
    with np.errstate(all="ignore"):
        draws = Draws(batch.size)
        traces = forward(network, batch, arithmetic, draws)
        layers = backward(network, batch, arithmetic, traces, draws)
    overflowing = tuple(
        layer
        for layer, trace in enumerate(traces, start=1)
        if not float(np.max(np.abs(trace.Z))) <= arithmetic.largest
    )
    return Rounding(network, arithmetic, tuple(layers), batch.size, overflowing)


def gradient_rounding(network: Network, batch: Batch, precision: str) -> Floats:
    """Return σ of each component's rounding error, shape (N,), float64; see `rounding`."""
    return rounding(network, batch, precision).vector()
