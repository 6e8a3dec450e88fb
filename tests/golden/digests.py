"""What is kept of each problem: digests for the same machine, values for any other."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding

from fastcheck import Report, numerical_gradient
from tests.golden.problems import CASES, FUNCTIONS

FILE = Path(__file__).parent / "digests.json"
# Who ran it, and sentences: neither is a result.
NOT_RESULTS = {
    "assumes",
    "command",
    "consequences",
    "description",
    "equal",
    "explanation",
    "facts",
    "notes",
    "reason",
    "run",
    "self_check",
    "sentence",
    "training",
    "unexplained",
}
RELATIVE = 1e-13  # what another processor's rounding may change
NOISES = 8.0  # times the method's own noise, for the textbook's differences

Entry = dict[str, Any]


def machine() -> dict[str, str]:
    """Return what has to be the same for the same bits."""
    features = binding.get_host_cpu_features().flatten()
    return {
        "processor": binding.get_host_cpu_name(),
        "features": _digest(features.encode()),
        "libc": " ".join(platform.libc_ver()),
        **{package: version(package) for package in ("numba", "numpy", "scipy")},
    }


def names() -> list[str]:
    """Return the names of all problems."""
    return [*CASES, *FUNCTIONS]


def entry_of(name: str) -> Entry:
    """Compute a problem's entry."""
    report = report_of(name)
    entry = {"report": _digest(report_text(report).encode()), "statuses": statuses(report)}
    if name not in CASES:
        return entry
    case = CASES[name]
    values = numerical_gradient(case.network, *case.batches, **case.settings)
    return {
        "gradient": _digest(values.tobytes()),
        **entry,
        "noise": report.method.noise,
        "projections": [float.hex(v) for v in projections(values)],
    }


def report_of(name: str) -> Report:
    """Make a problem's report."""
    return CASES[name].report() if name in CASES else FUNCTIONS[name]()


def report_text(report: Report) -> str:
    """Return a report's results as JSON, without run facts and prose."""
    return json.dumps(_results(json.loads(report.to_json())), ensure_ascii=False, indent=1)


def _results(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _results(v) for k, v in sorted(value.items()) if k not in NOT_RESULTS}
    return [_results(v) for v in value] if isinstance(value, list) else value


def statuses(report: Report) -> str:
    """Return the statuses of the whole and the blocks and what was diagnosed, for a reader."""
    blocks = [f"{block.name} {block.status}" for block in report.blocks]
    found = [
        f"{finding['slip']}@{','.join(map(str, finding['layers']))}"
        for finding in report.diagnosis.get("findings", ())
    ]
    return "; ".join([report.status, ", ".join(blocks), *found])


def projections(values: Any) -> list[float]:
    """Return the norm of a gradient and three sums with weights between −1 and 1."""
    known = np.nan_to_num(values)
    return [float(np.linalg.norm(known)), *(float(known @ w) for w in _weights(known.size))]


def _weights(size: int) -> Any:
    """Return three rows of weights that look random; integers, the same everywhere."""
    steps = np.arange(1, size + 1, dtype=np.uint64)
    rows = [steps * np.uint64(factor) % np.uint64(4093) for factor in (1597, 2584, 3571)]
    return np.array(rows, dtype=np.float64) / 2046.0 - 1.0


def near(known: Entry, found: Entry, size: int) -> bool:
    """Whether a gradient's values are those of another machine, but for rounding."""
    a, b = ([float.fromhex(v) for v in entry["projections"]] for entry in (known, found))
    noise = NOISES * float(known["noise"]) * np.sqrt(size)
    # A sum with weights up to 1 can cancel: its rounding is that of the gradient's norm.
    allowed = RELATIVE * a[0] * np.array([1.0, *[np.sqrt(size)] * 3]) + noise
    return bool((np.abs(np.subtract(a, b)) <= allowed).all())


def document() -> str:
    """Compute the whole file."""
    entries = {name: entry_of(name) for name in names()}
    return json.dumps({"machine": machine(), "problems": entries}, indent=1, ensure_ascii=False)


def stored() -> dict[str, Any]:
    """Read the file."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
