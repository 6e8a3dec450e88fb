"""What rounding in the gradient's precision does to each component of a correct backward pass."""

from fastcheck.rounding.model import Rounding, gradient_rounding, rounding

__all__ = ["Rounding", "gradient_rounding", "rounding"]
