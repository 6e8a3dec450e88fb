"""Two gradients held against each other: norms, counts and the worst components of one block.

The passes go over pieces that stay in the cache; nothing is done for single components but for
those that are in trouble.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.types import Floats, Integers

__all__ = [
    "STATUSES",
    "AlignedPair",
    "BlockStatistics",
    "Blur",
    "Evidence",
    "Finding",
    "RoundingModel",
    "Rules",
    "Ruling",
    "align",
    "compare_block",
    "norm",
]


# The norms of a `BlockStatistics`.
NORMS = (
    "error", "literal_error", "gradient", "approximation", "rounding", "noise", "uncertainty",
    "allowance",
)  # fmt: skip
STATUSES = ("agree", "kink", "cannot tell", "wrong")  # from good to bad
AGREE, KINK, CANNOT_TELL, WRONG = range(4)
MAX_FINDINGS = 10  # findings of each status that a block remembers

# What is made of a piece stays in the cache.
PIECE_SIZE = 131072
# Fewer components are compared in NumPy.
NUMPY_THRESHOLD = 16_384
# Sums of squares between these have neither lost small terms nor overflowed.
SAFE_SUM_RANGE = (1e-250, 1e250)


# An interval that is narrower than this share of its ends is shown as one value: where only the
# curvature jumps, the one-sided differences differ by O(ε).
SHOWN_WIDTH = 1e-5


def ignore_overflow() -> np.errstate:
    """Let overflow pass without a warning: it is seen and dealt with."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def norm(values: Floats) -> float:
    """Return ‖values‖₂ without overflow or underflow."""
    squares = float(np.dot(values, values))
    if SAFE_SUM_RANGE[0] < squares < SAFE_SUM_RANGE[1]:
        return math.sqrt(squares)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = values / largest
    return largest * math.sqrt(float(np.dot(scaled, scaled)))


class Blur(NamedTuple):
    """What stands between a gradient and the derivative: floats, or arrays of a component each.

    Attributes
    ----------
    sigma : float or ndarray
        σ of the gradient's own rounding; infinite or NaN where its model has overflowed.
    noise : float or ndarray
        Standard deviation of the difference's own error.
    uncertainty : float or ndarray
        τ: what is left uncertain of the truncation.
    allowance : float or ndarray
        What is allowed beside all this; see `Approximation.allowance`.
    """

    sigma: float | Floats
    noise: float | Floats = 0.0
    uncertainty: float | Floats = 0.0
    allowance: float | Floats = 0.0

    @property
    def of_the_difference(self) -> bool:
        """Whether the difference itself can hide something."""
        return bool(np.any(self.noise) or np.any(self.uncertainty))


class Ruling(NamedTuple):
    """The rule applied: arrays of a component each.

    Attributes
    ----------
    error : ndarray
        |g − g*|.
    allowed, limit : ndarray
        Up to which it agrees, and from which on it is wrong.
    severity : ndarray, uint8
        An index of `STATUSES`; kinks come later.
    """

    error: Floats
    allowed: Floats
    limit: Floats
    severity: NDArray[np.uint8]


class Rules(NamedTuple):
    """The one rule of what agrees; g* is the central difference with its truncation taken out.

    What is asked for is |g − g*| ≤ tol·(|g| + |g*|) + rounding·σ. What that exceeds by τ is
    allowed, and it is wrong only beyond `noise` times the difference's own error on top. Where
    τ or that error is larger than what is asked for, nobody can tell.
    """

    tol: float
    rounding: float
    noise: float

    def asked(self, gradient: Floats, target: Floats, sigma: float | Floats) -> Floats:
        """Return tol·(|g| + |g*|) + K·σ; tol first, so that the sum can't overflow."""
        asked = self.tol * np.abs(gradient) + self.tol * np.abs(target)
        return np.asarray(asked + self.rounding * np.asarray(sigma))

    def severity(
        self, error: Any, asked: Any, noise: Any, uncertainty: Any, blind: Any = 0.0
    ) -> NDArray[np.uint8]:
        """Return `AGREE`, `CANNOT_TELL` or `WRONG`; of components, or of norms.

        `blind` is infinite where nothing is known of σ: there nothing is wrong.
        """
        allowed = asked + uncertainty
        hidden = np.maximum(noise, uncertainty) > asked
        found = np.where((error > allowed) | hidden, CANNOT_TELL, AGREE)
        found = np.where(error > allowed + self.noise * noise + blind, WRONG, found)
        return np.asarray(found, dtype=np.uint8)

    def apply(self, gradient: Floats, target: Floats, blur: Blur) -> Ruling:
        """Hold components to the rule."""
        with ignore_overflow():
            error = np.abs(gradient - target)
            sigma = np.asarray(blur.sigma)
            known = np.isfinite(sigma)
            blind = np.where(known, 0.0, np.inf)
            asked = self.asked(gradient, target, np.where(known, sigma, 0.0)) + blur.allowance
            severity = self.severity(error, asked, blur.noise, blur.uncertainty, blind)
            allowed = asked + blur.uncertainty
            return Ruling(error, allowed, allowed + self.noise * blur.noise + blind, severity)


class RoundingModel(Protocol):
    """σ of all N components, made where it is asked for: it need not lie in memory as a whole."""

    @property
    def loop_factor(self) -> float:
        """What `block_rounding` takes it for."""
        ...

    def between(self, start: int, stop: int) -> Floats:
        """Return σ of the components start..stop−1 of θ."""
        ...

    def at(self, indices: Integers) -> Floats:
        """Return σ of some components of θ."""
        ...


@dataclass(frozen=True)
class Evidence:
    """What is compared.

    Attributes
    ----------
    gradient, values : ndarray, shape (n,), float64, finite
        The given gradient and the central differences at the checked components.
    target : ndarray, shape (n,), float64, finite
        g*, which the gradient is held to: often `values` itself.
    rounding : float, ndarray (n,) or Deviations
        σ of the gradient's own rounding, absolute; `RoundingModel` where all N components are there.
    noise, uncertainty : float or ndarray (n,)
        Standard deviation of the method's own error, and τ; absolute.
    kinks : Kinks
        Positions in these arrays.
    loop_factor : float or None
        As for `block_rounding`, where one model of the whole backward pass made all σ.
    """

    gradient: Floats
    values: Floats
    target: Floats
    rounding: float | Floats | RoundingModel
    noise: float | Floats
    uncertainty: float | Floats
    kinks: Kinks
    loop_factor: float | None = None
    allowance: float | Floats = 0.0

    def kinks_within(self, start: int, stop: int) -> slice:
        """Return which of the kinks lie at positions start..stop−1."""
        positions = self.kinks.positions
        if positions.size == 0:
            return slice(0, 0)
        return slice(int(positions.searchsorted(start)), int(positions.searchsorted(stop)))

    def nearest(self, which: slice | Integers) -> Floats:
        """Return for some kinks the point of their interval nearest to the gradient."""
        at = self.kinks.positions[which]
        return self.kinks.at(which).nearest(self.gradient[at], self.values[at], self.target[at])

    def wide_kinks(self, which: slice, tol: float) -> Integers:
        """Return the positions of those kinks whose slopes differ by more than tol and in print."""
        kinks = self.kinks.at(which)
        return kinks.positions[kinks.wide(max(tol, SHOWN_WIDTH))]

    def accepted(self, piece: slice) -> Floats:
        """Return what each component is held to: g*, at kinks the nearest of their interval."""
        kinks = self.kinks_within(piece.start, piece.stop)
        if kinks.start == kinks.stop:
            return self.target[piece]
        accepted = self.target[piece].copy()
        accepted[self.kinks.positions[kinks] - piece.start] = self.nearest(kinks)
        return accepted

    def rounding_at(self, positions: slice | Integers) -> float | Floats:
        """Return σ at some positions."""
        if isinstance(self.rounding, (float, int, np.ndarray)):
            return _at(self.rounding, positions)
        if isinstance(positions, slice):
            return self.rounding.between(positions.start, positions.stop)
        return self.rounding.at(positions)

    def blur_at(self, positions: slice | Integers) -> Blur:
        """Return what blurs the components at some positions."""
        blurs = (self.noise, self.uncertainty, self.allowance)
        return Blur(self.rounding_at(positions), *(_at(blur, positions) for blur in blurs))


def _at(values: float | Floats, positions: slice | Integers) -> float | Floats:
    return values[positions] if isinstance(values, np.ndarray) else values


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


@dataclass(frozen=True)
class AlignedPair:
    """The evidence, and where it lies in θ.

    Attributes
    ----------
    evidence : Evidence
    indices : ndarray of int64, increasing, or None
        Of θ; None where all N components are there.
    not_finite : ndarray of int64, increasing
        Indices of θ whose approximation came out as NaN or infinity; they are not in the evidence.
    """

    evidence: Evidence
    indices: Integers | None
    not_finite: Integers

    def index(self, position: int) -> int:
        """Return the index in θ of a position in the evidence."""
        return position if self.indices is None else int(self.indices[position])

    def part(self, start: int, stop: int) -> slice:
        """Return the positions of the components start..stop−1 of θ."""
        if self.indices is None:
            return slice(start, stop)
        first, last = np.searchsorted(self.indices, (start, stop))
        return slice(int(first), int(last))

    def broken(self, start: int, stop: int) -> int:
        """Return how many approximations of the components start..stop−1 are not finite."""
        first, last = np.searchsorted(self.not_finite, (start, stop))
        return int(last - first)


def align(
    gradient: Floats, approximation: Approximation, sigma: float | Floats | RoundingModel
) -> AlignedPair:
    """Line the gradient up with the approximation, and set aside what is not finite.

    Parameters
    ----------
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
    sigma : float, ndarray of shape (n,) or (N,), or Deviations
    """
    size = gradient.size
    indices, values = approximation.indices, approximation.values
    loop_factor = None if isinstance(sigma, (float, int, np.ndarray)) else sigma.loop_factor
    if indices is not None:
        gradient = gradient[indices]
        if isinstance(sigma, np.ndarray):
            sigma = sigma if sigma.size == indices.size else sigma[indices]
        elif not isinstance(sigma, (float, int)):
            sigma = sigma.at(indices)
    evidence = Evidence(
        gradient=gradient,
        values=values,
        target=approximation.target,
        rounding=sigma,
        noise=approximation.noise,
        uncertainty=approximation.uncertainty,
        allowance=approximation.allowance,
        kinks=approximation.kinks,
        loop_factor=loop_factor,
    )
    if approximation.complete and math.isfinite(norm(values) + norm(evidence.target)):
        return AlignedPair(evidence, indices, np.zeros(0, np.int64))
    finite = np.isfinite(values) & np.isfinite(evidence.target)
    if indices is None:
        indices = np.arange(size)
    # In an interrupted run NaN is what was not reached, in a complete one it is what J gave.
    not_finite = indices[~finite] if approximation.complete else np.zeros(0, np.int64)
    keep = np.flatnonzero(finite)
    return AlignedPair(_subset(evidence, keep), indices[keep], not_finite)


def _subset(evidence: Evidence, keep: Integers) -> Evidence:
    """Return the evidence at increasing positions."""
    kinks = evidence.kinks.at(np.isin(evidence.kinks.positions, keep))
    blur = evidence.blur_at(keep)
    values = evidence.values[keep]
    apart = evidence.target is not evidence.values
    return Evidence(
        gradient=evidence.gradient[keep],
        values=values,
        target=evidence.target[keep] if apart else values,
        rounding=blur.sigma,
        noise=blur.noise,
        uncertainty=blur.uncertainty,
        allowance=blur.allowance,
        kinks=replace(kinks, positions=np.searchsorted(keep, kinks.positions)),
        loop_factor=evidence.loop_factor,
    )
