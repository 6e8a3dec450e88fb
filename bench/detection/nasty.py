"""Right gradients of nasty networks, in processes: who is accused, and where nobody can tell.

`python -m bench.detection --nasty 10000 --seed 1` draws so many by backward passes that share
nothing with fastcheck, and prints a `family:seed` for each that is not passed; `--case
family:seed` shows one of them.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from fastcheck.errors import near_names
from tests.nasty.cases import FAMILIES, draw, own_error
from tests.nasty_checks import check, verdict

VERDICTS = ("agree", "cannot tell", "wrong", "refused", "error")
CHUNK = 25  # cases a message


@dataclass(frozen=True)
class Answer:
    """What was said of one case.

    Attributes
    ----------
    name, family, description : str
    precision, method : str
    default_step : bool
        Whether ε was the default one.
    coarse : bool
        Whether some activation was written in a form that loses digits.
    verdict : str
    own : tuple of float
        By how much the gradient itself is off, a component and a block; where it is accused.
    """

    name: str
    family: str
    description: str
    precision: str
    method: str
    default_step: bool
    coarse: bool
    verdict: str
    own: tuple[float, float] = (0.0, 0.0)

    @property
    def kind(self) -> str:
        """One of `VERDICTS`."""
        if self.verdict in VERDICTS:
            return self.verdict
        return "refused" if self.verdict.startswith("refused") else "error"


def answers(names: Sequence[tuple[str, int]]) -> list[Answer]:
    """Return what is said of some cases; those that overflow are left out."""
    found = []
    for family, seed in names:
        case = draw(family, seed)
        if case is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said = verdict(case)
        found.append(
            Answer(
                case.name,
                family,
                case.describe(),
                case.precision,
                case.method,
                case.epsilon == 1e-7,
                case.coarse,
                said,
                (0.0, 0.0) if said == "agree" else own_error(case),
            )
        )
    return found


def _names(count: int, seed: int, families: Sequence[str]) -> list[tuple[str, int]]:
    """Return family and seed of each, the families in turn; no two seeds share a case."""
    first = seed * 1_000_000
    return [(families[k % len(families)], first + k // len(families)) for k in range(count)]


def _asked(names: Sequence[tuple[str, int]]) -> Iterable[Answer]:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    chunks = [names[k : k + CHUNK] for k in range(0, len(names), CHUNK)]
    workers = min(len(os.sched_getaffinity(0)), len(chunks))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(answers, chunks):
            yield from found


def _table(title: str, found: Sequence[Answer], key: Callable[[Answer], str]) -> None:
    counts: dict[str, Counter[str]] = {}
    for answer in found:
        counts.setdefault(key(answer), Counter())[answer.kind] += 1
    print(f"\n| {title} | asked | {' | '.join(VERDICTS)} |")
    print(f"| --- | ---: |{' ---: |' * len(VERDICTS)}")
    for name, count in sorted(counts.items()):
        cells = " | ".join(f"{count[verdict]:,}" for verdict in VERDICTS)
        print(f"| {name} | {sum(count.values()):,} | {cells} |")


def _report(answer: Answer) -> None:
    """Print one that was not passed, as soon as it is known."""
    unsure = answer.kind == "cannot tell" and answer.precision == "float64" and answer.default_step
    if answer.kind in ("wrong", "refused", "error") or unsure:
        coarse = " (coarse)" if answer.coarse else ""
        print(f"{answer.verdict}: --case '{answer.name}'{coarse}")
        print(f"  own error {answer.own[0]:.1e}, of a block {answer.own[1]:.1e}")
        print(f"  {answer.description}\n", flush=True)


def run(count: int, seed: int, family: str = "") -> int:
    """Ask about so many, print the counts and each that was not passed; 1 where one is accused."""
    families = [name for name in FAMILIES if family in name]
    if not families:
        print(near_names(family, FAMILIES))
        return 2
    found = []
    for answer in _asked(_names(count, seed, families)):
        found.append(answer)
        _report(answer)
    print(f"{len(found):,} right gradients asked, {count - len(found):,} drawn ones overflow.")
    _table("precision", found, lambda a: a.precision)
    _table("method", found, lambda a: f"{a.method}{'' if a.default_step else ', other ε'}")
    _table("family", found, lambda a: a.family)
    _table("formulas", found, lambda a: "coarse" if a.coarse else "plain")
    plain = [a for a in found if a.precision == "float64" and a.default_step]
    for method in ("unit", "textbook"):
        here = [a for a in plain if a.method == method]
        unsure = sum(a.kind == "cannot tell" for a in here)
        print(
            f"\nfloat64 at the default ε, {method}: {unsure} of {len(here):,} cannot be told",
            end="",
        )
        print(f" ({unsure / max(len(here), 1):.2%})")
    return int(any(a.kind in ("wrong", "error") for a in found))


def show(name: str) -> int:
    """Print one case and the report on it."""
    family, _, seed = name.rpartition(":")
    case = draw(family, int(seed))
    if case is None:
        print("its computation overflows")
        return 2
    print(case.describe(), "\n")
    report = check(case)
    print(report)
    return int(report.status == "wrong")
