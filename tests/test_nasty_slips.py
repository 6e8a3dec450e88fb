"""Invented wrong gradients: all are caught, and the right blocks are named."""

import itertools
from collections.abc import Iterator

import pytest

from tests.nasty.slip import Slip
from tests.nasty.slipped_networks import NETWORKS
from tests.nasty.slips import SLIPS
from tests.nasty.wrong import Wrong, wrong_of
from tests.nasty_checks import ask

EACH = 2  # of each slip, on networks of their own where it can be made on several


def chosen(number: int) -> list[Wrong]:
    """Return some wrong gradients of a slip, each on another network and at another layer."""
    slip, names = SLIPS[number], [*NETWORKS]
    turned = names[number % len(names) :] + names[: number % len(names)]
    found = (_one(name, slip, number) for name in turned)
    return [*itertools.islice((wrong for wrong in found if wrong is not None), EACH)]


def _one(name: str, slip: Slip, number: int) -> Wrong | None:
    wrong = [*wrong_of(name, NETWORKS[name](), slip)]
    return wrong[number % len(wrong)] if wrong else None


def every() -> Iterator[Wrong]:
    for number in range(len(SLIPS)):
        yield from chosen(number)


def test_there_are_many_and_each_slip_is_wrong_somewhere() -> None:
    assert len([*every()]) >= 187
    assert all(chosen(number) for number in range(len(SLIPS)))


@pytest.mark.parametrize("number", range(len(SLIPS)), ids=[slip.name for slip in SLIPS])
def test_an_invented_slip_is_caught(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The diagnosis takes nine tenths of the time, and no part in the verdict.
    monkeypatch.setattr("fastcheck.check._diagnosis", lambda *_: {})
    for wrong in chosen(number):
        said = ask(wrong)
        assert said.status == "wrong", wrong.name
        assert (said.missing, said.extra) == ((), ()), wrong.name
