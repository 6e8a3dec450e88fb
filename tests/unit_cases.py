"""What the tests and benches of the unit method share: from a drawn problem to its differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcheck.execution.parallel import run
from fastcheck.methods.unit.method import UnitMethod, prepare
from fastcheck.model.approximation import Approximation
from fastcheck.settings import Settings
from tests import oracle_mpmath
from tests.builders import as_network
from tests.networks import Drawn

Floats = Any


def prepared(drawn: Drawn, indices: Sequence[int] | None = None, **options: Any) -> UnitMethod:
    """Return the unit method made ready."""
    chosen = None if indices is None else np.asarray(indices, dtype=np.int64)
    return prepare(*as_network(drawn), chosen, Settings.of(**options))


def unit(drawn: Drawn, indices: Sequence[int] | None = None, **options: Any) -> Approximation:
    """Return what the unit method gives, self-check included."""
    work = prepared(drawn, indices, **options)
    return work.assemble(run(work, Settings.of(**options), ""))


def exact(drawn: Drawn, epsilon: float, *, digits: int = 100) -> Floats:
    """Return the central differences at ε, each rounded once."""
    return np.array(
        [float(v) for v in oracle_mpmath.central_differences(drawn, epsilon, digits=digits)]
    )


def blocks(drawn: Drawn) -> list[slice]:
    """Return where W1, b1, …, WL, bL lie in θ."""
    sizes = [
        a.size
        for pair in zip(drawn.weights, drawn.biases, strict=True)
        for a in pair
        if a is not None
    ]
    return [slice(a, b) for a, b in itertools.pairwise(np.cumsum([0, *sizes]))]


def worst_block(drawn: Drawn, found: Floats, true: Floats) -> float:
    """Return the largest relative difference of a block.

    What is 1e-40 of the largest component counts as 0, and so do a few roundings of it.
    """
    largest = np.abs(true).max()
    a, b = (np.where(np.abs(v) < 1e-40 * largest, 0.0, v) for v in (found, true))
    worst = 0.0
    for part in blocks(drawn):
        off = max(0.0, float(np.linalg.norm(a[part] - b[part])) - 2.0**-51 * largest)
        if off > 0.0:
            worst = max(worst, off / float(np.linalg.norm(a[part]) + np.linalg.norm(b[part])))
    return worst
