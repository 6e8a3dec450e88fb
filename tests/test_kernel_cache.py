"""No stale kernel is ever run, and kernels keep to the rules that make threads safe."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
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
    forward = importlib.import_module("fastcheck.kernels.forward")
    assert Path(forward.cost._cache.cache_path).is_relative_to(compiling.CACHE_FOLDER)
