"""Any function: f as a black box is checked like a network, and θ may have any form."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastcheck import Report, gradcheck_function
from fastcheck.errors import InputError

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 6))
A = A + A.T


def quadratic(x: Any) -> float:
    return float(0.5 * x @ A @ x)


def slope(x: Any) -> Any:
    return A @ x


X = RNG.normal(size=6)


def test_the_cube_at_one_is_three_and_a_ten_thousandth() -> None:
    report = gradcheck_function(lambda t: t**3, lambda t: 3 * t**2, 1.0, epsilon=0.01)
    component = report.components[0]
    assert component.approximation == pytest.approx(3.0001, abs=1e-12)
    assert component.gradient == 3.0
    row = next(line for line in report.to_text().splitlines() if "3.0001" in line)
    assert row.split()[1:4] == ["θ", "3", "3.0001"]
    assert report.status == "agree"  # the gradient is right: it is the step that is wide
    assert component.target == pytest.approx(3.0, abs=1e-10)
    assert "O(ε²)" in report.to_text()


def test_the_wide_step_s_own_value_is_no_gradient() -> None:
    report = gradcheck_function(lambda t: t**3, 3.0001, 1.0, epsilon=0.01)
    assert report.status == "wrong"
    assert gradcheck_function(lambda t: t**3, 3.0001, 1.0).status == "wrong"


def test_a_wrong_cube_is_wrong_at_any_step() -> None:
    for epsilon in (0.01, 1e-4, 1e-7):
        report = gradcheck_function(lambda t: t**3, lambda t: 2 * t**2, 1.0, epsilon=epsilon)
        assert report.status == "wrong"
    assert gradcheck_function(lambda t: t**3, 3.0, 1.0).passed


def test_a_quadratic_form_is_right_and_its_half_wrong() -> None:
    assert gradcheck_function(quadratic, slope, X).status != "wrong"
    assert gradcheck_function(quadratic, slope, X, epsilon=1e-4).passed
    wrong = gradcheck_function(quadratic, lambda x: 0.5 * slope(x), X)
    assert (wrong.status, wrong.grade, wrong.whole.wrong) == ("wrong", "worry", 6)


def test_one_wrong_component_is_named() -> None:
    g = slope(X)
    g[4] += 1e-3
    report = gradcheck_function(quadratic, g, X, epsilon=1e-4)
    assert [c.name for c in report.components if c.status == "wrong"] == ["θ[4]"]


def test_theta_may_have_any_form() -> None:
    W, c = RNG.normal(size=(2, 3)), 1.5

    def of_parts(W: Any, c: Any) -> float:
        return float((W**2).sum() + 3 * c)

    mapping = gradcheck_function(
        lambda p: of_parts(p["W"], p["c"]),
        lambda p: {"dW": 2 * p["W"], "dc": 3.0},
        {"W": W, "c": c},
        epsilon=1e-5,
    )
    assert mapping.passed
    assert [(b.name, b.shape) for b in mapping.blocks] == [("dW", (2, 3)), ("dc", ())]
    listed = gradcheck_function(
        lambda p: of_parts(*p), lambda p: [2 * p[0], 3.0], [W, c], epsilon=1e-5
    )
    assert listed.passed
    cube = RNG.normal(size=(2, 3, 4))
    wrong = 2 * cube
    wrong[1, 2, 3] = 0.0
    report = gradcheck_function(lambda t: float((t**2).sum()), wrong, cube, epsilon=1e-5)
    assert report.components[0].name == "θ[1, 2, 3]"
    flat = (2 * cube).ravel().tolist()
    assert gradcheck_function(
        lambda t: float((t**2).sum()), flat, cube.tolist(), epsilon=1e-4
    ).passed


def test_a_kink_is_right_anywhere_between_its_slopes() -> None:
    theta = np.array([0.0, 1.0, -2.0])

    def absolute(t: Any) -> float:
        return float(np.abs(t).sum())

    for given in (-1.0, 0.3, 1.0):
        report = gradcheck_function(absolute, [given, 1.0, -1.0], theta)
        assert (report.status, report.whole.kinks) == ("agree", 0 if given == 0 else 1)
    assert gradcheck_function(absolute, [1.2, 1.0, -1.0], theta).status == "wrong"
    for place in (1e-9, 3e-8, 1e-7 / 3, 6e-8, 9e-8):
        beside = np.array([place, 1.0, -2.0])
        assert gradcheck_function(absolute, [1.0, 1.0, -1.0], beside).passed
        assert gradcheck_function(absolute, [1.2, 1.0, -1.0], beside).status == "wrong"
    assert gradcheck_function(absolute, [1.0, 1.2, -1.0], theta).whole.wrong == 1


def test_the_noise_of_f_makes_it_cannot_tell() -> None:
    def coarse(x: Any) -> float:
        return float(np.float32(quadratic(x)))

    report = gradcheck_function(coarse, slope, X, epsilon=1e-5)
    assert report.status == "cannot tell"
    noisy = gradcheck_function(
        lambda x: quadratic(x) + 1e-6 * np.sin(1e15 * float(x @ x)), slope, X, epsilon=1e-4
    )
    assert noisy.status == "cannot tell"
    assert 1e-3 < noisy.method.noise < 2e-2


def test_a_sample_of_the_components() -> None:
    theta = RNG.normal(size=400)
    report = gradcheck_function(
        lambda t: float((t**2).sum()), lambda t: 2 * t, theta, sample=50, epsilon=1e-4
    )
    assert report.method.checked == 50
    assert report.status == "agree"


def test_the_report_survives_json() -> None:
    report = gradcheck_function(quadratic, slope, X, name="form", command="python x.py")
    assert Report.from_json(report.to_json()) == report
    assert (report.name, report.run.command) == ("form", "python x.py")


def changing(x: Any) -> float:
    x += 1.0
    return float(x.sum())


random = np.random.default_rng(0).random

BAD: dict[str, tuple[Any, Any, Any, str]] = {
    "two values": (lambda x: random(), slope, X, r"f gives two values.*keep_prob=1"),
    "two gradients": (quadratic, lambda x: random(6), X, "gradient gives two values"),
    "no number": (lambda x: x, slope, X, r"f\(θ\) has shape \(6,\)"),
    "nan": (lambda x: np.nan, slope, X, r"f\(θ\) is nan"),
    "writes into θ": (changing, slope, X, "changes its argument"),
    "short gradient": (quadratic, np.ones(5), X, r"dθ has shape \(5,\)"),
    "transposed": (lambda W: W.sum(), np.ones((3, 2)), np.ones((2, 3)), "transpose would fit"),
    "missing name": (lambda p: p["w"].sum(), {"v": 1}, {"w": X}, "no 'w'"),
    "empty": (lambda x: 0.0, np.ones(0), np.ones(0), "θ is empty"),
    "nan in θ": (quadratic, slope, X * np.nan, r"θ\[0\] is nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_checked_is_refused(name: str) -> None:
    f, gradient, theta, message = BAD[name]
    with pytest.raises(InputError, match=message):
        gradcheck_function(f, gradient, theta)


def test_a_step_that_is_lost_beside_theta_is_refused() -> None:
    theta = np.array([1.0, 1e12])
    with pytest.raises(InputError, match=r"θ\[1\].*θ \+ ε = θ"):
        gradcheck_function(lambda x: x.sum(), np.ones(2), theta, epsilon=1e-7)
    assert gradcheck_function(lambda x: x.sum(), np.ones(2), theta).passed


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match="unknown option 'eps'"):
        gradcheck_function(quadratic, slope, X, eps=1e-3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "code",
    [
        "import fastcheck, sys; bad = ('numba', 'scipy', 'numpy', 'rich')",
        "import fastcheck, sys; bad = ('numba',); "
        "assert fastcheck.gradcheck_function(lambda t: t * t, 2.0, 1.0).passed",
    ],
)
def test_nothing_heavy_is_imported_without_need(code: str) -> None:
    check = "; sys.exit(', '.join(m for m in bad if m in sys.modules) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
