"""Every example runs: scripts, the test suite, the notebook, and the writers in any language."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fastcheck.cli.command import run
from fastcheck.importers.npz import read_problem

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file() and path.suffix != ".md")
WRITERS = [name for name in FILES if name.startswith("write_problem.")]
SUITES = [name for name in FILES if name.startswith("test_") and name.endswith(".py")]
NOTEBOOKS = [name for name in FILES if name.endswith(".ipynb")]
SCRIPTS = [n for n in FILES if n.endswith(".py") and n not in (*WRITERS, *SUITES)]
# What makes a program of a writer; {source} and {program} are put in.
COMPILERS = {
    ".c": ("cc", "-std=c99 -Wall -Wextra -Werror -O2 -o {program} {source} -lm"),
    ".rs": ("rustc", "--edition 2021 -D warnings -O -o {program} {source}"),
}


def compiler(name: str) -> str | None:
    """Return the compiler that a writer needs; rustup puts its own where few paths lead."""
    path = os.pathsep.join((os.environ.get("PATH", ""), str(Path.home() / ".cargo" / "bin")))
    return shutil.which(COMPILERS[Path(name).suffix][0], path=path)


# C is always compiled: its compiler is part of the test environment.
RUNNABLE = [n for n in WRITERS if not n.endswith(".rs") or compiler(n) is not None]


def program(name: str, folder: Path) -> list[str]:
    """Return the command that a writer is, compiled if it has to be."""
    source, made = EXAMPLES / name, folder / "write_problem"
    if source.suffix == ".py":
        return [sys.executable, str(source)]
    found = compiler(name)
    assert found is not None, f"no {COMPILERS[source.suffix][0]} on this machine"
    flags = COMPILERS[source.suffix][1].split()
    subprocess.run([found, *(f.format(source=source, program=made) for f in flags)], check=True)
    return [str(made)]


def needs_what_it_imports(name: str) -> None:
    """Leave out a script whose framework is not installed."""
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                pytest.importorskip(alias.name)


def printed(name: str, folder: Path) -> str:
    """Run a script, with warnings as errors; return what it printed but for the seconds."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return re.sub(r"^time .*(\n {8,}.*)*", "time", done.stdout, flags=re.MULTILINE)


def test_every_example_is_run_by_one_of_these_tests_and_listed() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [n for n in FILES if n not in (*WRITERS, *SUITES, *NOTEBOOKS, *SCRIPTS)] == []
    assert [n for n in FILES if f"]({n})" not in table] == []
    assert all((len(WRITERS) >= 3, SUITES, NOTEBOOKS, len(SCRIPTS) >= 4))


# ---- scripts, the suite, the notebook ----------------------------------------------------------


@pytest.mark.cli
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_and_says_the_same_each_time(name: str, tmp_path: Path) -> None:
    needs_what_it_imports(name)
    text = printed(name, tmp_path)
    assert "✗ WRONG" in text
    assert printed(name, tmp_path) == text
    assert os.listdir(tmp_path) == []


@pytest.mark.cli
@pytest.mark.parametrize("name", SUITES)
def test_the_suite_passes_and_fails_with_a_bug(name: str, tmp_path: Path) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    right, wrong = "(1 - A1**2)", "(1 - A1)"
    assert right in source
    for text, code in ((source, 0), (source.replace(right, wrong), 1)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", name],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            cwd=tmp_path,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert ("WRONG: dθ" in done.stdout) == bool(code)


@pytest.mark.cli
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs_and_shows_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = nbformat.read(EXAMPLES / name, 4)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells), "clear its outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} == {"execute_result", "stream"}
    assert {output.get("name") for output in outputs} == {None, "stdout"}
    pages = [output.data["text/html"] for output in outputs if "data" in output]
    assert len(pages) == 1
    assert pages[0].startswith("<iframe")
    assert "dZ1 = dA1 * (Z1 &amp;gt; 0)" in pages[0]


# ---- writers of problem files ------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_needs_nothing_but_its_language(name: str) -> None:
    """True where it can't be compiled, too."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert Path(name).suffix in {".py", *COMPILERS}
    imported = re.findall(r"^(?:import|from|use|extern crate|#include) *<?([\w.]+)", source, re.M)
    standard = {"std", "json", "sys", "numpy"}
    headers = {f"{header}.h" for header in ("math", "stdint", "stdio", "stdlib", "string")}
    assert imported
    assert set(imported) <= standard | headers


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_writer_writes_a_right_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.npz"
    subprocess.run([*program(name, tmp_path), path], check=True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert read_problem(path).name.startswith("written in ")
    code = run([str(path), "--json", "-", "--quiet"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (code, report["status"]) == (0, "agree")
    assert report["cost"]["theirs"] == pytest.approx(report["cost"]["total"], rel=1e-12)
    assert report["cost"]["agrees"]
