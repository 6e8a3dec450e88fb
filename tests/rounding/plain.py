"""Plain backward passes in any precision: every common formula, every order of summation.

It imports nothing of fastcheck. Rows are samples. Each operation rounds to the arrays' dtype, but
for matrix products by `library_product`, which adds up in float32 or better.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import special

Array = Any
Formula = tuple[str, Callable[[Array], Array], Callable[[Array, Array], Array]]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
ROOT_HALF, ROOT_2_OVER_PI = math.sqrt(0.5), math.sqrt(2.0 / math.pi)


class Problem(NamedTuple):
    """A dense network, its cost and a batch; arrays are float64 and held by the precision."""

    weights: list[Array]
    biases: list[Array]
    activations: list[str]
    loss: str
    l2: float
    inputs: Array
    targets: Array


@dataclass(frozen=True)
class Style:
    """How a backward pass is written.

    Attributes
    ----------
    product
        (m, k), (k, n) -> (m, n).
    total
        Sum over samples.
    formulas
        For each activation which of `FORMULAS`.
    softmax
        Which of `SOFTMAXES`.
    late_mean
        Whether 1/m comes after the sums over samples.
    """

    product: str
    total: str
    formulas: dict[str, int] = field(default_factory=dict)
    softmax: str = "shifted"
    late_mean: bool = False


def _of(z: Array, value: float) -> Array:
    return z.dtype.type(value)


def naive_sigmoid(z: Array) -> Array:
    """Return 1/(1 + exp(-z)), which overflows."""
    one = _of(z, 1.0)
    return one / (one + np.exp(-z))


def stable_sigmoid(z: Array) -> Array:
    """Return σ(z) without overflow."""
    one, decay = _of(z, 1.0), np.exp(-np.abs(z))
    return np.where(z >= 0, one, decay) / (one + decay)


def half_tanh_sigmoid(z: Array) -> Array:
    """Return ½(1 + tanh(z/2))."""
    half = _of(z, 0.5)
    return half * (_of(z, 1.0) + np.tanh(half * z))


def stable_softplus(z: Array) -> Array:
    """Return log(1 + e^z) without overflow."""
    return np.maximum(z, _of(z, 0.0)) + np.log1p(np.exp(-np.abs(z)))


def library_softplus(z: Array) -> Array:
    """Return z itself above 20, as PyTorch does."""
    return np.where(z > 20, z, np.log1p(np.exp(np.minimum(z, _of(z, 20.0)))))


def _erf(z: Array) -> Array:
    return special.erf(z.astype(np.float64)).astype(z.dtype)


def _cdf(z: Array) -> Array:
    return _of(z, 0.5) * (_of(z, 1.0) + _erf(z * _of(z, ROOT_HALF)))


def _density(z: Array) -> Array:
    return np.exp(_of(z, -0.5) * z * z) * _of(z, 1.0 / math.sqrt(2.0 * math.pi))


def _gate(z: Array) -> Array:
    return np.tanh(_of(z, ROOT_2_OVER_PI) * (z + _of(z, 0.044715) * z * z * z))


def _gate_slope(z: Array) -> Array:
    near = np.clip(z, -100.0, 100.0).astype(z.dtype)
    inner = _of(z, ROOT_2_OVER_PI) * (_of(z, 1.0) + _of(z, 3 * 0.044715) * near * near)
    gate, half, one = _gate(near), _of(z, 0.5), _of(z, 1.0)
    return half * (one + gate) + half * near * (one - gate * gate) * inner


def _mish_slope(z: Array, softplus: Callable[[Array], Array]) -> Array:
    gate = np.tanh(softplus(z))
    return gate + z * stable_sigmoid(z) * (_of(z, 1.0) - gate * gate)


def _naive_mish_slope(z: Array) -> Array:
    """Return e^z ω/δ², as in the paper (Misra, 2019); e^3z overflows."""
    e = np.exp(z)
    four, six = _of(z, 4.0), _of(z, 6.0)
    omega = four * (z + _of(z, 1.0)) + four * e * e + e * e * e + e * (four * z + six)
    delta = _of(z, 2.0) * e + e * e + _of(z, 2.0)
    return e * omega / (delta * delta)


def _exponential(alpha: float, scale: float, grown: Callable[[Array], Array]) -> Any:
    def value(z: Array) -> Array:
        below = _of(z, alpha) * grown(np.minimum(z, _of(z, 0.0)))
        return _of(z, scale) * np.where(z > 0, z, below)

    def by_exp(z: Array, a: Array) -> Array:
        steep = _of(z, alpha) * np.exp(np.minimum(z, _of(z, 0.0)))
        return _of(z, scale) * np.where(z > 0, _of(z, 1.0), steep)

    def by_value(z: Array, a: Array) -> Array:
        return np.where(z > 0, _of(z, scale), a + _of(z, alpha * scale))

    return value, by_exp, by_value


def _exp_minus_1(z: Array) -> Array:
    return np.exp(z) - _of(z, 1.0)


def _pairs(name: str, values: list[Any], slopes: list[Any]) -> list[Formula]:
    return [(f"{name} {i}/{k}", v, s) for i, v in enumerate(values) for k, s in enumerate(slopes)]


def _step(z: Array, low: float, high: float) -> Array:
    return ((z > low) & (z < high)).astype(z.dtype)


def _unit(alpha: float, scale: float) -> list[Formula]:
    exact, by_exp, by_value = _exponential(alpha, scale, np.expm1)
    simple = _exponential(alpha, scale, _exp_minus_1)[0]
    return _pairs("elu", [exact, simple], [by_exp, by_value])


SIGMOIDS = [naive_sigmoid, stable_sigmoid, half_tanh_sigmoid]
SOFTPLUSES = [
    stable_softplus, library_softplus, lambda z: np.logaddexp(_of(z, 0.0), z),
    lambda z: np.log(_of(z, 1.0) + np.exp(z)), lambda z: np.log1p(np.exp(z)),
]  # fmt: skip

# For each activation pairs (φ of z, φ' of z and a) as people write them.
FORMULAS: dict[str, list[Formula]] = {
    "identity": [("z", lambda z: z, lambda z, a: np.ones_like(z))],
    "relu": [("max", lambda z: np.maximum(z, _of(z, 0.0)), lambda z, a: _step(z, 0.0, np.inf))],
    "leaky_relu": [(
        "where", lambda z: np.where(z > 0, z, _of(z, 0.01) * z),
        lambda z, a: np.where(z > 0, _of(z, 1.0), _of(z, 0.01)),
    )],
    "hardtanh": [(
        "clip", lambda z: np.clip(z, _of(z, -1.0), _of(z, 1.0)), lambda z, a: _step(z, -1.0, 1.0)
    )],
    "relu6": [(
        "clip", lambda z: np.clip(z, _of(z, 0.0), _of(z, 6.0)), lambda z, a: _step(z, 0.0, 6.0)
    )],
    "elu": _unit(1.0, 1.0),
    "selu": _unit(SELU_ALPHA, SELU_SCALE),
    "sigmoid": _pairs("sigmoid", SIGMOIDS, [
        lambda z, a: a * (_of(z, 1.0) - a),
        lambda z, a: a - a * a,
        lambda z, a: stable_sigmoid(z) * stable_sigmoid(-z),
        lambda z, a: np.exp(-z) / (_of(z, 1.0) + np.exp(-z)) ** 2,
    ]),
    "tanh": _pairs("tanh", [
        np.tanh,
        lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
        lambda z: _of(z, 2.0) * naive_sigmoid(_of(z, 2.0) * z) - _of(z, 1.0),
        lambda z: _of(z, 1.0) - _of(z, 2.0) / (np.exp(_of(z, 2.0) * z) + _of(z, 1.0)),
    ], [
        lambda z, a: _of(z, 1.0) - a * a,
        lambda z, a: (_of(z, 1.0) - a) * (_of(z, 1.0) + a),
        lambda z, a: _of(z, 1.0) / np.cosh(z) ** 2,
    ]),
    "softplus": _pairs("softplus", SOFTPLUSES, [
        lambda z, a: naive_sigmoid(z),
        lambda z, a: stable_sigmoid(z),
        lambda z, a: _of(z, 1.0) - np.exp(-a),
        lambda z, a: np.exp(z) / (_of(z, 1.0) + np.exp(z)),
    ]),
    "silu": _pairs("silu", [
        lambda z: z * naive_sigmoid(z), lambda z: z * stable_sigmoid(z),
        lambda z: z / (_of(z, 1.0) + np.exp(-z)), lambda z: z * half_tanh_sigmoid(z),
    ], [
        lambda z, a: a + naive_sigmoid(z) * (_of(z, 1.0) - a),
        lambda z, a: a + stable_sigmoid(z) * (_of(z, 1.0) - a),
        lambda z, a: stable_sigmoid(z) * (_of(z, 1.0) + z * (_of(z, 1.0) - stable_sigmoid(z))),
        lambda z, a: stable_sigmoid(z) + z * stable_sigmoid(z) * (_of(z, 1.0) - stable_sigmoid(z)),
    ]),
    "gelu": _pairs("gelu", [
        lambda z: _of(z, 0.5) * z * (_of(z, 1.0) + _erf(z * _of(z, ROOT_HALF))),
        lambda z: z * _cdf(z),
        lambda z: z * special.ndtr(z.astype(np.float64)).astype(z.dtype),
    ], [
        lambda z, a: _cdf(z) + z * _density(z),
        lambda z, a: special.ndtr(z.astype(np.float64)).astype(z.dtype) + z * _density(z),
    ]),
    "gelu_tanh": _pairs("gelu_tanh", [
        lambda z: _of(z, 0.5) * z * (_of(z, 1.0) + _gate(z)),
        lambda z: z * stable_sigmoid(
            _of(z, 2.0 * ROOT_2_OVER_PI) * (z + _of(z, 0.044715) * z ** 3)
        ),
    ], [lambda z, a: _gate_slope(z)]),
    "mish": _pairs("mish", [
        lambda z: z * np.tanh(stable_softplus(z)), lambda z: z * np.tanh(library_softplus(z)),
    ], [
        lambda z, a: _mish_slope(z, stable_softplus), lambda z, a: _mish_slope(z, library_softplus),
        lambda z, a: _naive_mish_slope(z),
    ]),
    "softsign": _pairs("softsign", [lambda z: z / (_of(z, 1.0) + np.abs(z))], [
        lambda z, a: (_of(z, 1.0) / (_of(z, 1.0) + np.abs(z))) ** 2,
        lambda z, a: (_of(z, 1.0) - np.abs(a)) ** 2,
        lambda z, a: _of(z, 1.0) / (_of(z, 1.0) + np.abs(z)) ** 2,
    ]),
}  # fmt: skip


def _softmax(z: Array, kind: str) -> Array:
    if kind == "plain":
        powers = np.exp(z)
        return powers / powers.sum(axis=1, keepdims=True)
    below = z - z.max(axis=1, keepdims=True)
    if kind == "logarithm":
        return np.exp(below - np.log(np.exp(below).sum(axis=1, keepdims=True)))
    powers = np.exp(below)
    return powers / powers.sum(axis=1, keepdims=True)


SOFTMAXES = ("shifted", "plain", "logarithm")
LOSSES: dict[str, Callable[[Array, Array, str], Array]] = {
    "softmax_cross_entropy": lambda z, t, kind: _softmax(z, kind) - t,
    "sigmoid_cross_entropy": lambda z, t, kind: (
        naive_sigmoid(z) if kind == "plain" else stable_sigmoid(z)
    ) - t,
    "squared_error": lambda z, t, kind: z - t,
    "mean_squared_error": lambda z, t, kind: _of(z, 2.0) * (z - t) / _of(z, z.shape[1]),
    "huber": lambda z, t, kind: np.clip(z - t, _of(z, -1.0), _of(z, 1.0)),
}  # fmt: skip


def library_product(a: Array, b: Array) -> Array:
    """Return a @ b as libraries do: half precision is added up in float32."""
    if a.dtype.itemsize == 2:
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)
    return a @ b


def loop_product(a: Array, b: Array) -> Array:
    """Return a b, one outer product after the other."""
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        total = total + a[:, k : k + 1] * b[k : k + 1]
    return total


def pairwise_product(a: Array, b: Array) -> Array:
    """Return a b, products added up pairwise."""
    parts = a[:, :, np.newaxis] * b[np.newaxis]
    while parts.shape[1] > 1:
        if parts.shape[1] % 2:
            parts = np.concatenate([parts, np.zeros_like(parts[:, :1])], axis=1)
        parts = parts[:, 0::2] + parts[:, 1::2]
    return parts[:, 0]


def _einsum(a: Array, b: Array) -> Array:
    if a.dtype.name == "bfloat16":
        return loop_product(a, b)
    return np.einsum("ij,jk->ik", a, b)


PRODUCTS: dict[str, Callable[[Array, Array], Array]] = {
    "library": library_product, "loop": loop_product, "pairwise": pairwise_product,
    "einsum": _einsum,
}  # fmt: skip


def _ones_product(d: Array) -> Array:
    return library_product(np.ones((1, d.shape[0]), d.dtype), d)[0]


TOTALS: dict[str, Callable[[Array], Array]] = {
    "sum": lambda d: d.sum(axis=0),
    "ones": _ones_product,
    "loop": lambda d: loop_product(np.ones((1, d.shape[0]), d.dtype), d)[0],
    "contiguous": lambda d: np.ascontiguousarray(d.T).sum(axis=1),
}


def gradient(problem: Problem, dtype: Any, style: Style) -> list[Array]:
    """Return [dW1, db1, dW2, …] with every operation in a dtype.

    J = (1/m) Σ ℓ + (λ/2m) Σ ‖W‖².
    """
    product, total = PRODUCTS[style.product], TOTALS[style.total]
    W, b = ([a.astype(dtype) for a in arrays] for arrays in (problem.weights, problem.biases))
    outputs, logits = [problem.inputs.astype(dtype)], []
    chosen = [FORMULAS[name][style.formulas.get(name, 0)] for name in problem.activations]
    for layer, (_, value, _) in enumerate(chosen):
        logits.append(product(outputs[-1], W[layer].T) + b[layer])
        outputs.append(np.asarray(value(logits[-1]), dtype))
    m = outputs[0].shape[0]
    one = outputs[0].dtype.type(1.0)
    scale = one / outputs[0].dtype.type(m)
    d = LOSSES[problem.loss](outputs[-1], problem.targets.astype(dtype), style.softmax)
    if not style.late_mean:
        d = d * scale
    found: list[Array] = []
    for layer in range(len(W) - 1, -1, -1):
        d = np.asarray(d * chosen[layer][2](logits[layer], outputs[layer + 1]), dtype)
        dW, db = product(d.T, outputs[layer]), total(d)
        if style.late_mean:
            dW, db = dW * scale, db * scale
        if problem.l2:
            dW = dW + outputs[0].dtype.type(problem.l2) * scale * W[layer]
        found += [db, dW]
        d = product(d, W[layer]) if layer else d
    return found[::-1]


def exact_style() -> Style:
    """Return the style of the reference, whose formulas do not cancel."""
    formulas = {"sigmoid": 6, "tanh": 2, "softplus": 1, "silu": 6, "elu": 0, "selu": 0, "gelu": 4}
    return Style("library", "sum", formulas)
