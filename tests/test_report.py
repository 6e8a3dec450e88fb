"""The report: JSON that loses nothing, text that says the verdict first and fits its width."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fastcheck.errors import InputError
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.parameters import ThetaLayout
from fastcheck.report import Report
from fastcheck.report.data import CostFacts, HeldTo, MethodFacts, NetworkFacts, RunFacts
from fastcheck.report.sentences import number
from fastcheck.report.text import bar
from fastcheck.settings import Settings
from fastcheck.verdict.verdict import evaluate

ORDER = ThetaLayout.from_sizes([1024, 64, 10], [True, True])


def make_report(change: Any = None, order: ThetaLayout = ORDER, **facts: Any) -> Report:
    """A report on a gradient; `change(g, order)` spoils it."""
    a = np.random.default_rng(0).normal(size=order.size)
    g = a.copy()
    if change is not None:
        change(g, order)
    kinks = facts.pop("kinks", Kinks.none())
    approximation = Approximation("unit", 1e-7, None, a, facts.pop("noise", 0.0), kinks)
    facts.setdefault("held_to", HeldTo(1e-7, "float64", "a relative difference of 1e-07"))
    facts.setdefault("method", MethodFacts("unit", 1e-7, 0, order.size, order.size))
    return Report.of(evaluate(order, g, approximation, None, Settings()), **facts)


def doubled(g: Any, order: ThetaLayout) -> None:
    g[order.block("W2").slice] *= 2


def full_report() -> Report:
    """A report in which everything is there."""
    at = ORDER.index("W1", 3, 4)
    return make_report(
        doubled,
        kinks=Kinks(np.array([at]), np.array([-5.0]), np.array([5.0])),
        cost=CostFacts(1.5, 1.0, 0.5, theirs=1.0, agrees=False, explanation="your J is lower"),
        network=NetworkFacts(
            "1024-64-10 relu", (1024, 64, 10), ("relu", "identity"), "huber(0.5)", "mean", 0.1,
            "(λ/2m)·Σ‖W‖²", 32, "float64", "rows",
        ),
        run=RunFacts({"numpy": "2"}, 2, {"differences": 0.1, "reading": 1e-300}, "fastcheck <x>"),
        name="digits",
        notes=("A note.", "Another \"note\"."),
        after_training=(make_report(),),
        training="after 3 gradient steps of learning rate 0.1",
        diagnosis={"slip": "doubled", "sure": 0.99, "rest": [math.inf, {"x": None}]},
        coverage={"dW1": {"missed": 0.01}},
    )  # fmt: skip


def test_json_out_and_in_loses_nothing() -> None:
    report = full_report()
    assert Report.from_json(report.to_json()) == report
    assert Report.from_json(report.to_json(indent=None)) == report


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_json_keeps_every_float_to_the_last_bit(first: float, second: float) -> None:
    report = full_report()
    component = replace(report.components[0], gradient=first, low=second)
    report = replace(report, components=(component,), diagnosis={"value": [first]})
    again = Report.from_json(report.to_json())
    assert again == report
    assert math.copysign(1, again.components[0].gradient) == math.copysign(1, first)


def test_json_keeps_nan_without_writing_what_json_has_not() -> None:
    report = full_report()
    report = replace(report, components=(replace(report.components[0], approximation=math.nan),))
    text = report.to_json()
    json.loads(text, parse_constant=pytest.fail)
    again = Report.from_json(text)
    assert math.isnan(again.components[0].approximation)


def test_json_tells_other_programs_the_verdict_at_the_top() -> None:
    document = json.loads(full_report().to_json())
    assert document["format"] == "fastcheck report"
    assert document["version"] == 1
    assert (document["passed"], document["status"], document["grade"]) == (False, "wrong", "worry")
    assert [b["name"] for b in document["blocks"]] == ["dW1", "db1", "dW2", "db2"]


def altered(**entries: Any) -> str:
    return json.dumps({**json.loads(full_report().to_json()), **entries})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[1]", "no report"),
        ("[" * 100_000, "no JSON"),
        ('{"format": "fastcheck report", "version": 2}', "version 2"),
        ('{"format": "fastcheck report", "version": 1}', "report without"),
        (altered(blocks=3), r"report\.blocks is '3'"),
        (altered(notes=[1]), r"report\.notes\[0\]"),
        (altered(whole={"name": "dθ"}), r"report\.whole without"),
        (altered(gradient_status=None), r"report\.gradient_status"),
    ],
)
def test_json_that_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Report.from_json(text)


def lines(report: Report, **options: Any) -> list[str]:
    return report.to_text(**options).splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_text_fits_its_width_and_needs_no_colour(width: int) -> None:
    for report in (make_report(), full_report()):
        text = report.to_text(width=width)
        assert "\x1b" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "\x1b[" in full_report().to_text(color=True)


def test_colour_tells_nothing_that_text_does_not() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", full_report().to_text(color=True))
    assert [x.rstrip() for x in plain.splitlines()] == lines(full_report())


def test_text_begins_with_the_verdict_in_words() -> None:
    assert lines(make_report())[0] == (
        "✓ RIGHT: dθ is the gradient of J: difference 0, tolerance 1e-07."
    )
    wrong = " ".join(lines(make_report(doubled)))
    assert wrong.startswith("✗ WRONG: dθ is not the gradient of J: difference ")
    assert "Wrong: dW2 (every component). The other 3 blocks are right." in wrong


def test_text_shows_every_block_and_the_wrong_components_with_both_values() -> None:
    def change(g: Any, order: ThetaLayout) -> None:
        doubled(g, order)
        g[order.index("b1", 7)] += 1e-3

    report = make_report(change)
    text = report.to_text()
    for block in report.blocks:
        row = next(line for line in lines(report) if line[1:].split()[:1] == [block.name])
        assert ("✗" in row) == (block.name in ("dW2", "db1"))
    b1 = next(c for c in report.components if c.block == "db1")
    assert "b1[7]" in text  # though ten components of dW2 are farther off
    assert f"{b1.gradient:.8g}" in text
    assert f"{b1.approximation:.8g}" in text
    assert (
        next(line for line in lines(report) if "W2[" in line and "wrong" in line).split()[-2] == "2"
    )


def test_a_prompt_shows_a_report_in_one_line() -> None:
    assert repr(make_report(doubled)).startswith("<Report: wrong, difference 0.0")
    assert repr(make_report()) == "<Report: agree, difference 0, 66,250 of 66,250 components>"


def test_long_names_stay_whole_and_the_worst_component_makes_room() -> None:
    names = {"W1": "net.0.weight", "b1": "net.0.bias", "W2": "net.2.weight", "b2": "net.2.bias"}
    order = ThetaLayout.from_sizes([1024, 64, 10], [True, True], names=names)
    report = make_report(doubled, order)
    narrow, wide = lines(report), lines(report, width=120)
    for shown in (narrow, wide):
        row = next(line for line in shown if line.startswith("✗  d(net.2.weight)"))
        assert ("net.2.weight[" in row) == (shown is wide)
        assert any(line.startswith("✗  net.2.weight[") for line in shown)


def test_text_names_kinks_with_their_slopes() -> None:
    at = ORDER.index("W1", 3, 4)

    def change(g: Any, order: ThetaLayout) -> None:
        g[at] += 0.1

    a = np.random.default_rng(0).normal(size=ORDER.size)[at]
    kinks = Kinks(np.array([at]), np.array([a - 1]), np.array([a + 1]))
    text = make_report(change, kinks=kinks).to_text()
    assert text.startswith("✓ RIGHT")
    assert "W1[3, 4]" in text
    assert f"slopes {a - 1:.4g} to {a + 1:.4g}" in " ".join(text.split())


def test_a_report_passes_only_if_j_and_the_second_check_do() -> None:
    good = make_report()
    assert good.passed
    other = CostFacts(1.0, theirs=2.0, agrees=False, explanation="the penalty is missing")
    assert replace(good, cost=other).status == "wrong"
    assert "the penalty is missing" in replace(good, cost=other).to_text()
    later = replace(good, after_training=(make_report(doubled),), training="after 2 gradient steps")
    assert (later.status, later.grade) == ("wrong", "worry")
    assert "right at the start, but after 2 gradient steps" in " ".join(lines(later))


def test_an_interrupted_and_an_unsure_report_say_so() -> None:
    unsure = make_report(lambda g, order: np.add(g, 1e-3, out=g), noise=1e-3)
    assert unsure.status == "cannot tell"
    assert "? CANNOT TELL: the difference is" in unsure.to_text()
    facts = MethodFacts("unit", 1e-7, 0, 100, ORDER.size, complete=False)
    interrupted = replace(make_report(), gradient_status="cannot tell", method=facts)
    assert "interrupted after 100 of 66,250 components" in " ".join(lines(interrupted))


def test_markup_in_names_is_text() -> None:
    report = replace(make_report(), name="[bold]X[/bold] [red]")
    assert "[bold]X[/bold] [red]" in report.to_text()


def test_a_very_deep_network_is_cut_to_what_matters() -> None:
    order = ThetaLayout.from_sizes([2] * 61, [True] * 60)
    report = make_report(lambda g, o: np.put(g, [o.index("W37", 0, 0)], 9.0), order=order)
    shown = [line for line in lines(report) if "×" in line]
    assert len(shown) == 1
    assert "dW37" in shown[0]
    assert "and 119 more blocks, all right" in report.to_text()


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, "·········│······"),
        (1e-20, "█········│······"),
        (1e-16, "█········│······"),
        (1e-12, "████·····│······"),
        (1e-7, "█████████│······"),
        (2e-7, "██████████······"),
        (1.0, "████████████████"),
    ],
)
def test_the_bar_has_one_cell_a_decade(difference: float, expected: str) -> None:
    assert bar(difference, 1e-7) == expected


def test_numbers_are_short() -> None:
    values = (0.0, 1e-7, 3.14e-9, 1 / 3, 0.05, 1234.5, math.inf, 1e20)
    assert [number(v) for v in values] == [
        "0", "1e-07", "3.1e-09", "0.33", "0.05", "1.2e+03", "inf", "1e+20",
    ]  # fmt: skip


def test_a_saved_report_is_shown_without_numba_or_scipy() -> None:
    code = (
        "import sys; from fastcheck import Report; "
        "print(Report.from_json(sys.stdin.read())); "
        "sys.exit(any(m in sys.modules for m in ('numba', 'scipy', 'joblib')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=full_report().to_json(), capture_output=True, text=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("✗ WRONG")
