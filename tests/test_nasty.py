"""Right gradients of nasty networks, by backward passes that share nothing with fastcheck."""

import ast
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests import oracle_mpmath
from tests.nasty import families, styles
from tests.nasty.cases import FAMILIES, draw
from tests.nasty.formulas import FORMS, OUTPUT_ERRORS
from tests.nasty.network import ACTIVATIONS, LOSSES, Array, Gradient, Nasty, named
from tests.nasty_checks import verdict

PACKAGE = Path(__file__).parent / "nasty"
EACH = 16  # networks of each family
FEWER = {"many samples": 6, "equal samples": 10}  # large ones


def flat(gradient: Gradient) -> Array:
    return np.concatenate([np.ravel(v) for pair in gradient for v in pair if v is not None])


def imported(path: Path) -> set[str]:
    """Return the packages that a file imports; of this repository's the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_backward_passes_import_nothing_of_fastcheck() -> None:
    allowed = {"numpy", "scipy", "mpmath", "math", "itertools", "zlib", "typing", "dataclasses"}
    for path in PACKAGE.glob("*.py"):
        for module in imported(path):
            own = module == "tests.nasty" or module.startswith("tests.nasty.")
            assert own or module in allowed | {"collections.abc"}, (path.name, module)


# --- the independent backward passes are right -----------------------------------------------


def benign(activation: str, loss: str, seed: int = 0) -> Nasty:
    """Return a small network without kinks nearby, with everything a network can have."""
    rng = np.random.default_rng(seed)
    net = families.base(rng, sizes=[3, 4, 2, 3], m=3, losses=(loss,))
    return Nasty(
        weights=net.weights,
        biases=[rng.normal(size=4), None, rng.normal(size=3)],
        activations=[named(activation), named(activation), named("identity")],
        loss=named(loss),
        inputs=net.inputs,
        targets=families.with_targets(rng, net).targets,
        masks=families.dropout(rng, 3, net.sizes),
        l2=0.3,
        penalty="l2/m",
        reduction="mean_elements",
        loss_scale=0.5,
    )


def exact(net: Nasty, indices: Any) -> Array:
    """Return derivatives of J by mpmath: differences so small that nothing else remains."""
    drawn: Any = SimpleNamespace(
        **{name: getattr(net, name) for name in ("weights", "biases", "activations", "loss")},
        **{name: getattr(net, name) for name in ("inputs", "targets", "masks")},
        l2=net.l2 / net.loss_scale,
        penalty=net.penalty,
        reduction=net.reduction,
    )
    found = oracle_mpmath.central_differences(drawn, 1e-30, indices, digits=100)
    return net.loss_scale * np.array([float(v) for v in found])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_style_is_right(activation: str, loss: str) -> None:
    net = benign(activation, loss)
    first = flat(styles.rows(net, styles.Way()))
    indices = np.random.default_rng(1).integers(first.size, size=4)
    np.testing.assert_allclose(first[indices], exact(net, indices), rtol=1e-12, atol=1e-14)
    ways = max(len(FORMS[activation]), len(OUTPUT_ERRORS[loss]))
    for name, style in styles.STYLES.items():
        for k in range(ways):
            low = name == "brain"
            way = styles.Way("float32" if low else "float64", (k,), k, 0.5, bool(k % 2))
            atol = (0.05 if low else 1e-14) * np.abs(first).max()
            np.testing.assert_allclose(flat(style(net, way)), first, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("style", [s for s in styles.STYLES if s != "brain"])
def test_every_style_stays_in_its_precision(style: str, dtype: str) -> None:
    for activation in ACTIVATIONS:
        for k, loss in enumerate(LOSSES):
            net = benign(activation, loss)
            for dW, db in styles.STYLES[style](net, styles.Way(dtype, (k,), k, 0.5, bool(k % 2))):
                assert dW.dtype == dtype
                assert db is None or db.dtype == dtype


def test_on_a_kink_a_backward_pass_takes_the_slope_that_it_is_told() -> None:
    for name in ("relu", "leaky_relu", "elu", "selu", "hardtanh", "relu6"):
        at = {"hardtanh": -1.0}.get(name, 0.0)
        net = Nasty(
            [np.ones((1, 1))], [np.array([at])], [named(name, 0.25)], named("squared_error"),
            np.zeros((1, 1)), np.full((1, 1), -3.0),
        )  # fmt: skip
        low, half, high = (
            float(flat(styles.rows(net, styles.Way(kink=k)))[1]) for k in (0.0, 0.5, 1.0)
        )
        assert low != high
        assert half == pytest.approx((low + high) / 2)


# --- fastcheck accuses none of them ----------------------------------------------------------


def said(family: str, seeds: range) -> list[tuple[str, str, str]]:
    """Return what is said of the cases that are not passed, with what they are."""
    found = []
    for seed in seeds:
        case = draw(family, seed)
        if case is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = verdict(case)
        if answer not in ("agree", "cannot tell"):
            found.append((answer, case.name, case.describe()))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_no_right_gradient_of_a_nasty_network_is_accused(family: str) -> None:
    assert not said(family, range(FEWER.get(family, EACH)))
