"""How a check is made: method, ε, tolerance, sample, workers; validated at the door."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from fastcheck.errors import InputError, near_names

__all__ = ["METHODS", "Settings", "SettingsOptions"]

METHODS = ("auto", "unit", "textbook")
PRECISIONS = ("float64", "float32", "float16", "bfloat16")
SAMPLES = ("sample", "detect", "sample_units")  # ways to say how large a sample is
BACKENDS = ("threads", "loky", "dask", "ray", "context")


class SettingsOptions(TypedDict, total=False):
    """The keyword arguments of `gradcheck`; see `Settings`."""

    method: str
    epsilon: float
    tol: float
    sample: int | None
    detect: float | None
    sample_units: int | None
    seed: int
    jobs: int | None
    backend: str
    scheduler: str | None
    ray_address: str | None
    chunk_size: int | None
    precision: str | None
    progress: bool | Callable[[int, int], None]
    journal: str | Path | None
    memory: float


@dataclass(frozen=True)
class Settings:
    """How a check is made.

    Attributes
    ----------
    method : str
        `auto` (the unit method), `unit` or `textbook`.
    epsilon : float
        ε of the central difference.
    tol : float
        The relative difference up to which a gradient is right.
    sample : int or None
        How many components, drawn at random; None for all.
    detect : float or None
        Instead of `sample`: as many as see it with 95 % probability where so large a share of a
        block is wrong.
    sample_units : int or None
        Instead of `sample`: how many units, each a whole row of W_l and its component of b_l. The
        unit method takes as long for a row as for one component of it.
    seed : int
        Of the sample.
    jobs : int or None
        Workers; None for one a core.
    backend : str
        `threads`, `loky` (processes), `dask`, `ray`, or `context`: what `joblib.parallel_config`
        says.
    scheduler : str or None
        Address of a Dask scheduler, `tcp://host:8786`; None for the client that is active.
    ray_address : str or None
        Address of a Ray cluster, `auto` or `ray://host:10001`; None for one on this machine.
    chunk_size : int or None
        Components in a chunk of the textbook method; None for a size that the problem gives.
    precision : str or None
        What the gradient was computed in; None to read it from its arrays and the parameters.
    progress : bool or callable
        Show a bar, or call `progress(done, total)`.
    journal : path or None
        Keep finished chunks in this file and go on from them.
    memory : float
        Budget of the working memory in bytes.
    """

    method: str = "auto"
    epsilon: float = 1e-7
    tol: float = 1e-7
    sample: int | None = None
    detect: float | None = None
    sample_units: int | None = None
    seed: int = 0
    jobs: int | None = None
    backend: str = "threads"
    scheduler: str | None = None
    ray_address: str | None = None
    chunk_size: int | None = None
    precision: str | None = None
    progress: bool | Callable[[int, int], None] = False
    journal: str | Path | None = None
    memory: float = 4e9

    @classmethod
    def of(cls, **options: Unpack[SettingsOptions]) -> Settings:
        """Make settings from keyword arguments.

        Raises
        ------
        InputError
            For unknown names and values out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise InputError(
                f"unknown option {unknown[0]!r}", "a setting", near_names(unknown[0], known)
            )
        return replace(cls(), **options).checked()

    def checked(self) -> Settings:
        """Return the same settings, or refuse what is out of range."""
        if self.method not in METHODS:
            raise InputError(
                f"unknown method {self.method!r}", "a method", near_names(str(self.method), METHODS)
            )
        if self.backend not in BACKENDS:
            raise InputError(
                f"unknown backend {self.backend!r}",
                "a backend",
                near_names(str(self.backend), BACKENDS),
            )
        for name, backend in (("scheduler", "dask"), ("ray_address", "ray")):
            if getattr(self, name) is not None and self.backend != backend:
                raise InputError(
                    f"{name}={getattr(self, name)!r} with backend={self.backend!r}",
                    f"backend={backend!r}",
                )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InputError(
                f"precision={self.precision!r}",
                "a precision",
                near_names(str(self.precision), PRECISIONS),
            )
        for name in ("epsilon", "memory"):
            _positive_number(getattr(self, name), name)
        # A relative difference is never above 1: such a tol calls everything right.
        _positive_number(self.tol, "tol", below=1.0)
        for name in ("sample", "sample_units", "jobs", "chunk_size"):
            _whole_number(getattr(self, name), name, least=1)
        _whole_number(self.seed, "seed", least=0)
        self._check_sample()
        return self

    def _check_sample(self) -> None:
        if self.detect is not None and _positive_number(self.detect, "detect") >= 1.0:
            raise InputError(
                f"detect={self.detect!r}", "0 < detect < 1: a share", "Write 0.001 for 0.1 %."
            )
        given = [name for name in SAMPLES if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(
                f"both {given[0]}={getattr(self, given[0])!r} and "
                f"{given[1]}={getattr(self, given[1])!r}",
                "one of them: each says how large the sample is",
                "Leave the other out.",
            )

    @property
    def sampled(self) -> bool:
        """Whether a sample was asked for."""
        return any(getattr(self, name) is not None for name in SAMPLES)

    @property
    def workers(self) -> int:
        """How many workers run."""
        if self.jobs is not None:
            return self.jobs
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )


def _positive_number(value: Any, name: str, *, below: float = math.inf) -> float:
    from fastcheck.validation import positive_number  # brings NumPy; the names above do not

    return positive_number(value, name, below=below)


def _whole_number(value: Any, name: str, *, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r}", f"a whole number, {least} or more")
