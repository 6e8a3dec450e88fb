"""A batch: inputs and targets as rows, whatever layout the user keeps them in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastcheck.errors import InputError
from fastcheck.types import Floats
from fastcheck.validation import finite_array

__all__ = ["Batch", "read_inputs", "read_targets"]


@dataclass(frozen=True)
class Batch:
    """Inputs X (m, n_0) and targets T (m, n_L), float64, one sample a row."""

    X: Floats
    T: Floats

    @property
    def size(self) -> int:
        """m, the number of samples."""
        return int(self.X.shape[0])

    def part(self, first: int, last: int) -> Batch:
        """Return samples `first` to `last` − 1, without a copy."""
        return Batch(self.X[first:last], self.T[first:last])


def read_inputs(inputs: ArrayLike, n_in: int, layout: str) -> Floats:
    """Return inputs as rows (m, n_0)."""
    X, _ = finite_array(inputs, "inputs")
    if layout == "course" and X.ndim == 2:
        X = X.T
    if X.ndim != 2 or X.shape[1] != n_in:
        given = np.shape(inputs)
        turned = len(given) == 2 and X.shape[0] == n_in
        other = "rows" if layout == "course" else "course"
        raise InputError(
            f"inputs of shape {given}",
            f"({n_in}, m)" if layout == "course" else f"(m, {n_in})",
            f"The transpose would fit: is this layout={other!r}?" if turned else "",
        )
    if X.shape[0] == 0:
        raise InputError("inputs with zero samples", "at least one sample")
    return _owned(X)


def read_targets(targets: ArrayLike, shape: tuple[int, int], layout: str, kind: str) -> Floats:
    """Return targets as rows (m, n_L).

    Parameters
    ----------
    targets : array_like
    shape : tuple of int
        (m, n_L).
    layout : str
    kind : str
        What the loss takes: `"probabilities"`, `"unit interval"` or `"real"`.
    """
    T, _ = finite_array(targets, "targets")
    m, outputs = shape
    one_each = T.size == m and max(T.shape, default=1) == m
    if kind == "probabilities" and one_each and (outputs > 1 or _are_labels(T)):
        return _one_hot(T.reshape(m), outputs)
    if one_each and outputs == 1:  # (m,), (m, 1) or (1, m)
        T = T.reshape(m, 1)
    elif layout == "course" and T.ndim == 2:
        T = T.T
    if T.shape != shape:
        labels = f" or {m} integer labels" if kind == "probabilities" else ""
        wanted = (outputs, m) if layout == "course" else shape
        raise InputError(f"targets of shape {np.shape(targets)}", f"{wanted}{labels}")
    if kind == "probabilities":
        _check_probabilities(T)
    if kind == "unit interval" and (T.min() < 0 or T.max() > 1):
        raise InputError(f"targets from {T.min():g} to {T.max():g}", "targets between 0 and 1")
    return _owned(T)


def _are_labels(T: Floats) -> bool:
    """Return whether targets of a single class are labels: 1 everywhere is a probability."""
    return bool(np.all(np.floor(T) == T) and np.any(T != 1.0))


def _owned(rows: Floats) -> Floats:
    """Return a copy in row order: whoever handed the array over may write into it later."""
    return rows.copy(order="C")


def _one_hot(labels: Floats, classes: int) -> Floats:
    """Return labels 0..classes−1 as rows."""
    if np.any(labels != np.floor(labels)):
        place = int(np.argmax(labels != np.floor(labels)))
        raise InputError(f"label {labels[place]:g} of sample {place}", "integer labels")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        place = int(np.argmax(outside))
        hint = "Count from 0." if labels.min() >= 1 and labels.max() == classes else ""
        if classes == 1:
            hint = "For two classes by one output, use loss='sigmoid_cross_entropy'."
        raise InputError(
            f"label {int(labels[place])} of sample {place}", f"labels 0..{classes - 1}", hint
        )
    rows = np.zeros((labels.size, classes))
    rows[np.arange(labels.size), labels.astype(np.int64)] = 1.0
    return rows


def _check_probabilities(T: Floats) -> None:
    sums = T.sum(axis=1)
    bad = (T.min(axis=1) < 0) | (np.abs(sums - 1.0) > 1e-3)
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(
            f"targets of sample {place} sum to {sums[place]:g}, least {T[place].min():g}",
            "rows of probabilities: none below 0, sum 1",
        )
