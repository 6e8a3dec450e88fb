"""The one forward pass at θ, in NumPy: J(θ) and its trace."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastcheck.kernels.calls import Calls
from fastcheck.types import Floats, Integers

__all__ = ["TRACE_NUMBERS", "NetworkArrays", "cost", "forward_trace"]


# J is summed over so many samples at a time that each array of their trace has so many numbers.
TRACE_NUMBERS = 2**25


class NetworkArrays(NamedTuple):
    """A network as kernels see it.

    Attributes
    ----------
    sizes : ndarray, shape (L + 1,), int64
        `n_0, …, n_L`.
    weight_offsets, bias_offsets : ndarray, shape (L,), int64
        Where W_l and b_l start in θ; −1 for a layer without biases.
    activations : ndarray, shape (L,), int64
        Places in a table of addresses (`Calls`): a layer's own, or L for the identity.
    parameters : ndarray, shape (L,), float64
        The activations' parameters, 0 where there is none.
    masks : ndarray, float64
        All dropout masks (m, n_l), flattened in row order and concatenated.
    mask_offsets : ndarray, shape (L,), int64
        Where the mask of A_l starts; −1 for none.
    cancels : bool
        Whether differences of the outputs' activation or of the loss cancel: the user's own do.
    loss_parameter, data_scale, penalty_scale : float
        J = data_scale · Σ_s ℓ_s + penalty_scale · Σ_l ‖W_l‖².
    corners : ndarray, float64
        At which residuals (output minus target) the loss is not analytic.
    """

    sizes: Integers
    weight_offsets: Integers
    bias_offsets: Integers
    activations: Integers
    parameters: Floats
    masks: Floats
    mask_offsets: Integers
    cancels: bool
    loss_parameter: float
    data_scale: float
    penalty_scale: float
    corners: Floats


@np.errstate(all="ignore")  # what overflows is said in words, by who looks at J
def forward_trace(
    net: NetworkArrays, theta: Floats, X: Floats, Z_all: Floats, A_all: Floats, calls: Calls
) -> None:
    """Fill in what one forward pass at θ leaves behind.

    Parameters
    ----------
    net : NetworkArrays
    theta : ndarray, shape (N,), float64
    X : ndarray, shape (m, n_0), float64
    Z_all, A_all : ndarray, shape (m · Σ_{l ≥ 1} n_l,), float64
        Z_1, …, Z_L and A_1, …, A_L, each (m, n_l) in row order, one after the other.
    calls : Calls
    """
    m, A, start = X.shape[0], X, 0
    for layer, (n_in, n_out) in enumerate(pairwise(net.sizes.tolist())):
        place = slice(start, start + m * n_out)
        Z, flat = Z_all[place].reshape(m, n_out), A_all[place]
        weights, biases = net.weight_offsets[layer], net.bias_offsets[layer]
        np.dot(A, theta[weights : weights + n_in * n_out].reshape(n_out, n_in).T, out=Z)
        if biases >= 0:
            Z += theta[biases : biases + n_out]
        flat[:] = Z_all[place]
        calls.activate(layer + 1, net.parameters[layer], flat)
        mask = net.mask_offsets[layer]
        if mask >= 0:
            flat *= net.masks[mask : mask + flat.size]
        A, start = flat.reshape(m, n_out), start + m * n_out


def rows_of(net: NetworkArrays, first: int) -> NetworkArrays:
    """Return the network as it meets the samples from `first` on."""
    masks = np.where(net.mask_offsets < 0, -1, net.mask_offsets + first * net.sizes[1:])
    return net._replace(mask_offsets=masks)


def cost(
    net: NetworkArrays, theta: Floats, X: Floats, T: Floats, calls: Calls
) -> tuple[float, float]:
    """Return the data part and the penalty part of J(θ), by one whole forward pass.

    Parameters
    ----------
    net, theta, X, calls
        As for `forward_trace`.
    T : ndarray, shape (m, n_L), float64
    """
    m, sizes = X.shape[0], net.sizes.tolist()
    each = max(1, min(m, TRACE_NUMBERS // sum(sizes[1:])))
    Z, A = np.empty((2, each * sum(sizes[1:])))
    data = 0.0
    for first in range(0, m, each):
        part = slice(first, min(first + each, m))
        rows = part.stop - first
        z, a = Z[: rows * sum(sizes[1:])], A[: rows * sum(sizes[1:])]
        forward_trace(rows_of(net, first), theta, X[part], z, a, calls)
        outputs = a[a.size - rows * sizes[-1] :].reshape(rows, sizes[-1])
        data += calls.sum_of_losses(net.loss_parameter, outputs, T[part])
    data *= net.data_scale
    if net.penalty_scale == 0.0:
        return data, 0.0
    squares = 0.0
    for start, n_in, n_out in zip(net.weight_offsets, sizes, sizes[1:], strict=False):
        W = theta[start : start + n_in * n_out]
        squares += float(np.dot(W, W))
    return data, net.penalty_scale * squares
