"""What a sample is said to cover is what it covers: by SciPy's distribution and by drawing."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastcheck import Report, gradcheck, gradcheck_function
from fastcheck.model.approximation import Approximation, Kinks
from fastcheck.model.network import Network
from fastcheck.model.parameters import ThetaLayout
from fastcheck.norms import relative_difference
from fastcheck.sampling.components import sample, sample_units, size_to_detect
from fastcheck.sampling.coverage import estimated_difference, max_undetected, wrong_at_most
from tests import oracle

ORDER = ThetaLayout.from_sizes([30, 20, 10], [True, True])
RUNS = 300


@given(st.integers(1, 3000), st.data())
def test_one_more_than_may_be_missed_is_seen(size: int, data: st.DataObject) -> None:
    checked = data.draw(st.integers(0, size))
    wrong = max_undetected(size, checked)
    assert stats.hypergeom.pmf(0, size, wrong, checked) >= 0.05 - 1e-9
    if wrong < size:
        assert stats.hypergeom.pmf(0, size, wrong + 1, checked) <= 0.05 + 1e-9


def test_what_may_be_missed_of_a_hundred_million() -> None:
    # About 3/n of them: log(20)/n.
    assert max_undetected(10**8, 10**5) == pytest.approx(1e8 * np.log(20) / 1e5, rel=1e-3)
    assert max_undetected(7, 7) == 0
    assert max_undetected(7, 0) == 7


@pytest.mark.parametrize(("size", "checked", "wrong"), [(100, 20, 3), (5000, 300, 1), (50, 49, 7)])
def test_with_wrong_ones_seen_more_may_be_wrong(size: int, checked: int, wrong: int) -> None:
    most = wrong_at_most(size, checked, wrong)
    assert stats.hypergeom.cdf(wrong, size, most, checked) > 0.05
    assert stats.hypergeom.cdf(wrong, size, most + 1, checked) <= 0.05


def of_sample(values: Any, indices: Any) -> Approximation:
    return Approximation("unit", 1e-7, indices, values[indices])


def wrong_somewhere(rng: Any) -> tuple[Any, Any]:
    """A gradient with errors of many sizes, more of them in one block, and the right one."""
    right = rng.normal(size=ORDER.size) * np.repeat([1.0, 3.0, 0.3, 2.0], [600, 20, 200, 10])
    error = rng.normal(size=ORDER.size) * np.repeat([1e-3, 3e-3, 1e-2, 0.0], [600, 20, 200, 10])
    return right + error, right


@pytest.mark.parametrize("units", [False, True])
def test_the_interval_holds_the_difference_over_everything(units: bool) -> None:
    rng = np.random.default_rng(5)
    held, values = 0, []
    for seed in range(RUNS):
        wrong, right = wrong_somewhere(rng)
        indices = sample_units(ORDER, 15, seed) if units else sample(ORDER, 200, seed)
        found = estimated_difference(ORDER, wrong, of_sample(right, indices), whole_units=units)
        assert found is not None
        truth = relative_difference(wrong, right)
        held += found.low <= truth <= found.high
        values.append(found.value / truth)
    assert np.mean(values) == pytest.approx(1.0, abs=0.02)
    assert 0.88 * RUNS <= held < RUNS  # and it is not so wide that it says nothing


def test_all_of_it_gives_the_difference_itself_and_no_interval() -> None:
    wrong, right = wrong_somewhere(np.random.default_rng(1))
    found = estimated_difference(ORDER, wrong, of_sample(right, np.arange(ORDER.size)))
    assert found is not None
    truth = relative_difference(wrong, right)
    assert [found.value, found.low, found.high] == pytest.approx([truth] * 3, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_the_estimate_has_no_scale(scale: float) -> None:
    wrong, right = wrong_somewhere(np.random.default_rng(1))
    indices = sample(ORDER, 100, 0)
    plain = estimated_difference(ORDER, wrong, of_sample(right, indices))
    scaled = estimated_difference(ORDER, scale * wrong, of_sample(scale * right, indices))
    assert plain is not None
    assert scaled is not None
    assert scaled.value == pytest.approx(plain.value, rel=1e-9)
    assert scaled.high == pytest.approx(plain.high, rel=1e-9)


def test_a_kink_is_no_error_where_it_is_right() -> None:
    _, right = wrong_somewhere(np.random.default_rng(1))
    indices = sample(ORDER, 100, 0)
    given = right.copy()
    given[indices[3]] += 1.0
    kinked = replace(
        of_sample(right, indices),
        kinks=Kinks(np.array([3]), right[indices[3:4]], given[indices[3:4]]),
    )
    found = estimated_difference(ORDER, given, kinked)
    assert found is not None
    assert found.value == 0.0
    plain = estimated_difference(ORDER, given, of_sample(right, indices))
    assert plain is not None
    assert plain.value > 0.01


def test_a_block_that_was_left_out_leaves_no_estimate() -> None:
    wrong, right = wrong_somewhere(np.random.default_rng(1))
    assert estimated_difference(ORDER, wrong, of_sample(right, sample(ORDER, 3, 0))) is None


# ---- in a report -------------------------------------------------------------------------------


def check(change: Any = None, **options: Any) -> Report:
    """Check a network of 12-40-30-4, its gradient changed by a function of the list of blocks."""
    rng = np.random.default_rng(2)
    sizes = [12, 40, 30, 4]
    W = [rng.normal(size=(k, n)) / np.sqrt(n) for n, k in pairwise(sizes)]
    b = [rng.normal(size=k) for k in sizes[1:]]
    X, Y = rng.normal(size=(9, 12)), np.eye(4)[rng.integers(4, size=9)]
    names = ["tanh", "tanh", "identity"]
    dW, db = oracle.backprop(W, b, X, Y, activations=names, loss="softmax_cross_entropy", l2=0.1)
    blocks = [a for pair in zip(dW, db, strict=True) for a in pair]
    if change is not None:
        change(blocks)
    network = Network.from_arrays(W, b, activations=names, l2=0.1)
    return gradcheck(network, X, Y, blocks, jobs=1, **options)


def test_a_full_check_has_no_coverage() -> None:
    assert check().coverage == {}
    assert check(sample=10**6).coverage == {}


def test_the_report_says_what_its_sample_covers() -> None:
    report = check(sample=300)
    found = report.coverage
    assert report.passed
    sizes = {"dW1": 480, "db1": 40, "dW2": 1200, "db2": 30, "dW3": 120, "db3": 4}
    assert {b["name"]: b["size"] for b in found["blocks"]} == sizes
    for block in found["blocks"]:
        assert block["at_most"] == max_undetected(block["size"], block["checked"])
    assert found["share"] == max(b["share"] for b in found["blocks"])
    assert found["next"]["components"] == sum(
        size_to_detect([*sizes.values()], found["next"]["share"])
    )
    text = " ".join(report.to_text().split())
    assert f"at most {100 * found['share']:.2g} % of any block is wrong" in text
    assert f"--detect {found['next']['share']:g}" in text
    assert Report.from_json(report.to_json()).coverage == found


def test_the_share_that_was_asked_for_is_not_missed() -> None:
    found = check(detect=0.05).coverage
    assert 0.03 < found["share"] < 0.05


def test_the_report_estimates_the_whole_from_the_sample() -> None:
    def rough(blocks: list[Any]) -> None:
        blocks[2] *= 1.0 + 1e-3 * np.random.default_rng(0).normal(size=blocks[2].shape)

    whole, found = check(rough).difference, check(rough, sample=300).coverage["difference"]
    assert found["low"] < whole < found["high"] < 3 * found["low"]


def test_wrong_ones_are_counted_up() -> None:
    def every_third(blocks: list[Any]) -> None:
        blocks[2].flat[::3] *= 2.0

    report = check(every_third, sample=400)
    found = next(b for b in report.coverage["blocks"] if b["name"] == "dW2")
    assert found["wrong"] == report.blocks[2].wrong > 0
    assert found["at_most"] >= 400
    assert f"about {100 * found['wrong'] / found['checked']:.2g} % of dW2 is wrong" in " ".join(
        report.to_text().split()
    )


def test_units_are_checked_whole() -> None:
    report = check(sample_units=20)
    found = report.coverage
    assert report.passed
    assert found["of"] == "rows"
    assert (found["units"]["probed"], found["units"]["all"]) == (20, 74)
    checked = {b.name: b.checked for b in report.blocks}
    assert checked["dW2"] == 40 * checked["db2"]
    assert report.method.checked == found["units"]["components"] == sum(checked.values())
    rows = next(b for b in found["blocks"] if b["name"] == "dW2")
    assert (rows["size"], rows["checked"]) == (30, checked["db2"])
    text = " ".join(report.to_text().split())
    times = found["units"]["components"] / 20
    assert f"{times:,.0f} times as many components as --sample 20" in text


def test_a_wrong_row_is_seen_by_units_where_it_is_drawn() -> None:
    def one_row(blocks: list[Any]) -> None:
        blocks[0][7] *= 2.0

    seen = [check(one_row, sample_units=37, seed=seed).blocks[0].wrong for seed in range(12)]
    assert set(seen) == {0, 12}  # all of the row or nothing


def test_units_of_the_textbook_make_no_promise_about_time() -> None:
    report = check(sample_units=5, method="textbook", tol=1e-4)
    assert report.coverage["of"] == "rows"
    assert [label for label, _ in report.coverage["facts"]] == ["coverage", "estimate"]


def test_a_function_has_coverage_too() -> None:
    theta = {"a": np.linspace(1, 2, 50), "b": np.linspace(2, 3, 70)}
    report = gradcheck_function(
        lambda t: float(np.sum(t["a"] ** 2) + np.sum(t["b"] ** 3)),
        lambda t: {"a": 2 * t["a"], "b": 3 * t["b"] ** 2},
        theta,
        sample=40,
        epsilon=1e-4,
        tol=1e-6,
    )
    assert [b["size"] for b in report.coverage["blocks"]] == [50, 70]
    assert "units" not in report.coverage
