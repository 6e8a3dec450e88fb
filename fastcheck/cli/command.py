"""The command `fastcheck`: reads options, calls `gradcheck`, prints the report, sets the exit code.

Whatever needs NumPy or numba is imported only once there is something to check, so that `--help`
is quick.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from fastcheck.cli import completion
from fastcheck.cli.options import (
    COMPARE,
    COMPARE_OPTIONS,
    EXPLAIN,
    FORMAT,
    GIVEN_FILE,
    OPTIONS,
    QUIET,
    SAVED_REPORT,
    TARGET,
    SectionedCommand,
    chosen,
)
from fastcheck.cli.warm_up import announce_compiling
from fastcheck.errors import InputError

if TYPE_CHECKING:
    from fastcheck.model.problem import Problem
    from fastcheck.report import Report
    from fastcheck.report.formats import Canvas

__all__ = ["main", "run"]

LONGEST_REPORT = 2**26  # characters
BAD_INPUT, CANNOT_TELL, INTERRUPTED = 2, 3, 130
EXIT_CODES = {"agree": 0, "wrong": 1, "cannot tell": CANNOT_TELL, "vacuous": CANNOT_TELL}
EPILOG = (
    "fastcheck explain FILE shows a saved report again: fastcheck explain --help. "
    "fastcheck compare GIVEN --reference FILE judges a gradient in low precision beside a trusted "
    "one: fastcheck compare --help. "
    "Exit codes: 0 the gradient is right, 1 it is wrong, 2 bad input or usage, 3 cannot tell. "
    "FASTCHECK_TRACEBACK=1 shows where an unexpected error arose."
)
# Small enough to be read: what --write-example writes unless told otherwise.
WRITTEN_EXAMPLE: dict[str, Any] = {"layers": (64, 16, 10), "batch": 8}


def check(target: str | None, **given: Any) -> int:
    """Check what TARGET holds, and return the exit code."""
    for name, answer in ANSWERS.items():
        if given[name]:
            click.echo(answer())
            return 0
    example, settings = chosen(given, "example"), chosen(given, "settings")
    plant, write_example, quiet = given["plant"], given["write_example"], given["quiet"]
    _check_usage(target, {**example, **_named(plant=plant, write_example=write_example)})
    if given["gradient"] is not None:
        _check_second_file(target, given["gradient"])
    _check_writable("--json", given["json"])
    _check_writable("--html", given["html"])
    show = _printer(given["format"], quiet=quiet)
    seed = {"seed": settings.get("seed", 0)}
    with nullcontext() if quiet else announce_compiling():
        if write_example is not None:
            return _write_example(write_example, {**WRITTEN_EXAMPLE, **example, **seed}, plant)
        problem = _problem(target, given["gradient"], {**example, **seed}, plant)
        report = _report(problem, {**settings, "progress": not quiet})
    if given["html"] is not None:
        _write(given["html"], report.to_html())
    if _save(report, given["json"]):
        show(report)
    return EXIT_CODES[report.status]


def explain(file: Path, format: str | None, quiet: bool) -> int:
    """Show a saved report again, and return the exit code of its check."""
    show = _printer(format, quiet=quiet)
    report = _saved_report(file)
    show(report)
    return EXIT_CODES[report.status]


def compare(given: Path, **options: Any) -> int:
    """Judge a gradient beside a trusted one, and return the exit code."""
    from fastcheck.against import audit_tolerance, gradcheck_against

    tolerance = _tolerance(options["allclose"])
    _check_writable("--json", options["json"])
    _check_writable("--html", options["html"])
    show = _printer(options["format"], quiet=options["quiet"])
    reference, baseline = options["reference"], options["baseline"]
    report = gradcheck_against(
        reference, given, baseline, precision=options["precision"],
        name=f"{given.name} beside {reference.name}", command=_again(),
    )  # fmt: skip
    if options["html"] is not None:
        _write(options["html"], report.to_html())
    if _save(report, options["json"]):
        show(report)
        if tolerance is not None:
            atol, rtol = tolerance
            audit = audit_tolerance(reference, rtol=rtol, atol=atol, baseline=baseline)
            _print(f"\n{audit}", nl=False)
    return EXIT_CODES[report.status]


def _tolerance(text: str | None) -> tuple[float, float] | None:
    """Return atol and rtol of `5,50`."""
    if text is None:
        return None
    try:
        atol, rtol = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--allclose {text!r}", "atol and rtol: --allclose 1e-8,1e-5") from None
    return atol, rtol


def _again() -> str:
    return shlex.join(["fastcheck", *sys.argv[1:]])


def _named(**given: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in given.items() if value is not None}


def _version() -> str:
    from fastcheck.versions import package_version

    return f"fastcheck {package_version('fastcheck')}"


def _plants() -> str:
    from fastcheck.diagnosis.inject import PLANTS, in_words

    width = max(map(len, PLANTS))
    return "\n".join(f"{name:<{width}}  {in_words(slip)}" for name, slip in PLANTS.items())


def _check_usage(target: str | None, example: dict[str, Any]) -> None:
    if target is not None and target.endswith(".json"):
        raise InputError(
            f"TARGET {target!r}", "a problem to check", f"A report? fastcheck explain {target}"
        )
    if target is not None and example:
        name = "--" + next(iter(example)).replace("_", "-")
        raise InputError(
            f"both TARGET {target!r} and {name}",
            f"{name} without TARGET: it shapes the example",
            "Leave one of them out.",
        )


def _check_second_file(target: str | None, gradient: Path) -> None:
    from fastcheck.importers import IN_TWO_FILES

    if target is None or not target.lower().endswith(IN_TWO_FILES):
        place = "without TARGET" if target is None else f"with TARGET {target!r}"
        raise InputError(
            f"--gradient {gradient} {place}",
            f"a TARGET whose gradient is in a second file ({', '.join(IN_TWO_FILES)})",
            "Leave --gradient out: any other problem holds its own.",
        )


def _check_writable(option: str, file: Path | None) -> None:
    """Refuse a file that can't be written before the work is done, not after."""
    if file is None or str(file) == "-":
        return
    if file.exists() and not file.is_file() and not file.is_dir() and os.access(file, os.W_OK):
        return
    folder = file.parent
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option} {file}", "a file in a folder that can be written to")


def _warm_up() -> str:
    from fastcheck.cli.warm_up import warm_up

    with announce_compiling():
        folder = warm_up()
    return f"All kernels are compiled. They are kept in {folder}."


def _example(choices: dict[str, Any]) -> Problem:
    from fastcheck.reference.example import Example, make_problem

    sizes = choices.get("layers")
    if isinstance(sizes, str):
        choices = {**choices, "layers": _sizes(sizes)}
    return make_problem(Example(**choices))


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.replace(",", "-").replace(" ", "").split("-")
    if not all(part.isdecimal() and len(part) <= 9 for part in parts):
        raise InputError(
            f"--layers {text!r}",
            "sizes with hyphens between them",
            "Write 784-512-512-10: inputs, hidden units, outputs.",
        )
    return tuple(map(int, parts))


def _problem(
    target: str | None, gradient: Path | None, example: dict[str, Any], plant: str | None
) -> Problem:
    """Return what is to be checked."""
    if target is not None:
        from fastcheck.cli.target import find_problem

        return find_problem(target, gradient)
    return _planted(_example(example), plant)


def _planted(problem: Problem, bug: str | None) -> Problem:
    if bug is None:
        return problem
    from fastcheck.diagnosis.inject import plant

    batch = problem.network.batch(problem.inputs, problem.targets)
    gradient = plant(bug, problem.network, batch)
    name = f"{problem.name}, with a planted bug: {gradient}"
    return replace(problem, gradient=gradient, name=name)


def _write_example(file: Path, example: dict[str, Any], plant: str | None) -> int:
    from fastcheck.importers.npz import write_problem

    if file.suffix != ".npz":
        raise InputError(
            f"--write-example {file}", "a name that ends in .npz", f"Write {file}.npz."
        )
    if file.exists():
        raise InputError(
            f"--write-example {file}, which exists", "a new file", "Take another name."
        )
    write_problem(file, _planted(_example(example), plant))
    click.echo(f"Wrote {file}. Check it with: fastcheck {shlex.quote(str(file))}")
    return 0


def _report(problem: Problem, settings: dict[str, Any]) -> Report:
    from fastcheck.check import gradcheck

    return gradcheck(
        problem.network,
        problem.inputs,
        problem.targets,
        problem.gradient,
        cost=problem.cost,
        name=problem.name,
        command=_again(),
        **settings,
    )


def _save(report: Report, file: Path | None) -> bool:
    """Write the report as JSON where that was asked for; return whether stdout is still free."""
    if file is None:
        return True
    if str(file) == "-":
        _print(report.to_json())
        return False
    _write(file, report.to_json() + "\n")
    return True


def _saved_report(file: Path) -> Report:
    from fastcheck.report import Report

    place = "standard input" if str(file) == "-" else str(file)
    try:
        text = _limited(sys.stdin) if str(file) == "-" else _limited_file(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{place} can't be read ({reason})", "a report that fastcheck --json FILE wrote"
        ) from None
    try:
        return Report.from_json(text)
    except InputError as error:
        raise InputError(f"{place}: {error.given}", error.expected, error.remedy) from None


def _limited_file(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return _limited(stream)


def _limited(stream: IO[str]) -> str:
    """Return a text that is no longer than a report ever is; a device may never end."""
    text = stream.read(LONGEST_REPORT + 1)
    if len(text) > LONGEST_REPORT:
        raise InputError(
            f"a file of more than {LONGEST_REPORT:,} characters",
            "a report that fastcheck --json FILE wrote",
        )
    return text


def _printer(format_name: str | None, *, quiet: bool) -> Callable[[Report], None]:
    """Return what prints a report; a bad format is refused before the work is done, not after."""
    from fastcheck.report.formats import renderer

    render = renderer(format_name or "text")
    if quiet and format_name in (None, "text"):
        render = _in_one_line

    def show(report: Report) -> None:
        canvas = _canvas()
        _print(render(report, canvas), nl=False, color=canvas.color)

    return show


def _in_one_line(report: Report, _: Canvas) -> str:
    from fastcheck.report.sentences import HEADLINES, verdict_sentence

    return f"{HEADLINES[report.status]}: {verdict_sentence(report)}\n"


def _canvas() -> Canvas:
    """Return what is known of standard output: 80 columns and no colour for a pipe."""
    from fastcheck.report.formats import Canvas

    if sys.stdout is None or not sys.stdout.isatty():  # None where it was closed
        return Canvas()
    columns = shutil.get_terminal_size().columns
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Canvas(width=max(columns, 60), color=not plain)


def _print(text: str, **options: Any) -> None:
    """Print a report; where nobody reads on, the exit code still tells."""
    try:
        click.echo(text, **options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputError(f"standard output can't be written ({reason})", "room for it") from None


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all; write through what is no regular file."""
    file = Path(os.path.realpath(file)) if file.is_file() or not file.exists() else file
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if file.exists() and not file.is_file():  # a device, a FIFO: never replaced
            with file.open("w", encoding="utf-8") as through:
                through.write(text)
            return
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"{file} can't be written ({error.strerror})", "another file") from None


ANSWERS: dict[str, Callable[[], str]] = {
    "version": _version,
    "list_plants": _plants,
    "warm_up": _warm_up,
    "show_completion": completion.script,
    "install_completion": completion.install,
}
CHECK_COMMAND = SectionedCommand(
    "fastcheck",
    callback=check,
    params=[TARGET, *OPTIONS],
    help="Is dθ the gradient of J(θ)? Check it with central differences.\n\n"
    "TARGET is problem.npz (.safetensors, .onnx), module:attribute or file.py:attribute (a "
    "Problem, or a function that returns one). Without it, an example on handwritten digits.",
    epilog=EPILOG,
)
EXPLAIN_COMMAND = SectionedCommand(
    EXPLAIN,
    callback=explain,
    params=[SAVED_REPORT, FORMAT, QUIET],
    help="Show a saved report again, in any format.\n\n"
    "FILE is what fastcheck --json FILE wrote (- for standard input).",
    epilog="Exit codes: those of the check whose report it is; 2 for a file that holds none.",
)

COMPARE_COMMAND = SectionedCommand(
    COMPARE,
    callback=compare,
    params=[GIVEN_FILE, *COMPARE_OPTIONS],
    help="Judge a gradient in low precision beside a trusted one.\n\n"
    "GIVEN and the other files hold gradients by name, as .npz or .safetensors.",
    epilog="Exit codes: 0 within its precision, 1 wrong, 2 bad input or usage, 3 cannot tell or "
    "vacuous (the reference is below the tolerance).",
)
SUBCOMMANDS = {EXPLAIN: EXPLAIN_COMMAND, COMPARE: COMPARE_COMMAND}


def _command(arguments: Sequence[str]) -> tuple[click.Command, str, list[str]]:
    """Return what is to run, its name, and its arguments.

    While a shell completes, the words come in a variable. Subcommands have their own, and
    `fastcheck …` needs no word before TARGET.
    """
    words = list(arguments)
    if completion.VARIABLE in os.environ:
        words = os.environ.get("COMP_WORDS", "").split()[1:]
        if words and words[0] in SUBCOMMANDS and os.environ.get("COMP_CWORD") != "1":
            completion.drop_first_word()
            return SUBCOMMANDS[words[0]], "fastcheck", []
        return CHECK_COMMAND, "fastcheck", words
    if words and words[0] in SUBCOMMANDS:
        return SUBCOMMANDS[words[0]], f"fastcheck {words[0]}", words[1:]
    return CHECK_COMMAND, "fastcheck", words


def _invoke(command: click.Command, name: str, arguments: list[str]) -> int:
    """Run a command, or answer a shell that completes; return the exit code."""
    if completion.VARIABLE in os.environ:
        with suppress(SystemExit):  # click ends the process once it has answered
            command.main(arguments, prog_name=name, complete_var=completion.VARIABLE)
        return 0
    try:
        with command.make_context(name, arguments) as context:
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as done:  # --help
        return done.exit_code


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; whatever goes wrong is one line on stderr."""
    name = "fastcheck"
    try:
        command, name, rest = _command(arguments)
        return _invoke(command, name, rest)
    except InputError as error:
        return _fail(str(error))
    except click.ClickException as error:
        return _fail(f"{error.format_message().rstrip('. ')}. See {name} --help.")
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:  # SystemExit too: 1 means a wrong gradient, and nothing else
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    """Say what went wrong, with the place in the user's own code, and return the exit code."""
    if os.environ.get("FASTCHECK_TRACEBACK"):
        traceback.print_exception(error)
        return BAD_INPUT
    try:
        from fastcheck.cli.target import failure
        from fastcheck.methods.unit.self_check import SelfCheckError

        code = CANNOT_TELL if isinstance(error, SelfCheckError) else BAD_INPUT
        return _fail(failure(error), code)
    except Exception:  # what can't even be imported, or a memory that is full
        return _fail(f"{type(error).__name__}: {error}")


def _fail(message: str, code: int = BAD_INPUT) -> int:
    with suppress(OSError, ValueError, AttributeError):  # no standard error: the code tells
        sys.stderr.write(f"fastcheck: {' '.join(message.split())}\n")
    return code


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that has no ✓ gets a ? for it
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
