"""The command's options: what each is called, and what `--help` says of it.

Nothing here imports NumPy, so that `--help` is quick; the defaults are those of `Settings` and
`Example`, which know and check them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

CHECK = "The check"
EXAMPLE = "The example (without TARGET)"
WORK = "The work"
OUTPUT = "Output"


# What completion offers. The tests hold them against the tables that check them.
METHODS = ("auto", "unit", "textbook")
BACKENDS = ("threads", "loky", "context")
DTYPES = ("float64", "float32", "float16")
FORMATS = ("text", "json", "markdown", "junit", "github", "html")


def _option(
    name: str,
    text: str,
    panel: str,
    metavar: str | None = None,
    parser: Callable[[str], Any] | tuple[str, ...] | None = None,
) -> Any:
    """Return an option; what reads it may be the words that completion offers."""
    complete = None
    if isinstance(parser, tuple):
        complete, parser = _offering(parser), None
    return typer.Option(
        name,
        help=text,
        rich_help_panel=panel,
        metavar=metavar,
        show_default=False,
        parser=parser,
        autocompletion=complete,
    )


def _offering(words: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return what completes a word to one of these."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _target(incomplete: str) -> list[str]:
    """Complete the word `explain`; where nothing is offered, the shells complete files."""
    return ["explain"] if incomplete and "explain".startswith(incomplete) else []


def _whole(text: str | int) -> int:
    """Read a whole number; Typer's own message does not say what was given."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}. Expected a whole number") from None


def _real(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}. Expected a number") from None


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        help="problem.npz, module:attribute or file.py:attribute (a Problem, or a function that "
        "returns one). Without it, an example on handwritten digits.",
        show_default=False,
        autocompletion=_target,
    ),
]
Gradient = Annotated[
    Path | None,
    _option(
        "--gradient",
        "The second file of an .onnx TARGET, .npz or .safetensors: X, Y and the gradient "
        "(default: model.gradient.npz beside model.onnx).",
        CHECK,
        "FILE",
    ),
]
Sample = Annotated[
    int | None,
    _option("--sample", "Check N components drawn at random (default: all).", CHECK, "N", _whole),
]
Detect = Annotated[
    float | None,
    _option(
        "--detect",
        "Instead of --sample: as many components as it takes to see, at 95 % confidence, where a "
        "share X of a block is wrong (0.001).",
        CHECK,
        "X",
        _real,
    ),
]
SampleUnits = Annotated[
    int | None,
    _option(
        "--sample-units",
        "Instead of --sample: check N units drawn at random, with whole rows of W. A row takes as "
        "long as one component of it.",
        CHECK,
        "N",
        _whole,
    ),
]
Seed = Annotated[
    int,
    _option(
        "--seed", "Of the sample and of the example's numbers (default 0).", CHECK, "N", _whole
    ),
]
Epsilon = Annotated[
    float | None,
    _option("--epsilon", "ε of the central difference (default 1e-7).", CHECK, "X", _real),
]
Tol = Annotated[
    float | None,
    _option(
        "--tol", "Relative difference up to which it is right (default 1e-7).", CHECK, "X", _real
    ),
]
Method = Annotated[
    str | None,
    _option("--method", "auto (default), unit or textbook.", CHECK, "NAME", METHODS),
]
Precision = Annotated[
    str | None,
    _option(
        "--precision",
        "What the gradient was computed in: float64, float32, float16 or bfloat16 "
        "(default: read from its arrays).",
        CHECK,
        "NAME",
    ),
]
TrainSteps = Annotated[
    int | None,
    _option("--train-steps", "Check again after K gradient steps (default 0).", CHECK, "K", _whole),
]
LearningRate = Annotated[
    float | None,
    _option("--learning-rate", "Of those steps.", CHECK, "X", _real),
]
Layers = Annotated[
    str | None,
    _option("--layers", "Sizes, as 784-512-512-10 (default 64-1024-1024-10).", EXAMPLE, "SIZES"),
]
ActivationName = Annotated[
    str | None,
    _option("--activation", "Of the hidden layers (default relu).", EXAMPLE, "NAME"),
]
LossName = Annotated[
    str | None,
    _option("--loss", "Default softmax_cross_entropy.", EXAMPLE, "NAME"),
]
L2 = Annotated[float | None, _option("--l2", "λ (default 0.1).", EXAMPLE, "X", _real)]
BatchSize = Annotated[int | None, _option("--batch", "Samples (default 32).", EXAMPLE, "M", _whole)]
Dtype = Annotated[
    str | None,
    _option("--dtype", "float64 (default), float32 or float16.", EXAMPLE, "NAME", DTYPES),
]
Plant = Annotated[
    str | None,
    _option(
        "--plant",
        "Plant a bug in the gradient, as transposed or doubled@2 (in layer 2).",
        EXAMPLE,
        "BUG",
    ),
]
ListPlants = Annotated[
    bool,
    _option("--list-plants", "List the bugs that can be planted.", EXAMPLE, ""),
]
WriteExample = Annotated[
    Path | None,
    _option(
        "--write-example", "Write a small example to FILE.npz, to start from.", EXAMPLE, "FILE"
    ),
]
Jobs = Annotated[int | None, _option("--jobs", "Workers (default: one a core).", WORK, "N", _whole)]
Backend = Annotated[
    str | None,
    _option("--backend", "threads (default), loky or context (joblib's).", WORK, "NAME", BACKENDS),
]
Journal = Annotated[
    Path | None,
    _option("--journal", "Keep finished work in FILE, and go on from it.", WORK, "FILE"),
]
Json = Annotated[
    Path | None,
    _option("--json", "Write the report to FILE as JSON (- for stdout).", OUTPUT, "FILE"),
]
Html = Annotated[
    Path | None,
    _option("--html", "Write the report to FILE as a page with pictures.", OUTPUT, "FILE"),
]
Format = Annotated[
    str | None,
    _option(
        "--format",
        "How to print the report: text (default), json, markdown, junit, github (annotations) "
        "or html.",
        OUTPUT,
        "NAME",
        FORMATS,
    ),
]
SavedReport = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="What fastcheck --json FILE wrote (- for standard input).",
        show_default=False,
    ),
]
Quiet = Annotated[
    bool,
    _option("--quiet", "Only the verdict in one line, and no progress.", OUTPUT, ""),
]
Version = Annotated[bool, _option("--version", "Show the version.", OUTPUT, "")]
