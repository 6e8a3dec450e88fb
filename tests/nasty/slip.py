"""What a slip is: one step of a backward pass in another's place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.nasty import tape as right
from tests.nasty.tape import RIGHT, Steps, Tape

ELSEWHERE: dict[str, Callable[..., Any]] = {
    "slope": right.right_slope,
    "mask": right.right_mask,
    "weights": right.right_weights,
    "penalty": right.right_penalty,
    "biases": right.right_biases,
    "back": right.right_back,
}


@dataclass(frozen=True)
class Slip:
    """One way to get it wrong.

    Attributes
    ----------
    name : str
    step : str
        The step that it replaces, a field of `Steps`.
    make : callable
        `(tape)`, `(tape, l)` or `(tape, gradient)`, as the step takes; raises where it can't be.
    """

    name: str
    step: str
    make: Callable[..., Any]

    def steps(self, layer: int) -> Steps:
        """Return the steps with this one replaced at a layer; 0 for every one."""
        usual = ELSEWHERE.get(self.step)
        if usual is None:
            changed: Any = {self.step: self.make}
            return replace(RIGHT, **changed)

        def chosen(tape: Tape, l: int) -> Any:
            return self.make(tape, l) if layer in (0, l) else usual(tape, l)

        one: Any = {self.step: chosen}
        return replace(RIGHT, **one)


def needs(possible: bool) -> None:
    """Raise where a slip is none on this network."""
    if not possible:
        raise LookupError("no such slip here")
