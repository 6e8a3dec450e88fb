"""The check of a layer: its contract, J's differences, second order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from fastcheck.errors import InputError
from fastcheck.functions import gradcheck_function
from fastcheck.layers.kind_checks import line_of_kinds
from fastcheck.layers.options import LayerOptions, LayerSettings
from fastcheck.layers.other_inputs import forward_mode, lines_at_other_inputs
from fastcheck.layers.problem import LayerProblem
from fastcheck.layers.size_checks import line_of_sizes
from fastcheck.methods.contract import Subject, cast, contract_lines, misshapen
from fastcheck.model.contract import CONTRACT, ContractLine
from fastcheck.model.layer import (
    Layer,
    Values,
    copied_all,
    cotangents,
    inputs_by_name,
    is_real,
    numbers,
)
from fastcheck.model.user_calls import copied
from fastcheck.report.data import Report
from fastcheck.report.plot_data import Pictures
from fastcheck.verdict.verdict import BlockVerdict

__all__ = ["gradcheck_layer"]

# Outputs in float64 and in less differ by no more than this, relative to the largest, if both are
# the same function.
SAME_OUTPUT = {"float32": 1e-2, "float16": 0.1, "bfloat16": 0.3}
NARROW_STEP = 1e-6  # relative to the smallest rms of an input
DOUBLE = (np.float64, np.complex128)
SECOND_ORDER = "at second order"


def gradcheck_layer(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    **options: Unpack[LayerOptions],
) -> Report:
    """Check whether `backward` gives the gradients of `Σ⟨dout, forward(*inputs)⟩`.

    Parameters
    ----------
    forward : callable
        `forward(*inputs)` returns an array or a tuple of arrays; with `saved=True` it returns
        `(out, saved)`.
    backward : callable
        `backward(dout, *inputs)`, or `backward(dout, saved)`: one gradient for each input (or for
        each input of floating-point numbers), None where there is none; or a mapping by name.
    inputs : mapping, sequence of inputs, array, or callable
        NumPy, PyTorch or JAX arrays, real or complex. Integers (indices, labels) are not perturbed.
        A callable `inputs(seed)` returns them; it is tried with several seeds, and where it has a
        parameter `size` with sizes 0 and 1.
    **options
        `saved`; `order=2` with `double_backward(ddx, dout, *inputs)`; `jvp(tangents, *inputs)`,
        held against the same differences; `tries`, the number of seeds; `kinds`, which other kinds
        of inputs are drawn from these and tried (`large`, `tiny`, `equal`, `sparse`, `sorted`,
        `one-hot`, `saturating`: all unless given); `skip`, lines of the contract to leave out;
        `seed`, of dout and of the directions (fresh unless given); and those of
        `gradcheck_function`.

    Returns
    -------
    Report
        Its blocks are the inputs; `contract` has a status for each line of the contract. The status
        is `vacuous` where no input moves J: nothing was checked.

    Raises
    ------
    InputError
        For a forward or backward that returns something else, NaN, and a forward with two
        values for the same inputs.

    Examples
    --------
    >>> def forward(x, w):
    ...     return x @ w
    >>> def backward(dout, x, w):
    ...     return dout @ w.T, x.T @ dout
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    >>> gradcheck_layer(forward, backward, {"x": x, "w": w}, seed=0).status
    'agree'
    """
    settings = LayerSettings.of(dict(options))
    reports = [
        _checked(Layer(forward, backward, made, settings.saved), replace(settings, seed=seed))
        for seed, made in _tried_inputs(forward, inputs, settings)
    ]
    report = _best(reports)
    if "sizes 0 and 1" not in settings.skip:
        line = line_of_sizes(forward, backward, inputs, settings)
        report = report if line is None else _with_line(report, line)
    if settings.order == 2:
        report = _with_second_order(report, forward, backward, inputs, settings)
    return report


def _with_line(report: Report, line: ContractLine) -> Report:
    """Return a report with one more line of the contract."""
    lines = sorted((*report.contract, line), key=lambda one: CONTRACT.index(one.name))
    return replace(report, contract=tuple(lines))


def _tried_inputs(
    forward: Callable[..., Any], inputs: Any, settings: LayerSettings
) -> Iterator[tuple[int, Values]]:
    """Yield seeds and inputs."""
    if not callable(inputs):
        yield settings.seed, inputs_by_name(inputs, forward)
        return
    for k in range(settings.tries):
        yield settings.seed + k, inputs_by_name(inputs(settings.seed + k), forward)


def _best(reports: list[Report]) -> Report:
    """Return the report that tells most: a wrong one, else one that agrees."""
    order = ("wrong", "agree", "cannot tell", "vacuous")
    chosen = min(reports, key=lambda report: order.index(report.status))
    if len(reports) == 1:
        return chosen
    counts = {s: sum(r.status == s for r in reports) for s in order}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return replace(chosen, notes=(f"{len(reports)} inputs were tried: {told}.", *chosen.notes))


def _checked(layer: Layer, settings: LayerSettings) -> Report:
    """Check a layer at one set of inputs."""
    start = time.perf_counter()
    random = np.random.default_rng([settings.seed, 4])
    layer = replace(layer, copies=_writes(layer))
    dout = cotangents(layer.outputs(), random)
    if all(part is None for part in dout):
        raise InputError(
            "forward returns no floating-point numbers", "an output that has a gradient"
        )
    subject = Subject(layer, dout, layer.gradients(dout), settings.seed)
    wide = _wide(subject)
    lines = list(contract_lines(subject, wide, tuple(settings.skip)))
    report = _differences(subject, wide, settings)
    wrong = {block.parameter for block in report.blocks if block.verdict == "wrong"}
    lines += lines_at_other_inputs(subject, wide, settings, wrong)
    if settings.kinds and "other kinds of inputs" not in settings.skip:
        lines.append(line_of_kinds(subject, wide, settings, wrong))
    if settings.jvp is not None:
        lines.append(forward_mode(subject, wide, settings))
    lines.sort(key=lambda line: CONTRACT.index(line.name))
    notes = tuple(_notes(subject, settings))
    seconds = {"check": time.perf_counter() - start}
    report = replace(report, contract=tuple(lines), notes=(*notes, *report.notes))
    return replace(_vacuous(report), run=replace(report.run, seconds=seconds))


def _writes(layer: Layer) -> bool:
    """Return whether forward or backward writes into the inputs or dout."""
    own = layer.at(copied_all(layer.inputs))
    dout = cotangents(own.outputs(), np.random.default_rng(0))
    before = tuple(copied(part) for part in dout)
    own.called(dout)
    pairs = [(a, own.inputs[n]) for n, a in layer.inputs.items() if hasattr(a, "shape")]
    pairs += [(a, b) for a, b in zip(before, dout, strict=True) if a is not None]
    return any(not np.array_equal(numbers(a), numbers(b), equal_nan=is_real(a)) for a, b in pairs)


def _wide(subject: Subject) -> Layer | None:
    """Return the layer in float64, where forward computes in it; None where it does not."""
    layer = subject.layer
    inputs = {n: cast(v, np.float64) if is_real(v) else v for n, v in layer.inputs.items()}
    wide = layer.at(inputs)
    if subject.precision == "float64":
        return wide
    try:
        made, narrow = wide.outputs(), layer.outputs()
        wide.gradients(tuple(None if d is None else cast(d, np.float64) for d in subject.dout))
    except Exception:
        return None
    slack = SAME_OUTPUT[subject.precision]
    for a, b in zip(made, narrow, strict=True):
        high, low = numbers(a), numbers(b)
        if high.dtype.kind in "fc" and high.dtype not in DOUBLE:
            return None
        size = float(np.max(np.abs(high), initial=0.0))
        if not np.all(np.abs(high - low.astype(high.dtype)) <= slack * size):
            return None
    return wide


def _differences(subject: Subject, wide: Layer | None, settings: LayerSettings) -> Report:
    """Hold the gradients to central differences of J, in float64 where there is one."""
    layer = subject.layer if wide is None else wide
    dout = subject.dout
    if wide is not None:
        dout = tuple(None if d is None else cast(d, np.float64) for d in dout)
    odd = misshapen(subject)
    names = [n for n in subject.first.values if n not in odd]
    chosen = settings.function.get("blocks")
    if chosen is not None:
        _refuse_missing([chosen] if isinstance(chosen, str) else chosen, subject)
    if not names:
        raise InputError(
            "; ".join(odd.values()) or "backward returns no gradient",
            "gradients of the inputs' shapes",
        )
    options = {**settings.function, "seed": settings.seed}
    problem = LayerProblem(layer, dout, tuple(names))
    theta, gradient = problem.theta(), problem.gradient_or_value()
    report = gradcheck_function(problem.cost, gradient, theta, **options)
    if report.gradient_status == "cannot tell" and wide is not None and "epsilon" not in options:
        # A piecewise linear J is given wide steps, which kinks lie within, or a kink passes for
        # noise along the one direction that noise was measured on.
        again = {**options, "seed": settings.seed + 1, "epsilon": NARROW_STEP * problem.scale()}
        narrow = gradcheck_function(problem.cost, gradient, theta, **again)
        report = report if narrow.gradient_status == "cannot tell" else narrow
    return _with_blocks(report, tuple(_misshapen_blocks(subject, odd)))


def _with_blocks(report: Report, odd: tuple[BlockVerdict, ...]) -> Report:
    """Return a report with blocks that could not be compared, on its page too."""
    draw = report.artist
    if not odd:
        return report

    def artist(with_curve: bool) -> Pictures:
        from fastcheck.report.downsample import with_unchecked

        assert draw is not None
        return with_unchecked(draw(with_curve), odd)

    whole = replace(report.whole, status="wrong", grade="worry")
    return replace(
        report, gradient_status="wrong", gradient_grade="worry", whole=whole,
        blocks=(*report.blocks, *odd), artist=None if draw is None else artist,
    )  # fmt: skip


def _refuse_missing(blocks: Sequence[str], subject: Subject) -> None:
    for name in blocks:
        if name in subject.first.missing:
            raise InputError(
                f"backward returns None for {name}", f"d{name}, since blocks= names it"
            )


def _misshapen_blocks(subject: Subject, odd: dict[str, str]) -> Iterator[BlockVerdict]:
    """Yield a block for each gradient that has another shape than its input."""
    for number, name in enumerate(odd):
        value = subject.first.values[name]
        norm = float(np.linalg.norm(value.astype(complex)))
        yield BlockVerdict(
            f"d{name}", name, number + 1, "array", tuple(value.shape), value.size,
            checked=0, difference=1.0, literal_difference=1.0, gradient_norm=norm,
            approximation_norm=0.0, error_norm=norm, tolerance=0.0, noise=0.0, status="wrong",
            grade="worry", wrong=0, cannot_tell=0, kinks=0,
        )  # fmt: skip


def _notes(subject: Subject, settings: LayerSettings) -> Iterator[str]:
    missing = subject.first.missing
    if missing:
        yield f"backward returns None for {', '.join(missing)}: not checked."
    if any(numbers(subject.layer.inputs[n]).dtype.kind == "c" for n in subject.first.values):
        yield (
            "Complex inputs: the last index 0 is the real part, 1 the imaginary part; a gradient "
            "is ∂J/∂Re + i·∂J/∂Im, as in PyTorch."
        )
    yield f"Seed of dout: {settings.seed}."


def _vacuous(report: Report) -> Report:
    """Return the report as vacuous where no input moves J as far as can be seen."""
    unseen = all(
        (b.resolution is None and b.checked == 0)
        or not (b.resolution or 0.0) < 1.0
        or b.gradient_norm == b.approximation_norm == 0.0
        for b in report.blocks
    )
    if report.gradient_status == "wrong" or not unseen:
        return report
    note = "J does not move with any input: this check could not have failed. Take other inputs."
    whole = replace(report.whole, status="vacuous", grade="look")
    return replace(report, gradient_status="vacuous", whole=whole, notes=(note, *report.notes))


def _with_second_order(
    report: Report,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    settings: LayerSettings,
) -> Report:
    """Return the report with that of the backward of the backward."""
    made = inputs(settings.seed) if callable(inputs) else inputs
    values = inputs_by_name(made, forward)
    layer = Layer(forward, backward, values, settings.saved)
    dout = cotangents(layer.outputs(), np.random.default_rng([settings.seed, 10]))
    if settings.saved or len(dout) > 1:
        raise InputError("order=2 with saved=True or several outputs", "backward(dout, *inputs)")
    names = list(layer.gradients(dout).values)

    def first(dout: Any, *rest: Any) -> tuple[Any, ...]:
        at = dict(zip(values, rest, strict=True))
        found = layer.at(at).called((dout,))
        return tuple(dict(layer._pairs(found, names)).values())

    rest = replace(settings, double_backward=None, order=1, saved=False, jvp=None)
    assert settings.double_backward is not None
    second = _checked(Layer(first, settings.double_backward, {"dout": dout[0], **values}), rest)
    return replace(report, after_training=(second,), training=SECOND_ORDER)
