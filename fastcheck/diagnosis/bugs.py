"""The table of slips that people make in a backward pass, for `--plant` and for diagnosis alike.

A slip takes the place of a step of the reference backward pass. Diagnosis re-enacts it there;
entries without steps are those that it finds by fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastcheck.diagnosis import layer_errors, mutations, products
from fastcheck.diagnosis.layer_errors import (
    ERRORS_OF_LINE,
    Candidates,
    Errors,
    Families,
    Site,
)
from fastcheck.diagnosis.mutations import Change, Variants
from fastcheck.diagnosis.products import Products
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import RIGHT, Here, Steps, gradients
from fastcheck.types import Floats

__all__ = ["BUGS", "Bug", "buggy_gradients", "factor_bugs"]


@dataclass(frozen=True)
class Bug:
    """One mistake.

    Attributes
    ----------
    name : str
    sentence : str
        What is wrong; `{l}` stands for the layer, `{k}` for the one before, `{value}` for what a
        fit found.
    line : str
        Which line of code it is in, a key of `fixes.LINES`.
    steps : mapping
        The steps of the backward pass that it takes the place of, by their names in `Steps`.
    block, bias_block : callable or None
        `dW -> dW` or `db -> db` for what happens to a finished block.
    whole : callable or None
        `(network, dθ) -> dθ` for what happens to the finished gradient.
    products : callable or None
        `site ->` triples (which, dZ, A) of what may stand where dZ_lᵀ A_{l-1} belongs in dW_l.
    errors : callable or None
        `site ->` pairs (which, dZ) of what the error dZ_l may be instead.
    families : callable or None
        `site ->` errors with a number that is fitted.
    variants : callable or None
        `here ->` pairs (which, array) that may stand where the result of its step belongs.
    part : str
        What it multiplies by a factor: `penalty`, `output`, `error`, `W`, `b`, `data`, `all` or "".
    times : callable or None
        `here ->` that factor; None for any other than those of the rows above it.
    one_layer : bool
        Whether it is made in one layer unless told otherwise, and not in all of them.
    any_layer : bool
        Whether it can be made in a layer of choice.
    rare : float
        How much less usual it is than another slip with the same effect.
    is_planted_only : bool
        Whether something else finds it.
    is_exact : bool
        Whether it leaves nothing of a block that could be wrong in yet another way.
    """

    name: str
    sentence: str
    line: str = "whole"
    steps: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    block: Change | None = None
    bias_block: Change | None = None
    whole: Callable[[Network, Floats], Floats] | None = None
    products: Products | None = None
    errors: Errors | None = None
    families: Families | None = None
    variants: Callable[[Here], Variants] | None = None
    part: str = ""
    times: Callable[[Here], float] | None = None
    one_layer: bool = False
    any_layer: bool = True
    rare: float = 0.0
    is_planted_only: bool = False
    is_exact: bool = False

    @property
    def plantable(self) -> bool:
        """Whether it can be re-enacted without anything having been fitted."""
        return bool(self.steps or self.block or self.bias_block or self.whole)

    def errors_at(self, site: Site) -> Candidates:
        """Return what it may make of the error of a layer."""
        if self.errors is not None:
            return self.errors(site)
        if self.families is not None or self.times is not None or self.line not in ERRORS_OF_LINE:
            return iter(())
        step, errors = ERRORS_OF_LINE[self.line]
        return errors(self.steps.get(step), self.variants, site)


_TABLE = (
    Bug(
        "penalty_missing",
        "the penalty's part is missing from dW{l}",
        "weights",
        mutations.penalty_times(lambda here: 0.0),
        part="penalty",
        times=lambda here: 0.0,
    ),
    Bug(
        "penalty_doubled",
        "the penalty's part of dW{l} is doubled (the 2 of the square, with no ½)",
        "weights",
        mutations.penalty_times(lambda here: 2.0),
        part="penalty",
        times=lambda here: 2.0,
    ),
    Bug(
        "penalty_halved",
        "the penalty's part of dW{l} is halved",
        "weights",
        mutations.penalty_times(lambda here: 0.5),
        part="penalty",
        times=lambda here: 0.5,
    ),
    Bug(
        "penalty_sign",
        "the penalty's part of dW{l} has the wrong sign",
        "weights",
        mutations.penalty_times(lambda here: -1.0),
        part="penalty",
        times=lambda here: -1.0,
    ),
    Bug(
        "penalty_not_divided",
        "the penalty's part of dW{l} is not divided by m (it is m times too large)",
        "weights",
        mutations.penalty_times(lambda here: here.batch.size),
        part="penalty",
        times=lambda here: here.batch.size,
    ),
    Bug(
        "penalty_divided_twice",
        "the penalty's part of dW{l} is divided by m once too often",
        "weights",
        mutations.penalty_times(lambda here: 1.0 / here.batch.size),
        part="penalty",
        times=lambda here: 1.0 / here.batch.size,
    ),
    Bug(
        "penalty_factor",
        "the penalty's part of dW{l} is {value} times what it should be",
        "weights",
        rare=0.4,
        part="penalty",
    ),
    Bug(
        "penalty_extra",
        "dW{l} holds a penalty {value}·W{l} that J does not have",
        "weights",
        rare=0.2,
    ),
    Bug(
        "penalty_absolute",
        "the penalty's part of dW{l} is that of Σ|w| (L1, sign(W)) and not of Σw²",
        "weights",
        rare=0.2,
    ),
    Bug(
        "penalty_on_biases",
        "the penalty is applied to b{l} too (it is on weights only)",
        "biases",
        {"biases": mutations.biases_penalised},
    ),
    Bug(
        "sum_for_mean",
        "the data's part is not divided by m: a sum where J has the mean",
        "output",
        mutations.error_times(lambda here: here.batch.size),
        any_layer=False,
        part="output",
        times=mutations.samples_unless_summed,
    ),
    Bug(
        "divided_twice",
        "the data's part is divided by m twice: a mean where J has it already",
        "output",
        mutations.error_times(lambda here: 1.0 / here.batch.size),
        any_layer=False,
        part="output",
        times=lambda here: 1.0 / mutations.samples_unless_summed(here),
    ),
    Bug(
        "sign",
        "the whole gradient of the data has the wrong sign (y − a instead of a − y)",
        "output",
        mutations.error_times(lambda here: -1.0),
        any_layer=False,
        part="output",
        times=lambda here: -1.0,
    ),
    Bug(
        "output_factor",
        "the output error, and with it all of the data's part, is {value} times what it should be",
        "output",
        any_layer=False,
        part="output",
    ),
    Bug(
        "output_activation_twice",
        "the output error is multiplied by a derivative ({value}) that it holds already",
        "output",
        {"output_error": mutations.output_activation_twice},
        variants=mutations.odd_twice,
        any_layer=False,
    ),
    Bug(
        "other_loss",
        "the output error is that of another loss ({value})",
        "output",
        {"output_error": mutations.error_of_another_loss},
        variants=mutations.other_errors,
        any_layer=False,
    ),
    Bug(
        "brackets_output",
        "brackets are missing in the output error: {value}",
        "output",
        errors=layer_errors.brackets_at_output,
        any_layer=False,
        rare=0.05,
    ),
    Bug(
        "outputs_scaled",
        "the outputs are multiplied by {value} in the output error, and not in J",
        "output",
        families=layer_errors.scaled_outputs,
        any_layer=False,
        rare=0.1,
    ),
    Bug(
        "targets_smoothed",
        "the output error is made with smoothed labels (ε = {value}), and J is not",
        "output",
        families=layer_errors.smoothed_targets,
        any_layer=False,
        rare=0.1,
    ),
    Bug(
        "targets_scaled",
        "the targets are multiplied by {value} in the output error, and not in J",
        "output",
        families=layer_errors.scaled_targets,
        any_layer=False,
        rare=0.1,
    ),
    Bug(
        "log_epsilon",
        "the output error is that of log(p + {value}), and J has log(p)",
        "output",
        families=layer_errors.guarded_logarithm,
        any_layer=False,
        rare=0.1,
    ),
    Bug(
        "log_one_sided",
        "the output error is that of −y·log(p + {value}) alone, without the part of 1 − y",
        "output",
        families=layer_errors.one_sided_logarithm,
        any_layer=False,
        rare=0.2,
    ),
    Bug(
        "wrong_targets",
        "the output error is made with wrong targets: {value}",
        "output",
        {
            "output_error": lambda here: dict(mutations.odd_targets(here)).get(
                "no targets at all", RIGHT.output_error(here)
            )
        },
        variants=mutations.other_targets,
        any_layer=False,
    ),
    Bug(
        "sample_left_out",
        "samples are left out or counted wrongly: {value}",
        "output",
        {"output_error": mutations.last_sample_left_out},
        any_layer=False,
        errors=layer_errors.usual_samples,
    ),
    Bug(
        "derivative_missing",
        "the activation's derivative φ' is missing from dZ{l}",
        "slopes",
        {"slopes": lambda here: np.ones_like(here.Z)},
    ),
    Bug(
        "derivative_at_a",
        "the activation's derivative is taken at a instead of z: φ'(A{l}) where φ'(Z{l}) belongs",
        "slopes",
        {"slopes": lambda here: mutations.derivative_at(here, mutations.before_mask(here))},
    ),
    Bug(
        "derivative_of_layer_before",
        "the activation's derivative is taken at another layer's values, {value}, instead of Z{l}",
        "slopes",
        {"slopes": mutations.slope_of_layer_before},
        variants=mutations.slope_of_other_layer,
    ),
    Bug(
        "derivative_twice",
        "the activation's derivative is applied twice in dZ{l}",
        "slopes",
        {"slopes": lambda here: RIGHT.slopes(here) ** 2},
    ),
    Bug(
        "derivative_of_other",
        "the activation's derivative in dZ{l} is that of another activation: {value}",
        "slopes",
        variants=mutations.other_slopes,
        rare=0.1,
    ),
    Bug(
        "derivative_miswritten",
        "{value} stands where the activation's derivative φ'(Z{l}) belongs",
        "slopes",
        variants=mutations.odd_slopes,
        rare=0.15,
    ),
    Bug(
        "derivative_leak",
        "the activation's derivative in dZ{l} is {value} where z ≤ 0",
        "slopes",
        families=layer_errors.leaking_slope,
        rare=0.1,
    ),
    Bug(
        "derivative_offset",
        "{value} is added to the activation's derivative in dZ{l}",
        "slopes",
        families=layer_errors.added_to_slope,
        rare=0.2,
    ),
    Bug(
        "brackets_slope",
        "brackets are missing where dA{l} is multiplied by the derivative: {value}",
        "slopes",
        errors=layer_errors.brackets_at_slope,
        rare=0.1,
    ),
    Bug(
        "error_of_other",
        "{value}",
        "slopes",
        errors=layer_errors.errors_of_other_layers,
        rare=0.15,
    ),
    Bug(
        "samples_of_error_shifted",
        "{value}, and those of A{k} are not",
        "slopes",
        errors=layer_errors.shifted_samples,
        rare=0.2,
    ),
    Bug(
        "error_not_passed",
        "no error is passed on from layer {n} to layer {l} (a detached layer)",
        "back",
        {"error_before": lambda here, dZ: np.zeros_like(here.A_before)},
        one_layer=True,
        is_exact=True,
    ),
    Bug(
        "error_factor",
        "the error dZ{l}, and with it all that lies before it, is {value} times what it should be",
        "slopes",
        rare=0.1,
        part="error",
    ),
    Bug(
        "weights_not_transposed",
        "W{n} is used transposed on the way back to layer {l}",
        "back",
        {"error_before": mutations.weights_turned},
    ),
    Bug(
        "weights_by_columns",
        "W{n} is reshaped in column order on the way back to layer {l}",
        "back",
        {"error_before": mutations.weights_by_columns},
        rare=0.3,
    ),
    Bug(
        "weights_updated",
        "W{n} was already updated (W − lr·dW, lr = {value}) when the error "
        "went back through "
        "it to layer {l}",
        "back",
        {"error_before": mutations.weights_updated},
        families=layer_errors.updated_weights,
    ),
    Bug(
        "weights_of_other",
        "the error goes back to layer {l} through {value} instead of W{n}",
        "back",
        variants=mutations.other_weights,
        rare=0.1,
    ),
    Bug(
        "error_before_slope",
        "dA{n} instead of dZ{n} goes back through W{n}: the derivative "
        "of layer {n} is "
        "missing on the way to layer {l} only",
        "back",
        rare=0.1,
        errors=layer_errors.unsloped_error_above,
    ),
    Bug(
        "inputs_logits",
        "dW{l} is made with {value} where A{k} belongs (before its activation)",
        "weights",
        {"weights": mutations.logits_as_inputs},
        products=products.with_logits,
    ),
    Bug(
        "inputs_of_other",
        "dW{l} is made with {value} as the layer's inputs, where A{k} belongs",
        "weights",
        {"weights": mutations.own_outputs_as_inputs},
        products=products.with_other_inputs,
    ),
    Bug(
        "delta_before_slope",
        "dW{l} is made with dA{l} instead of dZ{l}",
        "weights",
        products=products.before_slope,
        rare=0.1,
    ),
    Bug(
        "delta_of_other",
        "dW{l} is made with {value}, the error of another layer, instead of dZ{l}",
        "weights",
        products=products.with_other_errors,
        rare=0.1,
    ),
    Bug(
        "samples_shifted",
        "the samples of A{k} and dZ{l} do not belong together in dW{l}: those of A{k} are {value}",
        "weights",
        products=products.with_samples_in_another_order,
        rare=0.1,
    ),
    Bug(
        "mask_still_applied",
        "a dropout mask is applied to dZ{l} that J does not have",
        "mask",
        {"mask": mutations.mask_still_applied},
    ),
    Bug(
        "mask_forgotten",
        "the dropout mask of layer {l} is forgotten on the way back",
        "mask",
        {"mask": lambda here: None},
    ),
    Bug(
        "mask_not_scaled",
        "the dropout mask of layer {l} is not divided by keep_prob on the way back",
        "mask",
        {"mask": mutations.mask_not_scaled},
    ),
    Bug(
        "mask_twice",
        "the dropout mask of layer {l} is applied twice on the way back",
        "mask",
        {"mask": mutations.mask_twice},
    ),
    Bug(
        "mask_of_other",
        "the dropout mask of layer {value} is applied in layer {l}",
        "mask",
        variants=mutations.other_masks,
    ),
    Bug("transposed", "dW{l} is transposed", "weights", block=mutations.transposed, one_layer=True),
    Bug(
        "by_columns",
        "dW{l} is flattened or reshaped in column order",
        "whole",
        block=mutations.by_columns,
        one_layer=True,
    ),
    Bug("factor", "dW{l} is {value} times what it should be", "weights", part="W"),
    Bug(
        "data_factor",
        "the data's part of dW{l} is {value} times what it should be",
        "weights",
        part="data",
    ),
    Bug(
        "doubled", "dW{l} is twice too large", "weights", block=lambda dW: 2.0 * dW, one_layer=True
    ),
    Bug(
        "halved",
        "dW{l} is half of what it should be",
        "weights",
        block=lambda dW: 0.5 * dW,
        one_layer=True,
    ),
    Bug("negated", "dW{l} has the wrong sign", "weights", block=np.negative, one_layer=True),
    Bug(
        "zero",
        "dW{l} is zero: it was never set",
        "weights",
        block=np.zeros_like,
        one_layer=True,
        is_exact=True,
    ),
    Bug(
        "absolute",
        "dW{l} has lost its signs (absolute values)",
        "weights",
        block=np.abs,
        one_layer=True,
    ),
    Bug(
        "signs_only",
        "dW{l} holds signs instead of values",
        "weights",
        block=np.sign,
        one_layer=True,
        rare=0.1,
    ),
    Bug("rows_shifted", "the rows of dW{l} are shifted by {value}", "weights", rare=0.1),
    Bug("columns_shifted", "the columns of dW{l} are shifted by {value}", "weights", rare=0.1),
    Bug(
        "shifted",
        "the rows of dW{l} are shifted by one (an index off by one)",
        "weights",
        block=lambda dW: np.roll(dW, 1, axis=0),
        one_layer=True,
    ),
    Bug(
        "reversed",
        "the rows of dW{l} are in reverse order",
        "weights",
        block=lambda dW: dW[::-1],
        one_layer=True,
    ),
    Bug(
        "columns_reversed",
        "the columns of dW{l} are in reverse order",
        "weights",
        block=lambda dW: dW[:, ::-1],
        one_layer=True,
    ),
    Bug(
        "copied", "dW{l} holds {value} instead of its own values", "whole", rare=0.1, is_exact=True
    ),
    Bug("is_update", "dW{l} holds {value}: updated weights, not a gradient", "whole", rare=0.1),
    Bug(
        "row",
        "the first row of dW{l} is doubled",
        "weights",
        block=lambda dW: mutations.with_change(dW, 0, lambda row: 2.0 * row),
        one_layer=True,
        is_planted_only=True,
    ),
    Bug(
        "column",
        "the middle column of dW{l} is zero",
        "weights",
        block=lambda dW: mutations.with_change(dW, (slice(None), dW.shape[1] // 2), np.zeros_like),
        one_layer=True,
        is_planted_only=True,
    ),
    Bug(
        "entry",
        "a single entry of dW{l}, the largest, has the wrong sign",
        "weights",
        block=mutations.largest_entry_negated,
        one_layer=True,
        is_planted_only=True,
    ),
    Bug("rows", "only {value}", rare=0.1),
    Bug("columns", "only {value}", rare=0.12),
    Bug("entries", "only {value}", rare=0.14),
    Bug("bias_entries", "only {value}", rare=0.14),
    Bug("samples_weighted", "the samples do not count alike in dZ{l}: {value}", rare=0.6),
    Bug(
        "units_dropped",
        "the error dZ{l} of {value} is zero, as if a mask dropped them: J drops none",
        rare=0.2,
    ),
    Bug("samples_wrong", "only the error dZ{l} of {value} is wrong", rare=0.6),
    Bug("bias_factor", "db{l} is {value} times what it should be", "biases", part="b"),
    Bug(
        "bias_doubled",
        "db{l} is twice too large",
        "biases",
        bias_block=lambda db: 2.0 * db,
        one_layer=True,
    ),
    Bug(
        "bias_zero",
        "db{l} is zero: it was never set",
        "biases",
        bias_block=np.zeros_like,
        one_layer=True,
        is_exact=True,
    ),
    Bug(
        "bias_axis",
        "db{l} is summed over the units instead of the samples (the wrong axis)",
        "biases",
        {"biases": mutations.first_axis},
    ),
    Bug(
        "bias_units_mean",
        "db{l} is the mean over the units instead of the sum over the samples",
        "biases",
        {"biases": lambda here, dZ: np.resize(dZ.mean(axis=1), dZ.shape[1])},
        rare=0.1,
    ),
    Bug(
        "bias_total",
        "db{l} is one sum over samples and units (no axis=)",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.sum())},
    ),
    Bug(
        "bias_total_mean",
        "db{l} is one mean over samples and units (no axis=)",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.mean())},
        rare=0.1,
    ),
    Bug(
        "bias_level",
        "db{l} has the mean over the units in every entry",
        "biases",
        {"biases": lambda here, dZ: np.full(dZ.shape[1], dZ.sum(axis=0).mean())},
        rare=0.1,
    ),
    Bug(
        "bias_mean",
        "db{l} is averaged over the samples where dZ{l} is divided by m already",
        "biases",
        {"biases": lambda here, dZ: dZ.mean(axis=0)},
        part="b",
        times=lambda here: 1.0 / mutations.samples_unless_summed(here),
    ),
    Bug(
        "bias_one_sample",
        "db{l} is the dZ{l} of one sample (the first), not the sum over samples",
        "biases",
        {"biases": lambda here, dZ: dZ[0]},
    ),
    Bug(
        "bias_last_sample",
        "db{l} is the dZ{l} of one sample (the last), not the sum over samples",
        "biases",
        {"biases": lambda here, dZ: dZ[-1]},
    ),
    Bug(
        "bias_largest",
        "db{l} is the maximum over the samples, not the sum",
        "biases",
        {"biases": lambda here, dZ: dZ.max(axis=0)},
        rare=0.1,
    ),
    Bug(
        "bias_reversed",
        "db{l} is in reverse order",
        "biases",
        bias_block=lambda db: db[::-1],
        one_layer=True,
        rare=0.1,
    ),
    Bug(
        "bias_absolute",
        "db{l} has lost its signs (absolute values)",
        "biases",
        bias_block=np.abs,
        one_layer=True,
        rare=0.1,
    ),
    Bug(
        "bias_signs",
        "db{l} holds signs instead of values",
        "biases",
        bias_block=np.sign,
        one_layer=True,
        rare=0.1,
    ),
    Bug("bias_shifted", "the entries of db{l} are shifted by {value}", "biases", rare=0.1),
    Bug("bias_before_slope", "db{l} is made with dA{l} instead of dZ{l}", "biases", rare=0.1),
    Bug(
        "bias_copied",
        "db{l} holds {value} instead of its own values",
        "whole",
        rare=0.1,
        is_exact=True,
    ),
    Bug(
        "swapped",
        "two blocks of the same shape are swapped: {value}",
        "whole",
        whole=mutations.blocks_swapped,
        any_layer=False,
    ),
    Bug(
        "stale",
        "the gradient is that of another θ, before or after an update: it fits θ {value}·dθ",
        "whole",
        any_layer=False,
        rare=0.3,
    ),
    Bug(
        "everything_factor",
        "the whole gradient, penalty and all, is {value} times what it should be",
        "whole",
        any_layer=False,
        rare=0.05,
        part="all",
    ),
    Bug(
        "everything_doubled",
        "the whole gradient is twice too large: accumulated over two calls",
        whole=lambda network, dtheta: 2.0 * dtheta,
        any_layer=False,
    ),
    Bug(
        "clipped",
        "gradients are clipped by value at {value}",
        "whole",
        block=mutations.clipped_values,
        one_layer=True,
        is_planted_only=True,
    ),
    Bug(
        "clipped_norm",
        "the gradient is clipped by norm: it has ‖dθ‖ = {value}",
        "whole",
        whole=mutations.norm_clipped,
        any_layer=False,
    ),
    Bug(
        "float32_products",
        "dW{l} is computed in float32 and handed over as float64",
        "whole",
        {"weights": mutations.in_float32},
        is_planted_only=True,
    ),
    Bug(
        "low_precision",
        "the gradient is computed in {value}, a lower precision than it is handed over in",
        "whole",
        rare=0.3,
    ),
    Bug(
        "rounded_float16",
        "dW{l} and db{l} are rounded to float16 and handed over as float64",
        "whole",
        block=mutations.rounded_to("float16"),
        bias_block=mutations.rounded_to("float16"),
    ),
    Bug("rounded", "values are rounded to {value}", "whole"),
    Bug("unknown", "no slip that I know explains this", "whole", rare=2.0),
)

BUGS: dict[str, Bug] = {slip.name: slip for slip in _TABLE}


def factor_bugs(part: str, factor: float, here: Here, slack: float) -> tuple[Bug, ...]:
    """Return the bugs that a factor on a part is; the row for any factor where no other fits."""
    rows = [bug for bug in BUGS.values() if bug.part == part]
    known = [(bug, bug.times(here)) for bug in rows if bug.times is not None]
    fits = [bug for bug, times in known if abs(factor - times) <= slack * max(abs(times), 0.05)]
    return tuple(fits) or tuple(bug for bug in rows if bug.times is None)


def _at(
    layer: int | None, wrong: Callable[..., Any], right: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a step that goes wrong in one layer, or (None) in all."""

    def step(here: Here, *arguments: Floats) -> Any:
        there = layer is None or here.layer == layer
        return (wrong if there else right)(here, *arguments)

    return step


def buggy_gradients(slip: Bug, network: Network, batch: Batch, layer: int | None = None) -> Floats:
    """Return the dθ of a backward pass with that slip in it.

    Parameters
    ----------
    slip : Bug
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
    every = {**slip.steps, **mutations.finished_steps(slip.block, slip.bias_block)}
    steps: Steps = replace(
        RIGHT, **{name: _at(layer, step, getattr(RIGHT, name)) for name, step in every.items()}
    )
    dtheta = gradients(network, batch, steps)
    return dtheta if slip.whole is None else slip.whole(network, dtheta)
