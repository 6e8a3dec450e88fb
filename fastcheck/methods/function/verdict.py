"""The verdict on a gradient that was held to random directions, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.calibration import Calibration
from fastcheck.methods.function.directions import DirectionalTest, Directions, Line, hold_block
from fastcheck.methods.function.needle import Found, Needle, confirmed, find_wrong
from fastcheck.methods.function.shapes import cause_of
from fastcheck.model.parameter_tree import ArrayBlock
from fastcheck.types import Floats
from fastcheck.verdict.verdict import BlockVerdict, ComponentVerdict, Verdict, grade, worst_status

__all__ = ["check_directions"]


FIRST_STEP = 1e-5
MEAN_SQUARE = 13.0 / 12.0  # of ±uniform(½, 1½)
MOST_EVALUATIONS = 4000


def check_directions(
    box: BlackBox, asked: Directions, calibration: Calibration
) -> tuple[Verdict, tuple[str, ...]]:
    """Hold every block to random directions, and look for what is wrong in it.

    Returns
    -------
    verdict : Verdict
    notes : tuple of str
    """
    verdicts, components, notes, step = [], [], [], FIRST_STEP
    noise = (calibration.noise, calibration.value)
    for number, block in enumerate(box.tree.blocks):
        if block.size == 0:
            continue
        test, line = hold_block(box, asked, number, step=step, noise=noise)
        step = test.step
        found = Found()
        if test.status == "wrong":
            found = _searched(box, asked, block, test, line, noise)
            notes.append(_finding(box, asked, block, test, line, found))
        named = [_component(box, block, needle) for needle in found.needles]
        components.extend(named)
        verdicts.append(_verdict(asked, block, test, named))
    return _overall_verdict(verdicts, components, asked.gradient), tuple(notes)


def _searched(
    box: BlackBox,
    asked: Directions,
    block: ArrayBlock,
    test: DirectionalTest,
    line: Callable[[int], Line],
    noise: tuple[float, float],
) -> Found:
    """Look for the wrong components of a block."""
    made = line(0)
    scale = float(np.max(np.abs(made.direction)))
    tolerance = 2.0 * asked.tol * test.norm / scale / math.sqrt(block.size) + asked.rounding

    def confirm(index: int) -> Needle | None:
        return confirmed(made, index, test.step * scale, tolerance, noise)

    return find_wrong(test, line, confirm, noise[0], MOST_EVALUATIONS)


def _verdict(
    asked: Directions, block: ArrayBlock, test: DirectionalTest, named: list[ComponentVerdict]
) -> BlockVerdict:
    """Return the verdict on one block; norms are estimates, from the directions."""
    status = test.status
    resolution = test.resolution
    if status == "agree" and not resolution <= asked.limit:
        status = "cannot tell"
    size = float(test.norm / max(_scale(test, asked, block), 1e-300))
    spread = math.sqrt(float(np.mean(test.deviations**2)) / MEAN_SQUARE)
    relative = spread / test.norm if test.norm > 0.0 else math.inf
    error = relative * size if test.norm > 0.0 else 0.0
    difference = min(1.0, relative / (2.0 + relative)) if math.isfinite(relative) else 1.0
    if status != "wrong" and spread <= float(np.max(test.bar)):
        difference = min(difference, 0.5 * resolution)
    return BlockVerdict(
        block.gradient_name,
        block.name,
        block.layer,
        block.kind,
        tuple(int(n) for n in block.shape),
        block.size,
        checked=block.size,
        difference=difference,
        literal_difference=difference,
        gradient_norm=size,
        approximation_norm=size,
        error_norm=error,
        tolerance=resolution * size if math.isfinite(resolution) else math.inf,
        noise=0.0,
        status=status,
        grade=grade(difference, status),
        wrong=len(named),
        cannot_tell=0,
        kinks=0,
        worst=named[0] if named else None,
        resolution=resolution,
        epsilon=test.step * _scale(test, asked, block),
    )


def _scale(test: DirectionalTest, asked: Directions, block: ArrayBlock) -> float:
    """Return the rms of θ in the block, which the directions are scaled by."""
    largest = float(np.linalg.norm(asked.gradient[block.slice]))
    return test.norm / largest if largest > 0.0 else 1.0


def _component(box: BlackBox, block: ArrayBlock, needle: Needle) -> ComponentVerdict:
    return ComponentVerdict(
        name=box.tree.locate(needle.index),
        block=block.gradient_name,
        index=needle.index,
        gradient=needle.given,
        approximation=needle.derivative,
        tolerance=needle.bar,
        status="wrong",
    )


def _finding(
    box: BlackBox,
    asked: Directions,
    block: ArrayBlock,
    test: DirectionalTest,
    line: Callable[[int], Line],
    found: Found,
) -> str:
    """Say what is wrong in a block, as far as it could be told."""
    parts = []
    if found.needles:
        parts.append(f"{len(found.needles):,} wrong components were found one by one")
    for start, stop in found.ranges:
        if (start, stop) == (block.offset, block.offset + block.size):
            cause = cause_of(test, line, block.shape, asked.gradient[block.slice])
            parts.append("it is wrong all over" + (f": {cause}" if cause else ""))
        else:
            parts.append(f"{_range(box, start, stop)} are wrong all over")
    if found.narrowed is not None:
        where = _range(box, *found.narrowed)
        parts.append(f"what else is wrong lies within {where}; noise hides where exactly")
    return f"{block.gradient_name}: {'; '.join(parts) or 'wrong as a whole'}."


def _range(box: BlackBox, start: int, stop: int) -> str:
    return f"{box.tree.locate(start)} to {box.tree.locate(stop - 1)}"


def _overall_verdict(
    verdicts: Sequence[BlockVerdict], components: list[ComponentVerdict], gradient: Floats
) -> Verdict:
    """Put the blocks together."""
    status = worst_status(*(verdict.verdict for verdict in verdicts))
    errors = math.hypot(*(verdict.error_norm for verdict in verdicts))
    size = math.hypot(*(verdict.gradient_norm for verdict in verdicts))
    difference = min(1.0, errors / (2.0 * size)) if size > 0.0 else float(errors > 0.0)
    order = sorted(components, key=lambda c: -abs(c.gradient - c.approximation))
    worst_block = max(verdicts, key=lambda v: v.resolution or 0.0)
    whole = BlockVerdict(
        "dθ", "θ", 0, "whole", (gradient.size,), gradient.size,
        checked=gradient.size, difference=difference, literal_difference=difference,
        gradient_norm=size, approximation_norm=size, error_norm=errors,
        tolerance=math.inf, noise=0.0, status=status, grade=grade(difference, status),
        wrong=len(components), cannot_tell=0, kinks=0,
        worst=order[0] if order else None, resolution=worst_block.resolution,
    )  # fmt: skip
    worst = max((whole.grade, *(v.grade for v in verdicts)), key=("great", "look", "worry").index)
    return Verdict(status, worst, whole, tuple(verdicts), tuple(order))
