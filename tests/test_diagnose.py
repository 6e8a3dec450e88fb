"""A wrong gradient is told what is wrong with it; the mistakes are typed by hand in `planted`."""

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastcheck import gradcheck
from fastcheck.diagnosis.context import MAX_CANDIDATES, MAX_SEARCHES, Context
from fastcheck.diagnosis.deltas import table_deltas
from fastcheck.diagnosis.diagnose import Diagnosis, diagnose
from fastcheck.diagnosis.fitting import weights_text
from fastcheck.diagnosis.search import search
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.reference.backprop import gradients
from fastcheck.rounding import gradient_rounding
from fastcheck.settings import Settings
from fastcheck.verdict.verdict import evaluate
from tests import invented, planted
from tests.planted import Net

LOSSES = {
    "softmax": "softmax_cross_entropy",
    "logistic": "sigmoid_cross_entropy",
    "squared": "squared_error",
}


def built(net: Net) -> tuple[Network, Batch]:
    options = {"dropout_masks": net.masks, "keep_prob": net.keep} if net.masks else {}
    network = Network.from_arrays(
        net.W,
        net.b,
        activations=[net.hidden] * (net.depth - 1) + ["identity"],
        loss=LOSSES[net.loss],
        l2=net.lam,
        **options,  # type: ignore[arg-type]
    )
    return network, network.batch(net.X, net.Y)


def flat(blocks: list[planted.Array]) -> planted.Array:
    return np.concatenate([np.ravel(block) for block in blocks])


def diagnosed(net: Net, gradient: planted.Array, precision: str = "float64") -> Diagnosis | None:
    """The diagnosis, None where the gradient passes."""
    network, batch = built(net)
    right = flat(planted.backward(net, {}))
    verdict, result = judged_and_diagnosed(network, batch, gradient, right, precision)
    return result if verdict == "wrong" else None


def judged_and_diagnosed(
    network: Network,
    batch: Batch,
    gradient: planted.Array,
    right: planted.Array,
    precision: str = "float64",
) -> tuple[str, Diagnosis]:
    """The verdict, and what is said of a wrong gradient."""
    approximation = Approximation("unit", 1e-7, None, right)
    verdict = evaluate(
        network.order,
        gradient,
        approximation,
        lambda: gradient_rounding(network, batch, precision),
        Settings(),
    )
    result = diagnose(network, batch, gradient, approximation, verdict, precision)
    return verdict.status, result


def planted_singles(net: Net) -> list[tuple[str, int]]:
    return [(bug, layer) for bug in planted.BUGS for layer in planted.places(net, bug)]


def named(result: Diagnosis, bugs: dict[str, int]) -> bool:
    """Whether there are as many findings as bugs, and each bug is one of them."""
    found = [finding.slip for finding in result.findings]
    return len(found) == len(bugs) and all(
        any(slip in planted.BUGS[bug][1] for slip in found) for bug in bugs
    )


@pytest.mark.parametrize("net", planted.NETS, ids=lambda net: net.name)
def test_the_hand_written_pass_without_bugs_is_right(net: Net) -> None:
    network, batch = built(net)
    assert np.allclose(flat(planted.backward(net, {})), gradients(network, batch), rtol=1e-10)


@pytest.mark.parametrize("net", planted.NETS, ids=lambda net: net.name)
def test_a_right_gradient_is_never_diagnosed(net: Net) -> None:
    assert diagnosed(net, flat(planted.backward(net, {}))) is None


def each_bug_once() -> Iterator[tuple[Net, str, int]]:
    """Yield every bug on one network after another that it can be made in, at one of its layers."""
    for number, bug in enumerate(planted.BUGS):
        nets = [net for net in planted.NETS if planted.places(net, bug)]
        net = nets[number % len(nets)]
        layers = planted.places(net, bug)
        yield net, bug, layers[number % len(layers)]


def bugs_by_net() -> list[Any]:
    """Return the bugs of each network at all layers: hundreds, so these are sweeps."""
    found = []
    for precision, nets in (("float64", planted.NETS), ("float32", planted.NETS[:4])):
        found.append(pytest.param(precision, list(each_bug_once()), id=f"{precision}-each once"))
        for net in nets:
            every = [(net, bug, layer) for bug, layer in planted_singles(net)]
            name = f"{precision}-{net.name}"
            found.append(pytest.param(precision, every, id=name, marks=pytest.mark.sweep))
    return found


@pytest.mark.parametrize(("precision", "bugs"), bugs_by_net())
def test_single_bugs_are_named(precision: str, bugs: list[tuple[Net, str, int]]) -> None:
    missed, seen = [], 0
    for net, bug, layer in bugs:
        if precision != "float64" and "float" in bug:
            continue
        gradient = flat(planted.backward(net, {bug: layer})).astype(precision).astype(np.float64)
        result = diagnosed(net, gradient, precision)
        if result is None:  # it changes nothing here
            continue
        seen += 1
        if not named(result, {bug: layer}):
            missed.append((net.name, bug, layer, [f.slip for f in result.findings]))
    assert seen > 20
    assert len(missed) <= 0.05 * seen, missed


def distinct_pairs(net: Net, count: int, seed: int) -> list[dict[str, int]]:
    """Pairs of bugs, of which each shows beside the other."""
    draw, singles = random.Random(seed), planted_singles(net)
    pairs: list[dict[str, int]] = []
    while len(pairs) < count:
        (first, one), (second, other) = draw.sample(singles, 2)
        if first == second:
            continue
        bugs = {first: one, second: other}
        all_of = [{}, {first: one}, {second: other}, bugs]
        made = [flat(planted.backward(net, b)) for b in all_of]
        least = 1e-7 * np.linalg.norm(made[0])
        if all(np.linalg.norm(a - b) > least for a, b in itertools.combinations(made, 2)):
            pairs.append(bugs)
    return pairs


@pytest.mark.parametrize(
    "count", [pytest.param(4, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.sweep)]
)
def test_four_fifths_of_pairs_are_named(count: int) -> None:
    missed, seen = [], 0
    for net in planted.NETS:
        for bugs in distinct_pairs(net, count, seed=2):
            result = diagnosed(net, flat(planted.backward(net, bugs)))
            assert result is not None
            seen += 1
            if not named(result, bugs):
                missed.append((net.name, bugs, [f.slip for f in result.findings]))
    assert len(missed) <= 0.2 * seen, missed


@pytest.mark.parametrize("net", planted.NETS[1:5], ids=lambda net: net.name)
def test_what_no_slip_explains_is_said_with_its_pattern(net: Net) -> None:
    rng = np.random.default_rng(1)
    blocks = planted.backward(net, {})
    blocks[0] = blocks[0] + np.abs(blocks[0]).mean() * rng.normal(size=blocks[0].shape)
    result = diagnosed(net, flat(blocks))
    assert result is not None
    assert result.unexplained.startswith("no slip that I know")
    assert "dW1" in result.unexplained
    assert result.explained < 1e-6


def test_what_updated_weights_make_of_an_error_is_known_to_the_layer_below() -> None:
    """The layer below uses the wrong dA of the layer above, as it was left there."""
    net = planted.NETS[7]
    result = diagnosed(net, flat(planted.backward(net, {"W updated first": 3, "dA above": 1})))
    assert result is not None
    assert [f.slip for f in result.findings] == ["weights_updated", "error_of_other"]


def test_consequences_and_slips_of_their_own_are_told_apart() -> None:
    net = planted.NETS[4]
    result = diagnosed(net, flat(planted.backward(net, {"slope at a": 3, "db zero": 1})))
    assert result is not None
    above, own = result.findings
    assert (above.slip, above.layers) == ("derivative_at_a", (3,))
    assert above.consequences == ("db2", "dW2", "dW1")
    assert (own.slip, own.blocks) == ("bias_zero", ("db1",))


def test_the_line_is_mended_in_both_notations() -> None:
    net = planted.NETS[1]
    result = diagnosed(net, flat(planted.backward(net, {"no penalty": 2})))
    assert result is not None
    (finding,) = result.findings
    assert finding.course == "dW2 = np.dot(dZ2, A1.T) / m + lambd / m * W2"
    assert finding.rows == "dW2 = dZ2.T @ A1 + lambd / m * W2"
    assert finding.explained > 0.999999


def test_a_diagnosis_survives_json() -> None:
    net = planted.NETS[0]
    result = diagnosed(net, flat(planted.backward(net, {"slope missing": 1})))
    assert result is not None
    assert Diagnosis.from_json(json.loads(json.dumps(result.to_json()))) == result


def typed(
    slope: str, *, scale: float = 1.0, sign: float = 1.0, back: str = "W2"
) -> tuple[list[planted.Array], list[planted.Array], planted.Array, planted.Array, planted.Array]:
    """A sigmoid layer of 6 units before 6 softmax outputs, samples in rows, and its gradient."""
    rng = np.random.default_rng(3)
    W1, W2 = rng.standard_normal((6, 5)), scale * rng.standard_normal((6, 6))
    b1, b2 = rng.standard_normal(6), rng.standard_normal(6)
    X, Y = rng.standard_normal((9, 5)), rng.integers(0, 6, 9)
    A1 = 1 / (1 + np.exp(-(X @ W1.T + b1)))
    Z2 = A1 @ W2.T + b2
    P = np.exp(Z2 - Z2.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dZ2 = sign * (P - np.eye(6)[Y]) / 9
    dA1 = dZ2 @ {"W2": W2, "W2.T": W2.T}[back]
    dZ1 = dA1 * {"a(1 − a)": A1 * (1 - A1), "1 − a²": 1 - A1**2}[slope]
    gradient = [dZ1.T @ X, dZ1.sum(axis=0), dZ2.T @ A1, dZ2.sum(axis=0)]
    return [W1, W2], [b1, b2], X, Y, gradient


def found_in(slope: str, layout: str = "rows", **typing: float | str) -> list[dict[str, object]]:
    weights, biases, X, Y, gradient = typed(slope, **typing)  # type: ignore[arg-type]
    if layout == "keras":
        weights, gradient[0], gradient[2] = [W.T for W in weights], gradient[0].T, gradient[2].T
    network = Network.from_arrays(weights, biases, activations="sigmoid", layout=layout)
    findings: list[dict[str, object]] = gradcheck(network, X, Y, gradient).diagnosis["findings"]
    return findings


def test_the_slope_of_tanh_in_a_sigmoid_layer_is_named() -> None:
    (finding,) = found_in("1 − a²")
    assert (finding["slip"], finding["value"]) == ("derivative_miswritten", "1 − a²")


def test_the_mended_line_is_the_owners() -> None:
    (rows,), (keras,) = (found_in("a(1 − a)", layout, back="W2.T") for layout in ("rows", "keras"))
    assert rows["slip"] == keras["slip"] == "weights_not_transposed"
    assert rows["rows"] == "dA1 = dZ2 @ W2"
    assert keras["rows"] == "dA1 = dZ2 @ W2.T"


def test_a_sign_is_named_with_outputs_so_large_that_other_errors_overflow() -> None:
    (finding,) = found_in("a(1 − a)", scale=200.0, sign=-1.0)
    assert finding["slip"] == "sign"


def test_a_systematic_error_of_a_thousandth_is_no_lower_precision() -> None:
    """tanh's 1 − a² without the square of a small a: off by 1e-4, in each row alike."""
    rng = np.random.default_rng(5)
    W, X = 0.03 * rng.standard_normal((8, 8)), 0.3 * rng.standard_normal((20, 8))
    V, Y = rng.standard_normal((8, 8)), rng.integers(0, 8, 20)
    A = np.tanh(X @ W.T)
    P = np.exp(A @ V.T)
    dZ = (P / P.sum(axis=1, keepdims=True) - np.eye(8)[Y]) / 20
    network = Network.from_arrays([W, V], activations="tanh")
    wrong = [((dZ @ V) * (1 - 0.5 * A * A)).T @ X, dZ.T @ A]
    findings = gradcheck(network, X, Y, wrong).diagnosis["findings"]
    assert [f["slip"] for f in findings] != ["low_precision"], findings


INVENTED = ["shallow tanh, penalty", "square sigmoid, penalty", "one logistic output",
            "square relu, squares", "two units"]  # fmt: skip


@pytest.mark.parametrize("name", INVENTED)
def test_no_cause_is_claimed_that_is_not_so(name: str) -> None:
    """Of wrong gradients that share no code with what is planted; most have no cause at all."""
    false, seen, named_ones, nameable = [], 0, 0, 0
    for wrong in invented.wrong_gradients(name):
        result = diagnosed(wrong.net, flat(wrong.gradient))
        if result is None:
            continue
        seen += 1
        first = result.findings[0].slip if result.findings else "unknown"
        if first not in wrong.causes and first not in invented.PLACES:
            false.append((wrong.name, first, result.findings[0].sentence))
        if wrong.is_nameable:
            nameable += 1
            named_ones += first in wrong.causes
    assert not false, false
    assert seen > 15
    assert nameable > 8
    assert named_ones == nameable


def test_one_wrong_entry_is_told_plainly_and_mends_no_line() -> None:
    net = planted.NETS[0]
    blocks = planted.backward(net, {})
    blocks[0][2, 3] *= 1.01
    result = diagnosed(net, flat(blocks))
    assert result is not None
    (finding,) = result.findings
    assert finding.sentence == (
        f"only dW1[2, 3] is wrong: {blocks[0][2, 3]:.6g} instead of {blocks[0][2, 3] / 1.01:.6g}"
    )
    assert (finding.course, finding.rows, finding.explained) == ("", "", 0.0)


def test_a_rare_weight_of_a_sample_is_listed() -> None:
    """A weight so large that rounding to seven places moves it is found all the same."""
    text, usual = weights_text(np.array([1e12 + 0.3, 1.0, 1.0, 1.0]))
    assert usual
    assert text.startswith("the first sample counted")


@pytest.mark.parametrize("biases", [False, True])
def test_hundreds_of_layers_are_diagnosed_in_bounded_work(biases: bool) -> None:
    rng, layers = np.random.default_rng(0), 400
    W = [np.array([[1.0 + 0.01 * rng.normal()]]) for _ in range(layers)]
    b = [0.01 * rng.normal(size=1) for _ in W] if biases else None
    network = Network.from_arrays(W, b, activations="tanh", loss="squared_error")
    batch = network.batch(rng.normal(size=(5, 1)), rng.normal(size=(5, 1)))
    right = gradients(network, batch)
    wrong = right * (1.0 + 0.1 * rng.normal(size=right.size))
    context = Context(network, batch, "float64")
    found = search(context, wrong)
    assert context.searches <= MAX_SEARCHES
    assert context.candidates <= MAX_CANDIDATES
    assert len(found.found) == layers * (2 if biases else 1)
    text = judged_and_diagnosed(network, batch, wrong, right)[1].unexplained
    assert len(text) < 500
    assert "blocks more" in text


def test_work_grows_with_the_layers_and_not_with_their_square() -> None:
    """Of a layer, only near ones are candidates for a mix-up, and no more of them in deep nets."""
    tried = []
    for layers in (30, 60):
        net = planted.make("deep", [3] * (layers + 1), "tanh", "squared", 5)
        network, batch = built(net)
        context = Context(network, batch, "float64")
        above = context.delta(layers // 2 + 1, context.right_errors[layers // 2 + 1].dA)
        right = context.delta(layers // 2, context.right_errors[layers // 2].dA)
        tried.append(len([*table_deltas(context, layers // 2, above, right)]))
    assert abs(tried[0] - tried[1]) < 10


@pytest.mark.parametrize("factor", [1.5, 0.3127, 6.0])
def test_a_single_number_that_is_off_by_a_factor_has_no_cause(factor: float) -> None:
    """Every number is a multiple of another one."""
    net = planted.make("narrow", [1, 1, 1, 1], "tanh", "squared", 5)
    for block in (1, 2, 5):
        blocks = planted.backward(net, {})
        blocks[block] = factor * blocks[block]
        result = diagnosed(net, flat(blocks))
        assert result is not None
        assert {f.slip for f in result.findings} <= invented.PLACES, (block, result.findings)


def test_a_gradient_of_zeros_was_never_set() -> None:
    """Wrong errors that happen to be zero, as relu' of negative outputs, say nothing."""
    net = planted.make("zeros", [3, 4, 1], "tanh", "squared", 5)
    for bias in (-9.0, 0.0, 9.0):
        net.b[-1][:] = bias
        result = diagnosed(net, flat([0.0 * g for g in planted.backward(net, {})]))
        assert result is not None
        assert {f.slip for f in result.findings} == {"zero", "bias_zero"}, result.findings
