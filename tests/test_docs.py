"""The documentation: every block of code runs, and prints what the page says it prints."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fastcheck.cli.command import EXIT_CODES
from fastcheck.cli.options import DTYPES, FORMATS
from fastcheck.importers.npz import SPEC_FIELDS
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.losses import LOSSES
from fastcheck.model.network import PENALTIES
from fastcheck.settings import BACKENDS, METHODS
from tests.pages import ELISION, Step, difference, steps_of, written

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if "_build" not in page.parts and "decisions" not in page.parts
)
NEEDED = {
    "pytorch": ["torch"],
    "keras": ["keras", "torch"],
    "sklearn": ["sklearn"],
    "jax": ["jax", "equinox", "flax"],
    "files": ["onnx", "safetensors"],
}


def run(page: Path, folder: Path) -> list[str]:
    """Run a page in a process of its own: frameworks and settings stay apart."""
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "utf-8",
        "KERAS_BACKEND": "torch",
        "JAX_PLATFORMS": "cpu",
    }
    for name in [n for n in environment if n.startswith(("PYTEST", "GITHUB"))]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "pages.py"), str(page)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    for name in NEEDED.get(page.stem, []):
        if importlib.util.find_spec(name) is None:  # Keras is not to be imported here
            pytest.skip(f"{name} is not installed")
    steps = steps_of(page)
    real = run(page, tmp_path)
    assert len(real) == len(steps)
    troubles = [
        f"{page.name}, line {step.line}: {found}"
        for step, output in zip(steps, real, strict=True)
        if (found := difference(step.shown, output))
    ]
    assert not troubles, "\n\n".join(troubles)


def test_every_page_of_code_was_found() -> None:
    names = {page.stem for page in PAGES}
    assert {"tutorial", "questions", "files", "pytest", "report", "mathematics"} <= names
    assert set(NEEDED) <= names
    for page in PAGES:
        fences = re.findall(r"^```(?:python|\{code-block\} python)$", page.read_text(), re.M)
        assert len(fences) == sum(step.kind != "command" for step in steps_of(page))


def test_the_page_on_the_command_has_every_option() -> None:
    options = set()
    for words in (["--help"], ["compare", "--help"]):
        command = [sys.executable, "-m", "fastcheck", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        options |= set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))
    assert len(options) > 25
    page = (DOCS / "command.md").read_text("utf-8")
    assert options == set(re.findall(r"(?<=`)--[a-z][a-z0-9-]+", page))


REPORT = """\
✗ WRONG: dθ is not the gradient of J: difference 0.18, tolerance 1e-07 (most
likely a bug). Wrong: dW1 (4,253 of 6,400 components).

most likely  The derivative is missing.
time        0.87 s (diagnosis 0.55 s, differences 0.23 s), 2 workers

   block    shape  checked  difference  1e-16   1e-8   1  wrong  worst
✗  dW1    100×64    6,400        0.36  ████████████████  4,253  W1[46, 28]
✓  dW2   100×100   10,000     1.5e-16  █········│······      0  W2[28, 60]
"""


LET_PASS = [
    ("0.87 s (diag", "1.2 s (diag"),
    ("1.5e-16  █····", "3.5e-15  ██···"),
    ("[28, 60]", "[1, 2]"),
    ("(most\nlikely", "(most likely\n"),
]
MISSED = [
    ("WRONG", "RIGHT"),
    ("4,253", "4,254"),
    ("0.18", "0.19"),
    ("is missing", "is doubled"),
    ("✓  dW2", "✗  dW2"),
    ("W1[46, 28]", "W1[46, 27]"),
    ("tolerance 1e-07", "tolerance 1e-05"),
]


@pytest.mark.parametrize(("old", "new"), LET_PASS)
def test_what_differs_between_runs_is_let_pass(old: str, new: str) -> None:
    assert old in REPORT
    assert difference(REPORT, REPORT.replace(old, new)) == ""


@pytest.mark.parametrize(("old", "new"), MISSED)
def test_what_a_reader_would_miss_is_not(old: str, new: str) -> None:
    assert old in REPORT
    assert difference(REPORT, REPORT.replace(old, new)) != ""


def test_an_elision_stands_for_anything_and_nothing_else_is_left_out() -> None:
    first, *_, last = REPORT.splitlines()
    assert difference(f"{first}\n{ELISION}\n", REPORT) == ""
    assert difference(f"{first}\n{ELISION}\n{last}\n", REPORT) == ""
    assert difference(f"{first}\n", REPORT) != ""
    assert difference(f"{last}\n{ELISION}\n", REPORT) != ""


def test_pages_can_be_written_anew() -> None:
    """Every output of a page is replaced where it stands, and nothing else."""
    page = DOCS / "tutorial.md"
    steps, text = steps_of(page), page.read_text("utf-8")
    assert written(text, steps, [step.shown for step in steps]) == text
    shown = [step for step in steps if step.shown]
    assert len(shown) > 5
    real = [f"{number} new\nlines\n" if step.shown else "" for number, step in enumerate(steps)]
    anew = written(text, steps, real)
    assert anew.count(" new\nlines\n```\n") == len(shown)
    assert written(anew, _read(anew), [step.shown for step in steps]) == text


def _read(text: str) -> list[Step]:
    with TemporaryDirectory() as folder:
        page = Path(folder) / "page.md"
        page.write_text(text, "utf-8")
        return steps_of(page)


# ---- lists -------------------------------------------------------------------------------------


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def row(name: str, option: str) -> str:
    """Return the row of a page's tables that an option stands in."""
    return next(line for line in page(name).splitlines() if line.startswith(f"| `{option} "))


@pytest.mark.parametrize(
    ("option", "words"),
    [("--method", METHODS), ("--backend", BACKENDS), ("--format", FORMATS), ("--dtype", DTYPES)],
)
def test_an_option_names_all_that_it_takes(option: str, words: tuple[str, ...]) -> None:
    named = set(re.findall(r"`([\w.]+)`", row("command.md", option).partition("` | ")[2]))
    assert named - {"joblib.parallel_config"} == set(words)


def test_every_option_of_pytest_is_in_its_table(pytestconfig: pytest.Config) -> None:
    named = set(re.findall(r"(?<=\| `)--gradcheck-[a-z]+", page("pytest.md")))
    known = {name for name in vars(pytestconfig.option) if name.startswith("gradcheck_")}
    assert named == {f"--{name.replace('_', '-')}" for name in known}
    assert len(known) == 4


@pytest.mark.parametrize(
    ("kind", "known"), [("Activations", ACTIVATIONS), ("Losses", LOSSES)], ids=["φ", "ℓ"]
)
def test_every_activation_and_loss_is_listed(kind: str, known: dict[str, object]) -> None:
    listed = re.search(rf"^{kind}: (.*?)\.$", page("files.md"), re.MULTILINE | re.DOTALL)
    assert listed
    assert sorted(re.findall(r"`(\w+)`", listed[1])) == sorted(known)


def test_every_field_of_a_spec_and_every_penalty_is_named() -> None:
    table = page("files.md").split("### The spec")[1].split("###")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(SPEC_FIELDS)
    assert set(re.findall(r'`"(l2[^"]*)"`', table)) == set(PENALTIES)


def test_exit_codes_and_extras_are_those_there_are() -> None:
    codes = page("command.md").split("## Exit codes")[1].split("```")[0]
    assert re.findall(r"^\| (\d) \|", codes, re.MULTILINE) == ["0", "1", "2", "3"]
    assert sorted(set(EXIT_CODES.values())) == [0, 1, 3]
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", page("install.md"), re.M)))
    assert set(named) == set(extras) - {"dev", "docs"}
