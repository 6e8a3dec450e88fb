"""The command `fastcheck`: reads options, calls `gradcheck`, prints the report, sets the exit code.

Whatever needs NumPy or numba is imported only once there is something to check, so that `--help`
is quick.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcheck import options
from fastcheck.errors import InputError

if TYPE_CHECKING:
    from fastcheck.problem import Problem
    from fastcheck.report import Report
    from fastcheck.report.formats import Canvas

__all__ = ["main", "run"]

BAD_INPUT, CANNOT_TELL, INTERRUPTED = 2, 3, 130
EXIT_CODES = {"agree": 0, "wrong": 1, "cannot tell": CANNOT_TELL}
EPILOG = (
    "fastcheck explain FILE shows a saved report again: fastcheck explain --help. "
    "Exit codes: 0 the gradient is right, 1 it is wrong, 2 bad input or usage, 3 cannot tell. "
    "FASTCHECK_TRACEBACK=1 shows where an unexpected error arose."
)
# Small enough to be read: what --write-example writes unless told otherwise.
WRITTEN_EXAMPLE: dict[str, Any] = {"layers": (64, 16, 10), "batch": 8}

# Typer names only some of the parser's errors; what they have in common is not exported.
USAGE_ERROR: Any = typer.BadParameter.__base__

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
# `fastcheck explain …` is a command of its own, and `fastcheck …` needs no word before TARGET.
EXPLAIN = "explain"
COMPLETING = "_FASTCHECK_COMPLETE"  # set by a shell that wants to know how a line may go on
explaining = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


@app.command(epilog=EPILOG)
def check(
    target: options.Target = None,
    gradient: options.Gradient = None,
    sample: options.Sample = None,
    detect: options.Detect = None,
    sample_units: options.SampleUnits = None,
    seed: options.Seed = 0,
    epsilon: options.Epsilon = None,
    tol: options.Tol = None,
    method: options.Method = None,
    precision: options.Precision = None,
    train_steps: options.TrainSteps = None,
    learning_rate: options.LearningRate = None,
    layers: options.Layers = None,
    activation: options.ActivationName = None,
    loss: options.LossName = None,
    l2: options.L2 = None,
    batch: options.BatchSize = None,
    dtype: options.Dtype = None,
    plant: options.Plant = None,
    list_plants: options.ListPlants = False,
    write_example: options.WriteExample = None,
    jobs: options.Jobs = None,
    backend: options.Backend = None,
    journal: options.Journal = None,
    json_file: options.Json = None,
    html_file: options.Html = None,
    format_name: options.Format = None,
    quiet: options.Quiet = False,
    version: options.Version = False,
) -> int:
    """Is dθ the gradient of J(θ)? Check it with central differences."""
    if version or list_plants:
        typer.echo(_version() if version else _plants())
        return 0
    example = _given(
        layers=layers, activation=activation, loss=loss, l2=l2, batch=batch, dtype=dtype
    )
    _check_usage(target, {**example, **_given(plant=plant, write_example=write_example)})
    if gradient is not None:
        _check_second_file(target, gradient)
    _check_writable("--json", json_file)
    _check_writable("--html", html_file)
    show = _printer(format_name, quiet=quiet)
    if not quiet:
        _announce_compiling()
    if write_example is not None:
        return _write_example(write_example, {**WRITTEN_EXAMPLE, **example, "seed": seed}, plant)
    settings = _given(
        sample=sample, detect=detect, sample_units=sample_units, epsilon=epsilon, tol=tol,
        method=method, precision=precision, train_steps=train_steps,
        learning_rate=learning_rate, jobs=jobs, backend=backend, journal=journal,
    )  # fmt: skip
    problem = _problem(target, gradient, {**example, "seed": seed}, plant)
    report = _report(problem, {**settings, "seed": seed, "progress": not quiet})
    if html_file is not None:
        _write(html_file, report.to_html())
    if _save(report, json_file):
        show(report)
    return EXIT_CODES[report.status]


@explaining.command(
    epilog="Exit codes: those of the check whose report it is; 2 for a file that holds none."
)
def explain(
    file: options.SavedReport,
    format_name: options.Format = None,
    quiet: options.Quiet = False,
) -> int:
    """Show a saved report again, in any format."""
    show = _printer(format_name, quiet=quiet)
    report = _saved_report(file)
    show(report)
    return EXIT_CODES[report.status]


def _given(**given: Any) -> dict[str, Any]:
    """Return the options that were given; the others keep the defaults of those who use them."""
    return {name: value for name, value in given.items() if value is not None}


def _version() -> str:
    from fastcheck.versions import package_version

    return f"fastcheck {package_version('fastcheck')}"


def _plants() -> str:
    from fastcheck.diagnosis.plants import PLANTS, in_words

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
    folder = file.parent
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option} {file}", "a file in a folder that can be written to")


def _announce_compiling() -> None:
    from fastcheck.kernels.compiling import compiled_before

    if not compiled_before():
        typer.echo(
            "fastcheck: compiling its kernels, once for this installation (some seconds) …",
            err=True,
        )


def _example(choices: dict[str, Any]) -> Problem:
    from fastcheck.problem import Example, make_problem

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
        from fastcheck.target import find_problem

        return find_problem(target, gradient)
    return _planted(_example(example), plant)


def _planted(problem: Problem, bug: str | None) -> Problem:
    if bug is None:
        return problem
    from fastcheck.diagnosis.plants import plant

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
    typer.echo(f"Wrote {file}. Check it with: fastcheck {shlex.quote(str(file))}")
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
        command=shlex.join(["fastcheck", *sys.argv[1:]]),
        **settings,
    )


def _save(report: Report, file: Path | None) -> bool:
    """Write the report as JSON where that was asked for; return whether stdout is still free."""
    if file is None:
        return True
    if str(file) == "-":
        typer.echo(report.to_json())
        return False
    _write(file, report.to_json() + "\n")
    return True


def _saved_report(file: Path) -> Report:
    from fastcheck.report import Report

    place = "standard input" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{place} can't be read ({reason})", "a report that fastcheck --json FILE wrote"
        ) from None
    try:
        return Report.from_json(text)
    except InputError as error:
        raise InputError(f"{place}: {error.given}", error.expected, error.remedy) from None


def _printer(format_name: str | None, *, quiet: bool) -> Callable[[Report], None]:
    """Return what prints a report; a bad format is refused before the work is done, not after."""
    from fastcheck.report.formats import renderer

    render = renderer(format_name or "text")
    if quiet and format_name in (None, "text"):
        render = _in_one_line

    def show(report: Report) -> None:
        canvas = _canvas()
        typer.echo(render(report, canvas), nl=False, color=canvas.color)

    return show


def _in_one_line(report: Report, _: Canvas) -> str:
    from fastcheck.report.words import HEADLINES, verdict_sentence

    return f"{HEADLINES[report.status]}: {verdict_sentence(report)}\n"


def _canvas() -> Canvas:
    """Return what is known of standard output: 80 columns and no colour for a pipe."""
    from fastcheck.report.formats import Canvas

    if not sys.stdout.isatty():
        return Canvas()
    columns = shutil.get_terminal_size().columns
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Canvas(width=max(columns, 60), color=not plain)


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(f"{file} can't be written ({error.strerror})", "another file") from None


def _command(arguments: Sequence[str]) -> tuple[Any, str, list[str]]:
    """Return what is to run, its name, and its arguments.

    While a shell completes, the words come in its variables: as one text, or one a line.
    """
    words = list(arguments)
    if COMPLETING in os.environ:
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        words = line.split()[1:]
    command = typer.main.get_command(app)  # knows the shells for both
    if words[:1] == [EXPLAIN]:
        return typer.main.get_command(explaining), f"fastcheck {EXPLAIN}", list(arguments[1:])
    return command, "fastcheck", list(arguments)


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; whatever goes wrong is one line on stderr."""
    command, name, rest = _command(arguments)
    try:
        code = command.main(rest, prog_name=name, complete_var=COMPLETING, standalone_mode=False)
        # Some releases of Typer turn Ctrl-C into this code without a word, others raise.
        return _fail("interrupted", INTERRUPTED) if code == INTERRUPTED else int(code or 0)
    except InputError as error:
        return _fail(str(error))
    except USAGE_ERROR as error:
        return _fail(f"{error.format_message().rstrip('. ')}. See {name} --help.")
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("FASTCHECK_TRACEBACK"):
            raise
        from fastcheck.methods.self_check import SelfCheckError
        from fastcheck.target import failure

        return _fail(
            failure(error), CANNOT_TELL if isinstance(error, SelfCheckError) else BAD_INPUT
        )


def _fail(message: str, code: int = BAD_INPUT) -> int:
    sys.stderr.write(f"fastcheck: {' '.join(message.split())}\n")
    return code


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that has no ✓ gets a ? for it
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
