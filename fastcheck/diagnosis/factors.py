"""Factors on a block, on its data's part and on its penalty: fitted, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastcheck.diagnosis.block_view import MAX_FIT_COMPONENTS, BlockView, Explanation
from fastcheck.diagnosis.context import Found
from fastcheck.diagnosis.fitting import are_counts, weights_text
from fastcheck.types import Floats

__all__ = [
    "factor_match",
    "factored_biases",
    "is_evidence",
    "penalised",
    "penalty_match",
    "repenalised",
    "weights_match",
]


def is_evidence(view: BlockView, factor: float, *, alone: bool = True) -> bool:
    """Whether a factor says something: a single number always has one.

    The factor of a single number is evidence only if it has a name, and is all that is wrong.
    """
    if not np.isfinite(factor) or factor == 0.0 or view.context.unit(factor):
        return False
    sizes = np.abs(view.expected[view.expected != 0.0])
    distinct = sizes.size > 1 and bool(np.ptp(sizes) > 1e-6 * sizes.max())
    return distinct or (alone and view.context.name_factor(factor, view.layer).named)


def factor_match(view: BlockView, value: float, part: str = "") -> Found:
    """Return a factor on the block, or on a part of it, as a bug."""
    return view.context.factor(part or view.kind, value, view.layer, view.kind)


def penalty_match(view: BlockView, share: float) -> Found:
    """Return a multiple of the penalty as a bug."""
    context = view.context
    return context.factor("penalty", share, view.layer, view.kind, slack=2e-4, rare=0.2)


def weights_match(weights: Floats, layer: int, place: str) -> Found:
    """Return weights of the samples as a bug; as many numbers as samples are no cause."""
    text, few = weights_text(weights)
    if not few:
        text = f"the error dZ{layer} of each sample is off by a factor of its own: {text}"
        return Found("unknown", layer, place, text)
    counted = are_counts(weights)
    slip = "sample_left_out" if counted else "samples_weighted"
    return Found(slip, layer, place, text, located=not counted)


def _two_factors(view: BlockView, basis: Floats) -> tuple[float, float] | None:
    """Return (α, β) with u = α·data + β·basis to rounding, α from the data and β near 0 as 0."""
    u, data = view.u.ravel(), view.data.ravel()
    places: slice | NDArray[np.int64] = slice(None)
    if u.size > MAX_FIT_COMPONENTS:
        places = view.context.generator.choice(u.size, MAX_FIT_COMPONENTS, replace=False)
    M = np.stack([data[places], basis.ravel()[places]], axis=1)
    size = np.linalg.norm(M, axis=0)
    if not np.all(size > 0) or u.size < 4:
        return None
    if np.unique(np.round(np.abs(u[places]) / np.abs(u[places]).max(initial=1e-300), 9)).size < 4:
        return None  # two numbers fit too few others
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
    context, decay = view.context, view.context.here(view.layer).decay
    if not decay:
        parts: Explanation = () if context.unit(alpha) else (factor_match(view, alpha),)
        return (*parts, view.found("penalty_extra", f"{beta:.4g}")) if beta else parts
    share = beta / decay
    if abs(share - alpha) <= 1e-5 * abs(alpha):
        return (factor_match(view, alpha),)
    found: list[Found] = []
    if not context.unit(alpha):
        found.append(factor_match(view, alpha, "data"))
    if not context.unit(share):
        found.append(penalty_match(view, share))
    # The penalty may be missing and the whole block scaled: (α, 0) stays as it is.
    return tuple(found)


def penalised(view: BlockView) -> Iterator[Explanation]:
    """Fit u = α·data + β·W, and say what α and β mean."""
    context, here = view.context, view.context.here(view.layer)
    for basis, absolute in ((here.W, False), (np.sign(here.W), True)):
        if absolute and not here.decay:
            continue
        fitted = _two_factors(view, basis)
        if fitted is None:
            continue
        alpha, beta = fitted
        if absolute:
            absolute_penalty = view.found("penalty_absolute")
            if context.unit(alpha):
                yield (absolute_penalty,)
            else:
                yield absolute_penalty, factor_match(view, alpha, "data")
            continue
        yield _two_meanings(view, alpha, beta)


def repenalised(view: BlockView, data: Floats, found: Found) -> Iterator[Explanation]:
    """Try other inputs with another penalty."""
    for beta in view.context.penalty_factors()[1:]:
        if view.matches(data + beta * view.penalty):
            yield (found, penalty_match(view, beta))


def factored_biases(view: BlockView) -> Iterator[Explanation]:
    """Fit db_l = α·(sum of dZ_l) + β·b_l."""
    data = view.data
    factor = view.ratio(view.u, data)
    if is_evidence(view, factor) and view.matches(factor * data):
        yield (factor_match(view, factor),)
    b = view.context.network.b(view.layer)
    decay = view.context.here(view.layer).decay
    if b is None or not np.any(b) or view.u.size < 3:
        return
    fitted = _two_factors(view, b)
    if fitted is None or not fitted[1]:
        return
    alpha, beta = fitted
    share = view.context.name_factor(beta / decay, view.layer) if decay else None
    right = share is not None and view.context.unit(share.value)
    extra = 0.0 if right else (0.3 if share is not None and share.named else 0.5)
    parts = (view.found("penalty_on_biases", extra=extra),)
    yield parts if view.context.unit(alpha) else (*parts, factor_match(view, alpha))
