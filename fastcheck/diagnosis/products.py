"""What may stand where dZ_lᵀ A_{l-1} belongs in dW_l: other inputs, other errors, other orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fastcheck.diagnosis import mutations
from fastcheck.diagnosis.layer_errors import Site, sample_orders
from fastcheck.types import Floats

__all__ = ["Products"]

Triples = Iterable[tuple[str, Floats, Floats]]
Products = Callable[[Site], Triples]

# Shifts of the samples that are tried.
MAX_SHIFT = 64


def with_logits(site: Site) -> Triples:
    """Z_{l-1} in place of A_{l-1}."""
    for text, A in mutations.logits_of(site.here):
        yield text, site.right.dZ, A


def with_other_inputs(site: Site) -> Triples:
    """Other arrays of the forward pass in place of A_{l-1}."""
    for text, A in mutations.other_inputs(site.here):
        yield text, site.right.dZ, A


def before_slope(site: Site) -> Triples:
    """dA_l in place of dZ_l, with the dropout mask and without."""
    yield "", site.right.dA, site.here.A_before
    mask = site.steps.mask(site.here)
    if mask is not None:
        yield "", site.right.dA * mask, site.here.A_before


def with_other_errors(site: Site) -> Triples:
    """dZ or dA of another layer in place of dZ_l, where it has the same shape."""
    for layer in mutations.other_layers(site.here):
        error = site.elsewhere[layer]
        if error.dZ.shape != site.here.Z.shape:
            continue
        yield f"dZ{layer}", error.dZ, site.here.A_before
        if not np.array_equal(error.dA, error.dZ):
            yield f"dA{layer}", error.dA, site.here.A_before


def with_samples_in_another_order(site: Site) -> Triples:
    """The samples of A_{l-1} shifted or reversed against those of dZ_l."""
    for text, order in sample_orders(site.here.batch.size, MAX_SHIFT):
        yield text, site.right.dZ, site.here.A_before[order]
