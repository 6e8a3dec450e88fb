"""fastcheck: is dθ the gradient of J(θ)? A gradient checker for networks of millions of parameters.

Importing the package loads neither numba nor scipy: names are fetched at their first use.

PYTEST_DONT_REWRITE: pytest rewrites the assertions of packages that hold a plugin, and warns where
such a package was imported before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcheck.against import audit_tolerance as audit_tolerance
    from fastcheck.against import gradcheck_against as gradcheck_against
    from fastcheck.assertion import GradientError as GradientError
    from fastcheck.assertion import assert_gradient as assert_gradient
    from fastcheck.check import gradcheck as gradcheck
    from fastcheck.check import numerical_gradient as numerical_gradient
    from fastcheck.errors import InputError as InputError
    from fastcheck.frameworks import check_jax as check_jax
    from fastcheck.frameworks import check_jax_function as check_jax_function
    from fastcheck.frameworks import check_keras as check_keras
    from fastcheck.frameworks import check_sklearn as check_sklearn
    from fastcheck.frameworks import check_torch as check_torch
    from fastcheck.frameworks import check_torch_function as check_torch_function
    from fastcheck.functions import gradcheck_function as gradcheck_function
    from fastcheck.importers import read_problem as read_problem
    from fastcheck.importers import write_problem as write_problem
    from fastcheck.importers.jax.model import problem_from_jax as problem_from_jax
    from fastcheck.importers.keras.model import problem_from_keras as problem_from_keras
    from fastcheck.importers.sklearn import problem_from_sklearn as problem_from_sklearn
    from fastcheck.importers.torch.model import network_from_state_dict as network_from_state_dict
    from fastcheck.importers.torch.model import problem_from_torch as problem_from_torch
    from fastcheck.layers import gradcheck_layer as gradcheck_layer
    from fastcheck.model.network import Network as Network
    from fastcheck.model.problem import Problem as Problem
    from fastcheck.reference.backprop import backward_pass as backward_pass
    from fastcheck.report import Report as Report
    from fastcheck.settings import Settings as Settings

    __version__: str

# Where each public name lives.
PLACES = {
    "GradientError": "fastcheck.assertion",
    "InputError": "fastcheck.errors",
    "Network": "fastcheck.model.network",
    "Problem": "fastcheck.model.problem",
    "Report": "fastcheck.report",
    "Settings": "fastcheck.settings",
    "assert_gradient": "fastcheck.assertion",
    "backward_pass": "fastcheck.reference.backprop",
    "gradcheck": "fastcheck.check",
    "audit_tolerance": "fastcheck.against",
    "gradcheck_against": "fastcheck.against",
    "gradcheck_function": "fastcheck.functions",
    "gradcheck_layer": "fastcheck.layers",
    "numerical_gradient": "fastcheck.check",
    "check_jax": "fastcheck.frameworks",
    "check_jax_function": "fastcheck.frameworks",
    "check_keras": "fastcheck.frameworks",
    "check_sklearn": "fastcheck.frameworks",
    "check_torch": "fastcheck.frameworks",
    "check_torch_function": "fastcheck.frameworks",
    "problem_from_jax": "fastcheck.importers.jax.model",
    "problem_from_keras": "fastcheck.importers.keras.model",
    "problem_from_sklearn": "fastcheck.importers.sklearn",
    "problem_from_torch": "fastcheck.importers.torch.model",
    "network_from_state_dict": "fastcheck.importers.torch.model",
    "read_problem": "fastcheck.importers",
    "write_problem": "fastcheck.importers",
}

__all__ = [
    "GradientError",
    "InputError",
    "Network",
    "Problem",
    "Report",
    "Settings",
    "assert_gradient",
    "audit_tolerance",
    "backward_pass",
    "check_jax",
    "check_jax_function",
    "check_keras",
    "check_sklearn",
    "check_torch",
    "check_torch_function",
    "gradcheck",
    "gradcheck_against",
    "gradcheck_function",
    "gradcheck_layer",
    "network_from_state_dict",
    "numerical_gradient",
    "problem_from_jax",
    "problem_from_keras",
    "problem_from_sklearn",
    "problem_from_torch",
    "read_problem",
    "write_problem",
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
