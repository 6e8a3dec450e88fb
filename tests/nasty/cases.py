"""Cases: a nasty network, a right gradient of it, and how it is to be checked.

A case is told by its family and its seed; `draw(family, seed)` makes the same one again.
"""

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.nasty.families import RANDOM, Rng, chance, pick
from tests.nasty.network import Gradient, Nasty
from tests.nasty.styles import SLOW, STYLES, Way
from tests.nasty.targeted import TARGETED

FAMILIES = {**RANDOM, **TARGETED}
PRECISIONS = ("float64", "float64", "float64", "float32", "float32", "float16", "bfloat16")
VECTORISED = ("rows", "columns", "samples", "einsum", "loops", "scalars")
TEXTBOOK_WORK = 200_000  # components times samples times weights, that its loops are given
# Families whose faults show in one precision, or with one method.
FIXED_PRECISIONS = {
    "equal samples": ("float32", "float32", "float16", "float64"),
    "large units": ("float32", "float16", "float64"),
    "curved": ("float64",),
    "raw features": ("float64", "float64", "float32"),
    "tiny residuals": ("float64", "float64", "float32"),
    "fitted": ("float64", "float32", "float32", "float16", "bfloat16"),
}


@dataclass(frozen=True)
class Case:
    """A right gradient and how it is to be checked.

    Attributes
    ----------
    family : str
    seed : int
    net : Nasty
        Its numbers are exact in `handed`.
    way : Way
    style : str
    gradient : Gradient
    precision : str
        What the gradient was computed in.
    handed : str
        The dtype in which the network is given: other than the precision where it is cast.
    layout : str
    method : str
    epsilon : float
    """

    family: str
    seed: int
    net: Nasty
    way: Way
    style: str
    gradient: Gradient
    precision: str
    handed: str
    layout: str
    method: str
    epsilon: float

    @property
    def name(self) -> str:
        """`family:seed`, which draws it again."""
        return f"{self.family}:{self.seed}"

    @property
    def coarse(self) -> bool:
        """Whether some activation is written in a form that loses digits."""
        return any(self.way.form(self.net, l).coarse for l in range(self.net.depth))

    def describe(self) -> str:
        """Return what it is, in one line."""
        net, way = self.net, self.way
        hidden = " ".join(f"{name}({p:g})" if p else name for name, p in net.activations)
        more = f", l2={net.l2:.2g} {net.penalty}" if net.l2 else ""
        more += ", dropout" if net.masks else ""
        more += "" if net.loss_scale == 1 else f", loss_scale={net.loss_scale}"
        handed = "" if self.handed == self.precision else f" (network in {self.handed})"
        return (
            f"{'-'.join(map(str, net.sizes))} {hidden}, {net.loss[0]}({net.loss[1]:g}) "
            f"{net.reduction}, m={net.m}{more}; {self.style} in {self.precision}{handed}, "
            f"forms {way.forms}/{way.loss_form}, slope {way.kink:g} on kinks"
            f"{', 1/m last' if way.divide_last else ''}; {self.layout}, {self.method}, "
            f"epsilon={self.epsilon:g}"
        )


def finite(gradient: Gradient) -> bool:
    """Whether all of it is."""
    return all(np.isfinite(v).all() for pair in gradient for v in pair if v is not None)


def draw(family: str, seed: int) -> Case | None:
    """Draw a case; None where the computation overflows or the precision can't hold the numbers."""
    rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
    with np.errstate(all="ignore"):
        net = FAMILIES[family](rng)
        return _complete(rng, family, seed, net)


def _style(rng: Rng, net: Nasty, precision: str) -> str:
    if precision == "bfloat16":
        return "brain"
    work = net.m * sum(W.size for W in net.weights)
    names = [s for s in VECTORISED if work <= SLOW.get(s, work)]
    if precision != "float64":
        names += ["mixed"]
    if precision == "float32":
        names += ["single products"]
    return str(pick(rng, names))


def _method(rng: Rng, family: str, net: Nasty) -> tuple[str, float]:
    size = sum(W.size for W in net.weights)
    epsilon = 1e-7
    if chance(rng, 0.6 if family == "curved" else 0.12):
        epsilon = float(10.0 ** rng.uniform(-5, -2))
    share = 0.5 if family in ("curved", "zero rows") else 0.15
    textbook = size * size * net.m <= TEXTBOOK_WORK * 10 and chance(rng, share)
    return ("textbook" if textbook else "unit"), epsilon


def _complete(rng: Rng, family: str, seed: int, net: Nasty) -> Case | None:
    precision = str(pick(rng, FIXED_PRECISIONS.get(family, PRECISIONS)))
    style = _style(rng, net, precision)
    handed = "float32" if precision == "bfloat16" else precision
    if style == "single products" or (precision != "float64" and chance(rng, 0.15)):
        handed = "float64"
    net = net.rounded("bfloat16" if precision == "bfloat16" and chance(rng, 0.8) else handed)
    way = Way(
        dtype="float32" if precision == "bfloat16" else precision,
        forms=tuple(int(k) for k in rng.integers(6, size=3)),
        loss_form=int(rng.integers(3)),
        kink=float(pick(rng, (0.0, 0.5, 1.0))),
        divide_last=chance(rng, 0.5),
    )
    method, epsilon = _method(rng, family, net)
    layout = str(pick(rng, ("rows", "rows", "course", "keras")))
    if not net.finite or not suits(net):
        return None
    gradient = STYLES[style](net, way)
    if not finite(gradient):
        return None
    return Case(
        family, seed, net, way, style, gradient, precision, handed, layout, method, epsilon
    )  # fmt: skip


def suits(net: Nasty) -> bool:
    """Whether rounding left the targets what the loss takes."""
    T: Any = net.targets
    if net.loss[0] == "softmax_cross_entropy":
        return bool((np.abs(T.sum(axis=1) - 1.0) <= 1e-3).all())
    return True


def own_error(case: Case) -> tuple[float, float]:
    """Return how far a case's gradient is from the same one in extended precision.

    Returns
    -------
    tuple of float
        The largest relative error of a component, and of a block by its norm. Units within
        rounding of a kink may count on the other side there.
    """
    wide = replace(case.way, dtype="longdouble")
    with np.errstate(all="ignore"):
        exact = STYLES["rows"](case.net, wide)
    worst, blocks = 0.0, 0.0
    for given, right in zip(case.gradient, exact, strict=True):
        for a, b in zip(given, right, strict=True):
            if a is None:
                continue
            off = np.abs(np.asarray(a, dtype="longdouble") - b)
            total = np.abs(a) + np.abs(b)
            worst = max(worst, float((off / np.where(total > 0, total, 1)).max()))
            norms = np.linalg.norm(total.astype(float))
            blocks = max(blocks, float(np.linalg.norm(off.astype(float)) / (norms or 1.0)))
    return worst, blocks
