"""Which versions a check was made with."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import metadata

__all__ = ["package_version", "versions"]

# Named where loaded: what was not imported had no part in the result.
PACKAGES = ("numpy", "numba", "scipy", "joblib")


@cache
def package_version(package: str) -> str:
    """Return the version of an installed package; `unknown` for a source folder on the path."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of fastcheck, Python and the packages that took part."""
    found = {"fastcheck": package_version("fastcheck"), "python": platform.python_version()}
    for package in PACKAGES:
        module = sys.modules.get(package)
        if module is not None:
            found[package] = str(getattr(module, "__version__", "unknown"))
    return found
