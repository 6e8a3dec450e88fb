"""Hypotheses on the error dZ_l of one layer: from the table, and with fitted numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.bugs import BUGS
from fastcheck.diagnosis.context import (
    Context,
    Delta,
    Found,
    Sight,
    Sketch,
)
from fastcheck.diagnosis.factors import weights_match
from fastcheck.diagnosis.fitting import (
    common_weight,
    few_samples,
    ratio,
    sample_weights,
)
from fastcheck.diagnosis.layer_errors import Family
from fastcheck.errors import InputError
from fastcheck.types import Floats

__all__ = [
    "common_factor",
    "fitted_deltas",
    "paired_deltas",
    "recovered_deltas",
    "table_deltas",
]

Option = tuple[Delta, tuple[Found, ...]]
MAX_STEPS = 12  # of Newton's method for the one number of a bug
LEAST_STEP = 1e-7  # of it, for a slope that rounding leaves
MIN_FIT_COMPONENTS = 3  # of a block, for a number to be fitted on it
MAX_SAMPLES_SEARCHED = 4096


def table_deltas(
    context: Context, layer: int, above: Delta | None, right: Delta
) -> Iterator[Delta]:
    """Yield the error with each slip of the table in it."""
    for name in BUGS:
        yield from _try(context, layer, name, _slipped(context, layer, above, right, name))
    yield Delta(right.dA, right.dZ)  # which takes a factor


def _slipped(
    context: Context, layer: int, above: Delta | None, right: Delta, name: str
) -> Iterator[Delta]:
    """Yield the errors that one bug of the table may give."""
    for value, error in BUGS[name].errors_at(context.site(layer, right, above)):
        if not BUGS[name].is_exact and _is_tiny(error.dZ, right.dZ):
            continue  # what was never set is as small
        if not np.array_equal(error.dZ, right.dZ):
            yield Delta(error.dA, error.dZ, (Found(name, layer, "delta", value),))


def _is_tiny(values: Floats, beside: Floats) -> bool:
    return float(np.linalg.norm(values)) <= 1e-9 * float(np.linalg.norm(beside))


def _try(context: Context, layer: int, name: str, values: Iterator[Delta]) -> Iterator[Delta]:
    """Yield what can be made here; the user's own functions have no derivative in the table."""
    try:
        yield from values
    except InputError:
        return


def fitted_deltas(
    context: Context, sight: Sight, layer: int, above: Delta | None, right: Delta, sketch: Sketch
) -> Iterator[Delta]:
    """Yield errors with something fitted: one number, the samples' weights, a few samples."""
    yield from _weighted(context, sight, layer, right)
    yield from _wrong_samples(context, sight, layer, right)
    yield from _dropped_units(context, sight, layer, right)
    site = context.site(layer, right, above, _updates(context, sight, layer, above))
    for slip in BUGS.values():
        if slip.families is None or context.right_block(layer, "W").size < MIN_FIT_COMPONENTS:
            continue
        for family in slip.families(site):
            for number in _numbers(context, sight, sketch, layer, family):
                error = family.error(number)
                if _is_multiple(error, right.dZ, sight.rtol):
                    continue  # a factor says the same
                value = family.label.format(f"{number:.4g}")
                dA = right.dA if family.activation is None else family.activation(number)
                yield Delta(dA, error, (Found(slip.name, layer, "delta", value),))


def _is_multiple(values: Floats, others: Floats, rtol: float) -> bool:
    """Whether one array is the other one times a number."""
    factor = float(np.vdot(values, others)) / max(float(np.vdot(others, others)), 1e-300)
    left = np.linalg.norm(values - factor * others)
    return bool(left <= rtol * np.linalg.norm(values))


def _updates(context: Context, sight: Sight, layer: int, above: Delta | None) -> tuple[Floats, ...]:
    """Return what may have been subtracted from W_{l+1}: the user's dW_{l+1}, the right one."""
    if above is None:
        return ()
    user, own = context.block(sight, layer + 1, "W"), context.here(layer + 1)
    assert user is not None
    return user, above.dZ.T @ own.A_before + own.decay * own.W


def _numbers(
    context: Context, sight: Sight, sketch: Sketch, layer: int, family: Family
) -> Iterator[float]:
    """Yield the numbers with which a family looks like the user's dW_l or db_l."""
    decay = context.here(layer).decay
    targets = [
        (sketch.W_given - beta * decay * sketch.W, sketch.W_floor, "W")
        for beta in context.penalty_factors()
    ]
    if sketch.u_b is not None:
        targets.append((sketch.u_b, np.asarray(sketch.floor_b), "b"))
    known: list[float] = []
    for target, floor, kind in targets:
        for start in family.starts:
            number = _number(family, start, target, floor, sketch, kind)
            if np.isfinite(number) and not any(
                abs(number - one) <= 1e-7 * abs(one) for one in known
            ):
                known.append(number)
                yield number


def _number(
    family: Family, start: float, target: Floats, floor: Floats, sketch: Sketch, kind: str
) -> float:
    """Solve for a family's number, by Newton's method on the median component; NaN for none."""

    def block(number: float) -> Floats:
        dZ = family.error(number)
        return dZ.sum(axis=0) if kind == "b" else dZ[:, sketch.rows].T @ sketch.A

    is_linear = len(family.starts) == 1
    number = start
    for _ in range(2 if is_linear else MAX_STEPS):
        here, small = block(number), 1.0 if is_linear else max(1e-4 * abs(number), LEAST_STEP)
        change = ratio(target - here, (block(number + small) - here) / small, floor / small)
        number += change
        if not np.isfinite(number) or abs(change) <= 1e-12 * abs(number):
            break
        if not is_linear and number <= 0.0:
            return float("nan")
    return number


def _wrong_samples(context: Context, sight: Sight, layer: int, right: Delta) -> Iterator[Delta]:
    """Yield the error with a few samples changed, where dW_l and db_l allow no others."""
    here = context.here(layer)
    u, u_b = context.block(sight, layer, "W"), context.block(sight, layer, "b")
    assert u is not None
    if here.batch.size > MAX_SAMPLES_SEARCHED or sight.clip != np.inf:
        return
    A, residual = here.A_before, u - (right.dZ.T @ here.A_before + here.decay * here.W)
    floor = float(np.linalg.norm(context.full_floor(sight, layer, "W")))
    if u_b is not None:
        A = np.hstack([A, np.ones((A.shape[0], 1))])
        residual = np.hstack([residual, (u_b - right.dZ.sum(axis=0))[:, None]])
    limit = 3.0 * floor + 10.0 * sight.rtol * float(np.linalg.norm(residual))
    found = few_samples(residual, A, limit)
    if found is None:
        return
    samples, errors = found
    dZ = right.dZ.copy()
    dZ[samples] += errors
    dA = right.dA.copy()
    dA[samples] = np.nan_to_num(errors / context.steps.slopes(here)[samples]) + dA[samples]
    text = f"sample{'s' * (len(samples) > 1)} {', '.join(map(str, sorted(samples.tolist())))}"
    yield Delta(dA, dZ, (Found("samples_wrong", layer, "delta", text, located=True),))


def _dropped_units(context: Context, sight: Sight, layer: int, right: Delta) -> Iterator[Delta]:
    """Yield the error without the units whose rows of dW_l and db_l hold the penalty alone."""
    here, u, u_b = context.here(layer), *(context.block(sight, layer, kind) for kind in "Wb")
    assert u is not None
    penalty = here.decay * here.W
    alone = np.abs(u - penalty) <= sight.rtol * np.abs(penalty)
    dropped = alone.all(axis=1) & np.any(right.dZ != 0.0, axis=0)
    if u_b is not None:
        dropped &= u_b == 0.0
    if dropped.any() and not dropped.all():
        units = [str(unit) for unit in np.flatnonzero(dropped)]
        more = f" and {len(units) - 6} more" if len(units) > 6 else ""
        text = f"unit{'s' if len(units) > 1 else ''} {', '.join(units[:6])}{more}"
        kept = np.where(dropped, 0.0, 1.0)
        found = Found("units_dropped", layer, "delta", text)
        yield Delta(right.dA * kept, right.dZ * kept, (found,))


def _weighted(context: Context, sight: Sight, layer: int, right: Delta) -> Iterator[Delta]:
    here = context.here(layer)
    u = context.block(sight, layer, "W")
    assert u is not None
    for beta in context.penalty_factors():
        data = u - beta * here.decay * here.W
        weights = sample_weights(data, right.dZ, here.A_before, context.generator)
        if weights is None:
            return
        if np.ptp(weights) < 1e-6 or np.any(np.abs(weights) > 1e6):
            continue
        factor = common_weight(weights)
        weighted = weights_match(weights / factor, layer, "delta")
        found: tuple[Found, ...] = (weighted,)
        if not context.unit(factor):
            found = (weighted, common_factor(context, layer, factor))
        yield Delta(weights[:, None] * right.dA, weights[:, None] * right.dZ, found)


def paired_deltas(
    context: Context,
    layer: int,
    above: Delta | None,
    right: Delta,
    singles: list[Delta],
) -> Iterator[Delta]:
    """Yield errors with two slips of this step: one in what comes in, one in what is made of it."""
    incoming = [
        d for d in singles if d.found and BUGS[d.found[0].slip].line in ("output", "back")
        and d.found[0].slip != "sample_left_out"
    ]  # fmt: skip
    if above is None:
        incoming += [d for d in singles if d.found and d.found[0].slip == "sample_left_out"][:8]
    here = context.here(layer)
    for first in incoming[:24]:
        for name, slip in BUGS.items():
            if slip.line not in ("slopes", "mask") or name == "error_factor":
                continue
            for second in _try(context, layer, name, _slipped(context, layer, above, first, name)):
                if here.Z.size > 200_000 and slip.variants is not None:
                    continue
                yield replace(second, found=first.found + second.found)


def recovered_deltas(context: Context, sight: Sight, layer: int, right: Delta) -> list[Option]:
    """Solve dW_l and db_l for dZ_l where that is possible, to judge the layers below."""
    here = context.here(layer)
    m, inputs = here.A_before.shape
    W_given, u_b = context.block(sight, layer, "W"), context.block(sight, layer, "b")
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
    slopes = context.steps.slopes(here)
    size = np.abs(right.dZ).max(initial=0.0)
    alive = np.abs(right.dZ) > 1e-6 * size
    shares = np.divide(solved, right.dZ, out=np.ones_like(solved), where=alive)[alive]
    dA = np.divide(solved, slopes, out=np.zeros_like(solved), where=slopes != 0)
    text = f"the error dZ{layer} itself is wrong, in a way that dW{layer} and db{layer} share"
    found = Found("unknown", layer, "delta", text)
    if m < A.shape[1]:
        found = _recognised(context, layer, right, solved, shares) or found
    return [(Delta(dA, solved), (found,))]


def _recognised(
    context: Context, layer: int, right: Delta, solved: Floats, shares: Floats
) -> Found | None:
    """Say what an error that dW_l and db_l leave no choice for has been made of."""
    values = np.unique(np.round(shares, 4))
    if values.size == 2 and values[0] == 0.0:
        value = f"keep_prob = {1 / values[1]:.3g}" if values[1] > 1 else ""
        return Found("mask_still_applied", layer, "delta", value)
    size = float(np.abs(right.dZ).max(initial=0.0))
    order = np.abs(solved[:, None, :] - right.dZ[None, :, :]).max(axis=2) <= 1e-6 * size
    if np.all(order.sum(axis=0) == 1) and np.all(order.sum(axis=1) == 1):
        text = f"the samples of dZ{layer} are in another order"
        return Found("samples_of_error_shifted", layer, "delta", text)
    return None


def common_factor(context: Context, layer: int, factor: float) -> Found:
    """Return a factor on dZ_l as a bug."""
    part = "output" if layer == context.network.depth else "error"
    return context.factor(part, factor, layer, "delta")
