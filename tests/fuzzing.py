"""Damaged and hostile files: bytes and JSON values of good files, changed at random.

`python -m tests.fuzzing 100000 [--seed S]` reads so many and prints how each kind ended.
"""

from __future__ import annotations

import argparse
import collections
import copy
import io
import json
import random
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck import Report, backward_pass, gradcheck
from fastcheck.errors import InputError
from fastcheck.importers import read_problem, write_problem
from fastcheck.reference.example import Example, make_problem
from fastcheck.report.formats import Canvas, renderer

__all__ = ["KINDS", "Corpus", "attempt"]

PRINTED = ("text", "markdown", "junit", "github", "html")
HOSTILE: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 10**400, "", "x" * 50, "\ud800", "a\n::error::b", "\x1b[31m",
    "\u202eabc", [], {}, [[]], {"$float": []}, {"$float": "NaN"}, {"$float": "x"}, [1, 2], {"a": 1},
    "relu", ["relu"], ["elu", []], ["elu", "x"], [["huber", 1e308]],
]  # fmt: skip


class Corpus:
    """Good files of every kind, and a wrong gradient's report.

    Parameters
    ----------
    folder : Path
        Where files are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        problem = make_problem(Example(layers=(6, 4, 3), batch=4))
        wrong = backward_pass(problem.network, problem.inputs, problem.targets)
        wrong["dW1"] = wrong["dW1"] * 1.5
        report = gradcheck(problem.network, problem.inputs, problem.targets, wrong)
        self.report: dict[str, Any] = json.loads(report.with_pictures(v_curve=False).to_json())
        self.files: dict[str, bytes] = {}
        for kind in ("npz", "safetensors", "onnx"):
            file = folder / f"good.{kind}"
            write_problem(file, problem)
            self.files[kind] = file.read_bytes()
        self.gradient = folder / "good.gradient.npz"
        for kind in self.files:  # else everything would be refused
            read_problem(folder / f"good.{kind}")
        with np.load(folder / "good.npz") as arrays:
            self.arrays = dict(arrays)
        self.spec: dict[str, Any] = json.loads(str(self.arrays.pop("spec")))
        self.spec |= {"loss_scale": 1.0, "keep_prob": 1.0, "names": {"W1": "first"}}


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them flipped, replaced, inserted, repeated or cut."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at, length = rng.randrange(len(result) + 1), rng.randrange(1, 40)
        change = rng.randrange(6)
        if change == 0:
            result[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            result[at : at + 1] = bytes(b ^ (1 << rng.randrange(8)) for b in result[at : at + 1])
        elif change == 2:
            del result[at : at + length]
        elif change == 3:
            result[at:at] = rng.randbytes(length)
        elif change == 4:
            result[at : at + length] = result[:length]
        else:
            del result[at:]
    return bytes(result)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key], (*path, key))


def changed_json(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return JSON with some values replaced, left out or added."""
    result = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = list(_places(result))
        if not places:
            break
        *path, last = rng.choice(places)
        parent: Any = result
        for key in path:
            parent = parent[key]
        if rng.random() < 0.8:
            parent[last] = copy.deepcopy(rng.choice(HOSTILE))
        elif rng.random() < 0.5:
            del parent[last]
        elif isinstance(parent, dict):
            parent[rng.choice(["x", "$float", "a\nb"])] = copy.deepcopy(rng.choice(HOSTILE))
    return result


def _damaged_file(kind: str) -> Callable[[Corpus, random.Random], None]:
    def read(corpus: Corpus, rng: random.Random) -> None:
        file = corpus.folder / f"damaged.{kind}"
        file.write_bytes(changed_bytes(corpus.files[kind], rng))
        read_problem(file, **({"gradient": corpus.gradient} if kind == "onnx" else {}))

    return read


def _damaged_entry(corpus: Corpus, rng: random.Random) -> None:
    """Damage an entry of the .npz file behind a checksum that is right."""
    good = zipfile.ZipFile(io.BytesIO(corpus.files["npz"]))
    file = corpus.folder / "entry.npz"
    hit = rng.choice(good.namelist())
    with zipfile.ZipFile(file, "w") as archive:
        for name in good.namelist():
            data = good.read(name)
            archive.writestr(name, changed_bytes(data, rng) if name == hit else data)
    read_problem(file)


def _hostile_spec(corpus: Corpus, rng: random.Random) -> None:
    text = json.dumps(changed_json(corpus.spec, rng))
    file = corpus.folder / "spec.npz"
    np.savez(file, **corpus.arrays, spec=np.frombuffer(text.encode(), np.uint8))
    read_problem(file)


def _hostile_report(corpus: Corpus, rng: random.Random) -> None:
    if rng.random() < 0.7:
        text = json.dumps(changed_json(corpus.report, rng))
    else:
        text = changed_bytes(json.dumps(corpus.report).encode(), rng).decode(errors="replace")
    report = Report.from_json(text)
    for name in PRINTED:
        shown = renderer(name)(report, Canvas())
        shown.encode()
        assert name != "github" or all(line.startswith("::") for line in shown.splitlines())
        assert not {"\x1b", "\u202e"} & set(shown)


KINDS: dict[str, Callable[[Corpus, random.Random], None]] = {
    "npz": _damaged_file("npz"),
    "safetensors": _damaged_file("safetensors"),
    "onnx": _damaged_file("onnx"),
    "entry of npz": _damaged_entry,
    "spec": _hostile_spec,
    "report": _hostile_report,
}


def attempt(kind: str, corpus: Corpus, seed: int) -> str:
    """Read one damaged file; return `read` or `refused`, or raise what must not come out."""
    try:
        KINDS[kind](corpus, random.Random(seed))
    except InputError as error:
        said = str(error)
    else:
        return "read"
    assert said.isprintable()
    return "refused"


def main() -> None:
    """Read many damaged files, and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    chosen = parser.parse_args()
    ends: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(Path(folder))
        for seed in range(chosen.seed, chosen.seed + chosen.count):
            kind = random.Random(seed).choice(chosen.kind or list(KINDS))
            start = time.perf_counter()
            try:
                end = attempt(kind, corpus, seed)
            except Exception as error:
                end = f"{type(error).__name__}: {str(error)[:60]} (--seed {seed})"
            slowest = max(slowest, time.perf_counter() - start)
            ends[f"{kind}: {end}"] += 1
    for end, count in sorted(ends.items()):
        print(f"{count:8,}  {end}")
    print(f"slowest {slowest:.2g} s")


if __name__ == "__main__":
    main()
