"""What rounding in the gradient's precision does to each component of a correct backward pass.

The result only sizes tolerances; no value of dθ_approx ever comes from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from fastcheck.execution.blas import one_blas_thread
from fastcheck.kernels.rounding import deviations
from fastcheck.model.network import Batch, Network
from fastcheck.model.parameters import Block
from fastcheck.rounding.precision import Precision
from fastcheck.rounding.propagation import LayerFactors, Trace, backward, forward
from fastcheck.rounding.sampled_errors import SampledErrors
from fastcheck.types import Floats, Singles

__all__ = ["Rounding", "gradient_rounding", "rounding"]


# Numbers gathered at a time where σ is asked for at some places only.
CHUNK_SIZE = 4_000_000
# Numbers of one block that are worked on at a time.
CACHE_SIZE = 140_000


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
    dtheta : ndarray, shape (N,), float64, finite, or None
        Values of the gradient, where they are known; `at` makes its own.
    """

    network: Network
    precision: Precision
    layers: tuple[LayerFactors, ...]
    samples: int
    overflowing: tuple[int, ...] = ()
    dtheta: Floats | None = None

    @property
    def loop_factor(self) -> float:
        """By how much a plain loop over the samples is worse than the order that σ is made for."""
        return self.precision.loop_factor(self.samples)

    def vector(self) -> Floats:
        """Return σ of all components, shape (N,), float64."""
        sigma = np.empty(self.network.size)
        with _quietly():
            for block, view in self.network.order.views(sigma):
                self._fill(block, slice(0, block.shape[0]), view)
        return sigma

    def block(self, block: Block) -> Floats:
        """Return σ of one block, in its shape (row convention), float64."""
        sigma = np.empty(block.shape)
        with _quietly():
            self._fill(block, slice(0, block.shape[0]), sigma)
        return sigma

    def between(self, start: int, stop: int) -> Floats:
        """Return σ of the components start..stop−1 of θ."""
        with _quietly():
            parts = [
                self._part(b, max(start - b.offset, 0), min(stop - b.offset, b.size))
                for b in self.network.order.blocks
                if b.offset < stop and start < b.offset + b.size
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, block: Block, start: int, stop: int) -> Floats:
        """Return σ of some consecutive components of a block."""
        row = 1 if block.kind == "b" else block.shape[1]
        rows = slice(start // row, -(-stop // row))
        sigma = np.empty((rows.stop - rows.start, *block.shape[1:]))
        self._fill(block, rows, sigma)
        return sigma.reshape(-1)[start - rows.start * row : stop - rows.start * row]

    def _fill(self, block: Block, rows: slice, sigma: Floats) -> None:
        """Write σ of some rows of a block, a few at a time, so that they stay in the cache."""
        factors = self.layers[block.layer - 1]
        if block.kind == "b":
            np.multiply(np.sqrt(factors.bias[rows]), factors.size * self.precision.u, out=sigma)
            return
        W = self.network.W(block.layer)
        given = None if self.dtheta is None else self.dtheta[block.slice].reshape(block.shape)
        step = max(1, min(CACHE_SIZE // block.shape[1], rows.stop - rows.start))
        work = np.empty((2, step, block.shape[1]), np.float32)
        for start in range(rows.start, rows.stop, step):
            some = slice(start, min(start + step, rows.stop))
            variance, data = work[:, : some.stop - start]
            often = factors.repeated[0][some], factors.repeated[1]
            into = sigma[start - rows.start : some.stop - rows.start]
            np.matmul(factors.P[:, some].T, factors.Q, out=variance)
            if given is None:
                np.matmul(factors.delta[:, some].T, factors.A, out=data)
                self._deviations(factors, often, variance, data, (W[some], into))
            else:
                self._deviations(factors, often, variance, given[some], (W[some], into))

    def _deviations(
        self,
        factors: LayerFactors,
        often: tuple[Singles, Singles],
        variance: Singles,
        gradient: Floats | Singles,
        into: tuple[Floats, Floats],
    ) -> None:
        """Write σ: a variance, and what rounding the gradient adds; `into` is W and σ.

        A gradient in float64 is g itself, others are the data's part of it in units of `size`.
        """
        W, sigma = into
        whole = gradient.dtype == np.float64
        scale = 1.0 / factors.size if whole else 1.0
        penalty = 2.0 * self.network.penalty_scale(self.samples) / factors.size
        unit = factors.size * self.precision.u
        shares = factors.shares
        deviations(variance, gradient, scale, whole, W, penalty, shares, often, unit, sigma)

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
            step = max(1, CHUNK_SIZE // self.layers[block.layer - 1].P.shape[0])
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
        sigma = np.empty((1, inside.size))
        W = self.network.W(block.layer)[i, j]
        rows, columns = factors.repeated
        often = np.array([np.inf], np.float32), np.minimum(rows[i], columns[j])
        self._deviations(factors, often, variance[None], product[None], (W[None], sigma))
        return np.asarray(sigma[0])


@contextmanager
def _quietly() -> Iterator[None]:
    """Let numbers overflow without a warning, and BLAS have one thread."""
    with np.errstate(all="ignore"), one_blas_thread():
        yield


class Variant(NamedTuple):
    """In what correct backward passes differ that rounds differently.

    Attributes
    ----------
    side : str or None
        Which slope units that lie on a kink have, one of `conditioning.SIDES`; None for the
        table's.
    loops : bool
        Whether plain loops round every addition, where libraries add up in float32 or in parts.
    """

    side: str | None = None
    loops: bool = False


USUAL = Variant()


def rounding(
    network: Network,
    batch: Batch,
    precision: str,
    trace: Trace | None = None,
    dtheta: Floats | None = None,
    variant: Variant = USUAL,
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
    dtheta : ndarray, shape (N,), float64, optional
        Values of the gradient, whose last sum is rounded; made in float32 where it is not given.
    variant : Variant

    Notes
    -----
    Higham & Mary, "A new approach to probabilistic rounding error analysis", SISC 2019. Memory is
    a few (m, Σ n_l) arrays, and W and W² in float32: all of them up to `draws.KEPT_BYTES`, beyond
    that one layer's. σ itself is made block by block.
    """
    known = _LATEST.get((precision, variant))
    if known is not None and known.network() is network and known.batch() is batch:
        made = known.rounding()
        if made is not None:
            return made
    made = _made(
        network, batch, Precision.of(precision, loops=variant.loops), (trace, dtheta), variant.side
    )
    _LATEST[precision, variant] = _Latest(ref(network), ref(batch), ref(made))
    return made


class _Latest(NamedTuple):
    """What was made last, as long as somebody keeps it."""

    network: ref[Network]
    batch: ref[Batch]
    rounding: ref[Rounding]


_LATEST: dict[tuple[str, Variant], _Latest] = {}


def _made(
    network: Network,
    batch: Batch,
    arithmetic: Precision,
    known: tuple[Trace | None, Floats | None],
    side: str | None,
) -> Rounding:
    trace, dtheta = known
    with _quietly():
        draws = SampledErrors(batch.size, network.size, arithmetic)
        traces = forward(network, batch, arithmetic, draws, trace, side)
        layers = backward(network, batch, arithmetic, traces, draws)
    overflowing = tuple(
        layer
        for layer, trace in enumerate(traces, start=1)
        if not max(float(trace.Z.max()), -float(trace.Z.min())) <= arithmetic.largest
    )
    return Rounding(network, arithmetic, tuple(layers), batch.size, overflowing, dtheta)


def gradient_rounding(
    network: Network,
    batch: Batch,
    precision: str,
    trace: Trace | None = None,
    dtheta: Floats | None = None,
) -> Floats:
    """Return σ of each component's rounding error, shape (N,), float64; see `rounding`."""
    return rounding(network, batch, precision, trace, dtheta).vector()
