"""No stale kernel is ever run, and kernels keep to the rules that make threads safe."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import fastcheck.kernels
from fastcheck.kernels import compiling


def kernels() -> list[Dispatcher]:
    found = []
    for module in pkgutil.iter_modules(fastcheck.kernels.__path__):
        members = vars(importlib.import_module(f"fastcheck.kernels.{module.name}")).values()
        found += [member for member in members if isinstance(member, Dispatcher)]
    return found


def test_every_kernel_is_serial_and_lets_other_threads_run() -> None:
    assert len(kernels()) > 50
    for kernel in kernels():
        options = kernel.targetoptions
        assert options["nogil"]
        assert not options.get("parallel")
        assert set(options["fastmath"]) == {"contract"}
        assert options["error_model"] == "numpy"


def test_a_change_in_any_kernel_source_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "kernels"
    shutil.copytree(Path(compiling.__file__).parent, package)
    monkeypatch.setattr(compiling, "__file__", str(package / "compiling.py"))
    digest = compiling._source_digest.__wrapped__
    before = digest()
    assert before == digest()
    for source in ("activations.py", "losses.py"):
        with (package / source).open("a") as file:
            file.write("# changed\n")
        assert digest() != before
        before = digest()


def test_another_compiler_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = compiling._source_digest.__wrapped__
    before = digest()
    monkeypatch.setattr(compiling, "version", lambda package: "0.0")
    assert digest() != before


def test_kernels_are_kept_in_the_folder_of_their_digest() -> None:
    textbook = importlib.import_module("fastcheck.kernels.textbook")
    assert Path(textbook.textbook_cost._cache.cache_path).is_relative_to(compiling.CACHE_FOLDER)


# Two functions of one name, too long to be inlined, and a kernel for each.
TWO_OF_ONE_NAME = """
import math, sys
from fastcheck.kernels.compiling import array_kernel, part_kernel

def leaf(result):
    @part_kernel
    def of_one_name(x):
        total = 0.0
        for i in range(int(x) + 3):
            total += math.sin(x + i) * math.cos(x - i) * math.tan(x * i) + math.lgamma(2.0 + i)
            total += math.sinh(0.1 * i) + math.atan2(x, 1.0 + i) * math.erf(x) + math.exp(-x)
            total += math.cosh(0.1 * i) + math.asinh(x) * math.log1p(i) + math.expm1(x) ** i
        return total * 0.0 + result
    return of_one_name

one, two = leaf(1.0), leaf(2.0)

@array_kernel
def first(x):
    return one(x)

@array_kernel
def second(x):
    return two(x)

print(*[globals()[name](0.5) for name in sys.argv[1:]])
"""


def test_kernels_that_two_processes_kept_are_not_taken_for_each_other(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_OF_ONE_NAME)
    paths = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}

    def results(*names: str) -> str:
        command = [sys.executable, str(script), *names]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | paths
        )
        return ran.stdout.strip()

    assert results("first") == "1.0"
    assert results("second") == "2.0"
    assert len(list(tmp_path.rglob("two*.nbc"))) == 2
    assert results("first", "second") == "1.0 2.0"
