"""What nobody looked at is not marked as right: after Ctrl-C, and outside of a sample."""

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from fastcheck import Network, Report, backward_pass, gradcheck
from fastcheck.report import formats

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 5)), RNG.integers(0, 2, 6)
ARRAYS = [RNG.normal(size=s) for s in [(7, 5), (7,), (2, 7), (2,)]]
NETWORK = Network.from_arrays(ARRAYS[::2], ARRAYS[1::2], activations="tanh")
CHECKS: dict[str, dict[str, Any]] = {"sample": {"sample": 2}, "interrupted": {}}


def interrupt(done: int, total: int) -> None:
    if done:
        raise KeyboardInterrupt


def check(name: str, factor: float = 1.0) -> Report:
    """Return the report of a check that leaves blocks out."""
    gradient = {k: factor * v for k, v in backward_pass(NETWORK, X, Y).items()}
    if name == "sample":
        return gradcheck(NETWORK, X, Y, gradient, sample=2)
    options: dict[str, Any] = {"method": "textbook", "chunk_size": 4, "jobs": 1}
    return gradcheck(NETWORK, X, Y, gradient, progress=interrupt, **options)


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("name", CHECKS)
def test_no_format_marks_a_block_as_right_that_was_not_looked_at(name: str, factor: float) -> None:
    report = check(name, factor)
    unseen = [block.name for block in report.blocks if block.checked == 0]
    assert unseen
    assert {b.verdict for b in report.blocks if b.checked == 0} == {"not checked"}
    for line in report.to_text().splitlines():
        if "not checked" in line and line.split()[1:2] and line.split()[1] in unseen:
            assert line.startswith("·")
            assert "✓" not in line
    markdown = formats.renderer("markdown")(report, formats.Canvas())
    assert not [n for n in unseen if f"| ✓ | {n} |" in markdown]
    github = formats.renderer("github")(report, formats.Canvas())
    suite = ElementTree.fromstring(formats.renderer("junit")(report, formats.Canvas()))[0]
    skipped = [case.get("name") for case in suite if case.find("skipped") is not None]
    assert skipped == unseen
    assert suite.get("skipped") == str(len(unseen))
    assert not [n for n in unseen if f"fastcheck%3A {n}" in github]
    page = report.to_html()
    assert page.count("not-checked") > 0


@pytest.mark.parametrize("name", CHECKS)
def test_the_status_is_that_of_what_was_looked_at(name: str) -> None:
    assert check(name).status == ("agree" if name == "sample" else "cannot tell")
    assert check(name, 2.0).status == "wrong"


def test_a_wrong_block_leaves_no_others_right_that_were_not_looked_at() -> None:
    sentence = check("sample", 2.0).to_text().split("network ")[0]
    assert "2 not checked." in " ".join(sentence.split())


def test_a_long_list_of_blocks_says_how_many_were_not_looked_at() -> None:
    report = check("sample")
    block = next(b for b in report.blocks if b.checked == 0)
    many = replace(report, blocks=(*report.blocks, *[block] * 60))
    assert "more blocks, " in many.to_text()
    assert "not checked\n" in many.to_text()
    assert "all right" not in many.to_text()
