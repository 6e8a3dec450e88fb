"""How far a run has come: told to a callable, or shown as a bar."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

PROGRESS_DELAY_SECONDS = 1.0  # before a bar appears
REFRESHES_PER_SECOND = 10


class Progress:
    """How far a run has come: told to a callable, or shown on stderr if it is a terminal."""

    def __init__(self, wanted: Any, title: str, total: int) -> None:
        self._tell = wanted if callable(wanted) else None
        self._shown = wanted is True
        self._title, self._total = title, total
        self._done = self._restored = 0
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def start_at(self, done: int) -> None:
        """Count what earlier runs have done."""
        self._done = self._restored = done
        if done and self._tell is not None:
            self._tell(self._done, self._total)

    def advance(self, weight: int) -> None:
        """Count one more chunk."""
        self._done += weight
        if self._tell is not None:
            self._tell(self._done, self._total)
        elapsed = time.monotonic() - self._began
        if self._shown and self._bar is None and elapsed > PROGRESS_DELAY_SECONDS:
            self._show()
        if self._bar is not None:
            rate = (self._done - self._restored) / elapsed
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s")

    def _show(self) -> None:
        """Put the bar on stderr; nothing where that is a file or a pipe."""
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            self._title, total=self._total, completed=self._restored, rate=""
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
