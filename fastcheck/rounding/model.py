"""What rounding in the gradient's precision does to each component of a correct backward pass.

The result only sizes tolerances; no value of dθ_approx ever comes from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.network import Batch, Network
from fastcheck.rounding.arithmetic import MEAN_SQUARE, Precision
from fastcheck.rounding.draws import Draws
from fastcheck.rounding.variances import LayerFactors, Trace, backward, factor_variance, forward
from fastcheck.theta import Block

__all__ = [
    "BLOCK_CEILING",
    "BLOCK_FACTOR",
    "COMPONENT_FACTOR",
    "Rounding",
    "block_tolerance",
    "gradient_rounding",
    "rounding",
]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# A correct component is within this many σ: bench/calibrate_rounding.py.
COMPONENT_FACTOR = 30.0
# A correct block is within this many ‖σ‖, and where few of its σ make up the most of it (or there
# are few), within COMPONENT_FACTOR times the greatest, but never beyond the second number: an error
# of ten times the rounding is none.
BLOCK_FACTOR = 6.0
BLOCK_CEILING = 8.0
# Numbers gathered at a time where σ is asked for at some places only.
CHUNK = 4_000_000
# Numbers of one block that are worked on at a time.
CACHED = 60_000


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
        sigma = np.empty(block.shape)
        self._fill(block, sigma)
        return sigma

    def _fill(self, block: Block, sigma: Floats) -> None:
        """Write σ of one block, some rows at a time, so that they stay in the cache."""
        factors = self.layers[block.layer - 1]
        unit = np.float64(factors.size * self.precision.u)
        if block.kind == "b":
            np.multiply(np.sqrt(factors.bias), unit, out=sigma)
            return
        W = self.network.W(block.layer)
        step = max(1, CACHED // block.shape[1])
        work = np.empty((2, min(step, block.shape[0]), block.shape[1]), np.float32)
        for start in range(0, block.shape[0], step):
            some = slice(start, min(start + step, block.shape[0]))
            variance, product = work[:, : some.stop - start]
            np.matmul(factors.P[:, some].T, factors.Q, out=variance)
            np.matmul(factors.delta[:, some].T, factors.A, out=product)
            self._deviation(factors, variance, product, W[some])
            np.multiply(variance, unit, out=sigma[some])

    def _deviation(
        self, factors: LayerFactors, variance: Singles, product: Singles, W: Floats
    ) -> None:
        """Turn a variance into σ, with what rounding g = product + penalty adds, in place."""
        stored = MEAN_SQUARE + self.precision.partial_sums(self.samples)
        factor = factor_variance(self.network, self.samples, self.precision)
        decay = 2.0 * self.network.penalty_scale(self.samples)
        if not decay:
            stored += factor
        else:
            if factor:  # it is the data's alone
                variance += np.float32(factor) * product * product
            penalty = (W * (decay / factors.size)).astype(np.float32)
            product += penalty
            penalty *= penalty
            penalty *= np.float32(3.0 * MEAN_SQUARE)
            variance += penalty
        product *= np.float32(np.sqrt(stored))
        product *= product
        variance += product
        variance += np.float32(np.clip(self.precision.underflows(factors.size), 1e-36, 1e30))
        np.sqrt(variance, out=variance)

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
        self._deviation(factors, variance, product, self.network.W(block.layer)[i, j])
        return np.asarray(variance * np.float64(factors.size * self.precision.u))

    def vector(self) -> Floats:
        """Return σ of all components, shape (N,), float64."""
        sigma = np.empty(self.network.size)
        for block, view in self.network.order.views(sigma):
            self._fill(block, view)
        return sigma


def block_tolerance(norm: float, greatest: float) -> float:
    """Return the ‖error‖ up to which rounding explains a block.

    Parameters
    ----------
    norm, greatest : float
        ‖σ‖ and max σ of the block.
    """
    return max(BLOCK_FACTOR * norm, min(COMPONENT_FACTOR * greatest, BLOCK_CEILING * norm))


def rounding(
    network: Network, batch: Batch, precision: str, trace: Trace | None = None
) -> Rounding:
    """Return what rounding in a precision does to a correct backward pass.

    Parameters
    ----------
    network : Network
    batch : Batch
    precision : str
        `float64`, `float32`, `float16` or `bfloat16`.
    trace : tuple of ndarray, each of shape (m · Σ n_l,), float64, optional
        Z and A of a forward pass at θ, layer after layer; made where it is not given.

    Notes
    -----
    Higham & Mary, "A new approach to probabilistic rounding error analysis", SISC 2019. Memory is
    a few (m, Σ n_l) arrays, and W and W² in float32: all of them up to `draws.KEPT_BYTES`, beyond
    that one layer's. σ itself is made block by block.
    """
    arithmetic = Precision.of(precision)
    with np.errstate(all="ignore"):
        draws = Draws(batch.size)
        traces = forward(network, batch, arithmetic, draws, trace)
        layers = backward(network, batch, arithmetic, traces, draws)
    overflowing = tuple(
        layer
        for layer, trace in enumerate(traces, start=1)
        if not float(np.max(np.abs(trace.Z))) <= arithmetic.largest
    )
    return Rounding(network, arithmetic, tuple(layers), batch.size, overflowing)


def gradient_rounding(
    network: Network, batch: Batch, precision: str, trace: Trace | None = None
) -> Floats:
    """Return σ of each component's rounding error, shape (N,), float64; see `rounding`."""
    return rounding(network, batch, precision, trace).vector()
