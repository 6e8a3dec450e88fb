"""What rounding in the gradient's precision does to each component of a correct backward pass."""

from fastcheck.rounding.model import Rounding, Variant, gradient_rounding, rounding
from fastcheck.rounding.on_kinks import RoundingOnKinks, rounding_on_kinks

__all__ = [
    "Rounding",
    "RoundingOnKinks",
    "Variant",
    "gradient_rounding",
    "rounding",
    "rounding_on_kinks",
]
