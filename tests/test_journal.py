"""Finished chunks survive a crash, and no journal is taken for another problem's."""

import hashlib
import os
import pickle  # noqa: TID251 - to see that it is refused
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.execution.journal import RECORD, Journal, digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


def filled(path: Path, chunks: int = 3) -> Path:
    with Journal(path, "abc", 10) as journal:
        for chunk in range(chunks):
            journal.record(chunk, np.arange(4.0) + chunk)
    return path


def reread(path: Path, problem: str = "abc", chunks: int = 10) -> dict[int, Any]:
    with Journal(path, problem, chunks) as journal:
        return journal.finished


def test_what_is_recorded_comes_back_bit_for_bit(path: Path) -> None:
    values = np.array([0.1, -0.0, np.nan, np.inf, 5e-324])
    with Journal(path, "abc", 10) as journal:
        journal.record(7, values)
        journal.record(2, (values, np.arange(6).reshape(2, 3), np.array([True, False])))
        journal.record(3, {"low": values[:0], "scalar": np.float32(1.5)})
    finished = reread(path)
    assert sorted(finished) == [2, 3, 7]
    assert finished[7].tobytes() == values.tobytes()
    first, second, third = finished[2]
    assert first.tobytes() == values.tobytes()
    assert second.shape == (2, 3)
    assert second.dtype == np.int64
    assert third.dtype == bool
    assert finished[3]["low"].shape == (0,)
    assert finished[3]["scalar"].dtype == np.float32
    finished[7][0] = 1.0  # not read-only


def test_every_cut_leaves_the_chunks_before_it_and_the_file_goes_on(path: Path) -> None:
    whole = filled(path).read_bytes()
    header = whole.index(b"\n") + 1
    length = (len(whole) - header) // 3
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        with Journal(path, "abc", 10) as journal:
            assert len(journal.finished) == max(0, cut - header) // length
            journal.record(9, np.ones(2))
        finished = reread(path)
        assert 9 in finished
        assert all(np.array_equal(finished[c], np.arange(4.0) + c) for c in finished if c < 9)


def test_a_flipped_bit_anywhere_in_a_record_drops_it(path: Path) -> None:
    whole = bytearray(filled(path).read_bytes())
    header = whole.index(b"\n") + 1
    length = (len(whole) - header) // 3
    for place in range(header + length, header + 2 * length, 3):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        assert list(reread(path)) == [0]


def test_another_problem_is_refused_and_the_file_left_alone(path: Path) -> None:
    before = filled(path).read_bytes()
    for problem, chunks in [("abd", 10), ("abc", 11)]:
        with pytest.raises(InputError, match="another problem's journal"):
            Journal(path, problem, chunks)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n", b"\x80\x04K\x01.", b"{}" * 3000])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="no journal"):
        Journal(path, "abc", 10)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    filled(path)
    assert len(reread(path)) == 3


def test_a_second_run_on_the_same_journal_is_refused(path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(path, "abc", 10), pytest.raises(InputError, match="in use by another run"):
        Journal(path, "abc", 10)
    assert reread(path) == {}  # and free again once the first is closed


def test_a_folder_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="can't be opened"):
        Journal(path / "deeper", "abc", 10)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_nothing_is_unpickled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    filled(path, chunks=1)
    for payload in [
        pickle.dumps(Trap()),
        b'{"form": "ndarray", "arrays": [["|O", [1]]]}\n' + pickle.dumps(Trap()),
        b'{"form": "ndarray", "arrays": [["<f8", [999999999999]]]}\n',
        b'{"form": "ndarray", "arrays": []}\n',
        b"[]\n",
    ]:
        start = struct.pack("<QQ", 1, len(payload))
        checksum = hashlib.sha256(start + payload).digest()
        with path.open("ab") as file:
            file.write(RECORD.pack(1, len(payload), checksum) + payload)
        assert list(reread(path)) == [0]
    assert not Path("sprung").exists()


@pytest.mark.parametrize("result", [[1.0], np.array([None]), None, (np.array(["a"]),)])
def test_only_arrays_of_numbers_are_kept(path: Path, result: object) -> None:
    with Journal(path, "abc", 10) as journal, pytest.raises(TypeError, match="a journal keeps"):
        journal.record(0, result)
    assert reread(path) == {}


def test_every_change_of_the_problem_changes_the_digest() -> None:
    values = np.arange(6.0)
    parts: list[list[Any]] = [
        [values],
        [values + 1e-16 * np.array([0, 0, 0, 0, 0, 8])],
        [values.astype(np.float32)],
        [values.reshape(2, 3)],
        [values[:3], values[3:]],
        [values[:4], values[4:]],
        [values, 1],
        [values, 1.0],
        [values, "1"],
        [values, "1", ""],
        [np.array([-0.0])],
        [np.array([0.0])],
    ]
    assert len({digest(p) for p in parts}) == len(parts)
    assert digest([values[::2], 0.1]) == digest([values[::2].copy(), 0.1])
