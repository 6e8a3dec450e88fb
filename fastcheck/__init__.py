"""fastcheck: is dθ the gradient of J(θ)? A gradient checker for networks of millions of parameters.

Importing the package loads neither numba nor scipy: names are fetched at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcheck.backprop import backward_pass as backward_pass
    from fastcheck.check import gradcheck as gradcheck
    from fastcheck.check import numerical_gradient as numerical_gradient
    from fastcheck.errors import InputError as InputError
    from fastcheck.functions import gradcheck_function as gradcheck_function
    from fastcheck.network import Network as Network
    from fastcheck.problem import Problem as Problem
    from fastcheck.report import Report as Report
    from fastcheck.settings import Settings as Settings

    __version__: str

# Where each public name lives.
PLACES = {
    "InputError": "fastcheck.errors",
    "Network": "fastcheck.network",
    "Problem": "fastcheck.problem",
    "Report": "fastcheck.report",
    "Settings": "fastcheck.settings",
    "backward_pass": "fastcheck.backprop",
    "gradcheck": "fastcheck.check",
    "gradcheck_function": "fastcheck.functions",
    "numerical_gradient": "fastcheck.check",
}

__all__ = [
    "InputError",
    "Network",
    "Problem",
    "Report",
    "Settings",
    "backward_pass",
    "gradcheck",
    "gradcheck_function",
    "numerical_gradient",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name at its first use."""
    if name == "__version__":
        from fastcheck.versions import package_version

        value: Any = package_version("fastcheck")
    elif name in PLACES:
        value = getattr(importlib.import_module(PLACES[name]), name)
    else:
        raise AttributeError(f"module 'fastcheck' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
