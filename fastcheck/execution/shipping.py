"""Work as one array of bytes, so that it travels to each worker once, whatever the backend."""

from __future__ import annotations

import pickle  # noqa: TID251 - between processes of one check; files are never unpickled
from dataclasses import dataclass
from typing import Any

import cloudpickle  # noqa: TID251
import numpy as np
from numpy.typing import NDArray

__all__ = ["opened", "packed", "shipped", "unpacked"]

ALIGNMENT = 64  # of arrays in the bytes, as NumPy aligns its own
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class _InRayStore:
    """Bytes that lie in Ray's object store: a task holds a reference, not a copy."""

    reference: Any

    def fetch(self) -> Bytes:
        import ray

        return np.asarray(ray.get(self.reference))


def packed(work: Any) -> Bytes:
    """Return an object as bytes: a table of sizes, the pickle, then the data of its arrays.

    Functions that were defined in a script or a notebook travel by value.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(work, protocol=5, buffer_callback=buffers.append)
    parts = [np.frombuffer(head, np.uint8), *(np.frombuffer(b.raw(), np.uint8) for b in buffers)]
    table = np.array([len(parts), *(part.size for part in parts)], np.int64).view(np.uint8)
    starts = _starts([table.size, *(part.size for part in parts)])
    blob = np.zeros(starts[-1], np.uint8)
    for start, part in zip(starts, [table, *parts], strict=False):
        blob[start : start + part.size] = part
    return blob


def unpacked(blob: Bytes) -> Any:
    """Return the object; its arrays lie in the bytes, which are copied if they can't be written.

    Kernels are compiled anew for arrays that can't be written.
    """
    if not blob.flags.writeable:
        blob = blob.copy()
    count = int(blob[:8].view(np.int64)[0])
    sizes = blob[: 8 * (count + 1)].view(np.int64)[1:].tolist()
    starts = _starts([8 * (count + 1), *sizes])[1:]
    head, *buffers = (blob[a : a + n] for a, n in zip(starts, sizes, strict=False))
    return pickle.loads(head.tobytes(), buffers=[buffer.data for buffer in buffers])  # noqa: S301


def _starts(sizes: list[int]) -> list[int]:
    """Return where parts of some sizes start, and the end."""
    starts = [0]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // ALIGNMENT) * ALIGNMENT)
    return starts


def shipped(work: Any, backend: Any) -> Any:
    """Return what stands for the work in each task of a joblib backend; itself among threads.

    An array is sent to each worker once by joblib itself: mapped from a file for processes,
    scattered by Dask. Ray's pool would send it with each task: there it is a reference.
    """
    if getattr(backend, "uses_threads", False):
        return work
    blob = packed(work)
    if type(backend).__name__ != "RayBackend":
        return blob
    import ray

    return _InRayStore(ray.put(blob))


def opened(sent: Any) -> Any:
    """Return the work that `shipped` sent."""
    if isinstance(sent, _InRayStore):
        sent = sent.fetch()
    return unpacked(sent) if isinstance(sent, np.ndarray) else sent
