"""The verdict: held against a plain loop over components, at every scale, with every status."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.parameters import ThetaLayout
from fastcheck.norms import relative_difference
from fastcheck.settings import Settings
from fastcheck.verdict import compare as comparison
from fastcheck.verdict.compare import PIECE_SIZE
from fastcheck.verdict.rules import BLOCK_FACTOR, NOISE_FACTOR, ROUNDING_FACTOR
from fastcheck.verdict.verdict import Verdict, evaluate
from tests import oracle

SETTINGS = Settings()
ORDER = ThetaLayout.from_sizes([7, 5, 3], [True, True])


def judged(
    gradient: Any, values: Any, sigma: Any = None, order: ThetaLayout = ORDER, **facts: Any
) -> Verdict:
    facts.setdefault("indices", None)
    approximation = Approximation("unit", 1e-7, values=np.asarray(values, float), **facts)
    return evaluate(order, np.asarray(gradient, float), approximation, sigma, SETTINGS)


def vector(seed: int = 0, size: int = ORDER.size) -> Any:
    return np.random.default_rng(seed).normal(size=size)


def statuses(g: Any, a: Any, sigma: Any, noise: Any, tau: Any, tol: float = 1e-7) -> list[str]:
    """The rules of the component verdict, one component at a time."""
    found = []
    for i in range(len(g)):
        error = abs(g[i] - a[i])
        asked = tol * (abs(g[i]) + abs(a[i])) + ROUNDING_FACTOR * sigma[i]
        if error > asked + tau[i] + NOISE_FACTOR * noise[i]:
            found.append("wrong")
        elif error <= asked + tau[i] and noise[i] <= asked and tau[i] <= asked:
            found.append("agree")
        else:
            found.append("cannot tell")
    return found


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_counts_norms_and_statuses_are_those_of_a_plain_loop(seed: int, sampled: bool) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=ORDER.size)
    g = a * (1 + 10.0 ** rng.uniform(-12, -3, a.size) * rng.choice([-1, 0, 1], a.size))
    sigma, noise, tau = np.abs(a) * 10.0 ** rng.uniform(-9, -5, (3, a.size))
    chosen = np.sort(rng.choice(a.size, 30, replace=False)) if sampled else np.arange(a.size)
    blurs = sigma[chosen], noise[chosen], tau[chosen]
    expected = statuses(g[chosen], a[chosen], *blurs)
    result = judged(
        g, a[chosen] * 1.5, sigma, indices=chosen if sampled else None,
        noise=blurs[1], derivative=a[chosen], uncertainty=blurs[2],
    )  # fmt: skip
    assert result.whole.checked == chosen.size
    for block in [result.whole, *result.blocks]:
        here = [
            k
            for k, i in enumerate(chosen)
            if block.kind == "whole" or ORDER.locate(int(i)).block.gradient_name == block.name
        ]
        assert block.checked == len(here)
        assert block.wrong == sum(expected[k] == "wrong" for k in here)
        assert block.cannot_tell == sum(expected[k] == "cannot tell" for k in here)
        part = chosen[here]
        assert block.difference == pytest.approx(
            oracle.relative_difference(g[part], a[part]), rel=1e-12
        )
        errors = {k: abs(g[chosen[k]] - a[chosen[k]]) for k in here}
        worst_kind = max(
            (expected[k] for k in here),
            key=("agree", "cannot tell", "wrong").index,
            default="agree",
        )
        candidates = [k for k in here if expected[k] == worst_kind]
        if candidates:
            worst = int(chosen[max(candidates, key=lambda k: errors[k])])
            assert block.worst is not None
            assert (block.worst.index, block.worst.status) == (worst, worst_kind)
            assert block.worst.name == str(ORDER.locate(worst))
    if "wrong" in expected:
        assert result.status == "wrong"


@pytest.mark.parametrize("many", [False, True])
def test_the_kernel_and_numpy_compare_alike(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ThetaLayout.from_sizes([200, 150, 3], [True, True])
    rng = np.random.default_rng(4)
    a = vector(5, order.size)
    g = a * (1 + 10.0 ** rng.uniform(-12, -5, a.size) * rng.choice([-1, 1], a.size))
    noise = np.full(a.size, 1e-9) if many else 1e-9
    sigma = np.abs(a) * 1e-9 if many else 1e-9
    by_kernel = judged(g, a, sigma, order, noise=noise)
    monkeypatch.setattr(comparison, "NUMPY_THRESHOLD", order.size + 1)
    by_numpy = judged(g, a, sigma, order, noise=noise)
    assert by_kernel.whole.wrong > 0
    for one, other in zip(
        [by_kernel.whole, *by_kernel.blocks], [by_numpy.whole, *by_numpy.blocks], strict=True
    ):
        assert (one.wrong, one.cannot_tell, one.worst) == (
            other.wrong, other.cannot_tell, other.worst
        )  # fmt: skip
        assert one.error_norm == pytest.approx(other.error_norm, rel=1e-14)
        assert one.tolerance == pytest.approx(other.tolerance, rel=1e-14)
    assert by_kernel.components == by_numpy.components


def test_one_wrong_component_in_a_large_layer_is_found_and_named() -> None:
    order = ThetaLayout.from_sizes([600, 300, 4], [True, True])
    a = vector(1, order.size)
    g = a.copy()
    index = order.index("W1", 223, 45)
    assert index > PIECE_SIZE
    g[index] *= 1 + 1e-5
    result = judged(g, a, order=order)
    assert result.whole.difference < 1e-7  # the global figure alone would pass it
    assert result.status == "wrong"
    assert [c.name for c in result.components if c.status == "wrong"] == ["W1[223, 45]"]
    assert result.components[0].ratio == pytest.approx(1 + 1e-5, rel=1e-9)
    assert [b.name for b in result.blocks if b.verdict == "wrong"] == ["dW1"]


def test_a_right_gradient_agrees_and_is_great() -> None:
    a = vector()
    result = judged(a * (1 + 1e-9), a)
    assert (result.status, result.grade) == ("agree", "great")
    assert result.whole.difference == pytest.approx(5e-10, rel=1e-3)


@pytest.mark.parametrize(
    ("factor", "grade"), [(1 + 1e-9, "great"), (1 + 1e-5, "look"), (1.01, "worry"), (-1, "worry")]
)
def test_the_grades(factor: float, grade: str) -> None:
    a = vector()
    assert judged(a * factor, a).grade == grade


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-8, 1.0, 1e160, 1e300])
def test_the_relative_difference_is_the_same_at_every_scale(scale: float) -> None:
    a, b = vector(0), vector(1)
    expected = oracle.relative_difference(a, b)
    assert relative_difference(a * scale, b * scale) == pytest.approx(expected, rel=1e-12)
    result = judged(a * scale, b * scale)
    assert result.whole.difference == pytest.approx(expected, rel=1e-12)
    assert result.whole.wrong == ORDER.size
    same = judged(a * scale, a * scale * (1 + 1e-12))
    assert same.status == "agree"
    assert 0 < same.whole.difference < 1e-12


def test_the_relative_difference_of_zeros_is_zero_and_of_opposites_one() -> None:
    zero = np.zeros(3)
    assert relative_difference(zero, zero) == 0.0
    assert relative_difference(np.full(3, 1.7e308), np.full(3, -1.7e308)) == 1.0
    assert relative_difference(np.full(3, 1.7e308), np.full(3, 1.7e308)) == 0.0
    assert judged(np.full(ORDER.size, 1.7e308), np.full(ORDER.size, -1.7e308)).status == "wrong"


def test_rounding_excuses_up_to_its_factor_and_no_more() -> None:
    a = np.ones(ORDER.size)
    g = a.copy()
    g[3] += 0.9 * ROUNDING_FACTOR * 1e-3
    sigma = np.full(a.size, 1e-3)
    assert judged(g, a, sigma).status == "agree"
    g[3] = 1 + 1.1 * ROUNDING_FACTOR * 1e-3
    result = judged(g, a, sigma)
    assert (result.status, result.whole.wrong) == ("wrong", 1)


def test_a_block_that_is_off_as_a_whole_is_wrong_though_no_component_is() -> None:
    order = ThetaLayout.from_sizes([100, 100], [False])
    a = np.ones(order.size)
    sigma = np.full(a.size, 1e-3)
    g = a + (BLOCK_FACTOR + 2) * 1e-3
    result = judged(g, a, sigma, order=order)
    assert result.whole.wrong == 0
    assert result.blocks[0].status == "wrong"
    assert result.status == "wrong"


def test_a_block_of_one_component_is_held_to_the_components_rule() -> None:
    order = ThetaLayout.from_sizes([1, 1], [False])
    inside = 0.9 * ROUNDING_FACTOR * 1e-3
    assert judged([1 + inside], [1.0], np.array([1e-3]), order=order).status == "agree"


@pytest.mark.parametrize("sigma", [np.nan, np.inf])
def test_where_sigma_is_not_known_only_what_agrees_without_it_is_right(sigma: float) -> None:
    a = vector()
    spread = np.where(np.arange(a.size) < 35, sigma, 0.0)  # W1
    assert judged(a, a, spread).status == "agree"
    g = a.copy()
    g[3] *= 1.5
    result = judged(g, a, spread)
    assert (result.status, result.blocks[0].status) == ("cannot tell", "cannot tell")
    assert (result.whole.cannot_tell, result.whole.wrong) == (1, 0)
    g[-1] *= 1.5
    assert judged(g, a, spread).blocks[-1].status == "wrong"


def test_noise_makes_cannot_tell_and_never_right() -> None:
    a = vector()
    g = a + 1e-3
    result = judged(g, a, noise=1e-3)
    assert result.status == "cannot tell"
    assert result.grade == "look"
    assert result.whole.cannot_tell == ORDER.size
    assert judged(a + 1e-3, a, noise=1e-5).status == "wrong"


def test_components_that_cannot_be_told_do_not_spoil_a_block_that_agrees() -> None:
    a = vector()
    g = a.copy()
    g[0] += 1e-9 * np.linalg.norm(a[ORDER.block("W1").slice])
    a[0] = 0.0
    g[0] = 1e-9
    result = judged(g, a, noise=1e-8)
    hidden = 2e-7 * np.abs(a[:35]) < 1e-8
    assert result.blocks[0].cannot_tell == hidden.sum()
    assert result.status == "agree"


def test_the_gradient_is_held_to_the_difference_without_its_truncation() -> None:
    """θ³ at 1 with ε = 0.01: 3.0001 is shown, 3 agrees, a claimed 3.0001 is wrong."""
    order = ThetaLayout.from_sizes([1, 1], [False])
    facts: dict[str, Any] = {"derivative": np.array([3.0]), "uncertainty": 1e-9}
    right = judged([3.0], [3.0001], order=order, **facts)
    assert right.status == "agree"
    assert (right.components[0].approximation, right.components[0].derivative) == (3.0001, 3.0)
    assert right.whole.difference == 0.0
    assert right.whole.literal_difference == pytest.approx(1e-4 / 6.0)
    assert judged([3.0001], [3.0001], order=order, **facts).status == "wrong"


@pytest.mark.parametrize("what", ["uncertainty", "noise"])
def test_what_hides_more_than_is_asked_for_is_no_agreement(what: str) -> None:
    a = vector()
    for g in (a, a * (1 + 1e-8)):
        assert judged(g, a, **{what: 1e-4 * np.abs(a)}).status == "cannot tell"
        assert judged(g, a, **{what: 1e-9 * np.abs(a)}).status == "agree"
    off = a * (1 + 3e-5)
    assert judged(off, a, **{what: 1e-4 * np.abs(a)}).status == "cannot tell"
    assert judged(off, a, **{what: 1e-6 * np.abs(a)}).status == "wrong"


def test_a_kink_is_right_anywhere_between_its_slopes_and_wrong_outside() -> None:
    a = vector()
    at = 9
    kinks = Kinks(np.array([at]), np.array([a[at] - 0.5]), np.array([a[at] + 0.5]))
    g = a.copy()
    for inside in (-0.5, -0.2, 0.0, 0.5):
        g[at] = a[at] + inside
        result = judged(g, a, kinks=kinks)
        assert (result.status, result.whole.kinks) == ("agree", 1)
        assert result.whole.difference < 1e-15
        assert result.components[0].status == "kink"
        assert (result.components[0].low, result.components[0].high) == (
            kinks.low[0],
            kinks.high[0],
        )
    assert result.whole.literal_difference > 1e-3
    g[at] = a[at] + 0.6
    result = judged(g, a, kinks=kinks)
    assert (result.status, result.whole.wrong, result.whole.kinks) == ("wrong", 1, 0)
    assert result.whole.error_norm == pytest.approx(0.1)


def test_an_interrupted_run_judges_what_it_reached_and_is_no_pass() -> None:
    a = vector()
    values = a.copy()
    values[20:] = np.nan
    result = judged(a, values, complete=False)
    assert result.status == "cannot tell"
    assert [b.checked for b in result.blocks] == [20, 0, 0, 0]
    g = a.copy()
    g[5] *= 2
    assert judged(g, values, complete=False).status == "wrong"


def test_what_was_reached_keeps_its_kinks_and_names() -> None:
    a = vector()
    g, values = a.copy(), a.copy()
    values[:10] = np.nan
    g[3], g[30] = 7.0, a[30] + 0.5
    kinks = Kinks(np.array([3, 30]), a[[3, 30]] - 1, a[[3, 30]] + 1)
    result = judged(g, values, complete=False, kinks=kinks, noise=np.zeros(a.size))
    assert (result.whole.wrong, result.whole.kinks) == (0, 1)
    kink = next(c for c in result.components if c.status == "kink")
    assert (kink.index, kink.gradient) == (30, g[30])


def test_the_largest_error_of_a_large_block_that_agrees_is_named() -> None:
    order = ThetaLayout.from_sizes([700, 700], [False])
    a = vector(2, order.size)
    for index in (5, PIECE_SIZE + 7, order.size - 1):
        g = a.copy()
        g[[3, PIECE_SIZE + 1, 3 * PIECE_SIZE]] += 1e-12
        g[index] += 1e-8 * abs(g[index])
        assert judged(g, a, order=order).blocks[0].worst.index == index  # type: ignore[union-attr]


def test_an_approximation_that_is_not_finite_cannot_be_told() -> None:
    a = vector()
    values = a.copy()
    values[2] = np.inf
    result = judged(a, values)
    assert result.status == "cannot tell"
    assert (result.blocks[0].cannot_tell, result.blocks[0].checked) == (1, 34)
    assert math.isfinite(result.whole.difference)


def test_sigma_is_asked_for_only_where_something_does_not_agree() -> None:
    a = vector()
    asked = []

    def sigma() -> Any:
        asked.append(1)
        return np.full(a.size, 1e-3)

    assert judged(a, a, sigma).status == "agree"
    assert not asked
    assert judged(a + 1e-3, a, sigma).status == "agree"
    assert asked == [1]


def test_names_follow_the_owners_order() -> None:
    order = ThetaLayout.from_sizes([7, 5], [True], transposed=True)
    a = vector(0, order.size)
    g = a.copy()
    g[order.index("W1", 4, 6)] *= 2
    result = judged(g, a, order=order)
    assert result.components[0].name == "W1[6, 4]"
    assert result.blocks[0].shape == (7, 5)


def test_each_wrong_block_has_its_worst_component_in_the_report() -> None:
    a = vector()
    g = a.copy()
    g[ORDER.block("W1").slice] *= 100.0
    g[ORDER.block("b2").offset] += 1e-4
    result = judged(g, a)
    assert "db2" in {c.block for c in result.components}
    assert [c.status for c in result.components] == sorted(
        (c.status for c in result.components),
        key=("wrong", "cannot tell", "kink", "agree").index,
    )
