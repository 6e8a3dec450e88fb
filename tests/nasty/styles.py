"""Backward passes in several styles, each written for itself; none imports fastcheck.

Every style takes a network and a `Way` and returns (dW, db) of each layer in row convention, in
the dtype that the way asks for. Those named `slow` loop in Python.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.nasty.formulas import FORMS, OUTPUT_ERRORS, Form
from tests.nasty.network import Array, Gradient, Nasty, bfloat16


@dataclass(frozen=True)
class Way:
    """How a backward pass is written.

    Attributes
    ----------
    dtype : str
        The precision of everything that is stored.
    forms : tuple of int
        Which form of each layer's activation, counted modulo how many there are.
    loss_form : int
    kink : float
        relu'(0), and its like at every kink.
    divide_last : bool
        Whether 1/m comes in at dW and db, and not at the output.
    """

    dtype: str = "float64"
    forms: tuple[int, ...] = (0,)
    loss_form: int = 0
    kink: float = 0.0
    divide_last: bool = False

    def form(self, net: Nasty, layer: int) -> Form:
        """Return the form of layer `layer` = 0..L−1's activation."""
        choices = FORMS[net.activations[layer][0]]
        return choices[self.forms[layer % len(self.forms)] % len(choices)]

    def output_error(self, net: Nasty, z: Array, t: Array) -> Array:
        """Return ∂ℓ/∂a_L, rows are samples."""
        name, p = net.loss
        choices = OUTPUT_ERRORS[name]
        return choices[self.loss_form % len(choices)](z, t, p)

    def array(self, values: Array) -> Array:
        """Return an array in this way's dtype."""
        return np.asarray(values, dtype=self.dtype)

    def scales(self, net: Nasty) -> tuple[float, float]:
        """Return what the output's error, and what dW and db are multiplied by."""
        return (1.0, net.data_scale) if self.divide_last else (net.data_scale, 1.0)


def rows(net: Nasty, way: Way) -> Gradient:
    """Samples are rows: Z = A Wᵀ + b."""
    W = [way.array(w) for w in net.weights]
    A, Zs = [way.array(net.inputs)], []
    for l, w in enumerate(W):
        z = A[l] @ w.T
        if net.biases[l] is not None:
            z = z + way.array(net.biases[l])
        a = way.form(net, l).value(z, net.activations[l][1])
        mask = net.mask(l + 1)
        Zs.append((z, a))
        A.append(a if mask is None else a * way.array(mask))
    first, last = way.scales(net)
    dA = way.output_error(net, A[-1], way.array(net.targets)) * first
    found: Gradient = []
    for l in reversed(range(net.depth)):
        z, a = Zs[l]
        mask = net.mask(l + 1)
        if mask is not None:
            dA = dA * way.array(mask)
        dZ = dA * way.form(net, l).slope(z, a, net.activations[l][1], way.kink)
        dW = (dZ.T @ A[l]) * last + net.decay * W[l]
        db = None if net.biases[l] is None else dZ.sum(axis=0) * last
        found.insert(0, (dW, db))
        dA = dZ @ W[l]
    return found


def columns(net: Nasty, way: Way) -> Gradient:
    """Samples are columns, as in courses: Z = W A + b; the caches go from layer to layer."""
    A = way.array(net.inputs.T)
    caches = []
    for l in range(net.depth):
        W, b = way.array(net.weights[l]), net.biases[l]
        Z = np.dot(W, A)
        if b is not None:
            Z += way.array(b).reshape(-1, 1)
        form, p, mask = way.form(net, l), net.activations[l][1], net.mask(l + 1)
        value = form.value(Z, p)
        D = None if mask is None else way.array(mask.T)
        caches.append((A, W, Z, value, D))
        A = value if D is None else np.multiply(value, D)
    first, last = way.scales(net)
    Y = way.array(net.targets)
    dA = np.multiply(way.output_error(net, A.T, Y).T, first)
    grads: Gradient = []
    for l in range(net.depth - 1, -1, -1):
        A_prev, W, Z, value, D = caches[l]
        if D is not None:
            dA = np.multiply(dA, D)
        dZ = np.multiply(dA, way.form(net, l).slope(Z, value, net.activations[l][1], way.kink))
        dW = last * np.dot(dZ, A_prev.T)
        if net.decay:
            dW = dW + np.multiply(net.decay, W)
        db = last * np.sum(dZ, axis=1, keepdims=True)
        grads.append((dW, None if net.biases[l] is None else db.reshape(-1)))
        dA = np.dot(W.T, dZ)
    return grads[::-1]


def samples(net: Nasty, way: Way) -> Gradient:
    """A Python loop over the samples; gradients are added up one after the other."""
    W = [way.array(w) for w in net.weights]
    b = [None if v is None else way.array(v) for v in net.biases]
    X, T = way.array(net.inputs), way.array(net.targets)
    dW = [np.zeros_like(w) for w in W]
    db = [None if v is None else np.zeros_like(v) for v in b]
    first, last = way.scales(net)
    for s in range(net.m):
        A, kept = [X[s]], []
        for l in range(net.depth):
            z = W[l] @ A[l]
            if b[l] is not None:
                z = z + b[l]
            a = way.form(net, l).value(z, net.activations[l][1])
            mask = net.mask(l + 1)
            kept.append((z, a))
            A.append(a if mask is None else a * way.array(mask[s]))
        d = way.output_error(net, A[-1][None, :], T[s][None, :])[0] * first
        for l in reversed(range(net.depth)):
            mask = net.mask(l + 1)
            if mask is not None:
                d = d * way.array(mask[s])
            d = d * way.form(net, l).slope(*kept[l], net.activations[l][1], way.kink)
            dW[l] += np.outer(d, A[l])
            if b[l] is not None:
                db[l] += d
            d = W[l].T @ d
    return [
        (last * g + net.decay * w, None if h is None else last * h)
        for g, h, w in zip(dW, db, W, strict=True)
    ]


def einsum(net: Nasty, way: Way) -> Gradient:
    """Every product by einsum, which in float16 rounds otherwise than `@` does."""
    W = [way.array(w) for w in net.weights]
    A, Zs = [way.array(net.inputs)], []
    for l in range(net.depth):
        z = np.einsum("si,oi->so", A[l], W[l])
        if net.biases[l] is not None:
            z = np.add(z, way.array(net.biases[l])[None, :])
        a = way.form(net, l).value(z, net.activations[l][1])
        mask = net.mask(l + 1)
        Zs.append((z, a))
        A.append(a if mask is None else np.einsum("so,so->so", a, way.array(mask)))
    first, last = way.scales(net)
    delta = way.output_error(net, A[-1], way.array(net.targets)) * first
    out: list[Any] = [None] * net.depth
    for l in range(net.depth)[::-1]:
        mask = net.mask(l + 1)
        slope = way.form(net, l).slope(*Zs[l], net.activations[l][1], way.kink)
        delta = delta * slope if mask is None else delta * slope * way.array(mask)
        dW = np.einsum("so,si->oi", delta, A[l]) * last
        db = None if net.biases[l] is None else np.einsum("so->o", delta) * last
        out[l] = (dW + net.decay * W[l] if net.decay else dW, db)
        delta = np.einsum("so,oi->si", delta, W[l])
    return out


def running_product(left: Array, right: Array) -> Array:
    """Return left @ right with one running sum in their dtype, each product and sum rounded."""
    total = np.zeros((left.shape[0], right.shape[1]), dtype=left.dtype)
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k, :]
    return total


def running_sum(values: Array) -> Array:
    """Return the sum over rows, one after the other in their dtype."""
    total = np.zeros(values.shape[1], dtype=values.dtype)
    for row in values:
        total += row
    return total


def loops(net: Nasty, way: Way) -> Gradient:
    """As C code has it: every sum runs in the precision, one addition after the other."""
    W = [way.array(w) for w in net.weights]
    A, Zs = [way.array(net.inputs)], []
    for l in range(net.depth):
        z = running_product(A[l], W[l].T)
        if net.biases[l] is not None:
            z += way.array(net.biases[l])
        a = way.form(net, l).value(z, net.activations[l][1])
        mask = net.mask(l + 1)
        Zs.append((z, a))
        A.append(a if mask is None else a * way.array(mask))
    first, last = way.scales(net)
    dA = way.output_error(net, A[-1], way.array(net.targets)) * first
    found: Gradient = []
    for l in reversed(range(net.depth)):
        mask = net.mask(l + 1)
        dZ = dA if mask is None else dA * way.array(mask)
        dZ = dZ * way.form(net, l).slope(*Zs[l], net.activations[l][1], way.kink)
        dW = running_product(dZ.T, A[l]) * last
        dW += net.decay * W[l]
        db = None if net.biases[l] is None else running_sum(dZ) * last
        found.append((dW, db))
        dA = running_product(dZ, W[l])
    return found[::-1]


def scalars(net: Nasty, way: Way) -> Gradient:
    """Nothing but numbers: three nested loops, the bias first, as a beginner writes it."""
    kind = np.dtype(way.dtype).type
    W = [way.array(w) for w in net.weights]
    X, T = way.array(net.inputs), way.array(net.targets)
    dW = [np.zeros_like(w) for w in W]
    db = [np.zeros(w.shape[0], dtype=way.dtype) for w in W]
    first, last = (kind(v) for v in way.scales(net))
    for s in range(net.m):
        A, kept = [X[s]], []
        for l, w in enumerate(W):
            bias = net.biases[l]
            z = np.zeros(w.shape[0], dtype=way.dtype)
            for i in range(w.shape[0]):
                total = kind(0.0 if bias is None else bias[i])
                for j in range(w.shape[1]):
                    total = total + w[i, j] * A[l][j]
                z[i] = total
            a = way.form(net, l).value(z, net.activations[l][1])
            mask = net.mask(l + 1)
            kept.append((z, a))
            A.append(a if mask is None else a * way.array(mask[s]))
        d = way.output_error(net, A[-1][None, :], T[s][None, :])[0] * first
        for l in reversed(range(net.depth)):
            mask = net.mask(l + 1)
            d = d if mask is None else d * way.array(mask[s])
            d = d * way.form(net, l).slope(*kept[l], net.activations[l][1], way.kink)
            before = np.zeros(W[l].shape[1], dtype=way.dtype)
            for i in range(W[l].shape[0]):
                db[l][i] += d[i]
                for j in range(W[l].shape[1]):
                    dW[l][i, j] += d[i] * A[l][j]
                    before[j] += d[i] * W[l][i, j]
            d = before
    decay = kind(net.decay)
    return [
        (g * last + decay * w, None if net.biases[l] is None else h * last)
        for l, (g, h, w) in enumerate(zip(dW, db, W, strict=True))
    ]


def _wide_passes(net: Nasty, way: Way, store: Callable[[Array], Array]) -> Gradient:
    """Sums in float64, everything that is kept is stored in the way's precision."""
    wide = np.float64
    W = [way.array(w).astype(wide) for w in net.weights]
    A, Zs = [way.array(net.inputs)], []
    for l, w in enumerate(W):
        z = A[l].astype(wide) @ w.T
        if net.biases[l] is not None:
            z += way.array(net.biases[l]).astype(wide)
        z = store(z)
        a = store(way.form(net, l).value(z, net.activations[l][1]))
        mask = net.mask(l + 1)
        Zs.append((z, a))
        A.append(a if mask is None else store(a * way.array(mask)))
    first, last = way.scales(net)
    dA = store(way.output_error(net, A[-1], way.array(net.targets)) * first)
    found: Gradient = []
    for l in reversed(range(net.depth)):
        mask = net.mask(l + 1)
        dA = dA if mask is None else store(dA * way.array(mask))
        dZ = store(dA * way.form(net, l).slope(*Zs[l], net.activations[l][1], way.kink))
        dW = store((dZ.astype(wide).T @ A[l].astype(wide)) * last + net.decay * W[l])
        db = None if net.biases[l] is None else store(dZ.astype(wide).sum(axis=0) * last)
        found.append((dW, db))
        dA = store(dZ.astype(wide) @ W[l])
    return found[::-1]


def mixed(net: Nasty, way: Way) -> Gradient:
    """Stored in the way's precision, summed in float64."""
    return _wide_passes(net, way, way.array)


def single_products(net: Nasty, way: Way) -> Gradient:
    """Stored in float64 as long as the way's dtype is not lower, but multiplied in it."""
    low = way.dtype
    W = [w.astype(low) for w in net.weights]
    A: list[Array] = [np.asarray(net.inputs)]
    Zs = []
    for l, w in enumerate(W):
        z = (A[l].astype(low) @ w.T).astype(np.float64)
        if net.biases[l] is not None:
            z += net.biases[l]
        a = way.form(net, l).value(z, net.activations[l][1])
        mask = net.mask(l + 1)
        Zs.append((z, a))
        A.append(a if mask is None else a * mask)
    first, last = way.scales(net)
    dA = way.output_error(net, A[-1], net.targets) * first
    found: Gradient = []
    for l in reversed(range(net.depth)):
        mask = net.mask(l + 1)
        dA = dA if mask is None else dA * mask
        dZ = dA * way.form(net, l).slope(*Zs[l], net.activations[l][1], way.kink)
        dW = (dZ.astype(low).T @ A[l].astype(low)) * last + net.decay * W[l]
        db = None if net.biases[l] is None else (dZ.sum(axis=0) * last).astype(low)
        found.append((dW.astype(low), db))
        dA = (dZ.astype(low) @ W[l]).astype(np.float64)
    return found[::-1]


def brain(net: Nasty, way: Way) -> Gradient:
    """Stored in bfloat16, summed wider, as accelerators do."""
    return _wide_passes(net, way, bfloat16)


STYLES: dict[str, Callable[[Nasty, Way], Gradient]] = {
    "rows": rows,
    "columns": columns,
    "samples": samples,
    "einsum": einsum,
    "loops": loops,
    "scalars": scalars,
    "mixed": mixed,
    "single products": single_products,
    "brain": brain,
}
SLOW = {"scalars": 3_000, "samples": 200_000}
"""The most multiplications, m times the weights, that a style in plain Python is given."""
