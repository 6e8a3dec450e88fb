"""`gradcheck` and `numerical_gradient`: the only place where the parts are wired together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike

from fastcheck.determinism import unmoved
from fastcheck.errors import InputError
from fastcheck.execution import buffers, parallel
from fastcheck.execution.blas import one_blas_thread
from fastcheck.methods.table import preparation
from fastcheck.model.approximation import Approximation
from fastcheck.model.cost import CostParts, compare_cost, cost_parts, user_cost
from fastcheck.model.gradient import Gradient, read_gradient
from fastcheck.model.network import PENALTIES, Batch, Network
from fastcheck.model.taylor import TaylorTable
from fastcheck.model.user_calls import Handed, call_on_copies
from fastcheck.report.data import CostFacts, HeldTo, MethodFacts, NetworkFacts, Report, RunFacts
from fastcheck.report.plot_data import Pictures
from fastcheck.sampling import components as sampling
from fastcheck.sampling.coverage import coverage
from fastcheck.settings import Settings, SettingsOptions
from fastcheck.types import Floats, Integers
from fastcheck.validation import positive_number
from fastcheck.verdict.evidence import RoundingModel
from fastcheck.verdict.verdict import Verdict, evaluate
from fastcheck.versions import versions

__all__ = ["CheckOptions", "gradcheck", "numerical_gradient"]


LEARNING_RATE = 0.1
Sigma = Callable[[], RoundingModel]


class CheckOptions(SettingsOptions, total=False):
    """The keyword arguments of `gradcheck`.

    Attributes
    ----------
    cost : float or callable
        The user's J, or `cost(network, inputs, targets)`: compared first.
    train_steps : int
        Check again after so many gradient steps with the user's own gradient; 0 for none.
    learning_rate : float
        Of these steps; 0.1 unless told otherwise.
    sweep : bool
        Add a Taylor table: J along one direction at many steps, with rates.
    name : str
        What the report calls the problem.
    command : str
        What the report gives as the command that does the check again.
    """

    cost: float | Callable[[Network, Any, Any], Any] | None
    train_steps: int
    learning_rate: float
    sweep: bool
    name: str
    command: str


NOISE_SHARE = 2.0**-51  # of J: rounding in the forward pass


@dataclass
class _Clock:
    """Seconds for each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class _Task:
    """What is to be checked, as the user gave it."""

    network: Network
    inputs: ArrayLike
    targets: ArrayLike
    gradients: Any
    options: CheckOptions
    settings: Settings


@dataclass(frozen=True)
class _Comparison:
    """A gradient beside its approximation, with what both were made of."""

    network: Network
    batch: Batch
    gradient: Floats
    approximation: Approximation
    settings: Settings
    precision: str

    def judged(self) -> tuple[Verdict, Sigma]:
        """Return the verdict, and what makes the σ that decided."""
        sigma = cache(self._rounding)
        verdict = self._evaluated(sigma)
        on_kinks = any(activation.kinks for activation in self.network.activations)
        if verdict.status != "agree" and on_kinks:
            # Units on a kink may carry rounding on that the table's slopes leave out, also where
            # they change no difference.
            wider = cache(partial(self._rounding, on_kinks=True))
            if wider() is not sigma():
                sigma = wider
                verdict = self._evaluated(sigma)
        if verdict.status != "wrong" or self.precision not in ("float16", "bfloat16"):
            return verdict, sigma
        from fastcheck.rounding.loops import BlockError, rounds_every_addition

        errors = [BlockError(block.error_norm, block.checked) for block in verdict.blocks]
        if not rounds_every_addition(errors, self._rounding(), self._rounding(loops=True)):
            return verdict, sigma
        loops = cache(partial(self._rounding, loops=True, on_kinks=on_kinks))
        return self._evaluated(loops), loops

    def _evaluated(self, sigma: Sigma) -> Verdict:
        order = self.network.order
        return evaluate(order, self.gradient, self.approximation, sigma, self.settings)

    def _rounding(self, *, on_kinks: bool = False, loops: bool = False) -> Any:
        """Return what rounding does to a right gradient; needed only where one does not agree."""
        from fastcheck.rounding import Variant, rounding, rounding_on_kinks

        make = rounding_on_kinks if on_kinks else rounding
        found = self.approximation
        dtheta = found.values if found.indices is None else None
        variant = Variant(loops=loops)
        return make(self.network, self.batch, self.precision, found.trace, dtheta, variant)

    def diagnosis(self, verdict: Verdict) -> dict[str, Any]:
        """Return what the bug most likely is; nothing where the loss is the user's own."""
        if self.network.loss.entry is None:
            return {}
        from fastcheck.diagnosis.diagnose import diagnose

        what = (self.network, self.batch, self.gradient, self.approximation)
        return diagnose(*what, verdict, self.precision).to_json()

    def pictures(self, sigma: Sigma, with_curve: bool) -> Pictures:
        """Return what a report's page draws, when somebody asks for it."""
        from fastcheck.methods.epsilon_sweep import v_curve
        from fastcheck.report.downsample import downsample

        order = self.network.order
        pictures = downsample(order, self.gradient, self.approximation, sigma, self.settings)
        if not with_curve:
            return pictures
        curve = v_curve(self.network, self.batch, self.gradient, self.settings)
        return replace(pictures, v_curve=curve)


def gradcheck(
    network: Network,
    inputs: ArrayLike,
    targets: ArrayLike,
    gradients: Any,
    **options: Unpack[CheckOptions],
) -> Report:
    """Check whether a gradient is the gradient of J(θ).

    Parameters
    ----------
    network : Network
    inputs, targets : array_like
        The batch, in the layout that the network was given in.
    gradients : mapping, sequence, array_like or callable
        `{"dW1": …, "db1": …}`, `[dW1, db1, …]`, `[(dW1, db1), …]`, a flat vector, or a function
        `gradients(network, inputs, targets)` that returns one of these.
    **options
        See `CheckOptions` and `Settings`.

    Returns
    -------
    Report
        `report.passed` says whether it is; `print(report)` shows what was found.

    Raises
    ------
    InputError
        For input of wrong shape, kind or range, NaN or infinity, and for a gradient or a J that
        gives two values for the same θ.

    Examples
    --------
    >>> report = gradcheck(network, X, Y, backward)  # doctest: +SKIP
    >>> assert report.passed, report  # doctest: +SKIP
    """
    ours = set(CheckOptions.__annotations__) - set(SettingsOptions.__annotations__)
    settings = Settings.of(
        **cast(SettingsOptions, {k: v for k, v in options.items() if k not in ours})
    )
    steps = _training(options, gradients)
    handed = Handed(network, inputs, targets)
    own = handed.copy() if any(map(callable, (gradients, options.get("cost")))) else handed
    task = _Task(own.network, own.inputs, own.targets, gradients, options, settings)
    try:
        report = _check(task)
    except InputError as error:
        if notes := _changed_notes(handed, own):
            raise InputError(
                f"{error.given}. {notes[0].rstrip('.')}", error.expected, error.remedy
            ) from error
        raise
    report = replace(report, notes=(*report.notes, *_changed_notes(handed, own)))
    if steps == 0:
        return report
    rate = positive_number(options.get("learning_rate", LEARNING_RATE), "learning_rate")
    if not callable(options.get("cost")):  # a number is J at the first θ only
        task.options.pop("cost", None)
    later = _check(replace(task, network=_train(task, steps, rate)))
    training = f"after {steps} gradient step{'s' * (steps > 1)} of learning rate {rate:g}"
    return replace(report, after_training=(later,), training=training)


def numerical_gradient(
    network: Network, inputs: ArrayLike, targets: ArrayLike, **settings: Unpack[SettingsOptions]
) -> Floats:
    """Return dθ_approx, the central differences of J.

    Parameters
    ----------
    network : Network
    inputs, targets : array_like
        The batch, in the layout that the network was given in.
    **settings
        See `Settings`.

    Returns
    -------
    ndarray, shape (N,), float64
        In the order of θ: `network.order.unpack` gives the blocks. NaN where a sample left a
        component out.
    """
    chosen = Settings.of(**settings)
    batch = network.batch(inputs, targets)
    indices, _ = sampling.select_components(network.order, chosen)
    approximation = _approximate(network, batch, indices, chosen)
    if approximation.indices is None:
        return approximation.values
    dtheta = np.full(network.size, np.nan)
    dtheta[approximation.indices] = approximation.values
    return dtheta


def _check(task: _Task) -> Report:
    """Check at one θ."""
    network, settings, clock = task.network, task.settings, _Clock()
    with clock.part("reading"):
        _require_small_step(network, settings.epsilon)
        batch = network.batch(task.inputs, task.targets)
        cost, cost_notes = _cost(task, batch)
        gradient = read_gradient(network, task.gradients, task.inputs, task.targets)
        _require_same_cost(task, cost)
        indices, notes = sampling.select_components(network.order, settings)
    with clock.part("differences"):
        approximation = _approximate(network, batch, indices, settings)
        if approximation.method == "textbook":
            approximation = _second_look(network, batch, gradient.vector, approximation, settings)
    precision = settings.precision or gradient.precision
    sweep = bool(task.options.get("sweep", False))
    comparison = _Comparison(network, batch, gradient.vector, approximation, settings, precision)
    with clock.part("comparison"), one_blas_thread():
        verdict, sigma = comparison.judged()
    diagnosis: dict[str, Any] = {}
    if verdict.status == "wrong":
        with clock.part("diagnosis"), one_blas_thread():
            diagnosis = comparison.diagnosis(verdict)
    return Report.of(
        verdict,
        diagnosis=diagnosis,
        held_to=_held_to(settings, precision),
        method=_method_facts(approximation, settings, network.size),
        cost=cost,
        network=_network_facts(network, batch),
        run=RunFacts(versions(), settings.workers, clock.seconds, _command(task)),
        name=task.options.get("name", ""),
        notes=(
            *notes,
            *cost_notes,
            *gradient.notes,
            *approximation.notes,
            *_kink_notes(verdict.whole.kinks),
        ),
        coverage=coverage(network.order, gradient.vector, approximation, verdict, settings),
        taylor=_taylor(network, batch, gradient.vector, settings) if sweep else None,
        artist=partial(comparison.pictures, sigma),
    )


def _taylor(network: Network, batch: Batch, gradient: Floats, settings: Settings) -> TaylorTable:
    """Return J along one random direction at many steps."""
    from fastcheck.methods.taylor import scaled_direction, taylor_table

    u = scaled_direction(network.theta, [b.slice for b in network.order.blocks], settings.seed)
    start = cost_parts(network, batch).total

    def values(step: float) -> tuple[float, float]:
        theta = network.theta + step * u
        try:
            cost = cost_parts(network.with_theta(theta), batch).total
        except InputError:  # not finite so far from θ
            cost = math.nan
        return cost, float(gradient @ (theta - network.theta))

    with one_blas_thread():
        return taylor_table(values, start, float(gradient @ u), NOISE_SHARE * abs(start))


def _approximate(
    network: Network, batch: Batch, indices: Integers | None, settings: Settings
) -> Approximation:
    """Prepare the method, run its chunks, put the results together."""
    # Small products gain nothing from BLAS threads, and lose much where other work runs beside.
    with one_blas_thread():
        prepared = preparation(settings.method)(network, batch, indices, settings)
        try:
            results = parallel.run(prepared, settings, "differences")
            return prepared.assemble(results)
        finally:
            buffers.release()


def _require_small_step(network: Network, epsilon: float) -> None:
    """Refuse a step that is larger than every parameter: no difference at it is a derivative."""
    largest = max(1.0, float(np.abs(network.theta).max()))
    if epsilon > largest:
        raise InputError(
            f"epsilon={epsilon:g}, larger than every parameter",
            f"a step that is small beside θ, whose largest entry is {largest:.3g}",
            "An epsilon of 1e-07 suits all networks.",
        )


def _changed_notes(handed: Handed, own: Handed) -> tuple[str, ...]:
    """Say which of the user's arrays were changed while their functions ran."""
    changed = own.changed_in(handed) if own is not handed else ()
    if not changed:
        return ()
    return (
        f"{', '.join(changed)} changed while your functions ran: the check is of the arrays as "
        "they were before.",
    )


def _require_same_cost(task: _Task, cost: CostFacts) -> None:
    """Refuse a gradient that changes the user's J at the same θ."""
    theirs = task.options.get("cost")
    if callable(theirs) and callable(task.gradients) and cost.theirs is not None:
        handed = Handed(task.network, task.inputs, task.targets)
        unmoved(cost.theirs, lambda: user_cost(theirs, handed), "cost", "gradients")


def _second_look(
    network: Network,
    batch: Batch,
    gradient: Floats,
    approximation: Approximation,
    settings: Settings,
) -> Approximation:
    """Return textbook differences with truncation and kinks known where the gradient is off."""
    from fastcheck.methods.second_look import look_again  # seldom needed

    try:
        return look_again(network, batch, gradient, approximation, settings)
    finally:
        buffers.release()


def _cost(task: _Task, batch: Batch) -> tuple[CostFacts, tuple[str, ...]]:
    """Return J and its parts, the user's J beside it where it was given, and notes on that."""
    theirs = task.options.get("cost")
    if theirs is None:
        with one_blas_thread():
            return _cost_facts(cost_parts(task.network, batch)), ()
    found = compare_cost(task.network, batch, theirs, (task.inputs, task.targets))
    facts = replace(
        _cost_facts(found.ours),
        theirs=found.theirs,
        agrees=found.agrees,
        explanation=found.explanation,
    )
    return facts, found.notes


def _cost_facts(parts: CostParts) -> CostFacts:
    return CostFacts(total=parts.total, data=parts.data, penalty=parts.penalty)


def _held_to(settings: Settings, precision: str) -> HeldTo:
    """Return the tolerance, and where it comes from."""
    tol = f"{settings.tol:g}"
    if precision == "float64":
        reason = f"{tol} relative, plus float64 rounding"
    else:
        reason = (
            f"{tol} relative, plus {precision} rounding of each component (the gradient was "
            f"computed in {precision})"
        )
    return HeldTo(settings.tol, precision, reason)


def _method_facts(approximation: Approximation, settings: Settings, size: int) -> MethodFacts:
    return MethodFacts(
        name=approximation.method,
        epsilon=approximation.epsilon,
        seed=settings.seed,
        checked=int(np.isfinite(approximation.values).sum()),
        size=size,
        sampled=settings.sampled,
        complete=approximation.complete,
        noise=float(np.max(approximation.noise, initial=0.0)),
        curvature=approximation.curvature,
        self_check=approximation.self_check,
        uncertainty=float(np.max(approximation.uncertainty, initial=0.0)),
    )


def _network_facts(network: Network, batch: Batch) -> NetworkFacts:
    return NetworkFacts(
        description=network.describe(),
        sizes=tuple(network.sizes),
        activations=tuple(str(a) for a in network.activations),
        loss=str(network.loss),
        reduction=network.reduction,
        l2=network.l2,
        penalty=PENALTIES[network.penalty],
        batch=batch.size,
        precision=network.precision,
        layout=network.layout,
        dropout=any(mask is not None for mask in network.masks),
    )


def _kink_notes(kinks: int) -> Iterator[str]:
    if kinks:
        crosses = "component crosses" if kinks == 1 else "components cross"
        yield (
            f"{kinks:,} {crosses} a kink within ±ε: a value between the one-sided slopes is right."
        )


def _command(task: _Task) -> str:
    """Return the call that does the check again."""
    if "command" in task.options:
        return task.options["command"]
    given = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in task.options.items()
        if isinstance(value, (int, float, str)) and name != "name"
    }
    arguments = "".join(f", {name}={value!r}" for name, value in given.items())
    return f"gradcheck(network, inputs, targets, gradients{arguments})"


def _training(options: CheckOptions, gradients: Any) -> int:
    """Return how many gradient steps to take before the second check."""
    steps = options.get("train_steps", 0)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InputError(f"train_steps={steps!r}", "a whole number, 0 or more")
    if steps and not callable(gradients):
        raise InputError(
            f"train_steps={steps} with a gradient of type {type(gradients).__name__}",
            "a function gradients(network, inputs, targets)",
            "Arrays are the gradient at one θ only; after a step another one is needed.",
        )
    return steps


def _train(task: _Task, steps: int, rate: float) -> Network:
    """Return the network after some gradient steps with the user's own gradient."""
    network, batch = task.network, task.network.batch(task.inputs, task.targets)
    try:
        for _ in range(steps):
            handed = Handed(network, task.inputs, task.targets)
            given, _ = call_on_copies(task.gradients, "gradients", handed)
            gradient: Gradient = read_gradient(network, given, task.inputs, task.targets)
            with np.errstate(over="ignore"):
                theta = network.theta - rate * gradient.vector
            network = network.with_theta(_in_precision(theta, network.precision))
            cost_parts(network, batch)
    except InputError as error:
        raise InputError(
            f"{steps} gradient steps with learning_rate={rate:g} diverge: {error.given}",
            "training that does not diverge",
            "Use a smaller learning_rate.",
        ) from None
    return network


def _in_precision(theta: Floats, precision: str) -> Floats:
    """Return θ as the user can hold it, so that both sides differentiate at the same place."""
    if precision not in ("float32", "float16"):
        return theta
    with np.errstate(over="ignore"):
        return theta.astype(precision).astype(np.float64)
