"""The verdict: the relative difference, and the status of the whole, each block, each component."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fastcheck.model.approximation import Approximation
from fastcheck.norms import ignore_overflow, ratio
from fastcheck.settings import Settings
from fastcheck.types import Floats
from fastcheck.verdict.compare import BlockStatistics, Finding, compare_block
from fastcheck.verdict.evidence import AlignedPair, RoundingModel, align
from fastcheck.verdict.rules import (
    AGREE,
    KINK,
    NOISE_FACTOR,
    ROUNDING_FACTOR,
    SINGLE_FACTOR,
    STATUSES,
    BlockErrors,
    Rules,
    block_rounding,
    worst_elsewhere,
)

__all__ = [
    "GRADES",
    "NOT_CHECKED",
    "SEVERITIES",
    "STATUSES",
    "VACUOUS",
    "BlockVerdict",
    "ComponentVerdict",
    "Verdict",
    "evaluate",
    "grade",
    "worst_status",
]

Sigma = float | Floats | RoundingModel | None

VACUOUS = "vacuous"  # of a check that could not have failed
NOT_CHECKED = "not checked"  # of a block that a sample or an interrupted run left out
SEVERITIES = (NOT_CHECKED, "agree", "kink", VACUOUS, "cannot tell", "wrong")
GRADES = ("great", "look", "worry")
GREAT_DIFFERENCE, WORRY_DIFFERENCE = 1e-7, 1e-3
MAX_COMPONENTS = 10  # components in a report, and one more for each block in trouble


class NamedBlock(Protocol):
    """One array among those that were differentiated by."""

    @property
    def name(self) -> str: ...
    @property
    def gradient_name(self) -> str: ...
    @property
    def layer(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def user_shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Order(Protocol):
    """The order of θ: `ThetaLayout`, or any other that names its blocks and components."""

    @property
    def blocks(self) -> Sequence[NamedBlock]: ...
    @property
    def size(self) -> int: ...
    def locate(self, index: int) -> object:
        """Return what prints as the component's name."""
        ...


@dataclass(frozen=True)
class ComponentVerdict:
    """One component.

    Attributes
    ----------
    name : str
        `W2[3, 17]`, in the user's index order.
    block : str
        `dW2`.
    index : int
        In θ.
    gradient, approximation : float
        The given value, and the central difference.
    tolerance : float
        The `|g − g*|` up to which it agrees.
    status : str
        One of `STATUSES`.
    low, high : float or None
        At a kink: the interval between the one-sided slopes.
    derivative : float or None
        g*, the central difference with its measured truncation taken out, where that differs.
    """

    name: str
    block: str
    index: int
    gradient: float
    approximation: float
    tolerance: float
    status: str
    low: float | None = None
    high: float | None = None
    derivative: float | None = None

    @property
    def target(self) -> float:
        """What the gradient is held to: g*."""
        return self.approximation if self.derivative is None else self.derivative

    @property
    def ratio(self) -> float:
        """g / g*; NaN for 0/0."""
        if self.target == 0.0:
            return math.nan if self.gradient == 0.0 else math.copysign(math.inf, self.gradient)
        return self.gradient / self.target

    @property
    def difference(self) -> float:
        """`|g − g*| / (|g| + |g*|)`, 0 when both are zero."""
        error = abs(self.gradient - self.target)
        return ratio(error, abs(self.gradient), abs(self.target))


@dataclass(frozen=True)
class BlockVerdict:
    """One block, or (named `dθ`, layer 0) the whole; norms are over the checked components.

    Attributes
    ----------
    name, parameter : str
        `dW2` and `W2`.
    layer : int
    kind : str
        `W`, `b`, `array` or `whole`.
    shape : tuple of int
        In the user's convention.
    size, checked : int
        Components there are, and components compared.
    difference : float
        ‖g − g*‖ / (‖g‖ + ‖g*‖), a kink counting with its distance to its interval.
    literal_difference : float
        The same from the central differences themselves, at kinks too.
    gradient_norm, approximation_norm, error_norm : float
    tolerance : float
        The ‖g − g*‖ up to which the block agrees: tol, rounding and what is left of truncation.
    noise : float
        ‖method's own error‖.
    uncertainty : float
        ‖τ‖, what is left uncertain of the truncation.
    resolution : float or None
        Of a function: the relative error ‖g − g*‖/‖g*‖ from which on it would have been seen with
        99.9 % probability.
    epsilon : float or None
        Of a function: the step in this block.
    status : str
        `agree`, `cannot tell` or `wrong`, by the norm alone.
    grade : str
        One of `GRADES`.
    wrong, cannot_tell, kinks : int
        Components of that status.
    worst : ComponentVerdict or None
        The worst status, in it the largest `|g − g_approx|`.
    """

    name: str
    parameter: str
    layer: int
    kind: str
    shape: tuple[int, ...]
    size: int
    checked: int
    difference: float
    literal_difference: float
    gradient_norm: float
    approximation_norm: float
    error_norm: float
    tolerance: float
    noise: float
    status: str
    grade: str
    wrong: int
    cannot_tell: int
    kinks: int
    worst: ComponentVerdict | None = None
    uncertainty: float = 0.0
    resolution: float | None = None
    epsilon: float | None = None

    @property
    def verdict(self) -> str:
        """`wrong` also where a single component is, `not checked` where none was looked at."""
        if self.wrong:
            return "wrong"
        return NOT_CHECKED if self.status == "agree" and not self.checked else self.status


@dataclass(frozen=True)
class Verdict:
    """The verdict on a gradient.

    Attributes
    ----------
    status : str
        The worst of the whole, the blocks and the components; at best `cannot tell` where the run
        was interrupted.
    grade : str
        The worst of the whole and the blocks.
    whole : BlockVerdict
    blocks : tuple of BlockVerdict
        In the order of θ.
    components : tuple of ComponentVerdict
        The worst ones, the worst first.
    """

    status: str
    grade: str
    whole: BlockVerdict
    blocks: tuple[BlockVerdict, ...]
    components: tuple[ComponentVerdict, ...]


def worst_status(*statuses: str) -> str:
    """Return the worst of some statuses; what was not checked counts for nothing."""
    return max(statuses, key=SEVERITIES.index, default="agree")


def grade(difference: float, status: str) -> str:
    """Return `great`, `look` or `worry`.

    A difference that tol and rounding explain is great at any size, one that the method's own error
    explains wants a look; what nothing explains is a worry from 1e-3 on.
    """
    if status == "agree" or difference <= GREAT_DIFFERENCE:
        return "great"
    return "worry" if status == "wrong" and difference >= WORRY_DIFFERENCE else "look"


def evaluate(
    order: Order,
    gradient: Floats,
    approximation: Approximation,
    sigma: Sigma | Callable[[], Sigma],
    settings: Settings,
) -> Verdict:
    """Hold a gradient against its approximation.

    Parameters
    ----------
    order : ThetaLayout or Order
    gradient : ndarray, shape (N,), float64, finite
    approximation : Approximation
        Of all components or of a sample; NaN where an interrupted run did not come.
    sigma : float, ndarray (n,) or (N,), RoundingModel, None, or a callable that returns one
        Standard deviation of the gradient's own rounding. A callable is called only if something
        does not agree without it.
    settings : Settings
        Of which `tol` counts.

    Returns
    -------
    Verdict
    """
    rules = Rules(settings.tol, ROUNDING_FACTOR, NOISE_FACTOR)
    rounding: Sigma = None if callable(sigma) else sigma
    with ignore_overflow():
        aligned = align(gradient, approximation, 0.0 if rounding is None else rounding)
    statistics = []
    for block in order.blocks:
        part = aligned.part(block.offset, _stop(block))
        result = compare_block(aligned.evidence, part, rules, patient=not callable(sigma))
        if callable(sigma) and not _untroubled(result, rules):
            return evaluate(order, gradient, approximation, sigma(), settings)
        statistics.append(result)
    return _overall_verdict(order, aligned, statistics, rules, approximation.complete)


def _stop(block: NamedBlock) -> int:
    return block.offset + block.size


def _untroubled(result: BlockStatistics, rules: Rules) -> bool:
    return result.wrong == result.cannot_tell == 0 and _status(result, rules, 0.0) == AGREE


def _asked(result: BlockStatistics, rules: Rules, rounding: float) -> float:
    """Return what is asked of a block: tol, and the ‖error‖ that rounding explains."""
    tolerance = rules.tol * result.gradient + rules.tol * result.approximation
    return tolerance + rounding + result.allowance


def _status(result: BlockStatistics, rules: Rules, rounding: float) -> int:
    """Hold a block to the rule of components, by its norms."""
    asked = _asked(result, rules, rounding)
    found = rules.severity(result.error, asked, result.noise, result.uncertainty, result.blind)
    return int(found)


def _overall_verdict(
    order: Order,
    aligned: AlignedPair,
    statistics: list[BlockStatistics],
    rules: Rules,
    complete: bool,
) -> Verdict:
    """Give every block and the whole a status, and name the worst components."""
    total = BlockStatistics.total(statistics)
    chosen = _worst_findings(total, statistics)
    firsts = [finding for result in statistics for finding in result.findings[:1]]
    named = _named({*chosen, *firsts}, order, aligned, rules)
    blocks = []
    elsewhere = worst_elsewhere([_errors(result) for result in statistics])
    for block, result, others in zip(order.blocks, statistics, elsewhere, strict=True):
        worst = named[result.findings[0]] if result.findings else None
        broken = aligned.broken(block.offset, _stop(block))
        rounding = _rounding(result, block.size, others, aligned.evidence.loop_factor)
        blocks.append(_block(_shell(block), result, rules, rounding, broken, worst))
    shell = ("dθ", "θ", 0, "whole", (order.size,), order.size)
    components = tuple(named[finding] for finding in chosen)
    rounding = _rounding(total, order.size, None, None)
    worst = next(iter(components), None)
    whole = _block(shell, total, rules, rounding, aligned.not_finite.size, worst)
    status = worst_status(*(b.verdict for b in [whole, *blocks]))
    if not complete:
        status = worst_status(status, "cannot tell")
    worst_grade = max((b.grade for b in [whole, *blocks]), key=GRADES.index)
    return Verdict(status, worst_grade, whole, tuple(blocks), components)


def _errors(result: BlockStatistics) -> BlockErrors:
    return BlockErrors(result.error, result.rounding, result.rounding_peak)


def _rounding(
    result: BlockStatistics, size: int, elsewhere: float | None, loop_factor: float | None
) -> float:
    """Return the ‖error‖ that rounding explains in a block of some size."""
    if result.checked == 1:
        alone = size == 1 and loop_factor is not None
        return (SINGLE_FACTOR if alone else ROUNDING_FACTOR) * result.rounding
    if loop_factor is None:  # not of one model: blocks say nothing of each other
        return block_rounding(_errors(result))
    return block_rounding(_errors(result), elsewhere, loop_factor)


Shell = tuple[str, str, int, str, tuple[int, ...], int]


def _shell(block: NamedBlock) -> Shell:
    """Return what a block verdict says before anything was compared."""
    names = (block.gradient_name, block.name, block.layer, block.kind)
    return (*names, tuple(int(n) for n in block.user_shape), block.size)


def _block(
    shell: Shell,
    result: BlockStatistics,
    rules: Rules,
    rounding: float,
    broken: int,
    worst: ComponentVerdict | None,
) -> BlockVerdict:
    """Judge a block by its norms; `rounding` is the ‖error‖ that rounding explains."""
    status = STATUSES[_status(result, rules, rounding)]
    if broken:
        status = worst_status(status, "cannot tell")
    difference = ratio(result.error, result.gradient, result.approximation)
    judged = BlockVerdict(
        *shell,
        checked=result.checked,
        difference=difference,
        literal_difference=ratio(result.literal_error, result.gradient, result.approximation),
        gradient_norm=result.gradient,
        approximation_norm=result.approximation,
        error_norm=result.error,
        tolerance=_asked(result, rules, rounding) + result.uncertainty,
        noise=result.noise + result.blind,
        uncertainty=result.uncertainty,
        status=status,
        grade=grade(difference, status),
        wrong=result.wrong,
        cannot_tell=result.cannot_tell + broken,
        kinks=result.kinks,
        worst=worst,
    )
    if not result.wrong or worst is None:
        return judged
    own = (judged.grade, grade(worst.difference, "wrong"))
    return replace(judged, grade=max(own, key=GRADES.index))


def _worst_findings(total: BlockStatistics, statistics: list[BlockStatistics]) -> list[Finding]:
    """Return the worst components, and the worst one of every block that is in trouble, once."""
    chosen = total.findings[:MAX_COMPONENTS]
    for result in statistics:
        if result.wrong or result.cannot_tell or result.kinks:
            chosen.extend(result.findings[:1])
    once: dict[int, Finding] = {}
    for finding in sorted(chosen, key=lambda f: (-f.severity, -f.error, f.position)):
        once.setdefault(finding.position, finding)
    return list(once.values())


def _named(
    findings: Collection[Finding], order: Order, aligned: AlignedPair, rules: Rules
) -> dict[Finding, ComponentVerdict]:
    """Return findings with their names and values."""
    evidence = aligned.evidence
    positions = np.array([finding.position for finding in findings], np.int64)
    ruling = rules.apply(
        evidence.gradient[positions], evidence.target[positions], evidence.blur_at(positions)
    )
    named = {}
    offsets = np.array([block.offset for block in order.blocks])
    for finding, allowed in zip(findings, ruling.allowed.tolist(), strict=True):
        at = finding.position
        index = aligned.index(at)
        block = order.blocks[int(np.searchsorted(offsets, index, side="right")) - 1]
        gradient, value = float(evidence.gradient[at]), float(evidence.values[at])
        severity, low, high = finding.severity, None, None
        kink = evidence.kinks_within(at, at + 1)
        if evidence.wide_kinks(kink, rules.tol).size:
            low, high = (float(b[kink][0]) for b in (evidence.kinks.low, evidence.kinks.high))
            severity = KINK if severity == AGREE else severity
        target = float(evidence.target[at])
        named[finding] = ComponentVerdict(
            name=str(order.locate(index)),
            block=block.gradient_name,
            index=index,
            gradient=gradient,
            approximation=value,
            tolerance=allowed,
            status=STATUSES[severity],
            low=low,
            high=high,
            derivative=None if target == value else target,
        )
    return named
