"""The search for the likeliest bugs, layer by layer from the output to the input.

At each layer the error dZ_l is carried on as the bugs found so far leave it; what the layer's two
blocks then do not say is another bug. The few likeliest hypotheses are kept, since the layers
below tell which bug passed its error on and which stayed in its block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
    seen = list(views(context, gradient))
    for width in WIDTHS:
        for sight in seen:
            limit = np.inf if best is None else best.cost - 1e-9
            if best is not None and context.is_exhausted:
                return best
            if total_cost(sight.found) + LEAST_VIEW_COST >= limit:
                continue
            found = _descend(context, sight, limit, width)
            if found is not None:
                best = found
    assert best is not None
    return best


def _descend(context: Context, sight: Sight, limit: float, width: int) -> Hypothesis | None:
    """Go from the output to the input; None where nothing is likelier than `limit`."""
    states = [Hypothesis.of(sight)]
    for layer in range(context.network.depth, 0, -1):
        grown: list[Hypothesis] = []
        known: dict[int, list[tuple[Delta, tuple[Found, ...]]]] = {}
        for state in states:
            origin = id(state.delta.dZ) if state.delta else 0
            if origin not in known:  # by the cheapest of those that share it
                left = limit - state.cost - (0.0 if state.found else 1.0 - REPEAT_COST)
                known[origin] = _layer(context, sight, layer, state.delta, left)
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
    if (has_biases and kinds != {"W", "b"} and _known(options[0])) or left < REPEAT_COST:
        return options
    if _layer_size(context, layer) < MIN_EXPLAINED:
        return options
    sketch = context.sketch(sight, layer)
    decay = context.here(layer).decay
    singles = list(context.counted(table_deltas(context, layer, above, right)))
    singles += list(fitted_deltas(context, sight, layer, above, right, sketch))
    tried = _promising(context, sight, sketch, decay, layer, singles)
    for delta in tried:
        options += _options(context, sight, layer, delta)
    if min(total_cost(found) for _, found in options) > PAIR_COST and left > 1.0 + REPEAT_COST:
        pairs = [
            delta
            for delta in context.counted(paired_deltas(context, layer, above, right, singles))
            if sight.clip < np.inf or _is_near(sketch, delta.dZ)
        ]
        for delta in _promising(context, sight, sketch, decay, layer, pairs):
            options += _options(context, sight, layer, delta)
        options += recovered_deltas(context, sight, layer, right)
    options.sort(key=lambda o: total_cost(o[1]))
    return _with_equals(options)[:16]


def _is_near(sketch: Sketch, dZ: Floats) -> bool:
    """Whether dW_l or db_l is nearly a multiple of what an error gives, but for the penalty."""
    data = (dZ[:, sketch.rows].T @ sketch.A).ravel()
    M = np.stack([data, sketch.W.ravel()], axis=1)
    given = sketch.W_given.ravel()
    gram = M.T @ M
    gram[np.diag_indices(2)] *= 1.0 + 1e-12
    if not np.all(np.isfinite(gram)) or not gram[0, 0] > 0.0 or not gram[1, 1] > 0.0:
        return False
    left = given - M @ np.linalg.solve(gram, M.T @ given)
    if float(left @ left) <= MAX_PAIR_RESIDUAL**2 * float(given @ given):
        return True
    if sketch.u_b is None or sketch.u_b.size < 3:
        return False
    total, size = dZ.sum(axis=0), float(np.linalg.norm(sketch.u_b))
    cosine = abs(float(total @ sketch.u_b))
    return cosine >= (1.0 - MAX_PAIR_RESIDUAL**2) * size * float(np.linalg.norm(total))


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
    options = [
        (delta, delta.found + w + b)
        for w in weights
        for b in biases
        if not delta.found or _explained_size(context, layer, w, b) >= _needed(delta.found)
    ]
    return sorted(options, key=lambda o: total_cost(o[1]))


def _needed(found: tuple[Found, ...]) -> int:
    """Return how many components an error has to explain: more with a number that was fitted."""
    fitted = any(BUGS[one.slip].families is not None or one.extra >= UNNAMED_COST for one in found)
    return MIN_FITTED if fitted else MIN_EXPLAINED


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
