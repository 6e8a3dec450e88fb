"""`assert_gradient`: a check that raises where the gradient is not right, for tests.

PYTEST_DONT_REWRITE: nothing here is a test's own assertion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcheck.errors import InputError

if TYPE_CHECKING:
    from fastcheck.model.network import Network
    from fastcheck.model.problem import Problem
    from fastcheck.report import Report

__all__ = ["GradientError", "assert_gradient"]

WIDTH = 72  # pytest puts eight columns before each line
FORMS = "(network, inputs, targets, gradients), a Problem or a Report"


class GradientError(AssertionError):
    """A gradient that is wrong, or of which nobody can tell; shows the report.

    Attributes
    ----------
    report : Report
    """

    def __init__(self, report: Report) -> None:
        from fastcheck.report.text import failure

        self.report = report
        super().__init__(failure(report, width=WIDTH))

    def __reduce__(self) -> tuple[type[GradientError], tuple[Report]]:
        return type(self), (self.report,)


GradientError.__module__ = "fastcheck"  # where users find it; pytest shows the whole name


def assert_gradient(subject: Network | Problem | Report, *arguments: Any, **options: Any) -> Report:
    """Check a gradient, and raise if it is not the gradient of J(θ).

    Parameters
    ----------
    subject : Network, Problem or Report
        `assert_gradient(network, inputs, targets, gradients)` as for `gradcheck`;
        `assert_gradient(problem)`; or `assert_gradient(report)` with what any other check
        returned: `check_torch(…)`, `gradcheck_function(…)`.
    *arguments
        Inputs, targets and gradients, where the subject is a network.
    **options
        As for `gradcheck`; none where the subject is a report.

    Returns
    -------
    Report
        Of a gradient that is right.

    Raises
    ------
    GradientError
        An `AssertionError`: the gradient is wrong, or nobody can tell.
    InputError
        For bad input.

    Examples
    --------
    >>> def test_backward():
    ...     assert_gradient(network, X, Y, backward)
    """
    __tracebackhide__ = True
    report = _report(subject, arguments, options)
    if not report.passed:
        raise GradientError(report)
    return report


def _report(subject: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Report:
    """Return the report on a subject, whatever it is."""
    from fastcheck.report import Report

    __tracebackhide__ = True
    if isinstance(subject, Report):
        _refuse(arguments, options, "a Report, which is a check already made")
        return subject

    from fastcheck.check import gradcheck
    from fastcheck.model.problem import Problem

    if isinstance(subject, Problem):
        _refuse(arguments, {}, "a Problem, which has its batch and gradient")
        given = {"cost": subject.cost, "name": subject.name, **options}
        parts = (subject.network, subject.inputs, subject.targets, subject.gradient)
        return gradcheck(*parts, **given)
    if len(arguments) != 3:
        raise InputError(f"{1 + len(arguments)} arguments", FORMS)
    return gradcheck(subject, *arguments, **options)


def _refuse(arguments: tuple[Any, ...], options: dict[str, Any], subject: str) -> None:
    """Refuse what goes with another subject."""
    extra = [repr(name) for name in options] or [f"{len(arguments)} more arguments"]
    if arguments or options:
        raise InputError(f"{extra[0]} beside {subject}", f"{FORMS}, with nothing else")
