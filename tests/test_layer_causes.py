"""What is wrong by shape alone, on slips that were written apart from the code that names them."""

from __future__ import annotations

import inspect
import re
import types
from typing import Any

import numpy as np
import pytest

from examples.layers import module
from fastcheck import Report, gradcheck_layer
from fastcheck.model.contract import CONTRACT
from tests.layer_slips import SLIPS, Slip
from tests.repetitions import draws

LEAST_RATE = 0.8


def with_slip(slip: Slip) -> Any:
    """Return the module of a layer with a slip in it."""
    source = inspect.getsource(module(slip.layer)).partition("SLIPS")[0]
    assert source.count(slip.old) == 1, slip
    made = types.ModuleType(slip.layer)
    exec(compile(source.replace(slip.old, slip.new), slip.layer, "exec"), made.__dict__)
    return made


def check(slip: Slip, seed: int) -> Report:
    layer = module(slip.layer)
    return gradcheck_layer(
        layer.forward, with_slip(slip).backward, layer.inputs(seed), seed=seed, skip=CONTRACT[1:]
    )


def told(report: Report, block: str) -> list[str]:
    """Return the causes that a report claims for a block."""
    shapes = [part for line in report.contract for part in line.text.split("; ")]
    notes = [note for note in report.notes if note.startswith(f"d{block}:")]
    return [*notes, *(part for part in shapes if re.match(rf"d{block} has shape.*: ", part))]


@draws(few=1, all_of_them=10)
def test_causes_are_named_and_none_is_false(seed: int) -> None:
    right: list[Slip] = []
    silent: list[Slip] = []
    for slip in SLIPS:
        report = check(slip, seed)
        causes = told(report, slip.block)
        assert report.status == "wrong", slip
        if slip.cause is None:
            assert causes == [], slip
            continue
        known = any(words in text for words in slip.cause.split("|") for text in causes)
        assert known or not causes, (slip, causes)
        (right if known else silent).append(slip)
    assert len(right) >= LEAST_RATE * (len(right) + len(silent)), silent


X, BIAS = np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1).normal(size=4)
# Gradients of a bias that have another shape, and whether the sum over axis 0 is what is missing.
SHAPES: dict[str, tuple[Any, str]] = {
    "missing": (lambda d: d, "the sum over axis 0 is missing"),
    "the sum in each row": (lambda d: np.repeat(d.sum(0)[None], 5, 0), ""),
    "mean in each row": (lambda d: np.repeat(d.mean(0)[None], 5, 0), "the sum over axis 0"),
    "kept": (lambda d: d.sum(0, keepdims=True), "it only needs another shape"),
    "noise": (np.cos, ""),
    "shorter": (lambda d: d.sum(0)[:3], ""),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_missing_sum_is_claimed_where_the_sum_is_right(name: str, dtype: Any) -> None:
    change, said = SHAPES[name]
    inputs = {"x": X.astype(dtype), "bias": BIAS.astype(dtype)}
    report = gradcheck_layer(
        lambda x, bias: np.sin(x + bias),
        lambda d, x, bias: (d * np.cos(x + bias), change(d * np.cos(x + bias))),
        inputs,
        seed=0,
    )
    text = next(line.text for line in report.contract if line.name == CONTRACT[0])
    assert report.status == "wrong"
    assert text.startswith("dbias has shape")
    claimed = text.partition("bias has (4,)")[2]
    assert claimed.startswith(f": {said}") if said else not claimed
