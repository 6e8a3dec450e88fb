"""The README: commands print what it shows, its Python runs, and its lists are complete."""

import json
import re
import struct
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, backward_pass
from fastcheck.cli import EXIT_CODES, run
from fastcheck.importers.npz import SPEC_FIELDS
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.losses import LOSSES
from fastcheck.network import PENALTIES
from fastcheck.options import FORMATS
from fastcheck.pytest_plugin import GradientFixture
from fastcheck.settings import BACKENDS, METHODS
from tests.readme import README, Command, blocks, commands, output, section, steady

TEXT = README.read_text(encoding="utf-8")
ROOT = README.parent
OURS = [command for command in commands() if command.is_ours]
OTHERS = [command for command in commands() if command.line.startswith("pytest")]
OPTION = r"(?<![\w-])--[a-z][a-z-]*[a-z]"
ELSEWHERE = "…"


# ---- commands ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Run all of fastcheck's commands in one folder: one reads what another wrote."""
    folder = tmp_path_factory.mktemp("readme")
    return [output(command, folder) for command in OURS]


@pytest.mark.cli
@pytest.mark.parametrize("number", range(len(OURS)), ids=[command.line for command in OURS])
def test_a_command_prints_what_the_readme_shows(number: int, real: list[tuple[int, str]]) -> None:
    """`python -m tests.readme` writes the outputs anew."""
    code, text = real[number]
    assert steady(text) == steady(OURS[number].shown)
    assert code == int("WRONG" in OURS[number].shown)
    assert max(map(len, text.splitlines())) <= 80 or "--quiet" in OURS[number].line


@pytest.mark.cli
@pytest.mark.parametrize("command", OTHERS, ids=[command.line for command in OTHERS])
def test_pytest_prints_what_the_readme_shows_of_it(command: Command, tmp_path: Path) -> None:
    """The example with the bug that the README names; … stands for what is left out."""
    named = re.search(r"\[(examples/\w+\.py)\].* with `(.+?)` where `(.+?)` belongs", TEXT)
    assert named
    source = (ROOT / named[1]).read_text(encoding="utf-8")
    assert source.count(named[3]) == 1
    (tmp_path / Path(named[1]).name).write_text(source.replace(named[3], named[2]), "utf-8")
    code, text = output(command, tmp_path)
    assert code == 1
    words = " ".join(steady(text))
    for part in command.shown.split(f"{ELSEWHERE}\n"):
        excerpt = " ".join(steady(part))
        assert excerpt in words
        words = words[words.index(excerpt) + len(excerpt) :]


def test_the_readme_shows_every_way_to_run_it() -> None:
    lines = [command.line for command in OURS]
    for part in ("--sample 5000", "--plant", "explain", "--write-example", "problem.npz", "--html"):
        assert any(part in line for line in lines), part
    assert OTHERS


# ---- Python ------------------------------------------------------------------------------------


def prepared() -> dict[str, Any]:
    """Return the names that the README's Python takes for granted."""
    rng = np.random.default_rng(0)
    parameters = {
        "W1": rng.normal(size=(7, 6)), "b1": rng.normal(size=7),
        "W2": rng.normal(size=(3, 7)), "b2": rng.normal(size=3),
    }  # fmt: skip
    X, Y = rng.normal(size=(5, 6)), rng.integers(3, size=5)
    network = Network.from_parameters(parameters, activations="relu", loss="softmax_cross_entropy")
    return {
        "parameters": parameters, "X": X, "Y": Y, "network": network,
        "backward": backward_pass, "gradients": dict(backward_pass(network, X, Y)),
    }  # fmt: skip


def with_torch(space: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    space |= {"torch": torch, "module": module.double()}
    space |= {"inputs": torch.randn(5, 6, dtype=torch.float64), "targets": torch.arange(5) % 3}


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_runs_and_its_checks_pass(code: str, gradcheck: GradientFixture) -> None:
    space = prepared()
    if "torch" in code:
        with_torch(space)
    exec(code, space)
    tests: list[Callable[[Any], None]] = [v for k, v in space.items() if k.startswith("test_")]
    for test in tests:
        test(gradcheck)
    report = space.get("report")
    assert tests or report is not None
    assert report is None or report.passed or "epsilon" in code


def test_five_lines_are_five() -> None:
    first = blocks("python")[0]
    assert len([line for line in first.splitlines() if line]) == 5
    assert first in section("Five lines of Python")


def test_the_cube_gives_what_the_readme_says() -> None:
    code = next(block for block in blocks("python") if "t**3" in block)
    said = re.search(r"θ³ at θ = 1 with ε = (\S+) gives (\S+) against (\d)\.", TEXT)
    assert said
    space: dict[str, Any] = {}
    exec(code, space)
    (component,) = space["report"].components
    assert f"epsilon={said[1]}" in code
    assert f"{component.approximation:.4f}" == said[2]
    assert component.gradient == float(said[3])


# ---- lists -------------------------------------------------------------------------------------


def rows(title: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of the tables in a section, as (first cell, second cell)."""
    for line in section(title).splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            first, second = line.strip("| ").split(" | ", 1)
            yield first, second


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    """Return the options that a help lists."""
    assert run([*arguments, "--help"]) == 0
    return set(re.findall(OPTION, capsys.readouterr().out))


def test_every_option_is_in_the_table_and_every_option_there_exists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [option for first, _ in rows("The command") for option in re.findall(OPTION, first)]
    assert sorted(named) == sorted(helped(capsys))
    assert len(named) > 20


def test_every_option_of_pytest_is_in_its_table(pytestconfig: pytest.Config) -> None:
    table = rows("In a test suite")
    named = {option for first, _ in table for option in re.findall(OPTION, first)}
    known = {name for name in vars(pytestconfig.option) if name.startswith("gradcheck_")}
    assert named == {f"--{name.replace('_', '-')}" for name in known}
    assert len(known) == 4


def test_no_option_is_named_anywhere_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    known = helped(capsys) | helped(capsys, "explain")
    known |= {f"--{name.replace('_', '-')}" for name in vars(pytestconfig.option)}
    assert set(re.findall(OPTION, TEXT)) <= known


@pytest.mark.parametrize(
    ("option", "words"), [("--method", METHODS), ("--backend", BACKENDS), ("--format", FORMATS)]
)
def test_an_option_names_all_that_it_takes(option: str, words: tuple[str, ...]) -> None:
    text = next(text for first, text in rows("The command") if option in first)
    assert set(re.findall(r"`([\w.]+)`", text)) - {"joblib.parallel_config"} == set(words)


@pytest.mark.parametrize(
    ("kind", "known"), [("Activations", ACTIVATIONS), ("Losses", LOSSES)], ids=["φ", "ℓ"]
)
def test_every_activation_and_loss_is_listed(kind: str, known: dict[str, Any]) -> None:
    listed = re.search(rf"^{kind}: (.*?)\.$", TEXT, re.MULTILINE | re.DOTALL)
    assert listed
    assert sorted(re.findall(r"`(\w+)`", listed[1])) == sorted(known)


def test_every_method_penalty_and_field_of_a_spec_is_named() -> None:
    methods = re.findall(r"^\*\*(\w+)\*\*", section("Two methods"), re.MULTILINE)
    assert {*methods, "auto"} == set(METHODS)
    text = section("What it checks, and how")
    assert {"l2/2m", *re.findall(r'"(l2[^"]*)"', text)} == set(PENALTIES)
    files = section("Problem files")
    (spec,) = blocks("json")
    further = re.search(r"Further fields: (.*?)\. ", files, re.DOTALL)
    assert further
    assert set(json.loads(spec)) | set(re.findall(r"`(\w+)`", further[1])) == set(SPEC_FIELDS)


def test_exit_codes_and_extras_are_those_there_are() -> None:
    told = dict(re.findall(r"\*\*(\d)\*\* ([^,(*]+?)(?: \(|,|\.)", section("The command")))
    assert told == {"0": "the gradient is right", "1": "it is wrong", "2": "bad input or usage",
                    "3": "cannot\ntell"}  # fmt: skip
    assert sorted(EXIT_CODES.values()) == [0, 1, 3]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (frameworks,) = project["optional-dependencies"]["frameworks"]
    named = re.search(r"Extras: (.*?)\.$", TEXT, re.MULTILINE | re.DOTALL)
    assert named
    assert {"fastcheck", *re.findall(r"\[(\w+)\]", named[1])} == set(re.findall(r"\w+", frameworks))


def test_every_link_leads_somewhere() -> None:
    titles = [re.sub(r"[^\w -]", "", t).lower() for t in re.findall("^#+ (.*)$", TEXT, re.M)]
    anchors = {title.strip().replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert [a for a in links if a.startswith("#") and a[1:] not in anchors] == []
    files = [a.partition("#")[0] for a in links if not a.startswith(("#", "https://"))]
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert len(files) > 8


def test_the_picture_is_small_and_sharp() -> None:
    (name,) = re.findall(r"^!\[.+\]\((.+)\)$", TEXT, re.MULTILINE)
    data = (ROOT / name).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", data[16:20]) == (1200,)
    assert len(data) < 200_000
