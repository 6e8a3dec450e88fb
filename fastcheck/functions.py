"""`gradcheck_function`: checks the gradient of any scalar f(θ), which stays a black box."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from fastcheck import parallel, sampling
from fastcheck.approximation import Approximation, Kinks
from fastcheck.arrays import ArrayOrder
from fastcheck.door import finite_array, lower_precision, unit_roundoff
from fastcheck.errors import InputError
from fastcheck.repeatable import same_twice
from fastcheck.report.data import CostFacts, HeldTo, MethodFacts, Report, RunFacts
from fastcheck.sample_coverage import coverage
from fastcheck.settings import Settings, SettingsOptions
from fastcheck.tolerances import NOISE_FACTOR
from fastcheck.verdict import judge
from fastcheck.versions import versions

__all__ = ["FunctionOptions", "gradcheck_function"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

METHOD = "central differences"
CHUNK = 64
# f at so many points within ε of θ, along so many components, tells its rounding from its shape.
NOISE_POINTS = 8
NOISE_COMPONENTS = 3
# The O(ε²) term estimated from a second step is itself uncertain by about this much.
CURVATURE_SLACK = 2.0
# A second look takes these shares of ε: no kink looks smooth at all of them.
SHARES = (1.0, 0.5, 0.25)
GAP_SLACK = 0.05


class FunctionOptions(SettingsOptions, total=False):
    """The keyword arguments of `gradcheck_function`: those of `Settings`, a name and a command."""

    name: str
    command: str


def gradcheck_function(
    f: Callable[[Any], Any], gradient: Any, theta: Any, **options: Unpack[FunctionOptions]
) -> Report:
    """Check whether a gradient is the gradient of a scalar function.

    Parameters
    ----------
    f : callable
        `f(θ) -> float`; gets θ in the form of `theta`, in float64. It must not change it.
    gradient : callable or array_like
        `gradient(θ)`, or its value at `theta`: the form of `theta` or a flat vector.
    theta : float, array_like, mapping or sequence of array_like
        Where to check.
    **options
        See `Settings`; `epsilon`, `tol`, `sample`, `detect` and `seed` are of use here. One
        worker unless `jobs` says otherwise, as f may not bear to be called twice at a time.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For NaN or infinity, other shapes, an f that gives no single number, two values for the same
        θ or another θ than it got, and for a θ so large that θ + ε = θ.

    Examples
    --------
    >>> report = gradcheck_function(lambda x: x**3, lambda x: 3 * x**2, 1.0, epsilon=0.01)
    >>> round(report.components[0].approximation, 9)
    3.0001
    """
    start = time.perf_counter()
    name, command = options.pop("name", ""), options.pop("command", "")
    options.setdefault("jobs", 1)
    settings = Settings.of(**cast(SettingsOptions, options))
    order, vector, precision = ArrayOrder.of(theta)
    black_box = _BlackBox(f, order, vector)
    value, value_precision = black_box.at_theta()
    given, gradient_precision = _gradient(gradient, order, vector)
    precision = settings.precision or lower_precision(precision, gradient_precision)
    indices, notes = sampling.choose(order, settings)
    noise = black_box.noise(value, value_precision, settings.epsilon)
    approximation = _approximate(black_box, indices, settings, noise)
    approximation = _refined(black_box, given, approximation, settings)
    sigma = _rounding(given, precision)
    judgement = judge(order, given, approximation, sigma, settings)
    seconds = {"check": time.perf_counter() - start}
    return Report.of(
        judgement,
        held_to=_held_to(settings, precision),
        method=_facts(approximation, settings, order.size),
        cost=CostFacts(total=value),
        run=RunFacts(versions(), settings.workers, seconds, command),
        name=name,
        notes=(*notes, *approximation.notes),
        coverage=coverage(order, given, approximation, judgement, settings),
    )


@dataclass(frozen=True)
class _BlackBox:
    """f, and θ where it is checked."""

    f: Callable[[Any], Any]
    order: ArrayOrder
    theta: Floats

    def __call__(self, vector: Floats) -> tuple[float, str]:
        """Return f at a vector of θ's order, and the precision that it came in."""
        value, precision = finite_array(self.f(self.order.form_of(vector)), "f(θ)")
        if value.size != 1:
            raise InputError(
                f"f(θ) has shape {value.shape}",
                "one number",
                "Sum or average it, or check one component of it at a time.",
            )
        return float(value.reshape(())), precision

    def at_theta(self) -> tuple[float, str]:
        """Return f(θ), evaluated twice, and its precision."""

        def once() -> tuple[float, str]:
            vector = self.theta.copy()
            value = self(vector)
            self.unchanged(vector)
            return value

        return same_twice(once, "f", lambda a, b: a == b)

    def unchanged(self, vector: Floats) -> None:
        """Refuse an f that writes into θ."""
        if not np.array_equal(vector, self.theta):
            index = int(np.argmax(vector != self.theta))
            raise InputError(
                f"f changes its argument ({self.order.locate(index)})",
                "an f that leaves θ as it is",
                "Copy θ at its start.",
            )

    def noise(self, value: float, precision: str, epsilon: float) -> float:
        """Return the standard deviation of a central difference of f that rounding makes.

        The median over a few components, each on the side where f looks smoother, so that a kink
        is not taken for noise.
        """
        last = self.theta.size - 1
        places = {round(k * last / (NOISE_COMPONENTS - 1)) for k in range(NOISE_COMPONENTS)}
        spreads = [
            min(self._spread(value, place, epsilon), self._spread(value, place, -epsilon))
            for place in sorted(places)
        ]
        spread = float(np.median(spreads))
        return max(spread / math.sqrt(2.0), unit_roundoff(precision) * abs(value)) / abs(epsilon)

    def _spread(self, value: float, place: int, reach: float) -> float:
        """Return the standard deviation of f's rounding at points from θ in one direction.

        Differences of high order keep the rounding and lose f's shape. After Moré & Wild,
        "Estimating computational noise", SISC 2011.
        """
        vector, values = self.theta.copy(), [value]
        for k in range(1, NOISE_POINTS):
            vector[place] = self.theta[place] + reach * (k / (NOISE_POINTS - 1))
            values.append(self(vector)[0])
        table, levels = np.array(values), []
        for k in range(1, NOISE_POINTS - 1):
            table = np.diff(table)
            scale = math.factorial(k) ** 2 / math.factorial(2 * k)
            levels.append(math.sqrt(scale * float(np.mean(table**2))))
        return min(levels[2:])  # the lower orders still hold f's own shape


@dataclass(frozen=True)
class _Differences:
    """Central differences and one-sided slopes of a black box: a prepared method."""

    black_box: _BlackBox
    indices: Integers | None
    epsilon: float
    value: float

    @property
    def chunks(self) -> Sequence[Integers]:
        every = self.indices
        if every is None:
            every = np.arange(self.black_box.order.size)
        return np.split(every, range(CHUNK, every.size, CHUNK))

    @property
    def weights(self) -> Sequence[int]:
        return [chunk.size for chunk in self.chunks]

    def differences(self, chunk: Integers) -> Floats:
        """Return (3, n): central differences, slopes above, slopes below."""
        box = self.black_box
        vector = box.theta.copy()
        slopes = np.empty((3, chunk.size))
        for k, i in enumerate(chunk):
            at = vector[i]
            vector[i] = above = at + self.epsilon
            high = box(vector)[0]
            vector[i] = below = at - self.epsilon
            low = box(vector)[0]
            vector[i] = at
            # The steps as floats have them, not ε itself.
            slopes[0, k] = (high - low) / (above - below)
            slopes[1, k] = (high - self.value) / (above - at)
            slopes[2, k] = (self.value - low) / (at - below)
        box.unchanged(vector)
        return slopes

    def assemble(self, results: Sequence[Floats | None]) -> Approximation:
        values = self.slopes(results)[0]
        complete = all(r is not None for r in results)
        return Approximation(METHOD, self.epsilon, self.indices, values, complete=complete)

    def slopes(self, results: Sequence[Floats | None]) -> Floats:
        """Return what the chunks gave, (3, n), NaN where they did not come."""
        parts = [
            np.full((3, chunk.size), np.nan) if result is None else result
            for chunk, result in zip(self.chunks, results, strict=True)
        ]
        return np.concatenate(parts, axis=1)


def _approximate(
    black_box: _BlackBox, indices: Integers | None, settings: Settings, noise: float
) -> Approximation:
    """Return central differences at ε."""
    checked = black_box.theta if indices is None else black_box.theta[indices]
    stuck = (checked + settings.epsilon == checked) | (checked - settings.epsilon == checked)
    if stuck.any():
        place = int(np.argmax(stuck))
        name = black_box.order.locate(place if indices is None else int(indices[place]))
        raise InputError(
            f"ε = {settings.epsilon:g} is lost beside {name} = {checked[place]:g}: θ + ε = θ",
            "an ε that changes θ",
            f"Use epsilon={abs(checked[place]) * 1e-6:.0e} or more.",
        )
    prepared = _Differences(black_box, indices, settings.epsilon, black_box.at_theta()[0])
    results = parallel.run(prepared, settings, "differences")
    return replace(prepared.assemble(results), noise=noise)


def _refined(
    black_box: _BlackBox, gradient: Floats, approximation: Approximation, settings: Settings
) -> Approximation:
    """Measure the O(ε²) term and look for kinks where the gradient does not agree.

    The values stay the central differences at ε; their error and their kinks become known.
    """
    values, every = approximation.values, approximation.indices
    given = gradient if every is None else gradient[every]
    with np.errstate(invalid="ignore"):
        off = np.abs(given - values) > settings.tol * (np.abs(given) + np.abs(values))
    positions = np.flatnonzero(off)
    if positions.size == 0 or not approximation.complete:
        return approximation
    indices = positions if every is None else every[positions]
    value = black_box.at_theta()[0]
    slopes = []
    for share in SHARES:
        prepared = _Differences(black_box, indices, share * settings.epsilon, value)
        results = parallel.run(prepared, settings, "a second look")
        slopes.append(prepared.slopes(results))
    wide, narrow = slopes[:2]
    curvature = np.abs(wide[0] - narrow[0]) * (4.0 / 3.0)
    noise = np.full(values.size, float(np.max(approximation.noise)))
    kinks = _kinks(positions, slopes, float(noise[0]))
    bent = curvature * (CURVATURE_SLACK / NOISE_FACTOR)
    bent[np.isin(positions, kinks.positions)] = 0.0  # there the interval says what is right
    noise[positions] += bent
    return replace(approximation, noise=noise, kinks=kinks, notes=_notes(curvature, wide[0], kinks))


def _kinks(positions: Integers, slopes: Sequence[Floats], noise: float) -> Kinks:
    """Return the components whose one-sided slopes differ as at a kink.

    With the step, the gap between the one-sided slopes of a smooth f shrinks in proportion.
    """
    gap = slopes[0][1] - slopes[0][2]
    found = np.zeros(positions.size, dtype=bool)
    for share, wide in zip(SHARES[1:], slopes[1:], strict=True):
        uncertain = GAP_SLACK * np.abs(gap) + 3.0 * NOISE_FACTOR * noise / share
        found |= np.abs((wide[1] - wide[2]) - share * gap) > uncertain
    sides = slopes[0][1:, found]
    return Kinks(positions[found].astype(np.int64), sides.min(axis=0), sides.max(axis=0))


def _notes(curvature: Floats, values: Floats, kinks: Kinks) -> tuple[str, ...]:
    """Say what the second look found."""
    notes = []
    size = np.abs(values)
    relative = float(np.max(curvature[size > 0] / size[size > 0], initial=0.0))
    if relative > 1e-9 and kinks.positions.size == 0:
        notes.append(f"The O(ε²) term of f at this ε is up to {relative:.1e} of the approximation.")
    if kinks.positions.size:
        count = kinks.positions.size
        lie = "component lies" if count == 1 else "components lie"
        notes.append(
            f"{count:,} {lie} within ε of a kink of f: a value between the one-sided slopes is "
            "right."
        )
    return tuple(notes)


def _gradient(gradient: Any, order: ArrayOrder, vector: Floats) -> tuple[Floats, str]:
    """Read the gradient; a callable is called twice."""
    if not callable(gradient):
        return order.read(gradient)

    def same(first: tuple[Floats, str], second: tuple[Floats, str]) -> bool:
        return np.array_equal(first[0], second[0])

    return same_twice(lambda: order.read(gradient(order.form_of(vector.copy()))), "gradient", same)


def _rounding(gradient: Floats, precision: str) -> Floats:
    """Return σ: one rounding of each component, and of the largest one (nothing is known of f)."""
    largest = float(np.abs(gradient).max())
    return unit_roundoff(precision) * (np.abs(gradient) + largest) / 2.0


def _held_to(settings: Settings, precision: str) -> HeldTo:
    reason = f"a relative difference of {settings.tol:g}, and rounding in {precision}"
    return HeldTo(settings.tol, precision, reason)


def _facts(approximation: Approximation, settings: Settings, size: int) -> MethodFacts:
    return MethodFacts(
        name=METHOD,
        epsilon=approximation.epsilon,
        seed=settings.seed,
        checked=int(np.isfinite(approximation.values).sum()),
        size=size,
        sampled=settings.sampled,
        complete=approximation.complete,
        noise=float(np.max(approximation.noise)),
    )
