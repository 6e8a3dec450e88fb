"""What all tests have: pytester, for the plugin's, and kernels that are compiled once."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels before the workers of pytest-xdist start, where no one has yet."""
    config = session.config
    workers = getattr(config.option, "numprocesses", None)
    if workers and not hasattr(config, "workerinput") and not config.option.collectonly:
        from fastcheck.kernels.compiling import compiled_before

        if not compiled_before():  # importing kernels compiles the first of them
            from tests.compile_kernels import compile_all

            compile_all()
