"""Right and wrong gradients of functions, and what `gradcheck_function` says of them.

`python -m bench.functions [points]` draws so many θ for each function of `examples/functions`, in
float64, float32, float32 returned as a float, and with noise; and plants every slip.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck import gradcheck_function

sys.path.insert(0, str(Path(__file__).parent.parent))

NOISE = 1e-9
SLIP_POINTS = 2


def functions() -> Iterator[tuple[str, Any]]:
    """Yield the functions of the examples."""
    names = importlib.import_module("examples.functions").NAMES
    for name in names:
        yield name, importlib.import_module(f"examples.functions.{name}")


def mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree with every leaf changed."""
    if isinstance(tree, dict):
        return {name: mapped(change, part) for name, part in tree.items()}
    if isinstance(tree, list):
        return [mapped(change, part) for part in tree]
    return change(tree)


def narrow(tree: Any) -> Any:
    """Return a tree in float32."""
    return mapped(lambda leaf: np.asarray(leaf, np.float32), tree)


def kinds(module: Any, seed: int) -> dict[str, tuple[Any, Any, Any]]:
    """Return f, gradient and a change of θ for each precision."""
    random = np.random.default_rng(seed)

    def noisy(theta: Any) -> float:
        return float(module.f(theta)) * (1.0 + NOISE * random.normal())

    def as_float(theta: Any) -> float:
        return float(module.f(narrow(theta)))

    def from_narrow(theta: Any, slip: str = "") -> Any:
        return mapped(np.float64, module.gradient(narrow(theta), slip))

    return {
        "float64": (module.f, module.gradient, lambda theta: theta),
        "float32": (module.f, module.gradient, narrow),
        "float32 as float": (as_float, from_narrow, lambda theta: theta),
        "noise 1e-9": (noisy, module.gradient, lambda theta: theta),
    }


def right_ones(points: int) -> dict[tuple[str, str], Counter[str]]:
    """Return the statuses of right gradients, by function and kind."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for name, module in functions():
        for seed in range(points):
            theta = module.draw(np.random.default_rng([seed, 11]))
            for kind, (f, gradient, change) in kinds(module, seed).items():
                report = gradcheck_function(f, gradient, change(theta), seed=seed)
                found.setdefault((name, kind), Counter())[report.status] += 1
                if report.status == "wrong":
                    print("ACCUSED", name, kind, seed, report, sep="\n")
    return found


def true_errors(module: Any, theta: Any, slip: str) -> dict[int, float]:
    """Return how far off each block is, relative to the right one, in float64."""
    right, wrong = (leaves(module.gradient(theta, s)) for s in ("", slip))
    return {
        k: float(np.linalg.norm(np.subtract(b, a)) / max(float(np.linalg.norm(a)), 1e-300))
        for k, (a, b) in enumerate(zip(right, wrong, strict=True))
    }


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree in order."""
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return [tree] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def slips(points: int = SLIP_POINTS) -> Counter[str]:
    """Return how often slips were caught, and how often not though above the resolution."""
    found: Counter[str] = Counter()
    for name, module in functions():
        for slip in module.SLIPS:
            for seed in range(points):
                theta = module.draw(np.random.default_rng([seed, 12]))
                errors = true_errors(module, theta, slip)
                for kind, (f, gradient, change) in kinds(module, seed).items():
                    report = gradcheck_function(
                        f, lambda t, g=gradient, s=slip: g(t, s), change(theta), seed=seed
                    )
                    found[judged(report, errors, f"{name}: {slip} ({kind})")] += 1
    return found


def judged(report: Any, errors: dict[int, float], title: str) -> str:
    """Return whether a verdict on a slip is right."""
    wrong = {k for k, b in enumerate(report.blocks) if b.verdict == "wrong"}
    accused = [k for k in wrong if errors[k] < 1e-9]
    if accused:
        print("right block accused", title, [report.blocks[k].name for k in accused], report)
        return "right block accused"
    if report.status == "wrong":
        return "wrong"
    for k, block in enumerate(report.blocks):
        if block.verdict == "agree" and errors[k] > (block.resolution or 0.0):
            print("PASSED ABOVE RESOLUTION", title, block.name, errors[k], block.resolution)
            return "passed above its resolution"
    print(report.status, title, errors, [b.resolution for b in report.blocks])
    return str(report.status)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    table = right_ones(count)
    for key, statuses in table.items():
        print(*key, dict(statuses))
    for kind in ("float64", "float32", "float32 as float", "noise 1e-9"):
        total: Counter[str] = sum((c for (_, k), c in table.items() if k == kind), Counter())
        print("right gradients,", kind, dict(total))
    print("slips", dict(slips()))
