"""Families of nasty networks: each draws one from a generator of random numbers."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.nasty.network import ACTIVATIONS, KINKED, LOSSES, PENALTIES, Array, Named, Nasty, named
from tests.nasty.styles import Way

Rng = np.random.Generator
SMOOTH = tuple(name for name in ACTIVATIONS if name not in KINKED)
SAMPLES = (1, 1, 2, 3, 4, 5, 8, 16, 40, 120)
REDUCTIONS = ("mean", "mean", "sum", "mean_elements")
SCALES = (-8.0, 4.0)  # decades


def pick(rng: Rng, choices: Sequence[Any]) -> Any:
    """Return one of them."""
    return choices[int(rng.integers(len(choices)))]


def chance(rng: Rng, probability: float) -> bool:
    """Return True as often as that."""
    return bool(rng.random() < probability)


def decades(rng: Rng, low: float, high: float) -> float:
    """Return 10 to a power between the two."""
    return float(10.0 ** rng.uniform(low, high))


def activation(rng: Rng, names: Sequence[str] = ACTIVATIONS) -> Named:
    """Return one with its parameter, sometimes another than the default."""
    name = pick(rng, names)
    if name in ("leaky_relu", "elu") and chance(rng, 0.4):
        return named(name, pick(rng, (0.25, 0.5, 1.0, 2.0) if name == "elu" else (0.1, 0.25, 0.5)))
    return named(name)


def loss(rng: Rng, names: Sequence[str] = LOSSES) -> Named:
    """Return one with its parameter, sometimes another than the default."""
    name = pick(rng, names)
    return named(name, pick(rng, (0.25, 1.0, 3.0)) if name == "huber" else None)


def targets(rng: Rng, loss_name: str, m: int, n: int) -> Array:
    """Return targets (m, n) that suit a loss."""
    if loss_name == "softmax_cross_entropy":
        if chance(rng, 0.25):
            return rng.dirichlet(np.ones(n), m)
        return np.eye(n)[rng.integers(n, size=m)]
    if loss_name == "sigmoid_cross_entropy":
        return rng.random((m, n)) if chance(rng, 0.25) else 1.0 * rng.integers(2, size=(m, n))
    return rng.normal(size=(m, n))


def with_targets(rng: Rng, net: Nasty) -> Nasty:
    """Return the network with fresh targets that suit its loss."""
    return replace(net, targets=targets(rng, net.loss[0], net.m, net.sizes[-1]))


def base(
    rng: Rng,
    *,
    sizes: Sequence[int] | None = None,
    m: int | None = None,
    names: Sequence[str] = ACTIVATIONS,
    losses: Sequence[str] = LOSSES,
    output: Sequence[str] | None = None,
) -> Nasty:
    """Return an ordinary network: He's weights, small biases, normal inputs."""
    if sizes is None:
        sizes = [int(rng.integers(1, 9)) for _ in range(int(rng.integers(2, 6)))]
    m = int(pick(rng, SAMPLES)) if m is None else m
    W = [rng.normal(size=(k, n)) * np.sqrt(2.0 / n) for n, k in itertools.pairwise(sizes)]
    kind = activation(rng, names)
    same = chance(rng, 0.6)
    hidden = [kind if same else activation(rng, names) for _ in W[:-1]]
    if output is None:
        output = ACTIVATIONS if chance(rng, 0.25) else ("identity",)
    chosen = loss(rng, losses)
    b: list[Any] = [0.3 * rng.normal(size=k) for k in sizes[1:]]
    return Nasty(
        weights=W,
        biases=[None if chance(rng, 0.1) else v for v in b],
        activations=[*hidden, activation(rng, output)],
        loss=chosen,
        inputs=rng.normal(size=(m, sizes[0])),
        targets=targets(rng, chosen[0], m, sizes[-1]),
        masks=dropout(rng, m, sizes) if chance(rng, 0.15) else None,
        l2=decades(rng, -3, 0) if chance(rng, 0.4) else 0.0,
        penalty=pick(rng, tuple(PENALTIES)),
        reduction=pick(rng, REDUCTIONS),
        loss_scale=pick(rng, (1.0, 1.0, 1.0, 0.5, 2.0)),
    )


def dropout(rng: Rng, m: int, sizes: Sequence[int]) -> list[Any]:
    """Return factors 0 and 1/keep for the hidden layers."""
    keep = pick(rng, (0.5, 0.8, 0.9))
    return [(rng.random((m, n)) < keep) / keep for n in sizes[1:-1]] + [None]


def scaled(net: Nasty, weights: float = 1.0, inputs: float = 1.0, biases: float = 1.0) -> Nasty:
    """Return the network with its numbers multiplied."""
    return replace(
        net,
        weights=[weights * W for W in net.weights],
        biases=[None if b is None else biases * b for b in net.biases],
        inputs=inputs * net.inputs,
    )


def scales(rng: Rng) -> Nasty:
    """Weights, inputs, biases and targets of any size, each layer its own."""
    net = base(rng)
    net = replace(
        net,
        weights=[W * (decades(rng, *SCALES) if chance(rng, 0.5) else 1.0) for W in net.weights],
        biases=[
            None if b is None else b * (decades(rng, *SCALES) if chance(rng, 0.4) else 1.0)
            for b in net.biases
        ],
        inputs=net.inputs * (decades(rng, *SCALES) if chance(rng, 0.5) else 1.0),
    )
    if net.loss[0] in LOSSES[2:] and chance(rng, 0.5):
        net = replace(net, targets=net.targets * decades(rng, *SCALES))
    return net


def features(rng: Rng) -> Nasty:
    """Columns of the inputs on scales of their own, from 1e-8 to 1e4."""
    net = base(rng)
    return replace(net, inputs=net.inputs * 10.0 ** rng.uniform(*SCALES, net.sizes[0]))


def zeros(rng: Rng) -> Nasty:
    """Some layers' weights are 0, their biases not always."""
    net = base(rng)
    off = [chance(rng, 0.6) for _ in net.weights]
    bare = chance(rng, 0.5)
    return replace(
        net,
        weights=[0.0 * W if zero else W for W, zero in zip(net.weights, off, strict=True)],
        biases=[None if b is None else b * (0.0 if bare else 1.0) for b in net.biases],
    )


def constant(rng: Rng) -> Nasty:
    """Constant weights, or equal rows or columns: equal units."""
    net, how = base(rng), int(rng.integers(3))

    def alike(W: Array) -> Array:
        if how == 0:
            return np.full_like(W, pick(rng, (0.1, 0.5, 1.0, -0.3)))
        return np.repeat(W[:1], len(W), axis=0) if how == 1 else 0 * W + W[:, :1]

    weights = [alike(W) if chance(rng, 0.7) else W for W in net.weights]
    biases = [None if b is None else np.full_like(b, b[0]) for b in net.biases]
    return replace(net, weights=weights, biases=biases)


def orthogonal(rng: Rng) -> Nasty:
    """Orthogonal square weights, and no biases to speak of."""
    n = int(rng.integers(2, 8))
    net = base(rng, sizes=[n] * int(rng.integers(2, 6)))
    weights = [np.linalg.qr(W)[0] for W in net.weights]
    return scaled(replace(net, weights=weights), biases=pick(rng, (0.0, 1e-3, 1.0)))


def whole_numbers(rng: Rng, names: Sequence[str] = KINKED) -> Nasty:
    """Small whole numbers, so that many units lie exactly on a kink, at every layer."""
    net = base(rng, names=names, output=(*names, "identity") if chance(rng, 0.7) else None)
    net = replace(
        net,
        weights=[rng.integers(-2, 3, W.shape).astype(float) for W in net.weights],
        biases=[
            None if b is None else rng.integers(-1, 2, b.shape).astype(float) for b in net.biases
        ],
        inputs=rng.integers(-2, 3, net.inputs.shape).astype(float),
        activations=[named(name) for name, _ in net.activations],
    )
    if net.loss[0] in LOSSES[2:]:
        whole = rng.integers(-3, 4, net.targets.shape).astype(float)
        net = replace(net, targets=whole, loss=named(net.loss[0]))
    return net


def inputs(rng: Rng) -> Nasty:
    """One-hot, sparse, duplicate, all-zero, binary inputs; pixels and raw features."""
    net = base(rng)
    shape = net.inputs.shape
    kinds: list[Callable[[], Array]] = [
        lambda: np.eye(shape[1])[rng.integers(shape[1], size=shape[0])],
        lambda: net.inputs * (rng.random(shape) < 0.2),
        lambda: np.repeat(net.inputs[:1], shape[0], axis=0),
        lambda: net.inputs[rng.integers(max(1, shape[0] // 3), size=shape[0])],
        lambda: np.zeros(shape),
        lambda: net.inputs * (rng.random((shape[0], 1)) < 0.5),
        lambda: rng.integers(2, size=shape).astype(float),
        lambda: rng.integers(256, size=shape).astype(float),
        lambda: rng.integers(256, size=shape) / 255.0,
        lambda: 1e4 * (1.0 + rng.random(shape)),
        lambda: 1e4 * rng.normal(size=shape),
        lambda: net.inputs * (rng.random((1, shape[1])) < 0.5),
    ]
    net = replace(net, inputs=pick(rng, kinds)())
    return scaled(net, biases=0.0) if chance(rng, 0.3) else net


def saturated(rng: Rng) -> Nasty:
    """Logits of 1e1 to 1e3, or hidden units far out in their tails."""
    net = base(rng)
    weights = list(net.weights)
    layer = len(weights) - 1 if chance(rng, 0.6) else int(rng.integers(len(weights)))
    weights[layer] = weights[layer] * decades(rng, 1, 3)
    return replace(net, weights=weights)


def dead(rng: Rng) -> Nasty:
    """Units, layers or the whole network that no sample switches on."""
    net = base(rng, names=(*KINKED, "relu", "relu"))
    biases = list(net.biases)
    for l in range(net.depth - 1):
        size = net.sizes[l + 1]
        off = (rng.random(size) < pick(rng, (0.3, 0.7, 1.0))) * pick(rng, (10.0, 1e3))
        given = biases[l]
        biases[l] = (np.zeros(size) if given is None else given) - off
    return replace(net, biases=biases)


def penalties(rng: Rng) -> Nasty:
    """λ from 1e-12 to 1e6 in all conventions."""
    return replace(base(rng), l2=decades(rng, -12, 6))


def many_samples(rng: Rng) -> Nasty:
    """Up to 3,000 samples, often with equal ones."""
    sizes = [int(rng.integers(1, 5)) for _ in range(int(rng.integers(2, 5)))]
    net = base(rng, sizes=sizes, m=int(pick(rng, (239, 481, 1000, 3000))))
    how = int(rng.integers(4))
    X = net.inputs
    if how == 0:
        X = X[rng.integers(3, size=net.m)]
    if how == 1:
        X = np.round(X)
    return replace(net, inputs=X)


def residuals(rng: Rng) -> Nasty:
    """Residuals far below ε: tiny weights and no targets, or targets that the network meets."""
    net = base(rng, losses=("squared_error", "mean_squared_error", "huber"))
    if chance(rng, 0.5):
        tiny = decades(rng, -24, -8)
        return replace(scaled(net, weights=tiny, biases=tiny), targets=0.0 * net.targets)
    off = decades(rng, -16, -6) if chance(rng, 0.7) else 0.0
    return replace(net, targets=outputs(net) + off * rng.normal(size=net.targets.shape))


def outputs(net: Nasty) -> Array:
    """Return A_L, shape (m, n_L): a forward pass of the plainest kind."""
    A = net.inputs
    way = Way()
    for l, W in enumerate(net.weights):
        bias, mask = net.biases[l], net.mask(l + 1)
        z = A @ W.T + (0.0 if bias is None else bias)
        A = way.form(net, l).value(z, net.activations[l][1])
        A = A if mask is None else A * mask
    return A


def narrow(rng: Rng) -> Nasty:
    """One output, one class, one unit, one sample."""
    sizes = [int(pick(rng, (1, 1, 2, 5))) for _ in range(int(rng.integers(2, 6)))]
    sizes[-1] = 1
    return base(rng, sizes=sizes, m=int(pick(rng, (1, 1, 2, 7))))


def deep(rng: Rng) -> Nasty:
    """Chains of 8 to 25 narrow layers."""
    sizes = [int(rng.integers(1, 5)) for _ in range(int(rng.integers(9, 26)))]
    return base(rng, sizes=sizes, m=int(pick(rng, (1, 3, 8))))


KINK_PLACES = {"relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0)}


def near_kinks(rng: Rng) -> Nasty:
    """At each layer biases that bring units of some sample onto a kink, or within ±ε of it."""
    net = base(rng, names=KINKED, output=(*KINKED, "identity") if chance(rng, 0.6) else None)
    return moved_onto_kinks(rng, net)


def moved_onto_kinks(rng: Rng, net: Nasty) -> Nasty:
    """Return the network with biases that bring units of some sample onto a kink, or near it."""
    biases: list[Any] = []
    far = pick(rng, (0.0, 1e-12, 1e-8, 5e-8, 2e-7))
    for l in range(net.depth):
        size = net.sizes[l + 1]
        here = replace(
            net, weights=net.weights[: l + 1], biases=[*biases, np.zeros(size)],
            activations=[*net.activations[:l], named("identity")],
            masks=None if net.masks is None else [*net.masks[:l], None],
        )  # fmt: skip
        sample = rng.integers(net.m, size=size)
        z = outputs(here)[sample, np.arange(size)]
        place = pick(rng, KINK_PLACES.get(net.activations[l][0], (0.0,)))
        onto = place - z + far * rng.uniform(-1, 1, size)
        biases.append(np.where(rng.random(size) < 0.6, onto, rng.normal(size=size)))
    return replace(net, biases=biases)


def corners(rng: Rng) -> Nasty:
    """Huber residuals exactly on the corner, or within ±ε of it."""
    net = base(rng, losses=("huber",))
    if chance(rng, 0.5):
        net = whole_numbers(rng, ("relu", "identity", "hardtanh"))
        net = replace(net, loss=named("huber"), targets=outputs(net))
    p = net.loss[1]
    sign = rng.choice((-1.0, 0.0, 1.0), size=net.targets.shape)
    near = pick(rng, (0.0, 1e-12, 5e-8)) * rng.uniform(-1, 1, net.targets.shape)
    return replace(net, targets=outputs(net) + sign * p + near)


def masked(rng: Rng) -> Nasty:
    """Dropout on every hidden layer, whole samples and units dropped."""
    net = base(rng, sizes=[int(rng.integers(1, 7)) for _ in range(int(rng.integers(3, 6)))])
    masks = dropout(rng, net.m, net.sizes)
    for mask in masks[:-1]:
        mask[rng.random(net.m) < 0.2] = 0.0
        mask[:, rng.random(mask.shape[1]) < 0.2] = 0.0
    return replace(net, masks=masks)


def duplicates(rng: Rng) -> Nasty:
    """Units that are copies of others, the whole batch several times, equal columns of inputs."""
    net, how = base(rng), int(rng.integers(3))
    if how == 0:
        copies = rng.integers(net.sizes[1], size=net.sizes[1])
        weights, first = [net.weights[0][copies], *net.weights[1:]], net.biases[0]
        biases = [None if first is None else first[copies], *net.biases[1:]]
        return replace(net, weights=weights, biases=biases)
    if how == 1:
        times = int(rng.integers(2, 9))
        masks = net.masks and [None if mask is None else np.tile(mask, (times, 1))
                               for mask in net.masks]  # fmt: skip
        inputs, targets = (np.tile(part, (times, 1)) for part in (net.inputs, net.targets))
        return replace(net, inputs=inputs, targets=targets, masks=masks)
    return replace(net, inputs=np.repeat(net.inputs[:, :1], net.sizes[0], axis=1))


def images(rng: Rng) -> Nasty:
    """Sparse pixels, 0 to 1 or 0 to 255, and a layer that is wide beside the others' families."""
    hidden = [int(pick(rng, (16, 40)))] * int(rng.integers(1, 3))
    net = base(rng, sizes=[64, *hidden, 10], m=int(pick(rng, (1, 8, 32, 100))))
    pixels = np.round(255.0 * rng.random(net.inputs.shape)) * (rng.random(net.inputs.shape) < 0.2)
    return replace(net, inputs=pixels / pick(rng, (1.0, 255.0)))


RANDOM: dict[str, Callable[[Rng], Nasty]] = {
    "plain": base,
    "scales": scales,
    "features": features,
    "zeros": zeros,
    "constant": constant,
    "orthogonal": orthogonal,
    "whole numbers": whole_numbers,
    "inputs": inputs,
    "saturated": saturated,
    "dead": dead,
    "penalties": penalties,
    "many samples": many_samples,
    "residuals": residuals,
    "narrow": narrow,
    "deep": deep,
    "near kinks": near_kinks,
    "corners": corners,
    "masked": masked,
    "duplicates": duplicates,
    "images": images,
}
