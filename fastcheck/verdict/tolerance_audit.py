"""What a tolerance of `allclose` would let pass on a given gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastcheck.model.lazy_arrays import LazyArray
from fastcheck.types import Floats

__all__ = ["CORRUPTIONS", "ToleranceAudit", "audit"]

PIECE = 2**20
ROOM = 3.0  # times the error of the baseline, as for a block's norm
# What is done to the gradient, and the error of a component in units of the component.
CORRUPTIONS: dict[str, float] = {
    "the sign flipped": 2.0,
    "all zero": 1.0,
    "doubled": 1.0,
    "10 % too large": 0.1,
    "one row zero": 1.0,
    "a quarter of the columns zero": 1.0,
    "one entry zero": 1.0,
}


@dataclass(frozen=True)
class ToleranceAudit:
    """What `allclose(given, reference, rtol, atol)` would not notice.

    Attributes
    ----------
    rtol, atol : float
    unseen : dict of str to dict of str to float
        For each corruption and block: the share of cases that pass. 0 or 1 for a corruption of the
        whole block; else of its rows, groups of columns or entries.
    tightest : dict of str to float
        For each block the t for which rtol = t, atol = t·rms is three times the baseline's error;
        empty without a baseline.
    rms : dict of str to float
        Of each block of the reference.
    """

    rtol: float
    atol: float
    unseen: dict[str, dict[str, float]]
    tightest: dict[str, float]
    rms: dict[str, float]

    def passes(self, corruption: str) -> list[str]:
        """Return the blocks in which a corruption passes in half of all cases or more."""
        return [name for name, share in self.unseen[corruption].items() if share >= 0.5]

    @property
    def blind(self) -> bool:
        """Whether a flipped sign or zeros pass anywhere."""
        return bool(self.passes("the sign flipped") or self.passes("all zero"))

    def to_text(self) -> str:
        """Return the audit as text."""
        lines = [f"allclose with rtol = {self.rtol:g}, atol = {self.atol:g} would let pass:"]
        for corruption, shares in self.unseen.items():
            blocks = self.passes(corruption)
            shown = ", ".join(blocks[:4]) + (f" and {len(blocks) - 4} more" if blocks[4:] else "")
            where = f"in {shown}" if blocks else "nowhere"
            lines.append(f"  {corruption:<30} {where} ({len(blocks)} of {len(shares)} blocks)")
        if self.tightest:
            lines.append("The baseline's own error leaves room for (three times it):")
            lines += [
                f"  {name:<30} rtol = {t:.1e}, atol = {t * self.rms[name]:.1e}"
                for name, t in self.tightest.items()
            ]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.to_text()


def audit(
    reference: Mapping[str, LazyArray],
    baseline: Mapping[str, LazyArray],
    rtol: float,
    atol: float,
) -> ToleranceAudit:
    """Audit a tolerance on a gradient, block by block."""
    unseen: dict[str, dict[str, float]] = {name: {} for name in CORRUPTIONS}
    tightest, rms = {}, {}
    for name, block in reference.items():
        if block.size == 0:
            continue
        for corruption, size in CORRUPTIONS.items():
            unseen[corruption][name] = _share(corruption, block, size, rtol, atol)
        squares = math.fsum(float(np.dot(p, p)) for p in _pieces(block))
        rms[name] = math.sqrt(squares / block.size)
        if name in baseline:
            tightest[name] = ROOM * _largest_error(block, baseline[name], rms[name])
    return ToleranceAudit(rtol, atol, unseen, tightest, rms)


def _pieces(block: LazyArray) -> Iterator[Floats]:
    return (block.piece(k, min(k + PIECE, block.size)) for k in range(0, block.size, PIECE))


def _share(corruption: str, block: LazyArray, size: float, rtol: float, atol: float) -> float:
    """Return the share of cases in which a corruption is not noticed."""
    row = math.prod(block.shape[1:]) if block.shape else 1
    columns = max(1, (block.shape[-1] if block.shape else 1) // 4)
    groups = {"one row zero": row, "a quarter of the columns zero": columns, "one entry zero": 1}
    group = groups.get(corruption, block.size)
    kept = passed = 0
    whole = True
    step = PIECE if group == block.size else max(PIECE // group, 1) * group
    for start in range(0, block.size, step):
        values = np.abs(block.piece(start, min(start + step, block.size)))
        unnoticed = size * values <= atol + rtol * values
        if group == block.size:
            whole = whole and bool(unnoticed.all())
            continue
        cut = unnoticed[: unnoticed.size // group * group].reshape(-1, group)
        passed += int(cut.all(axis=1).sum())
        kept += len(cut)
    return float(whole) if group == block.size else passed / max(kept, 1)


def _largest_error(reference: LazyArray, baseline: LazyArray, rms: float) -> float:
    """Return max |baseline − reference| / (|reference| + rms)."""
    largest = 0.0
    for start in range(0, reference.size, PIECE):
        stop = min(start + PIECE, reference.size)
        right, plain = reference.piece(start, stop), baseline.piece(start, stop)
        scale = np.abs(right) + rms
        error = np.divide(np.abs(plain - right), scale, out=np.zeros_like(right), where=scale > 0)
        largest = max(largest, float(np.max(error, initial=0.0)))
    return largest
