"""Invented wrong gradients: each is to be caught, the right blocks named, no cause that is not so.

`python -m bench.detection --invented 500` plants the slips of `tests/nasty/slips.py` on ordinary
networks, and prints those that pass, whose blocks are other ones, and the first cause of each.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from tests.nasty.slipped_networks import NETWORKS
from tests.nasty.slips import SLIPS
from tests.nasty.wrong import wrong_of
from tests.nasty_checks import Said, ask


def _answers(task: tuple[str, int]) -> list[Said]:
    name, number = task
    return [ask(wrong) for wrong in wrong_of(name, NETWORKS[name](), SLIPS[number])]


def run(count: int) -> int:
    """Ask about so many (slip, network) and print what was said; 1 where one passes."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    tasks = [(name, k) for k in range(len(SLIPS)) for name in NETWORKS]
    order = np.random.default_rng(0).permutation(len(tasks))[:count]
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = []
        for part in pool.map(_answers, [tasks[k] for k in order], chunksize=4):
            found += part
            _report(part)
    return _print(found)


def _report(part: Sequence[Said]) -> None:
    """Print those that pass, or whose blocks are other ones, as soon as it is known."""
    for said in part:
        if said.status != "wrong":
            print(f"{said.status}: {said.name} {said.missing}", flush=True)
        elif said.missing or said.extra:
            print(f"blocks: {said.name}: not named {said.missing}, right {said.extra}", flush=True)


def _print(found: Sequence[Said]) -> int:
    counts = Counter(said.status for said in found)
    print(
        f"{len(found):,} invented wrong gradients of {len({s.slip for s in found})} kinds:", counts
    )
    print("\nfirst causes:")
    causes: dict[tuple[str, str], list[Said]] = {}
    for said in found:
        causes.setdefault((said.slip, said.cause), []).append(said)
    for (slip, cause), group in sorted(causes.items()):
        print(f"  {slip}: {cause or 'none'} ({len(group)}): {group[0].name}: {group[0].sentence}")
    return int(counts["agree"] > 0)
