"""No damaged or hostile file ends in anything but a result or an `InputError`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastcheck import Network, Report, gradcheck
from fastcheck.cli import command
from fastcheck.errors import InputError, printable
from fastcheck.report.formats import Canvas, renderer
from tests.fuzzing import KINDS, PRINTED, Corpus, attempt


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


@pytest.mark.parametrize("name", PRINTED)
def test_a_report_shows_hostile_names_escaped(name: str) -> None:
    hostile = "first\n::error::no\x1b[31m\u202e"
    rng = np.random.default_rng(0)
    W, x, y = rng.normal(size=(2, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    network = Network.from_parameters(
        {"W1": W}, activations="identity", loss="squared_error", names={"W1": hostile}
    )
    shown = renderer(name)(gradcheck(network, x, y, {"W1": W}, name=hostile), Canvas())
    assert "first" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    assert "\n::error::no" not in shown


@pytest.mark.parametrize("field", ["gradient_status", "gradient_grade"])
def test_a_status_that_nobody_knows_is_refused(field: str, corpus: Corpus) -> None:
    text = json.dumps(corpus.report | {field: "fine"})
    with pytest.raises(InputError, match=f"{field} is 'fine'. Expected one of"):
        Report.from_json(text)
