"""Two gradients held against each other: norms, counts and the worst components of one block.

The passes go over pieces that stay in the cache; nothing is done for single components but for
those that are in trouble.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastcheck.approximation import Approximation, Kinks

__all__ = [
    "STATUSES",
    "Deviations",
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

# What is made of a piece stays in the cache.
PIECE = 131072
# Fewer components are compared in NumPy.
SMALL = 16_384
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


class Deviations(Protocol):
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
        The given gradient and the approximation at the checked components.
    rounding : float, ndarray (n,) or Deviations
        σ of the gradient's own rounding, absolute; `Deviations` where all N components are there.
    noise : float or ndarray (n,)
        Standard deviation of the method's own error, absolute.
    kinks : Kinks
        Positions in these arrays.
    loop_factor : float or None
        As for `block_rounding`, where one model of the whole backward pass made all σ.
    """

    gradient: Floats
    values: Floats
    rounding: float | Floats | Deviations
    noise: float | Floats
    kinks: Kinks
    loop_factor: float | None = None

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
        if isinstance(self.rounding, (float, int, np.ndarray)):
            return _at(self.rounding, positions)
        if isinstance(positions, slice):
            return self.rounding.between(positions.start, positions.stop)
        return self.rounding.at(positions)

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


def tally(evidence: Evidence, part: slice, rules: Rules, *, patient: bool = True) -> Tally:
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
    result = Tally(checked=part.stop - part.start)
    pieces = []
    with quiet():
        for start in range(part.start, part.stop, PIECE):
            piece = slice(start, min(start + PIECE, part.stop))
            pieces.append(_piece(evidence, piece, rules, result, patient=patient))
            if not patient and result.wrong:
                break
        if isinstance(evidence.noise, np.ndarray):
            result.noise += norm(evidence.noise[part])
        else:
            result.noise += evidence.noise * math.sqrt(result.checked)
    if pieces:
        sums = [math.hypot(*column) for column in zip(*pieces, strict=True)]
        result.error, result.literal_error, result.gradient, result.approximation = sums[:4]
        result.rounding = sums[4]
    return result


def _piece(
    evidence: Evidence, piece: slice, rules: Rules, result: Tally, *, patient: bool
) -> tuple[float, float, float, float, float]:
    """Compare a piece; return the norms of error, literal error, gradient, approximation and σ."""
    gradient = evidence.gradient[piece]
    approximation = values = evidence.values[piece]
    kinks = evidence.kinks_within(piece.start, piece.stop)
    if kinks.start < kinks.stop:
        approximation = values.copy()
        approximation[evidence.kinks.positions[kinks] - piece.start] = evidence.nearest(kinks)
    sigma = evidence.rounding_at(piece)
    spread = sigma if isinstance(sigma, np.ndarray) else np.array([sigma])
    blind = np.zeros(0)
    if not math.isfinite(spread.max()):  # the model has overflowed: it can't tell
        blind = np.where(np.isfinite(spread), 0.0, np.inf)
        spread = np.where(blind > 0.0, 0.0, spread)
        result.noise = math.inf
    result.rounding_peak = max(result.rounding_peak, float(spread.max()))

    over, worst, sums = _compare(gradient, approximation, spread, rules)
    error = _root(sums[0], lambda: gradient - approximation)
    sizes = _root(sums[1], lambda: gradient), _root(sums[2], lambda: approximation)
    alike = math.sqrt(gradient.size / spread.size)
    rounding = norm(spread) * alike if alike > 1.0 else _root(sums[3], lambda: spread)

    trouble = np.zeros(0, np.int64)
    if over and not patient:
        result.wrong = gradient.size
    elif over:
        errors = np.abs(gradient - approximation)
        allowed = _allowed(gradient, approximation, spread, rules)
        trouble = np.flatnonzero(errors > allowed)
        noise = evidence.noise_at(piece.start + trouble) + (blind[trouble] if blind.size else 0.0)
        forgiven = allowed[trouble] + rules.noise * noise
        _trouble(piece.start + trouble, errors[trouble], forgiven, result)
    _largest(abs(float(gradient[worst] - approximation[worst])), piece.start + worst, result)
    literal = error
    if kinks.start < kinks.stop:
        literal = norm(gradient - values)
        _accepted_kinks(evidence, kinks, piece.start + trouble, result)
    return error, literal, *sizes, rounding


def _compare(
    gradient: Floats, approximation: Floats, sigma: Floats, rules: Rules
) -> tuple[int, int, Floats]:
    """Return how many do not agree, where the largest error is, and sums of squares.

    These are of the error, the gradient, the approximation and σ. The kernel does it in one pass;
    what is small does not wait for numba to be imported.
    """
    if gradient.size < SMALL:
        error = gradient - approximation
        sums = np.array([np.dot(part, part) for part in (error, gradient, approximation, sigma)])
        np.abs(error, out=error)
        over = error > _allowed(gradient, approximation, sigma, rules)
        return int(np.count_nonzero(over)), int(error.argmax()), sums
    from fastcheck.kernels.comparison import compare

    sums = np.empty(4)
    return *compare(gradient, approximation, sigma, (rules.tol, rules.rounding), sums), sums


def _allowed(gradient: Floats, approximation: Floats, sigma: Floats, rules: Rules) -> Floats:
    """Return tol·(|g| + |g_approx|) + K·σ; tol first, so that the sum can't overflow."""
    allowed = rules.tol * np.abs(gradient) + rules.tol * np.abs(approximation)
    return np.asarray(allowed + rules.rounding * sigma)


def _root(squares: float, values: Callable[[], Floats]) -> float:
    """Return √squares, or ‖values‖₂ where the squares' sum overflowed or lost small terms."""
    return math.sqrt(squares) if SAFE_SUMS[0] < squares < SAFE_SUMS[1] else norm(values())


def _trouble(positions: Integers, errors: Floats, forgiven: Floats, result: Tally) -> None:
    """Tell `wrong` from `cannot tell` among components that do not agree.

    `forgiven` is what the method's own error explains, with what is allowed.
    """
    within_noise = errors <= forgiven
    result.cannot_tell += int(np.count_nonzero(within_noise))
    result.wrong += int(np.count_nonzero(~within_noise))
    result.keep(CANNOT_TELL, errors[within_noise], positions[within_noise])
    result.keep(WRONG, errors[~within_noise], positions[~within_noise])


def _largest(error: float, position: int, result: Tally) -> None:
    """Remember the largest error of all, whatever its status, as `agree`."""
    found = Finding(AGREE, error, position)
    known = result.findings[-1] if result.findings else None
    if known is None or known.severity != AGREE:  # the list ends with the mildest
        result.findings.append(found)
    elif found.error > known.error:
        result.findings[-1] = found


def _accepted_kinks(evidence: Evidence, kinks: slice, trouble: Integers, result: Tally) -> None:
    """Count the kinks whose gradient is right; remember those farthest from the approximation."""
    positions = evidence.kinks.positions[kinks]
    positions = positions[~np.isin(positions, trouble)]
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


def line_up(
    gradient: Floats, approximation: Approximation, sigma: float | Floats | Deviations
) -> Lineup:
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
    noise, kinks = approximation.noise, approximation.kinks
    evidence = Evidence(gradient, values, sigma, noise, kinks, loop_factor)
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
        evidence.loop_factor,
    )
