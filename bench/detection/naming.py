"""Whether the diagnosis calls a planted slip by its name."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from bench.detection.cases import Case
from fastcheck.diagnosis.bugs import BUGS, buggy_gradients
from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.inject import PLANTS
from fastcheck.execution import parallel
from fastcheck.execution.blas import one_blas_thread
from fastcheck.methods.table import preparation
from fastcheck.settings import Settings
from fastcheck.verdict.verdict import evaluate
from tests.invented import PLACES


@dataclass
class Naming:
    """How many of some gradients were diagnosed rightly."""

    asked: int = 0
    named: int = 0
    seconds: float = 0.0
    misnamed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The share that was."""
        return self.named / max(self.asked, 1)

    def ask(self, case: Case) -> None:
        """Diagnose one gradient; of several slips all must be among the first so many answers."""
        start = time.perf_counter()
        answers = _answers(case)
        self.seconds += time.perf_counter() - start
        self.asked += 1
        first = answers[0][0] if answers else "unknown"
        told = first in PLACES or any(_is_told(first, names) for names in case.slips)
        if not told and (len(case.slips) > 1 or not _same(case, first, answers[0][1])):
            self.false.append(f"{case.name} -> {first}")
        if _matches(case, answers):
            self.named += 1
        else:
            self.misnamed.append(f"{case.name} -> {', '.join(n for n, _ in answers) or 'nothing'}")


def _answers(case: Case) -> list[tuple[str, tuple[int, ...]]]:
    """Return the slips that the diagnosis names, and their layers."""
    problem, settings = case.problem, Settings.of(jobs=1)
    with one_blas_thread():
        prepared = preparation("unit")(problem.network, problem.batch, None, settings)
        approximation = prepared.assemble(parallel.run(prepared, settings, "differences"))
        verdict = evaluate(
            problem.network.order, case.vector, approximation, lambda: problem.sigma, settings
        )
        found = diagnose(
            problem.network, problem.batch, case.vector, approximation, verdict, "float64"
        )
    return [(finding.slip, finding.layers) for finding in found.findings]


def _is_told(first: str, names: Collection[str]) -> bool:
    """Whether a slip is one of some, or the factor that it makes with another on the same part."""
    part = BUGS[first].part
    return first in names or (part != "" and any(BUGS[name].part == part for name in names))


def _matches(case: Case, answers: list[tuple[str, tuple[int, ...]]]) -> bool:
    if len(case.slips) == 1:
        first = answers[:1]
        return any(name in case.slips[0] or _same(case, name, at) for name, at in first)
    if answers and all(_is_told(answers[0][0], names) for names in case.slips):
        return True  # two factors on one part are their product
    left = [name for name, _ in answers[: len(case.slips)]]
    for names in case.slips:
        found = next((name for name in left if name in names), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same(case: Case, name: str, layers: tuple[int, ...]) -> bool:
    """Whether another slip, made where the diagnosis says, gives this very gradient."""
    slip = PLANTS.get(name)
    if slip is None or len(layers) > 1:
        return False
    problem = case.problem
    layer = layers[0] if layers and slip.any_layer else None
    if layer is not None:  # what goes wrong on the way back is told of the layer that it comes to
        layer += "error_before" in slip.steps
    other = buggy_gradients(slip, problem.network, problem.batch, layer)
    size = float(np.abs(case.vector).max())
    return bool(np.allclose(other, case.vector, rtol=1e-9, atol=1e-13 * size))
