"""The command's options in one table: name, help, and which part of the command each one feeds.

Nothing here imports NumPy, so that `--help` is quick; the defaults are those of `Settings` and
`Example`, which know and check them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from fastcheck.settings import BACKENDS, METHODS

__all__ = [
    "COMPARE",
    "COMPARE_OPTIONS",
    "EXPLAIN",
    "FORMAT",
    "GIVEN_FILE",
    "OPTIONS",
    "QUIET",
    "SAVED_REPORT",
    "TARGET",
    "SectionedCommand",
    "chosen",
]

EXPLAIN, COMPARE = "explain", "compare"

CHECK = "The check"
EXAMPLE = "The example (without TARGET)"
WORK = "The work"
OUTPUT = "Output"

# Completion offers these; a test compares them with the tables that check them.
DTYPES = ("float64", "float32", "float16")
FORMATS = ("text", "json", "markdown", "junit", "github", "html")


class Words(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A word that completion offers; whoever uses it says which words there are."""

    name = "word"

    def __init__(self, *words: str) -> None:
        self.words = words

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the words that start as the incomplete one does."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class Target(Words):
    """A file, which the shell completes, or the word `explain`."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return `explain` where it is begun, else leave it to the shell."""
        begun = super().shell_complete(ctx, param, incomplete) if incomplete else []
        return begun or [CompletionItem(incomplete, type="file")]


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number; the message of a failure says what was given."""

    def __init__(self, read: type[int] | type[float], noun: str) -> None:
        self.read, self.name = read, noun

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float:
        """Return the number that a text stands for."""
        try:
            return self.read(value)
        except ValueError:
            self.fail(f"{value!r}. Expected {self.name}", param, ctx)


WHOLE, REAL = Number(int, "a whole number"), Number(float, "a number")
FILE = click.Path(path_type=Path)


class Option(click.Option):
    """An option with its section in `--help`.

    Attributes
    ----------
    section : str
    feeds : str
        `settings` (keyword arguments of `gradcheck`), `example` (fields of `Example`) or `command`.
    """

    def __init__(self, section: str, name: str, metavar: str, text: str, **more: Any) -> None:
        self.section = section
        self.feeds = more.pop("feeds", "command")
        if not metavar:
            more["is_flag"] = True
        super().__init__([name], metavar=metavar or None, help=text, **more)


def _settings(section: str, name: str, metavar: str, text: str, kind: Any = None) -> Option:
    return Option(section, name, metavar, text, type=kind, feeds="settings")


def _example(name: str, metavar: str, text: str, kind: Any = None) -> Option:
    return Option(EXAMPLE, name, metavar, text, type=kind, feeds="example")


FORMAT = Option(
    OUTPUT,
    "--format",
    "NAME",
    "How to print the report: text (default), json, markdown, junit, github (annotations) or html.",
    type=Words(*FORMATS),
)
QUIET = Option(OUTPUT, "--quiet", "", "Only the verdict in one line, and no progress.")

# fmt: off
OPTIONS = [
    Option(
        CHECK, "--gradient", "FILE",
        "The second file of an .onnx TARGET, .npz or .safetensors: X, Y and the gradient "
        "(default: model.gradient.npz beside model.onnx).", type=FILE,
    ),
    _settings(
        CHECK, "--sample", "N", "Check N components drawn at random (default: all).", WHOLE
    ),
    _settings(
        CHECK, "--detect", "X",
        "Instead of --sample: as many components as it takes to see, at 95 % confidence, where a "
        "share X of a block is wrong (0.001).", REAL,
    ),
    _settings(
        CHECK, "--sample-units", "N",
        "Instead of --sample: check N units drawn at random, with whole rows of W. A row takes as "
        "long as one component of it.", WHOLE,
    ),
    _settings(
        CHECK, "--seed", "N", "Of the sample and of the example's numbers (default 0).", WHOLE
    ),
    _settings(CHECK, "--epsilon", "X", "ε of the central difference (default 1e-7).", REAL),
    _settings(
        CHECK, "--tol", "X", "Relative difference up to which it is right (default 1e-7).", REAL
    ),
    _settings(CHECK, "--method", "NAME", "auto (default), unit or textbook.", Words(*METHODS)),
    _settings(
        CHECK, "--precision", "NAME",
        "What the gradient was computed in: float64, float32, float16 or bfloat16 "
        "(default: read from its arrays).",
    ),
    _settings(
        CHECK, "--sweep", "",
        "Add a Taylor table: J along a random direction at many steps, with the rates.",
    ),
    _settings(
        CHECK, "--train-steps", "K", "Check again after K gradient steps (default 0).", WHOLE
    ),
    _settings(CHECK, "--learning-rate", "X", "Of those steps.", REAL),
    _example("--layers", "SIZES", "Sizes, as 784-512-512-10 (default 64-1024-1024-10)."),
    _example("--activation", "NAME", "Of the hidden layers (default relu)."),
    _example("--loss", "NAME", "Default softmax_cross_entropy."),
    _example("--l2", "X", "λ (default 0.1).", REAL),
    _example("--batch", "M", "Samples (default 32).", WHOLE),
    _example("--dtype", "NAME", "float64 (default), float32 or float16.", Words(*DTYPES)),
    Option(
        EXAMPLE, "--plant", "BUG",
        "Plant a bug in the gradient, as transposed or doubled@2 (in layer 2).",
    ),
    Option(EXAMPLE, "--list-plants", "", "List the bugs that can be planted."),
    Option(
        EXAMPLE, "--write-example", "FILE", "Write a small example to FILE.npz, to start from.",
        type=FILE,
    ),
    _settings(WORK, "--jobs", "N", "Workers (default: one a core).", WHOLE),
    _settings(
        WORK, "--backend", "NAME", "threads (default), loky, dask, ray or context (joblib's).",
        Words(*BACKENDS),
    ),
    _settings(
        WORK, "--scheduler", "ADDRESS", "Of a Dask scheduler: tcp://host:8786 (--backend dask)."
    ),
    _settings(
        WORK, "--ray-address", "ADDRESS",
        "Of a Ray cluster: auto, ray://host:10001 (default: one on this machine).",
    ),
    _settings(
        WORK, "--journal", "FILE", "Keep finished work in FILE, and go on from it.", FILE
    ),
    Option(
        OUTPUT, "--json", "FILE", "Write the report to FILE as JSON (- for stdout).", type=FILE
    ),
    Option(
        OUTPUT, "--html", "FILE", "Write the report to FILE as a page with pictures.", type=FILE
    ),
    FORMAT,
    QUIET,
    Option(
        WORK, "--warm-up", "",
        "Compile all kernels, for an image or CI, and say where they are kept.",
    ),
    Option(OUTPUT, "--version", "", "Show the version."),
    Option(OUTPUT, "--show-completion", "", "Show the completion script of your shell."),
    Option(OUTPUT, "--install-completion", "", "Install the completion script of your shell."),
]
# fmt: on

TARGET = click.Argument(
    ["target"], required=False, metavar="[TARGET]", type=Target(EXPLAIN, COMPARE)
)
GIVEN_FILE = click.Argument(["given"], metavar="GIVEN", type=FILE)
COMPARE_OPTIONS = [
    Option(
        CHECK, "--reference", "FILE", "The trusted gradient, in higher precision.", type=FILE,
        required=True,
    ),
    Option(
        CHECK, "--baseline", "FILE",
        "The gradient of a plain implementation in the precision of GIVEN: a block may be off by "
        "three times its error.", type=FILE,
    ),
    Option(
        CHECK, "--precision", "NAME",
        "What GIVEN was computed in: float64, float32, float16 or bfloat16 (default: read from its "
        "values).",
    ),
    Option(
        CHECK, "--allclose", "ATOL,RTOL",
        "Say what a test with this tolerance would let pass, after the report.",
    ),
    *(option for option in OPTIONS if option.name in ("json", "html")),
    FORMAT,
    QUIET,
]  # fmt: skip
SAVED_REPORT = click.Argument(["file"], metavar="FILE", type=FILE)


def chosen(given: dict[str, Any], feeds: str) -> dict[str, Any]:
    """Return the options of one kind that were given; the others keep their defaults."""
    names = [option.name for option in OPTIONS if option.feeds == feeds]
    return {str(name): given[name] for name in names if name and given[name] is not None}


class SectionedCommand(click.Command):
    """A command whose `--help` lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section's options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", OUTPUT), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
