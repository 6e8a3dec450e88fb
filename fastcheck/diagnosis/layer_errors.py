"""Wrong errors dZ_l: what a bug makes of the error of a layer, with or without a free number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis import mutations
from fastcheck.diagnosis.fitting import usual_weights, weights_text
from fastcheck.reference.backprop import Here, Steps
from fastcheck.types import Floats

__all__ = ["ERRORS_OF_LINE", "Candidates", "Errors", "Families", "Family", "LayerGradients", "Site"]

# A change that no free number scales: in one of these the logits are fused with the loss.
FUSED_LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")


@dataclass(frozen=True)
class LayerGradients:
    """The error at one layer: dA_l and dZ_l, shape (m, n_l) each."""

    dA: Floats
    dZ: Floats


@dataclass(frozen=True)
class Site:
    """Where a bug in an error is looked for.

    Attributes
    ----------
    here : Here
        The layer l.
    steps : Steps
        The right steps.
    right : LayerGradients
        The error without a bug at this layer.
    above : LayerGradients or None
        The error at layer l + 1 as it is there, None at the output.
    elsewhere : mapping
        The right errors of all layers, by layer.
    updates : tuple of ndarray, shape (n_{l+1}, n_l)
        What may have been subtracted from W_{l+1}, times a learning rate.
    """

    here: Here
    steps: Steps
    right: LayerGradients
    above: LayerGradients | None
    elsewhere: Mapping[int, LayerGradients]
    updates: tuple[Floats, ...] = ()

    @property
    def is_output(self) -> bool:
        """Whether this is the last layer."""
        return self.above is None

    @property
    def here_above(self) -> Here:
        """The layer l + 1."""
        here = self.here
        return Here(here.network, here.batch, here.trace, here.layer + 1)

    def at_activation(self, dA: Floats) -> LayerGradients:
        """Return dA_l with the dZ_l that follows from it."""
        return LayerGradients(dA, self.through(dA))

    def at_logits(self, dZ: Floats) -> LayerGradients:
        """Return the right dA_l with another dZ_l."""
        return LayerGradients(self.right.dA, dZ)

    def through(self, dA: Floats) -> Floats:
        """Return dZ_l from dA_l by the right steps."""
        dZ = dA * self.steps.slopes(self.here)
        mask = self.steps.mask(self.here)
        return dZ if mask is None else dZ * mask


@dataclass(frozen=True)
class Family:
    """Errors with one free number.

    Attributes
    ----------
    error : callable
        The number -> dZ_l.
    starts : tuple of float
        Where a search begins; one will do where dZ_l is linear in the number.
    label : str
        What the number is, with `{}` in its place.
    activation : callable or None
        The number -> dA_l, None where that is right.
    """

    error: Callable[[float], Floats]
    starts: tuple[float, ...] = (0.0,)
    label: str = "{}"
    activation: Callable[[float], Floats] | None = None


Candidates = Iterator[tuple[str, LayerGradients]]
Errors = Callable[[Site], Candidates]
Step = Callable[..., Any]
Variants = Callable[[Here], Iterable[tuple[str, Floats]]]
StepErrors = Callable[[Step | None, Variants | None, Site], Candidates]
Families = Callable[[Site], Iterator[Family]]


def linear(base: Floats, direction: Floats, label: str = "{}") -> Family:
    """Return base + c·direction."""
    return Family(lambda c: base + c * direction, label=label)


# Errors without a free number.


def brackets_at_output(site: Site) -> Candidates:
    """The output error (a − y)/m with brackets left out."""
    if not site.is_output:
        return
    here = site.here
    outputs, y = _outputs_beside_targets(here), here.batch.T
    mean = here.network.data_scale(here.batch.size)
    m = f"{here.batch.size}"
    if mean != 1.0:
        yield f"a − y / {m} for (a − y) / {m}", site.at_activation(outputs - mean * y)
        yield f"a / {m} − y for (a − y) / {m}", site.at_activation(mean * outputs - y)
    yield "2a − y for 2(a − y)", site.at_activation(mean * (2.0 * outputs - y))
    yield "a − 2y for 2(a − y)", site.at_activation(mean * (outputs - 2.0 * y))


def _outputs_beside_targets(here: Here) -> Floats:
    """What the targets are subtracted from: probabilities, or the outputs themselves."""
    fused = here.network.loss.name in FUSED_LOSSES
    return mutations.probabilities_of(here) if fused else here.A


def brackets_at_slope(site: Site) -> Candidates:
    """The product of dA and φ' with the brackets of φ' left out."""
    here, dA = site.here, site.right.dA
    a, z = mutations.before_mask(here), here.Z
    yield "dA * 1 - A**2", site.at_logits(dA - a * a)
    yield "dA * A * 1 - A", site.at_logits(dA * a - a)
    yield "dA * A - A**2 * dA", site.at_logits(dA * a - a * a)
    yield "(dA * Z > 0)", site.at_logits((dA * z > 0).astype(np.float64))
    yield "dA * 1 - A", site.at_logits(dA - a)
    yield "dA + φ'", site.at_logits(dA + site.steps.slopes(here))


def errors_of_other_layers(site: Site) -> Candidates:
    """dZ or dA of another layer where it has the shape of this one's."""
    shape = site.here.Z.shape
    own = site.here.layer
    for layer in mutations.other_layers(site.here):
        error = site.elsewhere[layer]
        if site.above is not None and layer == own + 1:
            error = site.above
        if error.dZ.shape != shape:
            continue
        yield f"dZ{layer} stands where dZ{own} belongs", site.at_logits(error.dZ)
        if not np.array_equal(error.dA, error.dZ):
            yield f"dA{layer} stands where dZ{own} belongs", site.at_logits(error.dA)
        yield f"dA{layer} stands where dA{own} belongs", site.at_activation(error.dA)
        yield f"dZ{layer} stands where dA{own} belongs", site.at_activation(error.dZ)


def shifted_samples(site: Site) -> Candidates:
    """dZ_l with its samples in another order."""
    own = site.here.layer
    for text, order in sample_orders(site.here.batch.size, most=3):
        yield f"the samples of dZ{own} are {text}", site.at_logits(site.right.dZ[order])
        yield f"the samples of dA{own} are {text}", site.at_activation(site.right.dA[order])


def sample_orders(m: int, most: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield orders that samples take by mistake, in words."""
    place = np.arange(m)
    if m > 1:
        yield "in reverse order", place[::-1]
    for shift in range(1, min(most, m - 1) + 1):
        yield f"shifted by {shift}", np.roll(place, shift)
        if 2 * shift != m:
            yield f"shifted by −{shift}", np.roll(place, -shift)


def usual_samples(site: Site) -> Candidates:
    """The output error with some of the samples left out, or counted twice."""
    if site.is_output:
        for weights in usual_weights(site.here.batch.size):
            factor = weights[:, None]
            yield (
                weights_text(weights)[0],
                LayerGradients(factor * site.right.dA, factor * site.right.dZ),
            )


def unsloped_error_above(site: Site) -> Candidates:
    """dA_{l+1} instead of dZ_{l+1} on the way back, with its dropout mask and without."""
    if site.above is None or np.array_equal(site.above.dA, site.above.dZ):
        return
    here = site.here_above
    mask = site.steps.mask(here)
    yield "", site.at_activation(site.above.dA @ here.W)
    if mask is not None:
        yield "", site.at_activation((site.above.dA * mask) @ here.W)


# Errors that follow from a wrong step, by the line of code that it is in.


def of_output(step: Step | None, variants: Variants | None, site: Site) -> Candidates:
    """Wrong output errors."""
    if site.is_output and variants is not None:
        for value, error in variants(site.here):
            yield value, site.at_activation(error)


def of_slopes(step: Step | None, variants: Variants | None, site: Site) -> Candidates:
    """Wrong derivatives."""
    mask = site.steps.mask(site.here)
    dA = site.right.dA if mask is None else site.right.dA * mask
    for value, slopes in _either(step, variants, site.here):
        yield value, site.at_logits(dA * slopes)


def of_mask(step: Step | None, variants: Variants | None, site: Site) -> Candidates:
    """Wrong dropout masks."""
    dZ = site.right.dA * site.steps.slopes(site.here)
    for value, mask in _either(step, variants, site.here):
        yield value, site.at_logits(dZ if mask is None else dZ * mask)


def of_way_back(step: Step | None, variants: Variants | None, site: Site) -> Candidates:
    """Wrong ways from dZ_{l+1} to dA_l."""
    if site.above is None:
        return
    here = site.here_above
    for value, W in variants(here) if variants is not None else ():
        yield value, site.at_activation(site.above.dZ @ W)
    if variants is None and step is not None:
        yield "", site.at_activation(step(here, site.above.dZ))


def _either(step: Step | None, variants: Variants | None, here: Here) -> Iterator[tuple[str, Any]]:
    """Yield the variants of a step, or the step alone."""
    if variants is not None:
        yield from variants(here)
    elif step is not None:
        yield "", step(here)


# The step that a line of code holds, and the errors that follow from a wrong one.
ERRORS_OF_LINE: dict[str, tuple[str, StepErrors]] = {
    "output": ("output_error", of_output),
    "slopes": ("slopes", of_slopes),
    "mask": ("mask", of_mask),
    "back": ("error_before", of_way_back),
}


# Errors with one free number.


def updated_weights(site: Site) -> Iterator[Family]:
    """dA_l through W_{l+1} − c·dW_{l+1}."""
    if site.above is None:
        return
    for dW in site.updates:
        yield _linear_before_slope(site, -site.above.dZ @ dW)


def _linear_before_slope(site: Site, direction: Floats) -> Family:
    """Return dA_l + c·direction, with the dZ_l that follows."""
    right, change = site.right, site.through(direction)
    return Family(lambda c: right.dZ + c * change, activation=lambda c: right.dA + c * direction)


def scaled_outputs(site: Site) -> Iterator[Family]:
    """c·a − y for a − y."""
    here = site.here
    if not site.is_output or here.network.loss.name not in (*FUSED_LOSSES, "squared_error"):
        return
    mean = here.network.data_scale(here.batch.size)
    outputs = _outputs_beside_targets(here)
    yield linear(-site.through(mean * here.batch.T), site.through(mean * outputs))


def scaled_targets(site: Site) -> Iterator[Family]:
    """a − c·y for a − y."""
    here = site.here
    if not site.is_output or here.network.loss.name not in (*FUSED_LOSSES, "squared_error"):
        return
    mean = here.network.data_scale(here.batch.size)
    outputs = _outputs_beside_targets(here)
    yield linear(site.through(mean * outputs), -site.through(mean * here.batch.T))


def smoothed_targets(site: Site) -> Iterator[Family]:
    """Targets that are drawn to their mean over the classes: (1 − c)·y + c/K."""
    here = site.here
    if not site.is_output or here.network.loss.name not in FUSED_LOSSES:
        return
    classes = here.batch.T.shape[1] if here.network.loss.name == FUSED_LOSSES[0] else 2
    mean = here.network.data_scale(here.batch.size)
    yield linear(site.right.dZ, site.through(mean * (here.batch.T - 1.0 / classes)))


def guarded_logarithm(site: Site) -> Iterator[Family]:
    """The gradient of −log(p + c) instead of −log p."""
    here = site.here
    if not site.is_output or here.network.loss.name not in FUSED_LOSSES:
        return
    p, y = mutations.probabilities_of(here), here.batch.T
    mean = here.network.data_scale(here.batch.size)
    starts = (1e-7, 1e-3, 1e-1)
    if here.network.loss.name == FUSED_LOSSES[1]:
        slope = mean * p * (1.0 - p)
        yield Family(
            lambda c: site.through(slope * ((1.0 - y) / (1.0 - p + c) - y / (p + c))), starts
        )
        return

    def error(c: float) -> Floats:
        shares = -y * p / (p + c)
        return site.through(mean * (shares - p * shares.sum(axis=1, keepdims=True)))

    yield Family(error, starts)


def one_sided_logarithm(site: Site) -> Iterator[Family]:
    """The gradient of −y·log(p + c) alone, where there is one output for two classes."""
    here = site.here
    if not site.is_output or here.network.loss.name != FUSED_LOSSES[1]:
        return
    p, mean = mutations.probabilities_of(here), here.network.data_scale(here.batch.size)
    error = -mean * p * (1.0 - p) * here.batch.T
    yield Family(lambda c: site.through(error / (p + c)), (1e-7, 1e-3, 1e-1))


def leaking_slope(site: Site) -> Iterator[Family]:
    """φ' of ReLU or leaky ReLU with another slope below 0."""
    here = site.here
    name = here.network.activations[here.layer - 1].name
    if name not in ("relu", "leaky_relu"):
        return
    below = np.where(here.Z > 0, 0.0, 1.0)
    mask = site.steps.mask(here)
    dA = site.right.dA if mask is None else site.right.dA * mask
    yield linear(dA * (1.0 - below), dA * below)


def added_to_slope(site: Site) -> Iterator[Family]:
    """φ' + c for φ', as against derivatives that vanish."""
    here = site.here
    if here.network.activations[here.layer - 1].name == "identity":
        return  # that is a factor
    mask = site.steps.mask(site.here)
    dA = site.right.dA if mask is None else site.right.dA * mask
    yield linear(site.right.dZ, dA)
