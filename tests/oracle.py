"""The plain oracle: a dense network's cost and its gradient, written as literally as possible.

It imports nothing of fastcheck, so it shares no mistake with it. Rows are samples; layer l is
``Z_l = A_{l-1} W_l^T + b_l``, ``A_l = mask_l * phi_l(Z_l)``. Everything runs in the dtype of the
arrays that it is given: only Python floats meet them, and those never upcast.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Named: TypeAlias = str | tuple[str, float]
"""A name, or a name and its parameter: ``"elu"`` or ``("elu", 0.5)``."""

DEFAULT_PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0, "huber": 1.0}
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


def split(named: Named) -> tuple[str, float]:
    """Return the name and its parameter, the default one where none is given."""
    name, parameter = named if isinstance(named, tuple) else (named, None)
    return name, float(DEFAULT_PARAMETERS.get(name, 0.0) if parameter is None else parameter)


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)) without overflow, elementwise."""
    decay = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, np.ones_like(z), decay) / (1 + decay))


def softplus(z: Array) -> Array:
    """Return log(1 + exp(z)) without overflow, elementwise."""
    return np.asarray(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))))


def normal_cdf(z: Array) -> Array:
    """Return (1 + erf(z / sqrt 2)) / 2 in the dtype of z, by erfc for its left tail."""
    values = [0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in z.flat]
    return np.array(values, dtype=z.dtype).reshape(z.shape)


def normal_density(z: Array) -> Array:
    """Return exp(-z^2 / 2) / sqrt(2 pi), elementwise."""
    return np.asarray(np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def gelu_tanh_gate(z: Array) -> Array:
    """Return tanh(sqrt(2/pi) (z + 0.044715 z^3)), elementwise."""
    return np.asarray(np.tanh(ROOT_2_OVER_PI * z * (1 + 0.044715 * z * z)))


def gelu_tanh_slope(z: Array) -> Array:
    """Return the derivative of the tanh form of GELU, elementwise."""
    gate, near = gelu_tanh_gate(z), np.clip(z, -100, 100)  # 1 - gate^2 is 0 far outside
    inner_slope = ROOT_2_OVER_PI * (1 + 3 * 0.044715 * near * near)
    return np.asarray(0.5 * (1 + gate) + 0.5 * near * (1 - gate * gate) * inner_slope)


def mish_slope(z: Array) -> Array:
    """Return the derivative of z tanh(softplus(z)), elementwise."""
    gate = np.tanh(softplus(z))
    return np.asarray(gate + z * (1 - gate * gate) * sigmoid(z))


def exponential_unit(z: Array, scale: float, alpha: float) -> Array:
    """Return scale z where z > 0 and scale alpha (exp(z) - 1) elsewhere."""
    return np.asarray(scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))))


def exponential_unit_slope(z: Array, scale: float, alpha: float) -> Array:
    """Return scale where z > 0 and scale alpha exp(z) elsewhere."""
    return np.asarray(scale * np.where(z > 0, np.ones_like(z), alpha * np.exp(np.minimum(z, 0))))


Elementwise: TypeAlias = Callable[[Array, float], Array]

# name: (phi(z, parameter), phi'(z, parameter)); at a kink phi' is the slope on the left for
# leaky_relu, elu and selu and 0 for the others, as in PyTorch
ACTIVATIONS: dict[str, tuple[Elementwise, Elementwise]] = {
    "identity": (lambda z, _: z, lambda z, _: np.ones_like(z)),
    "relu": (lambda z, _: np.maximum(z, 0), lambda z, _: np.heaviside(z, 0)),
    "leaky_relu": (lambda z, p: np.where(z > 0, z, p * z), lambda z, p: np.where(z > 0, 1, p)),
    "elu": (
        lambda z, p: exponential_unit(z, 1.0, p),
        lambda z, p: exponential_unit_slope(z, 1.0, p),
    ),
    "selu": (
        lambda z, _: exponential_unit(z, SELU_SCALE, SELU_ALPHA),
        lambda z, _: exponential_unit_slope(z, SELU_SCALE, SELU_ALPHA),
    ),
    "softplus": (lambda z, _: softplus(z), lambda z, _: sigmoid(z)),
    "sigmoid": (lambda z, _: sigmoid(z), lambda z, _: sigmoid(z) * sigmoid(-z)),
    "tanh": (lambda z, _: np.tanh(z), lambda z, _: 1 - np.tanh(z) ** 2),
    "hardtanh": (lambda z, _: np.clip(z, -1, 1), lambda z, _: (np.abs(z) < 1).astype(z.dtype)),
    "relu6": (lambda z, _: np.clip(z, 0, 6), lambda z, _: ((z > 0) & (z < 6)).astype(z.dtype)),
    "silu": (
        lambda z, _: z * sigmoid(z),
        lambda z, _: sigmoid(z) * (1 + z * sigmoid(-z)),
    ),
    "gelu": (
        lambda z, _: z * normal_cdf(z),
        lambda z, _: normal_cdf(z) + z * normal_density(z),
    ),
    "gelu_tanh": (lambda z, _: 0.5 * z * (1 + gelu_tanh_gate(z)), lambda z, _: gelu_tanh_slope(z)),
    "softsign": (lambda z, _: z / (1 + np.abs(z)), lambda z, _: (1 / (1 + np.abs(z))) ** 2),
    "mish": (lambda z, _: z * np.tanh(softplus(z)), lambda z, _: mish_slope(z)),
}


def softmax(z: Array) -> Array:
    """Return exp(z_k) / sum_k exp(z_k) for each row, without overflow."""
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_sum_exp(z: Array) -> Array:
    """Return log sum_k exp(z_k) for each row as (m, 1), without overflow."""
    largest = z.max(axis=1, keepdims=True)
    return np.asarray(largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True)))


def huber_values(residuals: Array, delta: float) -> Array:
    """Return r^2 / 2 where |r| <= delta and delta (|r| - delta / 2) elsewhere."""
    size = np.abs(residuals)
    inner = np.minimum(size, delta)
    return np.asarray(np.where(size <= delta, inner * inner / 2, delta * (size - delta / 2)))


Loss: TypeAlias = Callable[[Array, Array, float], Array]

# name: (per-sample loss (m,), its derivative by the outputs (m, K)), of outputs z and targets t
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "softmax_cross_entropy": (
        lambda z, t, _: np.sum(t * (log_sum_exp(z) - z), axis=1),
        lambda z, t, _: t.sum(axis=1, keepdims=True) * softmax(z) - t,
    ),
    "sigmoid_cross_entropy": (
        lambda z, t, _: np.sum(softplus(z) - t * z, axis=1),
        lambda z, t, _: sigmoid(z) - t,
    ),
    "squared_error": (
        lambda z, t, _: np.sum((z - t) ** 2, axis=1) / 2,
        lambda z, t, _: z - t,
    ),
    "mean_squared_error": (
        lambda z, t, _: np.mean((z - t) ** 2, axis=1),
        lambda z, t, _: 2 * (z - t) / z.shape[1],
    ),
    "huber": (
        lambda z, t, p: np.sum(huber_values(z - t, p), axis=1),
        lambda z, t, p: np.clip(z - t, -p, p),
    ),
}


def sample_factor(reduction: str, m: int, outputs: int) -> float:
    """Return what the sum of the per-sample losses is multiplied by."""
    return {"mean": 1 / m, "sum": 1.0, "mean_elements": 1 / (m * outputs)}[reduction]


def penalty_factor(penalty: str, l2: float, m: int) -> float:
    """Return what the sum of the squared weights is multiplied by."""
    factors = {"l2/2m": 1 / (2 * m), "l2/2": 0.5, "l2/m": 1 / m, "l2": 1.0}
    return float(l2) * factors[penalty]


def or_nones(arrays: Sequence[Array | None] | None, count: int) -> list[Array | None]:
    """Return one entry per layer, None in each where there is no list at all."""
    return [None] * count if arrays is None else list(arrays)


def trace(
    weights: Sequence[Array],
    biases: Sequence[Array | None] | None,
    activations: Sequence[Named],
    inputs: Array,
    masks: Sequence[Array | None] | None = None,
) -> tuple[list[Array], list[Array]]:
    """Return all A_0..A_L and all Z_1..Z_L of one forward pass; parameters as in `forward`."""
    outputs: list[Array] = [inputs]
    logits: list[Array] = []
    layers = len(weights)
    for w, b, named, mask in zip(
        weights, or_nones(biases, layers), activations, or_nones(masks, layers), strict=True
    ):
        name, parameter = split(named)
        z = outputs[-1] @ w.T if b is None else outputs[-1] @ w.T + b
        a = ACTIVATIONS[name][0](z, parameter)
        logits.append(z)
        outputs.append(a if mask is None else a * mask)
    return outputs, logits


def forward(
    weights: Sequence[Array],
    biases: Sequence[Array | None] | None,
    activations: Sequence[Named],
    inputs: Array,
    masks: Sequence[Array | None] | None = None,
) -> Array:
    """Return the network's outputs A_L.

    Parameters
    ----------
    weights
        W_l of shape (n_l, n_{l-1}).
    biases
        b_l of shape (n_l,), None for a layer without one, or None for none at all.
    activations
        One name or (name, parameter) for each layer, from `ACTIVATIONS`.
    inputs
        X of shape (m, n_0).
    masks
        Factors of shape (m, n_l) on A_l, None for a layer without one, or None for none at all.

    Returns
    -------
    ndarray of shape (m, n_L)
    """
    return trace(weights, biases, activations, inputs, masks)[0][-1]


def cost(
    weights: Sequence[Array],
    biases: Sequence[Array | None] | None,
    inputs: Array,
    targets: Array,
    *,
    activations: Sequence[Named],
    loss: Named,
    l2: float = 0.0,
    penalty: str = "l2/2m",
    reduction: str = "mean",
    masks: Sequence[Array | None] | None = None,
) -> float:
    """Return J(theta).

    Parameters
    ----------
    weights, biases, activations, inputs, masks
        As in `forward`.
    targets
        Of shape (m, n_L); rows of probabilities for the cross-entropies.
    loss
        A name or (name, parameter) from `LOSSES`.
    l2
        Strength of the penalty on the weights.
    penalty
        What the sum of squared weights is multiplied by: "l2/2m", "l2/2", "l2/m" or "l2".
    reduction
        "mean" over samples, "sum", or "mean_elements" over samples and outputs.
    """
    outputs = forward(weights, biases, activations, inputs, masks)
    name, parameter = split(loss)
    total = float(np.sum(LOSSES[name][0](outputs, targets, parameter)))
    squares = sum(float(np.sum(w * w)) for w in weights)
    m, n = outputs.shape
    return sample_factor(reduction, m, n) * total + penalty_factor(penalty, l2, m) * squares


def backprop(
    weights: Sequence[Array],
    biases: Sequence[Array | None] | None,
    inputs: Array,
    targets: Array,
    *,
    activations: Sequence[Named],
    loss: Named,
    l2: float = 0.0,
    penalty: str = "l2/2m",
    reduction: str = "mean",
    masks: Sequence[Array | None] | None = None,
) -> tuple[list[Array], list[Array | None]]:
    """Return the gradients of `cost` by every W_l and b_l, in the dtype of the arrays given.

    Parameters
    ----------
    weights, biases, inputs, targets, activations, loss, l2, penalty, reduction, masks
        As in `cost`.
    """
    layers, (m, n) = len(weights), targets.shape
    outputs, logits = trace(weights, biases, activations, inputs, masks)
    name, parameter = split(loss)
    d_a = LOSSES[name][1](outputs[-1], targets, parameter) * sample_factor(reduction, m, n)
    d_weights: list[Array] = []
    d_biases: list[Array | None] = []
    for k in reversed(range(layers)):
        mask, bias = or_nones(masks, layers)[k], or_nones(biases, layers)[k]
        name, parameter = split(activations[k])
        slope = ACTIVATIONS[name][1](logits[k], parameter).astype(d_a.dtype)
        d_z = d_a * slope if mask is None else d_a * mask * slope
        decay = 2 * penalty_factor(penalty, l2, m)
        d_weights.append(d_z.T @ outputs[k] + decay * weights[k])
        d_biases.append(None if bias is None else d_z.sum(axis=0))
        d_a = d_z @ weights[k]
    return d_weights[::-1], d_biases[::-1]


def pack(weights: Sequence[Array], biases: Sequence[Array | None] | None) -> Array:
    """Return theta: W1, b1, ..., WL, bL in row order; biases that are missing are left out."""
    pairs = zip(weights, or_nones(biases, len(weights)), strict=True)
    return np.concatenate([a.ravel() for pair in pairs for a in pair if a is not None])


def unpack(
    theta: Array, weights: Sequence[Array], biases: Sequence[Array | None] | None
) -> tuple[list[Array], list[Array | None]]:
    """Return theta cut into weights and biases of the shapes of those given."""
    start = 0
    blocks: list[Array | None] = []
    for pair in zip(weights, or_nones(biases, len(weights)), strict=True):
        for a in pair:
            size = 0 if a is None else a.size
            blocks.append(None if a is None else theta[start : start + size].reshape(a.shape))
            start += size
    return [w for w in blocks[::2] if w is not None], blocks[1::2]


def cost_of_theta(
    weights: Sequence[Array],
    biases: Sequence[Array | None] | None,
    inputs: Array,
    targets: Array,
    **conventions: Any,
) -> Callable[[Array], float]:
    """Return J as a function of theta; parameters as in `cost`, of weights only the shapes."""
    return lambda theta: cost(*unpack(theta, weights, biases), inputs, targets, **conventions)


def central_differences(
    cost_of_theta: Callable[[Array], float],
    theta: Array,
    epsilon: float = 1e-7,
    indices: Iterable[int] | None = None,
) -> npt.NDArray[np.float64]:
    """Return (J(theta + epsilon e_i) - J(theta - epsilon e_i)) / 2 epsilon for each index i.

    Parameters
    ----------
    cost_of_theta
        J.
    theta
        Of shape (N,).
    epsilon
        The step to either side.
    indices
        Which components, in the order of the result; all of them if None.
    """
    differences = []
    for i in range(theta.size) if indices is None else indices:
        above, below = theta.copy(), theta.copy()
        above[i] += epsilon
        below[i] -= epsilon
        differences.append((cost_of_theta(above) - cost_of_theta(below)) / (2 * epsilon))
    return np.array(differences, dtype=np.float64)


def relative_difference(a: Array, b: Array) -> float:
    """Return ||a - b|| / (||a|| + ||b||), 0 when both are zero."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    size = float(np.linalg.norm(a) + np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size else 0.0
