"""The one exception of fastcheck: bad input, refused at the door with a message that helps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "near_names"]


class InputError(ValueError):
    """Bad input: says what was given, what was expected and what to do.

    Parameters
    ----------
    given : str
        What was found, with the place where it was found.
    expected : str
        What would have been right.
    remedy : str, optional
        What to do about it.
    """

    def __init__(self, given: str, expected: str, remedy: str = "") -> None:
        self.given = given
        self.expected = expected
        self.remedy = remedy
        super().__init__(
            ". ".join(part for part in (given, f"Expected {expected}", remedy) if part)
        )

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.given, self.expected, self.remedy)


def near_names(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the known names near `name`, or the list of all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + ", ".join(names)
