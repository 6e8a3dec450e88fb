"""The table of slips that people make in a backward pass, for `--plant` and for diagnosis alike.

A slip takes the place of a step of the reference backward pass. Diagnosis re-enacts it there;
entries without steps are those that it finds by fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fastcheck.backprop import RIGHT, Here, Steps, gradients
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.network import Batch, Network

__all__ = ["SLIPS", "Slip", "finished_steps", "slipped_gradients"]

Floats = NDArray[np.float64]
Change = Callable[[Floats], Floats]
Variants = Iterable[tuple[str, Floats]]
KEPT = 0.8  # of the units that a forgotten dropout mask leaves


@dataclass(frozen=True)
class Slip:
    """One mistake.

    Attributes
    ----------
    name : str
    sentence : str
        What is wrong; `{l}` stands for the layer, `{k}` for the one before, `{value}` for what a
        fit found.
    line : str
        Which line of code it is in, a key of `mending.LINES`.
    steps : mapping
        The steps of the backward pass that it takes the place of, by their names in `Steps`.
    block, bias_block : callable or None
        `dW -> dW` or `db -> db` for what happens to a finished block.
    whole : callable or None
        `(network, dθ) -> dθ` for what happens to the finished gradient.
    inputs : callable or None
        `here ->` pairs (which, array) of what may stand where A_{l-1} belongs in dW_l.
    variants : callable or None
        `here ->` pairs (which, array) that may stand where the result of its step belongs.
    one_layer : bool
        Whether it is made in one layer unless told otherwise, and not in all of them.
    any_layer : bool
        Whether it can be made in a layer of choice.
    rare : float
        How much less usual it is than another slip with the same effect.
    """

    name: str
    sentence: str
    line: str = "whole"
    steps: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    block: Change | None = None
    bias_block: Change | None = None
    whole: Callable[[Network, Floats], Floats] | None = None
    inputs: Callable[[Here], Variants] | None = None
    variants: Callable[[Here], Variants] | None = None
    one_layer: bool = False
    any_layer: bool = True
    rare: float = 0.0

    @property
    def plantable(self) -> bool:
        """Whether it can be re-enacted without anything having been fitted."""
        return bool(self.steps or self.block or self.bias_block or self.whole)


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


def _penalty_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    return {"penalty": lambda here: factor(here) * RIGHT.penalty(here)}


def _biases_penalised(here: Here, dZ: Floats) -> Floats:
    biases = here.network.b(here.layer)
    return RIGHT.biases(here, dZ) + (0.0 if biases is None else here.decay * biases)


def _derivative(here: Here, where: Floats) -> Floats:
    activation = here.network.activations[here.layer - 1]
    if activation.entry is None:
        return RIGHT.slopes(here)  # which says what is missing
    return activation.entry.derivative(where, activation.parameter)


def _plain(here: Here) -> Floats:
    """a before the dropout mask, as far as it can be told."""
    mask = RIGHT.mask(here)
    return (
        here.A
        if mask is None
        else np.divide(here.A, mask, out=np.zeros_like(here.A), where=mask != 0)
    )


def _slope_of_layer_before(here: Here) -> Floats:
    """φ' of the wrong layer, where it has the right shape."""
    if here.layer > 1:
        Z = here.trace.Z[here.layer - 2]
        if Z.shape == here.Z.shape:
            return _derivative(here, Z)
    return RIGHT.slopes(here)


def _other_slopes(here: Here) -> Variants:
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
            yield f"{name} at a", entry.derivative(_plain(here), entry.parameter or 0.0)


def _odd_slopes(here: Here) -> Variants:
    """What is written by mistake for φ'(z)."""
    a, z = _plain(here), here.Z
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


def _slope_of_other_layer(here: Here) -> Variants:
    for layer, Z in enumerate(here.trace.Z, start=1):
        if layer != here.layer and Z.shape == here.Z.shape:
            yield f"Z{layer}", _derivative(here, Z)
    if here.batch.X.shape == here.Z.shape:
        yield "X", _derivative(here, here.batch.X)


def _probabilities(here: Here) -> Floats:
    if here.network.loss.name == "sigmoid_cross_entropy":
        return np.asarray(special.expit(here.A))
    return np.asarray(special.softmax(here.A, axis=1))


def _is_fused(here: Here) -> bool:
    return here.network.loss.name in ("softmax_cross_entropy", "sigmoid_cross_entropy")


def _output_activation_twice(here: Here) -> Floats:
    """The fused loss's p − y, multiplied by p(1 − p) once more."""
    error = RIGHT.output_error(here)
    if not _is_fused(here):
        return error
    p = _probabilities(here)
    return np.asarray(error * p * (1.0 - p))


def _odd_twice(here: Here) -> Variants:
    error, a = RIGHT.output_error(here), here.A
    s = special.expit(a)
    if here.network.loss.name == "softmax_cross_entropy":
        p = _probabilities(here)
        yield "p(1 − p)", error * p * (1.0 - p)
    yield "σ'(a)", error * s * (1.0 - s)
    yield "a(1 − a)", error * a * (1.0 - a)
    yield "1 − a²", error * (1.0 - a * a)
    yield "relu'(a)", error * (a > 0)
    yield "tanh'(a)", error * (1.0 - np.tanh(a) ** 2)
    if here.network.loss.name == "softmax_cross_entropy":
        p, mean = _probabilities(here), here.network.data_scale(here.batch.size)
        raw = mean * (p - here.batch.T)
        yield "the softmax's Jacobian", p * (raw - (raw * p).sum(axis=1, keepdims=True))


def _error_of_another_loss(here: Here) -> Floats:
    """Squared error's a − y for the other losses, the logistic loss's σ(a) − y for it."""
    outputs = here.A
    if here.network.loss.name == "squared_error":
        outputs = np.asarray(special.expit(outputs))
    return here.network.data_scale(here.batch.size) * (outputs - here.batch.T)


def _other_errors(here: Here) -> Variants:
    a, y, mean = here.A, here.batch.T, here.network.data_scale(here.batch.size)
    s, p = special.expit(a), special.softmax(a, axis=1)
    yield "squared error on the logits, a − y" if _is_fused(here) else "a − y", mean * (a - y)
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
    below = np.maximum(1.0 - s, 1e-300)
    yield (
        "−y/p + (1 − y)/(1 − p) (σ' is missing)",
        mean * ((1.0 - y) / below - y / np.maximum(s, 1e-300)),
    )
    yield (
        "cross-entropy of a raw output, −y/a",
        -mean * np.divide(y, a, out=np.zeros_like(a), where=a != 0),
    )


def _odd_targets(here: Here) -> Variants:
    """The output error with targets that are not the right ones."""
    loss, A, T = here.network.loss, here.A, here.batch.T
    if loss.entry is None:
        return
    if loss.name == "softmax_cross_entropy":  # the formula p − y, with its y
        mean, P = here.network.data_scale(A.shape[0]), _probabilities(here)
        labels = T.argmax(axis=1)[:, None].astype(np.float64)
        yield "the labels themselves, not one-hot rows", mean * (P - labels)
        yield "labels off by one", mean * (P - np.roll(T, 1, axis=1))
        yield "labels off by minus one", mean * (P - np.roll(T, -1, axis=1))
        yield "labels off by one, the last dropped", mean * (P - _dropped(T))
        yield "no targets at all", mean * P
        yield "labels in reverse order of the classes", mean * (P - T[:, ::-1])
        yield "p − 1 everywhere", mean * (P - 1.0)
        yield "y/p... only at the right class, p − y without the other classes", mean * (P - T) * T
        return
    scale = here.network.data_scale(A.shape[0])

    def error(targets: Floats) -> Floats:
        return np.asarray(scale * loss.entry.output_gradient(A, targets, loss.parameter))  # type: ignore[union-attr]

    yield "the targets of the next sample", error(np.roll(T, -1, axis=0))
    yield "the targets of the sample before", error(np.roll(T, 1, axis=0))
    yield "no targets at all", error(np.zeros_like(T))
    yield "1 − y", error(1.0 - T)
    yield "−y", error(-T)


def _dropped(T: Floats) -> Floats:
    shifted = np.zeros_like(T)
    shifted[:, 1:] = T[:, :-1]
    return shifted


def _shifted_samples(here: Here) -> Variants:
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


def _targets(here: Here) -> Variants:
    yield from _odd_targets(here)
    yield from _shifted_samples(here)


def _error_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    return {"output_error": lambda here: factor(here) * RIGHT.output_error(here)}


def _last_sample_left_out(here: Here) -> Floats:
    error = RIGHT.output_error(here).copy()
    error[-1] = 0.0
    return error


def _mask_still_applied(here: Here) -> Floats | None:
    right = RIGHT.mask(here)
    if here.layer == here.network.depth:
        return right
    generator = np.random.default_rng(here.layer)
    mask = (generator.random(here.Z.shape) < KEPT) / KEPT
    return mask if right is None else mask * right


def _mask_not_scaled(here: Here) -> Floats | None:
    right = RIGHT.mask(here)
    return None if right is None else (right != 0).astype(np.float64)


def _mask_twice(here: Here) -> Floats | None:
    right = RIGHT.mask(here)
    return None if right is None else right * right


def _other_masks(here: Here) -> Variants:
    masks = here.network.masks or ()
    for layer, mask in enumerate(masks, start=1):
        if mask is not None and layer != here.layer and mask.shape == here.Z.shape:
            yield f"{layer}", mask


def _other_inputs(here: Here) -> Variants:
    """What has the shape of A_{l-1}, and unmasked or centred forms of it."""
    right, trace = here.A_before, here.trace
    for layer in range(len(trace.A)):
        if layer != here.layer - 1 and trace.A[layer].shape == right.shape:
            yield f"A{layer}" if layer else "X", trace.A[layer]
    for layer, Z in enumerate(trace.Z, start=1):
        if layer != here.layer - 1 and Z.shape == right.shape:
            yield f"Z{layer}", Z
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
        yield f"φ'(Z{here.layer - 1})", _derivative(before, before.Z)


def _logits(here: Here) -> Variants:
    if here.layer > 1:
        yield f"Z{here.layer - 1}", here.trace.Z[here.layer - 2]


def _logits_as_inputs(here: Here, dZ: Floats) -> Floats:
    return dZ.T @ here.trace.Z[here.layer - 2] if here.layer > 1 else RIGHT.weights(here, dZ)


def _own_outputs_as_inputs(here: Here, dZ: Floats) -> Floats:
    fits = here.A.shape == here.A_before.shape
    return dZ.T @ here.A if fits else RIGHT.weights(here, dZ)


def _weights_turned(here: Here, dZ: Floats) -> Floats:
    """dZ W instead of dZ Wᵀ in the row notation: only a square W lets it pass."""
    square = here.W.shape[0] == here.W.shape[1]
    return dZ @ here.W.T if square else RIGHT.error_before(here, dZ)


def _weights_by_columns(here: Here, dZ: Floats) -> Floats:
    return dZ @ np.reshape(here.W, here.W.shape, order="C").ravel(order="F").reshape(here.W.shape)


def _weights_updated(here: Here, dZ: Floats) -> Floats:
    """W − 0.1·dW instead of W."""
    return dZ @ (here.W - 0.1 * (RIGHT.weights(here, dZ) + RIGHT.penalty(here)))


def _other_weights(here: Here) -> Variants:
    """The errors that go back through another layer's weights; of the error see `peeling`."""
    for layer in range(1, here.network.depth + 1):
        W = here.network.W(layer)
        if layer != here.layer and W.shape == here.W.shape:
            yield f"W{layer}", W
    yield f"W{here.layer} in absolute values", np.abs(here.W)
    yield f"W{here.layer} with its rows in reverse order", here.W[::-1]


def _first_axis(here: Here, dZ: Floats) -> Floats:
    """Sums over the units of each sample, repeated or cut to fit."""
    return np.resize(dZ.sum(axis=1), dZ.shape[1])


def _in_float32(here: Here, dZ: Floats) -> Floats:
    return (dZ.astype(np.float32).T @ here.A_before.astype(np.float32)).astype(np.float64)


def _transposed(dW: Floats) -> Floats:
    """The transpose; where that has another shape, its numbers in the right shape."""
    return dW.T.reshape(dW.shape)


def _by_columns(dW: Floats) -> Floats:
    """The numbers in column order, read back in row order of the transposed shape."""
    return dW.ravel(order="C").reshape(dW.shape, order="F")


def _with(values: Floats, place: Any, change: Change) -> Floats:
    changed = values.copy()
    changed[place] = change(changed[place])
    return changed


def _largest_entry_negated(dW: Floats) -> Floats:
    place = np.unravel_index(np.argmax(np.abs(dW)), dW.shape)
    return _with(dW, place, np.negative)


def _rounded(precision: str) -> Change:
    return lambda values: values.astype(precision).astype(np.float64)


def _clipped(values: Floats) -> Floats:
    limit = 0.5 * np.abs(values).max(initial=0.0)
    return np.clip(values, -limit, limit)


def _blocks_swapped(network: Network, dtheta: Floats) -> Floats:
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


def _norm_clipped(network: Network, dtheta: Floats) -> Floats:
    return dtheta / (2.0 * max(float(np.linalg.norm(dtheta)), 1e-300))


_TABLE = (
    Slip(
        "penalty_missing",
        "the penalty's part is missing from dW{l}",
        "weights",
        _penalty_times(lambda here: 0.0),
    ),
    Slip(
        "penalty_doubled",
        "the penalty's part of dW{l} is doubled (the 2 of the square, with no ½)",
        "weights",
        _penalty_times(lambda here: 2.0),
    ),
    Slip(
        "penalty_halved",
        "the penalty's part of dW{l} is halved",
        "weights",
        _penalty_times(lambda here: 0.5),
    ),
    Slip(
        "penalty_sign",
        "the penalty's part of dW{l} has the wrong sign",
        "weights",
        _penalty_times(lambda here: -1.0),
    ),
    Slip(
        "penalty_not_divided",
        "the penalty's part of dW{l} is not divided by m (it is m times too large)",
        "weights",
        _penalty_times(lambda here: here.batch.size),
    ),
    Slip(
        "penalty_divided_twice",
        "the penalty's part of dW{l} is divided by m once too often",
        "weights",
        _penalty_times(lambda here: 1.0 / here.batch.size),
    ),
    Slip(
        "penalty_factor",
        "the penalty's part of dW{l} is {value} times what it should be",
        "weights",
        rare=0.4,
    ),
    Slip(
        "penalty_extra",
        "dW{l} holds a penalty {value}·W{l} that J does not have",
        "weights",
        rare=0.2,
    ),
    Slip(
        "penalty_absolute",
        "the penalty's part of dW{l} is that of Σ|w| (L1, sign(W)) and not of Σw²",
        "weights",
        rare=0.2,
    ),
    Slip(
        "penalty_on_biases",
        "the penalty is applied to b{l} too (it is on weights only)",
        "biases",
        {"biases": _biases_penalised},
    ),
    Slip(
        "sum_for_mean",
        "the data's part is not divided by m: a sum where J has the mean",
        "output",
        _error_times(lambda here: here.batch.size),
        any_layer=False,
    ),
    Slip(
        "divided_twice",
        "the data's part is divided by m twice: a mean where J has it already",
        "output",
        _error_times(lambda here: 1.0 / here.batch.size),
        any_layer=False,
    ),
    Slip(
        "sign",
        "the whole gradient of the data has the wrong sign (y − a instead of a − y)",
        "output",
        _error_times(lambda here: -1.0),
        any_layer=False,
    ),
    Slip(
        "output_factor",
        "the output error, and with it all of the data's part, is {value} times what it should be",
        "output",
        any_layer=False,
    ),
    Slip(
        "output_activation_twice",
        "the output error is multiplied by a derivative ({value}) that it holds already",
        "output",
        {"output_error": _output_activation_twice},
        variants=_odd_twice,
        any_layer=False,
    ),
    Slip(
        "other_loss",
        "the output error is that of another loss ({value})",
        "output",
        {"output_error": _error_of_another_loss},
        variants=_other_errors,
        any_layer=False,
    ),
    Slip(
        "wrong_targets",
        "the output error is made with wrong targets: {value}",
        "output",
        {
            "output_error": lambda here: dict(_odd_targets(here)).get(
                "no targets at all", RIGHT.output_error(here)
            )
        },
        variants=_targets,
        any_layer=False,
    ),
    Slip(
        "sample_left_out",
        "samples are left out or counted wrongly: {value}",
        "output",
        {"output_error": _last_sample_left_out},
        any_layer=False,
    ),
    Slip(
        "derivative_missing",
        "the activation's derivative φ' is missing from dZ{l}",
        "slopes",
        {"slopes": lambda here: np.ones_like(here.Z)},
    ),
    Slip(
        "derivative_at_a",
        "the activation's derivative is taken at a instead of z: φ'(A{l}) where φ'(Z{l}) belongs",
        "slopes",
        {"slopes": lambda here: _derivative(here, _plain(here))},
    ),
    Slip(
        "derivative_of_layer_before",
        "the activation's derivative is taken at another layer's values, {value}, instead of Z{l}",
        "slopes",
        {"slopes": _slope_of_layer_before},
        variants=_slope_of_other_layer,
    ),
    Slip(
        "derivative_twice",
        "the activation's derivative is applied twice in dZ{l}",
        "slopes",
        {"slopes": lambda here: RIGHT.slopes(here) ** 2},
    ),
    Slip(
        "derivative_of_other",
        "the activation's derivative in dZ{l} is that of another activation: {value}",
        "slopes",
        variants=_other_slopes,
        rare=0.1,
    ),
    Slip(
        "derivative_miswritten",
        "{value} stands where the activation's derivative φ'(Z{l}) belongs",
        "slopes",
        variants=_odd_slopes,
        rare=0.15,
    ),
    Slip(
        "error_not_passed",
        "no error is passed on from layer {n} to layer {l} (a detached layer)",
        "back",
        {"error_before": lambda here, dZ: np.zeros_like(here.A_before)},
        one_layer=True,
    ),
    Slip(
        "error_factor",
        "the error dZ{l}, and with it all that lies before it, is {value} times what it should be",
        "slopes",
        rare=0.1,
    ),
    Slip(
        "weights_not_transposed",
        "W{n} is used transposed on the way back to layer {l}",
        "back",
        {"error_before": _weights_turned},
    ),
    Slip(
        "weights_by_columns",
        "W{n} is reshaped in column order on the way back to layer {l}",
        "back",
        {"error_before": _weights_by_columns},
        rare=0.3,
    ),
    Slip(
        "weights_updated",
        "W{n} was already updated (W − lr·dW, lr = {value}) when the error "
        "went back through "
        "it to layer {l}",
        "back",
        {"error_before": _weights_updated},
    ),
    Slip(
        "weights_of_other",
        "the error goes back to layer {l} through {value} instead of W{n}",
        "back",
        variants=_other_weights,
        rare=0.1,
    ),
    Slip(
        "error_before_slope",
        "dA{n} instead of dZ{n} goes back through W{n}: the derivative "
        "of layer {n} is "
        "missing on the way to layer {l} only",
        "back",
        rare=0.1,
    ),
    Slip(
        "inputs_logits",
        "dW{l} is made with {value} where A{k} belongs (before its activation)",
        "weights",
        {"weights": _logits_as_inputs},
        inputs=_logits,
    ),
    Slip(
        "inputs_of_other",
        "dW{l} is made with {value} as the layer's inputs, where A{k} belongs",
        "weights",
        {"weights": _own_outputs_as_inputs},
        inputs=_other_inputs,
    ),
    Slip("delta_before_slope", "dW{l} is made with dA{l} instead of dZ{l}", "weights", rare=0.1),
    Slip(
        "mask_still_applied",
        "a dropout mask is applied to dZ{l} that J does not have",
        "mask",
        {"mask": _mask_still_applied},
    ),
    Slip(
        "mask_forgotten",
        "the dropout mask of layer {l} is forgotten on the way back",
        "mask",
        {"mask": lambda here: None},
    ),
    Slip(
        "mask_not_scaled",
        "the dropout mask of layer {l} is not divided by keep_prob on the way back",
        "mask",
        {"mask": _mask_not_scaled},
    ),
    Slip(
        "mask_twice",
        "the dropout mask of layer {l} is applied twice on the way back",
        "mask",
        {"mask": _mask_twice},
    ),
    Slip(
        "mask_of_other",
        "the dropout mask of layer {value} is applied in layer {l}",
        "mask",
        variants=_other_masks,
    ),
    Slip("transposed", "dW{l} is transposed", "weights", block=_transposed, one_layer=True),
    Slip(
        "by_columns",
        "dW{l} is flattened or reshaped in column order",
        "whole",
        block=_by_columns,
        one_layer=True,
    ),
    Slip("factor", "dW{l} is {value} times what it should be", "weights"),
    Slip("data_factor", "the data's part of dW{l} is {value} times what it should be", "weights"),
    Slip(
        "doubled", "dW{l} is twice too large", "weights", block=lambda dW: 2.0 * dW, one_layer=True
    ),
    Slip(
        "halved",
        "dW{l} is half of what it should be",
        "weights",
        block=lambda dW: 0.5 * dW,
        one_layer=True,
    ),
    Slip("negated", "dW{l} has the wrong sign", "weights", block=np.negative, one_layer=True),
    Slip("zero", "dW{l} is zero: it was never set", "weights", block=np.zeros_like, one_layer=True),
    Slip(
        "absolute",
        "dW{l} has lost its signs (absolute values)",
        "weights",
        block=np.abs,
        one_layer=True,
    ),
    Slip(
        "signs_only",
        "dW{l} holds signs instead of values",
        "weights",
        block=np.sign,
        one_layer=True,
        rare=0.1,
    ),
    Slip("rows_shifted", "the rows of dW{l} are shifted by {value}", "weights", rare=0.1),
    Slip("columns_shifted", "the columns of dW{l} are shifted by {value}", "weights", rare=0.1),
    Slip(
        "shifted",
        "the rows of dW{l} are shifted by one (an index off by one)",
        "weights",
        block=lambda dW: np.roll(dW, 1, axis=0),
        one_layer=True,
    ),
    Slip(
        "reversed",
        "the rows of dW{l} are in reverse order",
        "weights",
        block=lambda dW: dW[::-1],
        one_layer=True,
    ),
    Slip(
        "columns_reversed",
        "the columns of dW{l} are in reverse order",
        "weights",
        block=lambda dW: dW[:, ::-1],
        one_layer=True,
    ),
    Slip("copied", "dW{l} holds {value} instead of its own values", "whole", rare=0.1),
    Slip("is_update", "dW{l} holds {value}: updated weights, not a gradient", "whole", rare=0.1),
    Slip(
        "row",
        "the first row of dW{l} is doubled",
        "weights",
        block=lambda dW: _with(dW, 0, lambda row: 2.0 * row),
        one_layer=True,
    ),
    Slip(
        "column",
        "the middle column of dW{l} is zero",
        "weights",
        block=lambda dW: _with(dW, (slice(None), dW.shape[1] // 2), np.zeros_like),
        one_layer=True,
    ),
    Slip(
        "entry",
        "a single entry of dW{l}, the largest, has the wrong sign",
        "weights",
        block=_largest_entry_negated,
        one_layer=True,
    ),
    Slip("rows", "only {value} of dW{l}", "weights", rare=0.1),
    Slip("columns", "only {value} of dW{l}", "weights", rare=0.12),
    Slip("entries", "only {value} of dW{l}", "weights", rare=0.14),
    Slip("bias_entries", "only {value} of db{l}", "biases", rare=0.14),
    Slip("bias_factor", "db{l} is {value} times what it should be", "biases"),
    Slip(
        "bias_doubled",
        "db{l} is twice too large",
        "biases",
        bias_block=lambda db: 2.0 * db,
        one_layer=True,
    ),
    Slip(
        "bias_zero",
        "db{l} is zero: it was never set",
        "biases",
        bias_block=np.zeros_like,
        one_layer=True,
    ),
    Slip(
        "bias_axis",
        "db{l} is summed over the units instead of the samples (the wrong axis)",
        "biases",
        {"biases": _first_axis},
    ),
    Slip(
        "bias_units_mean",
        "db{l} is the mean over the units instead of the sum over the samples",
        "biases",
        {"biases": lambda here, dZ: np.resize(dZ.mean(axis=1), dZ.shape[1])},
        rare=0.1,
    ),
    Slip(
        "bias_total",
        "db{l} is one sum over samples and units (no axis=)",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.sum())},
    ),
    Slip(
        "bias_total_mean",
        "db{l} is one mean over samples and units (no axis=)",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.mean())},
        rare=0.1,
    ),
    Slip(
        "bias_level",
        "db{l} has the mean over the units in every entry",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.sum(axis=0).mean())},
        rare=0.1,
    ),
    Slip(
        "bias_mean",
        "db{l} is averaged over the samples where dZ{l} is divided by m already",
        "biases",
        {"biases": lambda here, dZ: dZ.mean(axis=0)},
    ),
    Slip(
        "bias_one_sample",
        "db{l} is the dZ{l} of one sample (the first), not the sum over samples",
        "biases",
        {"biases": lambda here, dZ: dZ[0]},
    ),
    Slip(
        "bias_last_sample",
        "db{l} is the dZ{l} of one sample (the last), not the sum over samples",
        "biases",
        {"biases": lambda here, dZ: dZ[-1]},
    ),
    Slip(
        "bias_largest",
        "db{l} is the maximum over the samples, not the sum",
        "biases",
        {"biases": lambda here, dZ: dZ.max(axis=0)},
        rare=0.1,
    ),
    Slip(
        "bias_reversed",
        "db{l} is in reverse order",
        "biases",
        bias_block=lambda db: db[::-1],
        one_layer=True,
        rare=0.1,
    ),
    Slip(
        "bias_absolute",
        "db{l} has lost its signs (absolute values)",
        "biases",
        bias_block=np.abs,
        one_layer=True,
        rare=0.1,
    ),
    Slip("bias_shifted", "the entries of db{l} are shifted by {value}", "biases", rare=0.1),
    Slip("bias_before_slope", "db{l} is made with dA{l} instead of dZ{l}", "biases", rare=0.1),
    Slip("bias_copied", "db{l} holds {value} instead of its own values", "whole", rare=0.1),
    Slip(
        "swapped",
        "two blocks of the same shape are swapped: {value}",
        "whole",
        whole=_blocks_swapped,
        any_layer=False,
    ),
    Slip(
        "everything_factor",
        "the whole gradient, penalty and all, is {value} times what it should be",
        "whole",
        any_layer=False,
        rare=0.05,
    ),
    Slip(
        "everything_doubled",
        "the whole gradient is twice too large: accumulated over two calls",
        whole=lambda network, dtheta: 2.0 * dtheta,
        any_layer=False,
    ),
    Slip(
        "clipped",
        "gradients are clipped by value at {value}",
        "whole",
        block=_clipped,
        one_layer=True,
    ),
    Slip(
        "clipped_norm",
        "the gradient is clipped by norm: it has ‖dθ‖ = {value}",
        "whole",
        whole=_norm_clipped,
        any_layer=False,
    ),
    Slip(
        "float32_products",
        "dW{l} is computed in float32 and handed over as float64",
        "whole",
        {"weights": _in_float32},
    ),
    Slip(
        "low_precision",
        "it is computed in a lower precision than it is handed over in "
        "(errors of about "
        "{value} relative)",
        "whole",
        rare=0.3,
    ),
    Slip(
        "rounded_float16",
        "dW{l} and db{l} are rounded to float16 and handed over as float64",
        "whole",
        block=_rounded("float16"),
        bias_block=_rounded("float16"),
    ),
    Slip("rounded", "values are rounded to {value}", "whole"),
    Slip("unknown", "no slip that I know explains this", "whole", rare=2.0),
)

SLIPS: dict[str, Slip] = {slip.name: slip for slip in _TABLE}


def _at(
    layer: int | None, wrong: Callable[..., Any], right: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a step that goes wrong in one layer, or (None) in all."""

    def step(here: Here, *arguments: Floats) -> Any:
        there = layer is None or here.layer == layer
        return (wrong if there else right)(here, *arguments)

    return step


def slipped_gradients(
    slip: Slip, network: Network, batch: Batch, layer: int | None = None
) -> Floats:
    """Return the dθ of a backward pass with that slip in it.

    Parameters
    ----------
    slip : Slip
    network : Network
    batch : Batch
    layer : int, optional
        The layer it is made in, 1..L; None for the slip's own choice: all, or the middle one.

    Returns
    -------
    ndarray, shape (N,), float64
    """
    if layer is None and slip.one_layer:
        layer = (network.depth + 1) // 2
        if slip.name == "error_not_passed":
            layer = max(layer, min(2, network.depth))  # nothing lies before layer 1
    every = {**slip.steps, **finished_steps(slip.block, slip.bias_block)}
    steps: Steps = replace(
        RIGHT, **{name: _at(layer, step, getattr(RIGHT, name)) for name, step in every.items()}
    )
    dtheta = gradients(network, batch, steps)
    return dtheta if slip.whole is None else slip.whole(network, dtheta)
