"""What all tests have: pytester, for the plugin's, and kernels that are compiled once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest_plugins = ["pytester"]

# The examples are part of no installation, and `fastcheck` is not to come from this folder.
examples = ModuleType("examples")
examples.__path__ = [str(Path(__file__).parent.parent / "examples")]
sys.modules.setdefault("examples", examples)

COMPILED = "fastcheck/kernels"  # in pytest's cache: the folder whose kernels are compiled


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels before the workers of pytest-xdist start, where no one has yet."""
    config = session.config
    workers = getattr(config.option, "numprocesses", None)
    if not workers or hasattr(config, "workerinput") or config.option.collectonly:
        return
    from fastcheck.kernels.compiling import CACHE_FOLDER
    from tests.compile_kernels import compile_all

    # Some kernels alone are no sign: importing them compiles the first ones.
    known = config.cache and config.cache.get(COMPILED, None)
    if known != str(CACHE_FOLDER) or not CACHE_FOLDER.is_dir():
        compile_all()
        if config.cache:
            config.cache.set(COMPILED, str(CACHE_FOLDER))
