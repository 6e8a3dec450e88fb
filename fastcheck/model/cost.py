"""J(θ) and its two parts, and the user's own J held against it: where they differ, why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # its parts are imported at their first use
from numpy.typing import ArrayLike

from fastcheck.determinism import require_deterministic
from fastcheck.errors import InputError
from fastcheck.kernels.forward import cost as forward_cost
from fastcheck.kernels.forward import forward_trace
from fastcheck.model.network import PENALTIES, Batch, Network
from fastcheck.model.user_calls import Handed, Written, call_on_copies
from fastcheck.types import Floats
from fastcheck.validation import finite_array, lower_precision, unit_roundoff

__all__ = ["CostComparison", "CostParts", "compare_cost", "cost_parts", "user_cost"]


# How far two evaluations of the same J may be apart, in units of the unit roundoff: rounding
# leaves them equal, a small number inside a logarithm (log(a + 1e-8)) makes them close.
EQUAL, CLOSE = 1e7, 1e11
LARGEST_EQUAL, LARGEST_CLOSE = 1e-4, 1e-3
# What rounding alone may do to J, in units of the unit roundoff: it matters for half precisions.
ROUNDINGS = 16.0
# Numbers that people write inside a logarithm: 1e-15 … 0.5, and the unit roundoffs.
GUARDS = (*(n * 10.0**-k for k in range(15, 0, -1) for n in (1.0, 2.0, 5.0)), 2.0**-52, 2.0**-23)


@dataclass(frozen=True)
class CostParts:
    """J(θ) = data + penalty."""

    data: float
    penalty: float

    @property
    def total(self) -> float:
        """J."""
        return self.data + self.penalty


@dataclass(frozen=True)
class CostComparison:
    """The user's J held against ours.

    Attributes
    ----------
    ours : CostParts
    theirs : float
    agrees : bool
        Equal up to rounding, or so close that only the way of computing can differ.
    explanation : str
        In a sentence; "" where they are equal.
    notes : tuple of str
        What a reader should know, a sentence each.
    """

    ours: CostParts
    theirs: float
    agrees: bool
    explanation: str
    notes: tuple[str, ...] = ()


def cost_parts(network: Network, batch: Batch) -> CostParts:
    """Return J(θ), by one forward pass.

    Raises
    ------
    InputError
        Where J is NaN or infinite.
    """
    data, penalty = forward_cost(
        network.arrays(batch.size), network.theta, batch.X, batch.T, network.calls
    )
    if not math.isfinite(data + penalty):
        raise InputError(
            f"J(θ) is {data + penalty} (data {data}, penalty {penalty})",
            "a finite J",
            "Scale the weights or the inputs down: something overflows.",
        )
    return CostParts(float(data), float(penalty))


def compare_cost(
    network: Network,
    batch: Batch,
    cost: float | Callable[[Network, Any, Any], Any],
    owned: tuple[ArrayLike, ArrayLike] | None = None,
) -> CostComparison:
    """Hold the user's J against ours.

    Parameters
    ----------
    network : Network
    batch : Batch
    cost : float or callable
        J, or `cost(network, inputs, targets)` that returns it; called twice.
    owned : tuple, optional
        The inputs and targets as the user has them, for the callable; else those of the batch.

    Returns
    -------
    CostComparison

    Raises
    ------
    InputError
        For a J that is no finite number or that differs between two calls.
    """
    if not callable(cost):
        return _compared(network, batch, *_number(cost))
    handed = Handed(network, *(owned if owned is not None else (batch.X, batch.T)))
    (theirs, precision), written = require_deterministic(
        lambda: _called(cost, handed), "cost", lambda a, b: a[0] == b[0]
    )
    return replace(_compared(network, batch, theirs, precision), notes=written.notes)


def user_cost(cost: Callable[[Network, Any, Any], Any], handed: Handed) -> float:
    """Return the user's J, called once, on copies."""
    return _called(cost, handed)[0][0]


def _called(
    cost: Callable[[Network, Any, Any], Any], handed: Handed
) -> tuple[tuple[float, str], Written]:
    value, written = call_on_copies(cost, "cost", handed)
    return _number(value), written


def _compared(network: Network, batch: Batch, theirs: float, precision: str) -> CostComparison:
    """Hold a J against ours."""
    ours = cost_parts(network, batch)
    roundoff = unit_roundoff(lower_precision(precision, network.precision))
    size = max(abs(ours.data), abs(ours.penalty), abs(theirs))
    gap = abs(theirs - ours.total)
    if gap <= min(EQUAL * roundoff, LARGEST_EQUAL) * size:
        return CostComparison(ours, theirs, agrees=True, explanation="")

    def explained(variants: Iterator[Variant]) -> str:
        return _explanation(variants, theirs, gap, roundoff)

    if sentence := explained(_variants(network, batch, ours)):
        return CostComparison(ours, theirs, agrees=False, explanation=sentence)
    if gap <= ROUNDINGS * roundoff * size:
        return CostComparison(ours, theirs, agrees=True, explanation="")
    is_close = gap <= min(CLOSE * roundoff, LARGEST_CLOSE) * size
    if sentence := explained(_guarded_variants(network, batch, ours, roundoff)):
        return CostComparison(ours, theirs, agrees=is_close, explanation=sentence)
    if is_close:
        sentence = f"your J differs by {theirs - ours.total:.2g}, as by a small number in a log"
        return CostComparison(ours, theirs, agrees=True, explanation=sentence)
    return CostComparison(ours, theirs, agrees=False, explanation=_unexplained(ours, theirs))


def _explanation(variants: Iterator[Variant], theirs: float, gap: float, roundoff: float) -> str:
    """Return the words of the first variant that is the user's J to rounding, "" for none."""
    for variant, sentence in variants:
        near = min(EQUAL * roundoff, LARGEST_EQUAL) * max(abs(variant), abs(theirs))
        if abs(theirs - variant) <= min(near, 0.01 * gap):
            return sentence
    return ""


def _number(value: Any) -> tuple[float, str]:
    """Return the user's J as a float, and its precision."""
    array, precision = finite_array(value, "cost")
    if array.size != 1:
        raise InputError(
            f"cost has shape {array.shape}", "one number", "Sum or average over the samples."
        )
    return float(array.reshape(())), precision


def _unexplained(ours: CostParts, theirs: float) -> str:
    ratio = f", {theirs / ours.total:.6g} times ours" if ours.total else ""
    return f"your J is {theirs:.10g}{ratio}; no slip that I know explains it"


Variant = tuple[float, str]


def _variants(network: Network, batch: Batch, ours: CostParts) -> Iterator[Variant]:
    """Yield what J would be with one slip, then with one in each part, and the slip in words."""
    data = list(_data_variants(network, batch, ours.data))
    penalty = list(_penalty_variants(network, batch, ours))
    for value, words in penalty:
        yield value + ours.data, words
    for value, words in data:
        yield value + ours.penalty, words
    yield -ours.total, "your J has the wrong sign"
    yield batch.size * ours.total, "your J is not divided by m at all"
    for p, penalty_words in penalty:
        for d, data_words in data:
            yield p + d, f"{data_words}; and {penalty_words}"


def _data_variants(network: Network, batch: Batch, data: float) -> Iterator[Variant]:
    m, outputs = batch.size, network.sizes[-1]
    yield data * m, f"your data part is the sum over the {m} samples, not their mean"
    yield data / m, f"your data part is divided by m = {m} once too often"
    yield data * outputs, f"your data part is {outputs} times ours: not averaged over the outputs"
    yield data / outputs, f"your data part is averaged over the {outputs} outputs as well"
    yield data * 2.0, "your data part is twice ours: a factor ½ is missing"
    yield data / 2.0, "your data part is half of ours: a factor ½ too many"
    yield data / math.log(2.0), "your logarithm is to the base 2"
    yield data / math.log(10.0), "your logarithm is to the base 10"
    yield -data, "your data part has the wrong sign"


def _penalty_variants(network: Network, batch: Batch, ours: CostParts) -> Iterator[Variant]:
    penalty, m = ours.penalty, batch.size
    if not network.l2:
        return
    scale = network.penalty_scale(m)
    yield (
        0.0,
        (
            f"your J is lower by exactly {PENALTIES[network.penalty]} = {penalty:.6g}: "
            "the penalty is missing"
        ),
    )
    yield 2.0 * penalty, "your penalty is twice ours: a factor ½ is missing"
    yield 0.5 * penalty, "your penalty is half of ours: a factor ½ too many"
    yield -penalty, "your penalty is subtracted, not added"
    yield m * penalty, f"your penalty is {m} times ours: it is not divided by m"
    yield penalty / m, f"your penalty is divided by m = {m} once too often"
    biases = [network.b(layer) for layer in range(1, network.depth + 1)]
    on_biases = scale * sum(float(np.dot(b, b)) for b in biases if b is not None)
    yield penalty + on_biases, "your penalty includes the biases; it is on weights only"
    for layer in range(1, network.depth + 1):
        W = network.W(layer).ravel()
        name = network.order.weights(layer).name
        yield penalty - scale * float(np.dot(W, W)), f"the penalty on {name} is missing in your J"
    norms = [network.W(layer).ravel() for layer in range(1, network.depth + 1)]
    yield (
        scale * sum(math.sqrt(float(np.dot(W, W))) for W in norms),
        "your penalty sums the norms ‖W‖ instead of their squares",
    )
    yield (
        scale * sum(float(np.abs(W).sum()) for W in norms),
        "your penalty sums |w| (L1) instead of w² (L2)",
    )


def _guarded_variants(
    network: Network, batch: Batch, ours: CostParts, roundoff: float
) -> Iterator[Variant]:
    """Yield what J would be with a number inside its logarithms, alone and with another bug.

    In a low precision so many candidates would hit any J by chance: there, alone only.
    """
    guarded = list(_guarded_data(network, batch))
    for value, words in guarded:
        yield value + ours.penalty, words
    if EQUAL * roundoff > LARGEST_EQUAL:
        return
    penalty = [(ours.penalty, ""), *_penalty_variants(network, batch, ours)]
    for value, words in guarded:
        data = [(value, ""), *_data_variants(network, batch, value)]
        for d, data_words in data:
            for p, penalty_words in penalty:
                yield d + p, "; and ".join(w for w in (words, data_words, penalty_words) if w)


def _guarded_data(network: Network, batch: Batch) -> Iterator[Variant]:
    """Yield the data part of J with log(p + ε), and with p clipped at ε."""
    if network.loss.name not in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        return
    outputs, T = _outputs(network, batch), batch.T
    scale = network.data_scale(batch.size)
    if network.loss.name == "softmax_cross_entropy":
        p, weights = scipy.special.softmax(outputs, axis=1)[T != 0.0], T[T != 0.0]
    else:  # a probability for each class, 1 − p made by the subtraction that people write
        p = scipy.special.expit(outputs)
        p, weights = (
            np.concatenate([p, 1.0 - p], axis=None),
            np.concatenate([T, 1.0 - T], axis=None),
        )
    for epsilon in GUARDS:
        added, clipped = np.log(p + epsilon), np.log(np.clip(p, epsilon, 1.0 - epsilon))
        below = np.log(np.maximum(p, epsilon))
        text = f"{epsilon:.3g}"
        yield -scale * float(weights @ added), f"your logarithm is log(p + {text}), ours is log(p)"
        words = f"your probabilities are clipped to [{text}, 1 − {text}], ours are not"
        yield -scale * float(weights @ clipped), words
        words = f"your probabilities are clipped below {text}, ours are not"
        yield -scale * float(weights @ below), words


def _outputs(network: Network, batch: Batch) -> Floats:
    """Return A_L, shape (m, n_L)."""
    m, sizes = batch.size, network.sizes
    Z, A = np.empty((2, m * sum(sizes[1:])))
    forward_trace(network.arrays(m), network.theta, batch.X, Z, A, network.calls)
    return A[-m * sizes[-1] :].reshape(m, sizes[-1])
