"""Gradients are read in every form people keep them in, and refused with what would help."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.model.gradient import read_gradient
from fastcheck.model.network import Network

SIZES = (4, 3, 2)


def network(
    layout: str = "rows", biases: bool = True, dtype: Any = float, **options: Any
) -> Network:
    rng = np.random.default_rng(0)
    W = [rng.normal(size=(b, a)).astype(dtype) for a, b in pairwise(SIZES)]
    if layout == "keras":
        W = [w.T for w in W]
    b = [rng.normal(size=n).astype(dtype) for n in SIZES[1:]] if biases else None
    return Network.from_arrays(W, b, layout=layout, **options)


def blocks(net: Network, dtype: Any = float) -> dict[str, Any]:
    """A gradient in the user's layout whose values in θ's order are 0, 1, 2, …"""
    counted = np.arange(net.size, dtype=float)
    return {
        b.gradient_name: net.user_array(b, v).astype(dtype) for b, v in net.order.views(counted)
    }


def read(net: Network, gradient: Any) -> Any:
    return read_gradient(net, gradient, None, None)


FORMS: dict[str, Any] = {
    "dW1, db1": lambda g: g,
    "W1, b1": lambda g: {k[1:]: v for k, v in g.items()},
    "with dZ and dA by the way": lambda g: {**g, "dZ2": np.ones(3), "dA0": np.ones(2)},
    "list": lambda g: list(g.values()),
    "pairs": lambda g: [(g["dW1"], g["db1"]), (g["dW2"], g["db2"])],
    "weights, then biases": lambda g: ([g["dW1"], g["dW2"]], [g["db1"], g["db2"]]),
    "flat vector": lambda g: np.concatenate([v.ravel() for v in g.values()]),
    "flat column": lambda g: np.concatenate([v.ravel() for v in g.values()])[:, None],
    "list of numbers": lambda g: np.concatenate([v.ravel() for v in g.values()]).tolist(),
    "callable": lambda g: lambda network, inputs, targets: g,
}


@pytest.mark.parametrize("layout", ["rows", "course", "keras"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_vector_in_the_order_of_theta(form: str, layout: str) -> None:
    net = network(layout)
    found = read(net, FORMS[form](blocks(net)))
    np.testing.assert_array_equal(found.vector, np.arange(net.size))
    assert (found.precision, found.missing) == ("float64", ())


def test_arrays_in_memory_that_is_no_array_are_read() -> None:
    """Views of a file's bytes, of a memory map, of another library's buffer."""
    network = Network.from_arrays([np.ones((2, 3))], [np.zeros(2)])
    given = np.arange(8.0)
    for buffer in (given.tobytes(), bytearray(given.tobytes()), memoryview(given.tobytes())):
        whole = np.frombuffer(buffer)
        parts = [whole[:6].reshape(2, 3), whole[6:]]
        found = read_gradient(network, parts, np.ones((1, 3)), np.ones((1, 2)))
        np.testing.assert_array_equal(found.vector, given)


def test_owners_names_are_known() -> None:
    net = network(names={"W1": "net.0.weight", "b1": "net.0.bias"})
    g = blocks(net)
    assert "d(net.0.weight)" in g
    for names in (
        ("d(net.0.weight)", "d(net.0.bias)"),
        ("net.0.weight", "net.0.bias"),
        ("W1", "b1"),
    ):
        given = dict(zip([*names, "dW2", "db2"], g.values(), strict=True))
        np.testing.assert_array_equal(read(net, given).vector, np.arange(net.size))


def test_layers_without_biases_need_none() -> None:
    net = network(biases=False)
    g = blocks(net)
    pairs = [(g["dW1"], None), (g["dW2"], None)]
    for given in (g, list(g.values()), pairs):
        np.testing.assert_array_equal(read(net, given).vector, np.arange(net.size))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", [f for f in FORMS if f != "list of numbers"])
def test_the_precision_is_that_of_the_arrays(form: str, dtype: str) -> None:
    net = network()
    assert read(net, FORMS[form](blocks(net, dtype))).precision == dtype


def test_the_coarsest_precision_counts_and_the_parameters_do() -> None:
    net = network()
    g = blocks(net)
    g["db2"] = g["db2"].astype("float32")
    assert read(net, g).precision == "float32"
    assert read(network(dtype="float32"), blocks(net)).precision == "float32"


def test_a_torch_bfloat16_gradient_is_read() -> None:
    torch = pytest.importorskip("torch")
    net = network()
    g = {
        k: torch.tensor(v, dtype=torch.bfloat16, requires_grad=True) for k, v in blocks(net).items()
    }
    found = read(net, g)
    np.testing.assert_array_equal(found.vector, np.arange(net.size))


def test_none_for_a_block_is_zero_and_said() -> None:
    net = network()
    found = read(net, {**blocks(net), "db1": None})
    assert found.missing == ("db1",)
    assert "db1" in found.notes[0]
    assert not found.vector[net.order.block("b1").slice].any()


BAD: dict[str, tuple[Any, str]] = {
    "missing": (lambda g: {k: v for k, v in g.items() if k != "dW2"}, "no 'dW2'"),
    "misspelt": (lambda g: {k.replace("W2", "w2"): v for k, v in g.items()}, "mean 'dw2'"),
    "extra": (lambda g: {**g, "dW3": g["dW2"]}, "'dW3'"),
    "transposed": (lambda g: {**g, "dW1": g["dW1"].T}, r"\(4, 3\).*transpose would fit"),
    "flat block": (lambda g: {**g, "dW1": g["dW1"].ravel()}, r"dW1\.reshape\(\(3, 4\)\)"),
    "wrong bias": (lambda g: {**g, "db1": np.ones(2)}, r"db1 has shape \(2,\)"),
    "short list": (lambda g: list(g.values())[:3], "3 arrays"),
    "long vector": (lambda g: np.ones(99), r"shape \(99,\)"),
    "matrix": (lambda g: np.ones((2, 2)), r"shape \(2, 2\)"),
    "nan": (lambda g: {**g, "dW2": np.full((2, 3), np.nan)}, r"dW2\[0, 0\] is nan \(and 5 more\)"),
    "complex": (lambda g: {**g, "db2": np.ones(2) * 1j}, "complex"),
    "objects": (lambda g: {**g, "db2": np.array([{}, {}])}, "dtype object"),
    "nothing": (lambda g: None, "NoneType"),
    "text": (lambda g: "dW1", "str"),
    "empty": (lambda g: {}, "no 'dW1'; it has nothing"),
    "empty list": (lambda g: [], "0 arrays"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_gradient_is_refused_with_what_would_help(name: str) -> None:
    net = network()
    change, message = BAD[name]
    with pytest.raises(InputError, match=message):
        read(net, change(blocks(net)))


def test_a_callable_that_gives_two_values_is_refused_with_the_cure() -> None:
    net = network()
    rng = np.random.default_rng(0)

    def dropped(network: Any, inputs: Any, targets: Any) -> Any:
        return {k: v * (rng.random(v.shape) < 0.5) for k, v in blocks(net).items()}

    with pytest.raises(InputError, match=r"two values.*dropout.*keep_prob=1.*dropout_masks"):
        read(net, dropped)


def test_two_values_are_noticed_in_arrays_that_are_filled_again() -> None:
    net = network()
    g = blocks(net)

    def accumulating(network: Any, inputs: Any, targets: Any) -> Any:
        for v in g.values():
            np.add(v, 1.0, out=v)
        return g

    vector = np.zeros(net.size)

    def accumulating_vector(network: Any, inputs: Any, targets: Any) -> Any:
        return np.add(vector, 1.0, out=vector)

    for gradient in (accumulating, accumulating_vector):
        with pytest.raises(InputError, match="two values"):
            read(net, gradient)


def test_sums_in_another_order_are_no_second_value() -> None:
    net = network()
    calls = []

    def reordered(network: Any, inputs: Any, targets: Any) -> Any:
        calls.append(1)
        return {k: v * (1 + 1e-15 * len(calls)) for k, v in blocks(net).items()}

    assert read(net, reordered).vector[-1] == pytest.approx(net.size - 1)
    assert len(calls) == 2


def test_a_callable_that_moves_the_weights_does_not_move_ours() -> None:
    net = network()
    before = net.theta.copy()

    def training(network: Any, inputs: Any, targets: Any) -> Any:
        for W in network.weights:
            np.subtract(W, 1.0, out=W)
        return blocks(net)

    read(net, training)
    np.testing.assert_array_equal(net.theta, before)
