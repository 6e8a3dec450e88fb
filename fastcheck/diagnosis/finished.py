"""Bugs of the finished gradient: rounded, clipped, scaled, swapped, or that of another θ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fastcheck.diagnosis.context import (
    Context,
    Found,
    Hypothesis,
    Sight,
)
from fastcheck.diagnosis.fitting import (
    are_clipped,
    lower_precision_of,
    ratio,
    rounded_to,
)
from fastcheck.reference.backprop import Here, Steps, gradients
from fastcheck.types import Floats
from fastcheck.validation import UNIT_ROUNDOFF

__all__ = ["everywhere", "views"]

MAX_ROUNDINGS = 16.0  # what a component computed in a low precision is off by, in roundoffs
MAX_STEPS = 12  # of Newton's method for the one number of a bug


def views(context: Context, gradient: Floats) -> Iterator[Sight]:
    """Yield the gradient as it is, and with each slip of the finished whole undone."""
    plain = Sight(gradient, context.rtol, context.precision)
    yield from _marked(context, plain)
    yield plain
    if context.network.l2:
        for factor in _common_factors(context, gradient):
            found = _factor_of_all(context, factor)
            yield replace(plain, vector=gradient / factor, found=(found,))
    yield from _swaps(context, plain)


def _marked(context: Context, plain: Sight) -> Iterator[Sight]:
    """Yield the gradient as clipped or as rounded, where its values bear the mark of it."""
    gradient, right = plain.vector, context.right
    limit = float(np.abs(gradient).max(initial=0.0))
    at_limit = int(np.count_nonzero(np.abs(gradient) == limit))
    if at_limit >= 2 and limit > 0.0 and are_clipped(right, limit):
        found = Found("clipped", 0, "whole", f"{limit:.4g}", 0.05)
        yield replace(plain, clip=limit, found=(found,))
    coarser = lower_precision_of(gradient, context.precision)
    if coarser is not None and not context.agrees(plain, gradient, right, 1e-13 * limit):
        name, value = ("rounded_float16", "") if coarser == "float16" else ("rounded", coarser)
        if not _rounded_once(gradient, right, coarser):
            name, value = "low_precision", coarser
        found = Found(name, 0, "whole", value, 0.3)
        rtol = max(1.2 * UNIT_ROUNDOFF[coarser], context.rtol)
        yield replace(plain, rtol=rtol, precision=coarser, found=(found,))


def _rounded_once(gradient: Floats, right: Floats, precision: str) -> bool:
    """Whether the components that are right, or nearly, are right ones rounded once."""
    near = np.abs(gradient - right) <= MAX_ROUNDINGS * UNIT_ROUNDOFF[precision] * np.abs(right)
    same = gradient == rounded_to(right, precision)
    return bool(np.count_nonzero(same & near) >= 0.97 * np.count_nonzero(near))


def everywhere(context: Context, gradient: Floats) -> Hypothesis | None:
    """Return what one number explains everywhere: a factor, or a step back along the gradient."""
    plain = Sight(gradient, context.rtol, context.precision)
    sigma = np.concatenate(
        [np.ravel(context.full_floor(plain, b.layer, b.kind)) for b in context.network.order.blocks]
    )
    factor = ratio(gradient, context.right, sigma)
    if context.network.size > 1 and np.isfinite(factor) and factor != 0.0:
        scaled = factor * context.right
        if not context.unit(factor) and context.agrees(
            plain, gradient, scaled, sigma * abs(factor)
        ):
            return Hypothesis.of(plain, (_factor_of_all(context, factor),))
    for steps, value in _old_steps(context):
        for direction in (gradient, context.right):
            step = _step_back(context, gradient, direction, sigma, steps)
            if step:
                found = Found(
                    "stale", 0, "whole", value.format(f"{'−' if step < 0 else '+'} {abs(step):.4g}")
                )
                return Hypothesis.of(plain, (found,))
    return None


def _old_steps(context: Context) -> Iterator[tuple[Steps, str]]:
    """Yield the backward passes that an update may have come after, or into."""
    yield context.steps, "{}"

    def back(here: Here, dZ: Floats) -> Floats:
        return dZ @ context.network.W(here.layer)

    text = "{} on the way there, with the updated weights on the way back"
    yield replace(context.steps, error_before=back), text


def _factor_of_all(context: Context, factor: float) -> Found:
    """Return a factor on everything; without a penalty it is one on the output error."""
    depth = context.network.depth
    if not context.network.l2:
        return context.factor("output", factor, depth, "delta", rare=0.2)
    return replace(context.factor("all", factor, depth, "whole", rare=0.2), layer=0)


def _step_back(
    context: Context, gradient: Floats, direction: Floats, sigma: Floats, steps: Steps
) -> float:
    """Return the c with gradient = ∇J(θ + c·direction), 0 for none.

    A step by c along the gradient led to θ, or one along the right gradient from it.
    """
    size = float(np.linalg.norm(direction))
    change = gradient - context.right
    if not size or np.mean(np.abs(change) > sigma + context.rtol * np.abs(gradient)) < 0.3:
        return 0.0

    def at(c: float) -> Floats:
        moved = context.network.with_theta(context.network.theta + c * direction)
        return gradients(moved, context.batch, steps)

    c, small = 0.0, 1e-5 * (1.0 + float(np.linalg.norm(context.network.theta))) / size
    left = float(np.linalg.norm(change))
    for _ in range(MAX_STEPS):
        here = at(c)
        slope = (at(c + small) - here) / small
        if not np.all(np.isfinite(slope)) or not np.any(slope):
            return 0.0
        c += float((gradient - here) @ slope / (slope @ slope))
        found = at(c)
        now = float(np.linalg.norm(gradient - found))
        if np.all(np.abs(gradient - found) <= 30.0 * sigma + context.rtol * np.abs(gradient)):
            return c
        if not now < left:
            return 0.0
        left = now
    return 0.0


def _common_factors(context: Context, gradient: Floats) -> list[float]:
    """Return the factors from the right gradient to the user's that several blocks share."""
    factors: list[list[float]] = []
    for block in context.network.order.blocks:
        one = ratio(gradient[block.slice], context.right[block.slice], 0.0)
        if not np.isfinite(one) or one == 0.0 or context.unit(one):
            continue
        group = next((g for g in factors if context.unit(g[0] / one)), None)
        if group is None:
            factors.append([one])
        else:
            group.append(one)
    factors.sort(key=len, reverse=True)
    return [group[0] for group in factors[:2] if len(group) > 1]


def _swaps(context: Context, plain: Sight) -> Iterator[Sight]:
    """Yield the gradient with two wrong blocks of one shape changed back."""
    order, count = context.network.order, 0
    blocks = [b for b in order.blocks if _wrong(context, plain, b.slice)]
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
    for kinds in ("Wb", "W", "b"):
        turned = _reversed_blocks(context, plain.vector, kinds)
        if turned is not None:
            names = " and ".join(f"all d{kind}" for kind in kinds)
            text = f"{names} are in reverse order, that of the last layer first"
            yield replace(plain, vector=turned, found=(Found("swapped", 0, "whole", text, 0.1),))


def _reversed_blocks(context: Context, gradient: Floats, kinds: str) -> Floats | None:
    """Return the gradient with its blocks in reverse order, None where the shapes forbid it."""
    order, vector = context.network.order, gradient.copy()
    for kind in kinds:
        blocks = [b for b in order.blocks if b.kind == kind]
        if len(blocks) < 3:  # two are a swap
            return None
        for block, other in zip(blocks, reversed(blocks), strict=True):
            if block.shape != other.shape:
                return None
            vector[block.slice] = gradient[other.slice]
    return vector


def _wrong(context: Context, sight: Sight, part: slice) -> bool:
    u, p = sight.vector[part], context.right[part]
    return float(np.linalg.norm(u - p)) > 1e-6 * float(np.linalg.norm(u) + np.linalg.norm(p))
