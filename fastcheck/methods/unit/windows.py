"""The unit method for a batch whose trace has no room in the memory: some samples at a time."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.kernels.ahead import compile_ahead
from fastcheck.methods import Prepared
from fastcheck.methods.fingerprint import fingerprint
from fastcheck.methods.unit.assembly import Sums, approximation_of, interrupted
from fastcheck.methods.unit.method import CHUNKS_AT_ONCE, UnitMethod
from fastcheck.methods.unit.method import prepare as prepare_whole
from fastcheck.methods.unit.probes import measured, trace_of
from fastcheck.methods.unit.self_check import self_checked
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Batch, Network
from fastcheck.settings import Settings
from fastcheck.types import Integers

__all__ = ["WindowedUnitMethod", "prepare"]


# So many numbers a unit and sample: Z, A, both slopes, what probes give, and copies of that.
ARRAYS_OF_UNITS = 10


class WindowedUnitMethod:
    """The unit method made ready: see `methods.Prepared`.

    A chunk is a window of samples. What one adds is added up as soon as all before it are done.
    """

    def __init__(
        self, network: Network, batch: Batch, indices: Integers | None, settings: Settings
    ) -> None:
        self.network, self.batch = network, batch
        self.indices, self.settings = indices, settings
        self.worker_bytes = settings.memory / CHUNKS_AT_ONCE
        each = max(1, int(self.worker_bytes / _sample_bytes(network)))
        self.chunks = [
            (first, min(first + each, batch.size)) for first in range(0, batch.size, each)
        ]
        self._waiting: dict[int, Sums] = {}
        self._added = 0
        self._sums: Sums | None = None

    @property
    def weights(self) -> list[int]:
        """Probes in each window."""
        requested = sum(self.network.sizes[1:])
        return [(last - first) * requested for first, last in self.chunks]

    @property
    def digest(self) -> str:
        """What a journal of these differences belongs to."""
        problem = (self.network, self.batch, self.indices)
        return fingerprint(*problem, "windows", self.settings.epsilon, self.chunks)

    packed = staticmethod(Sums.packed)
    unpacked = staticmethod(Sums.unpacked)

    def differences(self, chunk: tuple[int, int]) -> Sums:
        """Probe the units at the samples of one window."""
        network, batch = self.network.part(*chunk), self.batch.part(*chunk)
        probes = measured(trace_of(network, batch, self.settings.epsilon))
        method = UnitMethod(probes, self.indices, self.settings)
        results = [method.differences(c) for c in method.chunks]
        return method.sums(results, self.batch.size, penalty=chunk[0] == 0)

    def collect(self, number: int, sums: Sums) -> bool:
        """Add up in the order of the windows, so that the bits depend on no worker."""
        self._waiting[number] = sums
        while self._added in self._waiting:
            part = self._waiting.pop(self._added)
            self._sums = part if self._sums is None else self._sums + part
            self._added += 1
        return True

    def assemble(self, results: Sequence[bool | None]) -> Approximation:
        """Make dθ_approx of the sums, and hold a few components against the textbook."""
        network, batch, epsilon = self.network, self.batch, self.settings.epsilon
        if self._sums is None or self._added < len(results):
            return interrupted(network, epsilon, self.indices)
        found = approximation_of(network, batch.size, epsilon, self.indices, self._sums)
        return self_checked(network, batch, found)


def _sample_bytes(network: Network) -> float:
    """Return what a sample takes while its window is probed."""
    return 8.0 * ARRAYS_OF_UNITS * sum(network.sizes[1:])


def prepare(
    network: Network, batch: Batch, indices: Integers | None, settings: Settings
) -> Prepared:
    """Make the unit method ready, for the whole batch where the memory has room for it.

    Parameters
    ----------
    network, batch : Network, Batch
    indices : ndarray of int64, increasing, or None
        Which components; None for all.
    settings : Settings
    """
    if batch.size * _sample_bytes(network) <= settings.memory:
        return prepare_whole(network, batch, indices, settings)
    compile_ahead()
    return WindowedUnitMethod(network, batch, indices, settings)
