"""What users rely on: names, signatures, fields, flags, JSON keys, documented paths."""

from __future__ import annotations

import difflib

import pytest

from tests.golden import public_api

STORED = public_api.FILE.read_text("utf-8")
ANEW = (
    "Users rely on these names. If the change is meant, write the file anew:\n"
    "    python -m tests.golden --write"
)


def test_the_public_api_is_the_one_that_was_written_down() -> None:
    found = public_api.document()
    differing = difflib.unified_diff(
        STORED.splitlines(), found.splitlines(), "stored", "now", lineterm="", n=0
    )
    assert found == STORED, "\n".join([*differing, ANEW])


def paths() -> list[str]:
    """Return what the documentation names, and what it named when the file was written."""
    kept = STORED.partition("## paths in the documentation\n")[2].split()
    return sorted({*kept, *public_api.documented_paths()})


@pytest.mark.parametrize("path", paths())
def test_a_path_that_the_documentation_names_can_be_imported(path: str) -> None:
    assert public_api.resolve(path) is not None


def test_a_path_that_leads_nowhere_is_noticed() -> None:
    assert len(paths()) > 30
    for path in ("fastcheck.chek.CheckOptions", "fastcheck.check.CheckOption"):
        with pytest.raises((ImportError, AttributeError)):
            public_api.resolve(path)


def test_every_kind_of_name_is_written_down() -> None:
    lines = STORED.splitlines()
    for line in (
        "Report.blocks: tuple[BlockVerdict, ...]",
        "BlockVerdict.difference: float",
        "CheckOptions.train_steps: int",
        "Settings.seed: int = 0",
        "--sample-units N",
        "--gradcheck-sample metavar='N'",
        "diagnosis.findings[].slip: string",
        "components[].low: null | number",
        "pictures.v_curve.curves[].method: string",
    ):
        assert line in lines, line
