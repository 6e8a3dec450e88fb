"""The reference backward pass, in NumPy float64: for the demonstration and for diagnosis only.

No method that computes dθ_approx may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcheck.errors import InputError
from fastcheck.kernels.forward import TRACE_NUMBERS, forward_trace
from fastcheck.model.network import Batch, Network
from fastcheck.types import Floats

__all__ = [
    "RIGHT",
    "Here",
    "Steps",
    "Trace",
    "backward_pass",
    "forward_pass",
    "gradients",
    "output_error",
]


@dataclass(frozen=True)
class Trace:
    """What one forward pass leaves behind.

    Attributes
    ----------
    Z : tuple of ndarray, (m, n_l) each, float64
        Z_1, …, Z_L.
    A : tuple of ndarray, (m, n_l) each, float64
        A_0 = X, A_1, …, A_L, dropout masks applied.
    """

    Z: tuple[Floats, ...]
    A: tuple[Floats, ...]


def forward_pass(network: Network, batch: Batch) -> Trace:
    """Return what one forward pass at θ leaves behind."""
    m, sizes = batch.size, network.sizes
    Z_all, A_all = np.empty((2, m * sum(sizes[1:])))
    forward_trace(network.arrays(m), network.theta, batch.X, Z_all, A_all, network.calls)
    ends = m * np.cumsum(sizes[1:])[:-1]
    Z = [part.reshape(m, -1) for part in np.split(Z_all, ends)]
    A = [part.reshape(m, -1) for part in np.split(A_all, ends)]
    return Trace(tuple(Z), (batch.X, *A))


def output_error(network: Network, trace: Trace, T: Floats) -> Floats:
    """Return ∂J/∂A_L, shape (m, n_L)."""
    loss = network.loss
    if loss.entry is None:
        raise _no_derivative(loss.name, "loss")
    gradient = loss.entry.output_gradient(trace.A[-1], T, loss.parameter)
    return np.asarray(network.data_scale(T.shape[0]) * gradient)


def slopes(network: Network, layer: int, Z: Floats) -> Floats:
    """Return φ_l'(Z_l), shape (m, n_l)."""
    activation = network.activations[layer - 1]
    if activation.entry is None:
        raise _no_derivative(activation.name, "activation")
    return activation.entry.derivative(Z, activation.parameter)


@dataclass(frozen=True)
class Here:
    """Where a backward pass stands: at layer l, with what its steps may use."""

    network: Network
    batch: Batch
    trace: Trace
    layer: int

    @property
    def Z(self) -> Floats:
        """Z_l, shape (m, n_l)."""
        return self.trace.Z[self.layer - 1]

    @property
    def A(self) -> Floats:
        """A_l, shape (m, n_l), dropout mask applied."""
        return self.trace.A[self.layer]

    @property
    def A_before(self) -> Floats:
        """A_{l-1}, shape (m, n_{l-1})."""
        return self.trace.A[self.layer - 1]

    @property
    def W(self) -> Floats:
        """W_l, shape (n_l, n_{l-1})."""
        return self.network.W(self.layer)

    @property
    def decay(self) -> float:
        """What the penalty adds to dW_l, as a multiple of W_l."""
        return 2.0 * self.network.penalty_scale(self.batch.size)


def _output_error(here: Here) -> Floats:
    return output_error(here.network, here.trace, here.batch.T)


def _slopes(here: Here) -> Floats:
    return slopes(here.network, here.layer, here.Z)


def _mask(here: Here) -> Floats | None:
    return here.network.masks[here.layer - 1] if here.network.masks else None


def _weights(here: Here, dZ: Floats) -> Floats:
    return dZ.T @ here.A_before


def _penalty(here: Here) -> Floats | float:
    return here.decay * here.W if here.decay else 0.0


def _biases(here: Here, dZ: Floats) -> Floats:
    return np.asarray(dZ.sum(axis=0))


def _error_before(here: Here, dZ: Floats) -> Floats:
    return dZ @ here.W


@dataclass(frozen=True)
class Steps:
    """The steps of a backward pass, so that a slip can take the place of one of them.

    Attributes
    ----------
    output_error : callable
        `(here) -> ∂J/∂A_L`, shape (m, n_L).
    slopes : callable
        `(here) -> φ_l'(Z_l)`, shape (m, n_l).
    mask : callable
        `(here) ->` the dropout mask (m, n_l) or None.
    weights : callable
        `(here, dZ) ->` the data's part of dW_l, shape (n_l, n_{l-1}).
    penalty : callable
        `(here) ->` the penalty's part of dW_l.
    biases : callable
        `(here, dZ) -> db_l`, shape (n_l,).
    error_before : callable
        `(here, dZ) -> dA_{l-1}`, shape (m, n_{l-1}).
    """

    output_error: Callable[[Here], Floats] = _output_error
    slopes: Callable[[Here], Floats] = _slopes
    mask: Callable[[Here], Floats | None] = _mask
    weights: Callable[[Here, Floats], Floats] = _weights
    penalty: Callable[[Here], Floats | float] = _penalty
    biases: Callable[[Here, Floats], Floats] = _biases
    error_before: Callable[[Here, Floats], Floats] = _error_before


RIGHT = Steps()


def gradients(network: Network, batch: Batch, steps: Steps = RIGHT) -> Floats:
    """Return dθ, in the order of θ.

    Parameters
    ----------
    network : Network
    batch : Batch
    steps : Steps, optional
        Other steps than the right ones, to re-enact a slip.

    Returns
    -------
    ndarray, shape (N,), float64

    Raises
    ------
    InputError
        Where an activation or the loss is the user's own: its derivative is not known.
    """
    trace = forward_pass(network, batch)
    dA = steps.output_error(Here(network, batch, trace, network.depth))
    dtheta = np.empty(network.size)
    for layer in range(network.depth, 0, -1):
        here = Here(network, batch, trace, layer)
        dZ = dA * steps.slopes(here)
        mask = steps.mask(here)
        if mask is not None:
            dZ *= mask
        weights, biases = network.order.weights(layer), network.order.biases(layer)
        dW = dtheta[weights.slice].reshape(weights.shape)
        np.add(steps.weights(here, dZ), steps.penalty(here), out=dW)
        if biases is not None:
            dtheta[biases.slice] = steps.biases(here, dZ)
        if layer > 1:
            dA = steps.error_before(here, dZ)
    return dtheta


def backward_pass(
    network: Network, inputs: ArrayLike, targets: ArrayLike
) -> dict[str, NDArray[Any]]:
    """Return the gradient as the user would, in the form that `gradcheck` takes as a callable.

    Parameters
    ----------
    network : Network
    inputs, targets : array_like
        The batch in the user's layout.

    Returns
    -------
    dict
        `{"dW1": …, "db1": …, …}` in the user's layout and precision.
    """
    dtheta = _in_parts(network, network.batch(inputs, targets))
    return {
        block.gradient_name: network.user_array(block, values)
        for block, values in network.order.views(dtheta)
    }


def _in_parts(network: Network, batch: Batch) -> Floats:
    """Return dθ, summed over so many samples at a time that the memory stays bounded."""
    m = batch.size
    each = max(1, TRACE_NUMBERS // sum(network.sizes[1:]))
    if m <= each:
        return gradients(network, batch)
    dtheta, without = np.zeros(network.size), replace(network, l2=0.0)
    for first in range(0, m, each):
        part = batch.part(first, min(first + each, m))
        share = network.data_scale(m) / network.data_scale(part.size)
        dtheta += share * gradients(without.part(first, first + part.size), part)
    for layer in range(1, network.depth + 1):
        decay = 2.0 * network.penalty_scale(m) * network.W(layer)
        dtheta[network.order.weights(layer).slice] += decay.ravel()
    return dtheta


def _no_derivative(name: str, what: str) -> InputError:
    return InputError(
        f"the reference backward pass of {name!r}, your own {what}",
        f"an {what} of the table" if what[0] in "aeiou" else f"a {what} of the table",
        "Give your own gradient to the check: it needs no derivative.",
    )
