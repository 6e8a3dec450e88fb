"""`gradcheck_layer`: a backward pass and its contract; right ones agree, wrong ones are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples.layers import module
from fastcheck import InputError, Report, gradcheck_layer
from fastcheck.model.contract import CONTRACT
from fastcheck.report.plot_data import UNCHECKED, unpacked
from fastcheck.verdict.rules import WRONG

RNG = np.random.default_rng(3)
X, W, B = RNG.normal(size=(6, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)
INPUTS = {"x": X, "w": W, "b": B}


def forward(x: Any, w: Any, b: Any) -> Any:
    return np.tanh(x @ w + b)


def backward(dout: Any, x: Any, w: Any, b: Any) -> Any:
    dz = dout * (1 - np.tanh(x @ w + b) ** 2)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def changed(name: str, change: Any) -> Any:
    """Return the backward pass with one gradient changed."""

    def wrong(dout: Any, x: Any, w: Any, b: Any) -> Any:
        found = dict(zip("xwb", backward(dout, x, w, b), strict=True))
        found[name] = change(np.array(found[name]))
        return tuple(found.values())

    return wrong


def line(report: Report, name: str) -> Any:
    return next(entry for entry in report.contract if entry.name == name)


def broken(report: Report) -> set[str]:
    return {entry.name for entry in report.contract if entry.status == "wrong"}


NOT_ALWAYS = ("jvp", "needed gradients", "repeated indices", "sizes 0 and 1")


def check(forward: Any, backward: Any, inputs: Any = INPUTS, **options: Any) -> Report:
    return gradcheck_layer(forward, backward, inputs, **{"seed": 0, **options})


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_right_layer_agrees_and_keeps_its_contract(dtype: Any) -> None:
    report = check(forward, backward, {n: v.astype(dtype) for n, v in INPUTS.items()})
    assert report.status == "agree", report
    assert [block.name for block in report.blocks] == ["dx", "dw", "db"]
    kept = [entry.name for entry in report.contract]
    assert kept == [n for n in CONTRACT if n not in NOT_ALWAYS]
    assert report.whole.resolution is not None
    assert report.whole.resolution < 1e-5


SHAPES: dict[str, Any] = {
    "w: it is transposed": ("w", np.transpose),
    "b: its sign is wrong": ("b", np.negative),
    "x: it is doubled": ("x", lambda g: 2 * g),
    "x: every component is 0.1667 times": ("x", lambda g: g / 6),
    "x: only index 3 of axis 0 is zero": ("x", lambda g: g * (np.arange(6) != 3)[:, None]),
    "w: it is zero": ("w", lambda g: 0 * g),
    "x: it is shifted by one along axis 0": ("x", lambda g: np.roll(g, 1, 0)),
    "x: only the last entry of axis 0": ("x", lambda g: g * (np.arange(6) == 5)[:, None]),
    "w: it is reversed along axis 1": ("w", lambda g: g[:, ::-1]),
    "w: only indices 0 to 1 of axis 1 are doubled": ("w", lambda g: g * [2, 2, 1, 1]),
}


@pytest.mark.parametrize("said", SHAPES)
def test_a_change_that_the_shape_tells_is_named(said: str) -> None:
    name, change = SHAPES[said]
    report = check(forward, changed(name, change))
    assert report.status == "wrong"
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == [name]
    assert any(f"d{said}" in note for note in report.notes), report.notes


def test_no_cause_is_claimed_for_a_change_without_one() -> None:
    extra = np.random.default_rng(1).normal(size=W.shape)
    report = check(forward, changed("w", lambda g: g + 1e-4 * extra))
    assert report.status == "wrong"
    assert not [note for note in report.notes if note.startswith("dw:")]


def test_a_small_error_in_one_entry_is_seen() -> None:
    def change(g: Any) -> Any:
        g[1, 2] *= 1 + 1e-5
        return g

    report = check(forward, changed("w", change))
    assert [c.name for c in report.components if c.status == "wrong"] == ["w[1, 2]"]


class Accumulating:
    """Adds to what the last call left."""

    def __init__(self) -> None:
        self.dw = np.zeros_like(W)

    def __call__(self, dout: Any, x: Any, w: Any, b: Any) -> Any:
        dx, dw, db = backward(dout, x, w, b)
        self.dw += dw
        return dx, self.dw.copy(), db


def writes_into_dout(dout: Any, x: Any, w: Any, b: Any) -> Any:
    dout *= 1 - np.tanh(x @ w + b) ** 2
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)


def writes_into_x(dout: Any, x: Any, w: Any, b: Any) -> Any:
    found = backward(dout, x, w, b)
    x += 1.0
    return found


def clips(dout: Any, *rest: Any) -> Any:
    return backward(np.clip(dout, -0.9, 0.9), *rest)


def adds_a_constant(dout: Any, *rest: Any) -> Any:
    dx, dw, db = backward(dout, *rest)
    return dx, dw, db + 1e-3


def reads_memory(dout: Any, *rest: Any) -> Any:
    """Read dout as a kernel does that takes a pointer and no strides."""
    base = dout if dout.base is None else dout.base
    raw = np.lib.stride_tricks.as_strided(base.ravel("K"), dout.shape, None)
    flat = raw.ravel()[: dout.size] if raw.size >= dout.size else dout.ravel()
    return backward(flat.reshape(dout.shape), *rest)


def in_float16(dout: Any, x: Any, w: Any, b: Any) -> Any:
    if x.dtype == np.float32:
        dx, dw, db = backward(dout, x, w, b)
        return dx, dw, db * np.float32(1.1)
    return backward(dout, x, w, b)


CONTRACTS: dict[str, Any] = {
    "deterministic": Accumulating,
    "arguments unchanged": lambda: writes_into_x,
    "linear in dout": lambda: clips,
    "dout of zeros": lambda: adds_a_constant,
    "precision": lambda: in_float16,
    "strides of dout": lambda: reads_memory,
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_broken_contract_is_a_line_of_its_own(name: str) -> None:
    report = check(forward, CONTRACTS[name]())
    assert report.status == "wrong"
    assert name in broken(report), report
    assert name in report.to_text()


def test_a_backward_that_writes_into_dout_is_named_and_still_judged() -> None:
    report = check(forward, writes_into_dout)
    assert "backward writes into dout" in line(report, "arguments unchanged").text
    assert line(report, "expanded dout").status == "wrong"


def test_nothing_of_the_user_s_is_written_to() -> None:
    inputs = {name: value.copy() for name, value in INPUTS.items()}
    report = check(forward, writes_into_x, inputs)
    assert all(np.array_equal(inputs[name], INPUTS[name]) for name in inputs)
    assert all(block.verdict == "agree" for block in report.blocks)


def test_a_missing_sum_over_the_batch_is_told_by_the_shape() -> None:
    def wrong(dout: Any, x: Any, w: Any, b: Any) -> Any:
        dx, dw, _ = backward(dout, x, w, b)
        return dx, dw, dout * (1 - forward(x, w, b) ** 2)

    report = check(forward, wrong)
    assert report.status == "wrong"
    assert "the sum over axis 0 is missing" in line(report, "shapes and dtypes").text
    assert [b.parameter for b in report.blocks if b.verdict == "wrong"] == ["b"]


def test_the_page_has_a_heat_map_of_each_input() -> None:
    def wrong(dout: Any, x: Any, w: Any, b: Any) -> Any:
        dx, dw, _ = backward(dout, x, w, b)
        dx[2] = 0.0
        return dx, dw, dout * (1 - forward(x, w, b) ** 2)

    report = check(forward, wrong)
    pictures = report.with_pictures().pictures
    assert pictures is not None
    assert [grid.block for grid in pictures.grids] == ["dx", "dw", "db"]
    status = [unpacked(grid.status, "u1").reshape(grid.cells) for grid in pictures.grids]
    assert np.array_equal(status[0] == WRONG, np.broadcast_to(np.arange(6)[:, None] == 2, (6, 4)))
    assert not status[1].any()
    assert (status[2] == UNCHECKED).all()  # of another shape
    page = report.to_html()
    assert page.count('class="field"') == 3
    assert "db (its shape)" in page


TABLE = RNG.normal(size=(8, 3))
INDICES = np.array([1, 3, 0, 2, 4, 6])


def embed(idx: Any, table: Any) -> Any:
    return table[idx]


def embed_backward(dout: Any, idx: Any, table: Any) -> Any:
    d = np.zeros_like(table)
    np.add.at(d, idx, dout)
    return None, d


def embed_once(dout: Any, idx: Any, table: Any) -> Any:
    d = np.zeros_like(table)
    d[idx] += dout
    return None, d


def test_indices_that_repeat_are_tried() -> None:
    inputs = {"idx": INDICES, "table": TABLE}
    assert check(embed, embed_backward, inputs).passed
    report = check(embed, embed_once, inputs)
    assert broken(report) == {"repeated indices"}
    assert report.gradient_status == "agree"  # where none repeats
    assert check(embed, embed_once, inputs, skip=["repeated indices"]).passed


def test_a_permutation_is_not_made_to_repeat() -> None:
    order = np.array([2, 0, 1])
    report = check(
        lambda p, x: x[p], lambda d, p, x: (None, d[np.argsort(p)]), {"p": order, "x": X[:3]}
    )
    assert report.passed
    assert line(report, "repeated indices").status == "not checked"


def test_what_cannot_fail_is_vacuous() -> None:
    constant = check(np.ones_like, lambda d, x: np.zeros_like(x), {"x": X})
    assert constant.status == constant.gradient_status == "vacuous"
    assert not constant.passed
    assert "VACUOUS" in constant.to_text()
    assert "could not have failed" in constant.to_html()
    assert Report.from_json(constant.to_json()) == constant


def test_a_zero_gradient_of_a_function_that_moves_is_wrong() -> None:
    assert check(lambda x: x**2, lambda d, x: 0 * x, {"x": X}).status == "wrong"


def test_one_zero_block_among_others_is_right() -> None:
    def relu_of_minus_one(x: Any, w: Any) -> Any:
        return np.maximum(w - 5.0, 0.0) + x

    def its_backward(dout: Any, x: Any, w: Any) -> Any:
        return dout, dout * (w > 5.0)

    assert check(relu_of_minus_one, its_backward, {"x": X, "w": np.abs(X)}).status == "agree"


def of_size(seed: int, size: int = 6) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {"x": random.normal(size=(size, 4)), "w": W, "b": B}


def divides_by_the_rest(dout: Any, x: Any, w: Any, b: Any) -> Any:
    dx, dw, db = backward(dout, x, w, b)
    return dx, dw, db * (len(x) - 1) / np.float64(len(x) - 1)


def needs_a_row(dout: Any, x: Any, w: Any, b: Any) -> Any:
    assert x[0].size
    return backward(dout, x, w, b)


def adds_where_empty(dout: Any, x: Any, w: Any, b: Any) -> Any:
    dx, dw, db = backward(dout, x, w, b)
    return dx, dw, db + (len(x) == 0)


SIZES: dict[str, Any] = {
    "": backward,
    "db holds NaN or infinity at size 1": divides_by_the_rest,
    "backward raises IndexError at size 0": needs_a_row,
    "db is not the gradient at size 0": adds_where_empty,
}


@pytest.mark.parametrize("said", SIZES)
def test_sizes_0_and_1_of_an_input_factory(said: str) -> None:
    with np.errstate(invalid="ignore"):
        report = check(forward, SIZES[said], of_size, tries=1)
        plain = check(forward, SIZES[said], lambda seed=0: of_size(seed), tries=1)
    assert report.status == ("wrong" if said else "agree"), report
    assert line(report, "sizes 0 and 1").text == said
    assert plain.passed


def test_inputs_may_be_a_function_of_a_seed() -> None:
    def draw(seed: int) -> dict[str, Any]:
        return {"x": np.random.default_rng(seed).normal(size=3) * (0.0 if seed % 2 == 0 else 9.0)}

    def wrong_where_large(dout: Any, x: Any) -> Any:
        return dout * np.where(np.abs(x) > 3.0, 1.0, 1.0 - np.tanh(x) ** 2)

    def right(dout: Any, x: Any) -> Any:
        return dout * (1.0 - np.tanh(x) ** 2)

    assert check(np.tanh, right, draw, seed=0).passed
    assert check(np.tanh, wrong_where_large, draw, seed=0).status == "wrong"


def test_saved_values_several_outputs_and_none() -> None:
    def split(x: Any, scale: float) -> Any:
        return (np.sin(x) * scale, np.argmax(x), x**2), (x, scale)

    def split_backward(dout: Any, saved: Any) -> Any:
        x, scale = saved
        assert dout[1] is None
        return dout[0] * np.cos(x) * scale + 2 * x * dout[2], None

    report = check(split, split_backward, {"x": X, "scale": 2.0}, saved=True)
    assert report.passed, report
    assert [b.parameter for b in report.blocks] == ["x"]


def test_a_gradient_of_none_is_said() -> None:
    def without_b(dout: Any, x: Any, w: Any, b: Any) -> Any:
        dx, dw, _ = backward(dout, x, w, b)
        return dx, dw, None

    report = check(forward, without_b)
    assert report.passed
    assert "backward returns None for b: not checked." in report.notes


def test_a_backward_that_writes_into_what_was_saved() -> None:
    def save(x: Any) -> Any:
        y = np.tanh(x)
        return y, {"y": y.copy()}

    def spoil(dout: Any, saved: Any) -> Any:
        found = dout * (1 - saved["y"] ** 2)
        saved["y"] *= 0.5
        return found

    report = check(save, spoil, {"x": X}, saved=True)
    assert "what forward saved" in line(report, "arguments unchanged").text
    assert line(report, "deterministic").status == "wrong"


def test_complex_inputs_by_real_and_imaginary_parts() -> None:
    z = RNG.normal(size=4) + 1j * RNG.normal(size=4)
    report = check(lambda z: z**2, lambda d, z: d * np.conj(2 * z), {"z": z})
    assert report.passed
    assert report.blocks[0].shape == (4, 2)
    assert check(lambda z: z**2, lambda d, z: d * 2 * z, {"z": z}).status == "wrong"


def test_forward_mode_is_held_to_the_same_differences() -> None:
    def jvp(tangents: Any, x: Any, w: Any, b: Any) -> Any:
        dx, dw, db = (0.0 if t is None else t for t in tangents)
        return (1 - forward(x, w, b) ** 2) * (dx @ w + x @ dw + db)

    def wrong(tangents: Any, x: Any, w: Any, b: Any) -> Any:
        return jvp((tangents[0], tangents[1], 0 * b), x, w, b)

    assert line(check(forward, backward, jvp=jvp), "jvp").status == "agree"
    report = check(forward, backward, jvp=wrong)
    assert line(report, "jvp").status == report.status == "wrong"


def double_backward(ddx: Any, dout: Any, x: Any) -> Any:
    return ddx * np.cos(x), -ddx * dout * np.sin(x)


def test_second_order_checks_the_backward_of_the_backward() -> None:
    def check_sine(second: Any) -> Report:
        return check(np.sin, lambda d, x: d * np.cos(x), {"x": X}, order=2, double_backward=second)

    assert check_sine(double_backward).passed
    report = check_sine(lambda ddx, dout, x: (ddx * np.cos(x), ddx * dout * np.sin(x)))
    assert report.status == "wrong"
    assert report.gradient_status == "agree"
    assert "at second order" in report.to_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": 2}, "double_backward"),
        ({"order": 3}, "order=3"),
        ({"tries": 0}, "tries=0"),
        ({"skip": ["linearity"]}, "skip='linearity'"),
        ({"sampel": 3}, "sampel"),
    ],
)
def test_bad_options_are_refused(options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(forward, backward, **options)


def test_bad_returns_are_refused() -> None:
    with pytest.raises(InputError, match="2 gradients"):
        check(forward, lambda d, *a: (1, 2))
    with pytest.raises(InputError, match="saved=True"):
        check(forward, backward, saved=True)
    with pytest.raises(InputError, match="NaN"):
        check(forward, changed("x", lambda g: g * np.nan))


@pytest.mark.parametrize(
    "size", [150, pytest.param(1000, marks=pytest.mark.slow)], ids=["22,500", "a million"]
)
def test_a_layer_of_many_inputs_takes_few_evaluations(size: int) -> None:
    calls = 0
    wide = RNG.normal(size=(size, size))

    def count(x: Any, g: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.tanh(x) * g

    def slope(dout: Any, x: Any, g: Any) -> Any:
        y = np.tanh(x)
        return dout * g * (1 - y**2), (dout * y).sum(axis=0)

    report = check(count, slope, {"x": wide, "g": wide[0].copy()})
    assert report.passed, report
    assert calls <= 300


def relu_layer(x: Any, w: Any) -> Any:
    return np.maximum(x @ w, 0.0)


def relu_backward(dout: Any, x: Any, w: Any) -> Any:
    dz = dout * (x @ w > 0.0)
    return dz @ w.T, x.T @ dz


@pytest.mark.parametrize("seed", [7, 18, 20])
def test_a_piecewise_linear_layer_agrees(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = {"x": random.normal(size=(6, 5)), "w": random.normal(size=(5, 4))}
    assert check(relu_layer, relu_backward, inputs, seed=seed).status == "agree"


@pytest.mark.parametrize("seed", [2, 5])
def test_what_wide_steps_cannot_tell_is_told_by_narrow_ones(seed: int) -> None:
    layer = module("cholesky")
    inputs = layer.inputs(seed)
    assert check(layer.forward, layer.backward, inputs, seed=seed).status == "agree"


def test_inputs_on_a_kink_are_accepted() -> None:
    x = np.array([0.0, 0.0, 1.0, -1.0, 0.0])
    for slope in (0.0, 1.0):

        def its_backward(dout: Any, x: Any, slope: float = slope) -> Any:
            return dout * np.where(x == 0.0, slope, x > 0.0)

        for seed in range(5):
            report = check(lambda x: np.maximum(x, 0.0), its_backward, {"x": x}, seed=seed)
            assert report.status == "agree", report


def test_an_overflow_in_half_precision_is_no_broken_contract() -> None:
    x = np.full(4, 100.0, np.float16)
    for backward in (
        lambda d, x: d * x * np.float16(200),
        lambda d, x: d * x * np.float16(300) - d * x * np.float16(298),
    ):
        with np.errstate(all="ignore"):
            report = check(lambda x: x**2, backward, {"x": x}, seed=1)
        assert "linear in dout" not in broken(report)  # 16·dout overflows, to NaN in the second


def test_a_gradient_of_nan_is_one_broken_line() -> None:
    def overflows(dout: Any, x: Any) -> Any:
        return 2 * dout * x + (np.float16(np.nan) if x.dtype == np.float16 else 0.0)

    report = check(lambda x: x**2, overflows, {"x": np.ones(4, np.float16)})
    assert broken(report) == {"shapes and dtypes"}
    assert "NaN or infinity" in line(report, "shapes and dtypes").text


def test_sizes_of_one_and_none() -> None:
    for rows, status in ((1, "agree"), (0, "vacuous")):
        inputs = {**INPUTS, "x": X[:rows]}
        assert check(forward, backward, inputs).status == status
    assert check(lambda x: x**2, lambda d, x: 2 * d * x, 1.5).passed
