"""What a nasty network is: plain arrays, names and numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
Named: TypeAlias = tuple[str, float]
Gradient: TypeAlias = list[tuple[Array, Array | None]]
"""(dW, db) of each layer in row convention; db None where a layer has no biases."""

DEFAULT_PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0, "huber": 1.0}
ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "elu", "selu", "softplus", "sigmoid", "tanh", "hardtanh",
    "relu6", "silu", "gelu", "gelu_tanh", "softsign", "mish",
)  # fmt: skip
LOSSES = (
    "softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error", "mean_squared_error",
    "huber",
)  # fmt: skip
KINKED = ("relu", "leaky_relu", "elu", "selu", "hardtanh", "relu6")
# The factor c of c·λ·W that each penalty adds to dW.
PENALTIES: dict[str, Callable[[int], float]] = {
    "l2/2m": lambda m: 1.0 / m,
    "l2/m": lambda m: 2.0 / m,
    "l2/2": lambda m: 1.0,
    "l2": lambda m: 2.0,
}


def named(name: str, parameter: float | None = None) -> Named:
    """Return a name with its parameter, the default one where none is given."""
    return name, DEFAULT_PARAMETERS.get(name, 0.0) if parameter is None else parameter


@dataclass(frozen=True)
class Nasty:
    """A network and its batch; rows are samples.

    Attributes
    ----------
    weights : list of ndarray, (n_l, n_{l-1}) each, float64
    biases : list of ndarray or None, (n_l,) each, float64
    activations : list of (name, parameter)
    loss : (name, parameter)
    inputs, targets : ndarray, (m, n_0) and (m, n_L), float64
    masks : list of ndarray or None
        Dropout factors (m, n_l), scaled already.
    l2, loss_scale : float
    penalty, reduction : str
    """

    weights: list[Array]
    biases: list[Array | None]
    activations: list[Named]
    loss: Named
    inputs: Array
    targets: Array
    masks: list[Array | None] | None = None
    l2: float = 0.0
    penalty: str = "l2/2m"
    reduction: str = "mean"
    loss_scale: float = 1.0

    @property
    def depth(self) -> int:
        """L."""
        return len(self.weights)

    @property
    def sizes(self) -> list[int]:
        """n_0, …, n_L."""
        return [self.weights[0].shape[1], *(W.shape[0] for W in self.weights)]

    @property
    def m(self) -> int:
        """The number of samples."""
        return int(self.inputs.shape[0])

    @property
    def data_scale(self) -> float:
        """What the sum of the samples' losses is multiplied by."""
        n = self.sizes[-1]
        parts = {"mean": self.m, "sum": 1, "mean_elements": self.m * n}
        return self.loss_scale / parts[self.reduction]

    @property
    def decay(self) -> float:
        """What the penalty adds to dW, as a multiple of W."""
        return self.l2 * PENALTIES[self.penalty](self.m)

    def mask(self, layer: int) -> Array | None:
        """Return the dropout factors of layer `layer` = 1..L, None where there are none."""
        return None if self.masks is None else self.masks[layer - 1]

    def rounded(self, precision: str) -> "Nasty":
        """Return the same network with numbers that a precision can hold, in float64."""

        def cast(values: Array | None) -> Array | None:
            return None if values is None else held(values, precision)

        with np.errstate(over="ignore"):
            return replace(
                self,
                weights=[cast(W) for W in self.weights],
                biases=[cast(b) for b in self.biases],
                inputs=cast(self.inputs),
                targets=cast(self.targets),
                masks=None if self.masks is None else [cast(mask) for mask in self.masks],
            )

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        arrays = [*self.weights, *self.biases, self.inputs, self.targets, *(self.masks or [])]
        return all(np.isfinite(a).all() for a in arrays if a is not None)


def held(values: Array, precision: str) -> Array:
    """Return numbers rounded to a precision, as float64."""
    if precision == "bfloat16":
        return bfloat16(values).astype(np.float64)
    return np.asarray(values, dtype=precision).astype(np.float64)


def bfloat16(values: Array) -> Array:
    """Return numbers rounded to 8 significant bits, to even, as float32."""
    wide = np.asarray(values, dtype=np.float32)
    bits = wide.view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))
    short = (bits & np.uint64(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(wide), short, wide)
