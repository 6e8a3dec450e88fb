"""What a diagnosis re-enacts on: the trace, the right steps, and when two blocks match."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fastcheck.diagnosis.bugs import BUGS, factor_bugs
from fastcheck.diagnosis.fitting import Factor, KnownFactors, agreeing, fraction, ratio
from fastcheck.diagnosis.layer_errors import LayerGradients, Site
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import RIGHT, Here, Steps, Trace, forward_pass, gradients
from fastcheck.rounding import Rounding, rounding
from fastcheck.rounding.evaluation import output_gradient, slope
from fastcheck.rounding.precision import Precision
from fastcheck.types import Floats, Integers
from fastcheck.validation import unit_roundoff
from fastcheck.verdict.rules import ROUNDING_FACTOR

__all__ = ["Context", "Delta", "Found", "Hypothesis", "Sight", "Sketch", "total_cost"]


MAX_GROWTH = 10.0  # than the given block: so far the floor grows with a candidate
SKETCH_SIZE = 40  # rows and columns of a block that a candidate is tried on first
# The share of an error that may be left where a candidate explains it: what merely lies nearer
# than the right block within a wide tolerance is no cause.
MAX_SHARE_LEFT = 0.1
# Wrong layers that are searched for a cause, over all hypotheses, and the errors that are held
# against the gradient there: beyond, only places are told.
MAX_SEARCHES = 60
MAX_CANDIDATES = 12_000
# The same mistake made again in another layer is hardly a second mistake.
REPEAT_COST = 0.12
SAME_BUG = {"bias_factor": "factor", "data_factor": "factor", "bias_copied": "copied",
        "bias_entries": "entries", "bias_signs": "signs_only"}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A slip at a place.

    Attributes
    ----------
    slip : str
        A key of `BUGS`.
    layer : int
        0 for what concerns everything.
    place : str
        `W`, `b` (one block), `delta` (dZ_l and all before it) or `whole`.
    value : str
        What a fit found.
    extra : float
        How much less likely than another slip.
    located : bool
        Whether only the place is known, and not the cause.
    also : tuple of Found
        Other slips that explain the same.
    equal : tuple of str
        What else gives the same gradient here.
    """

    slip: str
    layer: int
    place: str
    value: str = ""
    extra: float = 0.0
    equal: tuple[str, ...] = ()
    located: bool = False
    also: tuple[Found, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The same for the same mistake in two layers."""
        return SAME_BUG.get(self.slip, self.slip), self.value

    @property
    def cost(self) -> float:
        """How unlikely it is."""
        return 1.0 + BUGS[self.slip].rare + self.extra


def total_cost(found: tuple[Found, ...]) -> float:
    """Return how unlikely some slips are together."""
    return Bill().with_(found).cost


@dataclass(frozen=True)
class Bill:
    """How unlikely some slips are together, and which mistakes are among them."""

    cost: float = 0.0
    keys: frozenset[tuple[str, str]] = frozenset()

    def with_(self, found: tuple[Found, ...]) -> Bill:
        """Return it with more slips."""
        cost, keys = self.cost, set(self.keys)
        for one in found:
            cost += REPEAT_COST if one.key in keys else one.cost
            if one.slip != "unknown":
                keys.add(one.key)
        return Bill(cost, frozenset(keys))


@dataclass(frozen=True)
class Sight:
    """The user's gradient as it is looked at: with a slip of the finished gradient undone.

    Attributes
    ----------
    vector : ndarray, shape (N,), float64
    rtol : float
        Up to which components agree, relative.
    clip : float
        What predictions are clipped at; infinity for not at all.
    found : tuple of Found
        What was undone.
    precision : str
        In which it is computed.
    """

    vector: Floats
    rtol: float
    precision: str
    clip: float = np.inf
    found: tuple[Found, ...] = ()

    def clipped(self, values: Floats) -> Floats:
        """Return a prediction as it would look."""
        return values if self.clip == np.inf else np.clip(values, -self.clip, self.clip)


@dataclass(frozen=True)
class Delta(LayerGradients):
    """A hypothesis on the error at a layer, and the slips that led to it."""

    found: tuple[Found, ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """What was found down to a layer, and the error that it leaves."""

    sight: Sight
    found: tuple[Found, ...] = ()
    delta: Delta | None = None
    bill: Bill = Bill()

    @classmethod
    def of(cls, sight: Sight, found: tuple[Found, ...] = ()) -> Hypothesis:
        """Return what was found in a gradient as it is looked at."""
        return cls(sight, found, bill=Bill().with_(sight.found + found))

    def below(self, found: tuple[Found, ...], delta: Delta) -> Hypothesis:
        """Return it with what was found in one more layer, and the error there."""
        return Hypothesis(self.sight, self.found + found, delta, self.bill.with_(found))

    @property
    def cost(self) -> float:
        """How unlikely it is."""
        return self.bill.cost


@dataclass(frozen=True)
class Sketch:
    """A few rows and columns of one layer's blocks."""

    rows: Integers
    columns: Integers
    W_given: Floats
    u_b: Floats | None
    W: Floats
    A: Floats
    W_floor: Floats
    floor_b: Floats | float
    W_size: float
    size_b: float


@dataclass
class Context:
    """What re-enactment needs, made once.

    Attributes
    ----------
    network, batch : Network, Batch
    precision : str
        Of the user's gradient.
    """

    network: Network
    batch: Batch
    precision: str
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    searches: int = 0
    candidates: int = 0

    @cached_property
    def custom(self) -> bool:
        """Whether derivatives are made of differences, as the functions are the user's own."""
        own = [a.entry for a in self.network.activations] + [self.network.loss.entry]
        return any(entry is None for entry in own)

    @cached_property
    def rtol(self) -> float:
        """Relative rounding that is forgiven, beside that of σ."""
        return self.rtol_in(self.precision)

    def rtol_in(self, precision: str) -> float:
        """Relative rounding that is forgiven in a precision, beside that of σ."""
        return max(1e-6 if self.custom else 1e-9, 50.0 * unit_roundoff(precision))

    @cached_property
    def trace(self) -> Trace:
        """One forward pass."""
        return forward_pass(self.network, self.batch)

    @cached_property
    def steps(self) -> Steps:
        """The right steps; with differences for derivatives that no table has."""
        if not self.custom:
            return RIGHT
        loss, scale = self.network.loss, self.network.data_scale(self.batch.size)

        def slopes(here: Here) -> Floats:
            return slope(self.network.activations[here.layer - 1], here.Z)

        def error(here: Here) -> Floats:
            nothing = np.zeros_like(here.A)
            limits = Precision.of("float64").limits(here.batch.size)
            return scale * output_gradient(loss, here.A, here.batch.T, nothing, limits).value

        return replace(RIGHT, slopes=slopes, output_error=error)

    @cached_property
    def right(self) -> Floats:
        """The right gradient, shape (N,)."""
        return gradients(self.network, self.batch, self.steps)

    @cached_property
    def right_errors(self) -> dict[int, LayerGradients]:
        """The right dA_l and dZ_l, by layer."""
        errors: dict[int, LayerGradients] = {}
        dA = self.steps.output_error(self.here(self.network.depth))
        for layer in range(self.network.depth, 0, -1):
            errors[layer] = self.delta(layer, dA)
            dA = self.steps.error_before(self.here(layer), errors[layer].dZ)
        return errors

    @cached_property
    def _roundings(self) -> dict[str, Rounding]:
        return {}

    def rounding(self, precision: str) -> Rounding:
        """σ of what rounding in a precision does."""
        if precision not in self._roundings:
            self._roundings[precision] = rounding(self.network, self.batch, precision)
        return self._roundings[precision]

    def site(
        self,
        layer: int,
        right: LayerGradients,
        above: LayerGradients | None = None,
        updates: tuple[Floats, ...] = (),
    ) -> Site:
        """Return where bugs in an error are looked for."""
        return Site(self.here(layer), self.steps, right, above, self.right_errors, updates)

    @property
    def is_exhausted(self) -> bool:
        """Whether as much has been searched as may be."""
        return self.searches >= MAX_SEARCHES or self.candidates >= MAX_CANDIDATES

    def counted(self, candidates: Iterator[Delta]) -> Iterator[Delta]:
        """Yield candidates as long as any more may be tried."""
        for candidate in candidates:
            if self.candidates >= MAX_CANDIDATES:
                return
            self.candidates += 1
            yield candidate

    @cached_property
    def left(self) -> dict[tuple[int, str], float]:
        """The relative difference that the best re-enactment leaves, by layer and kind."""
        return {}

    def note(self, layer: int, kind: str, u: Floats, p: Floats) -> None:
        """Remember what a re-enactment that agrees leaves."""
        size = _size(u) + _size(p)
        left = _size(u - p) / size if size else 0.0
        self.left[layer, kind] = min(left, self.left.get((layer, kind), 1.0))

    @cached_property
    def _floors(self) -> dict[tuple[str, str], Floats | float]:
        return {}

    def floor(
        self,
        sight: Sight,
        layer: int,
        kind: str,
        predicted: Floats | None = None,
        given: float = math.inf,
    ) -> Floats | float:
        """Return the absolute error that rounding explains in a block, scaled as predicted is.

        What is far larger than the block that was given does not explain it by its own rounding.
        """
        block = self.network.order.find(kind, layer)
        if block is None:
            return 0.0
        key = (sight.precision, block.name)
        if key not in self._floors:
            self._floors.clear() if block.size > 1_000_000 else None
            with np.errstate(all="ignore"):
                sigma = np.nan_to_num(self.rounding(sight.precision).block(block), posinf=0.0)
            # Where slips put back what the right pass has as zero, the mean of σ serves.
            self._floors[key] = ROUNDING_FACTOR * np.maximum(sigma, 0.3 * sigma.mean())
        floor = self._floors[key]
        if predicted is None:
            return floor
        right = float(np.linalg.norm(self.right[block.slice]))
        here = min(float(np.linalg.norm(predicted)), MAX_GROWTH * given)
        return floor * max(1.0, here / right) if right > 0.0 else 1e-9 * here + 0.0 * floor

    def full_floor(self, sight: Sight, layer: int, kind: str) -> Floats:
        """Return `floor` in the shape of the block."""
        shape = self.right_block(layer, kind).shape
        return np.broadcast_to(np.asarray(self.floor(sight, layer, kind)), shape)

    def here(self, layer: int) -> Here:
        """Return where the pass stands at a layer."""
        return Here(self.network, self.batch, self.trace, layer)

    def block(self, sight: Sight, layer: int, kind: str) -> Floats | None:
        """Return what the user has for dW_l or db_l."""
        block = self.network.order.find(kind, layer)
        return None if block is None else sight.vector[block.slice].reshape(block.shape)

    def name_factor(self, value: float, layer: int) -> Factor:
        """Name a factor, as exactly as the precision allows."""
        if layer not in self._known_factors:
            self._known_factors[layer] = KnownFactors.of(self.network, layer, self.batch.size)
        return self._known_factors[layer].factor(value, self._factor_slack)

    @cached_property
    def _known_factors(self) -> dict[int, KnownFactors]:
        return {}

    def factor(
        self,
        part: str,
        value: float,
        layer: int,
        place: str,
        *,
        slack: float | None = None,
        rare: float = 0.4,
    ) -> Found:
        """Return a factor on a part of the gradient as a bug; a factor without a name is rarer."""
        named = self.name_factor(value, layer)
        fits = factor_bugs(part, value, self.here(layer), slack or self._factor_slack)
        if fits[0].times is None:
            extra = 0.0 if named.named else rare
            return Found(fits[0].name, layer, place, named.text, extra, named.others)
        equal = tuple(bug.sentence.format(l=layer) for bug in fits[1:])
        return Found(fits[0].name, layer, place, equal=equal)

    def unit(self, value: float) -> bool:
        """Whether a factor is 1."""
        return abs(value - 1.0) <= self._factor_slack

    @property
    def _factor_slack(self) -> float:
        """How exactly a factor is known, relative."""
        return max(2e-8, 50.0 * unit_roundoff(self.precision))

    def delta(self, layer: int, dA: Floats, found: tuple[Found, ...] = ()) -> Delta:
        """Return dZ_l from dA_l by the right steps."""
        here = self.here(layer)
        dZ = dA * self.steps.slopes(here)
        mask = self.steps.mask(here)
        return Delta(dA, dZ if mask is None else dZ * mask, found)

    def masked(self, layer: int, values: Floats) -> Floats:
        """Return values (m, n_l) with the dropout mask of a layer applied."""
        mask = self.steps.mask(self.here(layer))
        return values if mask is None else values * mask

    def sketch(self, sight: Sight, layer: int) -> Sketch:
        """Take a few rows and columns that have something to say."""
        here = self.here(layer)
        W_given, u_b = self.block(sight, layer, "W"), self.block(sight, layer, "b")
        assert W_given is not None
        weight = np.abs(W_given).sum(axis=1)
        rows = self._some(weight + 1e-3 * weight.max(initial=0.0) + 1e-300)
        columns = self._some(np.abs(here.A_before).sum(axis=0) + 1e-300)
        W_floor, floor_b = self.floor(sight, layer, "W"), self.floor(sight, layer, "b")
        grid = np.ix_(rows, columns)
        return Sketch(
            rows, columns, W_given[grid], u_b, here.W[grid], here.A_before[:, columns],
            np.asarray(W_floor)[grid], floor_b,
            _size(self.right_block(layer, "W")[grid]),
            0.0 if u_b is None else _size(self.right_block(layer, "b")),
        )  # fmt: skip

    def right_block(self, layer: int, kind: str) -> Floats:
        """Return what dW_l or db_l should be."""
        block = self.network.order.find(kind, layer)
        assert block is not None
        return self.right[block.slice].reshape(block.shape)

    def _some(self, weight: Floats) -> Integers:
        """Draw up to `SKETCH_SIZE` places, those with more weight more often."""
        if weight.size <= SKETCH_SIZE:
            return np.arange(weight.size)
        heavy = np.argpartition(weight, -SKETCH_SIZE // 2)[-SKETCH_SIZE // 2 :]
        others = np.setdiff1d(np.arange(weight.size), heavy)
        drawn = self.generator.choice(others, SKETCH_SIZE // 2, replace=False)
        return np.sort(np.concatenate([heavy, drawn]))

    def agrees(self, sight: Sight, u: Floats, p: Floats, floor: Floats | float) -> bool:
        """Whether every component of a block agrees."""
        return bool(np.all(agreeing(u, sight.clipped(p), floor, sight.rtol)))

    def explains(self, sight: Sight, layer: int, kind: str, u: Floats, p: Floats) -> bool:
        """Whether a block that agrees leaves little of the error that it is to explain."""
        right = sight.clipped(self.right_block(layer, kind))
        left, error = _size(u - sight.clipped(p)), _size(u - right)
        return left <= MAX_SHARE_LEFT * error or self.agrees(
            sight, u, right, self.floor(sight, layer, kind)
        )

    def penalty_factors(self) -> list[float]:
        """Multiples of the penalty that are worth trying, the right one first."""
        m = self.batch.size
        return [1.0, 0.0, 2.0, 0.5, -1.0, float(m), 1.0 / m] if self.network.l2 else [1.0]

    def sketched_fit(
        self, sight: Sight, sketch: Sketch, dZ: Floats, decay: float
    ) -> tuple[float, float, float]:
        """Try a dZ_l on a sketch; return (share of dW that agrees, of db, common factor)."""
        data = dZ[:, sketch.rows].T @ sketch.A
        size = min(_size(data), MAX_GROWTH * _size(sketch.W_given))
        growth = max(1.0, size / sketch.W_size) if sketch.W_size else 1.0
        floor = growth * sketch.W_floor
        best, factor = -1.0, 1.0
        for beta in self.penalty_factors():
            penalty = beta * decay * sketch.W
            direct = fraction(sketch.W_given, sight.clipped(data + penalty), floor, sight.rtol)
            if direct > best + 0.01:
                best, factor = direct, 1.0
            if direct < 0.9 and sight.clip == np.inf:
                alpha = ratio(sketch.W_given - penalty, data, floor)
                if np.isfinite(alpha) and alpha != 0.0:
                    scaled = fraction(sketch.W_given, alpha * data + penalty, floor, sight.rtol)
                    if scaled > best + 0.05:
                        best, factor = scaled, alpha
            if best > 0.99 or not decay:
                break
        if sketch.u_b is None:
            return best, best, factor
        return self._sketched_biases(sight, sketch, dZ.sum(axis=0), best, factor)

    def _sketched_biases(
        self, sight: Sight, sketch: Sketch, total: Floats, best: float, factor: float
    ) -> tuple[float, float, float]:
        """Try the biases with the weights' factor, or with one of their own where W has none."""
        assert sketch.u_b is not None
        size = min(_size(total), MAX_GROWTH * _size(sketch.u_b))
        growth = max(1.0, size / sketch.size_b) if sketch.size_b else 1.0
        floor = growth * np.asarray(sketch.floor_b)
        if best < 0.5 and total.size > 2:
            alpha = ratio(sketch.u_b, total, floor)
            if np.isfinite(alpha) and alpha != 0.0:
                scaled = fraction(sketch.u_b, alpha * total, floor, sight.rtol)
                direct = fraction(sketch.u_b, total, floor, sight.rtol)
                factor = alpha if scaled > direct + 0.05 else 1.0
        biases = fraction(sketch.u_b, sight.clipped(factor * total), floor, sight.rtol)
        return best, biases, factor


def _size(values: Floats) -> float:
    return float(np.linalg.norm(values))
