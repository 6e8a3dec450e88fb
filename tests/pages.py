"""What a page of the documentation holds, and what comes out when all of it is run in order.

`python tests/pages.py PAGE` runs its code in the present folder and prints the outputs as JSON;
`python tests/pages.py PAGE FOLDER` runs it in an empty folder and writes the outputs into the page.
A page is read like this:

- a ```python fence is run, in one namespace for the page;
- one with a caption is written to a file of that name instead;
- a ```text fence right after either is what it prints;
- a ```console fence holds commands after `$ `, each followed by what it prints;
- a line with nothing but `…` stands for output that is left out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

__all__ = ["ELISION", "Step", "difference", "outputs", "steps_of", "written"]

CAPTIONED = "{code-block} python"
PROMPT = "$ "
ELISION = "…"
# Differences that rounding alone makes may be so far apart between two machines.
ROUNDING, APART = 2e-6, 20.0
CHANGING = [
    (re.compile(pattern, re.MULTILINE), instead)
    for pattern, instead in (
        (r"^E(?: {3}(?: {4})?|$)", ""),  # as pytest shows a failure
        (r"^time\s.*$", ""),
        (r"\bin [\d.]+s\b|\b0x[0-9a-f]+", ""),
        (r"^[✓?] .*(?:agree|cannot tell)$", ""),
        (r"^ {3}\S* {20}.*$", ""),  # the rest of a long name in the table of blocks
        (r"^([✓?] .*?)\s+\S+\s+[█·│]{16}.*$", r"\1"),
        (r"[█·│]{16}", ""),
    )
]
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


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


def words(text: str) -> list[str]:
    """Return what an output says, without what differs from one run to the next.

    Lines are joined, as one digit more wraps a sentence elsewhere. Of rows that agree only the
    block and its counts remain: which of the components is the worst is for rounding to say.
    """
    for pattern, instead in CHANGING:
        text = pattern.sub(instead, text)
    return text.split()


def same(shown: str, real: str) -> bool:
    """Return whether two words say the same; digits beyond the shown ones don't count."""
    if shown == real:
        return True
    theirs, ours = NUMBER.findall(shown), NUMBER.findall(real)
    if NUMBER.sub("#", shown) != NUMBER.sub("#", real) or len(theirs) != len(ours):
        return False
    values = [[float(n.replace(",", "")) for n in numbers] for numbers in (theirs, ours)]
    return all(near(a, b) for a, b in zip(*values, strict=True))


def near(a: float, b: float) -> bool:
    size = max(abs(a), abs(b))
    if 0.0 < size < ROUNDING and a * b > 0:
        return size < APART * min(abs(a), abs(b))
    return abs(a - b) <= 1e-5 * size


def difference(shown: str, real: str) -> str:
    """Return where an output is not what the page shows, "" where it is."""
    theirs = words(real)
    at = 0
    parts = re.split(rf"^{ELISION}$", shown, flags=re.MULTILINE)
    for number, part in enumerate(parts):
        ours = words(part)
        starts = [at] if number == 0 else range(at, len(theirs) + 1)
        if number and number == len(parts) - 1:
            starts = [len(theirs) - len(ours)]
        for start in starts:
            fits = at <= start <= len(theirs) - len(ours)
            if fits and all(map(same, ours, theirs[start:])):
                at = start + len(ours)
                break
        else:
            return f"the page says\n{part}\nbut what came out is\n{real}"
    if at < len(theirs):
        return f"nothing is said of\n{' '.join(theirs[at:])}"
    return ""


def written(page: str, steps: list[Step], real: list[str]) -> str:
    """Return a page with what its code prints now, where that is not what it shows.

    Raises
    ------
    ValueError
        For an output that is left out in part: what to show of it is for a writer to say.
    """
    lines = page.split("\n")
    for step, output in reversed(list(zip(steps, real, strict=True))):
        if not difference(step.shown, output):
            continue
        if ELISION in step.shown.split("\n"):
            raise ValueError(f"line {step.line}: {output}")
        first = step.line
        if step.kind == "python":
            first = lines.index("```text", lines.index("```", step.line)) + 1
        lines[first : first + len(step.shown.splitlines())] = output.rstrip().splitlines()
    return "\n".join(lines)


def main(name: str, folder: str = "") -> None:
    """Run a page and print what came out; or, given an empty folder to run in, write it anew."""
    page = Path(name).resolve()
    steps = steps_of(page)
    if not folder:
        sys.stdout.write(json.dumps(outputs(steps)))
        return
    os.chdir(folder)
    page.write_text(written(page.read_text("utf-8"), steps, outputs(steps)), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
