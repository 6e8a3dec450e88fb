"""The exact oracle: the cost of a tiny network, and single differences, to any number of digits.

It imports mpmath and the standard library only. Floats are taken as the exact numbers that they
are; the constants of SELU and of the tanh form of GELU are taken as the decimals that define them.
Results are mpmath numbers: ``float(...)`` rounds them once.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import mpmath

if TYPE_CHECKING:
    from tests.networks import Drawn

Real: TypeAlias = Any  # mpmath.mpf
Row: TypeAlias = list[Real]
Named: TypeAlias = str | tuple[str, float]

DEFAULT_PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0, "huber": 1.0}
SELU_ALPHA, SELU_SCALE = "1.6732632423543772848170429916717", "1.0507009873554804934193349852946"


def softplus(z: Real) -> Real:
    """Return log(1 + exp(z)) with every digit on both sides."""
    return max(z, 0) + mpmath.log1p(mpmath.exp(-abs(z)))


def sigmoid(z: Real) -> Real:
    """Return 1 / (1 + exp(-z)) with every digit of a small value."""
    return 1 / (1 + mpmath.exp(-z))


def clip(z: Real, low: Real, high: Real) -> Real:
    """Return z, or the bound that it is beyond."""
    return min(max(z, low), high)


def elu(z: Real, alpha: Real) -> Real:
    """Return z where z > 0 and alpha (exp(z) - 1) elsewhere."""
    return z if z > 0 else alpha * mpmath.expm1(z)


def gelu_tanh(z: Real) -> Real:
    """Return z (1 + tanh(u)) / 2 as z sigmoid(2u), whose left tail keeps every digit."""
    cubic = z + mpmath.mpf("0.044715") * z**3
    return z * sigmoid(2 * mpmath.sqrt(2 / mpmath.pi) * cubic)


ACTIVATIONS: dict[str, Callable[[Real, Real], Real]] = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z, p: z if z > 0 else p * z,
    "elu": elu,
    "selu": lambda z, _: mpmath.mpf(SELU_SCALE) * elu(z, mpmath.mpf(SELU_ALPHA)),
    "softplus": lambda z, _: softplus(z),
    "sigmoid": lambda z, _: sigmoid(z),
    "tanh": lambda z, _: mpmath.tanh(z),
    "hardtanh": lambda z, _: clip(z, mpmath.mpf(-1), mpmath.mpf(1)),
    "relu6": lambda z, _: clip(z, mpmath.mpf(0), mpmath.mpf(6)),
    "silu": lambda z, _: z * sigmoid(z),
    "gelu": lambda z, _: z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2,
    "gelu_tanh": lambda z, _: gelu_tanh(z),
    "softsign": lambda z, _: z / (1 + abs(z)),
    "mish": lambda z, _: z * mpmath.tanh(softplus(z)),
}


def softmax_cross_entropy(z: Row, t: Row, _: Real) -> Real:
    """Return sum_k t_k (log sum_j exp(z_j) - z_k)."""
    largest = max(z)
    rest = list(z)
    rest.remove(largest)  # log1p keeps the digits of a small rest
    above = mpmath.log1p(mpmath.fsum(mpmath.exp(v - largest) for v in rest))
    return mpmath.fsum(u * (above + (largest - v)) for u, v in zip(t, z, strict=True))


def huber(residual: Real, delta: Real) -> Real:
    """Return r^2 / 2 where |r| <= delta and delta (|r| - delta / 2) elsewhere."""
    size = abs(residual)
    return size**2 / 2 if size <= delta else delta * (size - delta / 2)


def residuals(z: Row, t: Row) -> Row:
    """Return z - t."""
    return [v - u for v, u in zip(z, t, strict=True)]


LOSSES: dict[str, Callable[[Row, Row, Real], Real]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": lambda z, t, _: mpmath.fsum(
        softplus(v) - u * v for v, u in zip(z, t, strict=True)
    ),
    "squared_error": lambda z, t, _: mpmath.fsum(r**2 for r in residuals(z, t)) / 2,
    "mean_squared_error": lambda z, t, _: mpmath.fsum(r**2 for r in residuals(z, t)) / len(z),
    "huber": lambda z, t, p: mpmath.fsum(huber(r, p) for r in residuals(z, t)),
}


def exact(numbers: Any) -> Any:
    """Return a number, or nested sequences of them, as exact mpmath numbers; None stays None."""
    if numbers is None:
        return None
    if hasattr(numbers, "__len__"):
        return [exact(v) for v in numbers]
    return mpmath.mpf(numbers if isinstance(numbers, mpmath.mpf) else float(numbers))


def split(named: Named) -> tuple[str, Real]:
    """Return the name and its parameter, exact; the default one where none is given."""
    name, parameter = named if isinstance(named, tuple) else (named, None)
    return name, exact(DEFAULT_PARAMETERS.get(name, 0.0) if parameter is None else parameter)


# --- the cost of a network -------------------------------------------------------------------


class ExactProblem:
    """A drawn problem in exact numbers, its parameters as one flat list."""

    def __init__(self, problem: "Drawn") -> None:
        layers = len(problem.weights)
        self.problem = problem
        self.inputs, self.targets = exact(problem.inputs), exact(problem.targets)
        self.masks = exact(problem.masks) or [None] * layers
        biases = exact(problem.biases) or [None] * layers
        self.shapes = [
            (len(w), len(w[0]), b is not None) for w, b in zip(problem.weights, biases, strict=True)
        ]
        self.theta: Row = []
        for w, b in zip(exact(problem.weights), biases, strict=True):
            self.theta += [v for row in w for v in row] + (b or [])

    def layers(self, theta: Row) -> list[tuple[list[Row], Row]]:
        """Return theta as (weight rows, bias) of each layer, zeros for a missing bias."""
        values, layers = iter(theta), []
        for rows, columns, has_bias in self.shapes:
            weight = [[next(values) for _ in range(columns)] for _ in range(rows)]
            bias = [next(values) if has_bias else mpmath.mpf(0) for _ in range(rows)]
            layers.append((weight, bias))
        return layers

    def outputs(self, layers: list[tuple[list[Row], Row]], sample: int) -> Row:
        """Return A_L of one sample."""
        a: Row = self.inputs[sample]
        for (weight, bias), named, mask in zip(
            layers, self.problem.activations, self.masks, strict=True
        ):
            name, parameter = split(named)
            z = [mpmath.fdot(row, a) + b for row, b in zip(weight, bias, strict=True)]
            a = [ACTIVATIONS[name](v, parameter) for v in z]
            if mask is not None:
                a = [v * factor for v, factor in zip(a, mask[sample], strict=True)]
        return a

    def cost(self, theta: Row) -> Real:
        """Return J(theta) at the current working precision."""
        problem, layers = self.problem, self.layers(theta)
        m, n = len(self.targets), len(self.targets[0])
        name, parameter = split(problem.loss)
        total = mpmath.fsum(
            LOSSES[name](self.outputs(layers, s), self.targets[s], parameter) for s in range(m)
        )
        squares = mpmath.fsum(v**2 for weight, _ in layers for row in weight for v in row)
        samples = {"mean": m, "sum": 1, "mean_elements": m * n}[problem.reduction]
        decay = {"l2/2m": 2 * m, "l2/2": 2, "l2/m": m, "l2": 1}[problem.penalty]
        return total / samples + exact(problem.l2) * squares / decay

    def moved(self, index: int, step: Real) -> Real:
        """Return J(theta + step e_index)."""
        theta = list(self.theta)
        theta[index] += step
        return self.cost(theta)

    def central_difference(self, index: int, epsilon: Real) -> Real:
        """Return the central difference of one component."""
        return (self.moved(index, epsilon) - self.moved(index, -epsilon)) / (2 * epsilon)


def cost(problem: "Drawn", *, digits: int = 60) -> Real:
    """Return J(theta) of a problem, computed with that many digits.

    Parameters
    ----------
    problem
        Anything with the fields of `tests.networks.Drawn`; biases and masks may be None.
    digits
        The working precision. A difference of saturated units loses as many digits as the
        unit's slope is small: sigmoid(-100) has a slope of 1e-44 and wants 60 + 44.
    """
    with mpmath.workdps(digits):
        held = ExactProblem(problem)
        return held.cost(held.theta)


def central_difference(
    problem: "Drawn", index: int, epsilon: float = 1e-7, *, digits: int = 60
) -> Real:
    """Return (J(theta + epsilon e_i) - J(theta - epsilon e_i)) / 2 epsilon for i = index.

    Parameters
    ----------
    problem, digits
        As in `cost`.
    index
        The component of theta = W1, b1, ..., WL, bL in row order.
    epsilon
        The step, taken as the exact binary number that it is; theta + epsilon is not rounded.
    """
    with mpmath.workdps(digits):
        return ExactProblem(problem).central_difference(index, exact(epsilon))


def central_differences(
    problem: "Drawn",
    epsilon: float = 1e-7,
    indices: Sequence[int] | None = None,
    *,
    digits: int = 60,
) -> Row:
    """Return `central_difference` for each of the indices, for every component if None."""
    with mpmath.workdps(digits):
        held, step = ExactProblem(problem), exact(epsilon)
        chosen = range(len(held.theta)) if indices is None else indices
        return [held.central_difference(i, step) for i in chosen]


def one_sided_slopes(
    problem: "Drawn", index: int, epsilon: float = 1e-7, *, digits: int = 60
) -> tuple[Real, Real]:
    """Return (J(theta + epsilon e_i) - J) / epsilon and (J - J(theta - epsilon e_i)) / epsilon.

    Parameters
    ----------
    problem, index, epsilon, digits
        As in `central_difference`.
    """
    with mpmath.workdps(digits):
        held, step = ExactProblem(problem), exact(epsilon)
        middle = held.cost(held.theta)
        return (held.moved(index, step) - middle) / step, (middle - held.moved(index, -step)) / step


# --- single differences ----------------------------------------------------------------------


def decades(*values: float) -> int:
    """Return how many decades the farthest of the values that are not 0 is away from 1."""
    return max((math.ceil(abs(math.log10(abs(v)))) for v in values if v), default=0)


def activation_difference(
    name: str, parameter: float | None, z: float, d: float, *, extra_digits: int = 0
) -> Real:
    """Return phi(z + d) - phi(z), right to 20 digits at least.

    Parameters
    ----------
    name, parameter
        The activation; parameter None is its default.
    z, d
        Taken exactly, and so is their sum. The working precision covers their decades and a
        saturated slope as small as exp(-2 |z|); values smaller than any float come out as such.
    extra_digits
        Added to the working precision, to see that it makes no difference.
    """
    saturation = math.ceil(max(abs(z), abs(z + d)))
    with mpmath.workdps(60 + saturation + decades(z) + decades(d) + extra_digits):
        p = split(name if parameter is None else (name, parameter))[1]
        phi, logit = ACTIVATIONS[name], exact(z)
        return phi(logit + exact(d), p) - phi(logit, p)


def loss_difference(
    name: str,
    parameter: float | None,
    z_row: Sequence[float],
    d_row: Sequence[float],
    t_row: Sequence[float],
    *,
    extra_digits: int = 0,
) -> Real:
    """Return loss(z + d, t) - loss(z, t) of one sample, right to 20 digits at least.

    Parameters
    ----------
    name, parameter
        The loss; parameter None is its default.
    z_row, d_row, t_row
        Outputs, their change and the targets, each of length K and taken exactly. A difference
        that vanishes at the working precision is 0, as where sigmoid cross-entropy is even in z.
    extra_digits
        Added to the working precision, to see that it makes no difference.
    """
    spread = 2 * max(abs(z) + abs(d) for z, d in zip(z_row, d_row, strict=True))
    digits = 60 + math.ceil(spread) + extra_digits
    digits += decades(*z_row) + 2 * decades(*d_row) + decades(*t_row)  # down to d^2
    with mpmath.workdps(digits):
        p = split(name if parameter is None else (name, parameter))[1]
        logits, changes, targets = exact(z_row), exact(d_row), exact(t_row)
        moved = [z + d for z, d in zip(logits, changes, strict=True)]
        change = LOSSES[name](moved, targets, p) - LOSSES[name](logits, targets, p)
        return change if abs(change) > mpmath.mpf(10) ** (20 - digits) else mpmath.mpf(0)
