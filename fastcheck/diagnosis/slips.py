"""The table of slips that people make in a backward pass, for `--plant` and for diagnosis alike.

A slip takes the place of a step of the reference backward pass. Diagnosis re-enacts it there;
entries without steps are those that it finds by fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.backprop import RIGHT, Here, Steps, gradients
from fastcheck.diagnosis import changes
from fastcheck.diagnosis.changes import Change, Variants
from fastcheck.network import Batch, Network

__all__ = ["SLIPS", "Slip", "slipped_gradients"]

Floats = NDArray[np.float64]


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


_TABLE = (
    Slip(
        "penalty_missing",
        "the penalty's part is missing from dW{l}",
        "weights",
        changes.penalty_times(lambda here: 0.0),
    ),
    Slip(
        "penalty_doubled",
        "the penalty's part of dW{l} is doubled (the 2 of the square, with no ½)",
        "weights",
        changes.penalty_times(lambda here: 2.0),
    ),
    Slip(
        "penalty_halved",
        "the penalty's part of dW{l} is halved",
        "weights",
        changes.penalty_times(lambda here: 0.5),
    ),
    Slip(
        "penalty_sign",
        "the penalty's part of dW{l} has the wrong sign",
        "weights",
        changes.penalty_times(lambda here: -1.0),
    ),
    Slip(
        "penalty_not_divided",
        "the penalty's part of dW{l} is not divided by m (it is m times too large)",
        "weights",
        changes.penalty_times(lambda here: here.batch.size),
    ),
    Slip(
        "penalty_divided_twice",
        "the penalty's part of dW{l} is divided by m once too often",
        "weights",
        changes.penalty_times(lambda here: 1.0 / here.batch.size),
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
        {"biases": changes.biases_penalised},
    ),
    Slip(
        "sum_for_mean",
        "the data's part is not divided by m: a sum where J has the mean",
        "output",
        changes.error_times(lambda here: here.batch.size),
        any_layer=False,
    ),
    Slip(
        "divided_twice",
        "the data's part is divided by m twice: a mean where J has it already",
        "output",
        changes.error_times(lambda here: 1.0 / here.batch.size),
        any_layer=False,
    ),
    Slip(
        "sign",
        "the whole gradient of the data has the wrong sign (y − a instead of a − y)",
        "output",
        changes.error_times(lambda here: -1.0),
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
        {"output_error": changes.output_activation_twice},
        variants=changes.odd_twice,
        any_layer=False,
    ),
    Slip(
        "other_loss",
        "the output error is that of another loss ({value})",
        "output",
        {"output_error": changes.error_of_another_loss},
        variants=changes.other_errors,
        any_layer=False,
    ),
    Slip(
        "wrong_targets",
        "the output error is made with wrong targets: {value}",
        "output",
        {
            "output_error": lambda here: dict(changes.odd_targets(here)).get(
                "no targets at all", RIGHT.output_error(here)
            )
        },
        variants=changes.other_targets,
        any_layer=False,
    ),
    Slip(
        "sample_left_out",
        "samples are left out or counted wrongly: {value}",
        "output",
        {"output_error": changes.last_sample_left_out},
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
        {"slopes": lambda here: changes.derivative_at(here, changes.before_mask(here))},
    ),
    Slip(
        "derivative_of_layer_before",
        "the activation's derivative is taken at another layer's values, {value}, instead of Z{l}",
        "slopes",
        {"slopes": changes.slope_of_layer_before},
        variants=changes.slope_of_other_layer,
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
        variants=changes.other_slopes,
        rare=0.1,
    ),
    Slip(
        "derivative_miswritten",
        "{value} stands where the activation's derivative φ'(Z{l}) belongs",
        "slopes",
        variants=changes.odd_slopes,
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
        {"error_before": changes.weights_turned},
    ),
    Slip(
        "weights_by_columns",
        "W{n} is reshaped in column order on the way back to layer {l}",
        "back",
        {"error_before": changes.weights_by_columns},
        rare=0.3,
    ),
    Slip(
        "weights_updated",
        "W{n} was already updated (W − lr·dW, lr = {value}) when the error "
        "went back through "
        "it to layer {l}",
        "back",
        {"error_before": changes.weights_updated},
    ),
    Slip(
        "weights_of_other",
        "the error goes back to layer {l} through {value} instead of W{n}",
        "back",
        variants=changes.other_weights,
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
        {"weights": changes.logits_as_inputs},
        inputs=changes.logits_of,
    ),
    Slip(
        "inputs_of_other",
        "dW{l} is made with {value} as the layer's inputs, where A{k} belongs",
        "weights",
        {"weights": changes.own_outputs_as_inputs},
        inputs=changes.other_inputs,
    ),
    Slip("delta_before_slope", "dW{l} is made with dA{l} instead of dZ{l}", "weights", rare=0.1),
    Slip(
        "mask_still_applied",
        "a dropout mask is applied to dZ{l} that J does not have",
        "mask",
        {"mask": changes.mask_still_applied},
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
        {"mask": changes.mask_not_scaled},
    ),
    Slip(
        "mask_twice",
        "the dropout mask of layer {l} is applied twice on the way back",
        "mask",
        {"mask": changes.mask_twice},
    ),
    Slip(
        "mask_of_other",
        "the dropout mask of layer {value} is applied in layer {l}",
        "mask",
        variants=changes.other_masks,
    ),
    Slip("transposed", "dW{l} is transposed", "weights", block=changes.transposed, one_layer=True),
    Slip(
        "by_columns",
        "dW{l} is flattened or reshaped in column order",
        "whole",
        block=changes.by_columns,
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
        block=lambda dW: changes.with_change(dW, 0, lambda row: 2.0 * row),
        one_layer=True,
    ),
    Slip(
        "column",
        "the middle column of dW{l} is zero",
        "weights",
        block=lambda dW: changes.with_change(dW, (slice(None), dW.shape[1] // 2), np.zeros_like),
        one_layer=True,
    ),
    Slip(
        "entry",
        "a single entry of dW{l}, the largest, has the wrong sign",
        "weights",
        block=changes.largest_entry_negated,
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
        {"biases": changes.first_axis},
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
        whole=changes.blocks_swapped,
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
        block=changes.clipped_values,
        one_layer=True,
    ),
    Slip(
        "clipped_norm",
        "the gradient is clipped by norm: it has ‖dθ‖ = {value}",
        "whole",
        whole=changes.norm_clipped,
        any_layer=False,
    ),
    Slip(
        "float32_products",
        "dW{l} is computed in float32 and handed over as float64",
        "whole",
        {"weights": changes.in_float32},
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
        block=changes.rounded_to("float16"),
        bias_block=changes.rounded_to("float16"),
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
    every = {**slip.steps, **changes.finished_steps(slip.block, slip.bias_block)}
    steps: Steps = replace(
        RIGHT, **{name: _at(layer, step, getattr(RIGHT, name)) for name, step in every.items()}
    )
    dtheta = gradients(network, batch, steps)
    return dtheta if slip.whole is None else slip.whole(network, dtheta)
