"""Activations and losses as people write them, several forms each, in the dtype they are given.

A form's `slope(z, a, p, k)` takes the value a = φ(z) too; k is what it says on a kink, 0 for the
slope of one side, 1 for that of the other (relu'(0)). Python floats never upcast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from tests.nasty.network import Array

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
ROOT_HALF, ROOT_2_OVER_PI = math.sqrt(0.5), math.sqrt(2.0 / math.pi)
DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


@dataclass(frozen=True)
class Form:
    """One way to write an activation.

    Attributes
    ----------
    value : callable
        `(z, p) -> φ(z)`.
    slope : callable
        `(z, a, p, k) -> φ'(z)`.
    coarse : bool
        Whether it loses digits where another form keeps them: right to rounding in absolute terms.
    """

    value: Callable[[Array, float], Array]
    slope: Callable[[Array, Array, float, float], Array]
    coarse: bool = False


def one(z: Array) -> Array:
    """Return ones like z."""
    return np.ones_like(z)


def naive_sigmoid(z: Array) -> Array:
    """1 / (1 + exp(−z)); where exp overflows this is the limit, 0."""
    return 1.0 / (1.0 + np.exp(-z))


def stable_sigmoid(z: Array) -> Array:
    """The same without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, one(z), e) / (1.0 + e)


def softplus(z: Array) -> Array:
    """log(1 + exp(z)) without overflow."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def naive_softplus(z: Array) -> Array:
    """log(1 + exp(z)) as it stands."""
    return np.log(1.0 + np.exp(z))


def step(z: Array, at: float, k: float) -> Array:
    """Return 0 below `at`, 1 above it and k on it."""
    return np.where(z > at, one(z), np.where(z < at, np.zeros_like(z), k * one(z)))


def between(z: Array, low: float, high: float, k: float) -> Array:
    """Return 1 between two kinks, 0 outside and k on them."""
    return step(z, low, k) * (one(z) - step(z, high, 1.0 - k))


def joined(z: Array, below: Array, k: float) -> Array:
    """Return 1 above 0, the slope `below` below it, on it a value between the two."""
    side = step(z, 0.0, k)
    return np.where(z > 0, one(z), np.where(z < 0, below, side + (1.0 - side) * below))


def known(values: Array, like: Array) -> Array:
    """Return values in a dtype that SciPy's functions know."""
    return values.astype(np.float64 if like.dtype == np.longdouble else like.dtype)


def cdf(z: Array) -> Array:
    """Φ(z) by erf."""
    return (0.5 * (1.0 + special.erf(known(z * ROOT_HALF, z)))).astype(z.dtype)


def tail_cdf(z: Array) -> Array:
    """Φ(z) by erfc, which keeps the digits of the lower tail."""
    return (0.5 * special.erfc(known(-z * ROOT_HALF, z))).astype(z.dtype)


def decayed(z: Array, p: float) -> Array:
    """p exp(z) for z ≤ 0."""
    return p * np.exp(np.minimum(z, 0.0))


def gelu_gate(z: Array) -> Array:
    """The tanh of GELU's tanh form."""
    return np.tanh(ROOT_2_OVER_PI * (z + 0.044715 * z * z * z))


def gelu_tanh_slope(z: Array, a: Array, p: float, k: float) -> Array:
    """Return ½(1 + t) + ½ z (1 − t²) u'."""
    t = gelu_gate(z)
    inner = ROOT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * z * z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * inner


def mish_slope(z: Array, a: Array, p: float, k: float) -> Array:
    """Return t + z (1 − t²) σ(z)."""
    t = np.tanh(softplus(z))
    return t + z * (1.0 - t * t) * stable_sigmoid(z)


def naive_tanh(z: Array) -> Array:
    """(e^z − e^−z) / (e^z + e^−z)."""
    up, down = np.exp(z), np.exp(-z)
    return (up - down) / (up + down)


FORMS: dict[str, tuple[Form, ...]] = {
    "identity": (Form(lambda z, p: z, lambda z, a, p, k: one(z)),),
    "relu": (
        Form(lambda z, p: np.maximum(z, 0.0), lambda z, a, p, k: step(z, 0.0, k)),
        Form(lambda z, p: z * (z > 0), lambda z, a, p, k: step(z, 0.0, k)),
        Form(lambda z, p: (np.abs(z) + z) / 2.0, lambda z, a, p, k: step(a, 0.0, k)
             if k == 0.0 else step(z, 0.0, k)),
    ),
    "leaky_relu": (
        Form(lambda z, p: np.where(z > 0, z, p * z), lambda z, a, p, k: joined(z, p * one(z), k)),
    ),
    "elu": (
        Form(lambda z, p: np.where(z > 0, z, p * np.expm1(np.minimum(z, 0.0))),
             lambda z, a, p, k: joined(z, decayed(z, p), k)),
        Form(lambda z, p: np.where(z > 0, z, p * (np.exp(np.minimum(z, 0.0)) - 1.0)),
             lambda z, a, p, k: joined(z, a + p, k), coarse=True),
    ),
    "selu": (
        Form(lambda z, p: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
             lambda z, a, p, k: SELU_SCALE * joined(z, decayed(z, SELU_ALPHA), k)),
        Form(lambda z, p: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * (np.exp(np.minimum(z, 0))
                                                                        - 1.0)),
             lambda z, a, p, k: np.where(z > 0, SELU_SCALE * one(z),
                                         np.where(z < 0, a + SELU_SCALE * SELU_ALPHA,
                                                  SELU_SCALE * joined(z, decayed(z, SELU_ALPHA),
                                                                      k))), coarse=True),
    ),
    "softplus": (
        Form(lambda z, p: softplus(z), lambda z, a, p, k: stable_sigmoid(z)),
        Form(lambda z, p: naive_softplus(z), lambda z, a, p, k: naive_sigmoid(z), coarse=True),
        Form(lambda z, p: np.logaddexp(np.zeros_like(z), z), lambda z, a, p, k: 1.0 - np.exp(-a),
             coarse=True),
    ),
    "sigmoid": (
        Form(lambda z, p: stable_sigmoid(z), lambda z, a, p, k: a * (1.0 - a)),
        Form(lambda z, p: naive_sigmoid(z), lambda z, a, p, k: a * (1.0 - a)),
        Form(lambda z, p: naive_sigmoid(z), lambda z, a, p, k: a - a * a),
    ),
    "tanh": (
        Form(lambda z, p: np.tanh(z), lambda z, a, p, k: 1.0 - a * a),
        Form(lambda z, p: np.tanh(z), lambda z, a, p, k: 1.0 - np.power(a, 2)),
        Form(lambda z, p: np.tanh(z), lambda z, a, p, k: (1.0 - a) * (1.0 + a)),
        Form(lambda z, p: naive_tanh(z), lambda z, a, p, k: 1.0 - a * a, coarse=True),
        Form(lambda z, p: 2.0 * naive_sigmoid(2.0 * z) - 1.0, lambda z, a, p, k: 1.0 - a * a,
             coarse=True),
    ),
    "hardtanh": (
        Form(lambda z, p: np.clip(z, -1.0, 1.0), lambda z, a, p, k: between(z, -1.0, 1.0, k)),
        Form(lambda z, p: np.maximum(-1.0, np.minimum(1.0, z)),
             lambda z, a, p, k: between(z, -1.0, 1.0, k)),
    ),
    "relu6": (
        Form(lambda z, p: np.minimum(np.maximum(z, 0.0), 6.0),
             lambda z, a, p, k: between(z, 0.0, 6.0, k)),
    ),
    "silu": (
        Form(lambda z, p: z * stable_sigmoid(z),
             lambda z, a, p, k: stable_sigmoid(z) * (1.0 + z * (1.0 - stable_sigmoid(z)))),
        Form(lambda z, p: z * naive_sigmoid(z),
             lambda z, a, p, k: a + naive_sigmoid(z) * (1.0 - a), coarse=True),
        Form(lambda z, p: z / (1.0 + np.exp(-z)),
             lambda z, a, p, k: naive_sigmoid(z)
             + z * naive_sigmoid(z) * (1.0 - naive_sigmoid(z))),
    ),
    "gelu": (
        Form(lambda z, p: z * tail_cdf(z),
             lambda z, a, p, k: tail_cdf(z) + z * DENSITY * np.exp(-0.5 * z * z)),
        Form(lambda z, p: z * cdf(z),
             lambda z, a, p, k: cdf(z) + z * np.exp(-z * z / 2.0) * DENSITY, coarse=True),
    ),
    "gelu_tanh": (
        Form(lambda z, p: 0.5 * z * (1.0 + gelu_gate(z)), gelu_tanh_slope, coarse=True),
    ),
    "softsign": (
        Form(lambda z, p: z / (1.0 + np.abs(z)),
             lambda z, a, p, k: 1.0 / ((1.0 + np.abs(z)) * (1.0 + np.abs(z)))),
        Form(lambda z, p: z / (1.0 + np.abs(z)),
             lambda z, a, p, k: (1.0 - np.abs(a)) * (1.0 - np.abs(a)), coarse=True),
    ),
    "mish": (
        Form(lambda z, p: z * np.tanh(softplus(z)), mish_slope),
        Form(lambda z, p: z * np.tanh(naive_softplus(z)),
             lambda z, a, p, k: np.tanh(naive_softplus(z)) + z
             * (1.0 - np.tanh(naive_softplus(z)) ** 2) * naive_sigmoid(z), coarse=True),
    ),
}  # fmt: skip


# --- what comes back from the loss: ∂ℓ/∂a_L, rows are samples --------------------------------


def shifted_softmax(z: Array) -> Array:
    """Softmax of the rows, the largest logit taken off first."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True, dtype=z.dtype)


def naive_softmax(z: Array) -> Array:
    """Softmax of the rows as it stands; NaN where the sum overflows, as 0 is no rounding error."""
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True, dtype=z.dtype)
    return e / np.where(np.isinf(total), np.nan, total)


def log_softmax(z: Array) -> Array:
    """Logarithms of the softmax of the rows."""
    below = z - z.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True, dtype=z.dtype))


def through_sigmoid(z: Array, t: Array, p: float) -> Array:
    """Return dA · a(1 − a) with dA = (1 − t)/(1 − a) − t/a, as courses have it."""
    a = naive_sigmoid(z)
    return (-(t / a) + (1.0 - t) / (1.0 - a)) * (a * (1.0 - a))


def cut(r: Array, p: float) -> Array:
    """Huber's slope by cases."""
    return np.where(np.abs(r) <= p, r, p * np.sign(r))


LossForm = Callable[[Array, Array, float], Array]
OUTPUT_ERRORS: dict[str, tuple[LossForm, ...]] = {
    "softmax_cross_entropy": (
        lambda z, t, p: shifted_softmax(z) - t,
        lambda z, t, p: naive_softmax(z) - t,
        lambda z, t, p: np.exp(log_softmax(z)) - t,
    ),
    "sigmoid_cross_entropy": (
        lambda z, t, p: stable_sigmoid(z) - t,
        lambda z, t, p: naive_sigmoid(z) - t,
        through_sigmoid,
    ),
    "squared_error": (lambda z, t, p: z - t, lambda z, t, p: -(t - z)),
    "mean_squared_error": (
        lambda z, t, p: 2.0 * (z - t) / z.shape[1],
        lambda z, t, p: (z - t) * (2.0 / z.shape[1]),
    ),
    "huber": (
        lambda z, t, p: np.clip(z - t, -p, p),
        lambda z, t, p: cut(z - t, p),
        lambda z, t, p: np.where(np.abs(z - t) < p, z - t, p * np.sign(z - t)),
    ),
}
