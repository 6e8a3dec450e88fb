"""Which activations a JAX model has: said, read from its modules, or told by its own values.

A pytree holds no functions, so nothing is taken for granted: where the activations can be neither
read nor told from the model's outputs or from J, they have to be said.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.importers.activation_names import identify_activation
from fastcheck.importers.chain import unsupported
from fastcheck.importers.optional import require
from fastcheck.kernels.activations import ACTIVATIONS as TABLE
from fastcheck.model.cost import compare_cost, cost_parts
from fastcheck.model.network import Network
from fastcheck.reference.backprop import forward_pass
from fastcheck.types import Floats

__all__ = [
    "Known",
    "class_labels",
    "model_outputs",
    "read_activations",
    "require_same",
    "said",
    "told",
]

Make = Callable[[list[Any]], Network]

# As jax.nn, flax and equinox call them; jax.nn.gelu is the tanh form unless told otherwise.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "tanh": "tanh", "sigmoid": "sigmoid", "logistic": "sigmoid",
    "softplus": "softplus", "soft_sign": "softsign", "silu": "silu", "swish": "silu", "elu": "elu",
    "selu": "selu", "leaky_relu": "leaky_relu", "gelu": "gelu_tanh", "mish": "mish",
    "hard_tanh": "hardtanh", "identity": "identity", "_identity": "identity",
}  # fmt: skip
LIBRARIES = {"jax", "jaxlib", "flax", "equinox"}
# How far a model's own values may be from ours to be the same, and to be surely others.
SAME = {"float64": 1e-11, "float32": 3e-5}
# J alone is one number: among some hundred candidates one comes as near as 1e-4 by chance.
SAME_J = {"float64": 1e-12, "float32": 2e-6}
OTHER = {"float64": 1e-6, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
CLEARLY = 10.0  # the best candidate is so many times nearer than the next one
MOST_CANDIDATES = 400
SAY_THEM = "Say them: activations=['tanh', …, 'identity'], from the first layer to the outputs."


def said(given: Any, layers: int) -> list[Any]:
    """Return what the user says, one activation a layer; one stands for all hidden layers."""
    if isinstance(given, str) or callable(given):
        given = [given] * (layers - 1) + ["identity"]
    if len(given) != layers:
        raise InputError(f"{len(given)} activations", f"{layers}, one for each layer")
    return [_translated(spec) for spec in given]


def read_activations(params: Any, layers: int) -> list[Any] | None:
    """Return what the modules of an Equinox model say; None where they say nothing."""
    if hasattr(params, "final_activation"):
        return said([params.activation] * (layers - 1) + [params.final_activation], layers)
    if type(params).__name__ != "Sequential" or not hasattr(params, "layers"):
        return None
    found: list[Any] = []
    for place, part in _parts(params, ""):
        _read_part(found, part, place)
    return found


def _parts(params: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a Sequential and of those inside it."""
    for k, part in enumerate(params.layers):
        place = f"{path}layers.{k}"
        if type(part).__name__ == "Sequential":
            yield from _parts(part, f"{place}.")
        else:
            yield place, part


def _read_part(found: list[Any], part: Any, place: str) -> None:
    """Add a part of a Sequential to the activations so far."""
    kind = type(part).__name__
    if kind == "Linear":
        found.append("identity")
        return
    if kind == "Identity":
        return
    if kind == "Dropout":
        if float(part.p) and not part.inference:
            raise unsupported(
                f"dropout of {float(part.p):g} that is switched on", place,
                "Check with equinox.nn.inference_mode(model).",
            )  # fmt: skip
        return
    function = part.fn if kind == "Lambda" else part
    spec = _translated(function)
    if spec == "identity":
        return
    if not found or found[-1] != "identity":
        raise unsupported(f"{kind} before the first layer or behind an activation", place)
    found[-1] = spec


def _translated(spec: Any) -> Any:
    """Return fastcheck's name of a function of JAX's; other specs are left as they are."""
    if not callable(spec) or isinstance(spec, type):
        return spec
    inner = getattr(spec, "func", spec)  # of a functools.partial
    modules = {str(getattr(f, "__module__", "")).split(".")[0] for f in (inner, type(inner))}
    name = getattr(spec, "__name__", type(spec).__name__)
    theirs = bool(modules & LIBRARIES)
    found = ACTIVATIONS.get(name) if theirs and inner is spec else None
    found = found or identify_activation(spec)
    if found is None and theirs:
        raise unsupported(
            f"the activation {getattr(inner, '__name__', name)!r}", "params",
            "Say which one it is: activations=['relu', …, 'identity'], or give its forward as a "
            "function of one float.",
        )  # fmt: skip
    return spec if found is None else found


@dataclass(frozen=True)
class Known:
    """What the user's own code says of the model at θ.

    Attributes
    ----------
    outputs : ndarray or None
        What the model gives for the batch, (m, n_L).
    J : float or None
    """

    outputs: Floats | None
    J: Any = None

    def distance(self, network: Network, X: Any, T: Any) -> float:
        """Return how far a network's outputs, or else its J, are from the model's own: relative."""
        batch = network.batch(X, T)
        if self.outputs is not None:
            ours, theirs = forward_pass(network, batch).A[-1], self.outputs
            if ours.shape != theirs.shape:
                return np.inf
            size = max(float(np.abs(theirs).max()), np.finfo(float).tiny)
            return float(np.abs(ours - theirs).max()) / size
        J = float(np.asarray(self.J))
        return abs(cost_parts(network, batch).total - J) / max(abs(J), np.finfo(float).tiny)


def model_outputs(params: Any, inputs: Any) -> Floats | None:
    """Return what a model that can be called gives for the batch; None for a tree of arrays."""
    if not callable(params):
        return None
    jax = require("jax", "jax")
    X = jax.numpy.asarray(inputs)
    try:  # a copy: calling a model of Flax's may count random numbers on
        if any(base.__module__.startswith("equinox") for base in type(params).__mro__):
            outputs = jax.vmap(params)(X)
        else:
            outputs = copy.deepcopy(params)(X)
        return np.asarray(outputs, dtype=np.float64)
    except Exception:  # it takes more than its inputs: a key for dropout, a state
        return None


def told(make: Make, layers: int, known: Known, batch: tuple[Any, Any]) -> list[Any]:
    """Return the activations with which a network gives the model's own outputs or J.

    Raises
    ------
    InputError
        Where nothing is known, and where no activations or several ones give these values.
    """
    if layers == 1 and known.outputs is None and known.J is None:
        return ["identity"]  # logits, as the losses take them
    wanted = "activations=[…], one for each of the layers"
    if known.outputs is None and known.J is None:
        raise InputError(
            "a tree of arrays, which does not say what its activations are", wanted,
            f"{SAY_THEM} Or give cost=, your J as a function (params, inputs, targets): they are "
            "told by its value.",
        )  # fmt: skip
    same = SAME_J if known.outputs is None else SAME
    limit = same.get(make(["identity"] * layers).precision, 0.0)
    found: list[tuple[float, int, list[Any]]] = []
    for candidate in _candidates(layers):
        with np.errstate(all="ignore"):
            distance = _distance(make, candidate, known, batch)
        found.append((distance, len(found), candidate))
    best = min(found)
    # Equal distances: the same values on this batch, as ReLU and ReLU6 have below 6.
    next_one = min((each[0] for each in found if each[0] != best[0]), default=np.inf)
    if best[0] > limit or next_one < CLEARLY * max(best[0], limit / CLEARLY**2):
        what = "outputs" if known.outputs is not None else f"J = {float(np.asarray(known.J)):.6g}"
        raise InputError(
            f"a model whose activations can't be told from its {what}", wanted,
            f"{SAY_THEM} The loss and the penalty have to be said, too: loss=, l2=, reduction=.",
        )  # fmt: skip
    return best[2]


def _distance(make: Make, candidate: list[Any], known: Known, batch: tuple[Any, Any]) -> float:
    try:
        distance = known.distance(make(candidate), *batch)
    except InputError:  # J that overflows, targets that this output can't have
        return np.inf
    return distance if np.isfinite(distance) else np.inf


def _candidates(layers: int) -> Iterator[list[Any]]:
    """Yield activations to try: all hidden layers alike, then any in each, behind any output."""
    names = list(TABLE)
    seen = set()
    alike = ([hidden] * (layers - 1) + [last] for last in names for hidden in names)
    several = itertools.product(names, repeat=layers - 1) if layers <= 3 else iter(())
    mixed = ([*hidden, "identity"] for hidden in several)
    for candidate in itertools.islice(itertools.chain(alike, mixed), 2 * MOST_CANDIDATES):
        key = tuple(candidate)
        if key not in seen:
            seen.add(key)
            yield candidate


def require_same(network: Network, known: Known, batch: tuple[Any, Any], assumed: str) -> None:
    """Refuse a model that computes something else than the network that it was read as.

    Parameters
    ----------
    network : Network
    known : Known
    batch : tuple
        Inputs and targets.
    assumed : str
        What the user left out: `"loss="`; "" where all was said, so that a report can tell.
    """
    if known.outputs is not None:
        distance = Known(known.outputs).distance(network, *batch)
        if not distance <= OTHER[network.precision]:
            raise InputError(
                f"a model whose outputs are not those of {network.describe()} (they differ by "
                f"{distance:.2g})",
                "a chain: dense layers and elementwise activations, one after the other",
                f"Dropout, a norm, a skip, a scale, or layers in another order? {SAY_THEM}",
            )
    if known.J is None or not assumed:
        return
    found = compare_cost(network, network.batch(*batch), float(np.asarray(known.J)))
    if not found.agrees:
        raise InputError(
            f"J = {found.theirs:.6g}, where {network.describe()} gives {found.ours.total:.6g} "
            f"({found.explanation})",
            "the J that the gradient is of",
            f"Say what it is made of; {assumed} was not said.",
        )


def class_labels(targets: Sequence[Any] | Any) -> bool:
    """Return whether targets are class labels, so that only one loss can be meant."""
    array = np.asarray(targets)
    return array.ndim == 1 and array.dtype.kind in "iu"
