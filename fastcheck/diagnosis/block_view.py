"""One block of the gradient beside what is expected in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck.diagnosis.context import MAX_GROWTH, Context, Delta, Found, Sight
from fastcheck.diagnosis.fitting import (
    agreeing,
    fraction,
    ratio,
)
from fastcheck.types import Floats

__all__ = ["BlockView", "Explanation"]

Explanation = tuple[Found, ...]
MAX_FIT_COMPONENTS = 20_000  # components that a regression is made on
FIRST_COMPONENTS = 3_000


@dataclass(frozen=True)
class BlockView:
    """One block, what is expected in it, and from where."""

    context: Context
    sight: Sight
    layer: int
    kind: str
    delta: Delta
    u: Floats
    data: Floats
    penalty: Floats | float

    @cached_property
    def expected(self) -> Floats:
        """The finished block."""
        return self.data + self.penalty

    def floor(self, predicted: Floats) -> Floats | float:
        """What rounding explains."""
        given = float(np.linalg.norm(self.u))
        return self.context.floor(self.sight, self.layer, self.kind, predicted, given)

    @cached_property
    def places(self) -> tuple[Any, ...]:
        """Where a candidate is tried first: everywhere, or at some components of a large block."""
        if self.u.size <= MAX_FIT_COMPONENTS:
            return (...,)
        generator = self.context.generator
        rows = np.argsort(np.abs(self.u).sum(axis=tuple(range(1, self.u.ndim))))
        some = [generator.choice(rows[rows.size // 4 :], FIRST_COMPONENTS)]
        some += [generator.integers(0, n, FIRST_COMPONENTS) for n in self.u.shape[1:]]
        return tuple(some)

    @cached_property
    def _floor(self) -> Floats:
        """The floor there, for what is as large as the right block."""
        floor = np.asarray(self.context.floor(self.sight, self.layer, self.kind))
        return np.asarray(np.broadcast_to(floor, self.u.shape)[self.places])

    @cached_property
    def _size(self) -> float:
        """The norm of the right block there."""
        return float(np.linalg.norm(self.context.right_block(self.layer, self.kind)[self.places]))

    def _floor_of(self, predicted: Floats) -> Floats:
        most = MAX_GROWTH * float(np.linalg.norm(self.u[self.places]))
        here = min(float(np.linalg.norm(predicted)), most)
        if not self._size:
            return self._floor + 1e-9 * here
        return self._floor * max(1.0, here / self._size)

    def share(self, predicted: Floats) -> float:
        """The share of the components that agree, of those that are tried first."""
        shown = self.sight.clipped(predicted[self.places])
        return fraction(self.u[self.places], shown, self._floor_of(shown), self.sight.rtol)

    def ratio(self, u: Floats, predicted: Floats) -> float:
        """The factor that most of them share."""
        p = predicted[self.places]
        return ratio(u[self.places], p, self._floor_of(p))

    def matches(self, predicted: Floats) -> bool:
        """Whether all agree."""
        if self.u.size > MAX_FIT_COMPONENTS:
            shown = self.sight.clipped(predicted[self.places])
            floor = 3.0 * self._floor_of(shown)
            if not np.all(agreeing(self.u[self.places], shown, floor, 3.0 * self.sight.rtol)):
                return False
        right = self.context.agrees(self.sight, self.u, predicted, self.floor(predicted))
        if right and self.context.explains(self.sight, self.layer, self.kind, self.u, predicted):
            self.context.note(self.layer, self.kind, self.u, self.sight.clipped(predicted))
            return True
        return False

    def found(
        self,
        slip: str,
        value: str = "",
        extra: float = 0.0,
        equal: tuple[str, ...] = (),
        *,
        located: bool = False,
    ) -> Found:
        """Return a slip in this block."""
        return Found(slip, self.layer, self.kind, value, extra, equal, located)
