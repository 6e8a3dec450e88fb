"""The README: commands print what it shows, its Python runs, and its lists are complete."""

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastcheck import Network, backward_pass
from fastcheck.cli.command import run
from fastcheck.pytest_plugin import GradientFixture
from tests.readme import README, blocks, commands, output, section, steady

TEXT = README.read_text(encoding="utf-8")
ROOT = README.parent
OURS = [command for command in commands() if command.is_ours]
OPTION = r"(?<![\w-])--[a-z][a-z-]*[a-z]"


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


def test_the_readme_shows_every_way_to_run_it() -> None:
    lines = [command.line for command in OURS]
    for part in ("--plant", "--write-example", "problem.npz", "--html"):
        assert any(part in line for line in lines), part


# ---- Python ------------------------------------------------------------------------------------


class Linear:
    """A layer: x @ w."""

    @staticmethod
    def forward(x: Any, w: Any) -> Any:
        return x @ w

    @staticmethod
    def backward(dout: Any, x: Any, w: Any) -> Any:
        return dout @ w.T, x.T @ dout


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
        "layer": Linear, "W": rng.normal(size=(6, 2)),
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


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    """Return the options that a help lists."""
    assert run([*arguments, "--help"]) == 0
    return set(re.findall(OPTION, capsys.readouterr().out))


def test_no_option_is_named_anywhere_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    known = helped(capsys) | helped(capsys, "explain")
    known |= {f"--{name.replace('_', '-')}" for name in vars(pytestconfig.option)}
    assert set(re.findall(OPTION, TEXT)) <= known


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


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 180
