"""Two gradients held against each other: norms, counts and the worst components of one block.

The passes go over pieces that stay in the cache; nothing is done for single components but for
those that are in trouble.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastcheck.norms import SAFE_SUM_RANGE, ignore_overflow, norm
from fastcheck.types import Floats, Integers
from fastcheck.verdict.evidence import Evidence
from fastcheck.verdict.rules import AGREE, CANNOT_TELL, KINK, STATUSES, WRONG, Rules, Ruling

__all__ = ["BlockStatistics", "Finding", "compare_block"]


# The norms of a `BlockStatistics`.
NORMS = (
    "error", "literal_error", "gradient", "approximation", "rounding", "noise", "uncertainty",
    "allowance",
)  # fmt: skip
MAX_FINDINGS = 10  # findings of each status that a block remembers

# What is made of a piece stays in the cache.
PIECE_SIZE = 131072
# Fewer components are compared in NumPy.
NUMPY_THRESHOLD = 16_384


class Finding(NamedTuple):
    """A component worth showing: how bad (an index of `STATUSES`), |g − g*|, and where."""

    severity: int
    error: float
    position: int


@dataclass
class BlockStatistics:
    """What one block, or the whole, comes to; norms are ‖·‖₂ over the checked components."""

    checked: int = 0
    error: float = 0.0
    literal_error: float = 0.0  # from the central differences themselves, at kinks too
    gradient: float = 0.0
    approximation: float = 0.0
    rounding: float = 0.0
    rounding_peak: float = 0.0
    noise: float = 0.0
    uncertainty: float = 0.0
    allowance: float = 0.0
    blind: float = 0.0  # infinite where σ is not known
    wrong: int = 0
    cannot_tell: int = 0
    kinks: int = 0
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def total(cls, parts: Iterable[BlockStatistics]) -> BlockStatistics:
        """Add the blocks up to the whole."""
        parts = list(parts)
        result = cls(
            rounding_peak=max((p.rounding_peak for p in parts), default=0.0),
            blind=max((p.blind for p in parts), default=0.0),
            findings=_worst(f for p in parts for f in p.findings),
        )
        for name in NORMS:
            setattr(result, name, math.hypot(*(getattr(p, name) for p in parts)))
        for name in ("checked", "wrong", "cannot_tell", "kinks"):
            setattr(result, name, sum(getattr(p, name) for p in parts))
        return result

    def keep(self, severity: int, errors: Floats, positions: Integers) -> None:
        """Remember the largest of some errors of one status."""
        if errors.size > MAX_FINDINGS:
            largest = np.argpartition(errors, -MAX_FINDINGS)[-MAX_FINDINGS:]
            errors, positions = errors[largest], positions[largest]
        pairs = zip(errors.tolist(), positions.tolist(), strict=True)
        found = [Finding(severity, error, position) for error, position in pairs]
        self.findings = _worst([*self.findings, *found])


def _worst(findings: Iterable[Finding]) -> list[Finding]:
    """Return the worst few of each status, the worst first."""
    ordered = sorted(findings, key=lambda f: (-f.severity, -f.error, f.position))
    kept: list[Finding] = []
    for severity in range(len(STATUSES)):
        kept.extend([f for f in ordered if f.severity == severity][:MAX_FINDINGS])
    return sorted(kept, key=lambda f: (-f.severity, -f.error, f.position))


def compare_block(
    evidence: Evidence, part: slice, rules: Rules, *, patient: bool = True
) -> BlockStatistics:
    """Compare the components at consecutive positions.

    Parameters
    ----------
    evidence : Evidence
    part : slice
        Positions start..stop−1, those of one block.
    rules : Rules
    patient : bool
        Whether to look into a piece where not everything agrees; otherwise all of it counts as
        wrong, and the rest is left out.
    """
    result = BlockStatistics(checked=part.stop - part.start)
    pieces = []
    with ignore_overflow():
        for start in range(part.start, part.stop, PIECE_SIZE):
            piece = slice(start, min(start + PIECE_SIZE, part.stop))
            pieces.append(_piece(evidence, piece, rules, result, patient=patient))
            if not patient and result.wrong:
                break
        result.noise = _norm_of(evidence.noise, part)
        result.uncertainty = _norm_of(evidence.uncertainty, part)
        result.allowance = _norm_of(evidence.allowance, part)
    if pieces:
        sums = [math.hypot(*column) for column in zip(*pieces, strict=True)]
        result.error, result.literal_error, result.gradient, result.approximation = sums[:4]
        result.rounding = sums[4]
    return result


def _norm_of(values: float | Floats, part: slice) -> float:
    """Return the norm of a part of what each component has, or all have alike."""
    if isinstance(values, np.ndarray):
        return norm(values[part])
    return values * math.sqrt(part.stop - part.start)


def _piece(
    evidence: Evidence, piece: slice, rules: Rules, result: BlockStatistics, *, patient: bool
) -> tuple[float, float, float, float, float]:
    """Compare a piece; return the norms of error, literal error, gradient, approximation and σ."""
    gradient, approximation = evidence.gradient[piece], evidence.accepted(piece)
    blur = evidence.blur_at(piece)
    spread = blur.sigma if isinstance(blur.sigma, np.ndarray) else np.array([blur.sigma])
    if not math.isfinite(spread.max()):  # the model has overflowed: it can't tell
        spread = np.where(np.isfinite(spread), spread, 0.0)
        result.blind = math.inf
    result.rounding_peak = max(result.rounding_peak, float(spread.max()))

    over, worst, sums = _compare(gradient, approximation, spread, rules)
    error = _root(sums[0], lambda: gradient - approximation)
    sizes = _root(sums[1], lambda: gradient), _root(sums[2], lambda: approximation)
    alike = math.sqrt(gradient.size / spread.size)
    rounding = norm(spread) * alike if alike > 1.0 else _root(sums[3], lambda: spread)

    trouble = np.zeros(0, np.int64)
    if over or blur.of_the_difference:
        ruling = rules.apply(gradient, approximation, blur)
        trouble = np.flatnonzero(ruling.severity)
        if patient:
            _trouble(ruling, trouble, piece.start, result)
        elif trouble.size:
            result.wrong = gradient.size
    _largest(abs(float(gradient[worst] - approximation[worst])), piece.start + worst, result)
    literal = error
    kinks = evidence.kinks_within(piece.start, piece.stop)
    if kinks.start < kinks.stop or evidence.target is not evidence.values:
        literal = norm(gradient - evidence.values[piece])
        shown = evidence.wide_kinks(kinks, rules.tol)
        _accepted_kinks(evidence, shown, piece.start + trouble, result)
    return error, literal, *sizes, rounding


def _compare(
    gradient: Floats, approximation: Floats, sigma: Floats, rules: Rules
) -> tuple[int, int, Floats]:
    """Return how many do not agree, where the largest error is, and sums of squares.

    These are of the error, the gradient, the approximation and σ. The kernel does it in one pass;
    what is small does not wait for numba to be imported.
    """
    if gradient.size < NUMPY_THRESHOLD:
        error = gradient - approximation
        sums = np.array([np.dot(part, part) for part in (error, gradient, approximation, sigma)])
        np.abs(error, out=error)
        over = error > rules.asked(gradient, approximation, sigma)
        return int(np.count_nonzero(over)), int(error.argmax()), sums
    from fastcheck.kernels.comparison import compare

    sums = np.empty(4)
    return *compare(gradient, approximation, sigma, (rules.tol, rules.rounding), sums), sums


def _root(squares: float, values: Callable[[], Floats]) -> float:
    """Return √squares, or ‖values‖₂ where the squares' sum overflowed or lost small terms."""
    return math.sqrt(squares) if SAFE_SUM_RANGE[0] < squares < SAFE_SUM_RANGE[1] else norm(values())


def _trouble(ruling: Ruling, trouble: Integers, start: int, result: BlockStatistics) -> None:
    """Count the components that do not agree, and remember the worst."""
    for status, name in ((CANNOT_TELL, "cannot_tell"), (WRONG, "wrong")):
        found = trouble[ruling.severity[trouble] == status]
        setattr(result, name, getattr(result, name) + found.size)
        result.keep(status, ruling.error[found], start + found)


def _largest(error: float, position: int, result: BlockStatistics) -> None:
    """Remember the largest error of all, whatever its status, as `agree`."""
    found = Finding(AGREE, error, position)
    known = result.findings[-1] if result.findings else None
    if known is None or known.severity != AGREE:  # the list ends with the mildest
        result.findings.append(found)
    elif found.error > known.error:
        result.findings[-1] = found


def _accepted_kinks(
    evidence: Evidence, positions: Integers, trouble: Integers, result: BlockStatistics
) -> None:
    """Count the kinks whose gradient is right; remember those farthest from the approximation."""
    positions = positions[~np.isin(positions, trouble)]
    result.kinks += positions.size
    result.keep(KINK, np.abs(evidence.gradient[positions] - evidence.values[positions]), positions)
