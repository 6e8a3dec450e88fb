"""The Python door: bad input is refused with what was given, what was expected and what to do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
