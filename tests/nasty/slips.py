"""Slips that people make, each planted where a person makes it; none is of fastcheck's table.

A slip is told by its place and by a function that takes that step's part. Those of one layer take
the right step elsewhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.nasty import tape as right
from tests.nasty.formulas import OUTPUT_ERRORS, shifted_softmax, stable_sigmoid
from tests.nasty.network import Array, Gradient, Nasty, named
from tests.nasty.tape import RIGHT, Steps, Tape, backward, slope_of

ELSEWHERE: dict[str, Callable[..., Any]] = {
    "slope": right.right_slope,
    "mask": right.right_mask,
    "weights": right.right_weights,
    "penalty": right.right_penalty,
    "biases": right.right_biases,
    "back": right.right_back,
}


@dataclass(frozen=True)
class Slip:
    """One way to get it wrong.

    Attributes
    ----------
    name : str
    step : str
        The step that it replaces, a field of `Steps`.
    make : callable
        `(tape)`, `(tape, l)` or `(tape, gradient)`, as the step takes; raises where it can't be.
    """

    name: str
    step: str
    make: Callable[..., Any]

    def steps(self, layer: int) -> Steps:
        """Return the steps with this one replaced at a layer; 0 for every one."""
        usual = ELSEWHERE.get(self.step)
        if usual is None:
            changed: Any = {self.step: self.make}
            return replace(RIGHT, **changed)

        def chosen(tape: Tape, l: int) -> Any:
            return self.make(tape, l) if layer in (0, l) else usual(tape, l)

        one: Any = {self.step: chosen}
        return replace(RIGHT, **one)


def needs(possible: bool) -> None:
    """Raise where a slip is none on this network."""
    if not possible:
        raise LookupError("no such slip here")


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

# --- dW, db, what goes back ------------------------------------------------------------------


def product(tape: Tape, l: int) -> Array:
    return right.right_weights(tape, l)


def other_values(pick: Callable[[Tape, int], Array]) -> Callable[[Tape, int], Array]:
    """Return dW with something else in A_{l−1}'s place."""

    def made(tape: Tape, l: int) -> Array:
        other = pick(tape, l)
        needs(other.shape == tape.A[l - 1].shape)
        return tape.dZ[l].T @ other

    return made


def square(tape: Tape, l: int, values: Array) -> Array:
    """Return values where W_l is square, and not of one number."""
    needs(tape.W[l].shape[0] == tape.W[l].shape[1] > 1)
    return values


def touched(change: Callable[[Array], None]) -> Callable[[Tape, int], Array]:
    """Return dW changed in place."""

    def made(tape: Tape, l: int) -> Array:
        dW = product(tape, l).copy()
        needs(min(dW.shape) > 1)
        change(dW)
        return dW

    return made


WEIGHTS = [
    Slip("A_l for A_{l−1}", "weights", other_values(lambda t, l: t.A[l])),
    Slip("Z for A", "weights", other_values(lambda t, l: t.Z[l - 1] if l > 1 else t.A[1])),
    Slip("A without its mask", "weights",
         other_values(lambda t, l: t.V[l - 1] if l > 1 else t.A[1])),
    Slip("A shifted by a sample", "weights", other_values(lambda t, l: np.roll(t.A[l - 1], 1, 0))),
    Slip("A reversed", "weights", other_values(lambda t, l: t.A[l - 1][::-1])),
    Slip("A centred", "weights", other_values(lambda t, l: t.A[l - 1] - t.A[l - 1].mean(axis=0))),
    Slip("mean of A", "weights", other_values(lambda t, l: 0 * t.A[l - 1] + t.A[l - 1].mean(0))),
    Slip("|A|", "weights", other_values(lambda t, l: np.abs(t.A[l - 1]))),
    Slip("dA for dZ", "weights", lambda t, l: t.dA[l].T @ t.A[l - 1]),
    Slip("transposed", "weights", lambda t, l: square(t, l, product(t, l).T)),
    Slip("in column order", "weights",
         lambda t, l: product(t, l).T.reshape(product(t, l).shape)),
    Slip("last sample only", "weights", lambda t, l: np.outer(t.dZ[l][-1], t.A[l - 1][-1])),
    Slip("last sample missing", "weights", lambda t, l: t.dZ[l][:-1].T @ t.A[l - 1][:-1]),
    Slip("first sample missing", "weights", lambda t, l: t.dZ[l][1:].T @ t.A[l - 1][1:]),
    Slip("every other sample", "weights", lambda t, l: t.dZ[l][::2].T @ t.A[l - 1][::2]),
    Slip("dW / m again", "weights", lambda t, l: product(t, l) / t.net.m),
    Slip("dW × m", "weights", lambda t, l: product(t, l) * t.net.m),
    Slip("dW / n", "weights", lambda t, l: product(t, l) / t.W[l].shape[1]),
    Slip("dW × 1.0001", "weights", lambda t, l: product(t, l) * 1.0001),
    Slip("−dW", "weights", lambda t, l: -product(t, l)),
    Slip("|dW|", "weights", lambda t, l: np.abs(product(t, l))),
    Slip("dW is zero", "weights", lambda t, l: 0 * product(t, l)),
    Slip("dW clipped", "weights",
         lambda t, l: np.clip(product(t, l), *(np.abs(product(t, l)).max() * np.array([-.5, .5])))),
    Slip("dW's norm clipped", "weights", lambda t, l: 0.7 * product(t, l)),
    Slip("an entry × 1.01", "weights",
         touched(lambda d: put(d, np.unravel_index(np.abs(d).argmax(), d.shape),
                               1.01 * d.flat[np.abs(d).argmax()]))),
    Slip("an entry is zero", "weights",
         touched(lambda d: put(d, np.unravel_index(np.abs(d).argmax(), d.shape), 0.0))),
    Slip("a row is zero", "weights", touched(lambda d: put(d, 0, 0.0))),
    Slip("a column is zero", "weights", touched(lambda d: put(d, (slice(None), -1), 0.0))),
    Slip("rows rolled", "weights", lambda t, l: np.roll(product(t, l), 1, axis=0)),
    Slip("columns rolled", "weights", lambda t, l: np.roll(product(t, l), 1, axis=1)),
    Slip("dW plus 1e-3 noise", "weights",
         lambda t, l: product(t, l) * (1 + 1e-3 * np.random.default_rng(l).normal(
             size=t.W[l].shape))),
]  # fmt: skip


def no_biases_trouble(tape: Tape, l: int) -> Array:
    return right.right_biases(tape, l)


BIASES = [
    Slip("db is a mean", "biases", lambda t, l: t.dZ[l].mean(axis=0)),
    Slip("db × m", "biases", lambda t, l: no_biases_trouble(t, l) * t.net.m),
    Slip("db of one sample", "biases", lambda t, l: t.dZ[l][-1]),
    Slip("db misses a sample", "biases", lambda t, l: t.dZ[l][1:].sum(axis=0)),
    Slip("db is zero", "biases", lambda t, l: 0 * no_biases_trouble(t, l)),
    Slip("db from dA", "biases", lambda t, l: t.dA[l].sum(axis=0)),
    Slip("db × 2", "biases", lambda t, l: 2 * no_biases_trouble(t, l)),
    Slip("−db", "biases", lambda t, l: -no_biases_trouble(t, l)),
    Slip("db × 1.0001", "biases", lambda t, l: 1.0001 * no_biases_trouble(t, l)),
    Slip("db summed over everything", "biases",
         lambda t, l: 0 * no_biases_trouble(t, l) + t.dZ[l].sum()),
    Slip("db rolled", "biases", lambda t, l: np.roll(no_biases_trouble(t, l), 1)),
    Slip("db's largest entry × 1.01", "biases",
         lambda t, l: no_biases_trouble(t, l) * (1 + 0.01 * (
             np.abs(no_biases_trouble(t, l)) == np.abs(no_biases_trouble(t, l)).max()))),
    Slip("a penalty on b", "biases", lambda t, l: no_biases_trouble(t, l) + 0.01 * t.b[l]),
    Slip("|db|", "biases", lambda t, l: np.abs(no_biases_trouble(t, l))),
]  # fmt: skip


def going_back(change: Callable[[Tape, int], Array]) -> Callable[[Tape, int], Array]:
    """Return what goes back, where anything does."""

    def made(tape: Tape, l: int) -> Array:
        needs(l > 1)
        return change(tape, l)

    return made


def updated(rate: float) -> Callable[[Tape, int], Array]:
    """Return dA by weights that have been updated before."""
    return going_back(
        lambda t, l: t.dZ[l] @ (t.W[l] - rate * (product(t, l) + right.right_penalty(t, l)))
    )


def of_other_layer(tape: Tape, l: int) -> Array:
    other = next((k for k in tape.W if k != l and tape.W[k].shape == tape.W[l].shape), None)
    needs(other is not None and l > 1)
    return tape.dZ[l] @ tape.W[other or l]


def mask_of_other(tape: Tape, l: int) -> Array:
    needs(l > 1 and tape.net.mask(l) is not None and tape.net.mask(l - 1) is not None)
    other = right.right_mask(tape, l - 1)
    needs(np.shape(other) == tape.Z[l].shape)
    return other


def has_mask(tape: Tape, l: int) -> Array:
    needs(tape.net.mask(l) is not None)
    return right.right_mask(tape, l)


BACK = [
    Slip("W not transposed", "back", going_back(lambda t, l: square(t, l, t.dZ[l] @ t.W[l].T))),
    Slip("W updated first, rate 0.1", "back", updated(0.1)),
    Slip("W updated first, rate 1e-3", "back", updated(1e-3)),
    Slip("W of another layer", "back", of_other_layer),
    Slip("|W|", "back", going_back(lambda t, l: t.dZ[l] @ np.abs(t.W[l]))),
    Slip("dA for dZ going back", "back", going_back(lambda t, l: t.dA[l] @ t.W[l])),
    Slip("only positive dA", "back",
         going_back(lambda t, l: np.maximum(right.right_back(t, l), 0))),
    Slip("detached", "back", going_back(lambda t, l: 0 * right.right_back(t, l))),
    Slip("dA / n", "back", going_back(lambda t, l: right.right_back(t, l) / t.W[l].shape[0])),
    Slip("dA × 1.0001", "back", going_back(lambda t, l: right.right_back(t, l) * 1.0001)),
    Slip("dA / m again", "back", going_back(lambda t, l: right.right_back(t, l) / t.net.m)),
    Slip("dA shifted by a sample", "back",
         going_back(lambda t, l: np.roll(right.right_back(t, l), 1, axis=0))),
    Slip("dA clipped", "back",
         going_back(lambda t, l: np.clip(right.right_back(t, l), -1e-2, 1e-2))),
    Slip("mean dA", "back",
         going_back(lambda t, l: 0 * right.right_back(t, l) + right.right_back(t, l).mean(0))),
    Slip("dA with A added", "back",
         going_back(lambda t, l: right.right_back(t, l) + 1e-3 * t.A[l - 1])),
    Slip("no mask", "mask", lambda t, l: 0 * has_mask(t, l) + 1.0),
    Slip("mask not scaled", "mask", lambda t, l: 1.0 * (has_mask(t, l) > 0)),
    Slip("mask twice", "mask", lambda t, l: has_mask(t, l) ** 2),
    Slip("mask inverted", "mask", lambda t, l: has_mask(t, l).max() - has_mask(t, l)),
    Slip("mask of the layer before", "mask", mask_of_other),
    Slip("mask drawn anew", "mask",
         lambda t, l: np.random.default_rng(l).permutation(has_mask(t, l), axis=0)),
    Slip("mask where there is none", "mask",
         lambda t, l: np.where(np.random.default_rng(l).random(t.Z[l].shape) < 0.8, 1 / 0.8, 0.0)),
]  # fmt: skip


def decay(tape: Tape, l: int) -> Array:
    needs(tape.net.l2 > 0)
    return right.right_penalty(tape, l)


PENALTY = [
    Slip("no penalty", "penalty", lambda t, l: 0 * decay(t, l)),
    Slip("penalty × 2", "penalty", lambda t, l: 2 * decay(t, l)),
    Slip("penalty / 2", "penalty", lambda t, l: decay(t, l) / 2),
    Slip("−penalty", "penalty", lambda t, l: -decay(t, l)),
    Slip("penalty not / m", "penalty", lambda t, l: decay(t, l) * t.net.m),
    Slip("penalty / m again", "penalty", lambda t, l: decay(t, l) / t.net.m),
    Slip("sign(W)", "penalty", lambda t, l: t.net.decay * np.sign(t.W[l]) + 0 * decay(t, l)),
    Slip("W²", "penalty", lambda t, l: t.net.decay * t.W[l] ** 2 + 0 * decay(t, l)),
    Slip("ΣW", "penalty", lambda t, l: t.net.decay * t.W[l].sum() + 0 * decay(t, l)),
    Slip("Wᵀ in the penalty", "penalty", lambda t, l: square(t, l, decay(t, l).T)),
    Slip("W of the layer before", "penalty",
         lambda t, l: of_before(t, l) * t.net.decay + 0 * decay(t, l)),
    Slip("a penalty that J has not", "penalty",
         lambda t, l: right.right_penalty(t, l) + 1e-3 * t.W[l]),
]  # fmt: skip


def of_before(tape: Tape, l: int) -> Array:
    needs(l > 1 and tape.W[l].shape == tape.W[l - 1].shape)
    return tape.W[l - 1]


# --- the finished gradient -------------------------------------------------------------------


def moved(net: Nasty, rate: float) -> Nasty:
    """Return the network a gradient step further."""
    found = backward(net)
    weights = [W - rate * dW for W, (dW, _) in zip(net.weights, found, strict=True)]
    biases = [
        None if b is None or db is None else b - rate * db
        for b, (_, db) in zip(net.biases, found, strict=True)
    ]
    return replace(net, weights=weights, biases=biases)


def reversed_list(tape: Tape, found: Gradient) -> Gradient:
    shapes = [dW.shape for dW, _ in found]
    needs(len(shapes) > 1 and shapes == shapes[::-1])
    return found[::-1]


def each(change: Callable[[Array], Array]) -> Callable[[Tape, Gradient], Gradient]:
    """Return every block changed."""
    return lambda tape, found: [
        (change(dW), None if db is None else change(db)) for dW, db in found
    ]


def swapped(tape: Tape, found: Gradient) -> Gradient:
    needs(tape.L > 1 and found[0][0].shape == found[1][0].shape)
    return [(found[1][0], found[0][1]), (found[0][0], found[1][1]), *found[2:]]


def momentum(tape: Tape, found: Gradient) -> Gradient:
    before: Any = backward(moved(tape.net, 0.1))
    return [
        (0.9 * dW + 0.1 * eW, None if db is None else 0.9 * db + 0.1 * eb)
        for (dW, db), (eW, eb) in zip(found, before, strict=True)
    ]


END = [
    Slip("stale gradient, rate 0.1", "end", lambda t, g: backward(moved(t.net, 0.1))),
    Slip("stale gradient, rate 1e-3", "end", lambda t, g: backward(moved(t.net, 1e-3))),
    Slip("momentum", "end", momentum),
    Slip("reversed list", "end", reversed_list),
    Slip("dW1 and dW2 swapped", "end", swapped),
    Slip("norm of everything clipped", "end", each(lambda v: 0.5 * v)),
    Slip("everything clipped at 0.01", "end", each(lambda v: np.clip(v, -0.01, 0.01))),
    Slip("rounded to float16", "end", each(lambda v: v.astype(np.float16).astype(float))),
    Slip("rounded to 3 decimals", "end", each(lambda v: np.round(v, 3))),
    Slip("signs only", "end", each(np.sign)),
    Slip("the sum of both signs", "end", each(lambda v: v + np.abs(v))),
    Slip("without the first layer", "end",
         lambda t, g: [(0 * g[0][0], None if g[0][1] is None else 0 * g[0][1]), *g[1:]]),
    Slip("everything × 2", "end", each(lambda v: 2 * v)),
    Slip("an offset of 1e-4", "end", each(lambda v: v + 1e-4)),
]  # fmt: skip

SLIPS = (*OUTPUT, *SLOPES, *WEIGHTS, *BIASES, *BACK, *PENALTY, *END)


def planted(net: Nasty, slip: Slip) -> Iterator[tuple[int, Gradient]]:
    """Yield the slip's gradient at each layer where it can be made, 0 for all of them."""
    one = slip.step in ELSEWHERE
    for layer in range(net.depth + 1) if one else (0,):
        try:
            yield layer, backward(net, slip.steps(layer))
        except LookupError:
            continue
