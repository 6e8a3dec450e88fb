"""A function as a black box: evaluated at θ with some components moved, and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.model.parameter_tree import ParameterTree
from fastcheck.types import Floats, Integers
from fastcheck.validation import finite_array

__all__ = ["BlackBox"]


FAST_TYPES = (float, np.float64)
# What a function raises outside of its domain, where a step was too wide.
DOMAIN_ERRORS = (ArithmeticError, ValueError, np.linalg.LinAlgError, RuntimeWarning)
# Of the θ's that a vectorized function gets at once: more of them leave the processor's caches.
BATCH_BYTES = 2e6
LEAST_BATCH = 2


@dataclass
class BlackBox:
    """f, and θ where it is checked.

    Attributes
    ----------
    f : callable
    tree : ParameterTree
    theta : ndarray, shape (N,), float64
    vectorized : bool
        Whether f takes P values of θ at once, (P, …), and returns (P,).
    reseed : callable or None
        Called before each evaluation.
    evaluations : int
        At how many points f was evaluated in this process.
    """

    f: Callable[[Any], Any]
    tree: ParameterTree
    theta: Floats
    vectorized: bool = False
    reseed: Callable[[], Any] | None = None
    evaluations: int = 0
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": None, "evaluations": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())

    def at_theta(self) -> float:
        """Return f(θ); errors in f are its own here, and θ is proven unchanged."""
        workspace = self._workspace()
        return float(self._batch(workspace.theta[None])[0] if self.vectorized else workspace())

    def raw_at_theta(self) -> Any:
        """Return what f returns at θ, and prove θ unchanged."""
        workspace = self._workspace()
        if self.vectorized:
            vectors = workspace.theta[None].copy()
            raw = self._called(self.tree.form_of(vectors))
            self._check_unchanged(vectors[0])
            return raw
        raw = self._called(workspace.form())
        workspace.check()
        return raw

    def moved(self, start: int, contents: Sequence[Floats]) -> Floats:
        """Return f with the components from `start` on replaced, once for each contents.

        Parameters
        ----------
        start : int
        contents : sequence of ndarray, shape (n,), float64
            Values that the leaves can hold (`ParameterTree.held`).

        Returns
        -------
        ndarray, shape (len(contents),), float64
            NaN where f is not defined.
        """
        if self.vectorized:
            stop = start + contents[0].size

            def put(rows: Floats, part: slice, back: bool) -> None:
                for row, values in zip(rows, contents[part], strict=True):
                    row[start:stop] = self.theta[start:stop] if back else values

            return self._in_batches(len(contents), put)
        workspace = self._workspace()
        with np.errstate(all="ignore"):
            found = [workspace.moved(start, values) for values in contents]
        workspace.check()
        return np.array(found)

    def at_components(self, indices: Integers, places: Floats) -> Floats:
        """Return f with single components moved.

        Parameters
        ----------
        indices : ndarray, shape (n,), int64
        places : ndarray, shape (n, k), float64
            Where each of them is moved to.

        Returns
        -------
        ndarray, shape (n, k), float64
            NaN where f is not defined.
        """
        if self.vectorized:
            columns, flat = np.repeat(indices, places.shape[1]), places.ravel()
            numbers = np.arange(flat.size)

            def put(rows: Floats, part: slice, back: bool) -> None:
                at = columns[part]
                rows[numbers[: at.size], at] = self.theta[at] if back else flat[part]

            return self._in_batches(flat.size, put).reshape(places.shape)
        workspace = self._workspace()
        with np.errstate(all="ignore"):
            found = workspace.components(indices.tolist(), places.tolist())
        workspace.check()
        return np.array(found).reshape(places.shape)

    def _called(self, form: Any) -> Any:
        if self.reseed is not None:
            self.reseed()
        self.evaluations += 1
        return self.f(form)

    def _workspace(self) -> _Workspace:
        found: _Workspace | None = getattr(self._local, "workspace", None)
        if found is None:
            found = self._local.workspace = _Workspace(self)
        return found

    def _in_batches(self, count: int, put: Callable[[Floats, slice, bool], None]) -> Floats:
        """Return f at many points, as many at once as the caches have room for.

        Parameters
        ----------
        count : int
        put : callable
            `put(rows, part, back)` makes rows of θ some of the points, or θ again.
        """
        size = min(count, max(LEAST_BATCH, int(BATCH_BYTES // (8 * self.theta.size))))
        vectors, found = self._rows(size), []
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            rows = vectors[: part.stop - first]
            put(rows, part, False)
            with np.errstate(all="ignore"):
                found.append(self._batch(rows))
            put(rows, part, True)
        # One comparison for all batches: an f that writes is seen by what it leaves behind.
        if not np.array_equal(vectors, np.broadcast_to(self.theta, vectors.shape)):
            self._check_unchanged(vectors[np.argmax((vectors != self.theta).any(axis=1))])
        return np.concatenate(found)

    def _rows(self, size: int) -> Floats:
        """Return at least one worker's own copies of θ, as many as asked for."""
        kept: Floats | None = getattr(self._local, "rows", None)
        if kept is None or len(kept) < size:
            kept = self._local.rows = np.repeat(self.theta[None], size, axis=0)
        return kept[:size]

    def _batch(self, vectors: Floats) -> Floats:
        """Return f at the rows of (P, N)."""
        raw = self._called(self.tree.form_of(vectors))
        self.evaluations += len(vectors) - 1
        # A copy: what f returns may be a view into θ.
        values = np.array(raw.detach().cpu() if hasattr(raw, "detach") else raw, np.float64)
        if values.shape != (len(vectors),):
            raise InputError(
                f"f returned shape {values.shape} for {len(vectors)} values of θ",
                f"shape ({len(vectors)},), one number for each (vectorized=True)",
            )
        return values

    def _check_unchanged(self, vector: Floats) -> None:
        """Refuse an f that writes into θ."""
        if not np.array_equal(vector, self.theta):
            index = int(np.argmax(vector != self.theta))
            raise InputError(
                f"f changes its argument ({self.tree.locate(index)})",
                "an f that leaves θ as it is",
                "Copy θ at its start.",
            )


def number(value: Any) -> float:
    """Return what f returned as a float.

    Raises
    ------
    InputError
        For what is no single real number.
    """
    detach = getattr(value, "detach", None)
    array = np.asarray(value if detach is None else detach().cpu().double())
    if array.size != 1:
        raise InputError(
            f"f(θ) has shape {array.shape}",
            "one number",
            "Sum or average it, or check one component of it at a time.",
        )
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        finite_array(array, "f(θ)")  # complex numbers and objects are refused in its words
    return float(array.reshape(()))


class _Workspace:
    """One worker's own copy of θ, in the form that f takes it in."""

    def __init__(self, box: BlackBox) -> None:
        self.box, self.tree = box, box.tree
        self.theta = box.theta
        self.vector = box.theta.copy()
        self.leaves = [self.tree.leaf(k, self.vector) for k in range(len(self.tree.blocks))]
        self.whole = self.tree.with_leaves(self.leaves)
        self.shared = self.tree.shared

    def form(self) -> Any:
        """Return θ as it is in the vector."""
        return self.whole

    def __call__(self) -> float:
        """Return f there."""
        value = self.box._called(self.whole)
        return value if type(value) in FAST_TYPES else number(value)

    def refresh(self, start: int, stop: int) -> None:
        """Make the leaves of some components anew, where they are no views into the vector."""
        if self.shared:
            return
        first, last = self.tree.number_of(start), self.tree.number_of(stop - 1)
        for number_of_leaf in range(first, last + 1):
            self.leaves[number_of_leaf] = self.tree.leaf(number_of_leaf, self.vector)
        self.whole = self.tree.with_leaves(self.leaves)

    def moved(self, start: int, values: Floats) -> float:
        """Return f with some components replaced."""
        stop = start + values.size
        self.vector[start:stop] = values
        self.refresh(start, stop)
        try:
            return self()
        except DOMAIN_ERRORS:
            return float("nan")
        finally:
            self.vector[start:stop] = self.theta[start:stop]
            self.refresh(start, stop)

    def components(self, indices: list[int], places: list[list[float]]) -> list[float]:
        """Return f with single components moved, one after the other."""
        box = self.box
        if not self.shared or box.reseed is not None:
            pairs = zip(indices, places, strict=True)
            return [self.moved(i, np.array([place])) for i, row in pairs for place in row]
        # Nothing but f is to take time here: this loop is most of a check.
        f, form, vector, found = box.f, self.whole, self.vector, []
        for i, row in zip(indices, places, strict=True):
            before = vector[i]
            for place in row:
                vector[i] = place
                try:
                    value = f(form)
                except DOMAIN_ERRORS:
                    value = np.nan
                found.append(value if type(value) in FAST_TYPES else number(value))
            vector[i] = before
        box.evaluations += len(found)
        return found

    def check(self) -> None:
        """Prove θ bit-identical to what it was."""
        self.box._check_unchanged(self.vector)
        if not self.shared:
            for k, block in enumerate(self.tree.blocks):
                leaf = self.leaves[k]
                if self.tree.conversions[k].held is not None and np.ndim(leaf):
                    values = finite_array(leaf, block.name)[0].ravel()
                    expected = self.theta[block.slice]
                    if not np.array_equal(values, expected):
                        self.vector[block.slice] = values
                        self.box._check_unchanged(self.vector)
