"""The report in words: the verdict as a sentence, and the facts a reader wants beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fastcheck.model.taylor import TaylorTable
from fastcheck.report.data import TRUSTED, CostFacts, Report
from fastcheck.verdict.verdict import NOT_CHECKED, VACUOUS, BlockVerdict

__all__ = [
    "HEADLINES",
    "MARKS",
    "TAYLOR_COLUMNS",
    "all_notes",
    "facts",
    "number",
    "shape",
    "taylor_rows",
    "taylor_sentence",
    "verdict_sentence",
]

HEADLINES = {
    "agree": "RIGHT",
    VACUOUS: "VACUOUS",
    "cannot tell": "CANNOT TELL",
    "wrong": "WRONG",
}
MARKS = {
    "agree": "✓",
    "kink": "∧",
    VACUOUS: "∅",
    "cannot tell": "?",
    "wrong": "✗",
    NOT_CHECKED: "·",
}
GRADES = {"great": "great", "look": "have a careful look", "worry": "most likely a bug"}
SMALL_EPSILON = 1e-7  # where truncation is below what a float64 gradient is held to
MAX_LISTED_BLOCKS = 4  # blocks named in a sentence


def number(value: float, digits: int = 2) -> str:
    """Return a figure as people write it: `0`, `0.33`, `3.1e-09`, `1e-07`."""
    if value == 0.0 or not math.isfinite(value) or 0.01 <= abs(value) < 1e4:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{exponent}"


def shape(block: BlockVerdict) -> str:
    """Return `512×784`, or `scalar`."""
    return "×".join(map(str, block.shape)) or "scalar"


def verdict_sentence(report: Report) -> str:
    """Return the verdict in plain words, without its headline."""
    if report.method.name == TRUSTED:
        return _beside_trusted(report)
    sentences = {"agree": _right, VACUOUS: _vacuous, "cannot tell": _cannot_tell, "wrong": _wrong}
    return sentences[report.gradient_status](report)


def _beside_trusted(report: Report) -> str:
    """Return the verdict on a gradient that was held to another one."""
    figure, blocks = number(report.difference), report.blocks
    named = {s: _listed([b.name for b in blocks if b.verdict == s]) for s in HEADLINES}
    if report.gradient_status == "wrong":
        return (
            f"dθ is not the trusted gradient: difference {figure}, more than rounding explains in "
            f"{named['wrong']}."
        )
    if report.gradient_status == VACUOUS:
        return f"the trusted gradient is below the tolerance in {named[VACUOUS]}."
    if report.gradient_status == "cannot tell":
        unsure = named["cannot tell"] or "what is missing"
        return f"difference {figure}; whether that is rounding can't be told in {unsure}."
    return f"dθ is the trusted gradient, as far as its precision allows: difference {figure}."


def _right(report: Report) -> str:
    """Return the verdict on a right gradient, and what else is wrong."""
    trained = next((r for r in report.after_training if r.status != "agree"), None)
    if report.cost is not None and not report.cost.agrees:
        return (
            "dθ is the gradient of the J that the network describes, but your J differs from "
            f"it: {report.cost.explanation}."
        )
    if trained is not None:
        return f"right at the start, but {report.training} {verdict_sentence(trained)}"
    broken = [line for line in report.contract if line.status not in ("agree", NOT_CHECKED)]
    if broken:
        lines = "; ".join(f"{line.name}: {line.text or line.status}" for line in broken)
        return f"dθ is the gradient of J here, but the contract of backward is broken ({lines})."
    return f"dθ is the gradient of J{_where(report)}: difference {_held(report)}."


def _vacuous(report: Report) -> str:
    return (
        "J does not move with any of the inputs as far as can be seen, so that this check could "
        "not have failed."
    )


def _where(report: Report) -> str:
    """Return which part of dθ was looked at."""
    method = report.method
    if method.checked == method.size:
        return ""
    return f" in the {method.checked:,} of {method.size:,} components checked"


def _held(report: Report) -> str:
    """Return `2.1e-09, tolerance 1e-07`, or of a function `2.1e-09, right to within 8e-04: …`."""
    if report.held_to.resolution is not None:
        return _resolved(report)
    tolerance = f"{number(report.difference)}, tolerance {number(report.held_to.tol)}"
    if report.held_to.precision == "float64":
        return tolerance
    return f"{tolerance} plus {report.held_to.precision} rounding"


def _resolved(report: Report) -> str:
    """Return the difference of a function's gradient, and up to what it could be told."""
    held_to, difference = report.held_to, number(report.difference)
    noise = "" if held_to.noise is None else f": J carries noise of {number(held_to.noise)}"
    seen = number(held_to.resolution or 0.0)
    if report.gradient_status == "agree":
        return f"{difference}, right to within {seen}{noise}"
    return f"{difference}, an error of {seen} would have been seen{noise}"


def _cannot_tell(report: Report) -> str:
    method = report.method
    if not method.complete:
        return (
            f"the check was interrupted after {method.checked:,} of {method.size:,} components; "
            f"no error up to there: difference {_held(report)}."
        )
    unsure = [b for b in report.blocks if b.status == "cannot tell"]
    return (
        f"the difference is {_held(report)}, and the approximation's own error "
        f"explains it{_in_blocks(unsure)}. {_way_out(report)}"
    )


def _in_blocks(blocks: Sequence[BlockVerdict]) -> str:
    return f" (in {_listed([b.name for b in blocks])})" if blocks else ""


def _way_out(report: Report) -> str:
    method = report.method
    if method.truncation_dominates and method.epsilon > SMALL_EPSILON:
        finer = f"ε = {number(SMALL_EPSILON)} can tell."
        return finer if method.name == "unit" else f"The unit method with {finer}"
    if method.name == "textbook":
        return "The unit method can tell."
    if report.held_to.resolution is not None:
        return _function_way_out(report)
    return "Another ε, or a larger tol, may tell."


def _function_way_out(report: Report) -> str:
    """Return what would help a function whose J hides too much."""
    vacuous = report.whole.gradient_norm == 0.0 and report.whole.approximation_norm == 0.0
    if vacuous:
        return "Check at another θ, where the gradient is not zero."
    return (
        "A J with less noise (float64, a tighter solver) can tell, or epsilon='auto', or a larger "
        "resolution= (or tol=)."
    )


def _listed(names: Sequence[str]) -> str:
    """Return `dW1, db1 and dW2`, or the first few and how many more."""
    if len(names) > MAX_LISTED_BLOCKS:
        return f"{', '.join(names[:MAX_LISTED_BLOCKS])} and {len(names) - MAX_LISTED_BLOCKS} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _wrong(report: Report) -> str:
    bad = [b for b in report.blocks if b.verdict == "wrong"]
    opening = f"dθ is not the gradient of J: difference {_held(report)}"
    opening += f" ({GRADES[report.gradient_grade]})."
    if not bad:
        return f"{opening} Only dθ as a whole exceeds the tolerance, no single block."
    where = _listed([f"{b.name} ({_share(b)})" for b in bad])
    good = sum(b.verdict == "agree" for b in report.blocks)
    others = f"{good} blocks are" if good > 1 else "block is"
    rest = f" The other {others} right." if good else ""
    left_out = sum(b.verdict == NOT_CHECKED for b in report.blocks)
    if left_out:
        rest = (
            f" Of the others {good} {'is' if good == 1 else 'are'} right, {left_out} not checked."
        )
    if any(b.verdict == "cannot tell" for b in report.blocks):
        rest = ""
    return f"{opening} Wrong: {where}.{rest}{_other_cost(report.cost)}"


def _share(block: BlockVerdict) -> str:
    """Return how much of a block is wrong."""
    if block.wrong == 0:
        return "as a whole" if block.checked else "its shape"
    if block.wrong == block.checked:
        return "every component" if block.checked > 1 else "its component"
    return f"{block.wrong:,} of {block.checked:,} components"


def _other_cost(cost: CostFacts | None) -> str:
    if cost is None or cost.agrees:
        return ""
    return f" Your J differs, too: {cost.explanation}."


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what a reader wants beside the verdict, as (label, text)."""
    if report.name:
        yield "problem", report.name
    if report.network is not None:
        net = report.network
        dropout = ", fixed dropout masks" if net.dropout else ""
        yield "network", f"{net.description}, batch of {net.batch}{dropout}"
    if report.cost is not None:
        yield "J", _cost(report)
    yield "method", _method(report)
    yield from report.coverage.get("facts", ())
    yield "tolerance", report.held_to.reason
    yield from (("contract", text) for text in _contract(report))
    if report.method.self_check:
        yield "self-check", report.method.self_check
    run = report.run
    if run.seconds:
        total = sum(run.seconds.values())
        longest = sorted(run.seconds.items(), key=lambda item: -item[1])[:2]
        parts = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in longest)
        yield "time", f"{total:.2g} s ({parts}), {run.threads} worker{'s' * (run.threads != 1)}"
    if run.command:
        yield "rerun", run.command


def _contract(report: Report) -> Iterator[str]:
    """Yield what holds in one sentence, and a sentence for each line that does not."""
    kept = [line for line in report.contract if line.status == "agree"]
    if kept:
        shown = (f"{line.name} ({line.text})" if line.text else line.name for line in kept)
        yield f"{MARKS['agree']} {', '.join(shown)}"
    for line in report.contract:
        if line.status != "agree":
            yield f"{MARKS[line.status]} {line.name}{f': {line.text}' if line.text else ''}"


def _cost(report: Report) -> str:
    cost = report.cost
    assert cost is not None
    text = f"{cost.total:.10g}"
    if cost.data is not None and cost.penalty:
        text += f" = {cost.data:.10g} data + {cost.penalty:.10g} penalty"
    if cost.theirs is not None:
        yours = "the same" if not cost.explanation else f"{cost.theirs:.10g}"
        text += f"; yours is {yours}"
    return text


def _method(report: Report) -> str:
    method = report.method
    text = method.name + (f", ε = {number(method.epsilon)}" if method.epsilon else "")
    if method.checked == method.size:
        text += f", all {method.size:,} components" if method.size > 1 else ""
    else:
        text += f", {method.checked:,} of {method.size:,} components"
    if method.evaluations is not None:
        text += f", {method.evaluations:,} evaluations of J"
    if method.sampled and method.checked < method.size:
        text += f", seed {method.seed}"
    if not method.complete:
        text += ", INTERRUPTED"
    if method.noise:
        text += f"; its own error is about {number(method.noise)} a component"
    return text


def all_notes(report: Report) -> list[str]:
    """Return what a reader should know, a sentence each: the report's notes and what counts say."""
    notes = list(report.notes)
    if report.cost is not None and report.cost.agrees and report.cost.explanation:
        notes.append(f"{report.cost.explanation}.".capitalize())
    unsure = report.whole.cannot_tell
    if unsure and report.gradient_status == "agree":
        alone = "component is" if unsure == 1 else "components are"
        notes.append(
            f"{unsure:,} {alone} smaller than the approximation's own error: checked only "
            "through the norm of their blocks."
        )
    whole = report.whole
    if whole.literal_difference > 2.0 * max(whole.difference, report.held_to.tol):
        notes.append(
            "Compared with the central differences themselves, kinks and truncation included, "
            f"the difference is {number(whole.literal_difference)}."
        )
    return notes


TAYLOR_COLUMNS = ("h", "J(θ+hu)−J−h·g·u", "rate", "difference", "rate")


def taylor_rows(taylor: TaylorTable) -> list[list[str]]:
    """Return the figures of a Taylor table."""

    def rate(value: float | None) -> str:
        return "" if value is None else f"{round(value, 2) + 0.0:.2f}"  # no minus before 0

    return [
        [
            number(row.step),
            number(row.remainder),
            rate(row.rate),
            number(row.difference),
            rate(row.difference_rate),
        ]
        for row in taylor.rows
    ]


def taylor_sentence(taylor: TaylorTable) -> str:
    """Say what the rates of a Taylor table come to."""
    if taylor.rate is None:
        return "Noise hides the rate at every step."
    return f"The remainder falls by h^{taylor.rate:.2f}: 2 if dθ is right, 1 if it is not."
