"""Completion of the command in bash, zsh and fish: click writes the script."""

from __future__ import annotations

import os
from pathlib import Path

from fastcheck.errors import InputError

__all__ = ["VARIABLE", "drop_first_word", "install", "script"]

VARIABLE = "_FASTCHECK_COMPLETE"  # set by a shell that asks how a line may go on

# Where each shell looks for completions of a user's own, and what else it needs.
PLACES = {
    "bash": (".local/share/bash-completion/completions/fastcheck", "Open a new shell."),
    "zsh": (".zfunc/_fastcheck", "Put fpath+=~/.zfunc before compinit in ~/.zshrc."),
    "fish": (".config/fish/completions/fastcheck.fish", "Open a new shell."),
}


def _shell() -> str:
    """Return the shell in which the command was called."""
    import shellingham

    try:
        name = str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        name = Path(os.environ.get("SHELL", "none")).name
    if name not in PLACES:
        raise InputError(f"no completion for the shell {name}", f"one of {', '.join(PLACES)}")
    return name


def script() -> str:
    """Return the completion script of the shell in which the command was called.

    Raises
    ------
    InputError
        For a shell that is not known.
    """
    return _script(_shell())


def _script(shell: str) -> str:
    import click
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    return completion(click.Command("fastcheck"), {}, "fastcheck", VARIABLE).source()


def install() -> str:
    """Write the completion script to where the shell looks for it; return what was done.

    Raises
    ------
    InputError
        For a shell that is not known, and where the file can't be written.
    """
    shell = _shell()
    place, remedy = PLACES[shell]
    file = Path.home() / place
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_script(shell) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} can't be written ({error.strerror})", "another file") from None
    return f"Wrote {file}. {remedy}"


def drop_first_word() -> None:
    """Let the words that a shell asks about begin after the subcommand."""
    words = os.environ.get("COMP_WORDS", "").split()
    os.environ["COMP_WORDS"] = " ".join(words[:1] + words[2:])
    if "COMP_CWORD" in os.environ:  # fish gives the last word instead
        os.environ["COMP_CWORD"] = str(int(os.environ["COMP_CWORD"]) - 1)
