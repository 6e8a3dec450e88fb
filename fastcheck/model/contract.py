"""The contract of a backward pass: one line for each thing that holds beside the derivative."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTRACT", "ContractLine"]

# Names of the lines, in the order of the report.
CONTRACT = (
    "shapes and dtypes",
    "deterministic",
    "arguments unchanged",
    "linear in dout",
    "dout of zeros",
    "strides of dout",
    "expanded dout",
    "strides of inputs",
    "needed gradients",
    "repeated indices",
    "at another point",
    "other kinds of inputs",
    "sizes 0 and 1",
    "precision",
    "jvp",
)


@dataclass(frozen=True)
class ContractLine:
    """One line.

    Attributes
    ----------
    name : str
        One of `CONTRACT`.
    status : str
        `agree`, `cannot tell`, `wrong` or `not checked`.
    text : str
        What was seen; empty where there is nothing to say.
    """

    name: str
    status: str
    text: str = ""
