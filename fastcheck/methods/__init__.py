"""The methods: each is prepared once and then gives the differences of one chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fastcheck.model.approximation import Approximation

__all__ = ["Prepared"]


class Prepared(Protocol):
    """A method made ready for one network, batch and choice of components.

    Chunks depend on the problem alone, never on the number of workers, so that the bits do not
    either. An object crosses to other processes: workspaces are made where they are used.
    """

    @property
    def chunks(self) -> Sequence[Any]:
        """What there is to do, in pieces."""
        ...

    @property
    def weights(self) -> Sequence[int]:
        """The work in each chunk, in units of progress."""
        ...

    def differences(self, chunk: Any) -> Any:
        """Do one piece; called in a worker."""
        ...

    def assemble(self, results: Sequence[Any | None]) -> Approximation:
        """Put the results together; None for a piece that was not done."""
        ...
