"""From a wrong gradient to the likely bug: where it sits, what it is, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fastcheck.diagnosis.bugs import BUGS
from fastcheck.diagnosis.context import Context, Found, Hypothesis
from fastcheck.diagnosis.fixes import fixed_lines
from fastcheck.diagnosis.search import search
from fastcheck.errors import InputError
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.model.parameters import Block
from fastcheck.norms import norm
from fastcheck.types import Floats
from fastcheck.verdict.verdict import Verdict

__all__ = ["Diagnosis", "Finding", "diagnose"]


UNKNOWN = "no slip that I know explains this"
MAX_PATTERNS = 8  # blocks whose unexplained errors are described


@dataclass(frozen=True)
class Finding:
    """One slip.

    Attributes
    ----------
    slip : str
        Its name in the table, `unknown` where none explains the error.
    layers : tuple of int
        Where it was made, from the output to the input; empty for what concerns everything.
    blocks : tuple of str
        The blocks that it makes wrong by itself (`dW2`).
    sentence : str
        What is wrong, in one sentence.
    value : str
        What a fit found: a factor, the samples, the other activation.
    course, rows : str
        How the line of code should be, in the course's notation and in row notation; "" where no
        single line holds the slip.
    explained : float
        The share of the error in its blocks that is explained, 0 to 1.
    remains : float
        The relative difference that is left there.
    consequences : tuple of str
        The blocks that are wrong only because of it.
    equal : tuple of str
        What else would give the same gradient on this network.
    """

    slip: str
    layers: tuple[int, ...]
    blocks: tuple[str, ...]
    sentence: str
    value: str = ""
    course: str = ""
    rows: str = ""
    explained: float = 0.0
    remains: float = 0.0
    consequences: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a gradient.

    Attributes
    ----------
    findings : tuple of Finding
        The one nearest the output first.
    explained : float
        The share of the wrong blocks' error that the known slips among them explain, 0 to 1.
    unexplained : str
        The pattern of what no slip explains, "" for nothing.
    """

    findings: tuple[Finding, ...] = ()
    explained: float = 0.0
    unexplained: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Diagnosis:
        """Make it from what `to_json` gave, tuples having become lists or not."""
        findings = [
            Finding(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in finding.items()}  # type: ignore[arg-type]
            )
            for finding in data["findings"]
        ]
        return cls(tuple(findings), data["explained"], data["unexplained"])


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def diagnose(
    network: Network,
    batch: Batch,
    gradient: Floats,
    approximation: Approximation,
    verdict: Verdict,
    precision: str,
) -> Diagnosis:
    """Say what is wrong with a gradient.

    Parameters
    ----------
    network, batch : Network, Batch
    gradient : ndarray, shape (N,), float64
        What is being checked.
    approximation : Approximation
        Of all components or of a sample.
    verdict : Verdict
        Nothing is looked for unless its status is `wrong`.
    precision : str
        Of the gradient.

    Returns
    -------
    Diagnosis
        Empty for a gradient that is not wrong.
    """
    if verdict.status != "wrong":
        return Diagnosis()
    context = Context(network, batch, precision)
    with np.errstate(all="ignore"):
        try:
            doubts = _doubts(context, approximation)
            best = search(context, gradient)
        except (InputError, np.linalg.LinAlgError, MemoryError) as error:
            return Diagnosis(unexplained=f"{UNKNOWN}: {error}")
        return _diagnosis(context, gradient, best, doubts)


def _doubts(context: Context, approximation: Approximation) -> str:
    """Say where the reference backward pass itself is not what central differences give."""
    values, right = approximation.target, context.right
    if approximation.indices is not None:
        right = right[approximation.indices]
    finite = np.isfinite(values)
    finite[approximation.kinks.positions] = False
    error = norm(np.where(finite, values - right, 0.0))
    blur = np.asarray(approximation.noise + approximation.uncertainty, float)
    noise = norm(np.broadcast_to(np.where(np.isfinite(blur), blur, 0.0), values.shape).copy())
    size = norm(np.where(finite, right, 0.0))
    if error <= 1e-4 * size + 8.0 * noise:
        return ""
    return (
        "the reference backward pass does not agree with the central differences here "
        "(is ε too large?)"
    )


def _diagnosis(context: Context, gradient: Floats, best: Hypothesis, doubts: str) -> Diagnosis:
    """Group what was found, and say how much it explains."""
    found = tuple(_renamed(context, gradient, f) for f in best.sight.found + best.found)
    wrong = _wrong_blocks(context, gradient)
    if not found or doubts:
        what = doubts or f"{UNKNOWN}: the gradient is that of a right backward pass"
        return Diagnosis(unexplained=what)
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for one in found:
        value = "" if one.slip == "unknown" else one.value
        groups.setdefault(
            (*((one.slip, value)), "delta" if one.place == "delta" else ""), []
        ).append(one)
    known = [f for f in found if f.slip != "unknown"]
    unknown = [f for f in found if f.slip == "unknown"]
    own = {name for f in found for name in _own_blocks(context, f)}
    findings = [
        _finding(context, gradient, members, wrong, own) for members in groups.values()
        if members[0].slip != "unknown"
    ]  # fmt: skip
    unexplained = ""
    if unknown:
        unexplained = _unexplained(unknown)
    if unknown and not known:
        findings.append(_finding(context, gradient, unknown, wrong, own))
    left = {name for f in unknown for name in _own_blocks(context, f)}
    return Diagnosis(tuple(findings), _explained(context, gradient, wrong, left), unexplained)


def _renamed(context: Context, gradient: Floats, found: Found) -> Found:
    """Say that an odd factor is a clipped norm, where the norm is a number that someone wrote."""
    whole = found.slip == "everything_factor" or (
        found.slip == "output_factor" and not context.network.l2
    )
    order = context.network.order
    part = slice(None) if whole else (
        order.weights(found.layer).slice if found.slip == "factor" else slice(0)
    )  # fmt: skip
    size = norm(gradient[part])
    named = context.name_factor(_number(found.value), max(found.layer, 1)).named
    if not size or named or abs(float(f"{size:.2g}") - size) > 1e-6 * size:
        return found
    return replace(found, slip="clipped_norm", value=f"{size:.4g}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 2.0  # a factor with a name


def _wrong_blocks(context: Context, gradient: Floats) -> list[Block]:
    """Return the blocks that are wrong, from the output to the input."""
    blocks = []
    for block in reversed(context.network.order.blocks):
        u, p = gradient[block.slice], context.right[block.slice]
        if norm(u - p) > 1e-8 * (norm(u) + norm(p)):
            blocks.append(block)
    return blocks


def _own_blocks(context: Context, found: Found) -> list[str]:
    """Return the blocks that a slip is made in."""
    order = context.network.order
    if found.place == "whole":
        return [b.gradient_name for b in order.blocks]
    weights, biases = order.weights(found.layer), order.biases(found.layer)
    blocks = (
        [weights] if found.place == "W" else [biases] if found.place == "b" else [weights, biases]
    )
    return [b.gradient_name for b in blocks if b is not None]


def _finding(
    context: Context,
    gradient: Floats,
    members: list[Found],
    wrong: list[Block],
    own: set[str],
) -> Finding:
    """Put one slip, in all layers where it was made, into words."""
    first, slip = members[0], BUGS[members[0].slip]
    layers = tuple(dict.fromkeys(f.layer for f in members if f.layer))
    wrong_names = {b.gradient_name: b for b in wrong}
    blocks = tuple(
        n
        for n in dict.fromkeys(n for f in members for n in _own_blocks(context, f))
        if n in wrong_names
    )
    consequences: tuple[str, ...] = ()
    if any(f.place == "delta" for f in members) and layers:
        consequences = tuple(
            b.gradient_name
            for b in wrong
            if b.layer < max(layers) and b.gradient_name not in {*own, *blocks}
        )
    course, rows = "", ""
    if first.layer and not first.located:
        course, rows = fixed_lines(context.network, first.layer, slip.line)
    explained, remains = _how_sure(context, gradient, members, [wrong_names[n] for n in blocks])
    return Finding(
        slip=first.slip, layers=layers, blocks=blocks,
        sentence=_sentence(context, members), value=first.value,
        course=course, rows=rows,
        explained=explained, remains=remains,
        consequences=consequences,
        equal=tuple(dict.fromkeys(t for f in members for t in f.equal)),
    )  # fmt: skip


def _how_sure(
    context: Context, gradient: Floats, members: list[Found], blocks: list[Block]
) -> tuple[float, float]:
    """Return the share of the error that is explained, and the relative difference that is left."""
    error = [norm(gradient[b.slice] - context.right[b.slice]) for b in blocks]
    size = [norm(gradient[b.slice]) + norm(context.right[b.slice]) for b in blocks]
    whole, total = norm(np.array(error)), norm(np.array(size))
    if not whole:
        return 0.0, 0.0
    if members[0].slip == "unknown" or members[0].located:
        return 0.0, whole / total
    left = [context.left.get((b.layer, b.kind), 0.0) * n for b, n in zip(blocks, size, strict=True)]
    remains = norm(np.array(left))
    return max(0.0, 1.0 - (remains / whole) ** 2), remains / total


def _sentence(context: Context, members: list[Found]) -> str:
    """Say what is wrong, and in which layers."""
    first = members[0]
    text = BUGS[first.slip].sentence
    if first.slip == "unknown":
        return _unexplained(members)
    layers = list(dict.fromkeys(f.layer for f in members if f.layer))
    if first.slip in ("rounded", "rounded_float16", "clipped", "low_precision") and layers:
        names = _listed(list(dict.fromkeys(n for f in members for n in _own_blocks(context, f))))
        value = first.value or "float16"
        text = {
            "clipped": f"clipped by value at {value}",
            "low_precision": f"computed in {value} and handed over as {context.precision}",
        }.get(first.slip, f"rounded to {value} and handed over as {context.precision}")
        return f"{names} {'are' if ' ' in names else 'is'} {text}"
    value = first.value.replace("{", "(").replace("}", ")")
    if len(layers) < 2:
        layer = first.layer
        single = text if layer > 1 else text.replace("A{k}", "X")
        return single.format(l=layer, k=layer - 1, n=layer + 1, value=value)
    plain = text.format(l="_l", k="_{l-1}", n="_{l+1}", value=value)
    named = "in every layer" if len(layers) == context.network.depth else (
        "in layers " + _listed([str(layer) for layer in layers])
    )  # fmt: skip
    return f"{named}, {plain}"


def _unexplained(members: list[Found]) -> str:
    """Return the patterns of what no slip explains."""
    more = len(members) - MAX_PATTERNS
    patterns = [f.value for f in members[:MAX_PATTERNS]]
    return (
        f"{UNKNOWN}: " + "; ".join(patterns) + (f"; and {more:,} blocks more" if more > 0 else "")
    )


def _explained(context: Context, gradient: Floats, wrong: list[Block], left: set[str]) -> float:
    """Return the share of the error that lies in blocks which a known slip explains."""
    total = [norm(gradient[b.slice] - context.right[b.slice]) for b in wrong]
    unexplained = [e for e, b in zip(total, wrong, strict=True) if b.gradient_name in left]
    if not total or norm(np.array(total)) == 0.0:
        return 0.0
    return 1.0 - (norm(np.array(unexplained)) / norm(np.array(total))) ** 2
