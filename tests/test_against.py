"""`gradcheck_against`: a gradient beside a trusted one; rounding passes, wrong ones do not."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck import InputError, Report, audit_tolerance, gradcheck_against
from fastcheck.cli.command import run
from fastcheck.importers.array_files import open_arrays
from fastcheck.report.plot_data import unpacked
from fastcheck.verdict.rules import CANNOT_TELL, WRONG
from tests.repetitions import draws

Arrays = dict[str, Any]
SHAPES = {"wq": (32, 32), "wk": (32, 32), "bias": (32,), "scale": (1,), "table": (40, 8)}
SCALES = {"wq": 1.0, "wk": 0.3, "bias": 0.01, "scale": 3.0, "table": 1e-3}


def bfloat16(values: Any) -> Any:
    """Return values rounded to bfloat16, as float32."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def reference(seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: SCALES[name] * random.normal(size=shape) for name, shape in SHAPES.items()}


def rounded(right: Arrays, seed: int, size: float = 0.01, store: Any = bfloat16) -> Arrays:
    """Return what an implementation with errors of a relative size makes of a gradient."""
    random = np.random.default_rng([seed, 1])
    made = {}
    for name, value in right.items():
        rms = float(np.sqrt(np.mean(value**2)))
        noise = size * (np.abs(value) + rms) * random.normal(size=value.shape)
        made[name] = store(value + noise)
    return made


RIGHT = reference()
PLAIN, GOOD = rounded(RIGHT, 1), rounded(RIGHT, 2)


def wrong_blocks(report: Report) -> list[str]:
    return [block.parameter for block in report.blocks if block.verdict == "wrong"]


def sizes(seed: int) -> float:
    return float(10.0 ** np.random.default_rng([seed, 3]).uniform(-3, -1.2))


@draws(few=40, all_of_them=400)
def test_two_equally_good_implementations_are_never_accused(seed: int) -> None:
    right = reference(seed)
    size = sizes(seed)
    given, plain = rounded(right, seed, size), rounded(right, seed + 10_000, size)
    report = gradcheck_against(right, given, plain)
    allowed = ("agree", "cannot tell", "vacuous") if size > 0.03 else ("agree",)
    assert report.status in allowed, (size, report)
    assert wrong_blocks(report) == []
    assert wrong_blocks(gradcheck_against(right, given)) == []


def row(name: str) -> Any:
    def change(given: Arrays) -> Any:
        made = np.array(given[name])
        made[7] = 0
        return made

    return change


def entry(given: Arrays) -> Any:
    made = np.array(given["wq"])
    made[3, 5] += 1.0
    return made


def tile(given: Arrays) -> Any:
    made = np.array(given["wq"])
    made[8:16, :8] *= -1
    return made


FAULTS: dict[str, Any] = {
    "its sign is wrong": ("wq", lambda g: -g["wq"]),
    "it is doubled": ("wk", lambda g: 2 * g["wk"]),
    "every component is 1.3": ("wq", lambda g: 1.3 * g["wq"]),
    "it is transposed": ("wk", lambda g: g["wk"].T),
    "it is zero": ("bias", lambda g: 0 * g["bias"]),
    "only index 7 of axis 0 is zero": ("wq", row("wq")),
    "it is shifted by one along axis 0": ("table", lambda g: np.roll(g["table"], 1, 0)),
    "it is reversed along axis 1": ("table", lambda g: g["table"][:, ::-1]),
    "only indices 8 to 15 of axis 0, indices 0 to 7 of axis 1": ("wq", tile),
    "1 component is farther off": ("wq", entry),
    "NaN": ("wk", lambda g: np.full_like(g["wk"], np.nan)),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_wrong_block_is_named_with_what_its_shape_tells(said: str) -> None:
    name, change = FAULTS[said]
    report = gradcheck_against(RIGHT, {**GOOD, name: change(GOOD)}, PLAIN)
    assert report.status == "wrong"
    assert wrong_blocks(report) == [name]
    assert any(n.startswith(f"{name}:") and said in n for n in report.notes), report.notes
    assert Report.from_json(report.to_json()).status == "wrong"


def test_swapped_blocks_are_told() -> None:
    report = gradcheck_against(RIGHT, {**GOOD, "wq": GOOD["wk"], "wk": GOOD["wq"]}, PLAIN)
    assert wrong_blocks(report) == ["wq", "wk"]
    assert sum("the two are swapped" in note for note in report.notes) == 2


def test_three_times_the_error_of_the_baseline_is_the_limit() -> None:
    twice, six = rounded(RIGHT, 5, 0.02), rounded(RIGHT, 5, 0.06)
    assert gradcheck_against(RIGHT, twice, PLAIN).status == "agree"
    assert gradcheck_against(RIGHT, six, PLAIN).status == "wrong"


@pytest.mark.parametrize("store", [np.float64, np.float32, np.float16])
def test_without_a_baseline_storing_in_a_precision_is_no_error(store: Any) -> None:
    given = {name: np.asarray(value, store) for name, value in RIGHT.items()}
    assert gradcheck_against(RIGHT, given).status == "agree"
    assert gradcheck_against(RIGHT, {**given, "wq": -given["wq"]}).status == "wrong"
    assert gradcheck_against(RIGHT, {**given, "wq": 0 * given["wq"]}).status == "wrong"


def test_without_a_baseline_a_diffuse_error_cannot_be_told() -> None:
    given = rounded(RIGHT, 3, 0.03, np.float32)  # computed in bfloat16, stored in float32
    report = gradcheck_against(RIGHT, given)
    assert report.status == "cannot tell"
    assert any("a baseline can tell" in note for note in report.notes)


def test_an_ill_conditioned_block_is_no_pass() -> None:
    noisy = rounded(RIGHT, 4, 0.3)
    report = gradcheck_against(
        RIGHT, {**GOOD, "bias": noisy["bias"]}, {**PLAIN, "bias": noisy["bias"]}
    )
    assert report.status == "cannot tell"
    assert any("ill-conditioned" in note for note in report.notes)


def test_a_reference_below_the_tolerance_is_vacuous() -> None:
    tiny = {**RIGHT, "bias": 1e-3 * RIGHT["bias"]}
    noise = {"bias": bfloat16(0.1 * RIGHT["bias"])}
    report = gradcheck_against(tiny, {**GOOD, **noise}, {**PLAIN, "bias": -noise["bias"]})
    assert report.status == "vacuous"
    assert wrong_blocks(report) == []


def test_a_block_that_is_zero_up_to_rounding_is_a_note() -> None:
    bias = {"key.bias": 1e-17 * RIGHT["bias"]}  # in front of a softmax
    noise = [{"key.bias": bfloat16(s * 1e-3 * RIGHT["wq"][0])} for s in (1.0, -1.3)]
    right, given, plain = {**RIGHT, **bias}, {**GOOD, **noise[0]}, {**PLAIN, **noise[1]}
    for report in (gradcheck_against(right, given, plain), gradcheck_against(right, given)):
        assert report.status in ("agree", "cannot tell")
        assert next(b for b in report.blocks if b.parameter == "key.bias").status == "vacuous"
    large = {**given, "key.bias": np.asarray(RIGHT["wq"][0], np.float32)}
    assert gradcheck_against(right, large, plain).status == "wrong"
    assert gradcheck_against(right, large).status == "wrong"


def test_a_zero_block_among_others_is_a_note() -> None:
    zero = {"dead": np.zeros((4, 4))}
    report = gradcheck_against({**RIGHT, **zero}, {**GOOD, **zero}, {**PLAIN, **zero})
    assert report.status == "agree"
    assert "dead: zero in both." in report.notes
    assert gradcheck_against(zero, zero).status == "vacuous"


def test_keys_that_are_missing_extra_renamed_or_transposed_are_said() -> None:
    given = {f"module.{name}" if name == "wk" else name: v for name, v in GOOD.items()}
    given["table"] = given["table"].T
    given["more"] = np.ones(3)
    report = gradcheck_against(RIGHT, given, PLAIN)
    assert report.status == "agree"
    text = " ".join(report.notes)
    for said in ("wk is called module.wk", "compared transposed", "not checked: more"):
        assert said in text
    del given["wq"]
    report = gradcheck_against(RIGHT, given, PLAIN)
    assert report.status == "cannot tell"
    assert "Missing in the given gradient: wq." in report.notes


def test_nested_containers_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    nested = {"layers": [{"w": RIGHT["wq"]}, {"w": RIGHT["wk"], "none": None}]}
    given = {
        "layers": [
            {"w": torch.tensor(GOOD["wq"]).to(torch.bfloat16)},
            {"w": torch.tensor(GOOD["wk"]), "none": None},
        ]
    }
    report = gradcheck_against(nested, given)
    assert report.status == "agree"
    assert [block.parameter for block in report.blocks] == ["layers.0.w", "layers.1.w"]


def write_safetensors(file: Path, arrays: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write the format as its specification says, with nothing of anybody's library."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in arrays.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def files(folder: Path) -> tuple[Path, Path, Path]:
    reference, baseline, given = (folder / n for n in ("ref.npz", "base.npz", "given.safetensors"))
    np.savez(reference, **RIGHT)
    np.savez_compressed(baseline, **PLAIN)
    bits = {n: (v.view(np.uint32) >> 16).astype("<u2") for n, v in GOOD.items()}
    write_safetensors(given, {n: ("BF16", b.shape, b.tobytes()) for n, b in bits.items()})
    return reference, baseline, given


def test_files_hold_the_same_as_arrays(tmp_path: Path) -> None:
    reference, baseline, given = files(tmp_path)
    for file, arrays in ((reference, RIGHT), (baseline, PLAIN), (given, GOOD)):
        opened = open_arrays(file)
        assert set(opened) == set(arrays)
        assert all(np.array_equal(opened[n].whole(), arrays[n]) for n in arrays)
    assert open_arrays(given)["wq"].precision == "bfloat16"
    report = gradcheck_against(reference, given, baseline)
    assert report == gradcheck_against(RIGHT, GOOD, PLAIN).__class__.from_json(report.to_json())
    assert report.status == "agree"


def test_the_libraries_files_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    saved = pytest.importorskip("safetensors.torch")
    tensors = {n: torch.tensor(v).to(torch.bfloat16) for n, v in GOOD.items()}
    saved.save_file(tensors, tmp_path / "g.safetensors", metadata={"format": "pt"})
    opened = open_arrays(tmp_path / "g.safetensors")
    assert all(np.array_equal(opened[n].whole(), GOOD[n]) for n in GOOD)


def same_values(opened: Any, arrays: Arrays) -> bool:
    """Return whether files hold some arrays in bfloat16, piece by piece too."""
    whole = all(np.array_equal(opened[n].whole(), arrays[n]) for n in arrays)
    parts = all(
        np.array_equal(opened[n].piece(1, 3), arrays[n].ravel()[1:3]) for n in ("wq", "bias")
    )
    return whole and parts and all(opened[n].precision == "bfloat16" for n in arrays)


def test_files_that_jax_programs_write_are_read(tmp_path: Path) -> None:
    jnp: Any = pytest.importorskip("jax.numpy")
    flax: Any = pytest.importorskip("safetensors.flax")
    arrays = {n: jnp.asarray(v, jnp.bfloat16) for n, v in GOOD.items()}
    flax.save_file(arrays, tmp_path / "flax.safetensors")
    np.savez(tmp_path / "stored.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    for name in ("flax.safetensors", "stored.npz", "packed.npz"):
        opened = open_arrays(tmp_path / name)
        assert same_values(opened, GOOD), name
        assert gradcheck_against(RIGHT, tmp_path / name, PLAIN).status == "agree"
    np.save(tmp_path / "one.npy", arrays["wq"])
    report = gradcheck_against(RIGHT["wq"], tmp_path / "one.npy", PLAIN["wq"])
    assert report.status == "agree"
    assert report.held_to.precision == "bfloat16"
    np.save(tmp_path / "bad.npy", -np.asfortranarray(GOOD["wq"]))
    assert gradcheck_against(RIGHT["wq"], tmp_path / "bad.npy", PLAIN["wq"]).status == "wrong"


@pytest.mark.parametrize("size", [10**6, pytest.param(2 * 10**7, marks=pytest.mark.slow)])
def test_files_are_judged_in_bounded_memory(tmp_path: Path, size: int) -> None:
    random = np.random.default_rng(0)
    right = random.standard_normal(size, np.float32).reshape(-1, 100)
    np.savez(tmp_path / "ref.npz", w=right, v=right[:, 0])
    bits = {"w": bfloat16(right), "v": bfloat16(right[:, 0])}
    raw = {n: (v.view(np.uint32) >> 16).astype("<u2") for n, v in bits.items()}
    write_safetensors(
        tmp_path / "given.safetensors", {n: ("BF16", b.shape, b.tobytes()) for n, b in raw.items()}
    )
    script = (
        "import resource, sys\n"
        "from fastcheck import gradcheck_against\n"
        "gradcheck_against({'w': [1.0, 2.0]}, {'w': [1.0, 2.0]}).to_html()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "report = gradcheck_against('ref.npz', 'given.safetensors')\n"
        "report.to_html()\n"
        "print(report.status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", script]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    status, kilobytes = made.stdout.split()
    assert status == "agree"
    assert int(kilobytes) < 300_000


@pytest.mark.parametrize("cut", [4, 40, 600])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    _, _, given = files(tmp_path)
    given.write_bytes(given.read_bytes()[:-cut] if cut < 600 else b"\0" * 600)
    with pytest.raises(InputError):
        open_arrays(given)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, baseline, given = map(str, files(tmp_path))
    page = tmp_path / "page.html"
    options = ["--reference", reference, "--baseline", baseline, "--html", str(page)]
    assert run(["compare", given, *options, "--allclose", "5,50"]) == 0
    shown = capsys.readouterr().out
    assert "as far as its precision allows" in shown
    assert "the sign flipped               in wq, wk, bias, scale and 1 more" in shown
    assert "beside a trusted gradient" in page.read_text("utf-8")
    bad = tmp_path / "bad.npz"
    np.savez(bad, **{**GOOD, "wq": -GOOD["wq"]})
    assert run(["compare", str(bad), *options, "--quiet"]) == 1
    assert "more than rounding explains in d(wq)" in capsys.readouterr().out
    assert run(["compare", given, "--reference", str(tmp_path / "none.npz")]) == 2
    assert run(["compare", given, "--reference", reference, "--allclose", "5"]) == 2
    assert "--allclose '5'" in capsys.readouterr().err


def test_the_tolerances_that_libraries_use_let_gross_errors_pass() -> None:
    audit = audit_tolerance(RIGHT, rtol=50, atol=5, baseline=PLAIN)
    assert audit.blind
    assert audit.passes("the sign flipped") == list(RIGHT)
    tight = audit_tolerance(RIGHT, rtol=0.05, atol=1e-5)
    assert not tight.blind
    assert not any(map(tight.passes, tight.unseen))
    llm_c = audit_tolerance({"small": 6e-4 * RIGHT["wq"]}, rtol=0, atol=2e-2)
    assert llm_c.passes("the sign flipped") == ["small"]


@pytest.mark.parametrize("atol", [0.0, 0.01, 0.5, 3.0])
def test_an_audit_says_what_allclose_does(atol: float) -> None:
    value = RIGHT["wq"]
    audit = audit_tolerance({"w": value}, rtol=0.1, atol=atol)

    def passes(changed: Any) -> bool:
        return bool(np.allclose(changed, value, rtol=0.1, atol=atol))

    def without(k: int) -> Any:
        return value * (np.arange(32) != k)[:, None]

    assert (audit.unseen["the sign flipped"]["w"] == 1.0) == passes(-value)
    assert (audit.unseen["all zero"]["w"] == 1.0) == passes(0 * value)
    share = np.mean([passes(without(k)) for k in range(32)])
    assert audit.unseen["one row zero"]["w"] == pytest.approx(share)


def test_the_tightest_tolerance_passes_the_baseline_and_no_fault() -> None:
    audit = audit_tolerance(RIGHT, rtol=1, atol=1, baseline=PLAIN)
    for name, t in audit.tightest.items():
        assert np.allclose(PLAIN[name], RIGHT[name], rtol=t, atol=t * audit.rms[name])
    assert 0.01 < audit.tightest["wq"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({}, {}), "without arrays"),
        (({"a": np.ones(2)}, {"b": np.ones(3)}), "no block in common"),
        (({"a": np.ones((2, 3))}, {"a": np.ones((4, 2, 3))}), "a sum over the first axis"),
        (({"a": np.array([np.nan])}, {"a": np.ones(1)}), "NaN"),
        (({"a": np.ones(2)}, {"a": np.array(["x", "y"])}), "dtype"),
        (({"a": np.ones(2)}, {"a": np.ones(2)}, {"b": np.ones(2)}), "the baseline has no 'a'"),
        (("gradients.txt", {"a": np.ones(2)}), "a .npz, .npy or .safetensors file"),
    ],
)
def test_bad_input_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"(?i){said}"):
        gradcheck_against(*arguments)


def cells_of(report: Report, name: str, what: str = "status") -> Any:
    """Return what the heat map of a block shows, cell by cell."""
    pictures = report.with_pictures().pictures
    assert pictures is not None
    grid = next(g for g in pictures.grids if g.block == name)
    return unpacked(getattr(grid, what), "u1" if what == "status" else "f8").reshape(grid.cells)


def test_the_page_shows_which_cells_are_wrong() -> None:
    report = gradcheck_against(RIGHT, {**GOOD, "wq": tile(GOOD)}, PLAIN)
    wrong = cells_of(report, "d(wq)") == WRONG
    assert wrong[8:16, :8].mean() > 0.8  # small ones differ by less than rounding
    assert wrong.sum() == wrong[8:16, :8].sum() == next(iter(report.blocks)).wrong
    assert np.array_equal(cells_of(report, "d(wq)", "gradient"), tile(GOOD))
    assert not (cells_of(report, "d(wk)") == WRONG).any()
    page = report.to_html()
    assert 'id="block-0"' in page
    assert page.count('class="field"') == len(RIGHT)


def test_an_error_that_is_spread_over_a_block_is_of_no_component() -> None:
    report = gradcheck_against(RIGHT, rounded(RIGHT, 3, 0.03, np.float32))
    block = next(b for b in report.blocks if b.parameter == "wq")
    shown = cells_of(report, "d(wq)")
    assert block.status == "cannot tell"
    assert (shown == CANNOT_TELL).sum() == block.cannot_tell > 0
    assert not (shown == WRONG).any()
    assert all(c.status == "cannot tell" for c in report.components)


def test_long_rows_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"v": np.random.default_rng(0).normal(size=3001), "m": RIGHT["wq"][:2]}
    signs = np.where(np.arange(3001) == 1234, -1.0, 1.0)
    given = {"v": (signs * right["v"]).astype(np.float32), "m": right["m"]}
    whole = gradcheck_against(right, given).with_pictures().pictures
    monkeypatch.setattr("fastcheck.report.downsample_trios.MAX_BAND", 100)
    parts = gradcheck_against(right, given).with_pictures().pictures
    assert whole is not None
    assert parts is not None
    assert whole.grids == parts.grids
    assert whole.histograms == parts.histograms
    shown = cells_of(gradcheck_against(right, given), "d(v)")[0] == WRONG
    assert np.flatnonzero(shown).tolist() == [1234 // 24]


GROSS = [said for said in FAULTS if "1.3" not in said and "1 component" not in said]


@pytest.mark.parametrize("said", GROSS)
def test_gross_errors_are_named_without_a_baseline(said: str) -> None:
    name, change = FAULTS[said]
    report = gradcheck_against(RIGHT, {**GOOD, name: change(GOOD)})
    assert wrong_blocks(report) == [name]
    assert any(n.startswith(f"{name}:") and said in n for n in report.notes), report.notes


def heads(given: Arrays) -> Any:
    made = np.array(given["wq"])
    made[8:16] = 0
    return made


def test_a_head_is_named_in_either_way() -> None:
    for plain in (PLAIN, None):
        report = gradcheck_against(RIGHT, {**GOOD, "wq": heads(GOOD)}, plain)
        assert any("only indices 8 to 15 of axis 0 are zero" in n for n in report.notes)


OTHER = rounded(reference(99), 2)
# Changes of which the shape tells nothing.
NO_CAUSE: dict[str, Any] = {
    "stale": lambda g, r: OTHER["wq"],
    "sum of two steps": lambda g, r: g + OTHER["wq"],
    "each by its own factor": lambda g, r: g * r.uniform(0.2, 2.0, g.shape),
    "each row by its own factor": lambda g, r: g * r.uniform(0.2, 2.0, (32, 1)),
    "another sign in half of the rows": lambda g, r: (
        g * np.where(np.arange(32) % 2, 1, -1)[:, None]
    ),
    "another order of rows": lambda g, r: g[r.permutation(32)],
    "squared": lambda g, r: g * np.abs(g),
    "clipped": lambda g, r: np.clip(g, -0.3, 0.3),
    "two heads, each its own way": lambda g, r: np.concatenate(
        [-g[:8], g[8:24], 2 * g[24:]], axis=0
    ),
    "products in another order": lambda g, r: g @ np.roll(np.eye(32), 5, 0) @ g / 5,
}


@pytest.mark.parametrize("name", NO_CAUSE)
@draws(few=3, all_of_them=30)
def test_no_cause_is_claimed_that_the_shape_does_not_tell(name: str, seed: int) -> None:
    given = np.asarray(NO_CAUSE[name](GOOD["wq"], np.random.default_rng(seed)))
    for plain in (PLAIN, None):
        report = gradcheck_against(RIGHT, {**GOOD, "wq": bfloat16(given)}, plain)
        assert report.status != "agree"
        told = [note for note in report.notes if note.startswith("wq: ")]
        plain_words = r"wq: (its error is|off by|[\d,]+ components? (is|are) farther)"
        assert all(re.match(plain_words, note) for note in told), told


def test_a_head_is_not_all_where_the_rest_is_off_too() -> None:
    both = np.concatenate([0 * GOOD["wq"][:8], 1.08 * GOOD["wq"][8:]])
    report = gradcheck_against(RIGHT, {**GOOD, "wq": bfloat16(both)}, PLAIN)
    assert report.status == "wrong"
    assert not any("only indices" in note for note in report.notes)
