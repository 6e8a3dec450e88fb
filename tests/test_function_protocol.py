"""The protocol of a function: what it checks, in which time, and what it says of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from fastcheck import gradcheck_function
from fastcheck.errors import InputError

N = 25_000
W = np.random.default_rng(3).normal(size=N)
THETA = np.random.default_rng(4).normal(size=N)


def data(t: Any) -> float:
    return float(W[: t.size] @ np.sin(t))


def data_gradient(t: Any) -> Any:
    return W[: t.size] * np.cos(t)


def protocol_notes(report: Any) -> list[str]:
    return [note for note in report.notes if note.startswith("Protocol")]


def test_a_right_gradient_is_checked_at_the_start_and_after_training() -> None:
    report = gradcheck_function(data, data_gradient, THETA, protocol=True, budget="8s", seed=1)
    assert report.status == "agree"
    assert len(report.after_training) == 1
    told = " ".join(protocol_notes(report))
    for part in ("everything at θ", "a sample at θ", "everything after 3 gradient steps"):
        assert part in told
    assert "evaluations" in told


def test_a_gradient_that_is_right_at_the_start_alone_is_found() -> None:
    start = THETA[:40].copy()

    def stale(t: Any) -> Any:
        return data_gradient(start)

    assert gradcheck_function(data, stale, start).status == "agree"
    report = gradcheck_function(data, stale, start, protocol=True, budget=20)
    assert report.gradient_status == "agree"
    assert report.status == "wrong"
    assert "after 3 gradient steps" in report.to_text()


def test_the_wrong_term_is_named() -> None:
    terms = {"data": data, "penalty": lambda t: 0.05 * float(t @ t)}
    right = {"data": data_gradient, "penalty": lambda t: 0.1 * t}
    wrong = {**right, "penalty": lambda t: 0.05 * t}
    theta = THETA[:50]
    assert gradcheck_function(terms, right, theta, protocol=True).status == "agree"
    report = gradcheck_function(terms, wrong, theta, protocol=True)
    assert report.status == "wrong"
    said = {note.split(":")[0]: note for note in protocol_notes(report)}
    assert said["Protocol, the term data at θ"].endswith("agree.")
    assert said["Protocol, the term penalty at θ"].endswith("wrong.")
    with pytest.raises(InputError, match="a gradient for each of them"):
        gradcheck_function(terms, data_gradient, theta, protocol=True)


def test_two_terms_whose_errors_cancel_are_wrong() -> None:
    terms: dict[str, Any] = {"a": lambda t: float(t @ t), "b": lambda t: float(np.sum(t))}
    wrong = {"a": lambda t: 2 * t + 1.0, "b": np.zeros_like}
    theta = THETA[:10]
    total = gradcheck_function(lambda t: terms["a"](t) + terms["b"](t), 2 * theta + 1, theta)
    assert total.status == "agree"
    assert gradcheck_function(terms, wrong, theta, protocol=True).status == "wrong"


def test_the_budget_is_kept_and_what_was_left_out_is_said() -> None:
    def slow(t: Any) -> float:
        end = time.perf_counter() + 2e-3
        while time.perf_counter() < end:
            pass
        return data(t)

    start = time.perf_counter()
    report = gradcheck_function(slow, data_gradient, THETA, protocol=True, budget="2s")
    assert time.perf_counter() - start < 6.0
    assert report.status == "agree"
    assert any("not done" in note for note in protocol_notes(report))


def test_arrays_are_checked_at_the_start_alone() -> None:
    theta = THETA[:20]
    report = gradcheck_function(data, data_gradient(theta), theta, protocol=True)
    assert report.status == "agree"
    assert report.after_training == ()
    assert any("the gradient is no function of θ" in note for note in protocol_notes(report))


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("60s", 60), ("0.5 s", 0.5), ("5min", 300), ("1h", 3600), ("7", 7), (3, 3)],
)
def test_a_budget_is_seconds_or_a_duration(given: Any, seconds: float) -> None:
    from fastcheck.function_options import FunctionSettings

    assert FunctionSettings.of({"budget": given}).seconds == seconds


@pytest.mark.parametrize("given", ["fast", "1 day", "-3s", "e", "0s", 0, "1..2s"])
def test_other_budgets_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="budget"):
        gradcheck_function(data, data_gradient, THETA[:3], budget=given)
