"""Random dense networks on kinks, and backward passes that take a kink in every usual way.

Nothing here imports fastcheck. A right gradient is one backward pass of plain NumPy in the
network's precision, with one convention for units that lie on a kink. A wrong one leaves what any
convention gives.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Slope: TypeAlias = Callable[[Array, float], Array]

EPSILON = 1e-7
SELU = (1.6732632423543772, 1.0507009873554805)
CONVENTIONS = ("left", "right", "flat", "steep", "mid")
PRECISIONS = ("float64", "float32", "float16")


def _exponential(scale: float, alpha: float | None) -> tuple[Slope, Slope, Slope]:
    def value(z: Array, p: float) -> Array:
        a = p if alpha is None else alpha
        return np.asarray(np.where(z > 0, scale * z, scale * a * np.expm1(np.minimum(z, 0))))

    def left(z: Array, p: float) -> Array:
        a = p if alpha is None else alpha
        return np.asarray(np.where(z > 0, scale, scale * a * np.exp(np.minimum(z, 0))))

    def right(z: Array, p: float) -> Array:
        return np.asarray(np.where(z == 0, scale, left(z, p)))

    return value, left, right


def _clip(low: float, high: float) -> tuple[Slope, Slope, Slope]:
    return (
        lambda z, p: np.clip(z, low, high),
        lambda z, p: (z > low) & (z <= high),
        lambda z, p: (z >= low) & (z < high),
    )


# name: (φ, slope just left of z, slope just right of z), and where the slopes differ
ACTIVATIONS: dict[str, tuple[Slope, Slope, Slope]] = {
    "relu": _clip(0.0, np.inf),
    "leaky_relu": (
        lambda z, p: np.where(z > 0, z, p * z),
        lambda z, p: np.where(z > 0, 1.0, p),
        lambda z, p: np.where(z >= 0, 1.0, p),
    ),
    "hardtanh": _clip(-1.0, 1.0),
    "relu6": _clip(0.0, 6.0),
    "elu": _exponential(1.0, None),
    "selu": _exponential(SELU[1], SELU[0]),
    "softsign": (
        lambda z, p: z / (1 + np.abs(z)),
        lambda z, p: (1 + np.abs(z)) ** -2.0,
        lambda z, p: (1 + np.abs(z)) ** -2.0,
    ),
    "identity": (lambda z, p: z, lambda z, p: np.ones_like(z), lambda z, p: np.ones_like(z)),
    "tanh": (
        lambda z, p: np.tanh(z),
        lambda z, p: 1 - np.tanh(z) ** 2,
        lambda z, p: 1 - np.tanh(z) ** 2,
    ),
    "own_abs": (
        lambda z, p: np.abs(z),
        lambda z, p: np.where(z > 0, 1.0, -1.0),
        lambda z, p: np.where(z >= 0, 1.0, -1.0),
    ),
}
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "hardtanh": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
    "elu": (0.0,),
    "selu": (0.0,),
    "softsign": (0.0,),
    "own_abs": (0.0,),
}
KINKED = ("relu", "leaky_relu", "hardtanh", "relu6", "elu", "selu", "softsign")
PARAMETERS = {"leaky_relu": (0.01, 0.25), "elu": (1.0, 0.5, 2.0)}
LOSSES = (
    "squared_error",
    "mean_squared_error",
    "huber",
    "softmax_cross_entropy",
    "sigmoid_cross_entropy",
)


@dataclass(frozen=True)
class Kinked:
    """A network and a batch, all in one precision; rows are samples, W_l is (n_l, n_{l-1})."""

    weights: list[Array]
    biases: list[Array]
    activations: list[tuple[str, float]]
    loss: tuple[str, float]
    inputs: Array
    targets: Array
    family: str

    @property
    def precision(self) -> str:
        return str(self.weights[0].dtype)

    def in_precision(self, name: str) -> "Kinked":
        return replace(
            self,
            weights=[w.astype(name) for w in self.weights],
            biases=[b.astype(name) for b in self.biases],
            inputs=self.inputs.astype(name),
            targets=self.targets.astype(name),
        )


def forward(net: Kinked) -> tuple[list[Array], list[Array]]:
    """Return A_0, …, A_L and Z_1, …, Z_L in the network's precision."""
    A: list[Array] = [net.inputs]
    logits: list[Array] = []
    for W, b, (name, p) in zip(net.weights, net.biases, net.activations, strict=True):
        logits.append(A[-1] @ W.T + b)
        A.append(ACTIVATIONS[name][0](logits[-1], p).astype(W.dtype))
    return A, logits


def cost(net: Kinked) -> float:
    """Return J, the mean over samples."""
    a, t = forward(net)[0][-1], net.targets
    name, p = net.loss
    if name == "softmax_cross_entropy":
        top = a.max(axis=1, keepdims=True)
        each = t * (top + np.log(np.exp(a - top).sum(axis=1, keepdims=True)) - a)
    elif name == "sigmoid_cross_entropy":
        each = np.logaddexp(0, a) - t * a
    elif name == "huber":
        r = np.abs(a - t)
        each = np.where(r <= p, r * r / 2, p * (r - p / 2))
    else:
        each = (a - t) ** 2 * (0.5 if name == "squared_error" else 1 / a.shape[1])
    return float(each.sum() / a.shape[0])


def output_gradient(net: Kinked, a: Array) -> Array:
    """Return ∂J/∂A_L."""
    t, m = net.targets, a.shape[0]
    name, p = net.loss
    if name == "softmax_cross_entropy":
        powers = np.exp(a - a.max(axis=1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=1, keepdims=True) - t) / m)
    if name == "sigmoid_cross_entropy":
        decay = np.exp(-np.abs(a))
        return np.asarray((np.where(a >= 0, 1, decay) / (1 + decay) - t) / m)
    if name == "huber":
        return np.asarray(np.clip(a - t, -p, p) / m)
    return np.asarray((a - t) * (1.0 if name == "squared_error" else 2 / a.shape[1]) / m)


def slopes(net: Kinked, layer: int, z: Array, convention: str, near: float = 0.0) -> Array:
    """Return φ'(z) of a layer (0..L−1) by a convention; |z − kink| ≤ near counts as on the kink."""
    name, p = net.activations[layer]
    for kink in KINKS.get(name, ()):
        z = np.where(np.abs(z - kink) <= near, np.asarray(kink, z.dtype), z)
    left, right = (np.asarray(f(z, p), dtype=z.dtype) for f in ACTIVATIONS[name][1:])
    steeper = np.abs(left) > np.abs(right)
    if convention == "double":  # no slope of anybody's: beyond both
        return np.asarray(np.where(left == right, left, 2 * right - left + (right == 0)))
    ways = {
        "left": left,
        "right": right,
        "flat": np.where(steeper, right, left),
        "steep": np.where(steeper, left, right),
        "mid": (left + right) / 2,
    }
    return np.asarray(ways[convention].astype(z.dtype))


def backward(net: Kinked, conventions: Sequence[str], near: float = 0.0) -> list[Array]:
    """Return dW_1, db_1, …, with one convention a layer, every operation in the precision."""
    A, logits = forward(net)
    upstream = output_gradient(net, A[-1]).astype(net.precision)
    found: list[Array] = []
    for layer in reversed(range(len(net.weights))):
        delta = upstream * slopes(net, layer, logits[layer], conventions[layer], near)
        found = [delta.T @ A[layer], delta.sum(axis=0), *found]
        upstream = delta @ net.weights[layer]
    return found


def flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([a.ravel().astype(np.float64) for a in arrays])


def accepted(net: Kinked, near: float) -> tuple[Array, Array]:
    """Return the least and the greatest of all conventions, one a layer, and of the secants."""
    net = net.in_precision("float64")
    ways = [("left", "right", "mid")] * len(net.weights)
    ends = [flat(backward(net, way, near)) for way in itertools.product(*ways)]
    ends += [flat(backward(net, [c] * len(ways), near)) for c in CONVENTIONS]
    ends += list(secants(net))
    return np.min(ends, axis=0), np.max(ends, axis=0)


def secants(net: Kinked, epsilon: float = EPSILON) -> Iterator[Array]:
    """Yield the differences to the right and to the left of θ, literally."""
    parameters = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    here = cost(net)
    for step in (epsilon, -epsilon):
        found = []
        for array in parameters:
            for place in np.ndindex(array.shape):
                kept = array[place]
                array[place] = kept + step
                found.append((cost(net) - here) / step)
                array[place] = kept
        yield np.array(found)


# --- families ---------------------------------------------------------------------------------


def draw(seed: int, precision: str | None = None, family: str | None = None) -> Kinked:
    """Draw a network on kinks."""
    rng = np.random.default_rng([20, seed])
    name = family or str(rng.choice(list(FAMILIES)))
    chosen = precision or PRECISIONS[int(rng.choice(3, p=[0.5, 0.35, 0.15]))]
    net = FAMILIES[name](rng, _plain(rng, chosen))
    return replace(net, family=name).in_precision(chosen)


def _activation(rng: np.random.Generator, names: Sequence[str]) -> tuple[str, float]:
    name = str(rng.choice(names))
    return name, float(rng.choice(PARAMETERS.get(name, (0.0,))))


def _plain(rng: np.random.Generator, precision: str) -> Kinked:
    """Draw sizes, activations and loss; weights and inputs are normal."""
    depth = int(rng.integers(1, 5))
    sizes = rng.integers(1, 7, depth + 1)
    m = int(rng.choice([1, 2, 3, 5, 8, 40, 300], p=[0.15, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05]))
    same = _activation(rng, KINKED)
    others = [*KINKED, "identity", "tanh"]
    activations = [same if rng.random() < 0.6 else _activation(rng, others) for _ in range(depth)]
    if rng.random() < 0.4:
        activations[-1] = ("identity", 0.0)
    loss = str(rng.choice(LOSSES))
    targets = rng.standard_normal((m, int(sizes[-1])))
    if loss == "softmax_cross_entropy":
        targets = np.eye(int(sizes[-1]))[rng.integers(0, sizes[-1], m)]
    elif loss == "sigmoid_cross_entropy":
        targets = np.round(rng.random(targets.shape))
    return (
        Kinked(
            [rng.standard_normal((a, b)) for b, a in itertools.pairwise(sizes.tolist())],
            [rng.standard_normal(n) * 0.5 for n in sizes[1:].tolist()],
            activations,
            (loss, float(rng.choice([1.0, 0.5])) if loss == "huber" else 0.0),
            rng.standard_normal((m, int(sizes[0]))),
            targets,
            "",
        )
        .in_precision(precision)
        .in_precision("float64")
    )


def _halves(values: Array) -> Array:
    return np.asarray(np.round(values * 2) / 2)


def _grid(rng: np.random.Generator, net: Kinked) -> Kinked:
    """Half-integers everywhere."""
    real = "cross" not in net.loss[0]
    return replace(
        net,
        weights=[_halves(w) for w in net.weights],
        biases=[_halves(b) for b in net.biases],
        inputs=np.round(net.inputs),
        targets=_halves(net.targets) if real else net.targets,
    )


def _zero_rows(rng: np.random.Generator, net: Kinked) -> Kinked:
    """Zero biases and about half the samples zero."""
    zero = np.asarray(rng.random(net.inputs.shape[0]) < 0.5)
    zero[int(rng.integers(zero.size))] = True
    inputs = np.where(zero[:, None], 0.0, net.inputs)
    return replace(net, biases=[b * 0 for b in net.biases], inputs=inputs)


def _cancelling(rng: np.random.Generator, net: Kinked) -> Kinked:
    """Every sample twice, with targets that pull to both sides by the same."""
    net = _zero_rows(rng, net) if rng.random() < 0.5 else _grid(rng, net)
    outputs = forward(net)[0][-1]
    mirrored: Array = np.asarray(2 * outputs - net.targets)
    if "cross" in net.loss[0]:
        mirrored = 1 - net.targets if "sigmoid" in net.loss[0] else np.roll(net.targets, 1, axis=1)
    both = np.concatenate([net.targets, mirrored])
    return replace(net, inputs=np.concatenate([net.inputs] * 2), targets=both)


def _near(rng: np.random.Generator, net: Kinked) -> Kinked:
    """One unit of each kinked layer lies within a few ε of a kink."""
    for layer, (name, _) in enumerate(net.activations):
        if name not in KINKS:
            continue
        z = forward(net)[1][layer]
        sample, unit = int(rng.integers(z.shape[0])), int(rng.integers(z.shape[1]))
        room = (
            EPSILON * float(rng.choice([0.0, 1e-3, 0.1, 0.3, 0.7, 1.0, 3.0])) * rng.choice([-1, 1])
        )
        biases = [b.copy() for b in net.biases]
        biases[layer][unit] += float(rng.choice(KINKS[name])) + room - z[sample, unit]
        net = replace(net, biases=biases)
    return net


def _tiny(rng: np.random.Generator, net: Kinked) -> Kinked:
    """Weights near 1e-8 at some layer, integer inputs: logits within ±ε of 0, and on it."""
    layer = int(rng.integers(len(net.weights)))
    scale = float(rng.choice([1e-8, 3e-8, 1e-10]))
    weights = [w * scale if k == layer else w for k, w in enumerate(net.weights)]
    biases = [b * 0 for b in net.biases]
    return replace(net, weights=weights, biases=biases, inputs=np.round(net.inputs))


def _corners(rng: np.random.Generator, net: Kinked) -> Kinked:
    """Residuals on the corners of Huber's loss, or within ±ε of them."""
    net = _grid(rng, net) if rng.random() < 0.5 else net
    delta = float(rng.choice([1.0, 0.5]))
    outputs = forward(net)[0][-1]
    room = EPSILON * rng.choice([0.0, 0.0, 0.3, -0.3], outputs.shape)
    return replace(
        net,
        loss=("huber", delta),
        targets=outputs + delta * rng.choice([-1.0, 1.0], outputs.shape) + room,
    )


def _zero_weights(rng: np.random.Generator, net: Kinked) -> Kinked:
    """A layer of zeros: every unit of it lies on the kink at 0, for each sample."""
    layer = int(rng.integers(len(net.weights)))
    weights = [w * (k != layer) for k, w in enumerate(net.weights)]
    biases = [b * (k != layer) for k, b in enumerate(net.biases)]
    return replace(net, weights=weights, biases=biases)


FAMILIES: dict[str, Callable[[np.random.Generator, Kinked], Kinked]] = {
    "grid": _grid,
    "zero rows": _zero_rows,
    "cancelling": _cancelling,
    "near": _near,
    "tiny": _tiny,
    "corners": _corners,
    "zero weights": _zero_weights,
}


def conventions(rng: np.random.Generator, net: Kinked) -> tuple[str, ...]:
    """Draw how a backward pass takes kinks: all layers alike, or the outputs in their own way."""
    depth = len(net.weights)
    hidden = str(rng.choice(CONVENTIONS))
    if rng.random() < 0.7:
        return (hidden,) * depth
    if rng.random() < 0.5:
        return (*((hidden,) * (depth - 1)), str(rng.choice(CONVENTIONS)))
    of = {name: str(rng.choice(CONVENTIONS)) for name in ACTIVATIONS}
    return tuple(of[name] for name, _ in net.activations)


def wrong_gradients(seed: int, net: Kinked) -> Iterator[list[Array]]:
    """Yield gradients with components that no convention gives: one anywhere, and one at a kink."""
    rng = np.random.default_rng([22, seed])
    sums_are_exact = ("grid", "zero rows", "zero weights")
    rough = net.precision != "float64"
    if net.family == "near" or (rough and net.family not in sums_are_exact):
        return  # a logit may be rounded to either side of the kink
    low, high = accepted(net, near=1e-6 if net.precision == "float64" else 1e-2)
    right = backward(net, conventions(rng, net))
    size = float(np.abs([low, high]).max())
    error = {"float64": 1e-5, "float32": 3e-3, "float16": 0.3}[net.precision] * size
    if size < 1e-4:
        return
    bent = np.flatnonzero(high - low > 1e-3 * size)
    places = [int(rng.integers(low.size))]
    if bent.size:
        places.append(int(rng.choice(bent)))
    for place in places:
        value = high[place] + error if rng.random() < 0.5 else low[place] - error
        yield _with(right, place, value)


def _with(arrays: Sequence[Array], place: int, value: float) -> list[Array]:
    """Return copies of some arrays with one of all their elements set."""
    copies = [a.copy() for a in arrays]
    for array in copies:
        if place < array.size:
            array.reshape(-1)[place] = value
            return copies
        place -= array.size
    raise IndexError(place)
