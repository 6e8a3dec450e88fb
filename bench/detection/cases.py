"""The gradients that are checked: with planted slips, and right ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck.diagnosis.bugs import buggy_gradients
from fastcheck.diagnosis.inject import PLANTS
from fastcheck.model.network import Batch, Network
from fastcheck.rounding import gradient_rounding
from fastcheck.verdict.rules import ROUNDING_FACTOR
from tests import invented, oracle, planted
from tests.networks import Drawn, random_targets
from tests.rounding_cases import cast, draw, network_of, numpy_gradient, random_case, trained

Floats = np.ndarray[Any, np.dtype[np.float64]]

TOL = 1e-7  # fastcheck's default
SMALL_WIDTHS = (1, 3, 8, 16, 24)
SMALL = 3000  # components that a checker which goes one by one can still do
# Slips that are one and the same where they are made: an answer by either name is right.
SAME = {
    "penalty_halved": {"penalty_factor"},
    "penalty_doubled": {"penalty_factor"},
    "penalty_divided_twice": {"penalty_factor"},
    "doubled": {"factor"},
    "halved": {"factor"},
    "negated": {"factor"},
    "shifted": {"rows_shifted"},
    "row": {"rows"},
    "column": {"columns"},
    "entry": {"entries"},
    "bias_doubled": {"bias_factor"},
    "everything_doubled": {"everything_factor", "output_factor"},
    "mask_still_applied": {"mask_of_other"},
    "mask_not_scaled": {"error_factor"},
    "float32_products": {"low_precision", "rounded"},
    "rounded_float16": {"rounded"},
}


@dataclass(frozen=True)
class Problem:
    """A network, its batch, and J(θ) as the oracle has it, in float64."""

    name: str
    drawn: Drawn
    precision: str = "float64"

    @cached_property
    def _both(self) -> tuple[Network, Batch]:
        return network_of(self.drawn, self.precision)

    @property
    def network(self) -> Network:
        """The network, as fastcheck has it."""
        return self._both[0]

    @property
    def batch(self) -> Batch:
        """The batch, as fastcheck has it."""
        return self._both[1]

    @cached_property
    def cost(self) -> Callable[[Floats], float]:
        """J(θ) in NumPy float64, which all peers are given."""
        wide = cast(self.drawn, np.float64)
        return oracle.cost_of_theta(*wide.arrays, **wide.conventions)

    @cached_property
    def right(self) -> Floats:
        """The oracle's gradient, in float64."""
        return np.asarray(numpy_gradient(self.drawn, np.float64), dtype=np.float64)

    @cached_property
    def slopes(self) -> tuple[Floats, Floats]:
        """The least and the largest value of each component where units of ReLU lie on their kink.

        A backward pass may give ReLU any slope from 0 to 1 there, another one in each layer.
        Elsewhere the oracle's gradient is both.
        """
        drawn = cast(self.drawn, np.float64)
        _, Z = oracle.trace(
            drawn.weights, drawn.biases, drawn.activations, drawn.inputs, drawn.masks
        )
        if not any((z == 0.0).any() for z in Z[:-1]) or set(drawn.activations[:-1]) != {"relu"}:
            return self.right, self.right
        found = [
            oracle.pack(*_backprop_on_kinks(drawn, sides))
            for sides in itertools.product((0.0, 1.0), repeat=len(Z) - 1)
        ]
        return np.min(found, axis=0), np.max(found, axis=0)

    @cached_property
    def sigma(self) -> Floats:
        """What rounding does to each component of a right gradient."""
        return gradient_rounding(self.network, self.batch, self.precision)


def _backprop_on_kinks(drawn: Drawn, sides: Sequence[float]) -> Any:
    """Return the oracle's gradient with these slopes of ReLU at z = 0, one for each layer."""
    kept, layers = oracle.ACTIVATIONS["relu"], iter(reversed(sides))
    oracle.ACTIVATIONS["relu"] = (kept[0], lambda z, _: np.heaviside(z, next(layers)))
    try:
        return oracle.backprop(*drawn.arrays, **drawn.conventions)
    finally:
        oracle.ACTIVATIONS["relu"] = kept


@dataclass(frozen=True)
class Case:
    """A gradient to check.

    Attributes
    ----------
    problem : Problem
    gradient : ndarray, shape (N,)
        In the precision that it was computed in.
    slips : tuple of set of str
        What each slip in it may be called; empty for a right gradient.
    name : str
    """

    problem: Problem
    gradient: Any
    slips: tuple[frozenset[str], ...] = ()
    name: str = ""

    @property
    def vector(self) -> Floats:
        """The gradient in float64, shape (N,)."""
        return np.asarray(self.gradient, dtype=np.float64)

    @property
    def size(self) -> int:
        """N."""
        return int(self.gradient.size)

    @cached_property
    def effect(self) -> str:
        """How large what is wrong is: `none`, `rounding`, `kink`, `tolerance` or `above`.

        On a kink each value between the slopes is right; below tol it is forgiven.
        """
        right, given = self.problem.right, self.vector
        error = np.abs(given - right)
        if not (error > ROUNDING_FACTOR * self.problem.sigma).any():
            return "rounding" if error.any() else "none"
        allowed = TOL * (np.abs(given) + np.abs(right)) + ROUNDING_FACTOR * self.problem.sigma
        if not (error > allowed).any():
            return "tolerance"
        low, high = self.problem.slopes
        accepted = (low < high) & (given >= low - 1e-12) & (given <= high + 1e-12)
        return "above" if (error[~accepted] > allowed[~accepted]).any() else "kink"


def _drawn(seed: int, sizes: list[int], hidden: Any, loss: str, l2: float, **more: Any) -> Drawn:
    """Return a network of given sizes, everything else from a seed."""
    rng = np.random.default_rng(seed)
    m = more.get("m", 12)
    W = [rng.normal(size=(k, n)) * np.sqrt(1.6 / n) for n, k in itertools.pairwise(sizes)]
    b: list[Any] = [0.3 * rng.normal(size=k) for k in sizes[1:]]
    X: Any = rng.normal(size=(m, sizes[0])) + 0.2
    masks = None
    if "keep" in more:
        keep = more["keep"]
        masks = [(rng.random((m, k)) < keep) / keep for k in sizes[1:-1]] + [None]
    if more.get("sparse"):  # whole samples and units lie exactly on a kink
        X = np.round(np.maximum(X, 0.0)) * (rng.random(X.shape) < 0.4)
        X[:2] = 0.0
        b = [np.zeros_like(v) for v in b]
    return Drawn(
        weights=W,
        biases=b,
        activations=[*([hidden] * (len(W) - 1)), "identity"],
        loss=loss,
        l2=l2,
        penalty="l2/2m",
        reduction="mean",
        inputs=X,
        targets=random_targets(rng, loss, (m, sizes[-1])),
        masks=masks,
    )


SOFTMAX, LOGISTIC, SQUARED = "softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"
NETWORKS: dict[str, Callable[[], Any]] = {
    "shallow relu": lambda: _drawn(1, [8, 12, 4], "relu", SOFTMAX, 0.0),
    "shallow sigmoid, penalty": lambda: _drawn(2, [7, 9, 3], "sigmoid", LOGISTIC, 0.6),
    "deep tanh, penalty": lambda: _drawn(3, [6, 8, 8, 8, 8, 8, 8, 3], "tanh", SQUARED, 0.5, m=15),
    "deep leaky relu": lambda: _drawn(4, [9, 10, 10, 10, 10, 5], "leaky_relu", SOFTMAX, 0.0, m=20),
    "wide softplus, penalty": lambda: _drawn(5, [10, 60, 4], "softplus", SOFTMAX, 0.3),
    "square relu, penalty": lambda: _drawn(6, [7, 7, 7, 7], "relu", SOFTMAX, 0.4),
    "sparse relu, on kinks": lambda: _drawn(7, [12, 10, 9, 3], "relu", SOFTMAX, 0.0, sparse=True),
    "dropout gelu, penalty": lambda: _drawn(8, [8, 12, 12, 4], "gelu", SOFTMAX, 0.2, keep=0.7),
}  # fmt: skip


def planted_cases(networks: int | None = None) -> Iterator[Case]:
    """Yield every slip of the table at every layer where it changes something."""
    for name, make in itertools.islice(NETWORKS.items(), networks):
        problem = Problem(name, make())
        for slip in PLANTS.values():
            layers: list[int | None] = [] if slip.one_layer else [None]
            if slip.any_layer:
                layers += range(1, problem.network.depth + 1)
            for layer in layers:
                with np.errstate(all="ignore"):
                    wrong = buggy_gradients(slip, problem.network, problem.batch, layer)
                if np.isfinite(wrong).all():
                    names = frozenset({slip.name} | SAME.get(slip.name, set()))
                    at = "" if layer is None else f"@{layer}"
                    yield Case(problem, wrong, (names,), f"{name}: {slip.name}{at}")


def _hand_made(net: planted.Net) -> Problem:
    losses = {"softmax": SOFTMAX, "logistic": LOGISTIC, "squared": SQUARED}
    masks = None
    if net.masks is not None:
        masks = [None if mask is None else mask / net.keep for mask in net.masks]
    return Problem(
        net.name,
        Drawn(
            weights=net.W,
            biases=list(net.b),
            activations=[*([net.hidden] * (net.depth - 1)), "identity"],
            loss=losses[net.loss],
            l2=net.lam,
            penalty="l2/2m",
            reduction="mean",
            inputs=net.X,
            targets=net.Y,
            masks=masks,
        ),
    )


def hand_made_cases(networks: int | None = None) -> Iterator[Case]:
    """Yield the slips that `tests/planted.py` has typed in by hand, at every layer."""
    for net in planted.NETS[:networks]:
        problem = _hand_made(net)
        for bug, (_, names) in planted.BUGS.items():
            for layer in planted.places(net, bug):
                wrong = _flat(planted.backward(net, {bug: layer}))
                yield Case(problem, wrong, (frozenset(names),), f"{net.name}: {bug} @{layer}")


def invented_cases() -> Iterator[Case]:
    """Yield the wrong gradients of `tests/invented.py`, most of them without a cause."""
    for wrong in invented.wrong_gradients():
        yield Case(
            _hand_made(wrong.net),
            _flat(wrong.gradient),
            (wrong.causes,),
            f"{wrong.net.name}: {wrong.name}",
        )


def pairs(count: int) -> Iterator[Case]:
    """Yield pairs of slips typed in by hand, drawn at random, that both change something."""
    rng = np.random.default_rng(11)
    bugs = list(planted.BUGS)
    problems = {net.name: _hand_made(net) for net in planted.NETS}
    while count:
        net = planted.NETS[int(rng.integers(len(planted.NETS)))]
        drawn = [bugs[int(k)] for k in rng.choice(len(bugs), 2, replace=False)]
        places = [planted.places(net, bug) for bug in drawn]
        if not all(places):
            continue
        chosen = {bug: p[int(rng.integers(len(p)))] for bug, p in zip(drawn, places, strict=True)}
        with np.errstate(all="ignore"):
            both = _flat(planted.backward(net, chosen))
            alone = [_flat(planted.backward(net, {b: at})) for b, at in chosen.items()]
        right = problems[net.name].right
        # One that the other hides has no effect and can't be named.
        if not np.isfinite(both).all() or any(_close(both, one) for one in [*alone, right]):
            continue
        names = tuple(frozenset(planted.BUGS[bug][1]) for bug in chosen)
        count -= 1
        yield Case(problems[net.name], both, names, f"{net.name}: {chosen}")


def _close(a: Floats, b: Floats) -> bool:
    return bool(np.allclose(a, b, rtol=1e-6, atol=1e-9 * float(np.abs(a).max())))


def _flat(blocks: list[Any]) -> Floats:
    return np.concatenate([np.ravel(block) for block in blocks]).astype(np.float64)


def right_cases(count: int, seed: int = 0) -> Iterator[Case]:
    """Yield right gradients of random networks, half of them by a float32 backward pass.

    Every activation and loss, depth to 10, weights at scales from 1e-3 to 1e3, a third of them
    trained; three in four are small enough for checkers that go one by one.
    """
    rng = np.random.default_rng(seed)
    number = 0
    while number < count:
        precision = ("float64", "float32")[number % 2]
        with np.errstate(all="ignore"):
            drawn = (
                _small(rng, precision) if number % 8 < 6 else random_case(rng, np.dtype(precision))
            )
            gradient = numpy_gradient(drawn, np.dtype(precision))
            problem = Problem(f"random network {number}, {precision}", drawn, precision)
            usable = np.isfinite(gradient).all() and np.isfinite(problem.right).all()
        if usable and problem.right.any():
            yield Case(problem, gradient, name=problem.name)
            number += 1


def _small(rng: Any, precision: str) -> Drawn:
    layers = int(rng.integers(1, 11))
    widths = [int(w) for w in rng.choice(SMALL_WIDTHS, layers + 1)]
    drawn = draw(rng, np.dtype(precision), widths, int(rng.choice((1, 2, 7, 16))))
    return trained(drawn) if rng.random() < 0.33 else drawn
