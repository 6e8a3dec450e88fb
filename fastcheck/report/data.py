"""The report as plain data: what was found, on what, how, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from fastcheck.errors import printable
from fastcheck.model.contract import ContractLine
from fastcheck.model.taylor import TaylorTable
from fastcheck.report.plot_data import Pictures
from fastcheck.verdict.verdict import GRADES, BlockVerdict, ComponentVerdict, Verdict, worst_status

__all__ = ["TRUSTED", "CostFacts", "HeldTo", "MethodFacts", "NetworkFacts", "Report", "RunFacts"]

TRUSTED = "beside a trusted gradient"  # the method of a report without differences


@dataclass(frozen=True)
class HeldTo:
    """What the gradient was held to.

    Attributes
    ----------
    tol : float
        The relative difference.
    precision : str
        What the gradient was computed in.
    reason : str
        Why this and no less, in a sentence.
    resolution : float or None
        Of a function: the largest of its blocks' resolutions.
    noise : float or None
        Of a function: σ_J, the noise in its values.
    """

    tol: float
    precision: str
    reason: str
    resolution: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class CostFacts:
    """J(θ) in its parts, and the user's own J where it was given."""

    total: float
    data: float | None = None
    penalty: float | None = None
    theirs: float | None = None
    agrees: bool = True
    explanation: str = ""


@dataclass(frozen=True)
class MethodFacts:
    """How dθ_approx was computed.

    Attributes
    ----------
    name : str
        `unit`, `textbook` or `function`.
    epsilon : float
    seed : int
        Of the sample.
    checked, size : int
        Components compared, and components there are (N).
    sampled : bool
        Whether a sample was asked for.
    complete : bool
        False after an interruption.
    noise : float
        The largest standard deviation of the method's own error, absolute.
    curvature : float or None
        The largest O(h²) term that was measured, relative.
    self_check : str
        What the literal re-evaluation of a few components gave.
    uncertainty : float
        The largest τ, what is left uncertain of the truncation, absolute.
    evaluations, directions : int or None
        Of a function: how often it was evaluated, and random directions in each block.
    """

    name: str
    epsilon: float
    seed: int
    checked: int
    size: int
    sampled: bool = False
    complete: bool = True
    noise: float = 0.0
    curvature: float | None = None
    self_check: str = ""
    uncertainty: float = 0.0
    evaluations: int | None = None
    directions: int | None = None

    @property
    def truncation_dominates(self) -> bool:
        """Whether a smaller ε helps more than a larger one."""
        return self.uncertainty > self.noise


@dataclass(frozen=True)
class NetworkFacts:
    """What was checked: `784-512-10 relu, …`, in its parts."""

    description: str
    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    reduction: str
    l2: float
    penalty: str
    batch: int
    precision: str
    layout: str
    dropout: bool = False

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.activations) + 1:
            layers = len(self.activations)
            raise ValueError(f"{len(self.sizes)} sizes for {layers} layers")


@dataclass(frozen=True)
class RunFacts:
    """What it was checked with: versions, workers, seconds for each part, and the command."""

    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes
    ----------
    gradient_status, gradient_grade : str
        The verdict on the gradient alone, before training.
    whole : BlockVerdict
        Norms and counts over everything.
    blocks : tuple of BlockVerdict
        In the order of θ.
    components : tuple of ComponentVerdict
        The worst ones, the worst first.
    held_to : HeldTo
    method : MethodFacts
    cost : CostFacts or None
    network : NetworkFacts or None
        None for a function.
    run : RunFacts
    name : str
        What the problem is called.
    notes : tuple of str
        What a reader should know, a sentence each.
    after_training : tuple of Report
        The same check again, after some gradient steps.
    training : str
        Which steps these were.
    diagnosis, coverage : dict
        JSON values by name; empty where there are none.
    pictures : Pictures or None
        What the page draws; None until they are asked for.
    contract : tuple of ContractLine
        Of a layer: what holds beside the derivative.
    taylor : TaylorTable or None
        J along one direction at many steps, where it was asked for (`sweep=True`).
    artist : callable or None
        Makes the pictures, `artist(v_curve)`; kept only in the process that made the check.
    """

    gradient_status: str
    gradient_grade: str
    whole: BlockVerdict
    blocks: tuple[BlockVerdict, ...]
    components: tuple[ComponentVerdict, ...]
    held_to: HeldTo
    method: MethodFacts
    cost: CostFacts | None = None
    network: NetworkFacts | None = None
    run: RunFacts = RunFacts()
    name: str = ""
    notes: tuple[str, ...] = ()
    after_training: tuple[Report, ...] = ()
    training: str = ""
    diagnosis: dict[str, Any] = field(default_factory=dict)
    coverage: dict[str, Any] = field(default_factory=dict)
    pictures: Pictures | None = None
    contract: tuple[ContractLine, ...] = ()
    taylor: TaylorTable | None = None
    artist: Callable[[bool], Pictures] | None = field(
        default=None, repr=False, compare=False, metadata={"plain": False}
    )

    @classmethod
    def of(cls, verdict: Verdict, **facts: Any) -> Report:
        """Make a report of a verdict and the other attributes; its texts are printable."""
        report = cls(
            gradient_status=verdict.status,
            gradient_grade=verdict.grade,
            whole=verdict.whole,
            blocks=verdict.blocks,
            components=verdict.components,
            **facts,
        )
        return cast(Report, _escaped(report))

    @property
    def status(self) -> str:
        """`agree`, `vacuous`, `cannot tell` or `wrong`: the worst of all that was checked."""
        own = "agree" if self.cost is None or self.cost.agrees else "wrong"
        others = [
            *(line.status for line in self.contract),
            *(r.status for r in self.after_training),
        ]
        return worst_status(self.gradient_status, own, *others)

    @property
    def grade(self) -> str:
        """`great`, `look` or `worry`: the worst of the whole and the blocks, after training too."""
        grades = [self.gradient_grade, *(r.grade for r in self.after_training)]
        return max(grades, key=GRADES.index)

    @property
    def passed(self) -> bool:
        """Whether dθ is the gradient of J(θ)."""
        return self.status == "agree"

    @property
    def difference(self) -> float:
        """‖dθ_approx − dθ‖ / (‖dθ_approx‖ + ‖dθ‖) over what was checked, before training."""
        return self.whole.difference

    @property
    def deciding(self) -> Report:
        """The check that the verdict comes from: the first, or one after training."""
        checks = (self, *self.after_training)
        worst = worst_status(*(check.gradient_status for check in checks))
        return next(check for check in checks if check.gradient_status == worst)

    def to_text(self, *, width: int = 80, color: bool = False) -> str:
        """Return the report as text, for a terminal of some width or for a pipe."""
        from fastcheck.report.text import render

        return render(self, width=width, color=color)

    def with_pictures(self, *, v_curve: bool = True) -> Report:
        """Return the same report with pictures of the deciding check, where they can be made.

        Parameters
        ----------
        v_curve : bool
            Whether to check a few components at other ε too, for the curve of differences.
        """
        artist = self.deciding.artist
        if self.pictures is not None or artist is None:
            return self
        return replace(self, pictures=artist(v_curve))

    def to_html(self, *, v_curve: bool = True) -> str:
        """Return the report as one self-contained page."""
        from fastcheck.report.html.page import render

        report = self.with_pictures(v_curve=v_curve)
        return render(report, report.pictures)

    def _repr_html_(self) -> str:
        from fastcheck.report.html.page import notebook

        report = self.with_pictures(v_curve=False)
        return notebook(report, report.pictures)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON, which `from_json` reads back without loss."""
        from fastcheck.report.json import to_json

        return to_json(self, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            For text that is no such report, or that a newer fastcheck wrote.
        """
        from fastcheck.report.json import from_json

        return from_json(text)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        checked = f"{self.whole.checked:,} of {self.whole.size:,} components"
        return f"<Report: {self.status}, difference {self.difference:.2g}, {checked}>"


def _escaped(value: Any) -> Any:
    """Return plain data with printable texts, the same object where nothing had to change."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (tuple, list)):
        parts = type(value)(map(_escaped, value))
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    if isinstance(value, dict):
        return {_escaped(key): _escaped(part) for key, part in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    plain = [f.name for f in fields(value) if f.metadata.get("plain", True)]
    found = {name: _escaped(getattr(value, name)) for name in plain}
    changed = {name: part for name, part in found.items() if part is not getattr(value, name)}
    return replace(value, **changed) if changed else value
