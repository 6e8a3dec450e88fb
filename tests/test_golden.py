"""The numbers of today: bit for bit on the machine that wrote them down, to rounding elsewhere."""

from __future__ import annotations

import difflib
import json
from typing import Any

import numpy as np
import pytest

from fastcheck import numerical_gradient
from tests.golden import digests
from tests.golden.problems import CASES

ANEW = (
    "If this is meant, say why in the commit message, and write the file anew:\n"
    "    python -m tests.golden --write\n"
    "What changed in a report, two commits' outputs of this command tell:\n"
    "    python -m tests.golden --show {name!r}"
)
STORED = digests.stored()
PROBLEMS: dict[str, Any] = STORED["problems"]
SAME_MACHINE = STORED["machine"] == digests.machine()


def changes(known: Any, found: Any, name: str) -> str:
    """Return what differs, and what to do."""
    before, now = (json.dumps(e, indent=1, ensure_ascii=False).splitlines() for e in (known, found))
    differing = difflib.unified_diff(before, now, "stored", "now", lineterm="", n=9)
    return "\n".join([f"{name}:", *differing, ANEW.format(name=name)])


@pytest.mark.parametrize("name", digests.names())
def test_numbers_and_verdicts_are_those_that_were_written_down(name: str) -> None:
    known, found = PROBLEMS[name], digests.entry_of(name)
    if SAME_MACHINE:
        assert found == known, changes(known, found, name)
        return
    assert found["statuses"] == known["statuses"], changes(known, found, name)
    if name in CASES:
        size = CASES[name].network.size
        assert digests.near(known, found, size), changes(known, found, name)


def test_the_file_holds_these_problems_and_no_others() -> None:
    assert list(PROBLEMS) == digests.names(), ANEW.format(name="relu")
    assert len(PROBLEMS) >= 60


def test_no_right_gradient_among_them_is_accused() -> None:
    right = [name for name in CASES if not CASES[name].bug]
    accused = {name for name in right if PROBLEMS[name]["statuses"].startswith("wrong")}
    assert accused == set()
    wrong = [name for name in CASES if CASES[name].bug]
    assert all(PROBLEMS[name]["statuses"].startswith("wrong") for name in wrong)


@pytest.mark.parametrize("name", ["tanh", "textbook relu", "kinks hardtanh"])
def test_on_another_machine_rounding_is_forgiven_and_a_changed_component_is_not(name: str) -> None:
    rng = np.random.default_rng(0)
    case = CASES[name]
    values = numerical_gradient(case.network, *case.batches, **case.settings)
    noise = digests.entry_of(name)["noise"]

    def entry(numbers: Any) -> Any:
        return {
            "projections": [v.hex() for v in digests.projections(numbers)],
            "noise": noise,
        }

    jitter = rng.normal(size=values.size) * (1e-15 * np.abs(values) + noise)
    assert digests.near(entry(values), entry(values + jitter), values.size)
    changed = values.copy()
    largest = np.abs(values).argmax()
    changed[largest] += 1e-11 * np.linalg.norm(values) + 100 * noise * np.sqrt(values.size)
    assert not digests.near(entry(values), entry(changed), values.size)
