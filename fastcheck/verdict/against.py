"""A gradient beside a trusted one: what its precision explains, block by block and in pieces.

The yardstick is the error of a plain implementation in the same precision, as in flash-attention's
tests: up to three times it, for the norm of a block. Where there is none, a rounding model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastcheck.model.lazy_arrays import LazyArray, held_precision
from fastcheck.types import Floats
from fastcheck.validation import unit_roundoff
from fastcheck.verdict.verdict import (
    VACUOUS,
    BlockVerdict,
    ComponentVerdict,
    grade,
)

__all__ = ["AgainstBlock", "Ruled", "Trio", "measured", "ruled"]

PIECE = 2**20
MAX_SHOWN = 10
# flash-attention, tests/test_flash_attn.py: dq, dk, dv within three times PyTorch's error.
PLAIN_FACTOR = 3.0
# With few independent errors two equally good implementations differ by more. The factors up to
# which a block agrees, and from which on it is wrong, are those of an F distribution.
AGREE_RATE, WRONG_RATE = 1e-3, 1e-6
PRIOR_ERRORS = 8.0  # independent errors that the typical relative error of all blocks counts for
COMPONENT_SIGMAS = 8.0
STORAGE_ROUNDINGS = 4.0
# The gradient of a bias in front of a softmax or a norm is zero up to rounding.
ZERO_BESIDE_OTHERS = 2.0**-20
ILL_CONDITIONED = 0.3  # relative error of the plain implementation, from which on nothing is told
# Without a plain implementation: unit roundoffs of a typical component that rounding explains,
# and how many times more it does not. Sums in half precision are kept in float32.
MODEL_ROUNDINGS = {"float64": 256.0, "float32": 256.0, "float16": 16.0, "bfloat16": 16.0}
SURELY_WRONG = {"float64": 16.0, "float32": 16.0, "float16": 16.0, "bfloat16": 4.0}
LARGEST_ROUNDING = 0.2  # relative error of a gradient in bfloat16 that is stored in float32
LOCAL_SHARE = 0.5
LEAST_HALF = 2.0**-25  # half the smallest float16


class Spread(NamedTuple):
    """The tolerance of a component: a floor, and a share of the reference."""

    floor: float
    share: float


class Ruled(NamedTuple):
    """The verdict on a block, why, its worst components, and what a component may be off by.

    `zero` says that the reference is zero beside the other blocks, up to its own rounding;
    `typical` is what a component may be off by for the block's norm to be within its tolerance.
    """

    verdict: BlockVerdict
    why: str
    components: tuple[ComponentVerdict, ...]
    spread: Spread
    zero: bool
    typical: float


class Trio(NamedTuple):
    """A block: given, in higher precision, and by a plain implementation."""

    given: LazyArray
    reference: LazyArray
    baseline: LazyArray | None

    def pieces(self) -> Iterator[tuple[int, Floats, Floats, Floats | None]]:
        """Yield the index of the first component, and all three piece by piece."""
        for start in range(0, self.given.size, PIECE):
            stop = min(start + PIECE, self.given.size)
            base = None if self.baseline is None else self.baseline.piece(start, stop)
            yield start, self.given.piece(start, stop), self.reference.piece(start, stop), base


@dataclass(frozen=True)
class AgainstBlock:
    """What was measured of a block.

    Attributes
    ----------
    name : str
    trio : Trio
    precision : str
        Of the given gradient.
    error, plain_error, given_norm, norm : float
        ‖given − reference‖, ‖baseline − reference‖ (0 without), ‖given‖, ‖reference‖.
    largest_plain : float
        The largest component of the baseline's error.
    independent : float
        How many independent errors the baseline's are worth: (Σe²)²/Σe⁴.
    broken : int
        Components of the given gradient that are NaN or infinite.
    """

    name: str
    trio: Trio
    precision: str
    error: float
    plain_error: float
    given_norm: float
    norm: float
    largest_plain: float
    independent: float
    broken: int

    @property
    def size(self) -> int:
        """Number of components."""
        return self.trio.given.size

    @property
    def storage(self) -> float:
        """‖rounding‖ of storing the result in its precision."""
        rounding = unit_roundoff(self.precision) * self.norm / math.sqrt(3.0)
        tiny = LEAST_HALF * math.sqrt(self.size) if self.precision == "float16" else 0.0
        return rounding + tiny


def measured(name: str, trio: Trio, precision: str | None) -> AgainstBlock:
    """Return the norms of a block, in one pass."""
    squares = np.zeros(4)
    fourth = largest = 0.0
    broken = 0
    for _, given, reference, base in trio.pieces():
        finite = np.isfinite(given)
        broken += int(given.size - finite.sum())
        error = np.where(finite, given, 0.0) - reference
        plain = np.zeros(0) if base is None else np.nan_to_num(base - reference)
        kept = np.where(finite, given, 0.0)
        squares += [float(np.dot(v, v)) for v in (error, plain, kept, reference)]
        fourth += float(np.sum(plain**4))
        largest = max(largest, float(np.max(np.abs(plain), initial=0.0)))
    error_norm, plain_norm, given_norm, norm = np.sqrt(squares).tolist()
    independent = squares[1] ** 2 / fourth if fourth > 0.0 else 0.0
    held = precision or held_precision(trio.given)
    return AgainstBlock(
        name, trio, held, error=error_norm, plain_error=plain_norm, given_norm=given_norm,
        norm=norm, largest_plain=largest, independent=float(independent), broken=broken,
    )  # fmt: skip


@dataclass(frozen=True)
class _Typical:
    """What the blocks have in common: relative error of the baseline, rms of the reference."""

    relative: float
    rms: float


def ruled(blocks: list[AgainstBlock]) -> list[Ruled]:
    """Return the verdict on each block."""
    relative = [b.plain_error / b.norm for b in blocks if b.norm > 0.0 and b.plain_error > 0.0]
    rms = [b.norm / math.sqrt(b.size) for b in blocks if b.norm > 0.0]
    typical = _Typical(_median(relative), _median(rms))
    offset, found = 0, []
    for number, block in enumerate(blocks):
        found.append(_verdict(block, typical, number + 1, offset))
        offset += block.size
    return found


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0


def _verdict(block: AgainstBlock, typical: _Typical, layer: int, offset: int) -> Ruled:
    rule = _modelled if block.trio.baseline is None else _beside_plain
    status, allowed, why, spread = rule(block, typical)
    typical_error = allowed / math.sqrt(max(block.size, 1))
    worst, (wrong, apart), rest = _components(block, spread, offset, typical_error)
    local = wrong <= LOCAL_SHARE * block.size and rest <= allowed < block.norm
    if block.broken:
        status, why = "wrong", f"{block.broken:,} components are NaN or infinite"
    elif wrong and status != "wrong" and (local or block.trio.baseline is not None):
        verb = "component is" if wrong == 1 else "components are"
        status, why = "wrong", f"{wrong:,} {verb} farther off than rounding explains"
    # Errors that are spread over a block are told of the block, of no component.
    spread_out = status == "cannot tell" or (status == "wrong" and not wrong)
    unsure = typical_error if spread_out else math.inf
    components = tuple(_component(found, status, unsure) for found in worst)
    difference = _ratio(block.error, block.given_norm + block.norm)
    verdict = BlockVerdict(
        f"d({block.name})", block.name, layer, "array", tuple(block.trio.given.shape), block.size,
        checked=block.size, difference=difference, literal_difference=difference,
        gradient_norm=block.given_norm, approximation_norm=block.norm, error_norm=block.error,
        tolerance=allowed, noise=block.plain_error, status=status,
        grade=grade(difference, "wrong" if status == "wrong" else "agree"),
        wrong=wrong if status == "wrong" else 0, cannot_tell=apart if spread_out else 0, kinks=0,
        worst=components[0] if components else None,
        resolution=allowed / block.norm if block.norm > 0.0 else math.inf,
    )  # fmt: skip
    zero = block.norm <= ZERO_BESIDE_OTHERS * typical.rms * math.sqrt(block.size)
    if zero and status == VACUOUS and block.norm > 0.0:
        why = "zero up to rounding beside the other blocks, in both as far as can be told"
    return Ruled(verdict, why, components, spread, zero, typical_error)


def _ratio(error: float, size: float) -> float:
    return min(1.0, error / size) if size > 0.0 else float(error > 0.0)


Ruling = tuple[str, float, str, Spread]


def _beside_plain(block: AgainstBlock, typical: _Typical) -> Ruling:
    """Rule by the error of the plain implementation."""
    prior = max(block.storage, typical.relative * block.norm)
    weight = block.independent + PRIOR_ERRORS
    mixed = block.independent * block.plain_error**2 + PRIOR_ERRORS * prior**2
    plain = max(block.plain_error, math.sqrt(mixed / weight))
    storage = PLAIN_FACTOR * block.storage
    allowed = _factor(block.independent, AGREE_RATE) * plain + storage
    factor = _factor(block.independent, WRONG_RATE)
    rms = plain / math.sqrt(block.size)
    floor = max(factor * block.largest_plain, COMPONENT_SIGMAS * rms)
    spread = Spread(floor, STORAGE_ROUNDINGS * unit_roundoff(block.precision))
    relative = block.plain_error / block.norm if block.norm > 0.0 else math.inf
    times = block.error / plain if plain > 0.0 else 0.0
    status, why = "wrong", f"its error is {times:.2g} times that of the baseline"
    if ILL_CONDITIONED < relative < 1.0 and block.error <= 2.0 * allowed:
        why = f"ill-conditioned: the plain implementation itself is off by {relative:.0%}"
        status = "cannot tell"
    elif block.norm <= allowed and block.error <= allowed:
        status, why = VACUOUS, _vacuous(block, allowed)
    elif block.error <= allowed:
        status, why = "agree", ""
    elif block.error <= factor * plain + storage:
        status = "cannot tell"
    return status, allowed, why, spread


def _factor(independent: float, rate: float) -> float:
    """Return how many times the plain error an equally good implementation may have."""
    from scipy.special import fdtri

    first = max(independent, 1.0)
    ratio = float(fdtri(first, first + PRIOR_ERRORS, 1.0 - rate))
    return max(PLAIN_FACTOR, math.sqrt(ratio))


def _vacuous(block: AgainstBlock, allowed: float) -> str:
    if block.norm == 0.0 and block.error == 0.0:
        return "zero in both"
    return f"vacuous: the reference ({block.norm:.2g}) is below the tolerance ({allowed:.2g})"


def _modelled(block: AgainstBlock, typical: _Typical) -> Ruling:
    """Rule by what rounding usually does, where there is no baseline."""
    rounding = MODEL_ROUNDINGS[block.precision] * unit_roundoff(block.precision)
    size = typical.rms * math.sqrt(block.size)
    if block.norm > ZERO_BESIDE_OTHERS * size:
        size = block.norm
    sure = SURELY_WRONG[block.precision]
    allowed = rounding * size + PLAIN_FACTOR * block.storage
    scale = size / math.sqrt(max(block.size, 1))
    spread = Spread(sure * rounding * scale, sure * rounding)
    if block.error <= allowed:
        if block.norm <= allowed:
            return VACUOUS, allowed, _vacuous(block, allowed), spread
        return "agree", allowed, "", spread
    relative = block.error / block.norm if block.norm > 0.0 else math.inf
    why = (
        f"off by {relative:.2g}, more than rounding in {block.precision} usually does "
        f"({allowed / max(block.norm, 1e-300):.2g}): a baseline can tell"
    )
    certain = block.error > sure * allowed and relative > LARGEST_ROUNDING
    return ("wrong" if certain else "cannot tell"), allowed, why, spread


Found = tuple[float, int, float, float, float]  # excess, index, given, reference, tolerance


def _components(
    block: AgainstBlock, spread: Spread, offset: int, typical: float
) -> tuple[list[Any], tuple[int, int], float]:
    """Return the worst components, how many are off by too much, and ‖error‖ of the others.

    How many are beyond their own tolerance, and how many beyond a typical error.
    """
    found: list[Found] = []
    wrong, apart, rest = 0, 0, 0.0
    for start, given, reference, _ in block.trio.pieces():
        error = np.abs(given - reference)
        error[~np.isfinite(given)] = np.inf
        allowed = spread.floor + spread.share * np.abs(reference)
        excess = np.divide(
            error, allowed, out=np.where(error > 0.0, np.inf, 0.0), where=allowed > 0
        )
        wrong += int(np.count_nonzero(excess > 1.0))
        apart += int(np.count_nonzero(error > typical))
        rest += float(np.sum(error[excess <= 1.0] ** 2))
        count = min(MAX_SHOWN, excess.size)
        for i in np.argpartition(-excess, count - 1)[:count].tolist():
            entry = (excess[i], start + i, given[i], reference[i], allowed[i])
            found.append((float(entry[0]), start + i, *map(float, entry[2:])))
    found.sort(key=lambda f: -f[0])
    named = [(_name(block, int(f[1])), block.name, int(f[1]) + offset, f) for f in found]
    return named[:MAX_SHOWN], (wrong, apart), math.sqrt(rest)


def _name(block: AgainstBlock, index: int) -> str:
    shape = block.trio.given.shape
    place = ", ".join(str(int(p)) for p in np.unravel_index(index, shape)) if shape else ""
    return f"{block.name}[{place}]" if place else block.name


def _component(found: Any, status: str, unsure: float) -> ComponentVerdict:
    name, block, index, (excess, _, given, reference, allowed) = found
    own = "cannot tell" if abs(given - reference) > unsure else "agree"
    own = "wrong" if status == "wrong" and excess > 1.0 else own
    return ComponentVerdict(name, f"d({block})", index, given, reference, allowed, own)
