"""The layers of the examples: right ones agree in each precision, slips are told and placed."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.layers import IN_JAX, IN_TORCH, NAMES, module, planted
from fastcheck import Report, check_jax_function, check_torch_function, gradcheck_layer
from fastcheck.model.contract import CONTRACT

FOLDER = Path(inspect.getfile(module("linear"))).parent
FEW = 1  # slips of each layer that run by default
# Slips whose shape tells what is wrong: some of the words that say it.
SHAPE_ONLY = {
    ("linear", "weight transposed"): "transposed",
    ("linear", "mean instead of sum"): "0.2 times",
    ("linear", "no sum over the batch"): "the sum over axis 0 is missing",
    ("max_pool", "shared by all"): "0.25 times",
    ("average_pool", "not divided"): "6 times",
    ("average_pool", "divided by one side"): "3 times",
    ("rms_norm", "dgamma missing"): "zero",
    ("cross_entropy", "ignored rows kept"): "index 2 of axis 0",
    ("cross_entropy", "mean over all rows"): "times what",
    ("cross_entropy", "sign"): "sign is wrong",
    ("swiglu", "df where de belongs"): "swapped",
    ("swiglu", "dz doubled"): "doubled",
    ("embedding", "shifted by one"): "shifted by one along axis 0",
    ("embedding", "averaged"): "0.08333 times",
    ("embedding", "reversed"): "reversed along axis 0",
    ("attention", "q and k swapped"): "swapped",
    ("attention", "scale forgotten"): "doubled",
    ("attention", "one head"): "first entry of axis 0",
    ("blocked_attention", "q doubled"): "doubled",
    ("gru_cell", "update the wrong way"): "sign is wrong",
    ("scan", "last step only"): "last entry of axis 0",
    ("gather_scatter", "mean over the width"): "0.3333 times",
    ("inverse", "sign"): "sign is wrong",
    ("inverse", "transposed at the end"): "transposed",
}
SLIPS = [
    pytest.param(
        name, slip,
        marks=[] if k < FEW else [pytest.mark.slow],
        id=f"{name}: {slip}",
    )
    for name in NAMES
    for k, slip in enumerate(module(name).SLIPS)
]  # fmt: skip
PRECISIONS = [
    "float64",
    pytest.param("float32", marks=pytest.mark.slow),
    pytest.param("float16", marks=pytest.mark.slow),
]


def in_precision(inputs: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in inputs.items()}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_right_layer_agrees(name: str, dtype: str) -> None:
    if dtype == "float16" and name in ("inverse", "cholesky"):
        return  # NumPy has no linear algebra in float16
    layer = module(name)
    inputs = in_precision(layer.inputs(1), dtype)
    report = gradcheck_layer(layer.forward, layer.backward, inputs, seed=1)
    assert report.status == "agree", report


def really_wrong(name: str, slip: str, seed: int) -> set[str]:
    """Return the inputs whose gradient a slip changes, by the two backward passes alone."""
    right, wrong = module(name), planted(name, slip)
    inputs = right.inputs(seed)
    random = np.random.default_rng(7)
    outputs = right.forward(*inputs.values())
    several = isinstance(outputs, tuple)
    parts = [random.normal(size=np.shape(o)) for o in (outputs if several else (outputs,))]
    dout = tuple(parts) if several else parts[0]
    found = [layer.backward(dout, *inputs.values()) for layer in (right, wrong)]
    pairs = zip(*(f if isinstance(f, tuple) else (f,) for f in found), strict=True)
    return {
        name
        for name, (a, b) in zip(inputs, pairs, strict=True)
        if a is not None and (np.shape(a) != np.shape(b) or np.abs(a - b).max() > 1e-9)
    }


@pytest.mark.parametrize(("name", "slip"), SLIPS)
def test_a_slip_is_told_and_placed(name: str, slip: str) -> None:
    layer, wrong = module(name), planted(name, slip)
    report = gradcheck_layer(
        layer.forward, wrong.backward, layer.inputs(0), seed=0, skip=CONTRACT[1:]
    )
    assert report.status == "wrong"
    named = {block.parameter for block in report.blocks if block.verdict == "wrong"}
    assert named == really_wrong(name, slip, 0)
    told = [*report.notes, *(line.text for line in report.contract)]
    if (name, slip) in SHAPE_ONLY:
        assert any(SHAPE_ONLY[name, slip] in text for text in told), told


def test_each_example_is_short_and_has_slips() -> None:
    for file in (*FOLDER.glob("[!_]*.py"), *FOLDER.glob("*.c")):
        code = re.split(r"^SLIPS", file.read_text("utf-8"), flags=re.MULTILINE)[0]
        assert len(code.splitlines()) <= 60, file
    assert all(len(module(name).SLIPS) >= 4 for name in NAMES)


@cache
def torch_functions() -> Any:
    pytest.importorskip("torch")
    from examples.layers import torch_functions as found

    return found


@cache
def jax_functions() -> Any:
    pytest.importorskip("jax")
    from examples.layers import jax_functions as found

    return found


def with_slip(functions: Any, name: str, slip: str) -> Any:
    """Return a layer of a module, made anew with a slip."""
    source = inspect.getsource(functions).partition("SLIPS")[0]
    if slip:
        old, new = functions.SLIPS[name][slip]
        assert source.count(old) == 1
        source = source.replace(old, new)
    made: dict[str, Any] = {"__name__": "planted"}
    exec(compile(source, f"{name} with {slip}", "exec"), made)
    return made["LAYERS"][name]


def checked_in_torch(name: str, slip: str) -> Report:
    torch: Any = pytest.importorskip("torch")
    inputs = {n: torch.tensor(v) for n, v in module(name).inputs(0).items()}
    if "labels" in inputs:
        inputs["labels"] = inputs["labels"].clamp(min=0)
    return check_torch_function(with_slip(torch_functions(), name, slip), inputs, seed=0)


def slips_of(functions: str, names: tuple[str, ...]) -> list[Any]:
    """Return the right layers and the first slips; the others are slow."""
    text = (FOLDER / f"{functions}.py").read_text("utf-8").partition("SLIPS = ")[2]
    table = eval(text.partition("}  # fmt")[0] + ("}" if "}  # fmt" in text else ""))
    return [
        pytest.param(
            name,
            slip,
            marks=[] if name == names[0] and k == 1 else [pytest.mark.slow],
            id=f"{name}: {slip}",
        )
        for name in names
        for k, slip in enumerate(["", *table[name]])
    ]


@pytest.mark.parametrize(("name", "slip"), slips_of("torch_functions", IN_TORCH))
def test_functions_of_torch(name: str, slip: str) -> None:
    report = checked_in_torch(name, slip)
    assert report.status == ("wrong" if slip else "agree"), report


@pytest.mark.slow
@pytest.mark.parametrize(("name", "slip"), slips_of("jax_functions", IN_JAX))
def test_functions_of_jax(name: str, slip: str) -> None:
    function = with_slip(jax_functions(), name, slip)
    report = check_jax_function(function, module(name).inputs(0), seed=0)
    assert report.status == ("wrong" if slip else "agree"), report


@pytest.mark.parametrize(("name", "slip"), slips_of("c_kernels", ("rms_norm", "gelu")))
def test_kernels_in_c(name: str, slip: str, tmp_path: Path) -> None:
    from examples.layers import c_kernels

    load: Any = c_kernels.load
    source = c_kernels.SOURCE.read_text("utf-8")
    if slip:
        old, new = c_kernels.SLIPS[name][slip]
        assert source.count(old) == 1
        source = source.replace(old, new)
    forward, backward = load(tmp_path, source)[name]
    inputs = in_precision(module(name).inputs(0), "float32")
    report = gradcheck_layer(forward, backward, inputs, seed=0)
    assert report.status == ("wrong" if slip else "agree"), report
