"""safetensors and ONNX files: each is read back as it was written, others are refused."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcheck import check
from fastcheck.cli.command import run
from fastcheck.errors import InputError
from fastcheck.importers import FORMATS, read_problem, write_problem
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.model.gradient import read_gradient
from fastcheck.model.network import Network
from fastcheck.model.problem import Problem
from fastcheck.reference.backprop import backward_pass

SUFFIXES = tuple(FORMATS)


def needs(suffix: str) -> None:
    if suffix != ".npz":
        pytest.importorskip(suffix.removeprefix("."))


def problem(activation: str = "tanh", **options: Any) -> Problem:
    """Return a problem with a right gradient; the last layer has no biases."""
    random = np.random.default_rng(0)
    dtype = options.pop("dtype", "float64")
    sizes = (5, 4, 4, 3)
    weights = [random.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)]
    biases: list[Any] = [random.standard_normal(4).astype(dtype) for _ in range(2)]
    if options.get("layout") == "keras":
        weights = [W.T for W in weights]
    network = Network.from_arrays(
        [W.astype(dtype) for W in weights],
        [*biases, None],
        **{"activations": activation, "l2": 0.1, **options},
    )
    X, Y = random.standard_normal((6, 5)), random.integers(0, 3, 6)
    if options.get("layout") == "course":
        X = X.T
    return Problem(network, X, Y, backward_pass, cost=None, name="a problem")


def same(a: Problem, b: Problem) -> None:
    """Hold two problems against each other."""
    np.testing.assert_array_equal(a.network.theta, b.network.theta)
    assert [(x.name, x.shape, x.transposed) for x in a.network.order.blocks] == [
        (x.name, x.shape, x.transposed) for x in b.network.order.blocks
    ]
    assert a.network.describe() == b.network.describe()
    for name in ("l2", "penalty", "reduction", "loss_scale", "precision"):
        assert getattr(a.network, name) == getattr(b.network, name), name
    first, second = (p.network.batch(p.inputs, p.targets) for p in (a, b))
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.T, second.T)
    gradients = [read_gradient(p.network, p.gradient, p.inputs, p.targets) for p in (a, b)]
    np.testing.assert_array_equal(gradients[0].vector, gradients[1].vector)
    assert gradients[0].precision == gradients[1].precision


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_written_is_read_back(suffix: str, activation: str, tmp_path: Path) -> None:
    needs(suffix)
    written = problem(activation)
    write_problem(tmp_path / f"p{suffix}", written)
    same(written, read_problem(tmp_path / f"p{suffix}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "float16"},
        {"layout": "keras"},
        {"layout": "course"},
        {"penalty": "l2/2", "reduction": "sum", "loss_scale": 0.5},
        {"activations": [("elu", 0.5), ("leaky_relu", 0.2), "identity"]},
        {"names": {"W1": "net.0.weight", "b1": "net.0.bias", "W3": "head"}},
    ],
)
def test_conventions_and_names_are_read_back(
    suffix: str, options: dict[str, Any], tmp_path: Path
) -> None:
    needs(suffix)
    written = problem(**options)
    write_problem(tmp_path / f"p{suffix}", written)
    same(written, read_problem(tmp_path / f"p{suffix}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_takes_every_kind_of_file(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs(suffix)
    right = problem()
    write_problem(tmp_path / f"right{suffix}", right)
    assert run([str(tmp_path / f"right{suffix}"), "--quiet"]) == 0
    gradient = backward_pass(right.network, right.inputs, right.targets)
    gradient["db2"] = gradient["db2"] * 1.01
    network = right.network
    write_problem(
        tmp_path / f"wrong{suffix}", Problem(network, right.inputs, right.targets, gradient)
    )
    assert run([str(tmp_path / f"wrong{suffix}"), "--quiet"]) == 1
    assert "db2" in capsys.readouterr().out


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.npz, \.safetensors, \.onnx"):
        read_problem(tmp_path / "p.h5")


def test_safetensors_without_a_spec_or_damaged_are_refused(tmp_path: Path) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    numpy_format.save_file({"W1": np.ones((2, 2))}, tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="metadata entry 'fastcheck'"):
        read_problem(tmp_path / "p.safetensors")
    (tmp_path / "q.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="truncated or corrupt"):
        read_problem(tmp_path / "q.safetensors")
    with pytest.raises(InputError, match="no file"):
        read_problem(tmp_path / "r.safetensors")


# ONNX graphs as other programs write them.


def graph(onnx: Any, nodes: list[Any], **constants: Any) -> Any:
    helper = onnx.helper
    given = [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()]
    value = helper.make_tensor_value_info
    double = onnx.TensorProto.DOUBLE
    made = helper.make_graph(
        nodes, "g", [value("X", double, [None, 5])], [value("out", double, [None, 3])], given
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def weights() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "A": random.standard_normal((5, 4)), "a": random.standard_normal(4),
        "B": random.standard_normal((3, 4)),
    }  # fmt: skip


def save_second(folder: Path, arrays: dict[str, Any], gradient: Any, **spec: Any) -> None:
    named = dict(zip(arrays, gradient, strict=True))
    X = np.random.default_rng(2).standard_normal((6, 5))
    text = json.dumps({"loss": "softmax_cross_entropy", **spec})
    np.savez(folder / "m.gradient.npz", X=X, Y=np.arange(6) % 3, spec=text, **named)


def test_matmul_and_add_transposed_weights_and_a_gate(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node, own = onnx.helper.make_node, weights()
    nodes = [
        node("MatMul", ["X", "A"], ["z0"]),
        node("Add", ["a", "z0"], ["z1"]),
        node("Sigmoid", ["z1"], ["s"]),
        node("Mul", ["s", "z1"], ["a1"]),
        node("Dropout", ["a1"], ["a2"]),
        node("Transpose", ["B"], ["Bt"], perm=[1, 0]),
        node("MatMul", ["a2", "Bt"], ["out"]),
    ]
    onnx.save(graph(onnx, nodes, **own), tmp_path / "m.onnx")
    network = Network.from_arrays(
        [own["A"].T, own["B"]], [own["a"], None], activations=["silu", "identity"]
    )
    X = np.random.default_rng(2).standard_normal((6, 5))
    right = backward_pass(network, X, np.arange(6) % 3)
    save_second(tmp_path, own, [right["dW1"].T, right["db1"], right["dW2"]])
    found = read_problem(tmp_path / "m.onnx")
    report = check.gradcheck(found.network, found.inputs, found.targets, found.gradient)
    assert report.passed, report.to_text()
    assert [b.parameter for b in report.blocks] == ["A.T", "a", "B"]


def test_nodes_of_other_kinds_are_refused_with_their_names(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node, own = onnx.helper.make_node, weights()
    first = node("Gemm", ["X", "A", "a"], ["z1"])
    last = node("Gemm", ["a1", "B"], ["out"], transB=1)
    cases = {
        r"odd \(Erf\)": [first, node("Erf", ["z1"], ["a1"], "odd"), last],
        r"skip or a branch": [
            first, node("Relu", ["z1"], ["r"]), node("Add", ["z1", "r"], ["a1"]), last,
        ],
        r"Clip to 0.0..2.0": [
            first,
            node("Constant", [], ["low"], value_float=0.0),
            node("Constant", [], ["high"], value_float=2.0),
            node("Clip", ["z1", "low", "high"], ["a1"]),
            last,
        ],
        "alpha, beta": [node("Gemm", ["X", "A", "a"], ["a1"], alpha=2.0), last],
    }  # fmt: skip
    save_second(tmp_path, own, own.values())
    for message, nodes in cases.items():
        onnx.save(graph(onnx, nodes, **own), tmp_path / "m.onnx")
        with pytest.raises(InputError, match=message) as caught:
            read_problem(tmp_path / "m.onnx")
        assert "gradcheck_function" in str(caught.value)


def test_an_onnx_file_needs_its_gradient_and_its_loss(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node, own = onnx.helper.make_node, weights()
    nodes = [node("Gemm", ["X", "A", "a"], ["z"]), node("Gemm", ["z", "B"], ["out"], transB=1)]
    onnx.save(graph(onnx, nodes, **own), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.gradient\.npz"):
        read_problem(tmp_path / "m.onnx")
    np.savez(tmp_path / "g.npz", X=np.ones((2, 5)), Y=np.zeros(2), **own)
    with pytest.raises(InputError, match="loss"):
        read_problem(tmp_path / "m.onnx", gradient=tmp_path / "g.npz")
    found = read_problem(
        tmp_path / "m.onnx", gradient=tmp_path / "g.npz", loss="softmax_cross_entropy"
    )
    assert found.network.sizes == [5, 4, 3]
    (tmp_path / "n.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"n\.onnx is no ONNX model"):
        read_problem(tmp_path / "n.onnx", gradient=tmp_path / "g.npz")


def in_two_files(folder: Path, ending: str) -> Path:
    """Write a small problem as m.onnx, and its second file under a name that nobody looks for."""
    network = Network.from_arrays([np.eye(3), np.ones((2, 3))], activations="tanh")
    X, Y = np.random.default_rng(0).normal(size=(4, 3)), np.arange(4) % 2
    whole = Problem(network, X, Y, backward_pass)
    write_problem(folder / "m.onnx", whole)
    (folder / "m.gradient.npz").unlink()
    write_problem(folder / f"elsewhere{ending}", whole)
    return folder / f"elsewhere{ending}"


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_the_command_takes_the_second_file(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole problem file serves: its dW1 is the gradient, and not its W1."""
    needs(".onnx")
    needs(ending)
    second = in_two_files(tmp_path, ending)
    model = str(tmp_path / "m.onnx")
    assert run([model, "--quiet"]) == 2
    assert "no m.gradient.npz beside it" in capsys.readouterr().err
    assert run([model, "--quiet", "--gradient", str(second)]) == 0
    assert run([model, "--quiet", "--gradient", str(tmp_path / f"none{ending}")]) == 2
    assert f"none{ending}" in capsys.readouterr().err


def test_what_torch_exports_is_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 3),
        nn.ReLU6(), nn.Linear(3, 2),
    ).double()  # fmt: skip
    x, y = torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 2
    assert onnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own exporter
        torch.onnx.export(module, x, tmp_path / "m.onnx", dynamo=False, opset_version=20)
    torch.nn.functional.cross_entropy(module(x), y).backward()
    gradients = {name: p.grad.numpy() for name, p in module.named_parameters()}
    spec = json.dumps({"loss": "softmax_cross_entropy"})
    np.savez(tmp_path / "m.gradient.npz", X=x.numpy(), Y=y.numpy(), spec=spec, **gradients)
    found = read_problem(tmp_path / "m.onnx")
    report = check.gradcheck(found.network, found.inputs, found.targets, found.gradient)
    assert report.passed, report.to_text()
    assert report.blocks[2].parameter == "3.weight"


@pytest.mark.parametrize(
    ("framework", "extra", "call"),
    [
        ("torch", "torch", lambda f: f.check_torch(None, None, None, None)),
        ("keras", "keras", lambda f: f.check_keras(None, None, None, None)),
        ("sklearn.neural_network", "sklearn", lambda f: f.check_sklearn(None, None, None)),
    ],
)
def test_a_framework_that_is_missing_is_named_with_its_extra(
    framework: str, extra: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == framework:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    import fastcheck.frameworks

    with pytest.raises(InputError, match=rf"pip install 'fastcheck\[{extra}\]'"):
        call(fastcheck.frameworks)


def test_importing_the_importers_imports_no_framework() -> None:
    import subprocess

    code = (
        "import sys, fastcheck.frameworks, fastcheck.importers.onnx.problem, "
        "fastcheck.importers.safetensors\n"
        "assert not {'torch', 'keras', 'sklearn', 'jax', 'onnx', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
