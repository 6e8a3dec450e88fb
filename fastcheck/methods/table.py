"""The table of methods: a new one is one entry here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from fastcheck.methods import Prepared

__all__ = ["AUTO", "METHODS", "preparation"]

# Where each method's `prepare(network, batch, indices, settings)` is; imported at its first use,
# since each brings kernels of its own.
METHODS = {
    "unit": "fastcheck.methods.unit.windows",
    "textbook": "fastcheck.methods.textbook",
}
AUTO = "unit"


def preparation(method: str) -> Callable[..., Prepared]:
    """Return what prepares a method, by its name or `auto`."""
    module: Any = importlib.import_module(METHODS[AUTO if method == "auto" else method])
    return cast(Callable[..., Prepared], module.prepare)
