"""Fits of one array to another: factors with their names, wrong rows, weights of the samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.model.network import Network
from fastcheck.types import Floats
from fastcheck.validation import UNIT_ROUNDOFF

__all__ = [
    "Factor",
    "KnownFactors",
    "Overlay",
    "agreeing",
    "are_clipped",
    "are_counts",
    "common_weight",
    "few_samples",
    "fraction",
    "lower_precision_of",
    "overlay",
    "ratio",
    "sample_weights",
    "usual_weights",
    "weights_text",
]

Flags = NDArray[np.bool_]
Floor = Floats | float

INFORMATIVE_FACTOR = 3.0  # times the floor: what is smaller matches anything
MAX_SAMPLES = 3  # with an error of their own, beside others that are right


@dataclass(frozen=True)
class Factor:
    """A factor, what it is called, and what else it might be called here.

    Attributes
    ----------
    value : float
    text : str
        `m = 64`, `½` or `0.3127`.
    named : bool
        Whether it is a number that slips are known for.
    others : tuple of str
        Other names of the same number, as clauses.
    """

    value: float
    text: str
    named: bool
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownFactors:
    """The numbers that slips multiply by in a layer, the most usual first, and their names."""

    names: tuple[str, ...]
    numbers: Floats

    @classmethod
    def of(cls, network: Network, layer: int, m: int) -> KnownFactors:
        """Return those that come from the sizes of a network's layer and of the batch."""
        names, numbers = zip(*_known(network, layer, m), strict=True)
        return cls(names, np.array(numbers))

    def factor(self, value: float, slack: float = 1e-6) -> Factor:
        """Name a factor, known to a relative `slack`."""
        near = np.abs(value - self.numbers) <= slack * np.abs(self.numbers)
        names = [self.names[k] for k in np.flatnonzero(near)]
        if names:
            return Factor(value, names[0], True, tuple(f"the factor is {n}" for n in names[1:]))
        return Factor(value, _digits(value), False)


def _digits(value: float) -> str:
    """Return a factor in four digits, or in as many as tell it from 1."""
    off = abs(value - 1.0)
    digits = 4 if off == 0.0 or off > 0.1 else 2 - math.floor(math.log10(off))
    return f"{value:.{digits}g}"


def _known(network: Network, layer: int, m: int) -> Iterator[tuple[str, float]]:
    """Yield the numbers that slips multiply by, the most usual first."""
    yield from (("0", 0.0), ("2", 2.0), ("½", 0.5), ("−1", -1.0))
    sizes = network.sizes
    numbers = [("m", m), (f"n{layer}", sizes[layer]), (f"n{layer - 1}", sizes[layer - 1])]
    numbers.append(("the number of outputs", sizes[-1]))
    for name, n in numbers:
        if n > 1:
            yield f"{name} = {n}", float(n)
            yield f"1/{name} = 1/{n}", 1.0 / n
            yield f"−{name} = −{n}", -float(n)
            yield f"−1/{name} = −1/{n}", -1.0 / n
            yield f"2·{name} = {2 * n}", 2.0 * n
            yield f"2/{name} = 2/{n}", 2.0 / n
    if m > 1:
        yield f"m/(m − 1) = {m}/{m - 1}", m / (m - 1)
        yield f"(m − 1)/m = {m - 1}/{m}", (m - 1) / m
        yield f"1/m² = 1/{m * m}", 1.0 / (m * m)
    for number in (3.0, 4.0, 10.0, 100.0, 1000.0):
        yield f"{number:g}", number
        yield f"1/{number:g}", 1.0 / number
        yield f"−{number:g}", -number
    yield "−½", -0.5
    yield "−2", -2.0
    if network.l2:
        yield f"λ = {network.l2:g}", network.l2
    for mask in network.masks or ():
        if mask is not None and mask.max(initial=0.0) > 0:
            scale = float(mask.max())
            yield f"1/keep_prob = {scale:.4g}", scale
            yield f"keep_prob = {1 / scale:.4g}", 1.0 / scale


def agreeing(u: Floats, p: Floats, floor: Floor, rtol: float) -> Flags:
    """Return where |u − p| ≤ rtol·(|u| + |p|) + floor."""
    return np.asarray(np.abs(u - p) <= rtol * (np.abs(u) + np.abs(p)) + floor)


def fraction(u: Floats, p: Floats, floor: Floor, rtol: float) -> float:
    """Return the share of the components with anything to say that agree."""
    telling = np.maximum(np.abs(u), np.abs(p)) > INFORMATIVE_FACTOR * np.asarray(floor)
    count = int(np.count_nonzero(telling))
    if count == 0:
        return 1.0
    return float(np.count_nonzero(agreeing(u, p, floor, rtol) & telling)) / count


def ratio(u: Floats, p: Floats, floor: Floor) -> float:
    """Return the factor from p to u that most components share; NaN where there is none."""
    size = np.abs(p)
    telling = (size > 30.0 * np.asarray(floor)) & (size > 1e-3 * size.max(initial=0.0))
    if not telling.any():
        return math.nan
    quotients = np.sort(u[telling] / p[telling])
    middle = float(quotients[quotients.size // 2])
    close = np.abs(u - middle * p) <= 1e-3 * np.abs(u) + np.asarray(floor)
    close &= telling
    if not close.any():
        return middle
    chosen = p[close]
    return float(u[close] @ chosen / (chosen @ chosen))


@dataclass(frozen=True)
class Overlay:
    """Few rows, columns or entries of a block that are wrong while the rest is right.

    Attributes
    ----------
    kind : str
        `rows`, `columns` or `entries`.
    places : tuple
        Row numbers, column numbers or (row, column).
    factor : float
        What most of them are multiplied by; NaN where there is no common factor.
    """

    kind: str
    places: tuple[tuple[int, ...], ...]
    factor: float


def overlay(
    u: Floats, p: Floats, floor: Floor, rtol: float, *, most: float = 0.5
) -> Overlay | None:
    """Return which few rows, columns or entries of u are not p's, None where too many are.

    Parameters
    ----------
    u, p : ndarray, shape (rows, columns) or (n,)
    floor : float or ndarray of that shape
    rtol : float
    most : float
        The share of the rows or columns that may be wrong.
    """
    bad = ~agreeing(u, p, floor, rtol)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return None
    telling = np.maximum(np.abs(u), np.abs(p)) > INFORMATIVE_FACTOR * np.asarray(floor)
    factor = _shared(u[bad], p[bad])
    if u.ndim == 2 and count > 1:
        for axis, kind in ((0, "rows"), (1, "columns")):
            lines = np.flatnonzero(bad.any(axis=1 - axis))
            within = np.take(telling, lines, axis=axis)
            alive = int(np.count_nonzero(telling.any(axis=1 - axis)))
            full = count >= 0.7 * np.count_nonzero(within)
            few = lines.size <= most * alive
            if full and few and (lines.size == 1 or within.shape[1 - axis] > 1):
                return Overlay(kind, tuple((int(i),) for i in lines), factor)
    if count <= max(1, min(64, int(most * np.count_nonzero(telling) / 1.5))):
        places = tuple(tuple(int(i) for i in place) for place in np.argwhere(bad))
        return Overlay("entries", places, factor)
    return None


def _shared(u: Floats, p: Floats) -> float:
    """Return the factor that all share, NaN where they don't."""
    if not np.any(u):
        return 0.0
    alive = p != 0
    if not alive.any() or np.any(u[~alive]):
        return math.nan
    quotients = u[alive] / p[alive]
    middle = float(np.median(quotients))
    return middle if np.all(np.abs(quotients - middle) <= 1e-5 * abs(middle)) else math.nan


def sample_weights(
    u: Floats, dZ: Floats, A: Floats | None, generator: np.random.Generator
) -> Floats | None:
    """Return w with u ≈ Σ_s w_s dZ_s ⊗ A_s, None where u has too few components to tell.

    Parameters
    ----------
    u : ndarray, shape (n_l, n_{l-1}), or (n_l,) without A
    dZ : ndarray, shape (m, n_l)
    A : ndarray, shape (m, n_{l-1}), or None
    generator : Generator
        Draws the components to fit on.
    """
    m = dZ.shape[0]
    if u.size < 1.3 * m or m > 4096:
        return None
    alive = np.flatnonzero((u != 0).ravel())
    if alive.size < 1.3 * m:
        return None
    places = generator.choice(alive, min(alive.size, 3 * m + 40), replace=False)
    rows, columns = (places, None) if A is None else np.divmod(places, u.shape[1])
    M = dZ[:, rows].T if A is None or columns is None else (dZ[:, rows] * A[:, columns]).T
    size = np.linalg.norm(M, axis=0)
    used = size > 1e-12 * size.max(initial=0.0)
    if not used.any():
        return None
    weights = np.ones(m)
    solved, _, rank, spectrum = np.linalg.lstsq(
        M[:, used] / size[used], u.ravel()[places], rcond=None
    )
    if rank < used.sum() or spectrum[-1] < 1e-8 * spectrum[0]:
        return None
    weights[used] = solved / size[used]
    near = np.round(2.0 * weights) / 2.0
    close = np.abs(weights - near) < 1e-6
    weights[close] = near[close]
    return weights


def common_weight(weights: Floats) -> float:
    """Return the factor that most samples have, 1 where they have weights of their own."""
    values, counts = np.unique(np.round(weights, 7), return_counts=True)
    kept = values != 0.0
    if values.size > 3 or not kept.any():
        return 1.0
    return float(values[kept][counts[kept].argmax()])


def are_counts(weights: Floats) -> bool:
    """Whether weights say that samples were left out or counted several times."""
    return bool(np.all(np.abs(weights - np.round(weights)) < 1e-6) and np.all(weights >= 0.0))


def few_samples(
    residual: Floats, A: Floats, limit: float
) -> tuple[NDArray[np.int64], Floats] | None:
    """Return the few samples s, and their e_s, with residual = Σ_s e_s ⊗ A_s; None for too many.

    Parameters
    ----------
    residual : ndarray, shape (n_l, k)
    A : ndarray, shape (m, k)
    limit : float
        The norm that may be left.
    """
    size = np.einsum("sk,sk->s", A, A)
    chosen: list[int] = []
    left = residual
    for _ in range(min(MAX_SAMPLES, A.shape[0] // 4, A.shape[1] - 2)):
        score = np.einsum("sn,sn->s", A @ left.T, A @ left.T) / np.where(size > 0, size, np.inf)
        chosen.append(int(score.argmax()))
        basis = A[chosen]
        solved, _, rank, _ = np.linalg.lstsq(basis.T, residual.T, rcond=None)
        if rank < len(chosen):
            return None
        left = residual - solved.T @ basis
        if float(np.linalg.norm(left)) <= limit:
            return np.array(chosen), np.asarray(solved)
    return None


def usual_weights(m: int) -> Iterator[Floats]:
    """Yield the weights that samples have by mistake: some left out, one counted twice."""
    if m < 2:
        return
    place = np.arange(m)
    halves = [place != m - 1, place != 0, place >= m // 2, place < m // 2]
    strides = [place % 2 == 0, place % 2 == 1, place == 0, place == m - 1]
    for kept in (*halves, *strides):
        yield kept.astype(np.float64)
    for sample in range(m if m <= 256 else 0):
        if 0 < sample < m - 1:
            yield (place != sample).astype(np.float64)
        yield 1.0 + (place == sample)


def weights_text(weights: Floats) -> tuple[str, bool]:
    """Say what weights of samples mean, and whether it is a usual thing."""
    m = weights.size
    values, numbers, counts = np.unique(
        np.round(weights, 7), return_inverse=True, return_counts=True
    )
    if values.size > 3:
        return (
            f"from {weights.min():.3g} to {weights.max():.3g}",
            False,
        )
    usual = float(values[counts.argmax()])
    if usual == 0.0 and values.size == 2:  # more are left out than kept
        usual = float(values[values != 0.0][0])
    parts = []
    for number in np.flatnonzero(values != usual):
        value, which = float(values[number]), np.flatnonzero(numbers == number)
        says = "left out" if value == 0.0 else f"counted {value:.4g} times"
        parts.append(f"{_listed(which, m)} {says}")
    if abs(usual - 1.0) > 1e-6:
        parts.append(f"the others counted {usual:.4g} times")
    return ", ".join(parts), True


def _listed(which: NDArray[np.int64], m: int) -> str:
    """`the last sample`, `samples 3, 7` or `samples 32 to 63`."""
    if which.size == 1:
        place = {0: "the first sample", m - 1: "the last sample"}.get(int(which[0]))
        return place or f"sample {which[0]}"
    if which.size == which[-1] - which[0] + 1:
        return f"samples {which[0]} to {which[-1]}"
    shown = ", ".join(map(str, which[:6]))
    return f"samples {shown}" + (f" and {which.size - 6} more" if which.size > 6 else "")


def lower_precision_of(values: Floats, precision: str, slack: Floats | float = 0.0) -> str | None:
    """Return the coarsest precision below `precision` that holds all the values, None for none.

    Parameters
    ----------
    values : ndarray, float64
    precision : str
    slack : float or ndarray of the shape of values
        How far from a number of that precision a value may lie.
    """
    alive = values != 0
    allowed = np.broadcast_to(np.asarray(slack), values.shape)[alive]
    values = values[alive]
    if values.size < 3 or np.unique(np.abs(values[:100])).size < 3:
        return None
    for name in ("bfloat16", "float16", "float32"):
        if UNIT_ROUNDOFF[name] <= UNIT_ROUNDOFF[precision]:
            continue
        for part in (slice(0, 1000), slice(None)):  # most fail at the first few
            held = np.abs(rounded_to(values[part], name) - values[part]) <= allowed[part]
            if not held.all():
                break
        else:
            return name
    return None


def are_clipped(values: Floats, limit: float) -> bool:
    """Whether several sizes lie beyond a limit: with two classes, each one comes twice."""
    beyond = np.abs(values[np.abs(values) > limit * (1.0 + 1e-6)])
    return beyond.size > 1 and bool(np.ptp(beyond) > 1e-6 * beyond.max())


def rounded_to(values: Floats, precision: str) -> Floats:
    """Return values rounded to a precision, as float64."""
    with np.errstate(over="ignore"):
        if precision != "bfloat16":
            return np.asarray(values.astype(precision), dtype=np.float64)
        bits = values.astype(np.float32).view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        bits = (bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)
        return np.asarray(bits.view(np.float32), dtype=np.float64)
