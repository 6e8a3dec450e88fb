"""What a page of the documentation holds, and what comes out when all of it is run in order.

Run as a script with the name of a page: its code runs in the present folder, the outputs are
printed as JSON. A page is read like this:

- a ```python fence is run, in one namespace for the page;
- one with a caption is written to a file of that name instead;
- a ```text fence right after either is what it prints;
- a ```console fence holds commands after `$ `, each followed by what it prints.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

__all__ = ["Step", "outputs", "steps_of"]

CAPTIONED = "{code-block} python"
PROMPT = "$ "


@dataclass
class Step:
    """One thing to run.

    Attributes
    ----------
    kind : str
        `python`, `file` or `command`.
    code : str
        Source, or the command.
    shown : str
        What the page says it prints; "" where it says nothing.
    line : int
        Of the page.
    file : str
        Where a `file` goes.
    """

    kind: str
    code: str
    shown: str
    line: int
    file: str = ""


def steps_of(page: Path) -> list[Step]:
    """Return what there is to run on a page, in its order."""
    steps: list[Step] = []
    fresh = False  # whether the last block was Python, so that its output may follow
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type != "fence":
            fresh = fresh and token.type != "heading_open"
            continue
        start = token.map[0] + 1 if token.map else 0
        kind = token.info.strip()
        if kind == "text" and fresh:
            steps[-1].shown = token.content
        elif kind == "python":
            steps.append(Step("python", token.content, "", start))
        elif kind == CAPTIONED:
            steps.append(_file(token.content, start))
        elif kind == "console":
            steps.extend(_commands(token.content, start))
        fresh = kind == "python"
    return steps


def _file(content: str, line: int) -> Step:
    caption, _, code = content.partition("\n")
    name = caption.removeprefix(":caption:").strip()
    return Step("file", code.lstrip("\n"), "", line, file=name)


def _commands(content: str, line: int) -> list[Step]:
    steps: list[Step] = []
    for number, text in enumerate(content.splitlines(), start=line + 1):
        if text.startswith(PROMPT):
            steps.append(Step("command", text.removeprefix(PROMPT), "", number))
        else:
            steps[-1].shown += f"{text}\n"
    return steps


def outputs(steps: list[Step]) -> list[str]:
    """Run all steps in the present folder; return what each printed."""
    space: dict[str, Any] = {"__name__": "__main__"}
    return [RUN[step.kind](step, space) for step in steps]


def _python(step: Step, space: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # Blank lines before it: a traceback names the line of the page.
        exec(compile("\n" * step.line + step.code, "page", "exec"), space)
    return printed.getvalue()


def _to_file(step: Step, space: dict[str, Any]) -> str:
    Path(step.file).write_text(step.code, encoding="utf-8")
    return ""


def _command(step: Step, space: dict[str, Any]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", step.code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path, "COLUMNS": "80"},
        check=False,
    )
    return done.stdout


RUN = {"python": _python, "file": _to_file, "command": _command}


if __name__ == "__main__":
    found = outputs(steps_of(Path(sys.argv[1])))
    sys.stdout.write(json.dumps(found))
