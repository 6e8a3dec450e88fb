"""What a sample covers: how much may be wrong without its showing, and what all of θ would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counting
from typing import Any

import numpy as np

from fastcheck.model.approximation import Approximation
from fastcheck.model.parameters import ThetaLayout
from fastcheck.norms import ignore_overflow, norm
from fastcheck.sampling.components import MISS_PROBABILITY, size_to_detect
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers
from fastcheck.verdict.evidence import align
from fastcheck.verdict.verdict import BlockVerdict, Order, Verdict

__all__ = ["Estimate", "coverage", "estimated_difference", "max_undetected", "wrong_at_most"]


CONFIDENCE = 1.0 - 1.0 / MISS_PROBABILITY
TWO_SIDED = 1.959963984540054  # standard deviations to either side, at the same confidence
ASSUMES = "assuming unchecked components resemble the sample"


@dataclass(frozen=True)
class Estimate:
    """The difference over all of θ as a sample lets it be estimated, and its 95 % interval."""

    value: float
    low: float
    high: float


def max_undetected(size: int, checked: int) -> int:
    """Return the most wrong ones of `size` that a sample of `checked` may all miss.

    With one more it would have seen some with 95 % probability (hypergeometric distribution).
    """

    def chance(wrong: int) -> float:
        """Of missing them all: C(size − wrong, checked) / C(size, checked)."""
        return math.exp(_log_choices(size - wrong, checked) - _log_choices(size, checked))

    low, high = 0, size - checked + 1  # missing `high` is out of the question
    while high - low > 1:
        middle = (low + high) // 2
        if chance(middle) > 1.0 / MISS_PROBABILITY:
            low = middle
        else:
            high = middle
    return low


def _log_choices(size: int, count: int) -> float:
    """Return log C(size, count); SciPy's functions would take longer to import than the rest."""
    return math.lgamma(size + 1.0) - math.lgamma(count + 1.0) - math.lgamma(size - count + 1.0)


def wrong_at_most(size: int, checked: int, wrong: int) -> int:
    """Return how many of `size` are wrong at most, at 95 % confidence, where so many were seen."""
    if wrong == 0:
        return max_undetected(size, checked)
    from scipy import stats  # takes a second to import

    low, high = wrong, size - (checked - wrong) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if stats.hypergeom.cdf(wrong, size, middle, checked) > 1.0 / MISS_PROBABILITY:
            low = middle
        else:
            high = middle
    return low


def coverage(
    order: Order,
    gradient: Floats,
    approximation: Approximation,
    verdict: Verdict,
    settings: Settings,
) -> dict[str, Any]:
    """Return what a sample covers, as plain data.

    Parameters
    ----------
    order : Order
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
        Of the sample.
    verdict : Verdict
        On the sample.
    settings : Settings
        Which sample was asked for.

    Returns
    -------
    dict
        Empty where all components were checked, and for an interrupted run, which is no random
        sample. `facts` says it in words, as (label, text).
    """
    if approximation.indices is None or not approximation.complete:
        return {}
    rows = settings.sample_units is not None and isinstance(order, ThetaLayout)
    blocks = [_block(b, v, rows) for b, v in zip(order.blocks, verdict.blocks, strict=True)]
    estimate = estimated_difference(order, gradient, approximation, whole_units=rows)
    found: dict[str, Any] = {
        "confidence": CONFIDENCE,
        "of": "rows" if rows else "components",
        "blocks": blocks,
        "share": max(b["share"] for b in blocks),
    }
    if estimate is not None:
        found["difference"] = {
            "estimate": estimate.value, "low": estimate.low, "high": estimate.high,
            "assumes": ASSUMES,
        }  # fmt: skip
    if not rows:
        found["next"] = _next_decade(blocks, found["share"])
    if isinstance(order, ThetaLayout):
        found["units"] = _units(order, approximation, rows)
    found["facts"] = [["coverage", _in_words(found)]]
    unit_words = _units_in_words(found, approximation.method)
    found["facts"] += [["units", unit_words]] if unit_words else []
    if estimate is not None:
        found["facts"].append(["estimate", _estimate_in_words(estimate, order.size)])
    return found


def _block(block: Any, verdict: BlockVerdict, rows: bool) -> dict[str, Any]:
    """Return what the sample says of one block; with `rows`, of the rows of its weights."""
    size, checked = block.size, verdict.checked
    if rows and block.kind == "W":
        size, checked = block.shape[0], verdict.checked // block.shape[1]
    facts = {"name": verdict.name, "size": size, "checked": checked}
    if verdict.wrong and (rows and block.kind == "W"):  # how many rows they lie in was not kept
        return {**facts, "wrong": None, "at_most": size, "share": 1.0}
    at_most = wrong_at_most(size, checked, verdict.wrong)
    return {**facts, "wrong": verdict.wrong, "at_most": at_most, "share": at_most / size}


def _next_decade(blocks: Sequence[dict[str, Any]], share: float) -> dict[str, Any]:
    """Return the next smaller power of ten as a share, and how many components would see it."""
    rung = next(10.0**-k for k in counting(1) if 10.0**-k < share or k == 9)
    rung = float(f"{rung:.0e}")
    return {"share": rung, "components": sum(size_to_detect([b["size"] for b in blocks], rung))}


def _units(order: ThetaLayout, approximation: Approximation, rows: bool) -> dict[str, int]:
    """Return how many units were probed, and how many components these have."""
    assert approximation.indices is not None
    unit = _unit_of(order, approximation.indices)
    probed = np.unique(unit)
    inputs = np.concatenate(
        [
            np.full(block.shape[0], block.shape[1] + (order.biases(block.layer) is not None))
            for block in order.blocks
            if block.kind == "W"
        ]
    )
    return {
        "probed": int(probed.size),
        "all": int(inputs.size),
        "components": int(inputs[probed].sum()),
        "checked": int(approximation.indices.size),
        "whole": int(rows),
    }


def _unit_of(order: ThetaLayout, indices: Integers) -> Integers:
    """Return which unit, of all layers in their order, each component enters."""
    units, start = np.empty_like(indices), 0
    firsts = {}
    for block in order.blocks:
        if block.kind == "W":
            firsts[block.layer] = start
            start += block.shape[0]
        first, last = np.searchsorted(indices, (block.offset, block.stop))
        columns = block.shape[1] if block.kind == "W" else 1
        units[first:last] = firsts[block.layer] + (indices[first:last] - block.offset) // columns
    return units


@dataclass(frozen=True)
class _Strata:
    """A sample of clusters (components, or whole units), drawn on its own in each stratum.

    Attributes
    ----------
    cluster : ndarray (n,), int64
        Which drawn cluster each checked component belongs to.
    stratum : ndarray (clusters,), int64
    sizes, drawn : ndarray (strata,)
        Clusters that there are, and that were drawn.
    """

    cluster: Integers
    stratum: Integers
    sizes: Floats
    drawn: Floats

    def per_cluster(self, values: Floats) -> Floats:
        """Return the sums over the components of each cluster."""
        sums = np.bincount(self.cluster, weights=values, minlength=self.stratum.size)
        return sums.astype(np.float64)

    def total(self, values: Floats) -> float:
        """Return the estimated sum over all clusters, drawn or not."""
        return float(np.sum(values * (self.sizes / self.drawn)[self.stratum]))

    def variance(self, values: Floats) -> float:
        """Return the estimated variance of `total`; a single one in a stratum stands for itself."""
        means = np.bincount(self.stratum, weights=values) / self.drawn
        means[self.drawn == 1] = 0.0
        squares = np.bincount(self.stratum, weights=(values - means[self.stratum]) ** 2)
        spread = squares / np.maximum(self.drawn - 1.0, 1.0)
        unseen = 1.0 - self.drawn / self.sizes
        return float(np.sum(self.sizes**2 * unseen * spread / self.drawn))


def _strata(order: Order, indices: Integers, whole_units: bool) -> _Strata | None:
    """Return how the sample was drawn; None where it left a stratum out."""
    if whole_units and isinstance(order, ThetaLayout):
        blocks = [block for block in order.blocks if block.kind == "W"]
        sizes = np.array([block.shape[0] for block in blocks])
        seen, cluster = np.unique(_unit_of(order, indices), return_inverse=True)
        stratum = np.searchsorted(np.cumsum(sizes), seen, side="right")
    else:
        sizes = np.array([block.size for block in order.blocks])
        cluster = np.arange(indices.size)
        stratum = np.searchsorted(np.cumsum(sizes), indices, side="right")
    drawn = np.bincount(stratum, minlength=sizes.size)
    if (drawn == 0).any():
        return None
    return _Strata(cluster, stratum, sizes.astype(np.float64), drawn.astype(np.float64))


def estimated_difference(
    order: Order, gradient: Floats, approximation: Approximation, *, whole_units: bool = False
) -> Estimate | None:
    """Estimate ‖g_approx − g‖ / (‖g_approx‖ + ‖g‖) over all of θ from a stratified sample.

    ‖g‖ is known. ‖g − g_approx‖² is estimated by expansion from the strata, and so is what it takes
    to get ‖g_approx‖² from ‖g‖² (a difference estimator, exact where nothing is wrong); the
    interval is that of the logarithm, linearised (Särndal, Swensson & Wretman, "Model Assisted
    Survey Sampling", 1992, ch. 5). It assumes that the sample has met what matters: a few large
    errors that it missed are not in the interval.

    Parameters
    ----------
    order : Order
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
        Of a sample that `fastcheck.sampling.components` drew.
    whole_units : bool
        Whether units were drawn, and not components.

    Returns
    -------
    Estimate or None
        None where the sample left a whole block out.
    """
    with ignore_overflow():
        aligned = align(gradient, approximation, 0.0)
        evidence, indices = aligned.evidence, aligned.indices
        assert indices is not None
        strata = _strata(order, indices, whole_units)
        if strata is None:
            return None
        values = evidence.accepted(slice(0, evidence.values.size))
        scale = max(norm(gradient), norm(values))
        if scale == 0.0 or not math.isfinite(scale):
            return Estimate(0.0, 0.0, 0.0) if scale == 0.0 else None
        given = evidence.gradient / scale
        error = given - values / scale
        known = norm(gradient) / scale
        return _estimate(
            strata, known, strata.per_cluster(error**2), strata.per_cluster(given * error)
        )


def _estimate(strata: _Strata, known: float, squares: Floats, products: Floats) -> Estimate:
    """Estimate the difference from sums over clusters of e² and of g·e; `known` is ‖g‖."""
    error_squared = strata.total(squares)
    if error_squared == 0.0:
        return Estimate(0.0, 0.0, 0.0)
    error = math.sqrt(error_squared)
    other = math.sqrt(max(known**2 - 2.0 * strata.total(products) + error_squared, 0.0))
    value = min(1.0, error / (known + other))
    if other == 0.0:
        return Estimate(value, 0.0, 1.0)
    # The derivatives of log(‖e‖ / (‖g‖ + ‖g_approx‖)) by the two totals.
    by_squares = 0.5 / error_squared - 0.5 / (other * (known + other))
    by_products = 1.0 / (other * (known + other))
    spread = math.sqrt(strata.variance(by_squares * squares + by_products * products))
    factor = math.exp(min(TWO_SIDED * spread, 700.0))
    return Estimate(value, value / factor, min(1.0, value * factor))


def _in_words(found: dict[str, Any]) -> str:
    """Say how much may be wrong."""
    blocks, things = found["blocks"], found["of"]
    unseen = [b["name"] for b in blocks if b["checked"] == 0]
    clean = [b for b in blocks if b["wrong"] == 0 and b["checked"]]
    sentences = []
    if clean:
        worst = max(clean, key=lambda b: b["share"])
        which = "any block" if len(clean) == len(blocks) else "any other block"
        wrong = "of the rows of {} are wrong" if things == "rows" else "of {} is wrong"
        sentences.append(
            f"with 95 % confidence, at most {_percent(worst['share'])} {wrong.format(which)} "
            f"({worst['name']}: {worst['at_most']:,} of {worst['size']:,})"
        )
    sentences += [
        f"about {_percent(b['wrong'] / b['checked'])} of {b['name']} is wrong, at most "
        f"{_percent(b['share'])}"
        for b in [b for b in blocks if b["wrong"]][:3]
    ]
    if unseen:
        sentences.append(f"{', '.join(unseen)} {'was' if len(unseen) == 1 else 'were'} not seen")
    rung = found.get("next")
    if rung and not any(b["wrong"] for b in blocks):
        sentences.append(
            f"a sample of {rung['components']:,} would detect {_percent(rung['share'])} "
            f"(--detect {rung['share']:g})"
        )
    return "; ".join(sentences)


def _percent(share: float) -> str:
    """Return a share as `0.24 %`, `2.4e-05 %`."""
    return f"{100.0 * share:.2g} %"


def _units_in_words(found: dict[str, Any], method: str) -> str:
    """Say what whole rows cover, as far as the unit method goes."""
    units = found.get("units")
    if units is None or method != "unit":
        return ""
    if units["whole"]:
        return (
            f"{units['probed']:,} of {units['all']:,} units with whole rows: "
            f"{units['checked'] / units['probed']:,.0f} times as many components as "
            f"--sample {units['probed']} would check in about the same time"
        )
    more = units["components"] / units["checked"]
    if more < 1.5:
        return ""
    if units["probed"] > 0.9 * units["all"]:
        return (
            f"these components lie in {units['probed']:,} of {units['all']:,} units: checking all "
            "components, without --sample, takes about the same time"
        )
    return (
        f"these components lie in {units['probed']:,} of {units['all']:,} units: --sample-units "
        f"{units['probed']} checks {more:,.0f} times as many components in about the same time"
    )


def _estimate_in_words(estimate: Estimate, size: int) -> str:
    """Say what the difference over all of θ would be."""
    if estimate.value == 0.0:
        return f"the difference over all {size:,} components: 0, {ASSUMES}"
    low, high = f"{estimate.low:.1e}", f"{estimate.high:.1e}"
    interval = f" ({low} to {high} at 95 %)" if low != high else ""
    return f"the difference over all {size:,} components: {estimate.value:.2g}{interval}, {ASSUMES}"
