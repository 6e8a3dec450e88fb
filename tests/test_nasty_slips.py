"""Invented wrong gradients: all are caught, and the right blocks are named."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from fastcheck import gradcheck
from tests import invented
from tests.nasty import styles
from tests.nasty.network import Array, Gradient
from tests.nasty.slip import Slip
from tests.nasty.slipped_networks import NETWORKS
from tests.nasty.slips import SLIPS
from tests.nasty.tape import backward
from tests.nasty.wrong import Wrong, wrong_of
from tests.nasty_checks import ask, network_of, owners

# The relative error of a block that is seen beside rounding in a precision.
SEEN = {"float32": 1e-4, "float16": 0.1}
EACH = 2  # of each slip, on networks of their own where it can be made on several


def chosen(number: int) -> list[Wrong]:
    """Return some wrong gradients of a slip, each on another network and at another layer."""
    slip, names = SLIPS[number], [*NETWORKS]
    turned = names[number % len(names) :] + names[: number % len(names)]
    found = (_one(name, slip, number) for name in turned)
    return [*itertools.islice((wrong for wrong in found if wrong is not None), EACH)]


def _one(name: str, slip: Slip, number: int) -> Wrong | None:
    wrong = [*wrong_of(name, NETWORKS[name](), slip)]
    return wrong[number % len(wrong)] if wrong else None


def every() -> Iterator[Wrong]:
    for number in range(len(SLIPS)):
        yield from chosen(number)


def test_there_are_many_and_each_slip_is_wrong_somewhere() -> None:
    assert len([*every()]) >= 187
    assert all(chosen(number) for number in range(len(SLIPS)))


@pytest.mark.parametrize("number", range(len(SLIPS)), ids=[slip.name for slip in SLIPS])
def test_an_invented_slip_is_caught(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The diagnosis takes nine tenths of the time, and no part in the verdict.
    monkeypatch.setattr("fastcheck.check._Comparison.diagnosis", lambda *_: {})
    for wrong in chosen(number):
        said = ask(wrong)
        assert said.status == "wrong", wrong.name
        assert (said.missing, said.extra) == ((), ()), wrong.name


def rounded_with_slip(wrong: Wrong, dtype: str) -> tuple[Gradient, dict[str, float]]:
    """Return a right gradient in a precision plus a slip's error, and the blocks' relative ones."""
    low, errors = styles.rows(wrong.net, styles.Way(dtype)), {}
    given: Gradient = []
    layers = zip(wrong.gradient, backward(wrong.net), low, strict=True)
    for layer, parts in enumerate(layers, start=1):
        pair: list[Array] = []
        for kind, slipped, right, found in zip("Wb", *parts, strict=True):
            pair.append((found + (slipped - right)).astype(dtype))
            size = float(np.linalg.norm(right))
            errors[f"d{kind}{layer}"] = float(np.linalg.norm(slipped - right)) / (size or 1.0)
        given.append((pair[0], pair[1]))
    return given, errors


@pytest.mark.parametrize("number", range(0, len(SLIPS), 3), ids=lambda k: SLIPS[k].name)
@pytest.mark.parametrize("dtype", SEEN)
def test_an_invented_slip_is_caught_beside_rounding_in_low_precision(
    dtype: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcheck.check._Comparison.diagnosis", lambda *_: {})
    for wrong in chosen(number):
        given, errors = rounded_with_slip(wrong, dtype)
        net = wrong.net.rounded(dtype)
        inputs, targets = net.inputs.astype(dtype), net.targets.astype(dtype)
        report = gradcheck(network_of(net, dtype), inputs, targets, owners(given, "rows"), jobs=1)
        for block in report.blocks:
            if errors[block.name] == 0.0 or errors[block.name] >= SEEN[dtype]:
                expected = "wrong" if errors[block.name] else "agree"
                assert block.status == expected, (wrong.name, block.name, errors[block.name])


# Slips that the diagnosis once gave a cause that is not so, or none, and what its first answer
# may be. Where that is a place only, nothing more can be known.
FIRST_ANSWERS = {
    "samples shuffled": {"samples_of_error_shifted"},
    "signs only": {"signs_only"},
    "targets halved": {"targets_scaled"},
    "log(p + 1e-3)": {"log_epsilon", "log_one_sided"},
    "log(p + 1e-8)": {"log_epsilon", "log_one_sided"},
    "mean residual": invented.PLACES,
    "db summed over everything": {"bias_total"},
    "stale gradient, rate 1e-3": {"stale"},
    "leak of 1e-3": {"derivative_leak"},
    "dA / n": {"error_factor"},
    "everything × (1 + 3e-7)": {"everything_factor", "output_factor"},
}


@pytest.mark.parametrize("name", FIRST_ANSWERS)
def test_the_first_answer_is_the_cause(name: str) -> None:
    (number,) = [k for k, slip in enumerate(SLIPS) if slip.name == name]
    for wrong in chosen(number):
        cause = ask(wrong).cause
        assert cause in FIRST_ANSWERS[name] or _is_the_same(wrong, cause), (wrong.name, cause)


def _is_the_same(wrong: Wrong, cause: str) -> bool:
    """Whether db of one layer alone, summed over everything, is all zero: so are other sums."""
    biases = wrong.gradient[wrong.layer - 1][1]
    is_zero = biases is not None and np.abs(biases).max() < 1e-15
    return wrong.slip == "db summed over everything" and is_zero and cause.startswith("bias_")
