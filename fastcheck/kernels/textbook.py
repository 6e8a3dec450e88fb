"""The textbook's two whole forward passes for each component, a block of samples at a time."""

from __future__ import annotations

import numpy as np

from fastcheck.kernels.calls import Calls, activate, loss_value
from fastcheck.kernels.compiling import array_kernel, part_kernel
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.products import NARROW, WIDE, product
from fastcheck.types import Floats, Integers

__all__ = ["in_blocks", "textbook_calls", "textbook_cost", "textbook_differences", "work_shape"]

TextbookCalls = tuple[Integers, int]

ROWS_AT_ONCE = 16  # of W: the penalty sums them while they are still in the cache


def in_blocks(X: Floats) -> Floats:
    """Return X (m, n_0) as blocks of WIDE samples, each `X[j, s]`, one after the other.

    The last block is as wide as the samples left need, in steps of NARROW, filled up with zeros.
    """
    m, n = X.shape
    parts = []
    for start in range(0, m, WIDE):
        rows = X[start : start + WIDE]
        block = np.zeros((n, -(-rows.shape[0] // NARROW) * NARROW))
        block[:, : rows.shape[0]] = rows.T
        parts.append(block.ravel())
    return np.concatenate(parts)


def work_shape(sizes: list[int]) -> tuple[int, int]:
    """Return the shape of the workspace for layers of the given sizes."""
    return 3, WIDE * max(sizes[1:])


def textbook_calls(calls: Calls) -> TextbookCalls:
    """Return the addresses that the kernels here take."""
    return calls.values, calls.loss_value


@part_kernel
def _linear(
    net: NetworkArrays, layer: int, theta: Floats, A: Floats, Z: Floats, width: int
) -> float:
    """Z = W_l A + b_l for one block of samples; returns ‖W_l‖² where the cost has a penalty."""
    n_in, n_out = net.sizes[layer], net.sizes[layer + 1]
    start = net.weight_offsets[layer]
    squares = 0.0
    for i in range(0, n_out, ROWS_AT_ONCE):
        stop = min(i + ROWS_AT_ONCE, n_out)
        W = theta[start + i * n_in : start + stop * n_in]
        product(W, A, Z[i * width : stop * width], n_in, width)
        if net.penalty_scale != 0.0:
            squares += np.dot(W, W)
    start = net.bias_offsets[layer]
    if start >= 0:
        for i in range(n_out):
            bias = theta[start + i]
            for s in range(i * width, (i + 1) * width):
                Z[s] += bias
    return squares


@part_kernel
def _apply_mask(
    net: NetworkArrays, layer: int, Z: Floats, first: int, count: int, width: int
) -> None:
    """A_l of samples first..first+count−1 is multiplied by its dropout mask, where it has one."""
    start, n_out = net.mask_offsets[layer], net.sizes[layer + 1]
    if start >= 0:
        for s in range(count):
            for i in range(n_out):
                Z[i * width + s] *= net.masks[start + (first + s) * n_out + i]


@array_kernel
def textbook_cost(
    net: NetworkArrays,
    theta: Floats,
    X: Floats,
    T: Floats,
    work: Floats,
    calls: TextbookCalls,
) -> float:
    """Return J(θ), by one whole forward pass; the arguments are those of `textbook_differences`."""
    m, n_last = T.shape
    total, squares = 0.0, 0.0
    for first in range(0, m, WIDE):
        count = min(WIDE, m - first)
        width = (count + NARROW - 1) // NARROW * NARROW
        A = X[first * net.sizes[0] :]
        squares = 0.0
        for layer in range(net.activations.size):
            Z = work[layer % 2, : net.sizes[layer + 1] * width]
            squares += _linear(net, layer, theta, A, Z, width)
            activate(calls[0][net.activations[layer]], net.parameters[layer], Z)
            _apply_mask(net, layer, Z, first, count, width)
            A = Z
        output = work[2, :n_last]
        for s in range(count):
            for k in range(n_last):
                output[k] = A[k * width + s]
            total += loss_value(calls[1], net.loss_parameter, output, T[first + s])
    return net.data_scale * total + net.penalty_scale * squares


@array_kernel
def textbook_differences(
    net: NetworkArrays,
    theta: Floats,
    X: Floats,
    T: Floats,
    work: Floats,
    indices: Integers,
    epsilon: float,
    out: Floats,
    calls: TextbookCalls,
) -> None:
    """out[k] = (J(θ + ε e_i) − J(θ − ε e_i)) / 2ε for each i of `indices`: two whole passes each.

    2ε is the distance of θ_i + ε from θ_i − ε as both are stored, which rounding may have changed
    by as much as |θ_i|·1e-16 (Dennis & Schnabel, "Numerical methods for unconstrained
    optimization", 1983, §5.4).

    Parameters
    ----------
    net : NetworkArrays
    theta : ndarray, shape (N,), float64
        Perturbed in place and restored to the same bits.
    X : ndarray, float64
        The inputs as `in_blocks` gives them.
    T : ndarray, shape (m, n_L), float64
    work : ndarray, shape `work_shape(sizes)`, float64
        Overwritten.
    indices : ndarray, shape (n,), int64
    epsilon : float
    out : ndarray, shape (n,), float64
    calls : tuple
        From `textbook_calls`.
    """
    for k in range(indices.size):
        i = indices[k]
        kept = theta[i]
        left, right = kept - epsilon, kept + epsilon
        theta[i] = right
        above = textbook_cost(net, theta, X, T, work, calls)
        theta[i] = left
        below = textbook_cost(net, theta, X, T, work, calls)
        theta[i] = kept
        out[k] = (above - below) / (right - left)
