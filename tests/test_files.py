"""problem.npz: what is written is read back, other programs can write it, bad files are refused."""

import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck.cli.command import run
from fastcheck.errors import InputError
from fastcheck.importers.npz import SPEC_FIELDS, read_problem, write_problem
from fastcheck.importers.npz_reader import LIMIT_BYTES
from fastcheck.model.network import Network
from fastcheck.model.problem import Problem
from fastcheck.reference.example import Example, make_problem
from tests import oracle

SPEC: dict[str, Any] = {"activations": ["tanh", "identity"], "loss": "squared_error", "l2": 0.5}


def arrays(seed: int = 0) -> dict[str, Any]:
    """Return a right file's arrays; the gradient is the oracle's."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(2, 4))]
    biases = [rng.normal(size=4), rng.normal(size=2)]
    X, Y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    dW, db = oracle.backprop(weights, biases, X, Y, **SPEC)
    named: dict[str, Any] = {"X": X, "Y": Y}
    for k in (0, 1):
        named |= {f"W{k + 1}": weights[k], f"b{k + 1}": biases[k]}
        named |= {f"dW{k + 1}": dW[k], f"db{k + 1}": db[k]}
    return named


def saved(path: Path, spec: Any = SPEC, **changes: Any) -> Path:
    """Write a file with some arrays changed; None leaves one out."""
    text = spec if spec is None or isinstance(spec, np.ndarray) else json.dumps(spec)
    named = {**arrays(), "spec": text}
    named |= changes
    np.savez(path, **{k: v for k, v in named.items() if v is not None})
    return path


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which the command refuses a file."""
    assert run([str(path), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastcheck: ")
    return lines[0]


# ---- right files ------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written_by_numpy(tmp_path: Path) -> None:
    named = arrays()
    problem = read_problem(saved(tmp_path / "p.npz"))
    np.testing.assert_array_equal(problem.network.W(2), named["W2"])
    np.testing.assert_array_equal(problem.inputs, named["X"])
    np.testing.assert_array_equal(problem.gradient["db1"], named["db1"])
    assert (problem.network.l2, problem.network.loss.name) == (0.5, "squared_error")
    assert [str(a) for a in problem.network.activations] == ["tanh", "identity"]
    assert problem.name == "p.npz"


@pytest.mark.parametrize(
    "spec",
    [
        np.array(json.dumps(SPEC)),
        np.array([json.dumps(SPEC)]),
        np.array(json.dumps(SPEC).encode()),
        np.frombuffer(json.dumps(SPEC).encode(), dtype=np.uint8),
        np.frombuffer(json.dumps(SPEC).encode(), dtype=np.int8),
        np.frombuffer(b"\xef\xbb\xbf" + json.dumps(SPEC).encode() + b"\n\0\0", dtype=np.uint8),
    ],
    ids=["unicode", "list", "bytes", "uint8", "int8", "BOM and zeros"],
)
def test_the_spec_may_be_text_in_many_forms(tmp_path: Path, spec: Any) -> None:
    assert read_problem(saved(tmp_path / "p.npz", spec=spec)).network.l2 == 0.5


def test_the_spec_may_be_an_entry_of_its_own_and_compressed(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez_compressed(path, **arrays())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("spec.json", json.dumps({**SPEC, "name": "größer"}))
    assert read_problem(path).name == "größer"


def test_a_column_order_array_is_read_in_its_order(tmp_path: Path) -> None:
    W1 = np.asfortranarray(arrays()["W1"])
    problem = read_problem(saved(tmp_path / "p.npz", W1=W1, dW1=W1.astype(">f4")))
    np.testing.assert_array_equal(problem.network.W(1), W1)
    np.testing.assert_array_equal(problem.gradient["dW1"], W1.astype(np.float32))


def test_a_layer_may_have_no_biases(tmp_path: Path) -> None:
    assert read_problem(saved(tmp_path / "p.npz", b1=None, db1=None)).network.b(1) is None


@pytest.mark.parametrize("layout", ["rows", "course", "keras"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_what_is_written_is_read_back(tmp_path: Path, layout: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    turn = layout == "course"
    W = [rng.normal(size=s).astype(dtype) for s in ((4, 3), (2, 4))]
    masks = {1: (rng.random((5, 4)) < 0.5) * 1.0}
    network = Network.from_arrays(
        [w.T for w in W] if layout == "keras" else W,
        [rng.normal(size=4).astype(dtype), None],
        activations=[("elu", 0.25), "sigmoid"],
        loss=("huber", 0.5),
        l2=0.75,
        penalty="l2/m",
        reduction="sum",
        layout=layout,
        keep_prob=0.5,
        dropout_masks={1: masks[1].T if turn else masks[1]},
    )
    X, Y = rng.normal(size=(5, 3)).astype(dtype), rng.normal(size=(5, 2))
    gradient = [w.astype(dtype) for w in rng.normal(size=network.size)]
    inputs, targets = (X.T, Y.T) if turn else (X, Y)
    before = Problem(network, inputs, targets, np.array(gradient), cost=1.25, name="λ’s file")
    write_problem(tmp_path / "p.npz", before)
    after = read_problem(tmp_path / "p.npz")
    np.testing.assert_array_equal(after.network.theta, network.theta)
    np.testing.assert_array_equal(after.network.masks[0], network.masks[0])
    np.testing.assert_array_equal(after.inputs, before.inputs)
    np.testing.assert_array_equal(after.targets, before.targets)
    assert after.gradient["dW1"].shape == after.network.weights[0].shape
    assert after.gradient["dW1"].dtype == dtype
    np.testing.assert_array_equal(
        np.concatenate([after.gradient[k].ravel() for k in ("dW1", "db1", "dW2")]), gradient
    )
    same = ("activations", "loss", "l2", "penalty", "reduction", "layout", "precision")
    for name in same:
        assert getattr(after.network, name) == getattr(network, name), name
    assert (after.cost, after.name) == (1.25, "λ’s file")


def test_the_same_problem_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_problem(tmp_path / name, make_problem(Example(layers=(9, 4, 3), batch=3)))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.npz"
    path.write_text("mine")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match="No space left"):
        write_problem(path, make_problem(Example(layers=(9, 4, 3), batch=3)))
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["p.npz"]


def test_a_function_of_ones_own_cannot_be_written(tmp_path: Path) -> None:
    network = Network.from_arrays([np.ones((1, 2))], activations=[abs], loss="squared_error")
    problem = Problem(network, np.ones((1, 2)), np.ones((1, 1)), np.zeros(2))
    with pytest.raises(InputError, match="'abs', a function of your own"):
        write_problem(tmp_path / "p.npz", problem)
    assert not (tmp_path / "p.npz").exists()


# ---- bad files --------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes()[:-100])


def bad_checksum(path: Path) -> None:
    saved(path)
    data = bytearray(path.read_bytes())
    at = data.find(np.ascontiguousarray(arrays()["W2"]).tobytes())
    data[at + 5] ^= 0x10
    path.write_bytes(data)


def with_entry(path: Path, name: str, content: bytes) -> None:
    """Write a right file in which one entry has other bytes."""
    saved(path)
    with zipfile.ZipFile(path) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in {**entries, name: content}.items():
            archive.writestr(entry, data)


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def header_says(shape: str, data: bytes = b"", descr: str = "<f8") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}", data)


def doubled_entry(path: Path) -> None:
    saved(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("W1.npy", b"")


def header_bomb(path: Path) -> None:
    """A few kilobytes that say their header takes 4 GB."""
    content = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b" " * 2_000_000
    with_entry(path, "W1.npy", content)


def false_directory(path: Path) -> None:
    """A file whose directory says that an entry is far above the limit."""
    saved(path)
    count = LIMIT_BYTES // 8 + 1
    content = header_says(f"({count},)")
    with_entry(path, "X.npy", content)
    data = bytearray(path.read_bytes())
    real, lie = struct.pack("<I", len(content)), struct.pack("<I", 0xFFFFFFFF)
    at = data.rfind(b"X.npy") - 22  # the central directory's size
    assert data[at : at + 4] == real
    data[at : at + 4] = lie
    path.write_bytes(data)


Maker = Callable[[Path], object]

# what is done to the file: what was given, what was expected, what to do
BAD: dict[str, tuple[Maker, str, str, str]] = {
    "empty": (lambda p: p.write_bytes(b""), "p.npz is empty", "a .npz file", "--write-example"),
    "a folder": (lambda p: p.mkdir(), "is a folder", "a .npz file", "--write-example"),
    "missing": (lambda p: None, "no file", "a .npz file", "--write-example"),
    "no zip": (lambda p: p.write_text("W1,b1"), "truncated or corrupt", "complete .npz", "again"),
    "a single array": (
        lambda p: p.write_bytes(header_says("(1,)", b"\0" * 8)),
        "truncated or corrupt", "complete .npz", "again",
    ),
    "truncated": (truncated, "truncated or corrupt", "complete .npz", "again"),
    "bad checksum": (bad_checksum, "p.npz: W2 is truncated or corrupt (Bad CRC", "compl", "again"),
    "doubled entry": (doubled_entry, "holds W1 twice", "each array once", "numpy.savez"),
    "sizes that lie": (
        lambda p: with_entry(p, "X.npy", header_says("(90000, 90000)")),
        "holds 0", "a header that fits the data", "truncated or was written wrongly",
    ),
    "a directory that lies": (false_directory, "p.npz", "a header that fits", "numpy.savez"),
    "header bomb": (header_bomb, "p.npz: W1 is truncated or corrupt", "complete", "again"),
    "negative shape": (
        lambda p: with_entry(p, "X.npy", header_says("(-1, 3)")),
        "p.npz: X says shape (-1, 3)", "a header that fits", "numpy.savez",
    ),
    "data cut": (
        lambda p: with_entry(p, "W1.npy", header_says("(4, 3)", b"\0" * 40)),
        "96 bytes, but holds 40", "a header that fits the data", "truncated",
    ),
    "code in a header": (
        lambda p: with_entry(p, "W1.npy", npy("__import__('os').system('false')")),
        "p.npz: W1 is truncated or corrupt", "complete", "again",
    ),
    "no npy": (lambda p: with_entry(p, "W1.npy", b"hello"), "p.npz: W1", "complete", "again"),
    "newer npy": (
        lambda p: with_entry(p, "W1.npy", npy("{}", version=b"\7\0")),
        "version (7, 0)", "complete", "again",
    ),
    "objects": (
        lambda p: saved(p, W1=np.array([[1.0, None]], dtype=object)),
        "p.npz: W1 is an array of Python objects", "never unpickled", "numeric dtype",
    ),
    "object spec": (
        lambda p: saved(p, spec=np.array(SPEC, dtype=object)),
        "p.npz: spec is an array of Python objects", "never unpickled", "json.dumps",
    ),
    "text for numbers": (
        lambda p: saved(p, W1=np.array([["a", "b"]])), "W1 has dtype <U1", "numbers", "float64",
    ),
    "records": (
        lambda p: saved(p, W1=np.zeros(3, dtype="f8,i4")), "W1 has dtype", "numbers", "float64",
    ),
    "no W1": (lambda p: saved(p, W1=None), "p.npz holds W2.", "without a gap", "numpy.savez"),
    "weights called w1": (
        lambda p: saved(p, W1=None, W2=None, w1=np.ones(2)), "holds no W1", "W1, W2", "Rename 'w1'",
    ),
    "no Y": (lambda p: saved(p, Y=None), "p.npz has no Y", "X, Y, dW1", "targets"),
    "no gradient": (
        lambda p: saved(p, dW2=None, db1=None), "has no db1, dW2", "X, Y, dW1", "gradient to check",
    ),
    "lone db": (lambda p: saved(p, b1=None), "db1 and no b1", "a gradient for each", "Add b1"),
    "small x": (lambda p: saved(p, X=None, x=np.ones(2)), "holds 'x'", "X, Y", "Did you mean 'X'?"),
    "dw_1": (lambda p: saved(p, dW1=None, dw_1=np.ones(2)), "'dw_1'", "dW1", "Did you mean 'dW1'?"),
    "extra": (lambda p: saved(p, momentum=np.ones(2)), "'momentum'", "W1, b1", "leave it out"),
    "W3's gradient": (lambda p: saved(p, dW3=np.ones(2)), "holds 'dW3'", "W1, b1", ""),
    "no spec": (lambda p: saved(p, spec=None), "has no spec", "JSON", "json.dumps"),
    "two specs": (
        lambda p: with_entry(p, "spec.json", b"{}"), "both spec and spec.json", "JSON", "one of",
    ),
    "spec no JSON": (
        lambda p: saved(p, spec=np.array("{'loss': 1}")),
        "not JSON: Expecting property name", "a JSON object such as", "json.dumps",
    ),
    "spec a list": (lambda p: saved(p, spec=[1, 2]), "the spec is '[1, 2]'", "a JSON object", ""),
    "spec of numbers": (
        lambda p: saved(p, spec=np.ones(3)), "dtype float64 and shape (3,)", "one string", "",
    ),
    "spec not UTF-8": (
        lambda p: saved(p, spec=np.frombuffer(b'{"\xff"}', np.uint8)), "byte 2", "UTF-8", "",
    ),
    "spec nested": (
        lambda p: saved(p, spec=np.array("[" * 100_000)), "nested too deeply", "a JSON object", "",
    ),
    "spec NaN": (
        lambda p: saved(p, spec={**SPEC, "l2": float("nan")}), "holds NaN", "finite", "",
    ),
    "spec twice": (
        lambda p: saved(p, spec=np.array('{"l2": 1, "l2": 2}')), "'l2' twice", "once", "",
    ),
    "unknown field": (
        lambda p: saved(p, spec={**SPEC, "activation": "relu"}),
        "unknown field 'activation'", "fields among", "Did you mean 'activations'?",
    ),
    "no loss": (
        lambda p: saved(p, spec={"activations": "relu"}), "no 'loss'", "loss: a", "For example",
    ),
    "unknown activation": (
        lambda p: saved(p, spec={**SPEC, "activations": ["rleu", "identity"]}),
        "p.npz: unknown activation 'rleu'", "one of", "relu",
    ),
    "activations a number": (
        lambda p: saved(p, spec={**SPEC, "activations": 3}), "activations 3", "one a layer", "",
    ),
    "l2 a string": (lambda p: saved(p, spec={**SPEC, "l2": "big"}), 'l2 "big"', "a number", ""),
    "l2 null": (lambda p: saved(p, spec={**SPEC, "l2": None}), "l2=None", "a number", ""),
    "layout": (
        lambda p: saved(p, spec={**SPEC, "layout": "row"}), "layout='row'", "one of rows", "rows",
    ),
    "shapes": (
        lambda p: saved(p, W2=np.ones((4, 2))), "p.npz: W2 takes 2 inputs", "chain", "transpose",
    ),
    "gradient's shape": (
        lambda p: saved(p, dW1=arrays()["dW1"].T),
        "dW1 has shape (3, 4)", "(4, 3), the shape of W1", "Its transpose would fit.",
    ),
    "NaN": (
        lambda p: saved(p, X=np.where(np.arange(15).reshape(5, 3) == 7, np.nan, 1.0)),
        "p.npz: inputs[2, 1] is nan", "finite numbers", "Find where",
    ),
    "complex": (lambda p: saved(p, W1=arrays()["W1"] * 1j), "W1 is complex", "real numbers", ""),
    "zero rows": (
        lambda p: saved(p, X=np.ones((0, 3)), Y=np.ones((0, 2))), "zero samples", "at least", "",
    ),
    "dropout": (
        lambda p: saved(p, spec={**SPEC, "keep_prob": 0.8}),
        "keep_prob=0.8 without dropout_masks", "same value for the same θ", "keep_prob=1",
    ),
    "J": (lambda p: saved(p, J=np.ones(3)), "J has shape (3,)", "one real number", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, given, expected, remedy = BAD[case]
    path = tmp_path / "p.npz"
    make(path)
    line = refused(path, capsys)
    assert given in line
    assert "Expected" in line
    assert expected in line
    assert remedy in line


def test_there_are_no_errors_where_nothing_was_made_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(saved(tmp_path / "p.npz")), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_lying_size_takes_no_memory(tmp_path: Path) -> None:
    """An entry that says it holds more than the limit is refused by its header alone."""
    path = tmp_path / "p.npz"
    count = LIMIT_BYTES // 8
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("W1", "X", "Y", "dW1"):
            archive.writestr(f"{name}.npy", header_says("(1, 1)", b"\0" * 8))
        with archive.open("b1.npy", "w", force_zip64=True) as entry:
            entry.write(header_says(f"({count},)", descr="|b1"))
            for _ in range(count // 2**24):
                entry.write(bytes(2**24))
        archive.writestr("db1.npy", header_says("(1,)", b"\0" * 8))
        archive.writestr("spec.json", json.dumps(SPEC))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"holds 4\.0 GiB of numbers.*at most 4 GiB"):
            read_problem(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24


def test_a_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "p.npz")

    def denied(*_: Any, **__: Any) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", denied)
    assert "Permission denied" in refused(path, capsys)


def test_a_device_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    if stat.S_ISCHR(os.stat("/dev/zero").st_mode):
        with pytest.raises(InputError, match="no regular file"):
            read_problem("/dev/zero")


def test_a_file_damaged_anywhere_is_read_right_or_refused(tmp_path: Path) -> None:
    """Bits flipped and ends cut at many places: InputError, or what was written; nothing else."""
    rng = np.random.default_rng(11)
    whole = saved(tmp_path / "p.npz").read_bytes()
    theta = read_problem(tmp_path / "p.npz").network.theta
    path = tmp_path / "damaged.npz"
    read = 0
    for trial in range(600):
        data = bytearray(whole)
        if trial % 4 == 0:
            data = data[: int(rng.integers(len(data)))]
        else:
            for at in rng.integers(len(data), size=trial % 4):
                data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            problem = read_problem(path)
        except InputError:
            continue
        read += 1  # damage in fields that nothing depends on, such as dates
        np.testing.assert_array_equal(problem.network.theta, theta)
    assert read < 300


def test_every_field_of_the_spec_is_explained() -> None:
    assert all(SPEC_FIELDS.values())
