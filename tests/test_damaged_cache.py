"""A damaged, full or read-only kernel cache costs compiling again, and nothing else."""

from __future__ import annotations

import errno
import math
import os
import pickle  # noqa: TID251
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcheck.kernels import compiling, disk_cache


def doubled(x: float) -> float:
    return 2.0 * x


def rooted(x: float) -> float:
    return math.sqrt(x)


EXPECTED: dict[Any, float] = {doubled: 8.0, rooted: 2.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep kernels in an empty folder."""
    monkeypatch.setattr(compiling, "CACHE_FOLDER", tmp_path / "kernels")
    monkeypatch.setattr(disk_cache, "_said", set())
    return tmp_path / "kernels"


def fresh(function: Callable[[float], float] = doubled) -> Any:
    """Return a kernel as another process has it: compiled or read from disk at its first call."""
    kernel: Any = compiling.array_kernel(function)
    assert kernel(4.0) == EXPECTED[function]
    return kernel


def hits(kernel: Any) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_that_was_kept_is_read(folder: Path) -> None:
    assert hits(fresh()) == 0
    assert sorted(f.suffix for f in folder.rglob("*.*")) == [".nbc", ".nbi"]
    assert hits(fresh()) == 1


class Bomb:
    """Ends the process where it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, (1,)


class Interruption:
    def __reduce__(self) -> Any:
        return exec, ("raise KeyboardInterrupt",)


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]

    return flip


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a header alone": lambda content: content[:40],
    "half of it": lambda content: content[: len(content) // 2],
    "the last byte missing": lambda content: content[:-1],
    "a byte too many": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not a kernel\n" * 9,
    "a pickle that exits with 1": lambda content: pickle.dumps(Bomb()),
    "a pickle that interrupts": lambda content: pickle.dumps(Interruption()),
    **{f"a bit flipped at {p}": flipped(p) for p in (0.0, 0.01, 0.05, 0.3, 0.5, 0.9, 1.0)},
}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_compiled_again_and_replaced(
    folder: Path, damage: str, suffix: str
) -> None:
    fresh()
    (file,) = folder.rglob(f"*{suffix}")
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert hits(fresh()) == 0
    assert hits(fresh()) == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_the_entry_of_another_kernel_is_none(folder: Path, suffix: str) -> None:
    fresh(doubled)
    fresh(rooted)
    one, two = sorted(folder.rglob(f"*{suffix}"))
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    for function in EXPECTED:
        assert hits(fresh(function)) == 0
        assert hits(fresh(function)) == 1


def test_an_entry_of_another_signature_is_none(folder: Path) -> None:
    kernel: Any = compiling.array_kernel(doubled)
    assert (kernel(4.0), kernel(4)) == (8.0, 8.0)
    one, two = sorted(folder.rglob("*.nbc"))
    two.write_bytes(one.read_bytes())
    again: Any = compiling.array_kernel(doubled)
    assert (again(4.0), again(4)) == (8.0, 8.0)
    assert hits(again) == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_an_entry_that_is_gone_or_a_folder_is_none(folder: Path, suffix: str) -> None:
    fresh()
    (file,) = folder.rglob(f"*{suffix}")
    file.unlink()
    assert hits(fresh()) == 0
    assert hits(fresh()) == 1
    file.unlink()
    file.mkdir()
    assert hits(fresh()) == 0  # and nothing could be kept


def test_an_entry_that_is_whole_and_can_not_be_rebuilt_is_compiled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh()

    def fails(*_: Any) -> Any:
        raise RuntimeError("no such symbol")

    with monkeypatch.context() as patched:
        patched.setattr(disk_cache._CompiledKernels, "rebuild", fails)
        assert hits(fresh()) == 0
    assert hits(fresh()) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_can_not_be_kept_is_compiled_in_memory_and_said_once(
    code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk_cache._VerifiedFiles, "_open_for_write", full)
    for function in EXPECTED:
        fresh(function)
    (record,) = caplog.records
    assert os.strerror(code) in record.getMessage()
    assert str(folder) in record.getMessage()


def test_a_folder_that_is_a_file_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("in the way")
    fresh()
    assert len(caplog.records) == 1


def test_a_home_that_is_not_known_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling, "CACHE_FOLDER", Path("~/.cache/fastcheck"))
    monkeypatch.chdir(tmp_path)
    fresh()
    assert len(caplog.records) == 1
    assert not list(tmp_path.iterdir())


def test_nothing_unfinished_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "EIO")))
    fresh()
    assert [f for f in folder.rglob("*") if f.is_file()] == []


def test_c_functions_are_kept_in_the_same_way(folder: Path) -> None:
    def hits_again() -> int:
        compiled = compiling.c_function("float64(float64)", doubled, keep=True)
        return int(compiled.cache_hits)

    assert (hits_again(), hits_again()) == (0, 1)
    for file in folder.rglob("*.nb[ic]"):
        file.write_bytes(file.read_bytes()[:-7])
    assert (hits_again(), hits_again()) == (0, 1)


def test_what_another_process_compiles_is_waited_for(folder: Path) -> None:
    class Other:
        def wait(self, seconds: float) -> None:
            fresh()

    kernel: Any = compiling.array_kernel(doubled)
    kernel._cache.pending = Other()
    assert kernel(4.0) == 8.0
    assert hits(kernel) == 1


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import time; time.sleep(60)"])
def test_what_another_process_did_not_compile_is_compiled_here(
    folder: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "LONGEST_WAIT", 0.5)
    kernel: Any = compiling.array_kernel(doubled)
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        kernel._cache.pending = other
        assert kernel(4.0) == 8.0
        other.kill()
    assert hits(kernel) == 0


def test_a_listener_is_told_what_is_compiled_and_nothing_of_what_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(disk_cache, "listeners", [told.append])
    fresh()
    fresh()
    assert told == ["doubled"]


AT_ONCE = """
import sys
from fastcheck.kernels.compiling import array_kernel

@array_kernel
def plus(x, y):
    return x + y

for x, y in [(1, 2), (1.0, 2), (1, 2.0), (1.0, 2.0)][int(sys.argv[1]) % 4:]:
    assert plus(x, y) == 3
print("right")
"""


def test_processes_that_start_at_once_on_a_damaged_cache_are_all_right(tmp_path: Path) -> None:
    script = tmp_path / "at_once.py"
    script.write_text(AT_ONCE)
    places = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}

    def started(number: int) -> Any:
        command = [sys.executable, str(script), str(number)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | places)

    assert started(0).communicate()[0] == b"right\n"
    files = list(tmp_path.rglob("at_once*.nb[ic]"))
    assert len(files) == 5
    for number, file in enumerate(files):
        file.write_bytes(file.read_bytes()[: 50 * number])
    for process in [started(number) for number in range(4)]:
        assert process.communicate()[0] == b"right\n"
        assert process.returncode == 0
