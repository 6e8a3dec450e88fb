"""How a function is checked: the options of `gradcheck_function`, validated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from fastcheck.errors import InputError, near_names
from fastcheck.settings import Settings, SettingsOptions
from fastcheck.validation import positive_number

__all__ = ["FUNCTION_METHODS", "FunctionOptions", "FunctionSettings"]

FUNCTION_METHODS = ("auto", "components", "directions", "complex")
DEFAULT_TOL = 1e-7
SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]*)\s*")
# Those of `Settings` that mean the same for a function.
SHARED = ("sample", "detect", "seed", "jobs", "backend", "precision", "progress", "memory")


class FunctionOptions(TypedDict, total=False):
    """The keyword arguments of `gradcheck_function`; see `FunctionSettings`."""

    method: str
    epsilon: float | str
    tol: float | None
    resolution: float
    atol: float
    directions: int | None
    budget: float | str | None
    blocks: Sequence[str] | None
    vectorized: bool
    reseed: Callable[[], Any] | None
    sweep: bool
    protocol: bool
    sample: int | None
    detect: float | None
    seed: int
    jobs: int | None
    backend: str
    precision: str | None
    progress: bool | Callable[[int, int], None]
    memory: float
    name: str
    command: str


@dataclass(frozen=True)
class FunctionSettings:
    """How a function is checked.

    Attributes
    ----------
    method : str
        `components` (central differences of every component, or of a sample), `directions` (random
        directions in each block), `complex` (the complex step of every component, held to real
        differences) or `auto`: components up to 20,000 of them, directions beyond.
    epsilon : float or "auto"
        The step; `auto` measures one for each block.
    tol : float or None
        The relative difference up to which a gradient is right; None for what J allows.
    resolution : float
        Without `tol`: the coarsest relative error of a block that counts as seen.
    atol : float
        What each component may be off by in any case.
    directions : int or None
        How many random directions in each block.
    budget : float, str or None
        Seconds, or `"60s"`, `"5min"`: components where they fit into it, else as many directions.
    blocks : sequence of str or None
        The blocks to check, by name or pattern.
    vectorized : bool
        f takes P values of θ, (P, …) in each leaf, and returns (P,).
    reseed : callable or None
        Called before each evaluation of f and of the gradient.
    sweep : bool
        Whether to add a Taylor table: J along one direction at many steps, with rates.
    protocol : bool
        Whether to do several checks inside the budget (a minute): all components or directions,
        a sample, each term where f and the gradient are mappings of terms, and the same after
        some gradient steps.
    shared : Settings
        Sample, seed, workers and what else means the same for a network.
    seed_given : bool
        Whether the user chose the seed; directions take a fresh one otherwise.
    """

    method: str = "auto"
    epsilon: float | str = "auto"
    tol: float | None = None
    resolution: float = 1e-2
    atol: float = 0.0
    directions: int | None = None
    budget: float | str | None = None
    blocks: Sequence[str] | None = None
    vectorized: bool = False
    reseed: Callable[[], Any] | None = None
    sweep: bool = False
    protocol: bool = False
    shared: Settings = field(default_factory=Settings)
    seed_given: bool = False

    @classmethod
    def of(cls, options: FunctionOptions) -> FunctionSettings:
        """Make settings from keyword arguments.

        Raises
        ------
        InputError
            For unknown names and values out of range.
        """
        given: dict[str, Any] = dict(options)
        known = {f.name for f in fields(cls)} - {"shared", "seed_given"} | set(SHARED)
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(
                f"unknown option {unknown[0]!r}", "a setting", near_names(unknown[0], known)
            )
        common: SettingsOptions = {k: given.pop(k) for k in SHARED if k in given}  # type: ignore[assignment]
        shared = Settings.of(**common)
        return cls(**given, shared=shared, seed_given="seed" in common).checked()

    def checked(self) -> FunctionSettings:
        """Return the same settings, or refuse what is out of range."""
        if self.method not in FUNCTION_METHODS:
            raise InputError(
                f"unknown method {self.method!r}",
                "a method for functions",
                near_names(str(self.method), FUNCTION_METHODS),
            )
        if self.method == "complex" and self.shared.sampled:
            raise InputError("method='complex' with a sample", "all components, or another method")
        if self.epsilon != "auto":
            positive_number(self.epsilon, "epsilon")
        if self.tol is not None and positive_number(self.tol, "tol") >= 1.0:
            raise InputError(f"tol={self.tol!r}", "a relative difference below 1")
        if positive_number(self.resolution, "resolution") >= 1.0:
            raise InputError(f"resolution={self.resolution!r}", "a relative error below 1")
        positive_number(self.atol, "atol", zero=True)
        count = self.directions
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise InputError(f"directions={count!r}", "a whole number, 1 or more")
        if count is not None and count < 1:
            raise InputError(f"directions={count!r}", "a whole number, 1 or more")
        if self.reseed is not None and not callable(self.reseed):
            raise InputError(f"reseed={self.reseed!r}", "a callable")
        if self.budget is not None:
            self.seconds  # noqa: B018 - refuses what is no duration
        return self

    @property
    def seconds(self) -> float | None:
        """The budget in seconds."""
        if self.budget is None or not isinstance(self.budget, str):
            return None if self.budget is None else positive_number(self.budget, "budget")
        found = DURATION.fullmatch(self.budget)
        if found is None or found[2] not in SECONDS:
            raise InputError(f"budget={self.budget!r}", "seconds, or a duration like '60s', '5min'")
        return positive_number(float(found[1]), "budget") * SECONDS[found[2]]

    @property
    def named_epsilon(self) -> float | None:
        """The step that the user named."""
        return None if self.epsilon == "auto" else float(self.epsilon)

    @property
    def coarsest(self) -> float:
        """The coarsest relative error of a block that counts as seen.

        A relative difference of tol is an error of 2·tol; the difference may hide as much again.
        """
        return self.resolution if self.tol is None else 4.0 * float(self.tol)

    @property
    def asked(self) -> float:
        """The relative difference that a component is held to where J allows it."""
        return DEFAULT_TOL if self.tol is None else float(self.tol)
