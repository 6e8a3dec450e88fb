"""What slips do: the wrong steps, blocks and arrays of a backward pass, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy  # its parts are imported at their first use

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.model.network import Network
from fastcheck.reference.backprop import RIGHT, Here
from fastcheck.types import Floats

Change = Callable[[Floats], Floats]
Variants = Iterable[tuple[str, Floats]]
MEAN_TARGETS = "their mean over the batch (each output is held against each target: (m, m))"
KEPT = 0.8  # of the units that a forgotten dropout mask leaves
MAX_LAYERS_AWAY = 8  # of another layer whose arrays may stand in a layer, beside the first and last


def finished_steps(
    block: Change | None, bias_block: Change | None
) -> dict[str, Callable[..., Any]]:
    """Return steps that change the finished dW_l or db_l."""
    steps: dict[str, Callable[..., Any]] = {}
    if block is not None:
        steps["weights"] = lambda here, dZ: block(RIGHT.weights(here, dZ) + RIGHT.penalty(here))
        steps["penalty"] = lambda here: 0.0
    if bias_block is not None:
        steps["biases"] = lambda here, dZ: bias_block(RIGHT.biases(here, dZ))
    return steps


def samples_unless_summed(here: Here) -> float:
    """m; NaN where J is a sum, and m has no part in it."""
    return here.batch.size if here.network.reduction != "sum" else np.nan


def penalty_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    """Return a penalty that is off by a factor."""
    return {"penalty": lambda here: factor(here) * RIGHT.penalty(here)}


def biases_penalised(here: Here, dZ: Floats) -> Floats:
    """db_l with a penalty of its own."""
    biases = here.network.b(here.layer)
    return RIGHT.biases(here, dZ) + (0.0 if biases is None else here.decay * biases)


def derivative_at(here: Here, where: Floats) -> Floats:
    """φ'_l at other values than Z_l."""
    activation = here.network.activations[here.layer - 1]
    if activation.entry is None:
        return RIGHT.slopes(here)  # which says what is missing
    return activation.entry.derivative(where, activation.parameter)


def before_mask(here: Here) -> Floats:
    """a before the dropout mask, as far as it can be told."""
    mask = RIGHT.mask(here)
    return (
        here.A
        if mask is None
        else np.divide(here.A, mask, out=np.zeros_like(here.A), where=mask != 0)
    )


def other_layers(here: Here) -> list[int]:
    """Return the layers whose arrays may have been mistaken for those of this one."""
    layer, depth = here.layer, here.network.depth
    near = range(max(1, layer - MAX_LAYERS_AWAY), min(depth, layer + MAX_LAYERS_AWAY) + 1)
    return sorted({1, *near, depth} - {layer})


def slope_of_layer_before(here: Here) -> Floats:
    """φ' of the wrong layer, where it has the right shape."""
    if here.layer > 1:
        Z = here.trace.Z[here.layer - 2]
        if Z.shape == here.Z.shape:
            return derivative_at(here, Z)
    return RIGHT.slopes(here)


def other_slopes(here: Here) -> Variants:
    """φ' of every other activation of the table, at z and at a, and of other parameters."""
    own = here.network.activations[here.layer - 1]
    for name, entry in ACTIVATIONS.items():
        parameters = [entry.parameter or 0.0]
        if name == own.name:
            parameters = [p for p in (0.01, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0) if p != own.parameter]
            parameters = parameters if entry.parameter is not None else []
        for p in parameters:
            label = name if name != own.name else f"{name}({p:g})"
            yield label, entry.derivative(here.Z, p)
        if name != own.name and name not in ("identity", "relu", "leaky_relu"):
            yield f"{name} at a", entry.derivative(before_mask(here), entry.parameter or 0.0)


def odd_slopes(here: Here) -> Variants:
    """What is written by mistake for φ'(z)."""
    a, z = before_mask(here), here.Z
    own = here.network.activations[here.layer - 1].name
    if own != "sigmoid":
        yield "a(1 − a)", a * (1.0 - a)
    if own != "tanh":
        yield "1 − a²", 1.0 - a * a
    if own == "gelu":
        yield "Φ(z) alone", scipy.special.ndtr(z)
    if own == "elu":
        yield "a for a + α where z < 0", np.where(z > 0, 1.0, a)
        yield "a + 1 for a + α where z < 0", np.where(z > 0, 1.0, a + 1.0)
    yield "1 − a", 1.0 - a
    yield "1 − z²", 1.0 - z**2
    yield "z(1 − z)", z * (1.0 - z)
    yield "a", a
    yield "a²", a * a
    yield "1 + a²", 1.0 + a * a
    yield "a(1 + a)", a * (1.0 + a)
    yield "a(a − 1)", a * (a - 1.0)
    yield "z", z
    yield "z < 0", (z < 0).astype(np.float64)
    yield "sign(z)", np.sign(z)
    yield (
        "1/φ'(z)",
        np.divide(1.0, RIGHT.slopes(here), out=np.zeros_like(z), where=RIGHT.slopes(here) != 0),
    )


def slope_of_other_layer(here: Here) -> Variants:
    """φ' of this layer at the Z of others that have its shape."""
    for layer in other_layers(here):
        Z = here.trace.Z[layer - 1]
        if Z.shape == here.Z.shape:
            yield f"Z{layer}", derivative_at(here, Z)
    if here.batch.X.shape == here.Z.shape:
        yield "X", derivative_at(here, here.batch.X)


def probabilities_of(here: Here) -> Floats:
    """The outputs as probabilities."""
    if here.network.loss.name == "sigmoid_cross_entropy":
        return np.asarray(scipy.special.expit(here.A))
    return np.asarray(scipy.special.softmax(here.A, axis=1))


def is_fused(here: Here) -> bool:
    """Whether the loss takes logits and has the output activation inside."""
    return here.network.loss.name in ("softmax_cross_entropy", "sigmoid_cross_entropy")


def output_activation_twice(here: Here) -> Floats:
    """The fused loss's p − y, multiplied by p(1 − p) once more."""
    error = RIGHT.output_error(here)
    if not is_fused(here):
        return error
    p = probabilities_of(here)
    return np.asarray(error * p * (1.0 - p))


def odd_twice(here: Here) -> Variants:
    """The output error times one more slope, of forms that are less usual."""
    error, a = RIGHT.output_error(here), here.A
    s = scipy.special.expit(a)
    if here.network.loss.name == "softmax_cross_entropy":
        p = probabilities_of(here)
        yield "p(1 − p)", error * p * (1.0 - p)
    yield "σ'(a)", error * s * (1.0 - s)
    yield "a(1 − a)", error * a * (1.0 - a)
    yield "1 − a²", error * (1.0 - a * a)
    yield "relu'(a)", error * (a > 0)
    yield "tanh'(a)", error * (1.0 - np.tanh(a) ** 2)
    if here.network.loss.name == "softmax_cross_entropy":
        p, mean = probabilities_of(here), here.network.data_scale(here.batch.size)
        raw = mean * (p - here.batch.T)
        yield "the softmax's Jacobian", p * (raw - (raw * p).sum(axis=1, keepdims=True))


def error_of_another_loss(here: Here) -> Floats:
    """Squared error's a − y for the other losses, the logistic loss's σ(a) − y for it."""
    outputs = here.A
    if here.network.loss.name == "squared_error":
        outputs = np.asarray(scipy.special.expit(outputs))
    return here.network.data_scale(here.batch.size) * (outputs - here.batch.T)


def other_errors(here: Here) -> Variants:
    """The output errors of other losses."""
    a, y, mean = here.A, here.batch.T, here.network.data_scale(here.batch.size)
    s, p = scipy.special.expit(a), scipy.special.softmax(a, axis=1)
    yield "squared error on the logits, a − y" if is_fused(here) else "a − y", mean * (a - y)
    yield "sigmoid, σ(a) − y", mean * (s - y)
    yield "softmax, softmax(a) − y", mean * (p - y)
    yield "squared error of the sigmoid, (σ(a) − y)·σ'(a)", mean * (s - y) * s * (1.0 - s)
    inner = ((p - y) * p).sum(axis=1, keepdims=True)
    yield "squared error of the softmax", mean * p * (p - y - inner)
    yield "absolute error, sign(a − y)", mean * np.sign(a - y)
    yield "huber with δ = 1", mean * np.clip(a - y, -1.0, 1.0)
    safe = np.maximum(p, 1e-300)
    yield "−y/p (the softmax's own derivative is missing)", -mean * y / safe
    yield "−y/σ(a)", -mean * y / np.maximum(s, 1e-300)
    yield "−y·log p alone, without the part of 1 − y", -mean * y * (1.0 - s)
    below = np.maximum(1.0 - s, 1e-300)
    yield (
        "−y/p + (1 − y)/(1 − p) (σ' is missing)",
        mean * ((1.0 - y) / below - y / np.maximum(s, 1e-300)),
    )
    yield (
        "cross-entropy of a raw output, −y/a",
        -mean * np.divide(y, a, out=np.zeros_like(a), where=a != 0),
    )


def odd_targets(here: Here) -> Variants:
    """The output error with targets that are not the right ones."""
    loss, A, T = here.network.loss, here.A, here.batch.T
    if loss.entry is None:
        return
    if loss.name == "softmax_cross_entropy":  # the formula p − y, with its y
        mean, P = here.network.data_scale(A.shape[0]), probabilities_of(here)
        labels = T.argmax(axis=1)[:, None].astype(np.float64)
        yield "the labels themselves, not one-hot rows", mean * (P - labels)
        yield "labels off by one", mean * (P - np.roll(T, 1, axis=1))
        yield "labels off by minus one", mean * (P - np.roll(T, -1, axis=1))
        yield "labels off by one, the last dropped", mean * (P - shifted_labels(T))
        yield "no targets at all", mean * P
        yield "labels in reverse order of the classes", mean * (P - T[:, ::-1])
        yield MEAN_TARGETS, mean * (P - T.mean(axis=0))
        yield "the targets of the first sample, for all samples", mean * (P - T[0])
        yield "p − 1 everywhere", mean * (P - 1.0)
        yield "p − y at the right class only, without the other classes", mean * (P - T) * T
        return
    scale = here.network.data_scale(A.shape[0])

    def error(targets: Floats) -> Floats:
        return np.asarray(scale * loss.entry.output_gradient(A, targets, loss.parameter))  # type: ignore[union-attr]

    yield "the targets of the next sample", error(np.roll(T, -1, axis=0))
    yield "the targets of the sample before", error(np.roll(T, 1, axis=0))
    yield "no targets at all", error(np.zeros_like(T))
    yield MEAN_TARGETS, error(np.broadcast_to(T.mean(axis=0), T.shape))
    yield "the targets of the first sample, for all samples", error(np.broadcast_to(T[0], T.shape))
    yield "1 − y", error(1.0 - T)
    yield "−y", error(-T)


def shifted_labels(T: Floats) -> Floats:
    """One-hot targets as they are where labels count from 1."""
    shifted = np.zeros_like(T)
    shifted[:, 1:] = T[:, :-1]
    return shifted


def shifted_samples(here: Here) -> Variants:
    """The output error where the targets are those of the sample before or behind."""
    loss, A, T = here.network.loss, here.A, here.batch.T
    if loss.entry is None or loss.name != "softmax_cross_entropy":
        return
    for label, turned in (
        ("the targets of the next sample", np.roll(T, -1, axis=0)),
        ("the targets of the sample before", np.roll(T, 1, axis=0)),
        ("the targets in reverse order", T[::-1]),
    ):
        scale = here.network.data_scale(A.shape[0])
        yield label, scale * loss.entry.output_gradient(A, turned, loss.parameter)


def other_targets(here: Here) -> Variants:
    """The output error with targets that are wrong in one way or another."""
    yield from odd_targets(here)
    yield from shifted_samples(here)


def error_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    """Return an output error that is off by a factor."""
    return {"output_error": lambda here: factor(here) * RIGHT.output_error(here)}


def last_sample_left_out(here: Here) -> Floats:
    """The output error without the last sample's."""
    error = RIGHT.output_error(here).copy()
    error[-1] = 0.0
    return error


def mask_still_applied(here: Here) -> Floats | None:
    """A dropout mask where there is none."""
    right = RIGHT.mask(here)
    if here.layer == here.network.depth:
        return right
    generator = np.random.default_rng(here.layer)
    mask = (generator.random(here.Z.shape) < KEPT) / KEPT
    return mask if right is None else mask * right


def mask_not_scaled(here: Here) -> Floats | None:
    """The mask without its 1/keep_prob."""
    right = RIGHT.mask(here)
    return None if right is None else (right != 0).astype(np.float64)


def mask_twice(here: Here) -> Floats | None:
    """The mask, applied again."""
    right = RIGHT.mask(here)
    return None if right is None else right * right


def other_masks(here: Here) -> Variants:
    """The masks of other layers that fit."""
    masks = here.network.masks or (None,) * here.network.depth
    for layer in other_layers(here):
        mask = masks[layer - 1]
        if mask is not None and mask.shape == here.Z.shape:
            yield f"{layer}", mask


def other_inputs(here: Here) -> Variants:
    """What has the shape of A_{l-1}, and unmasked or centred forms of it."""
    right, trace = here.A_before, here.trace
    layers = {0, *other_layers(here), here.layer} - {here.layer - 1}
    for layer in sorted(layers):
        if trace.A[layer].shape == right.shape:
            yield f"A{layer}" if layer else "X", trace.A[layer]
    for layer in sorted(layers - {0}):
        if trace.Z[layer - 1].shape == right.shape:
            yield f"Z{layer}", trace.Z[layer - 1]
    mask = here.network.masks[here.layer - 2] if here.network.masks and here.layer > 1 else None
    if mask is not None:
        before = Here(here.network, here.batch, trace, here.layer - 1)
        activation = here.network.activations[here.layer - 2]
        if activation.entry is not None and activation.name in ("relu", "identity"):
            yield (
                f"A{here.layer - 1} without its dropout mask",
                (np.maximum(before.Z, 0.0) if activation.name == "relu" else before.Z),
            )
        yield (
            f"A{here.layer - 1} not divided by keep_prob",
            np.divide(right, mask, out=np.zeros_like(right), where=mask != 0),
        )
    yield (
        f"A{here.layer - 1} centred" if here.layer > 1 else "X centred",
        right - right.mean(axis=0),
    )
    if here.layer > 1:
        before = Here(here.network, here.batch, trace, here.layer - 1)
        yield f"φ'(Z{here.layer - 1})", derivative_at(before, before.Z)


def logits_of(here: Here) -> Variants:
    """Z_{l-1} in place of A_{l-1}."""
    if here.layer > 1:
        yield f"Z{here.layer - 1}", here.trace.Z[here.layer - 2]


def logits_as_inputs(here: Here, dZ: Floats) -> Floats:
    """dW_l from Z_{l-1}."""
    return dZ.T @ here.trace.Z[here.layer - 2] if here.layer > 1 else RIGHT.weights(here, dZ)


def own_outputs_as_inputs(here: Here, dZ: Floats) -> Floats:
    """dW_l from A_l, where the shapes allow it."""
    fits = here.A.shape == here.A_before.shape
    return dZ.T @ here.A if fits else RIGHT.weights(here, dZ)


def weights_turned(here: Here, dZ: Floats) -> Floats:
    """dZ W instead of dZ Wᵀ in the row notation: only a square W lets it pass."""
    square = here.W.shape[0] == here.W.shape[1]
    return dZ @ here.W.T if square else RIGHT.error_before(here, dZ)


def weights_by_columns(here: Here, dZ: Floats) -> Floats:
    """dZ_l W_l with the weights read in column order."""
    return dZ @ np.reshape(here.W, here.W.shape, order="C").ravel(order="F").reshape(here.W.shape)


def weights_updated(here: Here, dZ: Floats) -> Floats:
    """W − 0.1·dW instead of W."""
    return dZ @ (here.W - 0.1 * (RIGHT.weights(here, dZ) + RIGHT.penalty(here)))


def other_weights(here: Here) -> Variants:
    """The errors that go back through another layer's weights; of the error see `peeling`."""
    for layer in other_layers(here):
        W = here.network.W(layer)
        if W.shape == here.W.shape:
            yield f"W{layer}", W
    yield f"W{here.layer} in absolute values", np.abs(here.W)
    yield f"W{here.layer} with its rows in reverse order", here.W[::-1]


def first_axis(here: Here, dZ: Floats) -> Floats:
    """Sums over the units of each sample, repeated or cut to fit."""
    return np.resize(dZ.sum(axis=1), dZ.shape[1])


def in_float32(here: Here, dZ: Floats) -> Floats:
    """dW_l from a product in float32."""
    return (dZ.astype(np.float32).T @ here.A_before.astype(np.float32)).astype(np.float64)


def transposed(dW: Floats) -> Floats:
    """The transpose; where that has another shape, its numbers in the right shape."""
    return dW.T.reshape(dW.shape)


def by_columns(dW: Floats) -> Floats:
    """The numbers in column order, read back in row order of the transposed shape."""
    return dW.ravel(order="C").reshape(dW.shape, order="F")


def with_change(values: Floats, place: Any, change: Change) -> Floats:
    """Return a copy that is changed in one place."""
    changed = values.copy()
    changed[place] = change(changed[place])
    return changed


def largest_entry_negated(dW: Floats) -> Floats:
    """The largest entry with the other sign."""
    place = np.unravel_index(np.argmax(np.abs(dW)), dW.shape)
    return with_change(dW, place, np.negative)


def rounded_to(precision: str) -> Change:
    """Return a rounding to a lower precision and back."""
    return lambda values: values.astype(precision).astype(np.float64)


def clipped_values(values: Floats) -> Floats:
    """Values clipped at half of the largest."""
    limit = 0.5 * np.abs(values).max(initial=0.0)
    return np.clip(values, -limit, limit)


def blocks_swapped(network: Network, dtheta: Floats) -> Floats:
    """Swap the last two blocks of one kind and shape."""
    blocks = network.order.blocks
    for k in range(len(blocks) - 1, 0, -1):
        for other in reversed(blocks[:k]):
            if (other.kind, other.shape) == (blocks[k].kind, blocks[k].shape):
                swapped = dtheta.copy()
                swapped[blocks[k].slice] = dtheta[other.slice]
                swapped[other.slice] = dtheta[blocks[k].slice]
                return swapped
    return dtheta


def norm_clipped(network: Network, dtheta: Floats) -> Floats:
    """dθ clipped at half its norm."""
    return dtheta / (2.0 * max(float(np.linalg.norm(dtheta)), 1e-300))
