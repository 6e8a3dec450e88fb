"""Measure the error rates of gradient checkers, and print them as a Markdown table.

`python -m bench.detection` takes about an hour on two cores, `--quick` a minute or two; with
`--failures` each wrong verdict of ours is listed. Where a checker would take too long, it gets the
cases in a shuffled order up to its time cap, and the table says how many. A slip that changes
nothing on a network, nothing but the last digits, or only to what is right on a kink, is none.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.detection import nasty, wrong
from bench.detection.cases import (
    Case,
    hand_made_cases,
    invented_cases,
    pairs,
    planted_cases,
    right_cases,
)
from bench.detection.checkers import CANNOT_TELL, RIGHT, WRONG, Checker, checkers
from bench.detection.naming import Naming

GROUPS = ("right, float64", "right, float32", "wrong", "wrong, below tol")


@dataclass
class Score:
    """What one checker said."""

    checker: Checker
    verdicts: dict[str, Counter[str]] = field(
        default_factory=lambda: {group: Counter() for group in GROUPS}
    )
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def asked(self) -> int:
        """How many gradients it was shown."""
        return sum(sum(counts.values()) for counts in self.verdicts.values())

    def ask(self, case: Case, group: str) -> None:
        """Show it one; an exception is a verdict of its own kind."""
        try:
            verdict, seconds = self.checker.timed(case)
        except Exception as error:
            verdict, seconds = f"{type(error).__name__}: {error}", 0.0
        self.verdicts[group][verdict] += 1
        self.seconds += seconds
        if verdict != (RIGHT if group.startswith("right") else WRONG):
            self.failures.append(f"{group}: {case.name}: {verdict}")

    def failed(self, group: str) -> str:
        """Return `3 of 500`, and where it could not tell."""
        counts = self.verdicts[group]
        bad = counts[WRONG if group.startswith("right") else RIGHT]
        of = sum(counts.values())
        unsure, other = counts[CANNOT_TELL], of - counts[RIGHT] - counts[WRONG]
        text = f"{bad:,} of {of:,}"
        text += f" ({unsure:,} can't tell)" if unsure else ""
        return text + (f" ({other - unsure:,} failed)" if other > unsure else "")


def _group(case: Case) -> str:
    if not case.slips:
        return f"right, {case.problem.precision}"
    return "wrong" if case.effect == "above" else "wrong, below tol"


def _score(checker: Checker, cases: Sequence[tuple[Case, str]], cap: float) -> Score:
    score, start = Score(checker), time.perf_counter()
    for case, group in cases:
        if case.size <= checker.most:
            score.ask(case, group)
        if time.perf_counter() - start > cap:
            break
    return score


def _row(score: Score, naming: str) -> str:
    cells = [
        score.checker.name,
        score.checker.rule,
        *(score.failed(group) for group in GROUPS),
        naming,
        f"{score.seconds / max(score.asked, 1):.2g}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| checker | calls wrong | right float64 accused | right float32 accused | wrong passed | "
    "passed where all is below tol | slips named (pairs) | seconds a check |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def _cases(quick: bool, right: int) -> list[tuple[Case, str]]:
    """Return all cases with their groups, shuffled, so that any first part is a fair one."""
    networks = 2 if quick else None
    slips = [
        case
        for case in (*planted_cases(networks), *hand_made_cases(networks))
        if case.effect in ("above", "tolerance")
    ]
    if quick:
        slips = slips[::5]
    cases = [(case, _group(case)) for case in (*slips, *right_cases(right))]
    order = np.random.default_rng(0).permutation(len(cases))
    return [cases[k] for k in order]


def _named(cases: Sequence[Case], cap: float) -> Naming:
    naming, start = Naming(), time.perf_counter()
    for case in cases:
        naming.ask(case)
        if time.perf_counter() - start > cap:
            break
    return naming


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small part of it")
    parser.add_argument("--right", type=int, help="right gradients (default 1000; quick: 60)")
    parser.add_argument("--pairs", type=int, help="pairs of slips (default 300; quick: 10)")
    parser.add_argument("--cap", type=float, help="seconds for each checker (600; quick: 10)")
    parser.add_argument("--only", default="", help="checkers whose name holds this")
    parser.add_argument("--failures", action="store_true", help="list our wrong verdicts")
    parser.add_argument("--nasty", type=int, help="right gradients of so many nasty networks")
    parser.add_argument("--seed", type=int, default=0, help="of the nasty networks")
    parser.add_argument("--family", default="", help="nasty families whose name holds this")
    parser.add_argument("--case", default="", help="show one nasty network, FAMILY:SEED")
    parser.add_argument("--invented", type=int, help="so many invented slips on networks")
    parser.add_argument("--naming", type=int, help="diagnose so many slips, and --pairs, alone")
    given = parser.parse_args()
    if given.invented:
        return wrong.run(given.invented)
    if given.case:
        return nasty.show(given.case)
    if given.nasty:
        return nasty.run(given.nasty, given.seed, given.family)
    if given.naming:
        return _print_naming(given.naming, given.pairs or given.naming // 10, given.failures)
    cap = given.cap or (10.0 if given.quick else 600.0)
    cases = _cases(given.quick, given.right or (60 if given.quick else 1000))
    chosen = [c for c in checkers() if given.only in c.name]
    for checker in chosen:  # compiling and importing is not what is timed
        checker.timed(min(cases, key=lambda pair: pair[0].size)[0])
    # Ours without a sample answers for every case, however long it takes.
    scores = [_score(c, cases, np.inf if c.name == "fastcheck" else cap) for c in chosen]
    single = _named([case for case, group in cases if group == "wrong"], 3 * cap)
    double = _named([*pairs(given.pairs or (10 if given.quick else 300))], 3 * cap)
    unknown = _named([case for case in invented_cases() if case.effect == "above"], 3 * cap)
    _print(scores, single, double, given.failures)
    false = [*single.false, *double.false, *unknown.false]
    asked = single.asked + double.asked + unknown.asked
    print(f"\nA cause that is not so was claimed first for {len(false):,} of {asked:,}.")
    print(*(false if given.failures else ()), sep="\n  ")
    return _verdict(scores)


def _print_naming(singles: int, doubles: int, failures: bool) -> int:
    """Print how many slips are named alone, and in pairs."""
    cases = [case for case, group in _cases(False, 1) if group == "wrong"]
    for name, some in (("singles", cases[:singles]), ("pairs", [*pairs(doubles)])):
        found = _named(some, np.inf)
        print(
            f"{name}: {found.named:,} of {found.asked:,} named first ({found.rate:.1%}), "
            f"a cause that is not so first for {len(found.false):,}; "
            f"{found.seconds / found.asked:.2g} s each",
            flush=True,
        )
        print(*(found.misnamed if failures else ()), sep="\n  ")
    return 0


def _print(scores: Sequence[Score], single: Naming, double: Naming, failures: bool) -> None:
    print(HEAD)
    for score in scores:
        named = ""
        if score.checker.name == "fastcheck":
            named = f"{single.rate:.1%} of {single.asked:,} ({double.rate:.0%} of {double.asked:,})"
        print(_row(score, named))
    each = (single.seconds + double.seconds) / max(single.asked + double.asked, 1)
    print(f"\nA diagnosis takes {each:.2g} s on average.")
    if not failures:
        return
    for score in scores:
        if score.checker.ours:
            print(f"\n{score.checker.name}:", *score.failures, sep="\n  ")
    print("\nmisnamed:", *single.misnamed, *double.misnamed, sep="\n  ")


def _verdict(scores: Sequence[Score]) -> int:
    """Return 1 where the full check accused a right gradient or passed a wrong one."""
    for score in scores:
        if score.checker.name == "fastcheck":
            accused = sum(score.verdicts[g][WRONG] for g in GROUPS[:2])
            return int(accused > 0 or score.verdicts["wrong"][RIGHT] > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
