"""scikit-learn's own backward pass, checked at its own weights."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.frameworks import check_sklearn
from fastcheck.importers.sklearn import problem_from_sklearn

pytest.importorskip("sklearn")
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((30, 6))
LABELS = RANDOM.integers(0, 3, 30)
REAL = RANDOM.standard_normal(30)


def fitted(model: Any, X: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def made(kind: Any, **options: Any) -> Any:
    return kind(hidden_layer_sizes=(8, 5), max_iter=3, random_state=0, **{"alpha": 0.3, **options})


CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "classes": (MLPClassifier, {}, LABELS),
    "two classes": (MLPClassifier, {"activation": "tanh"}, LABELS > 0),
    "names of classes": (MLPClassifier, {"activation": "logistic"}, np.array(list("abc"))[LABELS]),
    "several labels at once": (MLPClassifier, {}, RANDOM.integers(0, 2, (30, 3))),
    "regression": (MLPRegressor, {}, REAL),
    "linear": (MLPRegressor, {"activation": "identity", "alpha": 0.0}, REAL),
    "several targets at once": (MLPRegressor, {}, RANDOM.standard_normal((30, 3))),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_scikit_learns_own_gradient_is_right(name: Any, dtype: Any) -> None:
    kind, options, y = CASES[name]
    model = fitted(made(kind, **options), X.astype(dtype), y)
    before = [W.copy() for W in [*model.coefs_, *model.intercepts_]]
    report = check_sklearn(model, X, y)
    assert report.passed, report.to_text()
    assert report.held_to.precision == dtype
    assert report.blocks[0].parameter == "coefs_[0]"
    after = [*model.coefs_, *model.intercepts_]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_that_is_partially_fitted_will_do() -> None:
    model = made(MLPClassifier).partial_fit(X, LABELS, classes=[0, 1, 2])
    assert check_sklearn(model, X[:4], LABELS[:4]).passed


def test_alpha_is_the_penalty_over_twice_the_samples() -> None:
    problem = problem_from_sklearn(fitted(made(MLPClassifier), X, LABELS), X, LABELS)
    assert (problem.network.l2, problem.network.penalty) == (0.3, "l2/2m")


class HandsOn(MLPClassifier):
    """A subclass that hands on whatever arguments its release has."""

    def _backprop(self, *arguments: Any, **named: Any) -> Any:
        return super()._backprop(*arguments, **named)


class HandsOnTwice(HandsOn):
    def _backprop(self, X: Any, *rest: Any) -> Any:
        return super()._backprop(X, *rest)


class Centres(MLPClassifier):
    """A backward pass that writes into its batch."""

    def _backprop(self, X: Any, *rest: Any) -> Any:
        X -= X.mean(axis=0)
        return super()._backprop(X, *rest)


@pytest.mark.parametrize("kind", [HandsOn, HandsOnTwice])
def test_a_subclass_that_hands_its_arguments_on_is_checked(kind: Any) -> None:
    assert check_sklearn(fitted(made(kind), X, LABELS), X, LABELS).passed


def test_a_backward_pass_that_writes_into_its_batch_is_no_gradient_of_this_batch() -> None:
    model = fitted(made(Centres), X, LABELS)
    shifted = X + 1.0
    report = check_sklearn(model, shifted, LABELS)
    assert report.status == "wrong"


class PenaltyOnBiases(MLPClassifier):
    def _compute_loss_grad(
        self, layer: Any, count: Any, activations: Any, deltas: Any, coefs: Any, intercepts: Any
    ) -> Any:
        super()._compute_loss_grad(layer, count, activations, deltas, coefs, intercepts)
        intercepts[layer] = intercepts[layer] + self.alpha * self.intercepts_[layer] / count


class ForgottenPenalty(MLPClassifier):
    def _compute_loss_grad(
        self, layer: Any, count: Any, activations: Any, deltas: Any, coefs: Any, intercepts: Any
    ) -> Any:
        super()._compute_loss_grad(layer, count, activations, deltas, coefs, intercepts)
        if layer == 1:
            coefs[layer] = coefs[layer] - self.alpha * self.coefs_[layer] / count


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PenaltyOnBiases, {"intercepts_[0]", "intercepts_[1]", "intercepts_[2]"}),
        (ForgottenPenalty, {"coefs_[1]"}),
    ],
)
def test_a_wrong_backward_pass_is_named(kind: Any, wrong: Any) -> None:
    report = check_sklearn(fitted(made(kind), X, LABELS), X, LABELS)
    assert report.status == "wrong"
    assert {b.parameter for b in report.blocks if b.status == "wrong"} == wrong


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (lambda: made(MLPClassifier), LABELS, "never fitted"),
        (lambda: fitted(LogisticRegression(), X, LABELS), LABELS, "LogisticRegression"),
        (lambda: fitted(made(MLPClassifier), X, LABELS), LABELS + 7, "label"),
        (lambda: fitted(made(MLPClassifier), X, LABELS), LABELS[:5], "targets of shape"),
    ],
)
def test_other_models_and_batches_are_refused(model: Any, y: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        problem_from_sklearn(model(), X, y)


def test_a_poisson_loss_is_refused() -> None:
    model = fitted(made(MLPRegressor, loss="poisson"), X, np.abs(REAL))
    with pytest.raises(InputError, match="poisson"):
        problem_from_sklearn(model, X, np.abs(REAL))
