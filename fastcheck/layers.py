"""`gradcheck_layer`: checks one layer's `backward(dout)` as the gradient of Σ⟨dout, forward⟩."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.function_options import FunctionOptions
from fastcheck.functions import gradcheck_function
from fastcheck.methods.contract import Subject, cast, contract_lines, misshapen
from fastcheck.model.contract import CONTRACT, ContractLine
from fastcheck.model.layer import (
    Layer,
    Values,
    copied_all,
    cotangents,
    inner_product,
    inputs_by_name,
    is_real,
    like,
    numbers,
    real_values,
)
from fastcheck.model.user_calls import copied
from fastcheck.report.data import Report
from fastcheck.verdict.verdict import BlockVerdict

__all__ = ["LayerOptions", "gradcheck_layer"]

Array = NDArray[Any]

TRIES = 4  # seeds of an input factory
POINT_SPREAD = 0.1  # relative distance of the other point
POINT_DIRECTIONS = 2
# Outputs in float64 and in less differ by no more than this, relative to the largest, if both are
# the same function.
SAME_OUTPUT = {"float32": 1e-2, "float16": 0.1, "bfloat16": 0.3}
NARROW_STEP = 1e-6  # relative to the smallest rms of an input
DOUBLE = (np.float64, np.complex128)
SECOND_ORDER = "at second order"


class LayerOptions(FunctionOptions, total=False):
    """The keyword arguments of `gradcheck_layer`: its own, and those of `gradcheck_function`."""

    saved: bool
    order: int
    jvp: Callable[..., Any] | None
    double_backward: Callable[..., Any] | None
    tries: int
    skip: Sequence[str]


@dataclass(frozen=True)
class _Settings:
    """What is particular to a layer."""

    saved: bool = False
    order: int = 1
    jvp: Callable[..., Any] | None = None
    double_backward: Callable[..., Any] | None = None
    tries: int = TRIES
    skip: Sequence[str] = ()
    seed: int = 0
    function: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: dict[str, Any]) -> _Settings:
        """Split keyword arguments into those of the layer and those of the function."""
        mine = {f.name for f in fields(cls)} - {"function", "seed"}
        own = {name: options.pop(name) for name in list(options) if name in mine}
        seed = options.pop("seed", None)
        made = cls(**own, seed=secrets.randbelow(2**31) if seed is None else seed, function=options)
        return made.checked()

    def checked(self) -> _Settings:
        """Return the same, or refuse what is out of range."""
        if self.order not in (1, 2):
            raise InputError(f"order={self.order!r}", "1 or 2")
        if self.order == 2 and self.double_backward is None:
            raise InputError(
                "order=2 without double_backward=",
                "double_backward(ddx, dout, *inputs), which returns the gradients of dout and of "
                "the inputs",
            )
        if isinstance(self.tries, bool) or not isinstance(self.tries, int) or self.tries < 1:
            raise InputError(f"tries={self.tries!r}", "a whole number, 1 or more")
        names = [self.skip] if isinstance(self.skip, str) else self.skip
        for name in names:
            if name not in CONTRACT:
                raise InputError(
                    f"skip={name!r}", "lines of the contract", near_names(name, CONTRACT)
                )
        return replace(self, skip=tuple(names))


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
        A callable `inputs(seed)` returns them; it is tried with several seeds.
    **options
        `saved`; `order=2` with `double_backward(ddx, dout, *inputs)`; `jvp(tangents, *inputs)`,
        held against the same differences; `tries`, the number of seeds; `skip`, lines of the
        contract to leave out (`CONTRACT`); `seed`, of dout and of the directions (fresh unless
        given); and those of `gradcheck_function`.

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
    settings = _Settings.of(dict(options))
    reports = [
        _checked(Layer(forward, backward, made, settings.saved), replace(settings, seed=seed))
        for seed, made in _tried_inputs(forward, inputs, settings)
    ]
    report = _best(reports)
    if settings.order == 2:
        report = _with_second_order(report, forward, backward, inputs, settings)
    return report


def _tried_inputs(
    forward: Callable[..., Any], inputs: Any, settings: _Settings
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


def _checked(layer: Layer, settings: _Settings) -> Report:
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
    right = {block.parameter for block in report.blocks if block.verdict == "agree"}
    lines += _at_other_inputs(subject, wide, settings, right)
    if settings.jvp is not None:
        lines.append(_forward_mode(subject, wide, settings))
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


def _differences(subject: Subject, wide: Layer | None, settings: _Settings) -> Report:
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
    problem = _Problem(layer, dout, tuple(names))
    theta, gradient = problem.theta(), problem.gradient_or_value()
    report = gradcheck_function(problem.cost, gradient, theta, **options)
    if report.gradient_status == "cannot tell" and wide is not None and "epsilon" not in options:
        # A piecewise linear J is given wide steps, which kinks lie within, or a kink passes for
        # noise along the one direction that noise was measured on.
        again = {**options, "seed": settings.seed + 1, "epsilon": NARROW_STEP * problem.scale()}
        narrow = gradcheck_function(problem.cost, gradient, theta, **again)
        report = report if narrow.gradient_status == "cannot tell" else narrow
    return replace(report, blocks=(*report.blocks, *_misshapen_blocks(subject, odd)))


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


@dataclass(frozen=True)
class _Problem:
    """J of the inputs, and its gradient, as `gradcheck_function` takes them.

    Attributes
    ----------
    layer : Layer
    dout : tuple
    names : tuple of str
        The inputs that are θ.
    """

    layer: Layer
    dout: tuple[Any, ...]
    names: tuple[str, ...]

    def theta(self) -> dict[str, Any]:
        """Return θ by name: complex inputs as pairs, real ones as what they are."""
        made = {}
        for name in self.names:
            value = self.layer.inputs[name]
            pairs = numbers(value).dtype.kind == "c"
            made[name] = real_values(value, name) if pairs else value
            if isinstance(value, list):
                made[name] = np.asarray(value)
        return made

    def scale(self) -> float:
        """Return the smallest rms of an input that is not zero; 1 where all are."""
        arrays = [numbers(self.layer.inputs[name]) for name in self.names]
        sizes = [np.linalg.norm(a.ravel()) / max(a.size, 1) ** 0.5 for a in arrays]
        return float(min((size for size in sizes if size > 0.0), default=1.0))

    def inputs(self, theta: dict[str, Any]) -> Values:
        """Return the inputs at some θ."""
        moved = {}
        for name, values in theta.items():
            template = self.layer.inputs[name]
            pairs = numbers(template).dtype.kind == "c"
            moved[name] = like(template, values[..., 0] + 1j * values[..., 1]) if pairs else values
        return {**self.layer.inputs, **moved}

    def cost(self, theta: dict[str, Any]) -> float:
        """Return J = Re Σ⟨dout, forward⟩."""
        return inner_product(self.dout, self.layer.at(self.inputs(theta)).outputs())

    def gradient(self, theta: dict[str, Any]) -> dict[str, Array]:
        """Return the gradients by name."""
        found = self.layer.at(self.inputs(theta)).gradients(self.dout).values
        return {name: self._real(name, found[name]) for name in self.names}

    def _real(self, name: str, value: Array) -> Array:
        if numbers(self.layer.inputs[name]).dtype.kind == "c":
            return np.stack([value.real, value.imag], axis=-1)
        return value.real if value.dtype.kind == "c" else value

    def gradient_or_value(self) -> Any:
        """Return the gradient as a callable; its value where two calls give two of them."""
        first, second = (self.gradient(self.theta()) for _ in range(2))
        same = all(np.allclose(first[n], second[n], rtol=1e-6, atol=0.0) for n in first)
        finite = all(np.isfinite(value).all() for value in first.values())
        if not finite:
            raise InputError("backward returns NaN or infinity", "finite numbers")
        return self.gradient if same else first


def _at_other_inputs(
    subject: Subject, wide: Layer | None, settings: _Settings, right: set[str]
) -> Iterator[ContractLine]:
    """Yield the lines that need differences at other inputs."""
    for name, moved in (("repeated indices", _repeated), ("at another point", _elsewhere)):
        if name in settings.skip:
            continue
        layer = subject.layer if wide is None else wide
        inputs, reason = moved(layer, settings.seed)
        if inputs is None:
            if reason:
                yield ContractLine(name, "not checked", reason)
            continue
        yield ContractLine(name, *_verdict_at(subject, layer.at(inputs), settings, right))


def _repeated(layer: Layer, seed: int) -> tuple[Values | None, str]:
    """Return inputs whose indices occur twice."""
    indices = {
        n: numbers(v)
        for n, v in layer.inputs.items()
        if hasattr(v, "shape") and numbers(v).dtype.kind in "iu" and numbers(v).size > 1
    }
    if not indices:
        return None, ""
    made = {}
    for name, values in indices.items():
        flat = values.ravel().copy()
        if np.array_equal(np.sort(flat), np.arange(flat.size)):
            return None, f"{name} is a permutation"
        flat[1::2] = flat[: flat.size // 2 * 2 : 2]
        made[name] = _integers(layer.inputs[name], flat.reshape(values.shape))
    return {**layer.inputs, **made}, ""


def _integers(template: Any, values: Array) -> Any:
    if hasattr(template, "detach"):
        import torch

        return torch.from_numpy(values).to(template.device)
    if type(template).__module__.partition(".")[0] in ("jax", "jaxlib"):
        import jax

        return jax.numpy.asarray(values)
    return values


def _elsewhere(layer: Layer, seed: int) -> tuple[Values | None, str]:
    """Return inputs a tenth away."""
    random = np.random.default_rng([seed, 8])
    moved = {}
    for name, value in layer.inputs.items():
        if is_real(value):
            array = numbers(value)
            away = 1.0 + POINT_SPREAD * (2.0 * random.random(array.shape) - 1.0)
            moved[name] = like(value, np.asarray(array * away))
    return {**layer.inputs, **moved}, ""


def _verdict_at(
    subject: Subject, layer: Layer, settings: _Settings, right: set[str]
) -> tuple[str, str]:
    """Return what two random directions in each input say at other inputs.

    A gradient that was right before and is the same here, where it is wrong, does not follow the
    inputs.
    """
    dout = subject.dout
    try:
        outputs = layer.outputs()
        if [numbers(o).shape for o in outputs] != [
            np.shape(numbers(d)) if d is not None else numbers(o).shape
            for o, d in zip(outputs, dout, strict=True)
        ]:
            return "not checked", "the outputs have other shapes there"
        dout = tuple(
            None if d is None else like(o, numbers(d)) for d, o in zip(dout, outputs, strict=True)
        )
        found = layer.gradients(dout).values
        names = tuple(n for n in found if found[n].shape == numbers(layer.inputs[n]).shape)
        problem = _Problem(layer, dout, names)
        report = gradcheck_function(
            problem.cost, problem.gradient(problem.theta()), problem.theta(),
            method="directions", directions=POINT_DIRECTIONS, seed=settings.seed,
            resolution=settings.function.get("resolution", 1e-2),
        )  # fmt: skip
    except Exception as error:
        return "not checked", f"raises {type(error).__name__}: {str(error).splitlines()[0][:80]}"
    wrong = [b.name for b in report.blocks if b.verdict == "wrong"]
    if not wrong:
        return ("agree" if report.status == "agree" else "not checked"), ""
    first = subject.first.values
    stale = [
        n for n in names if f"d{n}" in wrong and n in right and np.array_equal(found[n], first[n])
    ]
    if stale:
        named = ", ".join(f"d{n}" for n in stale)
        return "wrong", f"{named} stays the same, while the differences change"
    return "wrong", f"{', '.join(wrong)} is not the gradient there"


def _forward_mode(subject: Subject, wide: Layer | None, settings: _Settings) -> ContractLine:
    """Hold ⟨dout, jvp(u)⟩ to the differences of J along u."""
    layer = subject.layer if wide is None else wide
    random = np.random.default_rng([settings.seed, 9])
    assert settings.jvp is not None
    for name in subject.first.values:
        zero = {
            n: like(v, 0.0 * numbers(v)) if is_real(v) else None for n, v in layer.inputs.items()
        }
        u = cotangents((layer.inputs[name],), random)[0]
        tangents = settings.jvp(tuple({**zero, name: u}.values()), *layer.inputs.values())
        tangents = tangents if isinstance(tangents, tuple) else (tangents,)
        value = inner_product(subject.dout, tangents)

        def along(t: float, n: str = name, u: Any = u) -> float:
            start = layer.inputs[n]
            moved = like(start, np.asarray(numbers(start) + t * numbers(u)))
            return inner_product(subject.dout, layer.at({**layer.inputs, n: moved}).outputs())

        report = gradcheck_function(along, value, 0.0)
        if report.status != "agree":
            return ContractLine("jvp", report.status, f"along a direction of {name}")
    return ContractLine("jvp", "agree")


def _notes(subject: Subject, settings: _Settings) -> Iterator[str]:
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
    settings: _Settings,
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
