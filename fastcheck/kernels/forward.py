"""The forward pass, literally: J(θ) and its trace."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastcheck.kernels.activations import activate
from fastcheck.kernels.compiling import array_kernel, part_kernel, pointer_kernel
from fastcheck.kernels.losses import loss_value
from fastcheck.types import Floats, Integers

__all__ = [
    "NO_ACTIVATION",
    "NO_LOSS",
    "NetworkArrays",
    "cost",
    "forward_trace",
]


class NetworkArrays(NamedTuple):
    """A network as kernels see it.

    Attributes
    ----------
    sizes : ndarray, shape (L + 1,), int64
        `n_0, …, n_L`.
    weight_offsets, bias_offsets : ndarray, shape (L,), int64
        Where W_l and b_l start in θ; −1 for a layer without biases.
    activations : ndarray, shape (L,), int64
        Codes of the activation table.
    parameters : ndarray, shape (L,), float64
        The activations' parameters, 0 where there is none.
    masks : ndarray, float64
        All dropout masks (m, n_l), flattened in row order and concatenated.
    mask_offsets : ndarray, shape (L,), int64
        Where the mask of A_l starts; −1 for none.
    loss : int
        Code of the loss table.
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
    loss: int
    loss_parameter: float
    data_scale: float
    penalty_scale: float
    corners: Floats


@pointer_kernel("float64(int64, float64)")
def NO_ACTIVATION(which: int, z: float) -> float:
    """Stand in where no layer has an activation of the user's own."""
    return np.nan


@pointer_kernel("float64(float64, float64)")
def NO_LOSS(output: float, target: float) -> float:
    """Stand in where the loss is not the user's own."""
    return np.nan


@part_kernel
def _linear(net: NetworkArrays, layer: int, theta: Floats, A: Floats, Z: Floats) -> None:
    """Z_l = A_{l-1} W_lᵀ + b_l, for layer index 0..L-1."""
    n_in, n_out = net.sizes[layer], net.sizes[layer + 1]
    start = net.weight_offsets[layer]
    W = theta[start : start + n_in * n_out].reshape((n_out, n_in))
    np.dot(A, W.T, Z)
    start = net.bias_offsets[layer]
    if start >= 0:
        for s in range(Z.shape[0]):
            for i in range(n_out):
                Z[s, i] += theta[start + i]


@part_kernel
def _apply_mask(net: NetworkArrays, layer: int, flat: Floats) -> None:
    """A_l is multiplied by its dropout mask, where it has one."""
    start = net.mask_offsets[layer]
    if start >= 0:
        for i in range(flat.size):
            flat[i] *= net.masks[start + i]


@array_kernel
def cost(
    net: NetworkArrays,
    theta: Floats,
    X: Floats,
    T: Floats,
    work: Floats,
    custom: Any,
    custom_loss: Any,
) -> tuple[float, float]:
    """Return the data part and the penalty part of J(θ), by one whole forward pass.

    Parameters
    ----------
    net : NetworkArrays
    theta : ndarray, shape (N,), float64
    X, T : ndarray, shape (m, n_0) and (m, n_L), float64
    work : ndarray, shape (2, m · max n_l), float64
        Overwritten.
    custom, custom_loss : numba function pointers
        The user's own activations and loss.
    """
    m = X.shape[0]
    A = X
    for layer in range(net.activations.size):
        n_out = net.sizes[layer + 1]
        flat = work[layer % 2, : m * n_out]
        Z = flat.reshape((m, n_out))
        _linear(net, layer, theta, A, Z)
        activate(net.activations[layer], net.parameters[layer], flat, custom)
        _apply_mask(net, layer, flat)
        A = Z
    total = 0.0
    for s in range(m):
        total += loss_value(net.loss, net.loss_parameter, A[s], T[s], custom_loss)
    penalty = 0.0
    if net.penalty_scale != 0.0:
        for layer in range(net.activations.size):
            start = net.weight_offsets[layer]
            W = theta[start : start + net.sizes[layer] * net.sizes[layer + 1]]
            penalty += np.dot(W, W)
    return net.data_scale * total, net.penalty_scale * penalty


@array_kernel
def forward_trace(
    net: NetworkArrays, theta: Floats, X: Floats, Z_all: Floats, A_all: Floats, custom: Any
) -> None:
    """Fill in what one forward pass at θ leaves behind.

    Parameters
    ----------
    net, theta, X, custom
        As for `cost`.
    Z_all, A_all : ndarray, shape (m · Σ_{l ≥ 1} n_l,), float64
        Z_1, …, Z_L and A_1, …, A_L, each (m, n_l) in row order, one after the other.
    """
    m = X.shape[0]
    A = X
    start = 0
    for layer in range(net.activations.size):
        n_out = net.sizes[layer + 1]
        Z = Z_all[start : start + m * n_out].reshape((m, n_out))
        _linear(net, layer, theta, A, Z)
        flat = A_all[start : start + m * n_out]
        flat[:] = Z_all[start : start + m * n_out]
        activate(net.activations[layer], net.parameters[layer], flat, custom)
        _apply_mask(net, layer, flat)
        A = flat.reshape((m, n_out))
        start += m * n_out
