"""What an activation of somebody's own is: its values held against those of fastcheck's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.model.network import Network
from fastcheck.reference.backprop import forward_pass
from fastcheck.types import Floats

__all__ = ["GRID", "activation_values", "identify_activation"]


# From where most activations saturate to where they do on the other side; no kink between.
GRID: Floats = np.linspace(-4.0, 4.0, 33)[:, np.newaxis]
# And far beyond, as a function that is clipped there is another one.
FAR = np.array([[6.5], [8.0], [12.0], [30.0], [100.0], [1e3]])
WIDE_GRID: Floats = np.concatenate([-FAR, GRID, FAR])
SINGLE = 1e-5  # a function of the table in float32 is nearer than this, and two of them are not


def activation_values(claim: Any, z: Floats) -> Floats:
    """Return the values of an activation of fastcheck's, z of shape (n, 1)."""
    network = Network.from_arrays([[[1.0]]], activations=[claim], loss="squared_error")
    return forward_pass(network, network.batch(z, z)).A[-1]


def identify_activation(function: Callable[[Any], Any]) -> Any:
    """Return the activation of the table that a function of arrays is, None for no such one.

    One with a parameter, as leaky ReLU has, is returned with it: `("leaky_relu", 0.2)`.
    """
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(function(WIDE_GRID.astype(np.float32)), dtype=np.float64)
    except Exception:  # whatever a function of scalars says of an array
        return None
    if values.shape != WIDE_GRID.shape:
        return None
    for name, entry in ACTIVATIONS.items():
        for spec in [name] if entry.parameter is None else [name, *_fitted(name, values)]:
            ours = activation_values(spec, WIDE_GRID)
            if np.allclose(ours, values, rtol=SINGLE, atol=SINGLE):
                return spec
    return None


def _fitted(name: str, values: Floats) -> list[tuple[str, float]]:
    """Return an activation with the parameter that it would have to have at z = -4."""
    place = int(np.argmin(np.abs(WIDE_GRID + 4.0)))
    unit = float(activation_values((name, 1.0), WIDE_GRID)[place, 0])
    ratio = float(values[place, 0]) / unit
    written = float(f"{ratio:.6g}")  # 0.2, of which a float32 is 0.20000000298
    return [(name, written)] if 0.0 < written < np.inf else []
