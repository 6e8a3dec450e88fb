"""Slips that people make, each planted where a person makes it; none is of fastcheck's table.

A slip is told by its place and by a function that takes that step's part. Those of one layer take
the right step elsewhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tests.nasty.layer_slips import BACK, BIASES, PENALTY, WEIGHTS
from tests.nasty.network import Array, Gradient, Nasty
from tests.nasty.output_slips import OUTPUT, SLOPES
from tests.nasty.slip import ELSEWHERE, Slip, needs
from tests.nasty.tape import Tape, backward

# --- the finished gradient -------------------------------------------------------------------


def moved(net: Nasty, rate: float) -> Nasty:
    """Return the network a gradient step further."""
    found = backward(net)
    weights = [W - rate * dW for W, (dW, _) in zip(net.weights, found, strict=True)]
    biases = [
        None if b is None or db is None else b - rate * db
        for b, (_, db) in zip(net.biases, found, strict=True)
    ]
    return replace(net, weights=weights, biases=biases)


def reversed_list(tape: Tape, found: Gradient) -> Gradient:
    shapes = [dW.shape for dW, _ in found]
    needs(len(shapes) > 1 and shapes == shapes[::-1])
    return found[::-1]


def each(change: Callable[[Array], Array]) -> Callable[[Tape, Gradient], Gradient]:
    """Return every block changed."""
    return lambda tape, found: [
        (change(dW), None if db is None else change(db)) for dW, db in found
    ]


def swapped(tape: Tape, found: Gradient) -> Gradient:
    needs(tape.L > 1 and found[0][0].shape == found[1][0].shape)
    return [(found[1][0], found[0][1]), (found[0][0], found[1][1]), *found[2:]]


def momentum(tape: Tape, found: Gradient) -> Gradient:
    before: Any = backward(moved(tape.net, 0.1))
    return [
        (0.9 * dW + 0.1 * eW, None if db is None else 0.9 * db + 0.1 * eb)
        for (dW, db), (eW, eb) in zip(found, before, strict=True)
    ]


END = [
    Slip("stale gradient, rate 0.1", "end", lambda t, g: backward(moved(t.net, 0.1))),
    Slip("stale gradient, rate 1e-3", "end", lambda t, g: backward(moved(t.net, 1e-3))),
    Slip("momentum", "end", momentum),
    Slip("reversed list", "end", reversed_list),
    Slip("dW1 and dW2 swapped", "end", swapped),
    Slip("norm of everything clipped", "end", each(lambda v: 0.5 * v)),
    Slip("everything clipped at 0.01", "end", each(lambda v: np.clip(v, -0.01, 0.01))),
    Slip("rounded to float16", "end", each(lambda v: v.astype(np.float16).astype(float))),
    Slip("rounded to 3 decimals", "end", each(lambda v: np.round(v, 3))),
    Slip("signs only", "end", each(np.sign)),
    Slip("the sum of both signs", "end", each(lambda v: v + np.abs(v))),
    Slip("without the first layer", "end",
         lambda t, g: [(0 * g[0][0], None if g[0][1] is None else 0 * g[0][1]), *g[1:]]),
    Slip("everything × 2", "end", each(lambda v: 2 * v)),
    Slip("an offset of 1e-4", "end", each(lambda v: v + 1e-4)),
]  # fmt: skip

SLIPS = (*OUTPUT, *SLOPES, *WEIGHTS, *BIASES, *BACK, *PENALTY, *END)


def planted(net: Nasty, slip: Slip) -> Iterator[tuple[int, Gradient]]:
    """Yield the slip's gradient at each layer where it can be made, 0 for all of them."""
    one = slip.step in ELSEWHERE
    for layer in range(net.depth + 1) if one else (0,):
        try:
            yield layer, backward(net, slip.steps(layer))
        except (LookupError, ValueError):  # not on this network, or not in these shapes
            continue
