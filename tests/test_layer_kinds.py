"""Inputs of other kinds: errors that Gaussian inputs hide are found, right layers not accused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcheck import InputError, Report, gradcheck_layer
from fastcheck.layers.input_kinds import KINDS, inputs_of_kind
from tests.repetitions import draws

LINE = "other kinds of inputs"
EPS = 1e-10


def check(forward: Any, backward: Any, inputs: Any, **options: Any) -> Report:
    return gradcheck_layer(forward, backward, inputs, **{"seed": 0, **options})


def line(report: Report) -> Any:
    return next(entry for entry in report.contract if entry.name == LINE)


def gaussian(seed: int = 0, shape: tuple[int, ...] = (5, 6)) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def rms_norm(x: Any) -> Any:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPS)


def rms_norm_backward(dout: Any, x: Any, eps: float = EPS) -> Any:
    r = 1 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)
    return r * dout - x * r**3 * np.mean(dout * x, axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)


def layer_norm_backward(dout: Any, x: Any, eps: float = EPS) -> Any:
    scale = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    normal = (x - x.mean(-1, keepdims=True)) * scale
    along = (dout * normal).mean(-1, keepdims=True)
    return scale * (dout - dout.mean(-1, keepdims=True) - normal * along)


def product(x: Any) -> Any:
    return np.prod(x, axis=-1)


def product_backward(dout: Any, x: Any) -> Any:
    others = [np.prod(np.delete(x, k, axis=-1), axis=-1) for k in range(x.shape[-1])]
    return dout[..., None] * np.stack(others, axis=-1)


def log_softmax(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_softmax_backward(dout: Any, x: Any) -> Any:
    return dout - np.exp(log_softmax(x)) * dout.sum(-1, keepdims=True)


def softplus(x: Any) -> Any:
    return np.logaddexp(0.0, 40.0 * x) / 40.0


def unstable(dout: Any, x: Any) -> Any:
    exps = np.exp(40.0 * x)  # overflows where the forward pass does not
    return dout * exps / (1.0 + exps)


def bent(x: Any) -> Any:
    """Return x³/‖x‖², which has a slope along every direction at 0, and no derivative."""
    size = np.sum(x**2, axis=-1, keepdims=True)
    return np.divide(x**3, size, out=np.zeros_like(x), where=size > 0.0)


def bent_backward(dout: Any, x: Any) -> Any:
    size = np.sum(x**2, axis=-1, keepdims=True)
    return 3 * dout * x**2 / size - 2 * x * np.sum(dout * x**3, axis=-1, keepdims=True) / size**2


def where(condition: Any, slope: Any) -> Any:
    """Return tanh's backward, another one where a condition of x holds."""

    def backward(dout: Any, x: Any) -> Any:
        right = dout * (1 - np.tanh(x) ** 2)
        return np.where(condition(x), slope * dout, right)

    return backward


# A layer, a backward pass that is wrong at inputs of a kind alone, and what is said.
HIDDEN: dict[str, tuple[Any, Any, str]] = {
    "large": (lambda x: x**3, lambda d, x: d * 3 * np.clip(x, -8, 8) ** 2, "not the gradient"),
    "tiny": (rms_norm, lambda d, x: rms_norm_backward(d, x, 0.0), "not the gradient"),
    "equal": (layer_norm, lambda d, x: layer_norm_backward(d, x, 0.0), "NaN"),
    "sparse": (lambda x: x * np.exp(x), lambda d, x: d * np.exp(x) * (x / x + x), "NaN"),
    "sorted": (np.tanh, where(lambda x: np.all(np.diff(x) >= 0), 2.0), "not the gradient"),
    "one-hot": (
        np.tanh,
        where(lambda x: (np.abs(x) < 1e-2).sum(-1, keepdims=True) == 5, 2.0),
        "not the gradient",
    ),
    "saturating": (softplus, unstable, "NaN"),
}
RIGHT: dict[str, Any] = {
    "rms norm": (rms_norm, rms_norm_backward),
    "layer norm": (layer_norm, layer_norm_backward),
    "product": (product, product_backward),
    "log softmax": (log_softmax, log_softmax_backward),
    "relu": (lambda x: np.maximum(x, 0.0), lambda d, x: d * (x > 0)),
    "absolute": (np.abs, lambda d, x: d * np.sign(x)),
    "maximum": (
        lambda x: x.max(-1),
        lambda d, x: d[..., None] * (np.arange(x.shape[-1]) == x.argmax(-1)[..., None]),
    ),
    "shared maximum": (
        lambda x: x.max(-1),
        lambda d, x: (
            d[..., None]
            * (x == x.max(-1, keepdims=True))
            / (x == x.max(-1, keepdims=True)).sum(-1, keepdims=True)
        ),
    ),
    "sort": (
        lambda x: np.sort(x, axis=-1) * np.arange(1, 7),
        lambda d, x: np.take_along_axis(
            d * np.arange(1, 7), np.argsort(np.argsort(x, axis=-1), axis=-1), axis=-1
        ),
    ),
    "exponential": (lambda x: np.exp(20 * x), lambda d, x: d * 20 * np.exp(20 * x)),
    "root": (
        lambda x: np.sqrt(np.abs(x)),
        lambda d, x: d * 0.5 * np.sign(x) / np.sqrt(np.abs(x)),
    ),
    "entropy": (
        lambda x: x * np.log(np.abs(x)),
        lambda d, x: d * (np.log(np.abs(x)) + 1),
    ),
    "norm": (
        lambda x: np.linalg.norm(x, axis=-1),
        lambda d, x: d[..., None] * x / np.linalg.norm(x, axis=-1, keepdims=True),
    ),
    "clipped": (lambda x: np.clip(x, -1, 1), lambda d, x: d * (np.abs(x) <= 1)),
    "reciprocal": (lambda x: 1 / x, lambda d, x: -d / x**2),
    "median": (
        lambda x: np.sort(x, axis=-1)[..., 2],
        lambda d, x: d[..., None] * (np.argsort(np.argsort(x, axis=-1), axis=-1) == 2),
    ),
    "bent": (bent, bent_backward),
    "one hidden zero": (lambda x: np.tanh(x) * (x > -9), lambda d, x: d * (1 - np.tanh(x) ** 2)),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_an_error_that_one_kind_shows_is_found_and_named(kind: str) -> None:
    forward, backward, what = HIDDEN[kind]
    with np.errstate(all="ignore"):
        report = check(forward, backward, {"x": gaussian()})
        plain = check(forward, backward, {"x": gaussian()}, kinds=())
        other = check(forward, backward, {"x": gaussian()}, kinds=[k for k in KINDS if k != kind])
    assert plain.status == "agree"  # Gaussian inputs hide it
    assert report.status == "wrong"
    assert f"dx is {what} where the inputs are {kind}" in line(report).text
    assert kind not in line(other).text


@pytest.mark.parametrize("name", RIGHT)
@draws(few=2, all_of_them=30)
def test_a_right_layer_is_accused_at_no_kind(name: str, seed: int) -> None:
    forward, backward = RIGHT[name]
    with np.errstate(all="ignore"):
        report = check(forward, backward, {"x": gaussian(seed)}, seed=seed)
    far = name == "reciprocal"  # J resolves nothing beside its pole
    assert report.status in (("agree", "cannot tell", "vacuous") if far else ("agree",)), report
    assert line(report).status in ("agree", "not checked")


def test_what_is_not_finite_is_skipped_and_said() -> None:
    forward, backward = RIGHT["exponential"]
    with np.errstate(all="ignore"):
        report = check(forward, backward, {"x": gaussian()})
    assert "large skipped: J is not finite" in line(report).text
    assert "tiny" in line(report).text.split(";")[0]


def test_integers_masks_and_structure_stay() -> None:
    random = np.random.default_rng(0)
    root = gaussian(shape=(4, 4))
    inputs = {
        "labels": np.arange(4),
        "mask": (root > 0).astype(float),
        "symmetric": root + root.T,
        "shares": np.abs(root) / np.abs(root).sum(-1, keepdims=True),
        "times": np.cumsum(np.abs(root), axis=-1),
        "positive": np.abs(root),
        "none": root,
    }
    names = ("mask", "symmetric", "shares", "times", "positive")
    for kind in KINDS:
        made = inputs_of_kind(kind, inputs, names, random)
        assert made is not None or kind in ("sparse", "one-hot")
        made = made or inputs
        for name in ("labels", "mask", "shares", "none"):
            assert made[name] is inputs[name]
        assert np.array_equal(made["symmetric"], made["symmetric"].T)
        assert (np.diff(made["times"], axis=-1) > 0).all()
        assert (made["positive"] > 0).all()
        assert made["positive"].dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_kinds_in_lower_precision(dtype: Any) -> None:
    x = gaussian().astype(dtype)
    report = check(np.tanh, where(lambda x: np.abs(x) < -1, 0.0), {"x": x})
    assert line(report).status == "agree"
    only = check(
        lambda x: np.tanh(x.astype(dtype)), lambda d, x: d * (1 - np.tanh(x) ** 2), {"x": x}
    )
    assert line(only).status in ("agree", "not checked")
    assert only.status in ("agree", "cannot tell")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="kinds='larg'"):
        check(np.tanh, lambda d, x: d, {"x": gaussian()}, kinds=["larg"])
