"""`gradcheck_against`: a gradient in low precision beside a trusted one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from fastcheck.diagnosis.array_causes import MAX_SIZE, Pair, causes_of
from fastcheck.errors import InputError
from fastcheck.importers.array_files import open_arrays
from fastcheck.model.lazy_arrays import MIN_VALUES, LazyArray, arrays_by_name
from fastcheck.report.data import TRUSTED, HeldTo, MethodFacts, Report, RunFacts
from fastcheck.report.plot_data import Pictures
from fastcheck.validation import lower_precision, one_of, positive_number
from fastcheck.verdict.against import AgainstBlock, Ruled, Trio, measured, ruled
from fastcheck.verdict.tolerance_audit import ToleranceAudit, audit
from fastcheck.verdict.verdict import (
    VACUOUS,
    BlockVerdict,
    ComponentVerdict,
    Verdict,
    grade,
    worst_status,
)
from fastcheck.versions import versions

__all__ = ["audit_tolerance", "gradcheck_against", "read_arrays"]

MAX_COMPONENTS = 10
SAME_BLOCK = 0.5  # relative error up to which a block under another name is that block
MAX_MATCHED_SIZE = 10**7
PRECISIONS = ("float64", "float32", "float16", "bfloat16")


def gradcheck_against(
    reference: Any,
    given: Any,
    baseline: Any = None,
    *,
    precision: str | None = None,
    name: str = "",
    command: str = "",
) -> Report:
    """Judge a gradient beside a trusted one by what its precision allows.

    Parameters
    ----------
    reference : mapping, nesting of arrays, or path
        The gradient in higher precision: arrays of NumPy, PyTorch or JAX, by name or in any nesting
        of mappings and sequences; or a .npz, .npy or .safetensors file.
    given : the same
        The gradient that is judged.
    baseline : the same, optional
        The gradient of a plain implementation in the precision of `given`. A block may be off by
        three times its error. Without it a rounding model is used, which can tell less.
    precision : str, optional
        What `given` was computed in: float64, float32, float16 or bfloat16. Read from its values
        unless given.
    name, command : str
        For the report.

    Returns
    -------
    Report
        Blocks are the arrays. `cannot tell` where the baseline itself is far off, `vacuous` where
        the reference is below the tolerance.

    Raises
    ------
    InputError
        For files that can't be read, containers without arrays, NaN in the reference or baseline,
        and gradients that have no block in common.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> reference = {"w": rng.normal(size=(8, 8))}
    >>> given = {"w": reference["w"].astype(np.float32)}
    >>> gradcheck_against(reference, given).status
    'agree'
    """
    start = time.perf_counter()
    if precision is not None:
        one_of(precision, PRECISIONS, "precision")
    matched = _matched(read_arrays(reference), read_arrays(given))
    plain = {} if baseline is None else read_arrays(baseline)
    trios = {
        key: Trio(pair.given, pair.reference, _baseline_of(key, pair, plain, baseline is not None))
        for key, pair in matched.pairs.items()
    }
    blocks = _with_one_precision([measured(key, trio, precision) for key, trio in trios.items()])
    _refuse_broken(blocks)
    rulings = ruled(blocks)
    notes = [*matched.notes, *_notes(blocks, rulings)]
    report = Report.of(
        _whole(blocks, rulings, complete=not matched.missing),
        held_to=_held_to(blocks, rulings, baseline is not None),
        method=_facts(blocks),
        notes=tuple(notes),
        name=name,
        artist=partial(_pictures, blocks, rulings),
    )
    seconds = {"check": time.perf_counter() - start}
    return replace(report, run=RunFacts(versions(), 1, seconds, command))


def audit_tolerance(
    reference: Any, *, rtol: float = 1e-5, atol: float = 1e-8, baseline: Any = None
) -> ToleranceAudit:
    """Say what a test with `allclose(given, reference, rtol, atol)` would not notice.

    Parameters
    ----------
    reference : mapping, nesting of arrays, or path
        The gradient that the test compares with; see `gradcheck_against`.
    rtol, atol : float
        `|given − reference| ≤ atol + rtol·|reference|` passes.
    baseline : the same, optional
        A plain implementation, whose error tells how tight a tolerance can be.

    Returns
    -------
    ToleranceAudit

    Examples
    --------
    >>> audit_tolerance({"w": np.ones((2, 2))}, rtol=50, atol=5).passes("the sign flipped")
    ['w']
    """
    positive_number(rtol, "rtol", zero=True)
    positive_number(atol, "atol", zero=True)
    plain = {} if baseline is None else read_arrays(baseline)
    return audit(read_arrays(reference), plain, rtol, atol)


def read_arrays(source: Any) -> dict[str, LazyArray]:
    """Return the arrays of a file or of a container by name."""
    if isinstance(source, (str, PathLike)):
        return open_arrays(source)
    return arrays_by_name(source)


@dataclass(frozen=True)
class _Matched:
    """Blocks of both gradients, and what is to be said of the others."""

    pairs: dict[str, Trio]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def _matched(reference: dict[str, LazyArray], given: dict[str, LazyArray]) -> _Matched:
    """Bring the blocks of both together: by name, and else by shape and content."""
    names = {name: name for name in reference if name in given}
    missing = [name for name in reference if name not in given]
    extra = [name for name in given if name not in reference]
    notes = []
    for name in list(missing):
        other = _renamed(reference[name], {k: given[k] for k in extra})
        if other is not None:
            names[name] = other
            missing.remove(name)
            extra.remove(other)
            notes.append(f"{name} is called {other} in the given gradient.")
    if missing:
        notes.append(f"Missing in the given gradient: {', '.join(missing)}.")
    if extra:
        notes.append(f"Only in the given gradient, not checked: {', '.join(extra)}.")
    pairs = {}
    for name in (n for n in reference if n in names):
        pairs[name], note = _shaped(name, reference[name], given[names[name]])
        notes += [note] if note else []
    if not pairs:
        raise InputError("gradients that have no block in common", "the same names in both")
    return _Matched(pairs, tuple(missing), tuple(notes))


def _renamed(reference: LazyArray, others: dict[str, LazyArray]) -> str | None:
    """Return which one of some arrays is the reference under another name."""
    if reference.size > MAX_MATCHED_SIZE:
        return None
    right = reference.whole()
    size = float(np.linalg.norm(right))
    for name, other in others.items():
        if other.shape != reference.shape or size == 0.0:
            continue
        if float(np.linalg.norm(other.whole() - right)) <= SAME_BLOCK * size:
            return name
    return None


def _shaped(name: str, reference: LazyArray, given: LazyArray) -> tuple[Trio, str]:
    """Return a block in one shape; the other way round is a layout, and is said."""
    if given.shape == reference.shape:
        return Trio(given, reference, None), ""
    if given.shape == reference.shape[::-1]:
        note = f"{name} is given with shape {given.shape}, and was compared transposed."
        return Trio(given.transposed(), reference, None), note
    extra = len(given.shape) - len(reference.shape)
    hint = ""
    if extra > 0 and given.shape[extra:] == reference.shape:
        hint = "A sum over the first axis may be missing."
    raise InputError(
        f"{name} has shape {given.shape}", f"{reference.shape}, as in the reference", hint
    )


def _baseline_of(
    name: str, pair: Trio, plain: dict[str, LazyArray], asked: bool
) -> LazyArray | None:
    if not asked:
        return None
    if name not in plain:
        raise InputError(f"the baseline has no {name!r}", "the blocks of the reference")
    found, shape = plain[name], pair.reference.shape
    if found.shape == shape[::-1] and found.shape != shape:
        found = found.transposed()
    if found.shape != shape:
        raise InputError(f"the baseline's {name} has shape {found.shape}", f"{shape}")
    return found


def _with_one_precision(blocks: list[AgainstBlock]) -> list[AgainstBlock]:
    """Return blocks whose few values tell no precision as of the coarsest of the others."""
    coarsest = lower_precision(*(block.precision for block in blocks))
    return [b if b.size >= MIN_VALUES else replace(b, precision=coarsest) for b in blocks]


def _refuse_broken(blocks: list[AgainstBlock]) -> None:
    for block in blocks:
        if not (math.isfinite(block.norm) and math.isfinite(block.plain_error)):
            raise InputError(f"NaN or infinity in the reference's {block.name}", "finite numbers")


def _notes(blocks: list[AgainstBlock], rulings: list[Ruled]) -> Iterator[str]:
    """Yield what is wrong by shape alone, and why a block is no pass."""
    causes = causes_of(dict(_wrong_pairs(blocks, rulings)))
    for block, ruling in zip(blocks, rulings, strict=True):
        parts = [part for part in (causes.get(block.name, ""), ruling.why) if part]
        if parts:
            yield f"{block.name}: {'; '.join(parts)}."


def _pictures(blocks: list[AgainstBlock], rulings: list[Ruled], with_curve: bool) -> Pictures:
    """Return what a report's page draws; there is no ε to vary."""
    from fastcheck.report.downsample_trios import downsample_trios

    return downsample_trios([block.trio for block in blocks], rulings)


def _wrong_pairs(blocks: list[AgainstBlock], rulings: list[Ruled]) -> Iterator[tuple[str, Pair]]:
    for block, ruling in zip(blocks, rulings, strict=True):
        if ruling.verdict.status == "wrong" and block.size <= MAX_SIZE and not block.broken:
            right = block.trio.reference.whole()
            allowed = ruling.spread.floor + ruling.spread.share * np.abs(right)
            given = block.trio.given.whole()
            yield block.name, Pair(given, right, allowed, ruling.verdict.tolerance)


def _whole(blocks: list[AgainstBlock], rulings: list[Ruled], *, complete: bool) -> Verdict:
    """Put the blocks together; a zero block among others is right."""
    verdicts = [ruling.verdict for ruling in rulings]
    told = [ruling.verdict for ruling in rulings if not _zero(ruling)] or verdicts
    status = worst_status(*(v.verdict for v in told), *([] if complete else ["cannot tell"]))
    size = math.hypot(*(b.norm for b in blocks))
    given = math.hypot(*(b.given_norm for b in blocks))
    error = math.hypot(*(b.error for b in blocks))
    difference = min(1.0, error / (size + given)) if size + given > 0.0 else 0.0
    components = [c for ruling in rulings for c in ruling.components]
    components.sort(key=_severity, reverse=True)
    worst = grade(difference, status)
    total = sum(v.size for v in verdicts)
    whole = BlockVerdict(
        "dθ", "θ", 0, "whole", (total,), total, checked=total, difference=difference,
        literal_difference=difference, gradient_norm=given, approximation_norm=size,
        error_norm=error, tolerance=math.hypot(*(v.tolerance for v in verdicts)),
        noise=math.hypot(*(b.plain_error for b in blocks)), status=status, grade=worst,
        wrong=sum(v.wrong for v in verdicts), cannot_tell=0, kinks=0,
        worst=components[0] if components else None,
        resolution=max((v.resolution or 0.0 for v in told), default=None),
    )  # fmt: skip
    return Verdict(status, worst, whole, tuple(verdicts), tuple(components[:MAX_COMPONENTS]))


def _zero(ruling: Ruled) -> bool:
    """Return whether a block is zero in both gradients, as far as can be told."""
    return ruling.zero and ruling.verdict.status == VACUOUS


def _severity(component: ComponentVerdict) -> tuple[bool, float]:
    off = abs(component.gradient - component.approximation)
    return component.status == "wrong", off / component.tolerance if component.tolerance else off


def _held_to(blocks: list[AgainstBlock], rulings: list[Ruled], beside: bool) -> HeldTo:
    precision = lower_precision(*(block.precision for block in blocks))
    told = [r.verdict.resolution for r in rulings if not _zero(r)]
    resolution = max((r for r in told if r is not None), default=0.0)
    reason = (
        "three times the error of the baseline in each block"
        if beside
        else f"a model of rounding in {precision}, since there is no baseline"
    )
    tol = min(1.0, resolution) / 2.0
    return HeldTo(tol, precision, reason, resolution)


def _facts(blocks: list[AgainstBlock]) -> MethodFacts:
    size = sum(block.size for block in blocks)
    return MethodFacts(name=TRUSTED, epsilon=0.0, seed=0, checked=size, size=size)
