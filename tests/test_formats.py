"""The formats of a report, `fastcheck explain` which shows a saved one in them, and completion."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.cells import cell_len

from fastcheck.cli import command as cli
from fastcheck.cli import options
from fastcheck.cli.command import run
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.parameters import ThetaLayout
from fastcheck.report import Report
from fastcheck.report.data import CostFacts, HeldTo, MethodFacts
from fastcheck.report.diagnosis_sentences import findings
from fastcheck.report.formats import FORMATS, Canvas, render
from fastcheck.report.text import bar, failure
from fastcheck.settings import Settings
from fastcheck.verdict.verdict import evaluate

ORDER = ThetaLayout.from_sizes([30, 20, 10], [True, True])
EVIL = "a|b `c` <img> *d* ::error::\n%0A]]>&\x00\x1b[31m"
SLIP = {
    "sentence": "dW2 is twice as large as it should be",
    "rows": "dW2 = dZ2.T @ A1 / m",
    "course": "dW2 = dZ2 @ A1.T / m",
    "explained": 1.0,
    "consequences": ["dW1", "db1"],
    "equal": [],
}


def made(*wrong: str, noise: float = 0.0, **facts: Any) -> Report:
    """A report on a gradient that is doubled in some blocks."""
    a = np.random.default_rng(0).normal(size=ORDER.size)
    g = a.copy()
    for name in wrong:
        g[ORDER.block(name).slice] *= 2
    approximation = Approximation("unit", 1e-7, None, a, noise, Kinks.none())
    facts.setdefault("held_to", HeldTo(1e-7, "float64", "a relative difference of 1e-07"))
    facts.setdefault("method", MethodFacts("unit", 1e-7, 0, ORDER.size, ORDER.size))
    return Report.of(evaluate(ORDER, g, approximation, None, Settings()), **facts)


def other_cost() -> CostFacts:
    return CostFacts(1.5, theirs=1.0, agrees=False, explanation="the penalty is missing")


# ---- every format ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_verdict_and_the_name_and_ends_its_line(name: str) -> None:
    text = render(made("W2", name="digits"), name)
    assert "wrong" in text.lower()
    assert "digits" in text
    assert "dW2" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_every_format_shows_the_diagnosis_and_what_remains_unexplained(name: str) -> None:
    diagnosis = {"findings": [SLIP], "unexplained": "no slip explains db1: two rows"}
    text = render(made("W2", diagnosis=diagnosis), name)
    flat = " ".join(text.split())
    assert "dW2 is twice as large as it should be." in flat
    assert "Wrong only as a consequence: dW1, db1." in flat
    assert "dW2 = dZ2.T @ A1 / m" in flat
    if name != "html":  # which shows both notations
        assert "dZ2 @ A1.T" not in flat
    assert "o slip explains db1: two rows." in flat


def test_the_mended_line_comes_in_the_owners_notation() -> None:
    report = made("W2", diagnosis={"findings": [SLIP]})
    assert report.network is None
    assert dict(findings(report)[0].labelled())["corrected"] == SLIP["rows"]
    from fastcheck.report.data import NetworkFacts

    network = NetworkFacts(
        "x", (30, 20, 10), ("relu", "identity"), "huber", "mean", 0.0, "", 4, "float64", "course"
    )
    mine = findings(replace(report, network=network))[0]
    assert dict(mine.labelled())["corrected"] == SLIP["course"]
    assert [line for _, line in mine.lines] == [SLIP["course"], SLIP["rows"]]


def test_a_diagnosis_of_another_version_does_no_harm() -> None:
    report = made("W2", diagnosis={"slip": "doubled", "findings": [{}, "?"], "unexplained": None})
    for name in FORMATS:
        assert render(report, name)


# ---- text --------------------------------------------------------------------------------------


def table(text: str) -> list[str]:
    """Return the table of blocks: its heading and its rows."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("   block"))
    return lines[start : start + 6]


@pytest.mark.parametrize(("width", "cells"), [(80, 16), (100, 32), (199, 32), (200, 64)])
def test_a_wider_terminal_has_finer_bars_under_their_scale(width: int, cells: int) -> None:
    text = made("W2").to_text(width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    heading, *rows = table(text)
    start = heading.index("1e-16")
    assert heading[start : start + cells].endswith("1")
    assert heading.index("1e-8") == start + cells // 2
    assert all(re.fullmatch("[█·│]+", row[start : start + cells]) for row in rows)
    assert {row[start + cells] for row in rows} == {" "}


def test_a_bar_of_finer_cells_reaches_as_far() -> None:
    assert bar(1e-12, 1e-7, 2) == "█" * 8 + "·" * 10 + "│" + "·" * 13
    assert bar(3.2e-12, 1e-7, 2).count("█") == 10
    assert bar(3e-12, 1e-7, 2).count("█") == 9
    assert bar(1.0, 1e-7, 4) == "█" * 64


def test_a_very_wide_terminal_has_the_norms_and_counts() -> None:
    report = made("W2")
    narrow, wide = report.to_text(width=139), report.to_text(width=140)
    heading, *rows = table(wide)
    assert "‖dθ_approx‖" not in narrow
    assert [heading.split()[i] for i in (-5, -4, -3, -2, -1)] == [
        "unsure", "kinks", "‖dθ‖", "‖dθ_approx‖", "worst",
    ]  # fmt: skip
    block = report.blocks[2]
    row = next(row for row in rows if "dW2" in row).split()
    assert f"{block.gradient_norm:.4g}" in row
    assert f"{block.approximation_norm:.4g}" in row
    assert f"{block.gradient_norm:.4g}" != f"{block.approximation_norm:.4g}"


def test_a_failure_leaves_out_what_is_no_finding() -> None:
    report = made("W2", notes=("Look here.",))
    report = replace(report, run=replace(report.run, seconds={"reading": 1.0}, command="again!"))
    assert "again!" in report.to_text()
    text = failure(report)
    assert "again!" not in text
    assert "worker" not in text
    for shown in ("WRONG", "dW2", "W2[", "Look here.", "tolerance", "ε = 1e-07"):
        assert shown in text


# ---- Markdown, JUnit, GitHub -------------------------------------------------------------------


def test_markdown_tables_keep_their_columns_whatever_a_name_holds() -> None:
    text = render(
        made("W2", name=EVIL, after_training=(made(),), training="after 1 step"), "markdown"
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert columns == {7, 8}
    assert r"a\|b \`c\` \<img\> \*d\*" in text
    assert "<img>" not in text
    assert "### ✓ after 1 step" in text


def test_markdown_code_ends_where_it_should() -> None:
    text = render(made("W2", diagnosis={"findings": [{**SLIP, "rows": "x = '```'"}]}), "markdown")
    assert "````python\nx = '```'\n````\n" in text


def test_junit_has_a_case_for_each_block_the_whole_and_j() -> None:
    report = made("W2", name="digits", cost=other_cost())
    root = ElementTree.fromstring(render(replace(report, after_training=(made(),)), "junit"))
    first, later = root.findall("testsuite")
    names = [case.get("name") for case in first]
    assert names == ["dW1", "db1", "dW2", "db2", "dθ", "J"]
    failed = [case.get("name") for case in first if case.find("failure") is not None]
    assert failed == ["dW2", "dθ", "J"]
    assert (first.get("tests"), first.get("failures"), first.get("errors")) == ("6", "3", "0")
    assert (later.get("tests"), later.get("failures")) == ("5", "0")
    message = first.findall("testcase")[2].find("failure")
    assert message is not None
    assert "200 of 200 components wrong" in message.get("message", "")


def test_junit_calls_what_nobody_can_tell_an_error() -> None:
    report = made("W2", noise=1.0)
    assert report.status == "cannot tell"
    suite = ElementTree.fromstring(render(report, "junit"))[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "5")


def test_junit_is_xml_whatever_a_name_holds() -> None:
    suite = ElementTree.fromstring(render(made("W2", name=EVIL), "junit"))[0]
    assert "a|b `c` <img> *d* ::error::" in (suite.get("name") or "")


def test_github_annotates_the_verdict_and_each_block_in_trouble() -> None:
    lines = render(made("W1", "b2"), "github").splitlines()
    assert [line.split("::")[1].split(" ")[0] for line in lines] == ["error"] * 3
    assert "title=fastcheck%3A WRONG::dθ is not the gradient" in lines[0]
    assert [re.findall("dW1|db2", line.split("::")[1])[0] for line in lines[1:]] == ["dW1", "db2"]
    assert render(made(), "github").startswith("::notice title=fastcheck%3A RIGHT::")
    assert render(made("W2", noise=1.0), "github").startswith("::warning ")


def test_github_commands_are_not_broken_out_of() -> None:
    diagnosis = {"findings": [{"sentence": "100% wrong\n::error::", "rows": "a\r\nb"}]}
    lines = render(made("W2", name=EVIL, diagnosis=diagnosis), "github").split("\n")
    assert all(re.match("::error title=[^:,]*::", line) for line in lines[:-1])
    assert "%250A" in lines[0]
    assert "100%25 wrong\\n::error::" in lines[0]
    assert "a\\r\\nb" in lines[0]


def test_github_shows_ten_at_most() -> None:
    order = ThetaLayout.from_sizes([2] * 12, [True] * 11)
    a = np.ones(order.size)
    verdict = evaluate(
        order, 2 * a, Approximation("unit", 1e-7, None, a, 0.0, Kinks.none()), None, Settings()
    )
    facts: dict[str, Any] = {
        "held_to": HeldTo(1e-7, "float64", ""), "method": MethodFacts("unit", 1e-7, 0, 66, 66)
    }  # fmt: skip
    assert len(render(Report.of(verdict, **facts), "github").splitlines()) == 10


# ---- the command -------------------------------------------------------------------------------


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "report.json"
    file.write_text(made("W2", name="digits").to_json(), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", FORMATS)
def test_a_saved_report_is_explained_in_every_format(
    saved: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report.from_json(saved.read_text(encoding="utf-8"))
    assert says(capsys, "explain", str(saved), "--format", name) == (1, render(report, name), "")


@pytest.mark.parametrize(
    ("report", "code"), [(made(), 0), (made("W2"), 1), (made("W2", noise=1.0), 3)]
)
def test_an_explained_report_ends_with_its_own_exit_code(
    report: Report, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(report.to_json()))
    assert says(capsys, "explain", "-") == (code, report.to_text(), "")


def test_quiet_explains_in_one_line_but_leaves_other_formats_whole(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = says(capsys, "explain", str(saved), "--quiet")
    assert out.startswith("WRONG: ")
    assert len(out.splitlines()) == 1
    _, out, _ = says(capsys, "explain", str(saved), "--quiet", "--format", "json")
    assert json.loads(out)["status"] == "wrong"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("explain", "Missing argument 'FILE'. See fastcheck explain --help."),
        ("explain nothing.json", "nothing.json can't be read (No such file"),
        ("explain .", ". can't be read (Is a directory)"),
        ("explain {here}", "test_formats.py: text that is no JSON"),
        ("explain {saved} --format xml", "unknown format 'xml'. Expected a format. Known: github"),
        ("explain {saved} --sample 3", "No such option"),
        ("explain {saved} {saved}", "unexpected extra argument"),
        (
            "--format markdwon",
            "unknown format 'markdwon'. Expected a format. Did you mean 'markdown'",
        ),
        ("{saved}", "A report? fastcheck explain "),
    ],
)
def test_bad_usage_is_refused_in_one_line(
    arguments: str, message: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(saved=saved, here=__file__) for word in arguments.split()]
    code, out, err = says(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_check_is_printed_in_the_format_and_saved_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    example = ("--layers", "64-12-10", "--batch", "6", "--plant", "doubled@2", "--quiet")
    code, out, _ = says(capsys, *example, "--format", "junit", "--json", str(file))
    assert code == 1
    assert ElementTree.fromstring(out).tag == "testsuites"
    assert says(capsys, "explain", str(file), "--format", "junit") == (1, out, "")


class Terminal(io.StringIO):
    """Something that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "color"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(
    environment: dict[str, str], color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NO_COLOR": "", "TERM": "xterm", "COLUMNS": "133", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli._canvas() == Canvas(133, color)
    monkeypatch.setenv("COLUMNS", "20")
    assert cli._canvas().width == 60
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert cli._canvas() == Canvas(80, False)


def completed(*words: str) -> list[str]:
    """Return how a line may go on, as bash asks for it."""
    environment = {
        "_FASTCHECK_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["fastcheck", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "fastcheck"], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    # Each line is a kind and a word: files are the shell's.
    kinds = [line.split(",", 1) for line in done.stdout.splitlines()]
    return [word for kind, word in kinds if kind == "plain"]


@pytest.mark.cli
def test_a_shell_completes_options_their_words_and_explain() -> None:
    assert completed("--form") == ["--format"]
    assert completed("--format", "j") == ["json", "junit"]
    assert completed("expl") == ["explain"]
    assert completed("") == []  # so that the shell offers files
    assert {"--format", "--quiet"} <= set(completed("explain", "--"))
    assert "--sample" not in completed("explain", "--")
    assert completed("explain", "r.json", "--format", "git") == ["github"]


@pytest.mark.cli
def test_completion_can_be_installed() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m fastcheck --show-completion; true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "_fastcheck_completion fastcheck" in done.stdout


def test_completion_offers_what_there_is() -> None:
    assert tuple(FORMATS) == options.FORMATS
