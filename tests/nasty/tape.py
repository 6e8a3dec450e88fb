"""An ordinary backward pass in rows, with a place for each slip that a person can make."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.nasty.formulas import FORMS, OUTPUT_ERRORS
from tests.nasty.network import Array, Gradient, Nasty


@dataclass
class Tape:
    """What a forward and a backward pass leave behind; layers count from 1.

    Attributes
    ----------
    net : Nasty
    W, b : dict
    Z, V, A : dict
        Z_l, φ(Z_l) before the dropout mask and A_l after it; A[0] is X.
    dA, dZ : dict
        What comes back, ∂J/∂A_l and ∂J/∂Z_l.
    """

    net: Nasty
    W: dict[int, Array] = field(default_factory=dict)
    b: dict[int, Array | None] = field(default_factory=dict)
    Z: dict[int, Array] = field(default_factory=dict)
    V: dict[int, Array] = field(default_factory=dict)
    A: dict[int, Array] = field(default_factory=dict)
    dA: dict[int, Array] = field(default_factory=dict)
    dZ: dict[int, Array] = field(default_factory=dict)

    @property
    def L(self) -> int:
        """The number of layers."""
        return self.net.depth

    @property
    def T(self) -> Array:
        """The targets."""
        return self.net.targets


def right_start(tape: Tape) -> Array:
    """Return ∂J/∂A_L."""
    name, p = tape.net.loss
    return OUTPUT_ERRORS[name][0](tape.A[tape.L], tape.T, p) * tape.net.data_scale


def right_slope(tape: Tape, l: int) -> Array:
    """Return φ'(Z_l)."""
    return slope_of(tape.net.activations[l - 1], tape.Z[l])


def slope_of(activation: tuple[str, float], z: Array) -> Array:
    """Return an activation's slope at z."""
    name, p = activation
    form = FORMS[name][0]
    return form.slope(z, form.value(z, p), p, 0.0)


def right_mask(tape: Tape, l: int) -> Array | float:
    """Return the dropout factors of A_l, 1 where there are none."""
    mask = tape.net.mask(l)
    return 1.0 if mask is None else mask


def right_weights(tape: Tape, l: int) -> Array:
    """Return the data's part of dW_l."""
    return tape.dZ[l].T @ tape.A[l - 1]


def right_penalty(tape: Tape, l: int) -> Array | float:
    """Return the penalty's part of dW_l."""
    return tape.net.decay * tape.W[l]


def right_biases(tape: Tape, l: int) -> Array:
    """Return db_l."""
    return tape.dZ[l].sum(axis=0)


def right_back(tape: Tape, l: int) -> Array:
    """Return ∂J/∂A_{l−1}."""
    return tape.dZ[l] @ tape.W[l]


def right_end(tape: Tape, found: Gradient) -> Gradient:
    """Return the gradient as it is."""
    return found


@dataclass(frozen=True)
class Steps:
    """The steps of the backward pass, any of which a slip replaces."""

    start: Callable[[Tape], Array] = right_start
    slope: Callable[[Tape, int], Any] = right_slope
    mask: Callable[[Tape, int], Any] = right_mask
    weights: Callable[[Tape, int], Array] = right_weights
    penalty: Callable[[Tape, int], Any] = right_penalty
    biases: Callable[[Tape, int], Array] = right_biases
    back: Callable[[Tape, int], Array] = right_back
    end: Callable[[Tape, Gradient], Gradient] = right_end


RIGHT = Steps()


def forward(net: Nasty) -> Tape:
    """Return what a forward pass leaves behind."""
    tape = Tape(net)
    tape.A[0] = net.inputs
    for l in range(1, net.depth + 1):
        tape.W[l], bias = net.weights[l - 1], net.biases[l - 1]
        tape.b[l] = bias
        tape.Z[l] = tape.A[l - 1] @ tape.W[l].T + (0.0 if bias is None else bias)
        name, p = net.activations[l - 1]
        tape.V[l] = FORMS[name][0].value(tape.Z[l], p)
        tape.A[l] = tape.V[l] * right_mask(tape, l)
    return tape


def backward(net: Nasty, steps: Steps = RIGHT) -> Gradient:
    """Return [(dW1, db1), …], with some steps replaced."""
    with np.errstate(all="ignore"):
        tape = forward(net)
        tape.dA[net.depth] = steps.start(tape)
        found: Gradient = []
        for l in range(net.depth, 0, -1):
            tape.dZ[l] = tape.dA[l] * steps.mask(tape, l) * steps.slope(tape, l)
            dW = steps.weights(tape, l) + steps.penalty(tape, l)
            found.insert(0, (dW, None if tape.b[l] is None else steps.biases(tape, l)))
            tape.dA[l - 1] = steps.back(tape, l)
        return steps.end(tape, found)
