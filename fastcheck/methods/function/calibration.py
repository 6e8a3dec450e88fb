"""What is measured of a function before the differences: its noise, and a step for each block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fastcheck.methods.function.black_box import BlackBox
from fastcheck.methods.function.differences import NOISE_FACTOR
from fastcheck.methods.function.noise import noise_of
from fastcheck.methods.function.steps import difference_noise, find_step
from fastcheck.types import Floats

__all__ = [
    "Calibration",
    "calibrate",
    "calibrate_noise",
    "measure_noise",
    "random_direction",
    "scale_of",
    "scales_of",
]


# Components that a block's step is found at.
SAMPLED_COMPONENTS = 3
# More blocks than this take the step of one component each.
MANY_BLOCKS = 40
# The truncation of a block, from that of the sampled components.
TRUNCATION_SLACK = 3.0
PIECE = 2**17
FIRST_STEP = 6e-6  # ∛u, the best one where everything is of size 1


@dataclass(frozen=True)
class Calibration:
    """What is known of a function around θ.

    Attributes
    ----------
    noise : float
        σ_J.
    value : float
        f(θ).
    scales, steps, truncations : ndarray, shape (blocks,), float64
        The size of each block's components, its step h, and how far a typical central difference
        with it is from the derivative.
    named : bool
        Whether the user chose the step.
    """

    noise: float
    value: float
    scales: Floats
    steps: Floats
    truncations: Floats
    named: bool = False


def scale_of(values: Floats, elsewhere: float = 1.0) -> float:
    """Return the rms of a block's components; that of other blocks where all of it is zero."""
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    if largest == 0.0:
        return elsewhere
    # Large blocks in pieces: no second array of their size.
    pieces = (values[k : k + PIECE] / largest for k in range(0, values.size, PIECE))
    return largest * math.sqrt(math.fsum(float(np.dot(p, p)) for p in pieces) / values.size)


def scales_of(box: BlackBox) -> Floats:
    """Return the size of each block."""
    sizes = [scale_of(box.theta[block.slice], 0.0) for block in box.tree.blocks]
    known = [size for size in sizes if size > 0.0]
    typical = math.exp(float(np.mean(np.log(known)))) if known else 1.0
    return np.array([size if size > 0.0 else typical for size in sizes])


def random_direction(random: np.random.Generator, size: int) -> Floats:
    """Return entries ±uniform(½, 1½): two equal errors do not cancel, a single one is seen."""
    entries = random.random(size)
    entries += 0.5
    entries[random.random(size, np.float32) < 0.5] *= -1.0
    return entries


def measure_noise(box: BlackBox, scales: Floats, value: float, seed: int) -> float:
    """Return σ_J along a random direction through θ, or along three where one leaves a doubt.

    Parameters
    ----------
    box : BlackBox
    scales : ndarray, shape (blocks,), float64
        The size of each block's components; 0 for blocks that stay where they are.
    value : float
        f(θ).
    seed : int
    """
    random = np.random.default_rng([seed, 1])
    return noise_of(_noise_directions(box, scales, random), value)


def _noise_directions(
    box: BlackBox, scales: Floats, random: np.random.Generator
) -> Iterator[tuple[Callable[[Floats], Floats], float]]:
    """Yield f along one random direction after another, and where the points of a table begin."""
    while True:
        direction = random_direction(random, box.theta.size)
        for block, scale in zip(box.tree.blocks, scales, strict=True):
            direction[block.slice] *= scale

        def values(shifts: Floats, direction: Floats = direction) -> Floats:
            moved = (box.tree.held(0, box.theta + t * direction) for t in shifts)
            if box.vectorized:
                return box.moved(0, list(moved))
            return np.array([box.moved(0, [place])[0] for place in moved])

        yield values, 0.5 + random.random()


def calibrate(
    box: BlackBox, value: float, noise: float, *, epsilon: float | None, seed: int
) -> Calibration:
    """Return noise and steps.

    Parameters
    ----------
    box : BlackBox
    value, noise : float
        f(θ), and the least that σ_J can be.
    epsilon : float or None
        The step that the user named; its truncation is measured all the same.
    seed : int
    """
    scales, noise = _scales_and_noise(box, value, noise, seed)
    steps, truncations, relative = [], [], FIRST_STEP
    random = np.random.default_rng([seed, 2])
    count = 1 if len(box.tree.blocks) > MANY_BLOCKS else SAMPLED_COMPONENTS
    for block, scale in zip(box.tree.blocks, scales, strict=True):
        if block.size == 0:
            steps.append(scale * relative)
            truncations.append(0.0)
            continue
        chosen = random.choice(block.size, min(count, block.size), replace=False) + block.offset
        if epsilon is None:
            found = [_step_at(box, int(i), scale, relative, noise) for i in chosen]
            step = float(np.median([size for size, _ in found]))
            relative = step / scale
            kept = [cut * (step / size) ** 2 for size, cut in found]
        else:
            step = epsilon
            kept = [_truncation_at(box, int(i), step, noise) for i in chosen]
        steps.append(step)
        truncations.append(TRUNCATION_SLACK * float(np.median(kept)))
    return Calibration(
        noise, value, scales, np.array(steps), np.array(truncations), epsilon is not None
    )


def calibrate_noise(box: BlackBox, value: float, noise: float, seed: int) -> Calibration:
    """Return the noise alone; steps are those of single components, unmeasured."""
    scales, noise = _scales_and_noise(box, value, noise, seed)
    return Calibration(noise, value, scales, FIRST_STEP * scales, np.zeros(scales.size))


def _scales_and_noise(box: BlackBox, value: float, noise: float, seed: int) -> tuple[Floats, float]:
    scales = scales_of(box)
    return scales, max(noise, measure_noise(box, scales, value, seed))


def _along(box: BlackBox, index: int, shifts: tuple[float, ...]) -> Floats:
    """Return f with one component moved by some distances."""
    places = box.tree.held_at(np.array([index]), box.theta[index] + np.array([shifts]))
    found: Floats = box.at_components(np.array([index]), places)[0]
    return found


def _step_at(
    box: BlackBox, index: int, scale: float, relative: float, noise: float
) -> tuple[float, float]:
    """Return the step that one component asks for, and the truncation with it."""
    found = find_step(
        lambda shifts: _along(box, index, shifts), noise, scale, start=scale * relative
    )
    return found.size, found.truncation


def _truncation_at(box: BlackBox, index: int, step: float, noise: float) -> float:
    """Return |D(h) − derivative| at one component from a second step; 0 where noise hides it."""
    high, near, low, below = _along(box, index, (step, step / 2.0, -step / 2.0, -step))
    wide, narrow = (high - below) / (2.0 * step), (near - low) / step
    apart = abs(wide - narrow)
    hidden = NOISE_FACTOR * difference_noise(noise, step / 2.0)
    return 0.0 if not apart > hidden else apart * 4.0 / 3.0
