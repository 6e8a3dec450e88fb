"""Invented wrong gradients: each is to be caught, the right blocks named, no cause that is not so.

`python -m bench.detection --invented 500` plants the slips of `tests/nasty/slips.py` on ordinary
networks, and prints those that pass, whose blocks are other ones, and the first cause of each.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

import fastcheck
from tests.nasty.network import Array, Gradient, Nasty
from tests.nasty.slipped_networks import NETWORKS
from tests.nasty.slips import SLIPS, Slip, planted
from tests.nasty.tape import backward
from tests.nasty_checks import network_of, owners

TOL = 1e-7
# What is off by less than this many tolerances is left out: it is at the edge.
CLEARLY = 5.0
NOISE = 1e-12  # of a block's largest component


@dataclass(frozen=True)
class Wrong:
    """A wrong gradient, and which blocks it makes wrong.

    Attributes
    ----------
    name : str
        Network, slip and layer.
    net : Nasty
    slip : str
    layer : int
        0 for all of them.
    gradient : Gradient
    blocks : tuple of str
        Those that are clearly off.
    unclear : tuple of str
        Those that are off by about the tolerance.
    """

    name: str
    net: Nasty
    slip: str
    layer: int
    gradient: Gradient
    blocks: tuple[str, ...]
    unclear: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """What was said of a wrong gradient.

    Attributes
    ----------
    name, slip : str
    status : str
    missing, extra : tuple of str
        Wrong blocks that are not named, and right ones that are.
    cause, sentence : str
        The first answer.
    """

    name: str
    slip: str
    status: str
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    cause: str
    sentence: str


def _off(given: Array, right: Array) -> float:
    """Return by how many tolerances the worst component is off."""
    error = np.abs(given - right)
    allowed = TOL * (np.abs(given) + np.abs(right)) + NOISE * np.abs(right).max(initial=0.0)
    return float((error / np.maximum(allowed, 1e-300)).max())


def wrong_of(name: str, net: Nasty, slip: Slip) -> Iterator[Wrong]:
    """Yield the wrong gradients that a slip gives on a network."""
    right = backward(net)
    for layer, gradient in planted(net, slip):
        off = {}
        for l, (given, true) in enumerate(zip(gradient, right, strict=True), start=1):
            for kind, a, b in zip("Wb", given, true, strict=True):
                if a is not None and b is not None:
                    off[f"d{kind}{l}"] = _off(a, b)
        if not np.isfinite(list(off.values())).all() or max(off.values()) <= CLEARLY:
            continue
        blocks = tuple(block for block, times in off.items() if times > CLEARLY)
        unclear = tuple(block for block, times in off.items() if 0.2 < times <= CLEARLY)
        yield Wrong(
            f"{name}: {slip.name} @{layer}", net, slip.name, layer, gradient, blocks, unclear
        )


def ask(wrong: Wrong, **settings: object) -> Said:
    """Return what fastcheck says of one."""
    net, options = wrong.net, {"jobs": 1, **settings}
    report = fastcheck.gradcheck(
        network_of(net), net.inputs, net.targets, owners(wrong.gradient, "rows"), **options  # type: ignore[arg-type]
    )  # fmt: skip
    named = {block.name for block in report.blocks if block.status == "wrong"}
    findings = report.diagnosis.get("findings", [])
    first = findings[0] if findings else {"slip": "", "sentence": ""}
    return Said(
        wrong.name,
        wrong.slip,
        report.status,
        tuple(b for b in wrong.blocks if b not in named),
        tuple(b for b in named if b not in (*wrong.blocks, *wrong.unclear)),
        first["slip"],
        first["sentence"],
    )


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
