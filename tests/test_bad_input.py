"""The Python door: bad input is refused with what was given, what was expected and what to do."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from fastcheck import InputError, Network, gradcheck, numerical_gradient

RNG = np.random.default_rng(0)
W1, W2 = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 4))
B1, B2 = RNG.normal(size=4), RNG.normal(size=2)
X, Y = RNG.normal(size=(5, 3)), np.array([0, 1, 1, 0, 1])


def network(weights: Any = (W1, W2), biases: Any = (B1, B2), **options: Any) -> Network:
    return Network.from_arrays(weights, biases, **{"activations": "tanh", **options})


def gradient(**changes: Any) -> dict[str, Any]:
    """Return a gradient of the right shapes, with some entries changed."""
    return {"dW1": W1, "db1": B1, "dW2": W2, "db2": B2, **changes}


def check(gradients: Any = None, inputs: Any = X, targets: Any = Y, **options: Any) -> Any:
    given = gradient() if gradients is None else gradients
    return gradcheck(network(), inputs, targets, given, **options)


def with_value(array: Any, place: Any, value: Any) -> Any:
    changed = np.array(array, dtype=np.result_type(array, type(value)))
    changed[place] = value
    return changed


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in gradient().items() if k != name}


class Noisy:
    """A gradient with dropout left on: another one at each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: Any) -> dict[str, Any]:
        self.calls += 1
        return gradient(dW1=W1 * self.calls)


class Stubborn:
    """What has a conversion to an array that fails."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no numbers here")


def masked(array: Any) -> Any:
    """Return an array whose first entry is masked."""
    mask = np.zeros(np.shape(array), bool)
    mask.flat[0] = True
    return np.ma.masked_array(array, mask)


Bad = tuple[Callable[[], Any], str, str, str]

# name: (what is done, what was given, what was expected, what to do)
BAD: dict[str, Bad] = {
    # shapes that don't chain
    "W2 transposed": (
        lambda: network((W1, W2.T)), "W2 takes 2 inputs, but W1 gives 4", "chain", "transpose",
    ),
    "W a vector": (lambda: network((W1[0], W2)), "W1 has shape (3,)", "matrix", ""),
    "no weights": (lambda: network((), ()), "no weights", "at least one", ""),
    "b too long": (lambda: network(biases=(B1, B1)), "b2 has shape (4,)", "(2,)", ""),
    "too few b": (lambda: network(biases=(B1,)), "1 biases for 2 weights", "as many", ""),
    "ragged": (lambda: network(([[1.0, 2.0], [3.0]], W2)), "W1 is ragged", "array", "equal length"),
    "inputs turned": (
        lambda: check(inputs=X.T), "inputs of shape (3, 5)", "(m, 3)", "layout='course'",
    ),
    "inputs too wide": (lambda: check(inputs=np.ones((5, 4))), "inputs of shape", "(m, 3)", ""),
    "targets too few": (lambda: check(targets=Y[:3]), "targets of shape (3,)", "(5, 2)", ""),
    "gap": (
        lambda: Network.from_parameters({"W1": W1, "W3": W2}), "parameters W1, W3", "a gap", "",
    ),
    "activations": (
        lambda: network(activations=["tanh"]), "1 activations", "2, one for each", "'identity'",
    ),
    "mask": (
        lambda: network(dropout_masks={1: np.ones((5, 3))}), "mask 1 has shape (5,", "(m, 4)", "",
    ),
    "mask of nothing": (
        lambda: network(dropout_masks={7: np.ones((5, 3))}), "layer 7", "layers 1..2", "",
    ),
    "mask of another batch": (
        lambda: gradcheck(network(dropout_masks={1: np.ones((9, 4))}), X, Y, gradient()),
        "for 9 samples", "5", "",
    ),
    # a gradient of another shape
    "dW transposed": (
        lambda: check(gradient(dW1=W1.T)),
        "dW1 has shape (3, 4)", "(4, 3), the shape of W1", "Its transpose would fit",
    ),
    "dW flat": (
        lambda: check(gradient(dW1=W1.ravel())), "dW1 has shape (12,)", "(4, 3)", "reshape((4, 3))",
    ),
    "dW other": (lambda: check(gradient(dW1=np.ones((9, 9)))), "has shape (9, 9)", "(4, 3)", ""),
    "db other": (lambda: check(gradient(db2=np.ones(3))), "db2 has shape (3,)", "(2,)", ""),
    "too short": (lambda: check(np.ones(25)), "a gradient of shape (25,)", "(26,)", ""),
    "too few": (lambda: check([W1, B1, W2]), "a gradient of 3 arrays", "4: dW1, db1", ""),
    "missing": (lambda: check(without("dW2")), "no 'dW2'", "one entry for each", ""),
    "misspelt": (
        lambda: check({**without("dW2"), "dw2": W2}), "no 'dW2'", "one entry", "Did you mean 'dw2'",
    ),
    "extra": (lambda: check(gradient(dW3=W2)), "has 'dW3'", "no others", ""),
    "text": (lambda: check("dW1"), "a gradient of type str", "a dictionary", ""),
    "nothing": (
        lambda: gradcheck(network(), X, Y, None), "a gradient of type NoneType", "a dictionary", "",
    ),
    # NaN and infinity
    "NaN in W": (
        lambda: network((with_value(W1, (2, 1), np.nan), W2)), "W1[2, 1] is nan", "finite", "Find",
    ),
    "inf in b": (
        lambda: network(biases=(with_value(B1, 3, -np.inf), B2)), "b1[3] is -inf", "finite", "Find",
    ),
    "NaN in X": (
        lambda: check(inputs=with_value(X, (4, 0), np.nan)), "inputs[4, 0] is nan", "finite", "",
    ),
    "NaN in Y": (
        lambda: check(targets=with_value(Y, 2, float("nan"))), "targets[2] is nan", "finite", "",
    ),
    "NaNs in dW": (
        lambda: check(gradient(dW2=np.full((2, 4), np.nan))), "(and 7 more)", "finite", "overflow",
    ),
    # dtypes
    "complex W": (lambda: network((W1 * 1j, W2)), "W1 is complex", "real numbers", "real part"),
    "complex dW": (lambda: check(gradient(dW1=W1 + 0j)), "dW1 is complex", "real", "real part"),
    "text X": (lambda: check(inputs=[["a"] * 3] * 5), "inputs has dtype <U1", "numbers", ""),
    "objects": (lambda: check(inputs=np.full((5, 3), None)), "dtype object", "numbers", ""),
    "dates": (
        lambda: check(inputs=np.zeros((5, 3), "datetime64[s]")), "datetime64", "numbers", "",
    ),
    "object numbers": (
        lambda: check(inputs=X.astype(object)), "inputs has dtype object", "numbers", "",
    ),
    "records": (
        lambda: check(inputs=np.zeros((5, 3), [("a", float)])), "inputs has dtype", "numbers", "",
    ),
    "a mapping": (lambda: check(inputs={"a": X}), "dtype object", "numbers", ""),
    "sparse": (lambda: check(inputs=scipy.sparse.csr_array(X)), "sparse", "numbers", "toarray"),
    "no array": (lambda: check(inputs=Stubborn()), "type Stubborn is no array", "numbers", ""),
    # masks
    "masked X": (
        lambda: check(inputs=masked(X)), "inputs is masked in 1 place", "everywhere", "filled",
    ),
    "masked Y": (lambda: check(targets=masked(Y)), "targets is masked", "everywhere", ""),
    "masked W": (lambda: network((masked(W1), W2)), "W1 is masked", "everywhere", ""),
    "masked b": (lambda: network(biases=(B1, masked(B2))), "b2 is masked", "everywhere", ""),
    "masked dW": (lambda: check(gradient(dW1=masked(W1))), "dW1 is masked", "everywhere", ""),
    "masked vector": (
        lambda: check(masked(np.ones(26))), "the gradient is masked", "everywhere", "",
    ),
    "masked rows": (lambda: check(inputs=list(masked(X))), "inputs is masked", "everywhere", ""),
    "masked mask": (
        lambda: network(dropout_masks={1: masked(np.ones((5, 4)))}), "mask 1 is masked", "", "",
    ),
    # empty
    "no samples": (
        lambda: check(inputs=np.ones((0, 3)), targets=np.ones(0)), "zero samples", "at least", "",
    ),
    "no units": (lambda: network((np.ones((0, 3)), W2)), "shape (0, 3)", "matrix", ""),
    # labels
    "label too large": (
        lambda: check(targets=[0, 1, 2, 0, 1]), "label 2 of sample 2", "labels 0..1", "",
    ),
    "labels from 1": (lambda: check(targets=Y + 1), "label 2 of sample 1", "0..1", "Count from 0"),
    "label negative": (lambda: check(targets=Y - 1), "label -1 of sample 0", "0..1", ""),
    "label a fraction": (lambda: check(targets=Y / 2), "label 0.5 of sample 1", "integer", ""),
    "no probabilities": (
        lambda: check(targets=np.ones((5, 2))), "targets of sample 0 sum to 2", "sum 1", "",
    ),
    "outside 0..1": (
        lambda: gradcheck(
            network(loss="sigmoid_cross_entropy"), X, np.full((5, 2), 1.5), gradient()
        ),
        "1.5", "between 0 and 1", "",
    ),
    "label of one class": (
        lambda: gradcheck(network((W1, W2[:1]), (B1, B2[:1])), X, Y, np.zeros(21)),
        "label 1 of sample 1", "labels 0..0", "sigmoid_cross_entropy",
    ),
    # names
    "activation": (lambda: network(activations="rleu"), "activation 'rleu'", "one of", "relu"),
    "loss": (lambda: network(loss="mean_square_error"), "loss 'mean_square_error'", "", "mean"),
    "penalty": (lambda: network(penalty="l2/3m"), "penalty='l2/3m'", "one of", "'l2/2m'"),
    "layout": (lambda: network(layout="colums"), "layout='colums'", "rows, course, keras", ""),
    "option": (lambda: network(activatons="relu"), "option 'activatons'", "", "'activations'"),
    "parameter": (
        lambda: network(activations="relu(0.1)"), "relu with parameter 0.1", "no parameter", "",
    ),
    "softmax alone": (
        lambda: network(activations=["tanh", "softmax"], loss="squared_error"),
        "softmax with loss 'squared_error'", "cross_entropy", "Use",
    ),
    "l2": (lambda: network(l2=-0.1), "l2=-0.1", "0 or more", ""),
    "a setting": (lambda: check(epsilom=1e-7), "'epsilom'", "a setting", "'epsilon'"),
    "a method": (lambda: check(method="textbok"), "method 'textbok'", "a method", "'textbook'"),
    # epsilon and the other numbers
    "epsilon 0": (lambda: check(epsilon=0), "epsilon=0", "above 0", ""),
    "epsilon negative": (lambda: check(epsilon=-1e-7), "epsilon=-1e-07", "above 0", ""),
    "epsilon text": (lambda: check(epsilon="small"), "epsilon='small'", "a number", ""),
    "epsilon too small": (
        lambda: check(epsilon=1e-20, method="textbook"), "1e-20", "", "psilon",
    ),
    "tol": (lambda: check(tol=float("inf")), "tol=inf", "above 0", ""),
    "tol 2": (lambda: check(tol=2), "tol=2", "below 1", ""),
    "tol 1": (lambda: check(tol=1.0), "tol=1.0", "below 1", ""),
    "tol 0": (lambda: check(tol=0), "tol=0", "above 0", ""),
    "tol negative": (lambda: check(tol=-1e-7), "tol=-1e-07", "above 0", ""),
    "tol NaN": (lambda: check(tol=float("nan")), "tol=nan", "above 0", ""),
    "tol text": (lambda: check(tol="1e-7"), "tol='1e-7'", "a number", ""),
    "tol bool": (lambda: check(tol=True), "tol=True", "a number", ""),
    "tol complex": (lambda: check(tol=1e-7j), "tol=1e-07j", "a number", ""),
    "tol list": (lambda: check(tol=[1e-7]), "tol=[1e-07]", "a number", ""),
    "epsilon NaN": (lambda: check(epsilon=float("nan")), "epsilon=nan", "above 0", ""),
    "epsilon large": (lambda: check(epsilon=1e3), "epsilon=1000", "small", "1e-07"),
    "l2 NaN": (lambda: network(l2=float("nan")), "l2=nan", "0 or more", ""),
    "l2 text": (lambda: network(l2="0.1"), "l2='0.1'", "a number", ""),
    "parameter text": (lambda: network(activations="elu(e)"), "parameter of elu='e'", "number", ""),
    "backend a number": (lambda: check(backend=3), "backend 3", "", "loky"),
    "precision a list": (lambda: check(precision=[]), "precision=[]", "", "float32"),
    # lists of layers
    "weights None": (lambda: network(None), "weights of type NoneType", "one array a layer", ""),
    "biases a number": (lambda: network(biases=3), "biases of type int", "one array a layer", ""),
    "activations None": (lambda: network(activations=None), "activations=None", "a name", ""),
    "activation no scalar": (
        lambda: numerical_gradient(network(activations=np.vectorize(math.tanh)), X, Y),
        "can't be compiled", "float", "scalar",
    ),
    "sample": (lambda: check(sample=0), "sample=0", "1 or more", ""),
    "sample a fraction": (lambda: check(sample=0.5), "sample=0.5", "whole number", ""),
    "seed": (lambda: check(seed=-3), "seed=-3", "0 or more", ""),
    "jobs": (lambda: check(jobs=0), "jobs=0", "1 or more", ""),
    "steps of arrays": (
        lambda: check(train_steps=1), "train_steps=1", "a function gradients", "another one",
    ),
    # dropout
    "dropout": (
        lambda: network(keep_prob=0.5), "keep_prob=0.5 without", "same value", "keep_prob=1",
    ),
    "keep_prob": (lambda: network(keep_prob=1.5), "keep_prob=1.5", "0 < keep_prob <= 1", ""),
    "another at each call": (lambda: check(Noisy()), "two", "same", "keep_prob"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_message_that_helps(case: str) -> None:
    act, given, expected, remedy = BAD[case]
    with pytest.raises(InputError) as caught:
        act()
    error = caught.value
    assert given in error.given
    assert expected in error.expected
    assert remedy in f"{error.expected} {error.remedy}"
    assert error.given
    assert error.expected
    assert str(error).startswith(error.given)
    assert f"Expected {error.expected}" in str(error)


@pytest.mark.filterwarnings("error")
def test_the_same_calls_with_good_input_are_not_refused() -> None:
    assert gradcheck(network(), X, Y, gradient()).status == "wrong"
    right = numerical_gradient(network(), X, Y)
    assert gradcheck(network(), X, Y, right).passed
    course = network(layout="course", dropout_masks={1: np.ones((4, 5))})
    assert gradcheck(course, X.T, Y, numerical_gradient(course, X.T, Y)).passed


GOOD_ARRAYS: dict[str, Any] = {
    "np.matrix": lambda a: np.matrix(a) if a.ndim == 2 else a,
    "nothing masked": partial(np.ma.masked_array, mask=False),
    "lists": lambda a: a.tolist(),
    "read-only": lambda a: (b := a.copy(), b.flags.__setattr__("writeable", False))[0],
    "columns first": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "long double": lambda a: a.astype(np.longdouble),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("form", GOOD_ARRAYS)
def test_any_array_of_numbers_gives_the_same_numbers(form: str) -> None:
    made = GOOD_ARRAYS[form]
    whole = network((made(W1), made(W2)), (made(B1), made(B2)))
    right = numerical_gradient(network(), X, Y)
    np.testing.assert_array_equal(numerical_gradient(whole, made(X), made(Y)), right)
    assert gradcheck(whole, made(X), made(Y), made(right)).passed


def test_weights_and_biases_may_come_from_a_generator() -> None:
    whole = network((W for W in (W1, W2)), (b for b in (B1, B2)))
    np.testing.assert_array_equal(whole.theta, network().theta)


@pytest.mark.parametrize("own", [math.tanh, np.tanh, [math.tanh, "identity"]])
def test_functions_of_python_and_numpy_are_the_activation_of_that_name(own: Any) -> None:
    whole = network(activations=own)
    assert whole.describe() == network().describe()
    np.testing.assert_array_equal(
        numerical_gradient(whole, X, Y), numerical_gradient(network(), X, Y)
    )


@pytest.mark.parametrize("own", [math.atan, np.arctan])
def test_functions_of_python_and_numpy_without_a_name_here_are_compiled(own: Any) -> None:
    z = X @ W1.T + B1
    a = np.arctan(z)
    p = np.exp(a @ W2.T + B2)
    dZ2 = (p / p.sum(axis=1, keepdims=True) - np.eye(2)[Y]) / 5
    dZ1 = (dZ2 @ W2) / (1 + z**2)
    right = {"dW1": dZ1.T @ X, "db1": dZ1.sum(0), "dW2": dZ2.T @ a, "db2": dZ2.sum(0)}
    report = gradcheck(network(activations=own), X, Y, right)
    assert report.passed, report


def plain_one_output(loss: str, t: Any) -> dict[str, Any]:
    """Return the gradient of a network with one output by a plain backward pass."""
    a = np.tanh(X @ W1.T + B1)
    z = a @ W2[:1].T + B2[:1]
    errors: dict[str, Callable[[], Any]] = {
        "sigmoid_cross_entropy": lambda: (1 / (1 + np.exp(-z)) - t) / 5,
        "squared_error": lambda: (z - t) / 5,
        "softmax_cross_entropy": lambda: 0.0 * z,
    }
    dZ2 = errors[loss]()
    dZ1 = (dZ2 @ W2[:1]) * (1 - a**2)
    return {"dW1": dZ1.T @ X, "db1": dZ1.sum(0), "dW2": dZ2.T @ a, "db2": dZ2.sum(0)}


TARGETS = {
    "sigmoid_cross_entropy": Y.astype(float),
    "squared_error": RNG.normal(size=5),
    "softmax_cross_entropy": np.zeros(5, int),  # labels: there is one class
}


@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("shape", [(5,), (5, 1), (1, 5)])
@pytest.mark.parametrize("layout", ["rows", "course"])
def test_targets_of_one_output_may_lie_either_way(loss: str, shape: Any, layout: str) -> None:
    t = TARGETS[loss]
    whole = network((W1, W2[:1]), (B1, B2[:1]), loss=loss, layout=layout)
    given = plain_one_output(loss, t.reshape(5, 1))
    inputs = X.T if layout == "course" else X
    report = gradcheck(whole, inputs, t.reshape(shape), given)
    assert report.passed, report


def test_targets_of_one_class_may_be_probabilities() -> None:
    whole = network((W1, W2[:1]), (B1, B2[:1]))
    assert gradcheck(whole, X, np.ones((5, 1)), np.zeros(21)).passed


def test_a_sample_larger_than_n_checks_all_and_says_so() -> None:
    report = gradcheck(network(), X, Y, numerical_gradient(network(), X, Y), sample=10_000)
    assert report.method.checked == 26
    assert any("10,000" in note and "all" in note for note in report.notes)


def test_a_wrong_gradient_is_a_result_and_no_exception() -> None:
    report = check()
    assert (report.passed, report.status) == (False, "wrong")


def test_an_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="epsilon=0"):
        check(epsilon=0)
