"""Layers with and without slips, and what `gradcheck_layer` and others say of them.

`python -m bench.layers [seeds]` checks every layer of `examples/layers` right and with every slip,
in float64, float32, float16 and bfloat16: there inputs, outputs and gradients are bfloat16, and
float32 is computed in, as kernels do. Beside a reference, `gradcheck_against` judges the gradient
in bfloat16 by that of the right pass in float64; the baseline is a right pass in float16
arithmetic, stored in bfloat16. The peers check the same passes: `torch.autograd.gradcheck` (slow
and fast mode), JAX's `check_vjp`, the course's comparison of whole numerical arrays (cs231n:
`eval_numerical_gradient_array` and its relative error), and `allclose` with the tolerances of
released libraries beside the right gradient.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from fastcheck import InputError, Report, gradcheck_against, gradcheck_layer

sys.path.insert(0, str(Path(__file__).parent.parent))

Inputs = dict[str, Any]
PRECISIONS = ("float64", "float32", "float16", "bfloat16")
BESIDE = "fastcheck beside a reference, bfloat16"
ONLY_BFLOAT16 = "fastcheck, forward in bfloat16 alone"
NO_HALF = ("inverse", "cholesky")  # NumPy has no linear algebra in float16
STEP = 1e-5  # cs231n
COURSE_LIMIT = 1e-6
# rtol and atol of tests in the libraries (November 2026; docs/benchmarks.md has the sources).
TOLERANCES = {
    "allclose, Liger FLCE sum, bf16": (50.0, 5.0),
    "allclose, Liger SwiGLU, bf16": (1e-2, 1e4),
    "allclose, llm.c on CPU, fp32": (0.0, 2e-2),
    "allclose, JAX Pallas attention": (5e-2, 5e-2),
    "allclose, mamba scan, bf16": (3e-2, 5e-2),
}


@dataclass
class Row:
    """What one checker said: of right layers, and of slips.

    Attributes
    ----------
    right, slips : Counter of str
        `agree`, `cannot tell`, `wrong`, `not run`.
    seconds : float
    placed : int
        Slips whose inputs were named exactly.
    """

    right: Counter[str] = field(default_factory=Counter)
    slips: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    placed: int = 0


def cast(inputs: Inputs, dtype: str) -> Inputs:
    """Return inputs in a precision; integers stay."""
    kind = bfloat16 if dtype == "bfloat16" else dtype
    real = [n for n, v in inputs.items() if v.dtype.kind == "f" or v.dtype == bfloat16]
    return {n: v.astype(kind) if n in real else v for n, v in inputs.items()}


def in_bfloat16(function: Callable[..., Any], *, alone: bool = False) -> Callable[..., Any]:
    """Return a pass that computes bfloat16 in float32 and rounds what it returns.

    Parameters
    ----------
    function : callable
    alone : bool
        Whether it does so with inputs in float64 and float32, too, as a kernel for bfloat16 alone.
    """

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        narrow = getattr(value, "dtype", None) == bfloat16
        return value.astype(np.float32) if narrow else value

    def call(*arguments: Any) -> Any:
        flat = [a for given in arguments for a in parts(given)]
        narrow = alone or any(getattr(a, "dtype", None) == bfloat16 for a in flat)
        made = function(*map(wide, arguments))
        if not narrow:
            return made
        rounded = tuple(None if m is None else np.asarray(m).astype(bfloat16) for m in parts(made))
        return rounded if isinstance(made, tuple) else rounded[0]

    return call


def cases(seeds: int) -> Iterator[tuple[str, str, Any, Any, Inputs, int]]:
    """Yield name, slip (`""` for the right one), the right and the tried layer, inputs and seed."""
    from examples.layers import NAMES, module, planted

    for name in NAMES:
        right = module(name)
        for seed in range(seeds):
            for slip in ("", *right.SLIPS):
                tried = planted(name, slip) if slip else right
                yield name, slip, right, tried, right.inputs(seed), seed


def parts(values: Any) -> tuple[Any, ...]:
    """Return a tuple of one or of several."""
    return values if isinstance(values, tuple) else (values,)


def douts(right: Any, inputs: Inputs, seed: int) -> Any:
    """Return a random dout in the form of the outputs."""
    random = np.random.default_rng([seed, 1])
    made = tuple(random.normal(size=np.shape(o)) for o in parts(right.forward(*inputs.values())))
    return made if len(made) > 1 else made[0]


def truly_wrong(right: Any, tried: Any, inputs: Inputs, seed: int) -> set[str]:
    """Return the inputs whose gradient the slip changes."""
    dout = douts(right, inputs, seed)
    pairs = zip(
        inputs,
        parts(right.backward(dout, *inputs.values())),
        parts(tried.backward(dout, *inputs.values())),
        strict=True,
    )
    return {
        n for n, a, b in pairs
        if a is not None and (np.shape(a) != np.shape(b) or np.abs(a - b).max() > 1e-9)
    }  # fmt: skip


def ours(dtype: str) -> Callable[..., tuple[str, set[str]]]:
    """Return a check by `gradcheck_layer` in a precision: status, and the inputs it names."""

    def check(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
        forward, backward = right.forward, tried.backward
        if dtype == "bfloat16":
            forward, backward = in_bfloat16(forward), in_bfloat16(backward)
        return named(gradcheck_layer(forward, backward, cast(inputs, dtype), seed=seed))

    return check


def named(report: Report) -> tuple[str, set[str]]:
    """Return the status, and the inputs that are wrong."""
    return report.status, {b.parameter for b in report.blocks if b.verdict == "wrong"}


def alone(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
    """Check a layer that rounds to bfloat16 whatever it is given."""
    forward, backward = (in_bfloat16(f, alone=True) for f in (right.forward, tried.backward))
    return named(gradcheck_layer(forward, backward, cast(inputs, "bfloat16"), seed=seed))


def referred(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
    """Hold the gradient in bfloat16 to that of the right pass in float64."""
    low = cast(inputs, "bfloat16")
    same = cast(low, "float64")
    dout = tuple(d.astype(bfloat16) for d in map(np.asarray, parts(douts(right, inputs, seed))))

    def gradients(backward: Any, dtype: str, at: Inputs) -> dict[str, Any]:
        given = tuple(d.astype(bfloat16 if dtype == "bfloat16" else dtype) for d in dout)
        made = backward(given if len(given) > 1 else given[0], *at.values())
        pairs = zip(at, parts(made), strict=True)
        return {n: g for n, g in pairs if g is not None}

    reference = gradients(right.backward, "float64", same)
    given = gradients(in_bfloat16(tried.backward), "bfloat16", low)
    plain = gradients(right.backward, "float16", cast(same, "float16"))
    baseline = {n: np.asarray(g).astype(bfloat16) for n, g in plain.items()}
    try:
        return named(gradcheck_against(reference, given, baseline, precision="bfloat16"))
    except InputError:  # another shape
        odd = {n for n in given if np.shape(given[n]) != np.shape(reference[n])}
        return "wrong", odd


def course(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
    """Compare whole arrays as the course does: the largest relative error of any component."""
    dout = douts(right, inputs, seed)
    wrong = set()
    for name, found in zip(inputs, parts(tried.backward(dout, *inputs.values())), strict=True):
        if found is None:
            continue
        numerical = numerical_array(right, inputs, name, dout)
        if np.shape(found) != numerical.shape:
            wrong.add(name)
            continue
        size = np.maximum(1e-8, np.abs(found) + np.abs(numerical))
        if np.max(np.abs(found - numerical) / size) > COURSE_LIMIT:
            wrong.add(name)
    return ("wrong" if wrong else "agree"), wrong


def numerical_array(right: Any, inputs: Inputs, name: str, dout: Any) -> Any:
    """Return central differences of Σ⟨dout, forward⟩ for each component of an input."""
    moved = {n: v.copy() for n, v in inputs.items()}
    found = np.zeros_like(moved[name])
    for place in np.ndindex(found.shape):
        ends = []
        for step in (STEP, -STEP):
            moved[name][place] = inputs[name][place] + step
            made = parts(right.forward(*moved.values()))
            ends.append(sum(float(np.sum(o * d)) for o, d in zip(made, parts(dout), strict=True)))
        moved[name][place] = inputs[name][place]
        found[place] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def beside(rtol: float, atol: float) -> Callable[..., tuple[str, set[str]]]:
    """Return a check by `allclose` beside the right gradient, which these tests have."""

    def check(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
        dout = douts(right, inputs, seed)
        gradients = [parts(m.backward(dout, *inputs.values())) for m in (right, tried)]
        wrong = {
            n for n, a, b in zip(inputs, *gradients, strict=True)
            if a is not None
            and (np.shape(a) != np.shape(b) or not np.allclose(b, a, rtol=rtol, atol=atol))
        }  # fmt: skip
        return ("wrong" if wrong else "agree"), wrong

    return check


def torch_gradcheck(fast: bool) -> Callable[..., tuple[str, set[str]]]:
    """Return a check by `torch.autograd.gradcheck` of the NumPy layer as an autograd function."""
    import torch

    def check(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
        class Layer(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, *tensors: Any) -> Any:
                ctx.save_for_backward(*tensors)
                made = right.forward(*(t.detach().numpy() for t in tensors))
                out = tuple(torch.from_numpy(np.asarray(o)) for o in parts(made))
                return out if len(out) > 1 else out[0]

            @staticmethod
            def backward(ctx: Any, *dout: Any) -> Any:
                arrays = [t.detach().numpy() for t in ctx.saved_tensors]
                given = tuple(d.contiguous().numpy() for d in dout)
                found = tried.backward(given if len(given) > 1 else given[0], *arrays)
                made = [None if g is None else torch.from_numpy(np.array(g)) for g in parts(found)]
                return tuple(made)

        tensors = tuple(torch.tensor(v) for v in inputs.values())
        for tensor in tensors:
            tensor.requires_grad_(tensor.is_floating_point())
        torch.manual_seed(seed)
        options = {"fast_mode": fast, "raise_exception": False}
        try:
            passed = torch.autograd.gradcheck(Layer.apply, tensors, **options)
        except RuntimeError:
            passed = False
        return ("agree" if passed else "wrong"), set()

    return check


def jax_check(right: Any, tried: Any, inputs: Inputs, seed: int) -> tuple[str, set[str]]:
    """Return what JAX's `check_vjp`, the reverse mode of `check_grads`, says: one direction."""
    import jax
    from jax._src import public_test_util as util

    names = [n for n, v in inputs.items() if v.dtype.kind == "f"]

    def forward(*real: Any) -> Any:
        return right.forward(
            *{**inputs, **dict(zip(names, map(np.asarray, real), strict=True))}.values()
        )

    def pull(*real: Any) -> tuple[Any, Any]:
        at = {**inputs, **dict(zip(names, map(np.asarray, real), strict=True))}

        def back(dout: Any) -> tuple[Any, ...]:
            given = tuple(map(np.asarray, dout)) if isinstance(dout, tuple) else np.asarray(dout)
            found = dict(zip(inputs, parts(tried.backward(given, *at.values())), strict=True))
            return tuple(found[n] for n in names)

        return forward(*real), back

    with jax.enable_x64(True):
        try:
            util.check_vjp(forward, pull, tuple(inputs[n] for n in names))
        except (AssertionError, ValueError, TypeError):
            return "wrong", set()
    return "agree", set()


def checkers() -> dict[str, Callable[..., tuple[str, set[str]]]]:
    """Return the checkers by name."""
    found: dict[str, Callable[..., tuple[str, set[str]]]] = {
        f"fastcheck, {dtype}": ours(dtype) for dtype in PRECISIONS
    }
    found |= {ONLY_BFLOAT16: alone, BESIDE: referred}
    found["torch.autograd.gradcheck"] = torch_gradcheck(False)
    found["torch.autograd.gradcheck, fast"] = torch_gradcheck(True)
    found["JAX check_grads (reverse)"] = jax_check
    found["cs231n, largest relative error 1e-6"] = course
    found |= {name: beside(*tolerance) for name, tolerance in TOLERANCES.items()}
    return found


def measured(seeds: int) -> dict[str, Row]:
    """Run all checkers on all cases."""
    rows = {name: Row() for name in checkers()}
    for name, slip, right, tried, inputs, seed in cases(seeds):
        wrong = truly_wrong(right, tried, inputs, seed) if slip else set()
        for checker, check in checkers().items():
            row = rows[checker]
            if name in NO_HALF and checker.endswith(("float16", "alone")):
                (row.slips if slip else row.right)["not run"] += 1
                continue
            start = time.process_time()
            status, named = check(right, tried, inputs, seed)
            row.seconds += time.process_time() - start
            (row.slips if slip else row.right)[status] += 1
            row.placed += bool(slip) and named == wrong
            if checker.startswith("fastcheck") and (status == "wrong") != bool(slip):
                print(f"{checker}: {name}, {slip or 'right'}: {status}", file=sys.stderr)
    return rows


def table(rows: dict[str, Row]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| checker | right ones accused | slips passed | can't tell | inputs named | seconds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, row in rows.items():
        right, slips = (c.total() - c["not run"] for c in (row.right, row.slips))
        unsure = sum(c["cannot tell"] + c["vacuous"] for c in (row.right, row.slips))
        named = f"{row.placed} of {slips}" if row.placed else "no"
        yield (
            f"| {name} | {row.right['wrong']} of {right} | {row.slips['agree']} of {slips} | "
            f"{unsure} | {named} | {row.seconds:.1f} |"
        )


def evaluations(size: int = 1000) -> int:
    """Return how many evaluations a layer of size² inputs takes."""
    count = 0
    random = np.random.default_rng(0)

    def forward(x: Any, gamma: Any) -> Any:
        nonlocal count
        count += 1
        return np.tanh(x) * gamma

    def backward(dout: Any, x: Any, gamma: Any) -> Any:
        y = np.tanh(x)
        return dout * gamma * (1 - y**2), (dout * y).sum(axis=0)

    inputs = {"x": random.normal(size=(size, size)), "gamma": random.normal(size=size)}
    report = gradcheck_layer(forward, backward, inputs, seed=0)
    assert report.passed
    return count


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print("\n".join(table(measured(count))))
    print(f"A layer of 1,000,000 inputs: {evaluations()} evaluations of forward.")
