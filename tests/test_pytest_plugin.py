"""The pytest plugin, in test suites of its own: what fails, what is shown, what is written."""

import copy
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastcheck
from fastcheck import GradientError, InputError, Network, Problem, assert_gradient, pytest_plugin
from fastcheck.kernels.compiling import CACHE_FOLDER
from fastcheck.settings import METHODS

SUITE = """
import numpy as np
import fastcheck

rng = np.random.default_rng(0)
network = fastcheck.Network.from_arrays(
    [rng.normal(size=(4, 3)), rng.normal(size=(2, 4))], [rng.normal(size=4), rng.normal(size=2)],
    activations=["tanh", "identity"], loss="squared_error",
)
X, Y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
right = fastcheck.backward_pass

def wrong(network, X, Y):
    gradient = dict(fastcheck.backward_pass(network, X, Y))
    return {**gradient, "dW2": 2 * gradient["dW2"]}

"""
RIGHT = "def test_right(gradcheck):\n    gradcheck(network, X, Y, right)\n"
WRONG = "def test_wrong(gradcheck):\n    gradcheck(network, X, Y, wrong)\n"


@pytest.fixture(scope="module", autouse=True)
def _everything_is_loaded() -> None:
    """Load all modules here: pytester forgets those that a suite loads, and NumPy dislikes it."""
    space: dict[str, object] = {}
    exec(SUITE, space)
    with pytest.raises(GradientError) as caught:
        assert_gradient(space["network"], space["X"], space["Y"], space["wrong"])  # type: ignore[arg-type]
    caught.value.report.to_html()


def run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    """Run a suite in this process, with warnings as errors."""
    pytester.makepyfile(test_it=SUITE + tests)
    return pytester.runpytest_inprocess("-W", "error", "-p", "no:cacheprovider", *arguments)


def printed(pytester: pytest.Pytester, tests: str, *arguments: str) -> str:
    """Return what a test printed as `<…>`."""
    result = run(pytester, tests, "-s", *arguments)
    found = re.search("<(.*)>", result.stdout.str())
    assert found, result.stdout.str()
    return found[1]


def in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# ---- start-up ----------------------------------------------------------------------------------


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    heavy = {"numpy", "numba", "scipy", "joblib", "rich", "click", "jinja2", "fastcheck.check"}
    code = (
        "import sys, pytest; before = set(sys.modules); import fastcheck.pytest_plugin;"
        f"new = set(sys.modules) - before; print(sorted(new & {heavy!r}), len(new))"
    )
    shown, count = in_a_process(code).rsplit(" ", 1)
    assert shown == "[]"
    assert int(count) < 12


def test_a_suite_without_gradient_checks_loads_nothing_heavy(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others may load what they like
    pytester.makepyfile(
        "import sys\n"
        "def test_modules():\n"
        "    assert 'fastcheck.pytest_plugin' in sys.modules\n"
        "    assert not {'numpy', 'numba', 'rich'} & set(sys.modules)\n"
    )
    options = ("-W", "error", "-p", "no:cacheprovider", "-p", "fastcheck.pytest_plugin")
    pytester.runpytest_subprocess(*options, "--gradcheck-sample=3").assert_outcomes(passed=1)


# ---- the fixture -------------------------------------------------------------------------------


def test_a_right_gradient_passes_and_comes_back_as_a_report(pytester: pytest.Pytester) -> None:
    tests = RIGHT + (
        "def test_report(gradcheck):\n"
        "    report = gradcheck(network, X, Y, right, tol=1e-6)\n"
        "    assert report.passed and report.held_to.tol == 1e-6\n"
    )
    run(pytester, tests).assert_outcomes(passed=2)


def test_a_wrong_gradient_fails_and_shows_blocks_components_and_no_matrices(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, WRONG)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "E * WRONG: dθ is not the gradient of J*",
            "E       ✓  dW1 *4×3 *",
            "E       ✗  dW2 *2×4 *████*",
            "E       ✗  W2[[]*  2  wrong",
        ]
    )
    assert "array(" not in text
    assert "fastcheck/check.py" not in text  # the traceback ends at the test's own line
    assert "FAILED test_it.py::test_wrong - fastcheck.GradientError: ✗ WRONG" in text
    assert max(len(line) for line in text.splitlines() if "  ✗  " in line) <= 80


def test_a_failure_that_is_not_the_gradients_says_how_to_replay_it(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, "def test_other(gradcheck):\n    assert gradcheck.seed < 0\n")
    result.stdout.fnmatch_lines(
        ["*- fastcheck -*", "seed: *", "replay: pytest test_it.py::test_other"]
    )


def test_bad_input_is_an_error_of_its_own(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_bad(gradcheck):\n    gradcheck(network, X[:, 1:], Y, right)\n")
    result.assert_outcomes(failed=1)
    assert "InputError" in result.stdout.str()


# ---- the options -------------------------------------------------------------------------------


def test_the_command_line_goes_before_the_test(pytester: pytest.Pytester) -> None:
    tests = (
        "def test_it(gradcheck):\n"
        "    method = gradcheck(network, X, Y, right, sample=20, method='unit').method\n"
        "    print(f'<{method.checked} {method.name}>')\n"
    )
    assert printed(pytester, tests) == "20 unit"
    options = ("--gradcheck-sample=9", "--gradcheck-method=textbook")
    assert printed(pytester, tests, *options) == "9 textbook"


def test_the_methods_offered_are_those_there_are() -> None:
    assert pytest_plugin.METHODS == METHODS


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--gradcheck-sample=0", "'0': expected a whole number, 1 or more"),
        ("--gradcheck-sample=few", "'few': expected a whole number, 1 or more"),
        ("--gradcheck-seed=-1", "'-1': expected a whole number, 0 or more"),
        ("--gradcheck-method=unti", "invalid choice: 'unti'"),
        ("--gradcheck-report=test_it.py", "not a folder"),
    ],
)
def test_bad_options_are_refused(pytester: pytest.Pytester, option: str, message: str) -> None:
    result = run(pytester, RIGHT, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_each_failure_has_its_page(pytester: pytest.Pytester) -> None:
    tests = RIGHT + (
        "import pytest\n"
        "@pytest.mark.parametrize('name', ['a/b', 'a:b'])\n"
        "def test_wrong(gradcheck, name):\n    gradcheck(network, X, Y, wrong)\n"
        "def test_plain():\n    fastcheck.assert_gradient(network, X, Y, wrong)\n"
    )
    result = run(pytester, tests, "--gradcheck-report", "new/pages")
    result.assert_outcomes(passed=1, failed=3)
    pages = sorted((pytester.path / "new" / "pages").iterdir())
    assert len(pages) == 3
    assert all(re.fullmatch(r"test_it\.py-test_[\w.-]+\.html", page.name) for page in pages)
    for page in pages:
        assert "dθ is not the gradient of J" in page.read_text(encoding="utf-8")
        assert f"page: {page}" in result.stdout.str()


def test_a_page_that_cannot_be_written_does_not_hide_the_failure(
    pytester: pytest.Pytester,
) -> None:
    tests = WRONG.replace(":\n", ":\n    open('pages', 'w').close()\n", 1)
    result = run(pytester, tests, "--gradcheck-report", "pages")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * WRONG*", "page: * can't be written (*"])


# ---- the marker --------------------------------------------------------------------------------


def test_tests_with_the_fixture_carry_the_marker(pytester: pytest.Pytester) -> None:
    tests = RIGHT + (
        "import pytest\n"
        "@pytest.fixture\ndef checked(gradcheck):\n    return gradcheck\n"
        "def test_indirect(checked):\n    pass\n"
        "@pytest.mark.gradcheck\ndef test_marked():\n    pass\n"
        "def test_other():\n    pass\n"
    )
    without = run(pytester, tests, "--strict-markers", "-m", "not gradcheck")
    without.assert_outcomes(passed=1, deselected=3)
    run(pytester, tests, "--strict-markers", "-m", "gradcheck").assert_outcomes(
        passed=3, deselected=1
    )


# ---- seeds -------------------------------------------------------------------------------------

SEEDS = (
    "def test_one(gradcheck):\n"
    "    method = gradcheck(network, X, Y, right, sample=5).method\n"
    "    print(f'<{gradcheck.seed} {method.seed}>')\n"
)


def test_the_seed_is_the_node_ids_in_every_run_and_the_samples(pytester: pytest.Pytester) -> None:
    seed, of_the_sample = printed(pytester, SEEDS).split()
    # SHA-256 of "test_it.py::test_one", so the same on every machine.
    assert seed == of_the_sample == "3474606810"
    assert printed(pytester, SEEDS.replace("test_one", "test_two")).split()[0] != seed
    assert printed(pytester, SEEDS, "--gradcheck-seed=7") == "7 7"
    assert printed(pytester, SEEDS.replace("sample=5", "sample=5, seed=3")) == f"{seed} 3"


def test_the_printed_command_replays_the_failure(pytester: pytest.Pytester) -> None:
    tests = (
        "import pytest\n"
        "@pytest.mark.parametrize('what', ['it\\'s', 'b'])\n"
        "def test_wrong(gradcheck, what):\n    gradcheck(network, X, Y, wrong, sample=4)\n"
    )
    pytester.makepyfile(**{"suite/test_deep": SUITE + tests})
    first = pytester.runpytest_inprocess("--gradcheck-sample=7", "-p", "no:cacheprovider")
    first.assert_outcomes(failed=2)
    seed, command = re.findall(r"^seed: (\d+)\nreplay: (.*)$", first.stdout.str(), re.MULTILINE)[0]
    assert command.endswith("--gradcheck-sample 7")
    again = pytester.runpytest_inprocess(*shlex.split(command)[1:], "-p", "no:cacheprovider")
    again.assert_outcomes(failed=1)
    assert f"seed: {seed}\nreplay: {command}\n" in again.stdout.str()
    assert shown(first)[0] == shown(again)[0]


def shown(result: pytest.RunResult) -> list[list[str]]:
    """Return the components that each failure shows."""
    parts = result.stdout.str().split("WRONG: ")[1:]
    return [re.findall(r"^E +✗ +([Wb]\d\[.*\d)", part, re.MULTILINE) for part in parts]


@pytest.mark.slow
def test_workers_of_xdist_have_the_same_seeds_and_write_their_pages(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are appended to the node ids there, and must not change the seeds."""
    # Pytester gives processes another home, where they would compile all kernels.
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE_FOLDER.parent.parent))
    tests = (
        "import pytest\n"
        "@pytest.mark.xdist_group('g')\n"
        "def test_grouped(gradcheck):\n    gradcheck(network, X, Y, wrong)\n"
    ) + WRONG
    pytester.makepyfile(test_it=SUITE + tests)
    options = (
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "--gradcheck-report=pages",
    )
    serial = pytester.runpytest_inprocess(*options)
    pages = sorted((pytester.path / "pages").iterdir())
    for page in pages:
        page.unlink()
    spread = pytester.runpytest_subprocess(*options, "-n1", "--dist=loadgroup")
    spread.assert_outcomes(failed=2)
    assert sorted((pytester.path / "pages").iterdir()) == pages
    assert len(pages) == 2
    seeds = [
        sorted(re.findall("^(?:seed|replay): .*$", r.stdout.str(), re.MULTILINE))
        for r in (serial, spread)
    ]
    assert seeds[0] == seeds[1]
    assert len(seeds[0]) == 4


# ---- assert_gradient ---------------------------------------------------------------------------


def problem(factor: float = 1.0) -> Problem:
    network = Network.from_arrays([np.ones((2, 3))], activations=["identity"], loss="squared_error")

    def gradient(*of: object) -> list[np.ndarray]:
        return [factor * dW for dW in fastcheck.backward_pass(*of).values()]  # type: ignore[arg-type]

    return Problem(network, np.ones((4, 3)), np.zeros((4, 2)), gradient, name="mine")


def test_a_problem_and_a_report_are_subjects_too() -> None:
    assert assert_gradient(problem()).name == "mine"
    assert assert_gradient(problem(), sample=3).method.checked == 3
    good = fastcheck.gradcheck_function(lambda t: t**2, lambda t: 2 * t, 1.5)
    assert assert_gradient(good) is good
    bad = fastcheck.gradcheck_function(lambda t: t**2, lambda t: 3 * t, 1.5)
    for subject in (bad, problem(2.0)):
        with pytest.raises(AssertionError, match="WRONG: dθ is not the gradient"):
            assert_gradient(subject)


def test_what_nobody_can_tell_is_no_pass() -> None:
    with pytest.raises(GradientError, match="CANNOT TELL"):
        assert_gradient(problem(), method="textbook", epsilon=1e-12)


def test_subjects_are_not_mixed() -> None:
    good = fastcheck.gradcheck_function(lambda t: t**2, lambda t: 2 * t, 1.5)
    with pytest.raises(InputError, match="'tol' beside a Report"):
        assert_gradient(good, tol=1.0)
    with pytest.raises(InputError, match="1 more arguments beside a Problem"):
        assert_gradient(problem(), np.ones(3))
    with pytest.raises(InputError, match="2 arguments"):
        assert_gradient(problem().network, np.ones(3))


def test_the_error_says_the_diagnosis_and_travels_between_processes() -> None:
    from dataclasses import replace

    with pytest.raises(GradientError) as caught:
        assert_gradient(problem(2.0))
    report = replace(
        caught.value.report,
        artist=None,
        diagnosis={"findings": [{"sentence": "dW1 is twice as large", "rows": "dW1 = D.T @ X"}]},
    )
    text = str(GradientError(report))
    assert re.search(r"most likely +dW1 is twice as large\.\ncorrected +dW1 = D\.T @ X\n", text)
    assert str(copy.copy(GradientError(report))) == text
    assert "time " not in text
    assert Path(__file__).name not in text


LAYER_TESTS = """
import numpy as np

X = np.random.default_rng(0).normal(size=(3, 2))


def test_right(gradcheck):
    gradcheck.layer(np.sin, lambda dout, x: dout * np.cos(x), {"x": X})
    gradcheck.against({"x": X}, {"x": X.astype(np.float32)})


def test_wrong_layer(gradcheck):
    gradcheck.layer(np.sin, lambda dout, x: -dout * np.cos(x), {"x": X})


def test_vacuous_layer(gradcheck):
    gradcheck.layer(np.ones_like, lambda dout, x: 0 * x, {"x": X})


def test_wrong_beside_a_reference(gradcheck):
    gradcheck.against({"x": X}, {"x": -X})
"""


def test_the_fixture_checks_layers_and_gradients_beside_others(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LAYER_TESTS)
    result = pytester.runpytest_inprocess("-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(
        ["*WRONG: dθ is not the gradient of J*", "*VACUOUS*", "*is not the trusted gradient*"]
    )
