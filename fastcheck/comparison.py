"""Two gradients held against each other: norms, counts and the worst components of one block.

The passes go over pieces that stay in the cache; nothing is done for single components but for
those that are in trouble.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcheck.approximation import Approximation, Kinks

__all__ = [
    "STATUSES",
    "Evidence",
    "Finding",
    "Lineup",
    "Rules",
    "Tally",
    "line_up",
    "norm",
    "tally",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STATUSES = ("agree", "kink", "cannot tell", "wrong")  # from good to bad
AGREE, KINK, CANNOT_TELL, WRONG = range(4)
KEPT = 10  # findings of each status that a block remembers

# Pieces of this size stay in the cache, and OpenBLAS answers a dot product of up to 10,000
# numbers in the calling thread: no threads to wake, the same bits for any number of them.
PIECE = 8192
# Sums of squares between these have neither lost small terms nor overflowed.
SAFE_SUMS = (1e-250, 1e250)


def quiet() -> np.errstate:
    """Let overflow pass without a warning: it is seen and dealt with."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def norm(values: Floats) -> float:
    """Return ‖values‖₂ without overflow or underflow."""
    squares = float(np.dot(values, values))
    if SAFE_SUMS[0] < squares < SAFE_SUMS[1]:
        return math.sqrt(squares)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = values / largest
    return largest * math.sqrt(float(np.dot(scaled, scaled)))


class Rules(NamedTuple):
    """When a component agrees: |g − g_approx| ≤ tol·(|g| + |g_approx|) + rounding·σ.

    Where it does not, `noise` times the method's own error tells `cannot tell` from `wrong`.
    """

    tol: float
    rounding: float
    noise: float


@dataclass(frozen=True)
class Evidence:
    """What is compared.

    Attributes
    ----------
    gradient, values : ndarray, shape (n,), float64, finite
        The given gradient and the approximation at the checked components.
    rounding : float or ndarray (n,)
        σ of the gradient's own rounding, absolute.
    noise : float or ndarray (n,)
        Standard deviation of the method's own error, absolute.
    kinks : Kinks
        Positions in these arrays.
    """

    gradient: Floats
    values: Floats
    rounding: float | Floats
    noise: float | Floats
    kinks: Kinks

    def kinks_within(self, start: int, stop: int) -> slice:
        """Return which of the kinks lie at positions start..stop−1."""
        positions = self.kinks.positions
        if positions.size == 0:
            return slice(0, 0)
        return slice(int(positions.searchsorted(start)), int(positions.searchsorted(stop)))

    def nearest(self, which: slice | Integers) -> Floats:
        """Return for some kinks the point of their interval nearest to the gradient."""
        at = self.kinks.positions[which]
        approximation = self.values[at]
        low = np.minimum(self.kinks.low[which], approximation)
        high = np.maximum(self.kinks.high[which], approximation)
        return np.clip(self.gradient[at], low, high)

    def rounding_at(self, positions: slice | Integers) -> float | Floats:
        """Return σ at some positions."""
        return _at(self.rounding, positions)

    def noise_at(self, positions: slice | Integers) -> float | Floats:
        """Return the method's own error at some positions."""
        return _at(self.noise, positions)


def _at(values: float | Floats, positions: slice | Integers) -> float | Floats:
    return values[positions] if isinstance(values, np.ndarray) else values


class Finding(NamedTuple):
    """A component worth showing: how bad (an index of `STATUSES`), |g − g_approx|, and where."""

    severity: int
    error: float
    position: int


@dataclass
class Tally:
    """What one block, or the whole, comes to; norms are ‖·‖₂ over the checked components."""

    checked: int = 0
    error: float = 0.0
    literal_error: float = 0.0  # kinks held to the central difference itself, not to their interval
    gradient: float = 0.0
    approximation: float = 0.0
    rounding: float = 0.0
    rounding_peak: float = 0.0
    noise: float = 0.0
    wrong: int = 0
    cannot_tell: int = 0
    kinks: int = 0
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def total(cls, parts: Iterable[Tally]) -> Tally:
        """Add the blocks up to the whole."""
        parts = list(parts)
        result = cls(
            rounding_peak=max((p.rounding_peak for p in parts), default=0.0),
            findings=_worst(f for p in parts for f in p.findings),
        )
        for name in ("error", "literal_error", "gradient", "approximation", "rounding", "noise"):
            setattr(result, name, math.hypot(*(getattr(p, name) for p in parts)))
        for name in ("checked", "wrong", "cannot_tell", "kinks"):
            setattr(result, name, sum(getattr(p, name) for p in parts))
        return result

    def keep(self, severity: int, errors: Floats, positions: Integers) -> None:
        """Remember the largest of some errors of one status."""
        if errors.size > KEPT:
            largest = np.argpartition(errors, -KEPT)[-KEPT:]
            errors, positions = errors[largest], positions[largest]
        pairs = zip(errors.tolist(), positions.tolist(), strict=True)
        found = [Finding(severity, error, position) for error, position in pairs]
        self.findings = _worst([*self.findings, *found])


def _worst(findings: Iterable[Finding]) -> list[Finding]:
    """Return the worst few of each status, the worst first."""
    ordered = sorted(findings, key=lambda f: (-f.severity, -f.error, f.position))
    kept: list[Finding] = []
    for severity in range(len(STATUSES)):
        kept.extend([f for f in ordered if f.severity == severity][:KEPT])
    return sorted(kept, key=lambda f: (-f.severity, -f.error, f.position))


class _Scratch:
    """Room for one piece."""

    def __init__(self, size: int) -> None:
        self.error, self.allowed, self.other = np.empty((3, size))
        self.over = np.empty(size, bool)


def tally(evidence: Evidence, part: slice, rules: Rules) -> Tally:
    """Compare the components at consecutive positions.

    Parameters
    ----------
    evidence : Evidence
    part : slice
        Positions start..stop−1, those of one block.
    rules : Rules
    """
    result = Tally(checked=part.stop - part.start)
    scratch = _Scratch(min(PIECE, result.checked))
    pieces = []
    with quiet():
        for start in range(part.start, part.stop, PIECE):
            piece = slice(start, min(start + PIECE, part.stop))
            pieces.append(_piece(evidence, piece, rules, scratch, result))
        _own_errors(evidence, part, result)
    if pieces:
        sums = [math.hypot(*column) for column in zip(*pieces, strict=True)]
        result.error, result.literal_error, result.gradient, result.approximation = sums
    return result


def _own_errors(evidence: Evidence, part: slice, result: Tally) -> None:
    """Fill in what rounding and the method's own error come to over a block."""
    for name, values in (("rounding", evidence.rounding), ("noise", evidence.noise)):
        if isinstance(values, np.ndarray):
            within = values[part]
            pieces = (within[i : i + PIECE] for i in range(0, within.size, PIECE))
            setattr(result, name, math.hypot(*map(norm, pieces)))
        else:
            setattr(result, name, values * math.sqrt(result.checked))
    if result.checked:
        result.rounding_peak = float(np.max(evidence.rounding_at(part)))


def _piece(
    evidence: Evidence, piece: slice, rules: Rules, scratch: _Scratch, result: Tally
) -> tuple[float, float, float, float]:
    """Compare one piece; return the norms of error, literal error, gradient and approximation."""
    size = piece.stop - piece.start
    gradient = evidence.gradient[piece]
    approximation = values = evidence.values[piece]
    kinks = evidence.kinks_within(piece.start, piece.stop)
    if kinks.start < kinks.stop:
        approximation = values.copy()
        approximation[evidence.kinks.positions[kinks] - piece.start] = evidence.nearest(kinks)

    error = np.subtract(gradient, approximation, out=scratch.error[:size])
    norms = norm(error), norm(gradient), norm(approximation)
    np.abs(error, out=error)
    allowed = _allowed(evidence, piece, approximation, rules, scratch)
    over = np.greater(error, allowed, out=scratch.over[:size])
    if over.any():
        _trouble(evidence, piece.start, rules, scratch, np.flatnonzero(over), result)
    _largest(error, piece.start, result)
    literal = norms[0]
    if kinks.start < kinks.stop:
        literal = norm(gradient - values)
        _accepted_kinks(evidence, kinks, over, piece.start, result)
    return norms[0], literal, norms[1], norms[2]


def _allowed(
    evidence: Evidence, piece: slice, approximation: Floats, rules: Rules, scratch: _Scratch
) -> Floats:
    """Return tol·(|g| + |g_approx|) + K·σ; tol first, so that the sum can't overflow."""
    size = piece.stop - piece.start
    other = scratch.other[:size]
    allowed = np.multiply(evidence.gradient[piece], rules.tol, out=scratch.allowed[:size])
    np.abs(allowed, out=allowed)
    np.multiply(approximation, rules.tol, out=other)
    np.abs(other, out=other)
    allowed += other
    rounding = evidence.rounding_at(piece)
    if isinstance(rounding, np.ndarray):
        allowed += np.multiply(rounding, rules.rounding, out=other)
    elif rounding:
        allowed += rules.rounding * rounding
    return allowed


def _trouble(
    evidence: Evidence,
    start: int,
    rules: Rules,
    scratch: _Scratch,
    over: Integers,
    result: Tally,
) -> None:
    """Tell `wrong` from `cannot tell` among the components of a piece that do not agree."""
    errors = scratch.error[over]
    positions = over + start
    within_noise = errors <= scratch.allowed[over] + rules.noise * evidence.noise_at(positions)
    result.cannot_tell += int(np.count_nonzero(within_noise))
    result.wrong += int(np.count_nonzero(~within_noise))
    result.keep(CANNOT_TELL, errors[within_noise], positions[within_noise])
    result.keep(WRONG, errors[~within_noise], positions[~within_noise])


def _largest(error: Floats, start: int, result: Tally) -> None:
    """Remember the largest error of all, whatever its status, as `agree`."""
    place = int(error.argmax())
    found = Finding(AGREE, float(error[place]), start + place)
    known = result.findings[-1] if result.findings else None
    if known is None or known.severity != AGREE:  # the list ends with the mildest
        result.findings.append(found)
    elif found.error > known.error:
        result.findings[-1] = found


def _accepted_kinks(
    evidence: Evidence, kinks: slice, over: NDArray[np.bool_], start: int, result: Tally
) -> None:
    """Count the kinks whose gradient is right; remember those farthest from the approximation."""
    positions = evidence.kinks.positions[kinks]
    positions = positions[~over[positions - start]]
    result.kinks += positions.size
    result.keep(KINK, np.abs(evidence.gradient[positions] - evidence.values[positions]), positions)


@dataclass(frozen=True)
class Lineup:
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


def line_up(gradient: Floats, approximation: Approximation, sigma: float | Floats) -> Lineup:
    """Line the gradient up with the approximation, and set aside what is not finite.

    Parameters
    ----------
    gradient : ndarray, shape (N,), float64
    approximation : Approximation
    sigma : float, or ndarray of shape (n,) or (N,)
    """
    size = gradient.size
    indices, values = approximation.indices, approximation.values
    if indices is not None:
        gradient = gradient[indices]
        if isinstance(sigma, np.ndarray) and sigma.size != indices.size:
            sigma = sigma[indices]
    evidence = Evidence(gradient, values, sigma, approximation.noise, approximation.kinks)
    if approximation.complete and math.isfinite(norm(values)):
        return Lineup(evidence, indices, np.zeros(0, np.int64))
    finite = np.isfinite(values)
    if indices is None:
        indices = np.arange(size)
    # In an interrupted run NaN is what was not reached, in a complete one it is what J gave.
    not_finite = indices[~finite] if approximation.complete else np.zeros(0, np.int64)
    keep = np.flatnonzero(finite)
    return Lineup(_subset(evidence, keep), indices[keep], not_finite)


def _subset(evidence: Evidence, keep: Integers) -> Evidence:
    """Return the evidence at increasing positions."""
    kinks = evidence.kinks
    kept = np.isin(kinks.positions, keep)
    return Evidence(
        evidence.gradient[keep],
        evidence.values[keep],
        evidence.rounding_at(keep),
        evidence.noise_at(keep),
        Kinks(np.searchsorted(keep, kinks.positions[kept]), kinks.low[kept], kinks.high[kept]),
    )
