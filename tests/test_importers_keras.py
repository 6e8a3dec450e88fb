"""Keras models on the torch and jax backends; a backend is chosen once in a process."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BACKENDS = ("torch", "jax")
RIGHT = (
    "regularized", "compiled", "functional", "squared", "huber", "logistic", "nested",
    "named function", "double layers", "double loss",
)  # fmt: skip
REFUSED = {
    "skip": "sum: Add of 2 branches",
    "convolution": "(Conv1D): Conv1D",
    "batch norm": "(BatchNormalization): BatchNormalization",
    "unnamed function": "own (Dense): the activation 'my_relu'",
    "L1": "(Dense): the regularizer L1",
    "two rates": "regularizers that differ",
    "another loss": "the loss 'poisson'",
    "logits taken for probabilities": "come out of softmax",
}


@functools.cache
def outcomes(backend: str) -> dict[str, Any]:
    """Return what came out of every case on a backend."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("keras_models.py"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=BACKENDS)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    try:
        import importlib.util

        missing = [m for m in ("keras", request.param) if importlib.util.find_spec(m) is None]
    except ImportError:
        missing = ["keras"]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    return outcomes(request.param)


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_model_passes_and_is_left_as_it_was(found: dict[str, Any], case: str) -> None:
    result = found[case]
    assert result.get("status") == "agree", result.get("text", result)
    assert result["precision"] == "float32"
    assert result["same"]


def test_a_wrong_backward_pass_of_an_activation_is_named(found: dict[str, Any]) -> None:
    assert found["planted"].get("wrong") == ["sick/kernel", "sick/bias"], found["planted"]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_chain_is_refused_with_its_place(found: dict[str, Any], case: str) -> None:
    assert REFUSED[case] in found[case].get("refused", ""), found[case]


def test_blocks_have_the_layers_names(found: dict[str, Any]) -> None:
    assert found["functional"]["blocks"][:2] == ["first/kernel", "first/bias"]
