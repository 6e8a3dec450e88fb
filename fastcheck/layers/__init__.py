"""`gradcheck_layer`: checks one layer's `backward(dout)` as the gradient of Σ⟨dout, forward⟩."""

from fastcheck.layers.check import gradcheck_layer
from fastcheck.layers.options import LayerOptions

__all__ = ["LayerOptions", "gradcheck_layer"]
