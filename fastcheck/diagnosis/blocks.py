"""Bugs in one block alone: what was done to dW_l or db_l while the error dZ_l was right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck.diagnosis.block_view import MAX_FIT_COMPONENTS, BlockView, Explanation
from fastcheck.diagnosis.bugs import BUGS
from fastcheck.diagnosis.context import Context, Delta, Found, Sight
from fastcheck.diagnosis.factors import (
    factor_match,
    factored_biases,
    is_evidence,
    penalised,
    penalty_match,
    repenalised,
    weights_match,
)
from fastcheck.diagnosis.fitting import (
    Overlay,
    agreeing,
    common_weight,
    fraction,
    lower_precision_of,
    overlay,
    ratio,
    sample_weights,
    usual_weights,
    weights_text,
)
from fastcheck.diagnosis.mutations import other_layers
from fastcheck.diagnosis.precision import coarse, in_precision
from fastcheck.errors import InputError
from fastcheck.types import Floats

__all__ = ["bias_explanations", "weight_explanations", "wrong_places"]

MIN_BESIDE_LOCATED = 12  # components of a block that a bug explains but for a few
# The share of rows or columns that are off beside right ones; less where the others are off too.
MAX_OFF, MAX_OFF_BESIDE = 0.5, 0.25
MAX_EXPLANATIONS = 3  # explanations of one block


def _view(context: Context, sight: Sight, layer: int, kind: str, delta: Delta) -> BlockView | None:
    """Return one block beside what an error predicts, None for no biases."""
    u, here = context.block(sight, layer, kind), context.here(layer)
    if u is None:
        return None
    if kind == "b":
        return BlockView(context, sight, layer, "b", delta, u, delta.dZ.sum(axis=0), 0.0)
    data = delta.dZ.T @ here.A_before
    return BlockView(context, sight, layer, "W", delta, u, data, here.decay * here.W)


def wrong_places(context: Context, sight: Sight, layer: int, delta: Delta) -> Explanation:
    """Return which blocks of a layer an error does not predict, without a cause."""
    views = [_view(context, sight, layer, kind, delta) for kind in "Wb"]
    return tuple(
        view.found("unknown", pattern(view))
        for view in views
        if view is not None and not view.matches(view.expected)
    )


def weight_explanations(
    context: Context, sight: Sight, layer: int, delta: Delta
) -> list[Explanation]:
    """Return what may have happened to dW_l, the likeliest first; `()` where nothing has."""
    view = _view(context, sight, layer, "W", delta)
    assert view is not None
    if view.matches(view.expected):
        return [()]
    return _ranked(
        view,
        [
            *_predicted(view),
            *_sparse(view, view.expected, ()),
            *penalised(view),
            *_scaled(view),
            *_weighted(view),
            *coarse(view),
            *_rounded_too(view),
        ],
    )


def bias_explanations(
    context: Context, sight: Sight, layer: int, delta: Delta
) -> list[Explanation]:
    """Return what may have happened to db_l, the likeliest first; `()` where nothing has."""
    view = _view(context, sight, layer, "b", delta)
    if view is None or view.matches(view.expected):
        return [()]
    return _ranked(
        view,
        [
            *_predicted(view),
            *_sparse(view, view.expected, ()),
            *factored_biases(view),
            *_scaled(view),
            *_weighted(view),
            *coarse(view),
        ],
    )


def _ranked(view: BlockView, found: list[Explanation]) -> list[Explanation]:
    """Return the likeliest, the equal ones named in the first."""
    unique: dict[Any, Explanation] = {}
    for explanation in found:
        unique.setdefault(tuple((f.slip, f.value) for f in explanation), explanation)
    ordered = sorted(unique.values(), key=lambda e: sum(f.cost for f in e))
    if ordered and len(ordered[0]) == 1:
        also = tuple(e[0] for e in ordered[1:] if len(e) == 1)
        ordered[0] = (replace(ordered[0][0], also=also),)
    return ordered[:MAX_EXPLANATIONS] or [(view.found("unknown", pattern(view)),)]


def _candidates(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    """Yield what the block would be with each slip of the table in it."""
    here, delta, biases = view.context.here(view.layer), view.delta, view.kind == "b"
    expected = view.expected
    for slip in BUGS.values():
        change = slip.bias_block if biases else slip.block
        if slip.is_planted_only:
            continue
        if change is not None:
            yield view.found(slip.name), change(expected)
            if np.any(view.penalty):  # made before the penalty was added
                yield view.found(slip.name), change(view.data) + view.penalty
        step = slip.steps.get("biases" if biases else "weights")
        if step is None or slip.products is not None:
            continue
        try:
            yield view.found(slip.name), step(here, delta.dZ) + view.penalty
        except InputError:
            continue
    yield from _from_other_blocks(view)
    yield from _shifts(view)
    if biases:
        if view.context.network.activations[view.layer - 1].name != "identity":
            yield view.found("bias_before_slope"), delta.dA.sum(axis=0)
            yield (
                view.found("bias_before_slope"),
                view.context.masked(view.layer, delta.dA).sum(axis=0),
            )
        return
    yield from _sketched_products(view)


def _sketched_products(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    """Yield dW_l made of other inputs or another error, where a few rows of it agree."""
    here = view.context.here(view.layer)
    site = view.context.site(view.layer, view.delta)
    pairs: list[tuple[Found, Floats, Floats]] = []
    for slip in BUGS.values():
        try:
            triples = [] if slip.products is None else list(slip.products(site))
        except InputError:
            continue
        pairs += [(view.found(slip.name, value), dZ, A) for value, dZ, A in triples]
    rows = np.argsort(np.abs(view.u).sum(axis=1))[-8:]
    u, penalty = view.u[rows], here.decay * here.W[rows]
    for found, dZ, A in pairs:
        data = dZ[:, rows].T @ A
        floor = 1e-9 * np.abs(data).max(initial=0.0) + 0.0
        tried = [data + penalty]
        factor = ratio(u - penalty, data, floor)
        if np.isfinite(factor):
            tried.append(factor * data + penalty)
        if max(fraction(u, t, floor, 1e-4) for t in tried) > 0.5:
            yield found, dZ.T @ A + view.penalty


def _from_other_blocks(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    """Yield the user's other blocks, and updated weights."""
    context, here = view.context, view.context.here(view.layer)
    name = "bias_copied" if view.kind == "b" else "copied"
    for layer in other_layers(here):
        values = context.block(view.sight, layer, view.kind)
        if values is not None and values.shape == view.u.shape and np.any(values):
            block = context.network.order.find(view.kind, layer)
            assert block is not None
            yield view.found(name, block.gradient_name), values
    own = here.W if view.kind == "W" else context.network.b(view.layer)
    if own is not None and np.any(own):
        label = f"{view.kind}{view.layer}"
        yield view.found(name, label), own
        lr = view.ratio(own - view.u, view.expected)
        if np.isfinite(lr) and lr != 0.0 and view.kind == "W" and view.u.size > 2:
            yield view.found("is_update", f"{label} − {lr:.4g}·d{label}"), own - lr * view.expected


def _shifts(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    expected = view.expected
    names = ("bias_shifted",) if view.kind == "b" else ("rows_shifted", "columns_shifted")
    for axis, name in enumerate(names):
        for shift in (1, -1, 2, -2):
            if expected.shape[axis] > abs(shift):
                yield (
                    view.found(name, f"{shift:+d}", 0.05 * abs(shift)),
                    np.roll(expected, shift, axis),
                )


def _predicted(view: BlockView) -> Iterator[Explanation]:
    """Hold each candidate against the block: as it is, with a factor, with few components off."""
    for found, predicted in _candidates(view):
        if view.matches(predicted):
            # What was never set is exactly zero; sums that cancel are not.
            if np.any(predicted) or not np.any(view.u):
                yield (found,)
            continue
        if BUGS[found.slip].is_exact or not np.any(predicted):
            continue
        share = view.share(predicted)
        if share < 0.5:
            is_product = BUGS[found.slip].products is not None
            data = predicted - view.penalty if is_product else predicted
            rest = view.penalty if is_product else 0.0
            factor = view.ratio(view.u - rest, data)
            if is_evidence(view, factor, alone=False):
                yield from _held(view, factor * data + rest, (found, factor_match(view, factor)))
                if is_product and np.any(view.penalty):
                    yield from repenalised(view, data, found)
        elif share < 1.0:
            yield from _sparse(view, predicted, (found,))


def _held(view: BlockView, predicted: Floats, found: Explanation) -> Iterator[Explanation]:
    """Yield slips that explain a block, alone or with few components off."""
    if view.matches(predicted):
        yield found
    elif view.share(predicted) >= 0.5:
        yield from _sparse(view, predicted, found)


def _scaled(view: BlockView) -> Iterator[Explanation]:
    """Try factors on the whole, the data or the penalty, with few components off."""
    data, penalty = view.data, view.penalty
    whole = view.ratio(view.u, view.expected)
    if is_evidence(view, whole):
        yield from _held(view, whole * view.expected, (factor_match(view, whole),))
    if view.kind == "b" or not np.any(penalty):
        return
    part = view.ratio(view.u - penalty, data)
    if is_evidence(view, part):
        yield from _held(view, part * data + penalty, (factor_match(view, part, "data"),))
    for beta in view.context.penalty_factors()[1:]:
        yield from _held(view, data + beta * penalty, (penalty_match(view, beta),))


def _rounded_too(view: BlockView) -> Iterator[Explanation]:
    """Try everything else on a block that was rounded to a lower precision."""
    coarser = lower_precision_of(view.u, view.sight.precision)
    if coarser is None:
        return
    name = "rounded_float16" if coarser == "float16" else "rounded"
    rounded = view.found(name, "" if name != "rounded" else coarser)
    wider = in_precision(view, coarser)
    for other in (*_predicted(wider), *_scaled(wider), *penalised(wider)):
        yield (*other, rounded)


def _sparse(view: BlockView, predicted: Floats, before: Explanation) -> Iterator[Explanation]:
    """Explain what few rows, columns or entries differ in."""
    if view.u.size == 1:  # it is no place among others
        return
    if before and view.u.size < MIN_BESIDE_LOCATED:
        return
    shown = view.sight.clipped(predicted)
    most = MAX_OFF_BESIDE if before else MAX_OFF
    found = overlay(view.u, shown, view.floor(predicted), view.sight.rtol, most=most)
    if found is None:
        return
    fine = agreeing(view.u, shown, view.floor(predicted), view.sight.rtol)
    view.context.note(view.layer, view.kind, view.u[fine], shown[fine])
    name = "bias_entries" if view.kind == "b" else found.kind
    factor = (
        view.context.name_factor(found.factor, view.layer) if np.isfinite(found.factor) else None
    )
    one = len(found.places) == 1
    # One entry always has a factor.
    if factor is not None and not factor.named and one and found.kind == "entries":
        factor = None
    extra = 0.4 if factor is None else (0.0 if factor.named else 0.2)
    extra += 0.03 * (len(found.places) - 1)
    text = f"{_places(found, view)} {'is' if one else 'are'} wrong"
    if factor is not None:
        says = f"{factor.text} times what {'it' if one else 'they'} should be"
        says = {0.0: "zero", -1.0: "of the wrong sign"}.get(found.factor, says)
        text += f": {'it is' if one else 'they are'} {says}"
    elif one and found.kind == "entries":
        place = found.places[0]
        text += f": {view.u[place]:.6g} instead of {shown[place]:.6g}"
    yield (*before, view.found(name, text, extra, located=factor is None or not factor.named))


def _places(found: Overlay, view: BlockView) -> str:
    """`row 3 of dW2`, `columns 1, 5 of dW2` or `dW2[2, 7]`, in the user's order."""
    block = f"d{view.kind}{view.layer}"
    order = view.context.network.order
    turned = view.kind == "W" and order.weights(view.layer).transposed
    kind = found.kind
    if turned:
        kind = {"rows": "columns", "columns": "rows"}.get(kind, kind)
    places = [p[::-1] if turned else p for p in found.places]
    more = f" and {len(places) - 6} more" if len(places) > 6 else ""
    if kind == "entries":
        return ", ".join(f"{block}{list(p)}" for p in places[:6]) + more
    word = kind if len(places) > 1 else kind.removesuffix("s")
    return f"{word} {', '.join(str(p[0]) for p in places[:6])}{more} of {block}"


def _weighted(view: BlockView) -> Iterator[Explanation]:
    """Weigh the samples."""
    here = view.context.here(view.layer)
    A = here.A_before if view.kind == "W" else None
    weights = sample_weights(view.u - view.penalty, view.delta.dZ, A, view.context.generator)
    if weights is None:
        yield from _usual_samples(view, A)
        return
    if np.ptp(weights) < 1e-6:
        return
    dZ = weights[:, None] * view.delta.dZ
    predicted = (dZ.sum(axis=0) if A is None else dZ.T @ A) + view.penalty
    if not view.matches(predicted):
        return
    factor = common_weight(weights)
    found = weights_match(weights / factor, view.layer, view.kind)
    if found.slip == "unknown":
        return
    part = "b" if view.kind == "b" else "data"
    yield (found,) if view.context.unit(factor) else (found, factor_match(view, factor, part))


def _usual_samples(view: BlockView, A: Floats | None) -> Iterator[Explanation]:
    """Try the weights that samples usually have by mistake, where a block is too small to solve."""
    if view.u.size < 3 or view.u.size > MAX_FIT_COMPONENTS:
        return
    for weights in usual_weights(view.context.batch.size):
        dZ = weights[:, None] * view.delta.dZ
        predicted = (dZ.sum(axis=0) if A is None else dZ.T @ A) + view.penalty
        if view.matches(predicted):
            yield (view.found("sample_left_out", weights_text(weights)[0], 0.05),)


def pattern(view: BlockView) -> str:
    """Say which components of a block are wrong."""
    bad = ~agreeing(view.u, view.expected, view.floor(view.expected), view.sight.rtol)
    count = int(np.count_nonzero(bad))
    name = f"d{view.kind}{view.layer}"
    if bad.size == 1:
        return f"{name} is wrong"
    if bad.ndim == 1:
        return f"{count} of {bad.size} entries of {name} are wrong"
    rows, columns = int(bad.any(axis=1).sum()), int(bad.any(axis=0).sum())
    return (
        f"{count} of {bad.size} components of {name} are wrong, in {rows} of {bad.shape[0]} rows "
        f"and {columns} of {bad.shape[1]} columns"
    )
