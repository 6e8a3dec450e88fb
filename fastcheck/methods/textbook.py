"""The textbook method: for every component two whole forward passes, at θ + ε e_i and θ − ε e_i."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.kernels.products import NARROW, WIDE
from fastcheck.kernels.textbook import (
    in_blocks,
    textbook_calls,
    textbook_cost,
    textbook_differences,
    work_shape,
)
from fastcheck.methods.fingerprint import fingerprint
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.settings import Settings
from fastcheck.types import Floats, Integers

__all__ = ["PreparedTextbook", "noise_in_blocks", "prepare", "without_noise"]


CHUNK_SECONDS = 0.15
UNIT_ROUNDOFF = 2.0**-53
# What an ordinary core does in a second, to size chunks: an estimate of the problem's weight that
# must be the same on every machine, not a measurement.
FLOPS, WEIGHT_BYTES, ELEMENTS, CALL_SECONDS = 4e10, 2e10, 4e8, 3e-7
NOISE_POINTS = 20
NOISE_BLOCKS = 6  # of which the noise is measured on its own
NOISE_STEP = 2.0**-40  # relative: far above the last bit of each θ_i, far below what bends J
NOISE_SHARE = 2.0**-6  # of ε
NOISE_ORDER = 4
FOURTH_DIFFERENCE = 70.0  # Σ of the squared coefficients: the variance of that of unit noise
LOWER_QUARTERS = 0.368  # mean square of a standard normal number, its largest quarter left out


@dataclass
class _Workspace:
    """What one thread writes to: its own θ, and room for the outputs of two layers."""

    theta: Floats
    work: Floats


@dataclass
class PreparedTextbook:
    """The textbook method made ready; see `prepare`.

    Attributes
    ----------
    network, batch
    indices : ndarray of int64, increasing, or None
        Which components; None for all N.
    epsilon : float
    chunk_size : int
        Components in a chunk.
    noise : float
        Standard deviation of the rounding in one component, as measured.
    """

    network: Network
    batch: Batch
    indices: Integers | None
    epsilon: float
    chunk_size: int = 1
    noise: float = 0.0
    _threads: Any = field(default_factory=threading.local, repr=False)

    @property
    def count(self) -> int:
        """How many components are evaluated."""
        return self.network.size if self.indices is None else int(self.indices.size)

    @property
    def chunks(self) -> Sequence[int]:
        """The chunks, by number."""
        return range(-(-self.count // self.chunk_size))

    @property
    def weights(self) -> Sequence[int]:
        """Components in each chunk."""
        return [stop - start for start, stop in map(self._bounds, self.chunks)]

    @property
    def seconds(self) -> float:
        """About how long all of it takes on one core."""
        return 2.0 * self.count * pass_seconds(self.network, self.batch.size)

    @property
    def worker_bytes(self) -> float:
        """What one worker allocates."""
        return worker_bytes(self.network)

    @cached_property
    def digest(self) -> str:
        """What a journal of these differences belongs to."""
        return fingerprint(
            self.network, self.batch, self.indices, "textbook", self.epsilon, self.chunk_size
        )

    def differences(self, chunk: int) -> Floats:
        """Return the central differences of one chunk, by two whole passes each.

        Returns
        -------
        ndarray, shape (components in the chunk,), float64
        """
        start, stop = self._bounds(chunk)
        chosen = self.indices
        indices = np.arange(start, stop) if chosen is None else chosen[start:stop]
        out = np.empty(stop - start)
        own = self._workspace()
        textbook_differences(
            self._arrays, own.theta, self._blocks, self.batch.T, own.work,
            indices, self.epsilon, out, textbook_calls(self.network.calls),
        )  # fmt: skip
        return out

    def assemble(self, results: Sequence[Floats | None]) -> Approximation:
        """Put the chunks together; NaN where one was not done."""
        values = np.full(self.count, np.nan)
        for chunk, result in enumerate(results):
            if result is not None:
                start, stop = self._bounds(chunk)
                values[start:stop] = result
        return Approximation(
            method="textbook",
            epsilon=self.epsilon,
            indices=self.indices,
            values=values,
            noise=self.noise,
            complete=all(result is not None for result in results),
            notes=self._notes(),
        )

    def cost(self, theta: Floats | None = None) -> float:
        """Return J as the differences see it, at θ or any other parameters: one whole pass."""
        own = self._workspace()
        if theta is not None:
            own.theta[:] = theta
        try:
            return float(
                textbook_cost(
                    self._arrays, own.theta, self._blocks, self.batch.T, own.work,
                    textbook_calls(self.network.calls),
                )
            )  # fmt: skip
        finally:
            if theta is not None:
                own.theta[:] = self.network.theta

    def _notes(self) -> tuple[str, ...]:
        notes = [
            f"J is rounded to 16 digits, so every component may be off by about {self.noise:.0e}, "
            "however small it is (measured)."
        ]
        if any(a.kinks or a.function for a in self.network.activations):
            notes.append(
                "Kinks that a step of ±ε crosses are looked for where the gradient does not agree; "
                "the unit method names all of them."
            )
        return tuple(notes)

    def _bounds(self, chunk: int) -> tuple[int, int]:
        """Return where a chunk starts and stops among the components."""
        start = chunk * self.chunk_size
        return start, min(start + self.chunk_size, self.count)

    def _workspace(self) -> _Workspace:
        """Return the workspace of this thread, made at its first chunk."""
        own: _Workspace | None = getattr(self._threads, "workspace", None)
        if own is None:
            shape = work_shape(self.network.sizes)
            own = _Workspace(self.network.theta.copy(), np.empty(shape))
            self._threads.workspace = own
        return own

    @cached_property
    def _arrays(self) -> NetworkArrays:
        return self.network.arrays(self.batch.size)

    @cached_property
    def _blocks(self) -> Floats:
        return in_blocks(self.batch.X)

    def __getstate__(self) -> dict[str, Any]:
        made_here = ("_threads", "_arrays", "_blocks")
        return {k: v for k, v in self.__dict__.items() if k not in made_here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._threads = threading.local()


def prepare(
    network: Network, batch: Batch, indices: Integers | None, settings: Settings
) -> PreparedTextbook:
    """Make the textbook method ready.

    Parameters
    ----------
    network : Network
    batch : Batch
    indices : ndarray of int64, increasing, or None
        Which components of θ; None for all N.
    settings : Settings
        `epsilon`, `chunk_size` and `memory` are used.

    Returns
    -------
    PreparedTextbook

    Raises
    ------
    InputError
        If θ_i ± ε is θ_i for a component, if J(θ) is not finite, or if θ's copy for one worker
        takes more than the memory allowed.
    """
    _refuse_too_small(network, indices, settings.epsilon)
    _refuse_too_large(network, settings.memory)
    prepared = without_noise(network, batch, indices, settings)
    prepared.noise = _measured_noise(prepared)
    return prepared


def without_noise(
    network: Network, batch: Batch, indices: Integers | None, settings: Settings
) -> PreparedTextbook:
    """Make the method ready as `prepare` does, its noise left at 0 and nothing refused."""
    chunk_size = settings.chunk_size or chunk_size_for(network, batch.size)
    return PreparedTextbook(network, batch, indices, settings.epsilon, chunk_size)


def pass_seconds(network: Network, m: int) -> float:
    """Return about how long one forward pass takes on one core, from the sizes alone."""
    blocks = -(-m // WIDE)
    samples = -(-m // NARROW) * NARROW
    weights = sum(b.size for b in network.order.blocks if b.kind == "W")
    products = max(2.0 * weights * samples / FLOPS, 8.0 * weights * blocks / WEIGHT_BYTES)
    return products + samples * sum(network.sizes[1:]) / ELEMENTS + CALL_SECONDS


def chunk_size_for(network: Network, m: int) -> int:
    """Return how many components make a chunk of about `CHUNK_SECONDS`."""
    return max(1, round(CHUNK_SECONDS / (2.0 * pass_seconds(network, m))))


def worker_bytes(network: Network) -> float:
    """Return what one worker allocates: its own θ and its workspace."""
    return 8.0 * (network.size + math.prod(work_shape(network.sizes)))


def _refuse_too_small(network: Network, indices: Integers | None, epsilon: float) -> None:
    """Refuse an ε that vanishes when it is added to a component."""
    theta = network.theta if indices is None else network.theta[indices]
    largest = int(np.argmax(np.abs(theta)))
    value = float(theta[largest])
    if value + epsilon != value and value - epsilon != value:
        return
    place = network.order.locate(largest if indices is None else int(indices[largest]))
    smallest = float(np.spacing(abs(value)))
    raise InputError(
        f"epsilon={epsilon:g} is lost in {place} = {value:g}: θ + ε is the same number as θ",
        f"epsilon={smallest:.2g} or more for this network",
        f"An epsilon of {max(1e-7, smallest * 1e6):.0e} loses no more than its last digits.",
    )


def _refuse_too_large(network: Network, memory: float) -> None:
    """Refuse a θ whose copy for a single worker does not fit."""
    needed = worker_bytes(network)
    if needed > memory:
        raise InputError(
            f"memory={memory:.3g} bytes for a network of {network.size:,} parameters",
            f"{needed:.3g} bytes or more: each worker perturbs a θ of its own",
            f"Give memory={1.05 * needed:.2g}.",
        )


def _measured_noise(prepared: PreparedTextbook) -> float:
    """Return the standard deviation of the rounding in one component.

    It is the larger along two lines: through θ, and through a point a step of ±ε away from it in
    all components. Rounding of J at θ itself says little where J is exact there.
    """
    J = prepared.cost()
    if not math.isfinite(J):
        raise InputError(
            f"J(θ) is {J}",
            "a finite cost",
            "Some layer overflows: look for weights or inputs that are far too large.",
        )
    whole = slice(0, prepared.network.size)
    noise = max(UNIT_ROUNDOFF * abs(J), *_along(prepared, [slice(0, 0), whole], seed=2011))
    return noise / prepared.epsilon


def noise_in_blocks(prepared: PreparedTextbook) -> float:
    """Return the same along lines in the biases or weights of one layer alone, a step from θ.

    It is larger where one layer moves J off a point at which it is exact. It costs as many passes
    for each of a few blocks, so it is measured only where a gradient does not agree.
    """
    blocks = prepared.network.order.blocks
    rng = np.random.Generator(np.random.PCG64(2012))
    some = rng.permutation(len(blocks))[:NOISE_BLOCKS]
    found = _along(prepared, [blocks[int(k)].slice for k in some], seed=2013)
    return max(found) / prepared.epsilon


def _along(prepared: PreparedTextbook, parts: Sequence[slice], seed: int) -> list[float]:
    """Return the noise of J along random lines that start a step from θ in a part of it each."""
    network = prepared.network
    rng = np.random.Generator(np.random.PCG64(seed))
    sides = rng.choice(np.array([-1, 1], np.int8), network.size)
    found = []
    for part in parts:
        start = network.theta.copy()
        start[part] += prepared.epsilon * sides[part]
        moved = part if part.stop else slice(0, network.size)
        found.append(_noise_along_a_line(prepared, start, moved, rng))
    return found


def _noise_along_a_line(
    prepared: PreparedTextbook, start: Floats, part: slice, rng: np.random.Generator
) -> float:
    """Return the standard deviation of the rounding of (J(θ') − J(θ''))/2 along a random line.

    The points are so near that J is smooth between them but for its rounding; fourth differences
    take out all that is (Moré & Wild, "Estimating computational noise", SISC 2011). The largest
    quarter is left out: a kink is in a few of them. Steps are relative and absolute, or they would
    move no zero, and large enough to change the last digits of J.
    """
    step = np.zeros_like(start)
    moved = step[part]
    np.abs(start[part], out=moved)
    moved *= NOISE_STEP
    moved += NOISE_SHARE * prepared.epsilon
    moved *= rng.uniform(0.5, 1.5, moved.size)
    np.copysign(moved, rng.uniform(-1.0, 1.0, moved.size), out=moved)
    J = np.empty(NOISE_POINTS)
    for k in range(NOISE_POINTS):
        J[k] = prepared.cost(start)
        start += step
    squares = np.sort(np.diff(J, NOISE_ORDER) ** 2)
    if not np.isfinite(squares).all():
        return 0.0
    kept = squares[: squares.size * 3 // 4]
    return math.sqrt(float(kept.mean()) / LOWER_QUARTERS / FOURTH_DIFFERENCE / 2.0)
