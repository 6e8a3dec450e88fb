"""The README's blocks, and what its commands print; `python -m tests.readme` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["README", "Command", "blocks", "commands", "output", "section", "steady"]

README = Path(__file__).parent.parent / "README.md"
PROMPT = "$ "
TIME = re.compile(r"^((?:E +)?time) .*\n(?:(?:E +)? {8,}\S.*\n)*", re.MULTILINE)
# Which right component is farthest off, and by how much, is for the processor's rounding to say.
ROUNDING = (
    (re.compile(r"^([✓?]  .*?)\s+\S+\s+[█·│]{16}.*$", re.MULTILINE), r"\1"),
    (re.compile(r"^✓  .* agree$", re.MULTILINE), ""),
    (re.compile(r"(?<![\w.])\d(?:\.\d+)?e-1[2-9]\b"), "1e-16"),
)


@dataclass(frozen=True)
class Command:
    """A command after `$ `, and what the README shows below it."""

    line: str
    shown: str

    @property
    def is_ours(self) -> bool:
        """Whether it is fastcheck's."""
        return self.line.split()[0] == "fastcheck"


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of a kind."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """Return what stands under a heading."""
    text = README.read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands() -> list[Command]:
    """Return all commands, in the README's order."""
    return [command for block in blocks("console") for command in _commands(block)]


def _commands(block: str) -> list[Command]:
    parts = re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)[1:]
    return [Command(*part.split("\n", 1)) for part in parts]


def output(command: Command, folder: Path) -> tuple[int, str]:
    """Run a command in a folder; return its exit code and what it prints on 80 columns."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    plain = {"PATH": path, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    environment = {**os.environ, **plain}
    done = subprocess.run(
        ["sh", "-c", command.line],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        env={k: v for k, v in environment.items() if not k.startswith("PYTEST_")},
        timeout=300,
    )
    return done.returncode, done.stdout


def steady(text: str) -> list[str]:
    """Return an output's words without times, and without what is rounding alone.

    Words, since a digit more breaks a line elsewhere.
    """
    text = TIME.sub(r"\1\n", text)
    for pattern, instead in ROUNDING:
        text = pattern.sub(instead, text)
    return text.split()


def _refreshed(block: str, folder: Path) -> str:
    """Return a block with the real outputs, the present ones where they say the same."""
    parts = []
    for command in _commands(block):
        real = output(command, folder)[1]
        shown = command.shown if steady(command.shown) == steady(real) else real
        parts.append(f"{PROMPT}{command.line}\n{shown}")
    return "".join(parts)


def main() -> None:
    """Write the outputs of fastcheck's commands into the README."""
    text = README.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        for block in blocks("console"):
            if all(command.is_ours for command in _commands(block)):
                text = text.replace(block, _refreshed(block, Path(folder)))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
