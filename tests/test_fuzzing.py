"""No damaged or hostile file ends in anything but a result or an `InputError`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastcheck import Report
from fastcheck.cli import command
from fastcheck.errors import InputError, printable
from tests.fuzzing import KINDS, Corpus, attempt


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(kind: str, corpus: Corpus) -> None:
    ends = {attempt(kind, corpus, seed) for seed in range(60)}
    assert "refused" in ends  # else nothing was damaged


def test_a_name_can_not_steer_a_terminal_or_a_log() -> None:
    hostile = "W1\n::error::no\x1b[31m\u202ex\ud800"
    assert printable(hostile).isprintable()
    assert printable("dθ, ‖x‖₂ ≤ 10⁻⁷") == "dθ, ‖x‖₂ ≤ 10⁻⁷"
    error = InputError(hostile, "a name", hostile)
    assert str(error).isprintable()
    str(error).encode()


@pytest.mark.parametrize("value", ["[", '{"a": ' * 100_000, "1" * 5000, '{"$float": []}'])
def test_text_that_is_no_report_is_refused(value: str) -> None:
    with pytest.raises(InputError):
        Report.from_json(value)


def test_what_never_ends_is_no_report() -> None:
    with pytest.raises(InputError, match="more than"):
        command._limited_file(Path("/dev/zero"))
