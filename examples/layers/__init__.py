"""Layers with hand-written backward passes, right ones, and slips as text that is replaced.

Each module has `forward`, `backward(dout, *inputs)`, `inputs(seed)` and `SLIPS`: by name, a piece
of its source and what stands there instead. `planted` makes the module with a slip.
"""

from __future__ import annotations

import importlib
import inspect
import types
from typing import Any

NAMES = (
    "linear",
    "conv2d",
    "max_pool",
    "average_pool",
    "batch_norm",
    "layer_norm",
    "rms_norm",
    "cross_entropy",
    "gelu",
    "swiglu",
    "embedding",
    "rotary",
    "attention",
    "blocked_attention",
    "lstm_cell",
    "gru_cell",
    "scan",
    "gather_scatter",
    "inverse",
    "cholesky",
)


IN_TORCH = ("linear", "rms_norm", "cross_entropy")
IN_JAX = ("rms_norm", "swiglu")
IN_C = ("rms_norm", "gelu")


def module(name: str) -> Any:
    """Return the module of a layer."""
    return importlib.import_module(f"{__name__}.{name}")


def planted(name: str, slip: str) -> Any:
    """Return the module of a layer with a slip in it.

    Raises
    ------
    ValueError
        Where the text that a slip replaces is not there exactly once.
    """
    original = module(name)
    source = inspect.getsource(original).partition("SLIPS")[0]
    old, new = original.SLIPS[slip]
    if source.count(old) != 1:
        raise ValueError(f"{name}: {old!r} stands there {source.count(old)} times")
    made = types.ModuleType(f"{original.__name__}_{slip}")
    exec(compile(source.replace(old, new), f"{name} with {slip}", "exec"), made.__dict__)
    return made
