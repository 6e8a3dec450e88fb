"""Slips at the output and in the activations' slopes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.nasty import tape as right
from tests.nasty.formulas import OUTPUT_ERRORS, shifted_softmax, stable_sigmoid
from tests.nasty.network import Array, named
from tests.nasty.slip import Slip, needs
from tests.nasty.tape import Tape, slope_of

# --- at the output ---------------------------------------------------------------------------


def usual(tape: Tape) -> Array:
    return right.right_start(tape)


def probabilities(tape: Tape) -> Array:
    """Softmax or sigmoid of the output."""
    needs("cross_entropy" in tape.net.loss[0])
    soft = tape.net.loss[0].startswith("softmax")
    return (shifted_softmax if soft else stable_sigmoid)(tape.A[tape.L])


def of_probabilities(change: Callable[[Array, Array], Array]) -> Callable[[Tape], Array]:
    """Return an output error made of probabilities and targets."""
    return lambda tape: change(probabilities(tape), tape.T) * tape.net.data_scale


def of_residuals(change: Callable[[Array], Array]) -> Callable[[Tape], Array]:
    """Return an output error made of z − t."""

    def start(tape: Tape) -> Array:
        needs("cross_entropy" not in tape.net.loss[0])
        return change(tape.A[tape.L] - tape.T) * tape.net.data_scale

    return start


def some_rows(change: Callable[[Array, int], None]) -> Callable[[Tape], Array]:
    """Return an output error whose rows are changed in place."""

    def start(tape: Tape) -> Array:
        needs(tape.net.m > 2)
        dA = usual(tape).copy()
        change(dA, tape.net.m)
        return dA

    return start


def put(values: Array, where: Any, value: Any) -> None:
    values[where] = value


def through_log(eps: float) -> Callable[[Array, Array], Array]:
    """Return the error of −Σ t log(p + eps) by softmax."""

    def error(p: Array, t: Array) -> Array:
        dp = -t / (p + eps)
        return p * (dp - (dp * p).sum(axis=1, keepdims=True))

    return error


def wrong_targets(change: Callable[[Array], Array]) -> Callable[[Tape], Array]:
    """Return the output error with other targets."""

    def start(tape: Tape) -> Array:
        name, p = tape.net.loss
        return OUTPUT_ERRORS[name][0](tape.A[tape.L], change(tape.T), p) * tape.net.data_scale

    return start


OUTPUT = [
    Slip("y − a", "start", lambda t: -usual(t)),
    Slip("no 1/m", "start", lambda t: usual(t) * t.net.m),
    Slip("1/m twice", "start", lambda t: usual(t) / t.net.m),
    Slip("1/(m−1)", "start", lambda t: usual(t) * t.net.m / (t.net.m - 1)),
    Slip("1/n_0", "start", lambda t: usual(t) * t.net.m / t.net.sizes[0]),
    Slip("1/2m", "start", lambda t: usual(t) / 2),
    Slip("everything × (1 + 1e-5)", "start", lambda t: usual(t) * (1 + 1e-5)),
    Slip("everything × (1 + 3e-7)", "start", lambda t: usual(t) * (1 + 3e-7)),
    Slip("targets rolled by a column", "start", wrong_targets(lambda T: np.roll(T, 1, axis=1))),
    Slip("targets rolled by a sample", "start", wrong_targets(lambda T: np.roll(T, 1, axis=0))),
    Slip("targets reversed", "start", wrong_targets(lambda T: T[::-1])),
    Slip("label smoothing", "start", wrong_targets(lambda T: 0.9 * T + 0.1 / T.shape[1])),
    Slip("targets halved", "start", wrong_targets(lambda T: 0.5 * T)),
    Slip("no targets", "start", wrong_targets(lambda T: 0 * T)),
    Slip("log(p + 1e-3)", "start", of_probabilities(through_log(1e-3))),
    Slip("log(p + 1e-8)", "start", of_probabilities(through_log(1e-6))),
    Slip("p clipped at 0.02", "start", of_probabilities(lambda p, t: np.clip(p, 0.02, 0.98) - t)),
    Slip("softmax × 0.999", "start", of_probabilities(lambda p, t: 0.999 * p - t)),
    Slip("p(1 − p) once more", "start", of_probabilities(lambda p, t: (p - t) * p * (1 - p))),
    Slip("−t/p", "start", of_probabilities(lambda p, t: -t / p)),
    Slip("log2", "start", of_probabilities(lambda p, t: (p - t) / np.log(2))),
    Slip("temperature 1.01", "start",
         lambda t: (shifted_softmax(t.A[t.L] / 1.01) - t.T) * t.net.data_scale
         + 0 * probabilities(t)),
    Slip("logits − t", "start", lambda t: (t.A[t.L] - t.T) * t.net.data_scale
         + 0 * probabilities(t)),
    Slip("argmax − t", "start", of_probabilities(lambda p, t: (p == p.max(1, keepdims=True)) - t)),
    Slip("absolute error", "start", of_residuals(np.sign)),
    Slip("cubed", "start", of_residuals(lambda r: r**3)),
    Slip("residuals clipped at 0.3", "start", of_residuals(lambda r: np.clip(r, -0.3, 0.3))),
    Slip("mean residual", "start", of_residuals(lambda r: 0 * r + r.mean(axis=0))),
    Slip("residuals broadcast", "start", of_residuals(lambda r: r + r.sum(axis=1, keepdims=True))),
    Slip("last sample left out", "start", some_rows(lambda d, m: put(d, -1, 0))),
    Slip("a sample counted twice", "start", some_rows(lambda d, m: put(d, 0, 2 * d[0]))),
    Slip("a sample × 1.01", "start", some_rows(lambda d, m: put(d, 1, 1.01 * d[1]))),
    Slip("half of the batch", "start", some_rows(lambda d, m: put(d, slice(m // 2, None), 0))),
    Slip("samples shuffled", "start", lambda t: np.roll(usual(t), 1, axis=0)),
    Slip("an output left out", "start", lambda t: usual(t) * (np.arange(t.net.sizes[-1]) > 0)),
]  # fmt: skip

# --- slopes ----------------------------------------------------------------------------------


def slope(tape: Tape, l: int) -> Array:
    return right.right_slope(tape, l)


def kind(tape: Tape, l: int, *names: str) -> None:
    needs(tape.net.activations[l - 1][0] in names)


def as_if(name: str, parameter: float | None = None) -> Callable[[Tape, int], Array]:
    """Return the slope of another activation."""

    def made(tape: Tape, l: int) -> Array:
        needs(tape.net.activations[l - 1][0] != "identity")
        return slope_of(named(name, parameter), tape.Z[l])

    return made


def of(names: tuple[str, ...], formula: Callable[[Array, Array], Array]) -> Any:
    """Return a slope miswritten from z and a, for some activations."""

    def made(tape: Tape, l: int) -> Array:
        kind(tape, l, *names)
        return formula(tape.Z[l], tape.V[l])

    return made


def from_values(tape: Tape, l: int) -> Array:
    needs(tape.net.activations[l - 1][0] != "identity")
    return slope_of(tape.net.activations[l - 1], tape.A[l])


def of_layer_before(tape: Tape, l: int) -> Array:
    needs(l > 1 and tape.Z[l].shape == tape.Z[l - 1].shape)
    return slope(tape, l - 1)


SLOPES = [
    Slip("no slope", "slope", lambda t, l: 1.0),
    Slip("slope twice", "slope", lambda t, l: slope(t, l) ** 2),
    Slip("slope of A", "slope", from_values),
    Slip("slope of the layer before", "slope", of_layer_before),
    Slip("slope of tanh", "slope", as_if("tanh")),
    Slip("slope of sigmoid", "slope", as_if("sigmoid")),
    Slip("slope of relu", "slope", as_if("relu")),
    Slip("slope of softplus", "slope", as_if("softplus")),
    Slip("slope of elu", "slope", as_if("elu", 1.0)),
    Slip("slope of leaky relu 0.02", "slope", as_if("leaky_relu", 0.02)),
    Slip("slope of the other gelu", "slope", as_if("gelu_tanh")),
    Slip("slope's sign", "slope", lambda t, l: -slope(t, l)),
    Slip("slope × 1.0001", "slope", lambda t, l: 1.0001 * slope(t, l)),
    Slip("leak of 1e-3", "slope", of(("relu",), lambda z, a: np.where(z > 0, 1.0, 1e-3))),
    Slip("threshold at 0.1", "slope", of(("relu", "leaky_relu"), lambda z, a: 1.0 * (z > 0.1))),
    Slip("z < 0", "slope", of(("relu",), lambda z, a: 1.0 * (z < 0))),
    Slip("sign for step", "slope", of(("relu",), lambda z, a: np.sign(z))),
    Slip("1 − a", "slope", of(("tanh", "sigmoid"), lambda z, a: 1 - a)),
    Slip("1 − z²", "slope", of(("tanh",), lambda z, a: 1 - z * z)),
    Slip("1 + a²", "slope", of(("tanh",), lambda z, a: 1 + a * a)),
    Slip("a only", "slope", of(("tanh", "sigmoid"), lambda z, a: a)),
    Slip("a(1 + a)", "slope", of(("sigmoid",), lambda z, a: a * (1 + a))),
    Slip("a − a³", "slope", of(("sigmoid",), lambda z, a: a - a**3)),
    Slip("z(1 − z)", "slope", of(("sigmoid",), lambda z, a: z * (1 - z))),
    Slip("f + s − f", "slope", of(("silu",), lambda z, a: a + stable_sigmoid(z) - a)),
    Slip("σ alone", "slope", of(("silu", "softplus"), lambda z, a: stable_sigmoid(z) ** 2)),
    Slip("a bracket of swish'", "slope",
         of(("silu",), lambda z, a: stable_sigmoid(z) * 1 + z * (1 - stable_sigmoid(z)))),
    Slip("no α", "slope", of(("elu", "selu"), lambda z, a: np.where(z > 0, 1, np.exp(z)))),
    Slip("a without α", "slope", of(("elu", "selu"), lambda z, a: np.where(z > 0, 1, a))),
    Slip("1/(1 + |z|)", "slope", of(("softsign",), lambda z, a: 1 / (1 + np.abs(z)))),
    Slip("clip at 0.5", "slope", of(("hardtanh",), lambda z, a: 1.0 * (np.abs(z) < 0.5))),
    Slip("no upper kink", "slope", of(("relu6", "hardtanh"), lambda z, a: 1.0 * (z > -1))),
]  # fmt: skip
