"""The pytest plugin: the fixture `gradcheck`, its options, its marker, and a page per failure.

PYTEST_DONT_REWRITE: and nothing here loads NumPy or numba, so that pytest starts as fast as ever.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastcheck.assertion import GradientError, assert_gradient

if TYPE_CHECKING:
    from fastcheck.report import Report

__all__ = ["GradientFixture", "assert_gradient", "gradcheck"]

MARKER = "gradcheck: checks a gradient (leave out with -m 'not gradcheck')"
METHODS = ("auto", "unit", "textbook")  # those of Settings, which needs NumPy
SECTION = "fastcheck"
REPLAYED = ("gradcheck_sample", "gradcheck_method", "gradcheck_seed")
FIXTURE = pytest.StashKey["GradientFixture"]()


class GradientFixture:
    """What the fixture `gradcheck` is: called, it checks, and fails the test if dθ is not right.

    Attributes
    ----------
    seed : int
        Of this test: from its node id, the same in every run and on every machine. For the
        sample, and for whatever the test draws itself.
    replay : str
        The command that runs this test again.
    options : dict
        What the command line says of every check.
    """

    def __init__(self, item: pytest.Item) -> None:
        config = item.config
        self.replay = _replay(item)
        given = config.getoption("gradcheck_seed")
        self.seed: int = _seed(_node_id(item)) if given is None else given
        self.options: dict[str, Any] = {
            name: config.getoption(f"gradcheck_{name}") for name in ("sample", "method")
        }

    def __call__(self, subject: Any, *arguments: Any, **options: Any) -> Report:
        """Check as `fastcheck.assert_gradient` does.

        Parameters
        ----------
        subject, *arguments
            A network, its batch and the gradient; a Problem; or a Report.
        **options
            As for `gradcheck`. What the command line says goes before.

        Returns
        -------
        Report

        Raises
        ------
        GradientError
            An `AssertionError`: the gradient is wrong, or nobody can tell.
        """
        __tracebackhide__ = True
        if _is_report(subject):
            return assert_gradient(subject, *arguments, **options)
        said = {name: value for name, value in self.options.items() if value is not None}
        defaults = {"seed": self.seed, "command": self.replay}
        return assert_gradient(subject, *arguments, **{**defaults, **options, **said})

    def layer(self, forward: Any, backward: Any, inputs: Any, **options: Any) -> Report:
        """Check a layer as `fastcheck.gradcheck_layer` does; fails if its backward is wrong.

        Returns
        -------
        Report

        Raises
        ------
        GradientError
            An `AssertionError`: wrong, vacuous, or nobody can tell.
        """
        __tracebackhide__ = True
        from fastcheck.layers import gradcheck_layer

        defaults = {"seed": self.seed, "command": self.replay}
        return assert_gradient(
            gradcheck_layer(forward, backward, inputs, **{**defaults, **options})
        )

    def against(self, reference: Any, given: Any, baseline: Any = None, **options: Any) -> Report:
        """Judge a gradient as `fastcheck.gradcheck_against` does, in the place of an `allclose`.

        Returns
        -------
        Report

        Raises
        ------
        GradientError
            An `AssertionError`: wrong, vacuous, or nobody can tell.
        """
        __tracebackhide__ = True
        from fastcheck.against import gradcheck_against

        given_options = {"command": self.replay, **options}
        return assert_gradient(gradcheck_against(reference, given, baseline, **given_options))


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> GradientFixture:
    """Check a gradient: `gradcheck(network, inputs, targets, gradients)`; fails if it is wrong."""
    fixture = GradientFixture(request.node)
    request.node.stash[FIXTURE] = fixture
    return fixture


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("fastcheck", "gradient checks (fastcheck)")
    group.addoption(
        "--gradcheck-sample",
        type=_whole_number(1),
        metavar="N",
        help="check N components of each gradient, drawn at random, whatever the test says.",
    )
    group.addoption(
        "--gradcheck-method",
        choices=METHODS,
        help="how the numerical gradient is made, whatever the test says.",
    )
    group.addoption(
        "--gradcheck-seed",
        type=_whole_number(0),
        metavar="S",
        help="the seed of every test (default: from its node id).",
    )
    group.addoption(
        "--gradcheck-report",
        metavar="DIR",
        help="write an HTML page about each gradient that fails to DIR.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker, and refuse a place where no page can be written."""
    config.addinivalue_line("markers", MARKER)
    folder = _folder(config)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise pytest.UsageError(f"--gradcheck-report {folder}: not a folder")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test that uses the fixture."""
    if "gradcheck" in getattr(item, "fixturenames", ()):
        item.add_marker("gradcheck")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure its seed, how to replay it, and the page."""
    report = yield
    fixture = item.stash.get(FIXTURE, None)
    error = None if call.excinfo is None else call.excinfo.value
    wrong = error if isinstance(error, GradientError) else None
    if report.failed and (fixture is not None or wrong is not None):
        lines = [f"replay: {_replay(item) if fixture is None else fixture.replay}"]
        if fixture is not None:
            lines.insert(0, f"seed: {fixture.seed}")
        if wrong is not None:
            lines += _page(item, report.when, wrong.report)
        report.sections.append((SECTION, "\n".join(lines)))
    return report


def _page(item: pytest.Item, when: str, report: Report) -> list[str]:
    """Write the page of a failure, and return what to say about it."""
    folder = _folder(item.config)
    if folder is None:
        return []
    file = folder / f"{_file_name(_node_id(item))}{'' if when == 'call' else f'-{when}'}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(report.to_html(), encoding="utf-8")
    except OSError as error:
        return [f"page: {file} can't be written ({error.strerror})"]
    return [f"page: {file}"]


def _folder(config: pytest.Config) -> Path | None:
    """Return where the pages go; workers of pytest-xdist write their own."""
    folder = config.getoption("gradcheck_report")
    return None if folder is None else config.invocation_params.dir / folder


def _file_name(node_id: str) -> str:
    """Return a name that every file system takes, and that no other test has."""
    words = re.sub(r"[^\w.-]+", "-", node_id, flags=re.ASCII).strip("-.")
    return f"{words[-80:]}-{_digest(node_id)[:8]}"


def _node_id(item: pytest.Item) -> str:
    """Return the node id without the group that pytest-xdist appends to it."""
    grouped = item.get_closest_marker("xdist_group") is not None
    return item.nodeid.rpartition("@")[0] or item.nodeid if grouped else item.nodeid


def _seed(node_id: str) -> int:
    return int(_digest(node_id)[:8], 16)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _replay(item: pytest.Item) -> str:
    """Return the command that runs a test again, from the folder where pytest was started."""
    config = item.config
    path, colons, rest = _node_id(item).partition("::")
    try:
        path = os.path.relpath(item.path, config.invocation_params.dir)
    except ValueError:  # another drive
        path = str(item.path)
    words = ["pytest", path + colons + rest]
    for name in REPLAYED:
        value = config.getoption(name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _is_report(subject: Any) -> bool:
    from fastcheck.report import Report

    return isinstance(subject, Report)


def _whole_number(least: int) -> Any:
    """Return what reads a whole number from the command line."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, {least} or more")
        return number

    return read
