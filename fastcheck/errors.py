"""Bad input: the one exception of fastcheck, and text that is safe to print."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["InputError", "damage_reported", "near_names", "printable"]


def printable(text: str) -> str:
    """Return text in which what could steer a terminal or a CI log is escaped.

    These are control characters, line breaks, marks that turn the direction of writing, and lone
    surrogates, which no encoding can hold: a name from a file may have any of them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class InputError(ValueError):
    """Bad input: says what was given, what was expected and what to do.

    What is not printable in the message is escaped.

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
        parts = (given, f"Expected {expected}", remedy)
        super().__init__(". ".join(printable(part) for part in parts if part))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.given, self.expected, self.remedy)


def near_names(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the known names near `name`, or the list of all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + ", ".join(names)


@contextmanager
def damage_reported(place: str, kind: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever damaged bytes raise, wherever they do, into an `InputError`.

    Parameters
    ----------
    place : str
        The file, or what of it is read.
    kind : str
        What a complete one would be: `.npz file`.
    remedy : str, optional
        How to write one.

    Raises
    ------
    InputError
    """
    try:
        yield
    except InputError:
        raise
    except (MemoryError, RecursionError):
        raise InputError(f"{place} does not fit into memory", f"a smaller {kind}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{place} is truncated or corrupt ({reason})",
            f"a complete {kind}",
            f"Copy or write the file again. {remedy}".rstrip(),
        ) from error
