"""Networks whose correct gradients are rounded, by NumPy and torch, and their exact gradients."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mpmath
import numpy as np

from fastcheck.model.network import Batch, Network
from fastcheck.rounding import Rounding, rounding
from fastcheck.verdict.rules import ROUNDING_FACTOR, BlockErrors, block_rounding, worst_elsewhere
from tests import oracle
from tests.builders import as_network
from tests.networks import ACTIVATIONS, LOSSES, Drawn, random_targets

WIDTHS = (1, 3, 8, 24, 64, 150)
BATCHES = (1, 2, 7, 16, 32, 64)


@dataclass(frozen=True)
class Ratios:
    """How large the true rounding errors of one gradient are, against what is predicted.

    Attributes
    ----------
    components
        |error|/σ of every component.
    blocks
        ‖error‖/‖σ‖ of every block whose error is not zero.
    shares
        ‖error‖ of those blocks over what `block_rounding` allows.
    peaks
        The greatest |error|/σ in those blocks.
    sizes
        The number of components of those blocks.
    """

    components: Any
    blocks: Any
    shares: Any
    peaks: Any
    sizes: Any


def dense(seed: int, widths: Sequence[int], m: int = 32, activation: str = "tanh") -> Drawn:
    """Return an untrained network of an everyday kind, in float32."""
    rng = np.random.default_rng(seed)
    local_slope = 1.0 if activation in ("tanh", "sigmoid") else 2.0
    labels = rng.integers(widths[-1], size=m)
    return Drawn(
        weights=[
            rng.normal(0, np.sqrt(local_slope / n), (k, n)).astype(np.float32)
            for n, k in itertools.pairwise(widths)
        ],
        biases=[rng.normal(0, 0.1, k).astype(np.float32) for k in widths[1:]],
        activations=[*[activation for _ in widths[2:]], "identity"],
        loss="softmax_cross_entropy",
        l2=0.0,
        penalty="l2/2m",
        reduction="mean",
        inputs=rng.random((m, widths[0])).astype(np.float32),
        targets=np.eye(widths[-1], dtype=np.float32)[labels],
        masks=None,
    )


def draw(rng: np.random.Generator, dtype: Any, widths: list[int], m: int) -> Drawn:
    """Return a network of these widths with anything else drawn, exactly held by a dtype."""

    def pick(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    loss, one, keep = pick(LOSSES), pick((*ACTIVATIONS, None)), pick((1.0, 1.0, 0.5, 0.8))
    hidden = [pick(ACTIVATIONS) if one is None else one for _ in widths[2:]]
    inputs = rng.normal(size=(m, widths[0])) if rng.random() < 0.5 else rng.random((m, widths[0]))
    if rng.random() < 0.5:
        inputs *= rng.random(inputs.shape) < 0.2
    masks = [np.asarray((rng.random((m, k)) < keep) / keep, dtype) for k in widths[1:-1]]
    local_slope = _gain(rng, len(hidden) + 1)
    return Drawn(
        weights=[
            np.asarray(rng.normal(0, local_slope * np.sqrt(1.6 / n), (k, n)), dtype)
            for n, k in itertools.pairwise(widths)
        ],
        biases=[
            np.asarray(rng.normal(0, 0.1, k), dtype) if rng.random() < 0.8 else None
            for k in widths[1:]
        ],
        activations=[*hidden, "identity"],
        loss=loss,
        l2=pick((0.0, 0.0, 0.25)),
        penalty="l2/2m",
        reduction=pick(("mean", "mean", "sum", "mean_elements")),
        inputs=np.asarray(inputs, dtype),
        targets=random_targets(rng, loss, (m, widths[-1]), soft=rng.random() < 0.3, dtype=dtype),
        masks=None if keep == 1.0 else [*masks, None],
    )


def _gain(rng: np.random.Generator, layers: int) -> float:
    """Return what a layer's weights are scaled by: 1e-3 to 1e3, for each layer or for all."""
    scale = float(10.0 ** rng.uniform(-3, 3))
    shared = rng.random() < 0.5
    return scale ** (1 / layers) if shared else scale if layers < 4 else scale**0.3


def random_case(rng: np.random.Generator, dtype: Any) -> Drawn:
    """Return a network of 3 to 10 layers."""
    layers = int(rng.integers(3, 11)) if rng.random() < 0.7 else int(rng.integers(1, 4))
    widths = [int(rng.choice(WIDTHS[1:])), *(int(w) for w in rng.choice(WIDTHS, layers))]
    drawn = draw(rng, dtype, widths, int(rng.choice(BATCHES)))
    return trained(drawn) if rng.random() < 0.3 else drawn


def trained(drawn: Drawn, steps: int = 30) -> Drawn:
    """Return the network after some steps of gradient descent with normalised steps."""
    weights = [w.astype(np.float64) for w in drawn.weights]
    biases = [None if b is None else b.astype(np.float64) for b in drawn.biases]
    rest = (drawn.inputs.astype(np.float64), drawn.targets.astype(np.float64))
    for _ in range(steps):
        d_weights, d_biases = oracle.backprop(weights, biases, *rest, **drawn.conventions)
        for values, change in zip([*weights, *biases], [*d_weights, *d_biases], strict=True):
            if values is None or change is None:
                continue
            size = float(np.linalg.norm(change))
            if np.isfinite(size) and size > 0:
                step = 0.02 * float(np.linalg.norm(values)) / size
                np.subtract(values, step * change, out=values)
    dtype = drawn.inputs.dtype
    return replace(
        drawn,
        weights=[w.astype(dtype) for w in weights],
        biases=[None if b is None else b.astype(dtype) for b in biases],
    )


def network_of(drawn: Drawn, precision: str) -> tuple[Network, Batch]:
    """Return fastcheck's network and batch, its parameters known to be of a precision."""
    masks = drawn.masks
    wide = replace(
        drawn,
        weights=[np.asarray(w, np.float64) for w in drawn.weights],
        biases=[None if b is None else np.asarray(b, np.float64) for b in drawn.biases],
        masks=masks and [None if k is None else np.asarray(k, np.float64) for k in masks],
    )
    network, batch = as_network(wide)
    return replace(network, precision=precision), batch


def numpy_gradient(drawn: Drawn, dtype: Any) -> Any:
    """Return the oracle's backward pass, every operation in a dtype, as one vector."""
    drawn = cast(drawn, dtype)
    with np.errstate(all="ignore"):
        d_weights, d_biases = oracle.backprop(*drawn.arrays, **drawn.conventions)
    return oracle.pack(d_weights, d_biases)


def cast(drawn: Drawn, dtype: Any) -> Drawn:
    """Return the same problem with all arrays of a dtype."""

    def change(a: Any) -> Any:
        return None if a is None else a.astype(dtype)

    return replace(
        drawn,
        weights=[change(w) for w in drawn.weights],
        biases=[change(b) for b in drawn.biases],
        inputs=change(drawn.inputs),
        targets=change(drawn.targets),
        masks=None if drawn.masks is None else [change(k) for k in drawn.masks],
    )


def _long_normal_cdf(z: Any) -> Any:
    with mpmath.workdps(25):
        values = [mpmath.ncdf(mpmath.mpf(np.format_float_positional(v, 25))) for v in z.flat]
        return np.array([np.longdouble(mpmath.nstr(v, 22)) for v in values]).reshape(z.shape)


def _long_normal_density(z: Any) -> Any:
    return np.exp(-z * z / 2) / np.sqrt(2 * np.arccos(np.longdouble(-1)))


def exact_gradient(drawn: Drawn, precision: str) -> Any:
    """Return the gradient with more digits than `precision` has."""
    if precision != "float64":
        return numpy_gradient(drawn, np.float64)
    kept = oracle.ACTIVATIONS["gelu"]
    oracle.ACTIVATIONS["gelu"] = (  # the oracle's own is made of math.erfc, a double
        lambda z, _: z * _long_normal_cdf(z),
        lambda z, _: _long_normal_cdf(z) + z * _long_normal_density(z),
    )
    try:
        return numpy_gradient(drawn, np.longdouble)
    finally:
        oracle.ACTIVATIONS["gelu"] = kept


def ratios(predicted: Rounding, gradient: Any, exact: Any) -> Ratios:
    """Hold true errors against the prediction."""
    error = np.abs(gradient.astype(exact.dtype) - exact).astype(np.float64)
    sigma = predicted.vector()
    with np.errstate(divide="ignore", invalid="ignore"):
        components = np.where(error == 0.0, 0.0, error / sigma)
    slices = [block.slice for block in predicted.network.order.blocks]
    norms = [float(np.linalg.norm(sigma[part])) for part in slices]
    errors = [float(np.linalg.norm(error[part])) for part in slices]
    times = [e / norm if norm else 0.0 for e, norm in zip(errors, norms, strict=True)]
    peaks = [float(sigma[part].max()) for part in slices]
    blocks = [BlockErrors(*each) for each in zip(errors, norms, peaks, strict=True)]
    found = []
    elsewhere = worst_elsewhere(blocks)
    for k, (part, block, others) in enumerate(zip(slices, blocks, elsewhere, strict=True)):
        if block.error > 0:
            allowed = block_rounding(block, others, predicted.loop_factor)
            worst = float(components[part].max())
            found.append((times[k], block.error / allowed, worst, sigma[part].size))
    return Ratios(components, *np.array(found).reshape(-1, 4).T)


def noticed(result: Ratios) -> Any:
    """Return for each block whether ten times its error would be accused."""
    return (10 * result.shares > 1) | (10 * result.peaks > ROUNDING_FACTOR)


def cases(seed: int, count: int, precision: str) -> Iterator[tuple[Drawn, Rounding, Any]]:
    """Yield random networks, the prediction for them and their exact gradient."""
    rng = np.random.default_rng(seed)
    dtype = np.float32 if precision == "bfloat16" else np.dtype(precision)
    while count:
        drawn = random_case(rng, dtype)
        if precision == "bfloat16":
            drawn = _to_bfloat16(drawn)
        with np.errstate(all="ignore"):
            exact = exact_gradient(drawn, precision)
        if not np.isfinite(exact).all() or not np.any(exact):
            continue
        network, batch = network_of(drawn, precision)
        count -= 1
        yield drawn, rounding(network, batch, precision), exact


def _to_bfloat16(drawn: Drawn) -> Drawn:
    def shorten(a: Any) -> Any:
        return None if a is None else (a.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    return replace(
        drawn,
        weights=[shorten(w) for w in drawn.weights],
        biases=[shorten(b) for b in drawn.biases],
        inputs=shorten(drawn.inputs),
        targets=drawn.targets,
        masks=None if drawn.masks is None else [shorten(k) for k in drawn.masks],
    )


def torch_gradient(drawn: Drawn, precision: str) -> Any:
    """Return torch's gradient in a precision, as a float64 vector."""
    import torch
    from torch.nn import functional

    F: Any = functional

    dtype = getattr(torch, precision)

    def tensor(a: Any) -> Any:
        return None if a is None else torch.tensor(np.asarray(a, np.float64)).to(dtype)

    activations = {
        "identity": lambda z, p: z, "relu": lambda z, p: F.relu(z),
        "leaky_relu": F.leaky_relu, "elu": F.elu,
        "selu": lambda z, p: F.selu(z), "softplus": lambda z, p: F.softplus(z, threshold=60.0),
        "sigmoid": lambda z, p: torch.sigmoid(z), "tanh": lambda z, p: torch.tanh(z),
        "hardtanh": lambda z, p: F.hardtanh(z), "relu6": lambda z, p: F.relu6(z),
        "silu": lambda z, p: F.silu(z), "gelu": lambda z, p: F.gelu(z),
        "gelu_tanh": lambda z, p: F.gelu(z, approximate="tanh"),
        "softsign": lambda z, p: F.softsign(z), "mish": lambda z, p: F.mish(z),
    }  # fmt: skip
    losses = {
        "softmax_cross_entropy": lambda z, t, p: F.cross_entropy(z, t, reduction="sum"),
        "sigmoid_cross_entropy": lambda z, t, p: F.binary_cross_entropy_with_logits(
            z, t, reduction="sum"
        ),
        "squared_error": lambda z, t, p: ((z - t) ** 2).sum() / 2,
        "mean_squared_error": lambda z, t, p: ((z - t) ** 2).sum() / z.shape[1],
        "huber": lambda z, t, p: F.huber_loss(z, t, delta=p, reduction="sum"),
    }
    parameters = [tensor(a) for pair in zip(drawn.weights, drawn.biases, strict=True) for a in pair]
    for p in parameters:
        if p is not None:
            p.requires_grad_()
    a = tensor(drawn.inputs)
    masks = drawn.masks or [None] * len(drawn.weights)
    for k, (named, mask) in enumerate(zip(drawn.activations, masks, strict=True)):
        name, parameter = oracle.split(named)
        a = activations[name](F.linear(a, parameters[2 * k], parameters[2 * k + 1]), parameter)
        a = a if mask is None else a * tensor(mask)
    name, parameter = oracle.split(drawn.loss)
    total = losses[name](a, tensor(drawn.targets), parameter)
    m, n = drawn.targets.shape
    cost = total * oracle.sample_factor(drawn.reduction, m, n)
    decay = oracle.penalty_factor(drawn.penalty, drawn.l2, m)
    for w in parameters[::2]:
        cost = cost + decay * (w * w).sum() if decay else cost
    cost.backward()
    return np.concatenate([p.grad.double().numpy().ravel() for p in parameters if p is not None])
