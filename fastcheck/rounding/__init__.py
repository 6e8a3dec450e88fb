"""What rounding in the gradient's precision does to each component of a correct backward pass."""

from fastcheck.rounding.model import (
    BLOCK_CEILING,
    BLOCK_FACTOR,
    COMPONENT_FACTOR,
    Rounding,
    block_tolerance,
    gradient_rounding,
    rounding,
)

__all__ = [
    "BLOCK_CEILING",
    "BLOCK_FACTOR",
    "COMPONENT_FACTOR",
    "Rounding",
    "block_tolerance",
    "gradient_rounding",
    "rounding",
]
