"""Where nasty networks meet fastcheck: a case in the user's layout, and what is said of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import fastcheck
from tests.nasty.cases import Case
from tests.nasty.network import Array, Gradient, Nasty
from tests.nasty.wrong import Wrong


@dataclass(frozen=True)
class Asked:
    """What fastcheck is given."""

    network: fastcheck.Network
    inputs: Array
    targets: Array
    gradients: list[Array]


def network_of(net: Nasty, handed: str = "float64", layout: str = "rows") -> fastcheck.Network:
    """Return the network as fastcheck takes it, in a layout and a precision."""
    course, keras = layout == "course", layout == "keras"

    def cast(values: Array | None) -> Any:
        return None if values is None else np.asarray(values, dtype=handed)

    masks = None if net.masks is None else [cast(mask) for mask in net.masks]
    if masks is not None and course:
        masks = [None if mask is None else mask.T for mask in masks]
    return fastcheck.Network.from_arrays(
        [cast(W.T if keras else W) for W in net.weights],
        [b if b is None or not course else b.reshape(-1, 1) for b in map(cast, net.biases)],
        activations=[_spec(*entry) for entry in net.activations],
        loss=_spec(*net.loss),
        l2=net.l2,
        penalty=net.penalty,
        reduction=net.reduction,
        loss_scale=net.loss_scale,
        layout=layout,
        dropout_masks=masks,
    )


def _spec(name: str, parameter: float) -> str | tuple[str, float]:
    return (name, parameter) if name in ("leaky_relu", "elu", "huber") else name


def owners(gradient: Gradient, layout: str) -> list[Array]:
    """Return [dW1, db1, …] in a layout, without what a layer has not."""
    found = []
    for dW, db in gradient:
        found.append(dW.T if layout == "keras" else dW)
        if db is not None:
            found.append(db.reshape(-1, 1) if layout == "course" else db)
    return found


def asked(case: Case) -> Asked:
    """Return what fastcheck is given for a case."""
    net, course = case.net, case.layout == "course"
    X, T = net.inputs.astype(case.handed), net.targets.astype(case.handed)
    return Asked(
        network_of(net, case.handed, case.layout),
        X.T if course else X,
        T.T if course else T,
        owners(case.gradient, case.layout),
    )


def check(case: Case) -> fastcheck.Report:
    """Return fastcheck's report on a case."""
    given = asked(case)
    settings: dict[str, Any] = {"method": case.method, "epsilon": case.epsilon, "jobs": 1}
    if case.precision == "bfloat16":
        settings["precision"] = "bfloat16"
    return fastcheck.gradcheck(
        given.network, given.inputs, given.targets, given.gradients, **settings
    )


def verdict(case: Case) -> str:
    """Return `agree`, `cannot tell`, `wrong`, or the exception's name."""
    try:
        return check(case).status
    except fastcheck.InputError as error:
        return f"refused: {error.given[:60]}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:100]


@dataclass(frozen=True)
class Said:
    """What was said of a wrong gradient.

    Attributes
    ----------
    name, slip : str
    status : str
    missing, extra : tuple of str
        Wrong blocks that are not named, and right ones that are.
    cause, sentence : str
        The first answer.
    """

    name: str
    slip: str
    status: str
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    cause: str
    sentence: str


def ask(wrong: Wrong) -> Said:
    """Return what fastcheck says of one."""
    net = wrong.net
    report = fastcheck.gradcheck(
        network_of(net), net.inputs, net.targets, owners(wrong.gradient, "rows"), jobs=1
    )
    named = {block.name for block in report.blocks if block.status == "wrong"}
    findings = report.diagnosis.get("findings", [])
    first = findings[0] if findings else {"slip": "", "sentence": ""}
    return Said(
        wrong.name,
        wrong.slip,
        report.status,
        tuple(b for b in wrong.blocks if b not in named),
        tuple(b for b in named if b not in (*wrong.blocks, *wrong.unclear)),
        first["slip"],
        first["sentence"],
    )
