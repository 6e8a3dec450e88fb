"""The slips that people make in a backward pass, each re-enacted inside the reference one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fastcheck.backprop import RIGHT, Here, gradients
from fastcheck.errors import InputError, near_names
from fastcheck.network import Batch, Network

__all__ = ["SLIPS", "PlantedGradient", "Slip", "plant", "slipped_gradients"]

Floats = NDArray[np.float64]
KEPT = 0.8  # of the units that a forgotten dropout mask leaves


@dataclass(frozen=True)
class Slip:
    """One mistake.

    Attributes
    ----------
    name : str
    sentence : str
        What is wrong, as a diagnosis would say it.
    steps : mapping
        The steps of the backward pass that it takes the place of, by their names in `Steps`.
    whole : callable or None
        `(network, dθ) -> dθ` for what happens to the finished gradient.
    one_layer : bool
        Whether it is made in one layer unless told otherwise, and not in all of them.
    any_layer : bool
        Whether it can be made in a layer of choice.
    """

    name: str
    sentence: str
    steps: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    whole: Callable[[Network, Floats], Floats] | None = None
    one_layer: bool = False
    any_layer: bool = True


def _finished(change: Callable[[Floats], Floats], *blocks: str) -> dict[str, Callable[..., Any]]:
    """Return steps that change the whole dW_l (`"W"`), the db_l (`"b"`) or both."""

    def weights(here: Here, dZ: Floats) -> Floats:
        return change(RIGHT.weights(here, dZ) + RIGHT.penalty(here))

    def biases(here: Here, dZ: Floats) -> Floats:
        return change(RIGHT.biases(here, dZ))

    steps: dict[str, Callable[..., Any]] = {}
    if "W" in blocks:
        steps |= {"weights": weights, "penalty": lambda here: 0.0}
    if "b" in blocks:
        steps["biases"] = biases
    return steps


def _penalty_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    return {"penalty": lambda here: factor(here) * RIGHT.penalty(here)}


def _biases_penalised(here: Here, dZ: Floats) -> Floats:
    biases = here.network.b(here.layer)
    return RIGHT.biases(here, dZ) + (0.0 if biases is None else here.decay * biases)


def _derivative_at(here: Here, where: Floats) -> Floats:
    activation = here.network.activations[here.layer - 1]
    if activation.entry is None:
        return RIGHT.slopes(here)  # which says what is missing
    return activation.entry.derivative(where, activation.parameter)


def _hidden(here: Here) -> bool:
    return here.layer < here.network.depth


def _slope_missing(here: Here) -> Floats:
    return np.ones_like(here.Z)


def _slope_at_output(here: Here) -> Floats:
    """φ'(a) instead of φ'(z)."""
    return _derivative_at(here, here.A)


def _slope_of_layer_before(here: Here) -> Floats:
    """φ' of the wrong layer, where it has the right shape."""
    if here.layer > 1:
        Z = here.trace.Z[here.layer - 2]
        if Z.shape == here.Z.shape:
            return _derivative_at(here, Z)
    return RIGHT.slopes(here)


def _slope_twice(here: Here) -> Floats:
    return RIGHT.slopes(here) ** 2


def _output_activation_twice(here: Here) -> Floats:
    """Return the fused loss's p − y, multiplied by p(1 − p) once more."""
    error = RIGHT.output_error(here)
    name = here.network.loss.name
    if name == "softmax_cross_entropy":
        p = special.softmax(here.A, axis=1)
    elif name == "sigmoid_cross_entropy":
        p = special.expit(here.A)
    else:
        return error
    return np.asarray(error * p * (1.0 - p))


def _error_of_another_loss(here: Here) -> Floats:
    """Squared error's a − y for the other losses, the logistic loss's σ(a) − y for it."""
    outputs = here.A
    if here.network.loss.name == "squared_error":
        outputs = np.asarray(special.expit(outputs))
    return here.network.data_scale(here.batch.size) * (outputs - here.batch.T)


def _error_times(factor: Callable[[Here], float]) -> dict[str, Callable[..., Any]]:
    return {"output_error": lambda here: factor(here) * RIGHT.output_error(here)}


def _last_sample_left_out(here: Here) -> Floats:
    error = RIGHT.output_error(here).copy()
    error[-1] = 0.0
    return error


def _mask_still_applied(here: Here) -> Floats | None:
    right = RIGHT.mask(here)
    if not _hidden(here):
        return right
    generator = np.random.default_rng(here.layer)
    mask = (generator.random(here.Z.shape) < KEPT) / KEPT
    return mask if right is None else mask * right


def _mask_not_scaled(here: Here) -> Floats | None:
    right = RIGHT.mask(here)
    return None if right is None else (right != 0).astype(np.float64)


def _logits_as_inputs(here: Here, dZ: Floats) -> Floats:
    """Z_{l-1} where A_{l-1} belongs."""
    return dZ.T @ here.trace.Z[here.layer - 2] if here.layer > 1 else RIGHT.weights(here, dZ)


def _first_axis(here: Here, dZ: Floats) -> Floats:
    """Sum over the units of each sample; repeated or cut to fit."""
    return np.resize(dZ.sum(axis=1), dZ.shape[1])


def _in_float32(here: Here, dZ: Floats) -> Floats:
    return (dZ.astype(np.float32).T @ here.A_before.astype(np.float32)).astype(np.float64)


def _transposed(dW: Floats) -> Floats:
    """Return the transpose; where that has another shape, its numbers in the right one."""
    return dW.T.reshape(dW.shape)


def _with(values: Floats, place: Any, change: Callable[[Floats], Floats]) -> Floats:
    changed = values.copy()
    changed[place] = change(changed[place])
    return changed


def _largest_entry_negated(dW: Floats) -> Floats:
    place = np.unravel_index(np.argmax(np.abs(dW)), dW.shape)
    return _with(dW, place, np.negative)


def _rounded(precision: str) -> Callable[[Floats], Floats]:
    return lambda values: values.astype(precision).astype(np.float64)


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


_TABLE = (
    Slip("penalty_missing", "the penalty's part λ/m·W is missing from dW",
         _penalty_times(lambda here: 0.0)),
    Slip("penalty_doubled", "the penalty's part of dW is doubled (the ½ of λ/2m was left out)",
         _penalty_times(lambda here: 2.0)),
    Slip("penalty_halved", "the penalty's part of dW is halved",
         _penalty_times(lambda here: 0.5)),
    Slip("penalty_sign", "the penalty's part of dW has the wrong sign",
         _penalty_times(lambda here: -1.0)),
    Slip("penalty_not_divided", "the penalty's part of dW is not divided by m",
         _penalty_times(lambda here: here.batch.size)),
    Slip("penalty_on_biases", "the penalty is applied to the biases too",
         {"biases": _biases_penalised}),
    Slip("sum_for_mean", "the data's part is not divided by m: a sum where J has the mean",
         _error_times(lambda here: here.batch.size), any_layer=False),
    Slip("divided_twice", "the data's part is divided by m twice",
         _error_times(lambda here: 1.0 / here.batch.size), any_layer=False),
    Slip("sign", "the whole gradient of the data has the wrong sign (y − a instead of a − y)",
         _error_times(lambda here: -1.0), any_layer=False),
    Slip("other_loss", "the output error is that of another loss",
         {"output_error": _error_of_another_loss}, any_layer=False),
    Slip("output_activation_twice",
         "p − y is multiplied by the output activation's derivative, which it holds already",
         {"output_error": _output_activation_twice}, any_layer=False),
    Slip("sample_left_out", "the last sample is left out",
         {"output_error": _last_sample_left_out}, any_layer=False),
    Slip("derivative_missing", "the activation's derivative φ' is missing",
         {"slopes": _slope_missing}),
    Slip("derivative_at_a", "the activation's derivative is taken at a instead of z",
         {"slopes": _slope_at_output}),
    Slip("derivative_of_layer_before", "the activation's derivative is taken at another layer's z",
         {"slopes": _slope_of_layer_before}),
    Slip("derivative_twice", "the activation's derivative is applied twice",
         {"slopes": _slope_twice}),
    Slip("error_not_passed", "no error is passed on to the layer before (a detached layer)",
         {"error_before": lambda here, dZ: np.zeros_like(here.A_before)}, one_layer=True),
    Slip("logits_as_inputs", "dW is made with z of the layer before instead of a",
         {"weights": _logits_as_inputs}),
    Slip("mask_still_applied", "a dropout mask is applied that J does not have",
         {"mask": _mask_still_applied}),
    Slip("mask_forgotten", "the dropout mask is forgotten on the way back",
         {"mask": lambda here: None}),
    Slip("mask_not_scaled", "the dropout mask is not divided by keep_prob on the way back",
         {"mask": _mask_not_scaled}),
    Slip("transposed", "dW is transposed", _finished(_transposed, "W"), one_layer=True),
    Slip("doubled", "dW of one layer is twice too large",
         _finished(lambda dW: 2.0 * dW, "W"), one_layer=True),
    Slip("halved", "dW of one layer is half of what it should be",
         _finished(lambda dW: 0.5 * dW, "W"), one_layer=True),
    Slip("negated", "dW of one layer has the wrong sign",
         _finished(np.negative, "W"), one_layer=True),
    Slip("zero", "dW of one layer is zero", _finished(np.zeros_like, "W"), one_layer=True),
    Slip("bias_doubled", "db of one layer is twice too large",
         _finished(lambda db: 2.0 * db, "b"), one_layer=True),
    Slip("bias_zero", "db of one layer is zero", _finished(np.zeros_like, "b"), one_layer=True),
    Slip("bias_axis", "db is summed over the units instead of the samples",
         {"biases": _first_axis}),
    Slip("bias_total", "db is one sum over samples and units (no axis=)",
         {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.sum())}),
    Slip("bias_mean", "db is the mean over the samples where dZ is divided by m already",
         {"biases": lambda here, dZ: dZ.mean(axis=0)}),
    Slip("row", "the first row of dW is doubled",
         _finished(lambda dW: _with(dW, 0, lambda row: 2.0 * row), "W"), one_layer=True),
    Slip("column", "the middle column of dW is zero",
         _finished(lambda dW: _with(dW, (slice(None), dW.shape[1] // 2), np.zeros_like), "W"),
         one_layer=True),
    Slip("entry", "a single entry of dW, the largest, has the wrong sign",
         _finished(_largest_entry_negated, "W"), one_layer=True),
    Slip("shifted", "the rows of dW are shifted by one (an index off by one)",
         _finished(lambda dW: np.roll(dW, 1, axis=0), "W"), one_layer=True),
    Slip("swapped", "two blocks of the same shape are swapped",
         whole=_blocks_swapped, any_layer=False),
    Slip("float32_products", "dW is computed in float32 and handed over as float64",
         {"weights": _in_float32}),
    Slip("rounded_float16", "dW and db are rounded to float16 and handed over as float64",
         _finished(_rounded("float16"), "W", "b")),
)  # fmt: skip

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
    steps = replace(
        RIGHT, **{name: _at(layer, step, getattr(RIGHT, name)) for name, step in slip.steps.items()}
    )
    dtheta = gradients(network, batch, steps)
    return dtheta if slip.whole is None else slip.whole(network, dtheta)


@dataclass(frozen=True)
class PlantedGradient:
    """The reference backward pass with a slip in it, as a callable that `gradcheck` takes."""

    slip: Slip
    layer: int | None = None

    def __call__(
        self, network: Network, inputs: ArrayLike, targets: ArrayLike
    ) -> dict[str, NDArray[Any]]:
        """Return `{"dW1": …, "db1": …}` in the owner's layout and precision."""
        batch = network.batch(inputs, targets)
        dtheta = slipped_gradients(self.slip, network, batch, self.layer)
        return {
            block.gradient_name: network.owner_array(block, values)
            for block, values in network.order.views(dtheta)
        }


def plant(text: str, network: Network, batch: Batch) -> PlantedGradient:
    """Read `NAME` or `NAME@LAYER` and return the gradient with that slip in it.

    Raises
    ------
    InputError
        For an unknown name or layer, and for a slip that changes nothing in this network.
    """
    name, at, number = text.partition("@")
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    if name not in SLIPS:
        raise InputError(
            f"unknown bug {text!r}",
            "one of the bugs that fastcheck --list-plants shows",
            near_names(name, SLIPS),
        )
    slip = SLIPS[name]
    layer = _layer(slip, number, network.depth) if at else None
    wrong = slipped_gradients(slip, network, batch, layer)
    if np.array_equal(wrong, gradients(network, batch)):
        raise InputError(
            f"{text} changes nothing in this network ({network.describe()})",
            "a bug that makes the gradient wrong",
            "Try another bug, or another --activation, --loss, --l2 or --layers.",
        )
    return PlantedGradient(slip, layer)


def _layer(slip: Slip, number: str, depth: int) -> int:
    if not slip.any_layer:
        raise InputError(
            f"{slip.name}@{number}", f"{slip.name} without a layer: it acts on the whole gradient"
        )
    if not number.isdecimal() or not 1 <= int(number) <= depth:
        raise InputError(f"layer {number!r} in {slip.name}@{number}", f"a layer from 1 to {depth}")
    return int(number)
