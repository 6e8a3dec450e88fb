"""The search for the likeliest bugs, layer by layer from the output to the input.

At each layer the error dZ_l is carried on as the bugs found so far leave it; what the layer's two
blocks then do not say is another bug. The few likeliest hypotheses are kept, since the layers
below tell which bug passed its error on and which stayed in its block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis.blocks import bias_explanations, weight_explanations, wrong_places
from fastcheck.diagnosis.bugs import BUGS
from fastcheck.diagnosis.context import (
    REPEAT_COST,
    Context,
    Delta,
    Found,
    Hypothesis,
    Sight,
    Sketch,
    total_cost,
)
from fastcheck.diagnosis.deltas import (
    Option,
    common_factor,
    fitted_deltas,
    paired_deltas,
    recovered_deltas,
    table_deltas,
)
from fastcheck.diagnosis.finished import everywhere, views
from fastcheck.types import Floats

__all__ = ["search"]

# Hypotheses kept from layer to layer: few for a first answer, more where it took several slips.
WIDTHS = (2, 8)
LEAST_VIEW_COST = 0.1  # what a gradient that is looked at in another way costs at least
COST_MARGIN = 2.1  # what a hypothesis may cost more than the likeliest
MAX_ERRORS_TRIED = 6  # errors dZ_l that are tried in full
PAIR_COST = 2.5  # a cost from which on two slips at one step are tried
MIN_EXPLAINED = 2  # components that a wrong error has to explain
MIN_FITTED = 8  # the same with a fitted number: with two classes, half of them say the same
UNNAMED_COST = 0.4  # of a factor that has no name
MAX_PAIR_RESIDUAL = 1e-3  # of a block: what two slips may leave of it in a first look
MIN_NEAR = 3  # components of dW_l that two free numbers do not fit anyway
MAX_STACK, MAX_STACKED_COMPONENTS = 256, 2_000_000  # errors that are looked at together


def search(context: Context, gradient: Floats) -> Hypothesis:
    """Return the likeliest slips in a gradient.

    Parameters
    ----------
    context : Context
    gradient : ndarray, shape (N,), float64
    """
    best = everywhere(context, gradient)
    if best is not None:
        return best
    seen, memo = list(views(context, gradient)), Memo()
    for width in WIDTHS:
        for sight in seen:
            limit = np.inf if best is None else best.cost - 1e-9
            if best is not None and context.is_exhausted:
                return _unified(best)
            if total_cost(sight.found) + LEAST_VIEW_COST >= limit:
                continue
            found = _descend(context, sight, limit, width, memo)
            if found is not None:
                best = found
    assert best is not None
    return _unified(best)


def _unified(best: Hypothesis) -> Hypothesis:
    """Prefer, of slips that explain the same of a block, one that was made elsewhere too."""
    for place, one in enumerate(best.found):
        for other in one.also:
            found = (*best.found[:place], other, *best.found[place + 1 :])
            changed = Hypothesis.of(best.sight, found)
            if changed.cost < best.cost:
                best = changed
    return best


class Memo:
    """What was found in a layer below an error, so that wider searches look for it once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[float, list[Option]]] = {}

    def options(
        self, context: Context, sight: Sight, layer: int, above: Delta | None, left: float
    ) -> list[Option]:
        """Return `_layer`, as it was found with no less left to spend."""
        key = (id(sight), layer, id(above.dZ) if above else 0)
        known = self._known.get(key)
        if known is None or known[0] < left:
            known = left, _layer(context, sight, layer, above, left)
            self._known[key] = known
        return known[1]


def _descend(
    context: Context, sight: Sight, limit: float, width: int, memo: Memo
) -> Hypothesis | None:
    """Go from the output to the input; None where nothing is likelier than `limit`."""
    states = [Hypothesis.of(sight)]
    for layer in range(context.network.depth, 0, -1):
        grown: list[Hypothesis] = []
        known: dict[int, list[tuple[Delta, tuple[Found, ...]]]] = {}
        for state in states:
            origin = id(state.delta.dZ) if state.delta else 0
            if origin not in known:  # by the cheapest of those that share it
                left = limit - state.cost - (0.0 if state.found else 1.0 - REPEAT_COST)
                known[origin] = memo.options(context, sight, layer, state.delta, left)
            grown += [state.below(found, delta) for delta, found in known[origin]]
        cheapest: dict[int, Hypothesis] = {}
        for state in sorted(grown, key=lambda s: s.cost):
            assert state.delta is not None
            cheapest.setdefault(id(state.delta.dZ), state)
        states = [s for s in cheapest.values() if s.cost < limit][:width]
        states = [s for s in states if s.cost <= states[0].cost + COST_MARGIN]
        if not states:
            return None
    return min(states, key=lambda s: s.cost)


def _layer(
    context: Context, sight: Sight, layer: int, above: Delta | None, left: float
) -> list[Option]:
    """Return what may have happened in a layer, the likeliest first.

    `left` is what it may cost; where that does not pay for another slip, none is looked for.
    """
    right = _right_delta(context, layer, above)
    places = wrong_places(context, sight, layer, right)
    if not places:
        return [(right, ())]
    if context.is_exhausted:
        return [(right, places)]
    context.searches += 1
    options = _options(context, sight, layer, right)
    kinds = {f.place for f in options[0][1]}
    has_biases = context.network.b(layer) is not None
    if left < REPEAT_COST or _layer_size(context, layer) < MIN_EXPLAINED:
        return options
    if has_biases and kinds != {"W", "b"} and _known(options[0]):
        options += _with_right_biases(context, sight, layer, above, right, left)
        return sorted(options, key=lambda o: total_cost(o[1]))
    sketch = context.sketch(sight, layer)
    decay = context.here(layer).decay
    singles = list(context.counted(table_deltas(context, layer, above, right)))
    singles += list(fitted_deltas(context, sight, layer, above, right, sketch))
    tried = _promising(context, sight, sketch, decay, layer, singles)
    for delta in tried:
        options += _options(context, sight, layer, delta)
    if min(total_cost(found) for _, found in options) > PAIR_COST and left > 1.0 + REPEAT_COST:
        paired = context.counted(paired_deltas(context, layer, above, right, singles))
        pairs = list(_near_ones(sight, sketch, paired))
        for delta in _promising(context, sight, sketch, decay, layer, pairs):
            options += _options(context, sight, layer, delta)
        options += recovered_deltas(context, sight, layer, right)
    options.sort(key=lambda o: total_cost(o[1]))
    return _with_equals(options)[:16]


def _with_right_biases(
    context: Context, sight: Sight, layer: int, above: Delta | None, right: Delta, left: float
) -> list[Option]:
    """Return what may have happened to an error whose sums over the samples are right."""
    if left < 1.0:
        return []
    total = right.dZ.sum(axis=0)
    size = 1e-12 * np.abs(right.dZ).sum(axis=0)
    same = [
        delta
        for delta in context.counted(table_deltas(context, layer, above, right))
        if np.all(np.abs(delta.dZ.sum(axis=0) - total) <= size)
    ]
    sketch, decay = context.sketch(sight, layer), context.here(layer).decay
    tried = _promising(context, sight, sketch, decay, layer, same)
    return [option for delta in tried for option in _options(context, sight, layer, delta)]


def _near_ones(sight: Sight, sketch: Sketch, deltas: Iterator[Delta]) -> Iterator[Delta]:
    """Yield the errors that are worth a closer look; where values are clipped, all are."""
    while True:
        first = next(deltas, None)
        if first is None:
            return
        size = min(MAX_STACK, max(1, MAX_STACKED_COMPONENTS // max(first.dZ.size, 1)))
        some = [first, *itertools.islice(deltas, size - 1)]
        near = _are_near(sketch, np.stack([delta.dZ for delta in some]))
        yield from (
            delta for delta, close in zip(some, near, strict=True) if close or sight.clip < np.inf
        )


def _are_near(sketch: Sketch, errors: Floats) -> NDArray[np.bool_]:
    """Whether dW_l or db_l is nearly a multiple of what errors give, but for the penalty.

    Parameters
    ----------
    sketch : Sketch
    errors : ndarray, shape (count, m, n_l), float64
    """
    count = errors.shape[0]
    data = (errors[:, :, sketch.rows].swapaxes(1, 2) @ sketch.A).reshape(count, -1)
    given, W = sketch.W_given.ravel(), sketch.W.ravel()
    limit = MAX_PAIR_RESIDUAL**2 * float(given @ given)
    if np.any(W):  # what is left beside the penalty
        given = given - (W @ given) / (W @ W) * W
        data = data - np.outer((data @ W) / (W @ W), W)
    size = np.einsum("ij,ij->i", data, data)
    share = np.divide(data @ given, size, out=np.zeros(count), where=size > 0.0)
    left = given - share[:, None] * data
    near = np.einsum("ij,ij->i", left, left) <= limit
    if given.size < MIN_NEAR:
        near[:] = False
    if sketch.u_b is None or sketch.u_b.size < 3:
        return np.asarray(near)
    totals, norm = errors.sum(axis=1), float(np.linalg.norm(sketch.u_b))
    cosines = np.abs(totals @ sketch.u_b)
    alike = cosines >= (1.0 - MAX_PAIR_RESIDUAL**2) * norm * np.linalg.norm(totals, axis=1)
    return np.asarray(near | (alike & np.isfinite(cosines)))


def _known(option: Option) -> bool:
    return all(found.slip != "unknown" and not found.located for found in option[1])


def _with_equals(options: list[Option]) -> list[Option]:
    """Name in the likeliest single slip the others that give the same."""
    delta, found = options[0]
    if len(found) != 1 or found[0].slip == "unknown":
        return options
    others = [
        o[0] for d, o in options[1:]
        if len(o) == 1 and o[0].cost <= found[0].cost + 0.3 and o[0].slip != "unknown"
        and o[0].place == found[0].place and np.allclose(d.dZ, delta.dZ, rtol=1e-7, atol=0.0)
    ]  # fmt: skip
    own = _sentence_of(found[0])
    texts = dict.fromkeys(_sentence_of(f) for f in others[:3])
    first = replace(found[0], equal=(*found[0].equal, *(text for text in texts if text != own)))
    return [(delta, (first,)), *options[1:]]


def _sentence_of(found: Found) -> str:
    layer = found.layer
    sentence = BUGS[found.slip].sentence
    return sentence.format(l=layer, k=layer - 1, n=layer + 1, value=found.value)


def _right_delta(context: Context, layer: int, above: Delta | None) -> Delta:
    if above is None:
        return context.delta(layer, context.steps.output_error(context.here(layer)))
    return context.delta(layer, context.steps.error_before(context.here(layer + 1), above.dZ))


def _options(context: Context, sight: Sight, layer: int, delta: Delta) -> list[Option]:
    """Combine what explains dW_l with what explains db_l, given an error."""
    weights = weight_explanations(context, sight, layer, delta)
    biases = bias_explanations(context, sight, layer, delta)
    if any(one.slip == "unknown" for one in weights[0]) and _is_free(biases[0]):
        # An error that nobody knows has some factor, too, in few biases.
        places = wrong_places(context, sight, layer, delta)
        biases = [tuple(one for one in places if one.place == "b")]
    options = [
        (delta, delta.found + w + b)
        for w in weights
        for b in biases
        if not delta.found or _explained_size(context, layer, w, b) >= _needed(delta.found, w)
    ]
    return sorted(options, key=lambda o: total_cost(o[1]))


def _needed(found: tuple[Found, ...], weights: tuple[Found, ...]) -> int:
    """Return how many components an error has to explain.

    They are more with a number that was fitted, and where it explains the biases alone.
    """
    fitted = _is_free(found) or any(BUGS[one.slip].families is not None for one in found)
    biases_alone = any(one.slip == "unknown" for one in weights)
    return MIN_FITTED if fitted or biases_alone else MIN_EXPLAINED


def _is_free(found: tuple[Found, ...]) -> bool:
    """Whether there is a factor without a name among some slips."""
    return any(one.extra >= UNNAMED_COST for one in found)


def _layer_size(context: Context, layer: int) -> int:
    """Return how many components a layer has."""
    blocks = (context.network.order.find(kind, layer) for kind in "Wb")
    return sum(block.size for block in blocks if block is not None)


def _explained_size(
    context: Context, layer: int, weights: tuple[Found, ...], biases: tuple[Found, ...]
) -> int:
    """Return how many components an error explains: what explains fewer is a free fit."""
    size = 0
    for kind, found in (("W", weights), ("b", biases)):
        has_block = kind == "W" or context.network.b(layer) is not None
        if has_block and all(one.slip != "unknown" and not one.located for one in found):
            size += context.right_block(layer, kind).size
    return size


def _promising(
    context: Context, sight: Sight, sketch: Sketch, decay: float, layer: int, deltas: list[Delta]
) -> list[Delta]:
    """Return the errors whose sketch looks most like the user's gradient."""
    scored: list[tuple[float, float, Delta]] = []
    for delta in deltas:
        if not np.all(np.isfinite(delta.dZ)):
            continue
        weights, biases, factor = context.sketched_fit(sight, sketch, delta.dZ, decay)
        if max(weights, biases) < 0.6:
            continue
        if not context.unit(factor):
            found = common_factor(context, layer, factor)
            if delta.found:  # the factor may be that of the block alone
                scored.append((-0.9 * (weights + biases), total_cost(delta.found), delta))
            scaled = Delta(factor * delta.dA, factor * delta.dZ, (*delta.found, found))
        else:
            scaled = delta
        scored.append((-(weights + biases), total_cost(scaled.found), scaled))
    # Rounded, so that among equally good ones the likeliest comes first.
    scored.sort(key=lambda s: (round(s[0], 2), s[1]))
    return [delta for _, _, delta in scored[:MAX_ERRORS_TRIED]]
