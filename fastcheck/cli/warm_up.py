"""Compile all kernels before they are needed, and say what is compiled where it takes time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

__all__ = ["announce_compiling", "warm_up"]

NOTICE = (
    "fastcheck: compiling its kernels, once for this installation "
    "(about 15 seconds on two idle cores) …"
)


class _Line:
    """A line on a terminal: what is being compiled, and for how long already."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._width = 0

    def show(self, name: str) -> None:
        """Show the function that is compiled now."""
        what = name.replace("_", " ").strip()
        text = f"fastcheck: compiling {what} ({time.monotonic() - self._began:.0f} s so far) …"
        self.clear()
        self._width = len(text)
        _write(text)

    def clear(self) -> None:
        """Take it away."""
        if self._width:
            _write("\r" + " " * self._width + "\r")
        self._width = 0


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it
        click.echo(text, nl=False, err=True)


@contextmanager
def announce_compiling() -> Iterator[None]:
    """Say what is compiled in the block: at once where nothing is yet, and on a terminal each."""
    from fastcheck.kernels import disk_cache
    from fastcheck.kernels.compiling import compiled_before

    if not compiled_before():
        _write(NOTICE + "\n")
    line = _Line()
    if sys.stderr.isatty():
        disk_cache.listeners.append(line.show)
    try:
        yield
    finally:
        disk_cache.listeners[:] = [one for one in disk_cache.listeners if one != line.show]
        line.clear()


def warm_up() -> Path:
    """Compile all kernels, activations and losses; return the folder that keeps them."""
    import numpy as np

    from fastcheck import Network, gradcheck
    from fastcheck.kernels.activations import ACTIVATIONS
    from fastcheck.kernels.ahead import compile_ahead
    from fastcheck.kernels.calls import Calls
    from fastcheck.kernels.comparison import compare
    from fastcheck.kernels.compiling import CACHE_FOLDER
    from fastcheck.kernels.losses import LOSSES

    compile_ahead()
    for loss in LOSSES.values():
        Calls([*ACTIVATIONS.values()], loss).compile_all()
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3))]
    inputs, targets = rng.normal(size=(5, 3)), rng.integers(2, size=5)
    network = Network.from_arrays(weights, activations=["relu", "tanh", "identity"])
    for precision in (np.float32, np.float64):
        wrong = rng.normal(size=network.size).astype(precision)
        gradcheck(network, inputs, targets, wrong, method="textbook")
        gradcheck(network, inputs, targets, wrong, epsilon=1e-2)
    compare(np.ones(1), np.ones(1), np.ones(1), (0.0, 0.0), np.empty(4))  # of large blocks
    return CACHE_FOLDER
