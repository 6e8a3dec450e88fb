"""Frameworks are optional: imported when first needed, with a message that helps where missing."""

from __future__ import annotations

import importlib
from typing import Any

from fastcheck.errors import InputError

__all__ = ["require"]


def require(name: str, extra: str) -> Any:
    """Return a module of a framework.

    Parameters
    ----------
    name : str
        As it is imported: `torch`, `flax.nnx`.
    extra : str
        fastcheck's extra that installs it.

    Raises
    ------
    InputError
        Where it is not installed, or is and can't be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        raise InputError(
            f"{missing} is not installed",
            f"{name} in the environment that fastcheck runs in",
            f"Install it with: pip install 'fastcheck[{extra}]'",
        ) from None
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name} can't be imported ({reason})",
            f"a working {name}",
            f"Install it again: pip install 'fastcheck[{extra}]'",
        ) from error
