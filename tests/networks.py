"""Whole random networks as plain data: seeded builders and hypothesis strategies.

Nothing here knows fastcheck; a test turns a `Drawn` into whatever it needs. The two oracles take
one as it is: ``oracle.cost(*drawn.arrays, **drawn.conventions)``,
``oracle_mpmath.central_differences(drawn)``.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.oracle import Array, Named, split

T = TypeVar("T")

KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),  # none in its slope at the default parameter 1
    "selu": (0.0,),
    "hardtanh": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
}
"""Where an activation's slope may jump."""

PIECEWISE_LINEAR: tuple[str, ...] = ("identity", "relu", "leaky_relu", "hardtanh", "relu6")
SMOOTH: tuple[str, ...] = (
    "softplus",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "gelu_tanh",
    "softsign",
    "mish",
)

# The simplest option comes first: that is where hypothesis shrinks to.
ACTIVATIONS: tuple[Named, ...] = (
    *PIECEWISE_LINEAR,
    ("leaky_relu", 0.25),
    "elu",
    ("elu", 0.5),
    "selu",
    *SMOOTH,
)
LOSSES: tuple[Named, ...] = (
    "squared_error",
    "mean_squared_error",
    "huber",
    ("huber", 0.5),
    "softmax_cross_entropy",
    "sigmoid_cross_entropy",
)
PENALTIES = ("l2/2m", "l2/2", "l2/m", "l2")
REDUCTIONS = ("mean", "sum", "mean_elements")
L2_STRENGTHS = (0.0, 0.25, 1.5)
KEEP_PROBABILITIES = (1.0, 0.8, 0.5)


@dataclass(frozen=True)
class Drawn:
    """A network, its cost and a batch, drawn at random.

    Attributes
    ----------
    weights
        W_l of shape (n_l, n_{l-1}).
    biases
        b_l of shape (n_l,), or None for a layer without one.
    activations
        One name or (name, parameter) per layer.
    loss, l2, penalty, reduction
        The cost, as in `tests.oracle.cost`.
    inputs
        X of shape (m, n_0).
    targets
        Of shape (m, n_L): one-hot or soft rows for softmax, 0 to 1 for sigmoid, else anything.
    masks
        Dropout factors 0 or 1/keep of shape (m, n_l) on A_l, None for a layer without; or None.
    """

    weights: list[Array]
    biases: list[Array | None]
    activations: list[Named]
    loss: Named
    l2: float
    penalty: str
    reduction: str
    inputs: Array
    targets: Array
    masks: list[Array | None] | None

    @property
    def arrays(self) -> tuple[list[Array], list[Array | None], Array, Array]:
        """Return (weights, biases, inputs, targets), the oracle's positional arguments."""
        return self.weights, self.biases, self.inputs, self.targets

    @property
    def conventions(self) -> dict[str, Any]:
        """Return the oracle's keyword arguments: activations, loss, ..., masks."""
        names = ("activations", "loss", "l2", "penalty", "reduction", "masks")
        return {name: getattr(self, name) for name in names}

    @property
    def widths(self) -> list[int]:
        """Return n_0, ..., n_L."""
        return [self.inputs.shape[1], *(w.shape[0] for w in self.weights)]


class Pick(Protocol):
    """Chooses one of several options, by a seed or by hypothesis."""

    def __call__(self, options: Sequence[T], /) -> T:
        """Return one of the options."""


def random_problem(
    rng: np.random.Generator,
    *,
    activations: Sequence[Named] | Named | None = None,
    loss: Named | None = None,
    depth: int | None = None,
    max_width: int = 5,
    scale: float = 1.0,
    dtype: npt.DTypeLike = np.float64,
) -> Drawn:
    """Return a random problem; the same for the same state of the generator.

    Parameters
    ----------
    rng
        Where all choices and numbers come from.
    activations
        A list gives one per layer. One name or (name, parameter) is that of every hidden layer,
        the last being the identity. None draws each.
    loss
        A name or (name, parameter); None draws one.
    depth
        The number of layers; None draws 1 to 3, at least 2 where the hidden ones are given.
    max_width
        The largest width of a layer and of the inputs.
    scale
        The standard deviation of the weights times the root of the fan-in.
    dtype
        Of every array.
    """

    def pick(options: Sequence[T], /) -> T:
        return options[int(rng.integers(len(options)))]

    named = _activations(pick, activations, depth, loss := pick(LOSSES) if loss is None else loss)
    return _fill(pick, rng, named, loss, max_width=max_width, scale=scale, dtype=dtype)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    activations: Sequence[Named] | Named | None = None,
    loss: Named | None = None,
    depth: int | None = None,
    max_width: int = 5,
    scale: float = 1.0,
    dtype: npt.DTypeLike = np.float64,
) -> Drawn:
    """Draw a problem: its structure by hypothesis, which shrinks it, its numbers by a seed.

    Parameters
    ----------
    activations, loss, depth, max_width, scale, dtype
        As in `random_problem`.
    """

    def pick(options: Sequence[T], /) -> T:
        return draw(st.sampled_from(options))

    named = _activations(pick, activations, depth, loss := pick(LOSSES) if loss is None else loss)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return _fill(pick, rng, named, loss, max_width=max_width, scale=scale, dtype=dtype)


def _activations(
    pick: Pick, given: Sequence[Named] | Named | None, depth: int | None, loss: Named
) -> list[Named]:
    """Return the activation of each layer."""
    if isinstance(given, list):
        return given
    last: Named = "identity"
    if given is None:
        hidden = [pick(ACTIVATIONS) for _ in range((depth or pick((1, 2, 3))) - 1)]
        if not split(loss)[0].endswith("cross_entropy"):  # those are of logits
            last = pick(("identity", pick(ACTIVATIONS)))
        return [*hidden, last]
    one: Any = given
    return [one] * ((depth or pick((2, 3))) - 1) + [last]


def _fill(
    pick: Pick,
    rng: np.random.Generator,
    activations: list[Named],
    loss: Named,
    *,
    max_width: int,
    scale: float,
    dtype: npt.DTypeLike,
) -> Drawn:
    """Return a problem of these layers and this loss, everything else drawn."""
    widths = [pick(range(1, max_width + 1)) for _ in range(len(activations) + 1)]
    m = pick(range(1, 7))
    weights = [
        np.asarray(rng.normal(0, scale / np.sqrt(n), (k, n)), dtype=dtype)
        for n, k in itertools.pairwise(widths)
    ]
    biases = [np.asarray(rng.normal(0, scale / 2, n), dtype=dtype) for n in widths[1:]]
    return Drawn(
        weights=weights,
        biases=[b if pick((True, True, True, False)) else None for b in biases],
        activations=activations,
        loss=loss,
        l2=pick(L2_STRENGTHS),
        penalty=pick(PENALTIES),
        reduction=pick(REDUCTIONS),
        inputs=np.asarray(rng.normal(size=(m, widths[0])), dtype=dtype),
        targets=random_targets(rng, loss, (m, widths[-1]), soft=pick((False, True)), dtype=dtype),
        masks=_masks(rng, pick(KEEP_PROBABILITIES), m, widths[1:], dtype),
    )


def random_targets(
    rng: np.random.Generator,
    loss: Named,
    shape: tuple[int, int],
    *,
    soft: bool = False,
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """Return targets of shape (m, K) that suit the loss.

    Parameters
    ----------
    rng
        Where the numbers come from.
    loss
        A name or (name, parameter).
    shape
        (m, K).
    soft
        Probabilities instead of one-hot rows or of 0 and 1, for the cross-entropies.
    dtype
        Of the result.
    """
    m, n = shape
    name = split(loss)[0]
    values: Any
    if name == "softmax_cross_entropy":
        values = rng.dirichlet(np.ones(n), m) if soft else np.eye(n)[rng.integers(n, size=m)]
    elif name == "sigmoid_cross_entropy":
        values = rng.random(shape) if soft else rng.integers(2, size=shape)
    else:
        values = rng.normal(size=shape)
    return np.asarray(values, dtype=dtype)


def _masks(
    rng: np.random.Generator, keep: float, m: int, widths: list[int], dtype: npt.DTypeLike
) -> list[Array | None] | None:
    """Return dropout factors 0 or 1/keep on the hidden layers, None where all is kept."""
    if keep == 1.0:
        return None
    hidden: list[Array | None] = [
        np.asarray((rng.random((m, n)) < keep) / keep, dtype=dtype) for n in widths[:-1]
    ]
    return [*hidden, None]
