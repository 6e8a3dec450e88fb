"""Imports only go down: the map in CONTRIBUTING is what is checked."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastcheck"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| ", re.M)
OPEN = {"errors.py"}  # to everyone
ENTRANCES = {"__init__.py", "__main__.py"}  # they fetch public names from wherever these live
REFERENCE = "reference/"


def floors() -> dict[str, int]:
    """Return the floor of each file (`batch.py`) and folder (`kernels/`) of the map."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    return {place: int(floor) for floor, cell in rows for place in re.findall(r"`([^`]+)`", cell)}


def place_of(file: Path) -> str:
    """Return the place of a file: itself, or its folder at the top of the package."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) == 1 else f"{parts[0]}/"


def file_of(module: str) -> Path | None:
    """Return the file of a module; None for what is none, or not fastcheck's."""
    if module.partition(".")[0] != "fastcheck":
        return None
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.is_file()), None)


def imports(file: Path) -> set[Path]:
    """Return the files of fastcheck that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {file_of(f"{node.module}.{alias.name}") for alias in node.names}
            found |= inner - {None} or {file_of(node.module)}
    return {f for f in found if f is not None}


def arrows() -> set[tuple[str, str]]:
    """Return which place imports from which other one."""
    pairs = {(place_of(f), place_of(used)) for f in PACKAGE.rglob("*.py") for used in imports(f)}
    return {(place, used) for place, used in pairs if place != used}


def test_every_file_has_its_place_on_the_map() -> None:
    places = {place_of(file) for file in PACKAGE.rglob("*.py")} - ENTRANCES
    assert places == set(floors())


def test_imports_go_down() -> None:
    floor = floors()
    up = {
        (place, used)
        for place, used in arrows()
        if place not in ENTRANCES and used not in OPEN | ENTRANCES and floor[place] <= floor[used]
    }
    assert not up, "imports from the same floor or above"


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("methods/**/*.py")), ids=lambda p: p.name)
def test_no_method_can_reach_the_reference_backward_pass(module: Path) -> None:
    seen, ahead = set(), [module]
    while ahead:
        file = ahead.pop()
        seen.add(file)
        ahead += imports(file) - seen
    assert not {place_of(file) for file in seen} & {REFERENCE}


def test_every_import_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "import fastcheck.check\nfrom fastcheck.kernels import forward\nimport numpy\n"
        "def late():\n    from fastcheck.model.batch import Batch\n"
        "    from fastcheck import Report\n"
    )
    found = {str(f.relative_to(PACKAGE)) for f in imports(file)}
    assert found == {"check.py", "kernels/forward.py", "model/batch.py", "__init__.py"}
