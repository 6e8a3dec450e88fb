"""Peel slips off a gradient, layer by layer from the output to the input.

At each layer the error dZ_l is carried on as the slips found so far leave it; what the layer's two
blocks then do not say is another slip. The few likeliest hypotheses are kept, since the layers
below tell which slip passed its error on and which stayed in its block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis.fitting import (
    lower_precision_of,
    ratio,
    sample_weights,
    usual_weights,
    weights_text,
)
from fastcheck.diagnosis.local_slips import bias_explanations, weight_explanations
from fastcheck.diagnosis.reenact import Delta, Found, Scene, Sight, Sketch, total_cost
from fastcheck.diagnosis.slips import SLIPS
from fastcheck.door import UNIT_ROUNDOFF
from fastcheck.errors import InputError

__all__ = ["Hypothesis", "peel"]

Floats = NDArray[np.float64]

# Hypotheses kept from layer to layer: few for a first answer, more where it took several slips.
WIDTHS = (2, 8)
LEAST = 0.1  # what a gradient that is looked at in another way costs at least
MARGIN = 2.1  # what a hypothesis may cost more than the likeliest
TRIED = 6  # errors dZ_l that are tried in full
ENOUGH = 2.5  # a cost from which on two slips at one step are tried


@dataclass(frozen=True)
class Hypothesis:
    """What was found down to a layer, and the error that it leaves."""

    sight: Sight
    found: tuple[Found, ...]
    delta: Delta | None = None

    @property
    def cost(self) -> float:
        """How unlikely it is."""
        return total_cost(self.sight.found + self.found)


def peel(scene: Scene, gradient: Floats) -> Hypothesis:
    """Return the likeliest slips in a gradient.

    Parameters
    ----------
    scene : Scene
    gradient : ndarray, shape (N,), float64
    """
    best: Hypothesis | None = None
    sights = list(_sights(scene, gradient))
    for width in WIDTHS:
        for sight in sights:
            limit = np.inf if best is None else best.cost - 1e-9
            if total_cost(sight.found) + LEAST >= limit:
                continue
            found = _descend(scene, sight, limit, width)
            if found is not None:
                best = found
    assert best is not None
    return best


def _descend(scene: Scene, sight: Sight, limit: float, width: int) -> Hypothesis | None:
    """Go from the output to the input; None where nothing is likelier than `limit`."""
    states = [Hypothesis(sight, ())]
    for layer in range(scene.network.depth, 0, -1):
        grown: list[Hypothesis] = []
        known: dict[int, list[tuple[Delta, tuple[Found, ...]]]] = {}
        for state in states:
            origin = id(state.delta.dZ) if state.delta else 0
            if origin not in known:
                known[origin] = _layer(scene, sight, layer, state.delta)
            grown += [
                Hypothesis(sight, state.found + found, delta) for delta, found in known[origin]
            ]
        cheapest: dict[int, Hypothesis] = {}
        for state in sorted(grown, key=lambda s: s.cost):
            assert state.delta is not None
            cheapest.setdefault(id(state.delta.dZ), state)
        states = [s for s in cheapest.values() if s.cost < limit][:width]
        states = [s for s in states if s.cost <= states[0].cost + MARGIN]
        if not states:
            return None
    return min(states, key=lambda s: s.cost)


def _sights(scene: Scene, gradient: Floats) -> Iterator[Sight]:
    """Yield the gradient as it is, and with each slip of the finished whole undone."""
    plain = Sight(gradient, scene.rtol)
    yield from _marked(scene, plain)
    yield plain
    if scene.network.l2:
        for factor in _common_factors(scene, gradient):
            named = scene.name_factor(factor, scene.network.depth)
            found = Found("everything_factor", 0, "whole", named.text, 0.0 if named.named else 0.2)
            yield replace(plain, vector=gradient / factor, found=(found,))
    yield from _swaps(scene, plain)


def _marked(scene: Scene, plain: Sight) -> Iterator[Sight]:
    """Yield the gradient as clipped or as rounded, where its values bear the mark of it."""
    gradient, right = plain.vector, scene.right
    limit = float(np.abs(gradient).max(initial=0.0))
    at_limit = int(np.count_nonzero(np.abs(gradient) == limit))
    if at_limit >= 2 and np.any(np.abs(right) > limit * (1.0 + 1e-6)) and limit > 0.0:
        found = Found("clipped", 0, "whole", f"{limit:.4g}", 0.05)
        yield replace(plain, clip=limit, found=(found,))
    coarser = lower_precision_of(gradient, scene.precision)
    if coarser is not None and not scene.agrees(plain, gradient, right, 1e-13 * limit):
        name, value = ("rounded_float16", "") if coarser == "float16" else ("rounded", coarser)
        found = Found(name, 0, "whole", value, 0.3)
        yield replace(plain, rtol=1.2 * UNIT_ROUNDOFF[coarser], found=(found,), coarse=True)


def _common_factors(scene: Scene, gradient: Floats) -> list[float]:
    """Return the factors from the right gradient to the user's that several blocks share."""
    factors: list[list[float]] = []
    for block in scene.network.order.blocks:
        one = ratio(gradient[block.slice], scene.right[block.slice], 0.0)
        if not np.isfinite(one) or one == 0.0 or scene.unit(one):
            continue
        group = next((g for g in factors if abs(g[0] - one) <= 1e-6 * abs(one)), None)
        if group is None:
            factors.append([one])
        else:
            group.append(one)
    factors.sort(key=len, reverse=True)
    return [group[0] for group in factors[:2] if len(group) > 1]


def _swaps(scene: Scene, plain: Sight) -> Iterator[Sight]:
    """Yield the gradient with two wrong blocks of one shape changed back."""
    order, count = scene.network.order, 0
    blocks = [b for b in order.blocks if _wrong(scene, plain, b.slice)]
    for first in range(len(blocks)):
        for second in range(first + 1, len(blocks)):
            a, b = blocks[first], blocks[second]
            if a.shape != b.shape or count == 6:
                continue
            if np.array_equal(plain.vector[a.slice], plain.vector[b.slice]):
                continue
            count += 1
            vector = plain.vector.copy()
            vector[a.slice], vector[b.slice] = plain.vector[b.slice], plain.vector[a.slice]
            text = f"{a.gradient_name} and {b.gradient_name}"
            yield replace(plain, vector=vector, found=(Found("swapped", 0, "whole", text),))


def _wrong(scene: Scene, sight: Sight, part: slice) -> bool:
    u, p = sight.vector[part], scene.right[part]
    return float(np.linalg.norm(u - p)) > 1e-6 * float(np.linalg.norm(u) + np.linalg.norm(p))


Option = tuple[Delta, tuple[Found, ...]]


def _layer(scene: Scene, sight: Sight, layer: int, above: Delta | None) -> list[Option]:
    """Return what may have happened in a layer, the likeliest first."""
    right = _right_delta(scene, layer, above)
    options = _options(scene, sight, layer, right)
    if not options[0][1]:
        return [(right, ())]
    kinds = {f.place for f in options[0][1]}
    has_biases = scene.network.b(layer) is not None
    if has_biases and kinds != {"W", "b"}:
        return options
    sketch = scene.sketch(sight, layer)
    decay = scene.here(layer).decay
    singles = list(_deltas(scene, layer, above, right))
    singles += list(_fitted_deltas(scene, sight, layer, above, right, sketch))
    tried = _promising(scene, sight, sketch, decay, layer, singles)
    for delta in tried:
        options += _options(scene, sight, layer, delta)
    if min(total_cost(found) for _, found in options) > ENOUGH:
        pairs = list(_pairs(scene, layer, above, right, sketch, singles))
        for delta in _promising(scene, sight, sketch, decay, layer, pairs):
            options += _options(scene, sight, layer, delta)
        options += _recovered(scene, sight, layer, right)
    options.sort(key=lambda o: total_cost(o[1]))
    return _with_equals(options)[:16]


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
    sentence = SLIPS[found.slip].sentence
    return sentence.format(l=layer, k=layer - 1, n=layer + 1, value=found.value)


def _right_delta(scene: Scene, layer: int, above: Delta | None) -> Delta:
    if above is None:
        return scene.delta(layer, scene.steps.output_error(scene.here(layer)))
    return scene.delta(layer, scene.steps.error_before(scene.here(layer + 1), above.dZ))


def _options(scene: Scene, sight: Sight, layer: int, delta: Delta) -> list[Option]:
    """Combine what explains dW_l with what explains db_l, given an error."""
    weights = weight_explanations(scene, sight, layer, delta)
    biases = bias_explanations(scene, sight, layer, delta)
    options = [(delta, delta.found + w + b) for w in weights for b in biases]
    return sorted(options, key=lambda o: total_cost(o[1]))


def _promising(
    scene: Scene, sight: Sight, sketch: Sketch, decay: float, layer: int, deltas: list[Delta]
) -> list[Delta]:
    """Return the errors whose sketch looks most like the user's gradient."""
    scored: list[tuple[float, float, Delta]] = []
    for delta in deltas:
        if not np.all(np.isfinite(delta.dZ)):
            continue
        weights, biases, factor = scene.sketched_fit(sight, sketch, delta.dZ, decay)
        if max(weights, biases) < 0.6:
            continue
        if not scene.unit(factor):
            named = scene.name_factor(factor, layer)
            extra = 0.0 if named.named else 0.4
            name, place = _factor_slip(scene, layer, named.text), "delta"
            found = Found(name[0], layer, place, name[1], extra, named.others)
            if delta.found:  # the factor may be that of the block alone
                scored.append((-0.9 * (weights + biases), total_cost(delta.found), delta))
            scaled = Delta(factor * delta.dA, factor * delta.dZ, (*delta.found, found))
        else:
            scaled = delta
        scored.append((-(weights + biases), total_cost(scaled.found), scaled))
    # Rounded, so that among equally good ones the likeliest comes first.
    scored.sort(key=lambda s: (round(s[0], 2), s[1]))
    return [delta for _, _, delta in scored[:TRIED]]


def _factor_slip(scene: Scene, layer: int, text: str) -> tuple[str, str]:
    """Return the slip that a factor on dZ_l is, and its value."""
    if layer < scene.network.depth:
        return "error_factor", text
    named = {"−1": "sign"}
    if text.startswith("m ="):
        named[text] = "sum_for_mean" if scene.network.reduction != "sum" else "output_factor"
    if text.startswith("1/m ="):
        named[text] = "divided_twice" if scene.network.reduction != "sum" else "output_factor"
    name = named.get(text, "output_factor")
    return name, text if name == "output_factor" else ""


def _try(scene: Scene, layer: int, name: str, values: Iterator[Delta]) -> Iterator[Delta]:
    """Yield what can be made here; the user's own functions have no derivative in the table."""
    try:
        yield from values
    except InputError:
        return


def _deltas(scene: Scene, layer: int, above: Delta | None, right: Delta) -> Iterator[Delta]:
    """Yield the error with each slip of the table in it."""
    for name in SLIPS:
        yield from _try(scene, layer, name, _slipped(scene, layer, above, right, name))
    yield Delta(right.dA, right.dZ)  # which takes a factor


def _slipped(
    scene: Scene, layer: int, above: Delta | None, right: Delta, name: str
) -> Iterator[Delta]:
    """Yield the errors that one slip of the table may give."""
    slip, here = SLIPS[name], scene.here(layer)
    if (
        slip.line == "output"
        and above is None
        and name not in ("sum_for_mean", "divided_twice", "sign")
    ):
        if slip.variants is None:
            if name == "sample_left_out":
                yield from _patterned_samples(scene, layer, right)
            return
        for value, error in slip.variants(here):
            yield scene.delta(layer, error, (Found(name, layer, "delta", value),))
    elif slip.line == "slopes":
        mask = scene.steps.mask(here)
        variants = [] if slip.variants is None else list(slip.variants(here))
        if "slopes" in slip.steps and slip.variants is None:
            variants.append(("", slip.steps["slopes"](here)))
        for value, slopes in variants:
            dZ = right.dA * slopes
            yield Delta(
                right.dA, dZ if mask is None else dZ * mask, (Found(name, layer, "delta", value),)
            )
    elif slip.line == "mask":
        yield from _masked(scene, layer, right, name)
    elif slip.line == "back" and above is not None:
        yield from _passed_back(scene, layer, above, name)


def _masked(scene: Scene, layer: int, right: Delta, name: str) -> Iterator[Delta]:
    slip, here = SLIPS[name], scene.here(layer)
    dZ = right.dA * scene.steps.slopes(here)
    masks = [] if slip.variants is None else list(slip.variants(here))
    if "mask" in slip.steps:
        masks.append(("", slip.steps["mask"](here)))
    right_mask = scene.steps.mask(here)
    for value, mask in masks:
        if (mask is None) == (right_mask is None) and (
            mask is None or (right_mask is not None and np.array_equal(mask, right_mask))
        ):
            continue
        yield Delta(
            right.dA, dZ if mask is None else dZ * mask, (Found(name, layer, "delta", value),)
        )


def _passed_back(scene: Scene, layer: int, above: Delta, name: str) -> Iterator[Delta]:
    slip, before = SLIPS[name], scene.here(layer + 1)
    found = (Found(name, layer, "delta"),)
    if name == "error_before_slope":
        if not np.array_equal(above.dA, above.dZ):
            yield scene.delta(layer, above.dA @ before.W, found)
            yield scene.delta(layer, scene.masked(layer + 1, above.dA) @ before.W, found)
    elif name == "weights_of_other" and slip.variants is not None:
        for value, W in slip.variants(before):
            yield scene.delta(layer, above.dZ @ W, (Found(name, layer, "delta", value),))
    elif name != "weights_updated" and "error_before" in slip.steps:
        square = before.W.shape[0] == before.W.shape[1]
        if square or name != "weights_not_transposed":
            yield scene.delta(layer, slip.steps["error_before"](before, above.dZ), found)


def _fitted_deltas(
    scene: Scene, sight: Sight, layer: int, above: Delta | None, right: Delta, sketch: Sketch
) -> Iterator[Delta]:
    """Yield errors with something fitted: a learning rate, or the samples' weights."""
    yield from _weighted(scene, sight, layer, right)
    if above is None:
        return
    block = scene.network.order.weights(layer + 1)
    user = sight.vector[block.slice].reshape(block.shape)
    own = scene.here(layer + 1)
    for dW in (user, above.dZ.T @ own.A_before + own.decay * own.W):
        yield from _updated(scene, layer, right, sketch, above.dZ @ dW)


def _updated(
    scene: Scene, layer: int, right: Delta, sketch: Sketch, change: Floats
) -> Iterator[Delta]:
    moved = scene.delta(layer, change)
    decay = scene.here(layer).decay
    residual = right.dZ[:, sketch.rows].T @ sketch.A + decay * sketch.W - sketch.W_given
    lr = ratio(residual, moved.dZ[:, sketch.rows].T @ sketch.A, sketch.W_floor)
    if not np.isfinite(lr) or lr == 0.0:
        return
    found = Found("weights_updated", layer, "delta", f"{lr:.4g}")
    yield Delta(right.dA - lr * change, right.dZ - lr * moved.dZ, (found,))


def _weighted(scene: Scene, sight: Sight, layer: int, right: Delta) -> Iterator[Delta]:
    here = scene.here(layer)
    u = scene.block(sight, layer, "W")
    assert u is not None
    for beta in scene.penalty_factors():
        data = u - beta * here.decay * here.W
        weights = sample_weights(data, right.dZ, here.A_before, scene.generator)
        if weights is None:
            return
        if np.ptp(weights) < 1e-6 or np.any(np.abs(weights) > 1e6):
            continue
        text, usual = weights_text(weights)
        found = Found("sample_left_out", layer, "delta", text, 0.0 if usual else 0.6)
        yield Delta(weights[:, None] * right.dA, weights[:, None] * right.dZ, (found,))


def _patterned_samples(scene: Scene, layer: int, right: Delta) -> Iterator[Delta]:
    """Yield the errors with the usual ones of the samples left out."""
    for weights in usual_weights(scene.batch.size):
        text, _ = weights_text(weights)
        found = Found("sample_left_out", layer, "delta", text, 0.05)
        yield Delta(weights[:, None] * right.dA, weights[:, None] * right.dZ, (found,))


def _pairs(
    scene: Scene,
    layer: int,
    above: Delta | None,
    right: Delta,
    sketch: Sketch,
    singles: list[Delta],
) -> Iterator[Delta]:
    """Yield errors with two slips of this step: one in what comes in, one in what is made of it."""
    incoming = [
        d for d in singles if d.found and SLIPS[d.found[0].slip].line in ("output", "back")
        and d.found[0].slip != "sample_left_out"
    ]  # fmt: skip
    if above is None:
        incoming += [d for d in singles if d.found and d.found[0].slip == "sample_left_out"][:8]
    here = scene.here(layer)
    for first in incoming[:24]:
        for name, slip in SLIPS.items():
            if slip.line not in ("slopes", "mask") or name == "error_factor":
                continue
            for second in _try(scene, layer, name, _slipped(scene, layer, above, first, name)):
                if here.Z.size > 200_000 and slip.variants is not None:
                    continue
                yield replace(second, found=first.found + second.found)


def _recovered(scene: Scene, sight: Sight, layer: int, right: Delta) -> list[Option]:
    """Solve dW_l and db_l for dZ_l where that is possible, to judge the layers below."""
    here = scene.here(layer)
    m, inputs = here.A_before.shape
    W_given, u_b = scene.block(sight, layer, "W"), scene.block(sight, layer, "b")
    assert W_given is not None
    if m > inputs + (u_b is not None) or m > 1024:
        return []
    A, u = here.A_before, W_given - here.decay * here.W
    if u_b is not None:
        A, u = np.hstack([A, np.ones((m, 1))]), np.hstack([u, u_b[:, None]])
    solution, _, rank, spectrum = np.linalg.lstsq(A.T, u.T, rcond=None)
    solved = np.asarray(solution, dtype=np.float64)
    if rank < m or spectrum[-1] < 1e-9 * spectrum[0]:
        return []
    misfit = np.linalg.norm(solved.T @ A - u)
    if m < A.shape[1] and misfit > 1e-6 * np.linalg.norm(u):
        return []
    slopes = scene.steps.slopes(here)
    size = np.abs(right.dZ).max(initial=0.0)
    alive = np.abs(right.dZ) > 1e-6 * size
    shares = np.divide(solved, right.dZ, out=np.ones_like(solved), where=alive)[alive]
    dA = np.divide(solved, slopes, out=np.zeros_like(solved), where=slopes != 0)
    values = np.unique(np.round(shares, 4))
    if values.size == 2 and values[0] == 0.0 and m < A.shape[1]:
        value = f"keep_prob = {1 / values[1]:.3g}" if values[1] > 1 else ""
        return [(Delta(dA, solved), (Found("mask_still_applied", layer, "delta", value),))]
    text = f"the error dZ{layer} itself is wrong, in a way that dW{layer} and db{layer} share"
    return [(Delta(dA, solved), (Found("unknown", layer, "delta", text),))]
