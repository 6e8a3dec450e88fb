"""Slips in one block alone: what was done to dW_l or db_l while the error dZ_l was right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis.fitting import (
    Overlay,
    agreeing,
    fraction,
    lower_precision_of,
    overlay,
    ratio,
    sample_weights,
    usual_weights,
    weights_text,
)
from fastcheck.diagnosis.reenact import MOST_LARGER, Delta, Found, Scene, Sight
from fastcheck.diagnosis.slips import SLIPS
from fastcheck.door import UNIT_ROUNDOFF
from fastcheck.errors import InputError
from fastcheck.rounding import rounding

__all__ = ["LOCATED", "bias_explanations", "weight_explanations"]

Floats = NDArray[np.float64]
Explanation = tuple[Found, ...]

LOWER = {"float32": 3e-6, "float16": 2e-2}
LOCATED = "wrong"  # of entries that share no factor: where they are is known, not what they are
KEPT = 3  # explanations of one block
ENOUGH = 20_000  # components that a regression is made on
TRIED_FIRST = 3_000


@dataclass(frozen=True)
class BlockView:
    """One block, what is expected in it, and from where."""

    scene: Scene
    sight: Sight
    layer: int
    kind: str
    delta: Delta
    u: Floats
    data: Floats
    penalty: Floats | float

    @cached_property
    def expected(self) -> Floats:
        """The finished block."""
        return self.data + self.penalty

    def floor(self, predicted: Floats) -> Floats | float:
        """What rounding explains."""
        return self.scene.floor(self.layer, self.kind, predicted, float(np.linalg.norm(self.u)))

    @cached_property
    def places(self) -> tuple[Any, ...]:
        """Where a candidate is tried first: everywhere, or at some components of a large block."""
        if self.u.size <= ENOUGH:
            return (...,)
        generator = self.scene.generator
        rows = np.argsort(np.abs(self.u).sum(axis=tuple(range(1, self.u.ndim))))
        some = [generator.choice(rows[rows.size // 4 :], TRIED_FIRST)]
        some += [generator.integers(0, n, TRIED_FIRST) for n in self.u.shape[1:]]
        return tuple(some)

    @cached_property
    def _floor(self) -> Floats:
        """The floor there, for what is as large as the right block."""
        floor = np.broadcast_to(np.asarray(self.scene.floor(self.layer, self.kind)), self.u.shape)
        return np.asarray(floor[self.places])

    @cached_property
    def _size(self) -> float:
        """The norm of the right block there."""
        return float(np.linalg.norm(self.scene.right_block(self.layer, self.kind)[self.places]))

    def _floor_of(self, predicted: Floats) -> Floats:
        most = MOST_LARGER * float(np.linalg.norm(self.u[self.places]))
        here = min(float(np.linalg.norm(predicted)), most)
        if not self._size:
            return self._floor + 1e-9 * here
        return self._floor * max(1.0, here / self._size)

    def share(self, predicted: Floats) -> float:
        """The share of the components that agree, of those that are tried first."""
        shown = self.sight.clipped(predicted[self.places])
        return fraction(self.u[self.places], shown, self._floor_of(shown), self.sight.rtol)

    def ratio(self, u: Floats, predicted: Floats) -> float:
        """The factor that most of them share."""
        p = predicted[self.places]
        return ratio(u[self.places], p, self._floor_of(p))

    def matches(self, predicted: Floats) -> bool:
        """Whether all agree."""
        if self.u.size > ENOUGH:
            shown = self.sight.clipped(predicted[self.places])
            floor = 3.0 * self._floor_of(shown)
            if not np.all(agreeing(self.u[self.places], shown, floor, 3.0 * self.sight.rtol)):
                return False
        right = self.scene.agrees(self.sight, self.u, predicted, self.floor(predicted))
        if right:
            self.scene.note(self.layer, self.kind, self.u, self.sight.clipped(predicted))
        return right

    def found(
        self, slip: str, value: str = "", extra: float = 0.0, equal: tuple[str, ...] = ()
    ) -> Found:
        """Return a slip in this block."""
        return Found(slip, self.layer, self.kind, value, extra, equal)


def weight_explanations(scene: Scene, sight: Sight, layer: int, delta: Delta) -> list[Explanation]:
    """Return what may have happened to dW_l, the likeliest first; `()` where nothing has."""
    here = scene.here(layer)
    u = scene.block(sight, layer, "W")
    assert u is not None
    data, penalty = delta.dZ.T @ here.A_before, here.decay * here.W
    view = BlockView(scene, sight, layer, "W", delta, u, data, penalty)
    if view.matches(view.expected):
        return [()]
    return _ranked(
        view,
        [
            *_predicted(view),
            *_sparse(view, view.expected, ()),
            *_penalised(view),
            *_scaled(view),
            *_weighted(view),
            *_coarse(view),
            *_rounded_too(view),
        ],
    )


def bias_explanations(scene: Scene, sight: Sight, layer: int, delta: Delta) -> list[Explanation]:
    """Return what may have happened to db_l, the likeliest first; `()` where nothing has."""
    u = scene.block(sight, layer, "b")
    if u is None:
        return [()]
    view = BlockView(scene, sight, layer, "b", delta, u, delta.dZ.sum(axis=0), 0.0)
    if view.matches(view.expected):
        return [()]
    return _ranked(
        view,
        [
            *_predicted(view),
            *_sparse(view, view.expected, ()),
            *_factored_biases(view),
            *_scaled(view),
            *_weighted(view),
            *_coarse(view),
        ],
    )


def _ranked(view: BlockView, found: list[Explanation]) -> list[Explanation]:
    """Return the likeliest, the equal ones named in the first."""
    unique: dict[Any, Explanation] = {}
    for explanation in found:
        unique.setdefault(tuple((f.slip, f.value) for f in explanation), explanation)
    ordered = sorted(unique.values(), key=lambda e: sum(f.cost for f in e))
    return ordered[:KEPT] or [(view.found("unknown", pattern(view)),)]


def _candidates(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    """Yield what the block would be with each slip of the table in it."""
    here, delta, biases = view.scene.here(view.layer), view.delta, view.kind == "b"
    expected = view.expected
    for slip in SLIPS.values():
        change = slip.bias_block if biases else slip.block
        if change is not None and slip.name not in ("row", "column", "entry", "clipped"):
            yield view.found(slip.name), change(expected)
            if np.any(view.penalty):  # made before the penalty was added
                yield view.found(slip.name), change(view.data) + view.penalty
        step = slip.steps.get("biases" if biases else "weights")
        if step is None or slip.inputs is not None or (slip.name == "float32_products"):
            continue
        try:
            yield view.found(slip.name), step(here, delta.dZ) + view.penalty
        except InputError:
            continue
    yield from _from_other_blocks(view)
    yield from _shifts(view)
    if biases:
        if view.scene.network.activations[view.layer - 1].name != "identity":
            yield view.found("bias_before_slope"), delta.dA.sum(axis=0)
            yield (
                view.found("bias_before_slope"),
                view.scene.masked(view.layer, delta.dA).sum(axis=0),
            )
        return
    yield from _sketched_inputs(view)


def _sketched_inputs(view: BlockView) -> Iterator[tuple[Found, Floats]]:
    """Yield dW_l made of other inputs or another error, where a few rows of it agree."""
    here, delta = view.scene.here(view.layer), view.delta
    pairs: list[tuple[Found, Floats, Floats]] = []
    for name in ("inputs_logits", "inputs_of_other"):
        variants = SLIPS[name].inputs
        assert variants is not None
        try:
            pairs += [(view.found(name, value), delta.dZ, A) for value, A in variants(here)]
        except InputError:
            continue
    for dA in (delta.dA, view.scene.masked(view.layer, delta.dA)):
        pairs.append((view.found("delta_before_slope"), dA, here.A_before))
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
    scene, here = view.scene, view.scene.here(view.layer)
    name = "bias_copied" if view.kind == "b" else "copied"
    for block, values in scene.network.order.views(view.sight.vector):
        other = (block.layer, block.kind) != (view.layer, view.kind)
        if other and block.shape == view.u.shape and np.any(values):
            yield view.found(name, block.gradient_name), values
    own = here.W if view.kind == "W" else scene.network.b(view.layer)
    if own is not None and np.any(own):
        label = f"{view.kind}{view.layer}"
        yield view.found(name, label), own
        lr = view.ratio(own - view.u, view.expected)
        if np.isfinite(lr) and lr != 0.0 and view.kind == "W":
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
            if found.slip not in ("zero", "bias_zero") or not np.any(view.u):
                yield (found,)
            continue
        if found.slip in ("zero", "bias_zero", "copied", "bias_copied") or not np.any(predicted):
            continue
        share = view.share(predicted)
        if share < 0.5:
            data = (
                predicted - view.penalty
                if found.slip.startswith(("inputs", "delta"))
                else predicted
            )
            rest = view.penalty if data is not predicted else 0.0
            factor = view.ratio(view.u - rest, data)
            if np.isfinite(factor) and not view.scene.unit(factor) and factor != 0.0:
                yield from _held(view, factor * data + rest, (found, _factor(view, factor)))
                if rest is not data and np.any(view.penalty) and found.slip.startswith("in"):
                    yield from _repenalised(view, data, found)
        elif share < 1.0:
            yield from _sparse(view, predicted, (found,))


def _held(view: BlockView, predicted: Floats, found: Explanation) -> Iterator[Explanation]:
    """Yield slips that explain a block, alone or with few components off."""
    if view.matches(predicted):
        yield found
    elif view.share(predicted) >= 0.5:
        yield from _sparse(view, predicted, found)


def _repenalised(view: BlockView, data: Floats, found: Found) -> Iterator[Explanation]:
    """Try other inputs with another penalty."""
    for beta in view.scene.penalty_factors()[1:]:
        if view.matches(data + beta * view.penalty):
            yield (found, _penalty(view, beta))


def _scaled(view: BlockView) -> Iterator[Explanation]:
    """Try factors on the whole, the data or the penalty, with few components off."""
    data, penalty = view.data, view.penalty
    whole = view.ratio(view.u, view.expected)
    if np.isfinite(whole) and whole != 0.0 and not view.scene.unit(whole):
        yield from _held(view, whole * view.expected, (_factor(view, whole),))
    if view.kind == "b" or not np.any(penalty):
        return
    part = view.ratio(view.u - penalty, data)
    if np.isfinite(part) and part != 0.0 and not view.scene.unit(part):
        yield from _held(view, part * data + penalty, (_factor(view, part, "data_factor"),))
    for beta in view.scene.penalty_factors()[1:]:
        yield from _held(view, data + beta * penalty, (_penalty(view, beta),))


def _rounded_too(view: BlockView) -> Iterator[Explanation]:
    """Try everything else on a block that was rounded to a lower precision."""
    coarser = lower_precision_of(view.u, view.scene.precision)
    if coarser is None or view.sight.coarse:
        return
    sight = replace(view.sight, rtol=1.01 * UNIT_ROUNDOFF[coarser], coarse=True)
    name = "rounded_float16" if coarser == "float16" else "rounded"
    rounded = view.found(name, "" if name != "rounded" else coarser)
    wider = replace(view, sight=sight)
    for other in (*_predicted(wider), *_scaled(wider), *_penalised(wider)):
        yield (*other, rounded)


def _factor(view: BlockView, value: float, slip: str = "") -> Found:
    """Return a factor on the block as a slip."""
    factor = view.scene.name_factor(value, view.layer)
    name = slip or ("bias_factor" if view.kind == "b" else "factor")
    averaged = factor.text.startswith("1/m =") and view.scene.network.reduction != "sum"
    if name == "bias_factor" and averaged:
        name = "bias_mean"
    return view.found(name, factor.text, 0.0 if factor.named else 0.4, factor.others)


def _sparse(view: BlockView, predicted: Floats, before: Explanation) -> Iterator[Explanation]:
    """Explain what few rows, columns or entries differ in."""
    if view.u.size == 1:  # it is no place among others
        return
    shown = view.sight.clipped(predicted)
    found = overlay(view.u, shown, view.floor(predicted), view.sight.rtol)
    if found is None:
        return
    fine = agreeing(view.u, shown, view.floor(predicted), view.sight.rtol)
    view.scene.note(view.layer, view.kind, view.u[fine], shown[fine])
    name = "bias_entries" if view.kind == "b" else found.kind
    factor = view.scene.name_factor(found.factor, view.layer) if np.isfinite(found.factor) else None
    extra = 0.4 if factor is None else (0.0 if factor.named else 0.2)
    extra += 0.03 * (len(found.places) - 1)
    says = LOCATED if factor is None else f"{factor.text} times what it should be"
    if factor is not None and found.factor == 0.0:
        says = "zero"
    elif factor is not None and found.factor == -1.0:
        says = "of the wrong sign"
    one = len(found.places) == 1
    text = f"{_places(found, view)} {'is' if one else 'are'} {says}"
    yield (*before, view.found(name, text, extra))


def _places(found: Overlay, view: BlockView) -> str:
    """`row 3`, `columns 1, 5` or `entry [2, 7]`, in the owner's order."""
    order = view.scene.network.order
    turned = view.kind == "W" and order.weights(view.layer).transposed
    kind = found.kind
    if turned:
        kind = {"rows": "columns", "columns": "rows"}.get(kind, kind)
    places = [p[::-1] if turned else p for p in found.places]
    texts = [str(p[0]) if kind in ("rows", "columns") else str(list(p)) for p in places]
    word = {"rows": "row", "columns": "column", "entries": "entry"}[kind]
    word = word if len(texts) == 1 else kind
    more = f" and {len(texts) - 6} more" if len(texts) > 6 else ""
    return f"{word} {', '.join(texts[:6])}{more}"


def _penalised(view: BlockView) -> Iterator[Explanation]:
    """Fit u = α·data + β·W, and say what α and β mean."""
    scene, here = view.scene, view.scene.here(view.layer)
    for basis, absolute in ((here.W, False), (np.sign(here.W), True)):
        if absolute and not here.decay:
            continue
        fitted = _two_factors(view, basis)
        if fitted is None:
            continue
        alpha, beta = fitted
        if absolute:
            unit = scene.unit(alpha)
            yield (view.found("penalty_absolute"),) if unit else (
                view.found("penalty_absolute"), _factor(view, alpha, "data_factor"))  # fmt: skip
            continue
        yield _two_meanings(view, alpha, beta)


def _two_factors(view: BlockView, basis: Floats) -> tuple[float, float] | None:
    """Return (α, β) with u = α·data + β·basis to rounding, α from the data and β near 0 as 0."""
    u, data = view.u.ravel(), view.data.ravel()
    places: slice | NDArray[np.int64] = slice(None)
    if u.size > ENOUGH:
        places = view.scene.generator.choice(u.size, ENOUGH, replace=False)
    M = np.stack([data[places], basis.ravel()[places]], axis=1)
    size = np.linalg.norm(M, axis=0)
    if not np.all(size > 0) or u.size < 3:
        return None
    (alpha, beta), _, rank, _ = np.linalg.lstsq(M / size, u[places], rcond=None)
    if rank < 2:
        return None
    alpha, beta = float(alpha / size[0]), float(beta / size[1])
    if abs(beta) * size[1] <= 1e-7 * np.linalg.norm(u[places]):
        beta = 0.0
    if abs(alpha) * size[0] <= 1e-7 * np.linalg.norm(u[places]):
        alpha = 0.0
    predicted = alpha * view.data + beta * basis
    return (alpha, beta) if view.matches(predicted) else None


def _two_meanings(view: BlockView, alpha: float, beta: float) -> Explanation:
    """Say what α·data + β·W is instead of data + decay·W."""
    scene, decay = view.scene, view.scene.here(view.layer).decay
    if not decay:
        parts: Explanation = () if scene.unit(alpha) else (_factor(view, alpha),)
        return (*parts, view.found("penalty_extra", f"{beta:.4g}")) if beta else parts
    share = beta / decay
    if abs(share - alpha) <= 1e-5 * abs(alpha):
        return (_factor(view, alpha),)
    found: list[Found] = []
    if not scene.unit(alpha):
        found.append(_factor(view, alpha, "data_factor"))
    if not scene.unit(share):
        found.append(_penalty(view, share))
    # The penalty may be missing and the whole block scaled: (α, 0) stays as it is.
    return tuple(found)


def _penalty(view: BlockView, share: float) -> Found:
    m = view.scene.batch.size
    names = (("penalty_missing", 0.0), ("penalty_doubled", 2.0), ("penalty_halved", 0.5),
             ("penalty_sign", -1.0), ("penalty_not_divided", float(m)),
             ("penalty_divided_twice", 1.0 / m))  # fmt: skip
    fits = [name for name, value in names if abs(share - value) <= 2e-4 * max(abs(value), 0.05)]
    if fits:
        equal = tuple(SLIPS[name].sentence.format(l=view.layer) for name in fits[1:])
        return view.found(fits[0], equal=equal)
    factor = view.scene.name_factor(share, view.layer)
    return view.found("penalty_factor", factor.text, 0.0 if factor.named else 0.2, factor.others)


def _factored_biases(view: BlockView) -> Iterator[Explanation]:
    """Fit db_l = α·(sum of dZ_l) + β·b_l."""
    data = view.data
    factor = view.ratio(view.u, data)
    if np.isfinite(factor) and view.matches(factor * data):
        yield (_factor(view, factor),)
    b = view.scene.network.b(view.layer)
    decay = view.scene.here(view.layer).decay
    if b is None or not np.any(b) or view.u.size < 3:
        return
    fitted = _two_factors(view, b)
    if fitted is None or not fitted[1]:
        return
    alpha, beta = fitted
    share = view.scene.name_factor(beta / decay, view.layer) if decay else None
    right = share is not None and view.scene.unit(share.value)
    extra = 0.0 if right else (0.3 if share is not None and share.named else 0.5)
    parts = (view.found("penalty_on_biases", extra=extra),)
    yield parts if view.scene.unit(alpha) else (*parts, _factor(view, alpha))


def _weighted(view: BlockView) -> Iterator[Explanation]:
    """Weigh the samples."""
    here = view.scene.here(view.layer)
    A = here.A_before if view.kind == "W" else None
    weights = sample_weights(view.u - view.penalty, view.delta.dZ, A, view.scene.generator)
    if weights is None:
        yield from _usual_samples(view, A)
        return
    if np.ptp(weights) < 1e-6:
        return
    dZ = weights[:, None] * view.delta.dZ
    predicted = (dZ.sum(axis=0) if A is None else dZ.T @ A) + view.penalty
    if view.matches(predicted):
        text, usual = weights_text(weights)
        yield (view.found("sample_left_out", text, 0.0 if usual else 0.6),)


def _usual_samples(view: BlockView, A: Floats | None) -> Iterator[Explanation]:
    """Try the weights that samples usually have by mistake, where a block is too small to solve."""
    if view.u.size < 3 or view.u.size > ENOUGH:
        return
    for weights in usual_weights(view.scene.batch.size):
        dZ = weights[:, None] * view.delta.dZ
        predicted = (dZ.sum(axis=0) if A is None else dZ.T @ A) + view.penalty
        if view.matches(predicted):
            yield (view.found("sample_left_out", weights_text(weights)[0], 0.05),)


def _coarse(view: BlockView) -> Iterator[Explanation]:
    """Rounding to, or computing in, a lower precision; clipping; decimals."""
    u, expected, precision = view.u, view.expected, view.scene.precision
    size = float(np.linalg.norm(expected))
    error = float(np.linalg.norm(u - expected))
    coarser = lower_precision_of(u, precision)
    if coarser is not None and _is_rounded(view, coarser):
        name = "rounded_float16" if coarser == "float16" else "rounded"
        yield (view.found(name, "" if name != "rounded" else coarser),)
    elif u.size > 1 and 0.0 < error < LOWER["float32"] * size and _like_rounding(view, "float32"):
        yield (view.found("low_precision", "1e-7: float32"),)
    elif u.size > 8 and 0.0 < error < 3e-3 * size and _like_rounding(view, "float16"):
        yield (view.found("low_precision", "1e-3: float16", 0.3),)
    for decimals in range(2, 9):
        if np.any(u) and np.array_equal(np.round(u, decimals), u):
            if np.all(np.abs(u - expected) <= 0.5001 * 10.0**-decimals):
                yield (view.found("rounded", f"{decimals} decimals"),)
            break
    limit = float(np.abs(u).max(initial=0.0))
    at_limit = int(np.count_nonzero(np.abs(u) == limit))
    telling = at_limit >= 2 or _round_number(limit)
    if (
        limit > 0.0
        and telling
        and at_limit < u.size
        and view.matches(np.clip(expected, -limit, limit))
    ):
        yield (view.found("clipped", f"{limit:.4g}"),)


def _like_rounding(view: BlockView, precision: str) -> bool:
    """Whether errors are as large as that precision makes them, without a common direction."""
    order = view.scene.network.order
    block = order.weights(view.layer) if view.kind == "W" else order.biases(view.layer)
    assert block is not None
    with np.errstate(all="ignore"):
        sigma = rounding(view.scene.network, view.scene.batch, precision).block(block)
        ratios = np.abs(view.u - view.expected)[sigma > 0.0] / sigma[sigma > 0.0]
    if ratios.size == 0 or not np.all(np.isfinite(ratios)):
        return False
    middle, high = np.quantile(ratios, (0.5, 0.95))
    error, size = (view.u - view.expected).ravel(), view.expected.ravel()
    along = abs(error @ size) / (np.linalg.norm(error) * np.linalg.norm(size))
    return bool(0.01 < middle < 5.0 and high < 30.0 and along < 4.0 / math.sqrt(error.size))


def _is_rounded(view: BlockView, precision: str) -> bool:
    """Whether every component is the expected one, rounded once."""
    tiny = {"float32": 2.0**-150, "float16": 2.0**-25, "bfloat16": 2.0**-134}[precision]
    allowed = 1.001 * UNIT_ROUNDOFF[precision] * np.abs(view.expected) + tiny
    error = np.abs(view.u - view.expected)
    return bool(np.all(error <= allowed + view.floor(view.expected)))


def _round_number(value: float) -> bool:
    """Whether it looks like a number that someone wrote."""
    return value > 0.0 and abs(float(f"{value:.2g}") - value) <= 1e-9 * value


def pattern(view: BlockView) -> str:
    """Say which components of a block are wrong."""
    bad = ~agreeing(view.u, view.expected, view.floor(view.expected), view.sight.rtol)
    count = int(np.count_nonzero(bad))
    name = f"d{view.kind}{view.layer}"
    if bad.ndim == 1:
        return f"{count} of {bad.size} entries of {name} are wrong"
    rows, columns = int(bad.any(axis=1).sum()), int(bad.any(axis=0).sum())
    return (
        f"{count} of {bad.size} components of {name} are wrong, in {rows} of {bad.shape[0]} rows "
        f"and {columns} of {bad.shape[1]} columns"
    )
