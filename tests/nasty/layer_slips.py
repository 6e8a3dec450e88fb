"""Slips in a layer: dW, db, what goes back, dropout and the penalty."""

from collections.abc import Callable

import numpy as np

from tests.nasty import tape as right
from tests.nasty.network import Array
from tests.nasty.output_slips import put
from tests.nasty.slip import Slip, needs
from tests.nasty.tape import Tape

# --- dW, db, what goes back ------------------------------------------------------------------


def product(tape: Tape, l: int) -> Array:
    return right.right_weights(tape, l)


def other_values(pick: Callable[[Tape, int], Array]) -> Callable[[Tape, int], Array]:
    """Return dW with something else in A_{l−1}'s place."""

    def made(tape: Tape, l: int) -> Array:
        other = pick(tape, l)
        needs(other.shape == tape.A[l - 1].shape)
        return tape.dZ[l].T @ other

    return made


def square(tape: Tape, l: int, values: Array) -> Array:
    """Return values where W_l is square, and not of one number."""
    needs(tape.W[l].shape[0] == tape.W[l].shape[1] > 1)
    return values


def requested(change: Callable[[Array], None]) -> Callable[[Tape, int], Array]:
    """Return dW changed in place."""

    def made(tape: Tape, l: int) -> Array:
        dW = product(tape, l).copy()
        needs(min(dW.shape) > 1)
        change(dW)
        return dW

    return made


WEIGHTS = [
    Slip("A_l for A_{l−1}", "weights", other_values(lambda t, l: t.A[l])),
    Slip("Z for A", "weights", other_values(lambda t, l: t.Z[l - 1] if l > 1 else t.A[1])),
    Slip("A without its mask", "weights",
         other_values(lambda t, l: t.V[l - 1] if l > 1 else t.A[1])),
    Slip("A shifted by a sample", "weights", other_values(lambda t, l: np.roll(t.A[l - 1], 1, 0))),
    Slip("A reversed", "weights", other_values(lambda t, l: t.A[l - 1][::-1])),
    Slip("A centred", "weights", other_values(lambda t, l: t.A[l - 1] - t.A[l - 1].mean(axis=0))),
    Slip("mean of A", "weights", other_values(lambda t, l: 0 * t.A[l - 1] + t.A[l - 1].mean(0))),
    Slip("|A|", "weights", other_values(lambda t, l: np.abs(t.A[l - 1]))),
    Slip("dA for dZ", "weights", lambda t, l: t.dA[l].T @ t.A[l - 1]),
    Slip("transposed", "weights", lambda t, l: square(t, l, product(t, l).T)),
    Slip("in column order", "weights",
         lambda t, l: product(t, l).T.reshape(product(t, l).shape)),
    Slip("last sample only", "weights", lambda t, l: np.outer(t.dZ[l][-1], t.A[l - 1][-1])),
    Slip("last sample missing", "weights", lambda t, l: t.dZ[l][:-1].T @ t.A[l - 1][:-1]),
    Slip("first sample missing", "weights", lambda t, l: t.dZ[l][1:].T @ t.A[l - 1][1:]),
    Slip("every other sample", "weights", lambda t, l: t.dZ[l][::2].T @ t.A[l - 1][::2]),
    Slip("dW / m again", "weights", lambda t, l: product(t, l) / t.net.m),
    Slip("dW × m", "weights", lambda t, l: product(t, l) * t.net.m),
    Slip("dW / n", "weights", lambda t, l: product(t, l) / t.W[l].shape[1]),
    Slip("dW × 1.0001", "weights", lambda t, l: product(t, l) * 1.0001),
    Slip("−dW", "weights", lambda t, l: -product(t, l)),
    Slip("|dW|", "weights", lambda t, l: np.abs(product(t, l))),
    Slip("dW is zero", "weights", lambda t, l: 0 * product(t, l)),
    Slip("dW clipped", "weights",
         lambda t, l: np.clip(product(t, l), *(np.abs(product(t, l)).max() * np.array([-.5, .5])))),
    Slip("dW's norm clipped", "weights", lambda t, l: 0.7 * product(t, l)),
    Slip("an entry × 1.01", "weights",
         requested(lambda d: put(d, np.unravel_index(np.abs(d).argmax(), d.shape),
                               1.01 * d.flat[np.abs(d).argmax()]))),
    Slip("an entry is zero", "weights",
         requested(lambda d: put(d, np.unravel_index(np.abs(d).argmax(), d.shape), 0.0))),
    Slip("a row is zero", "weights", requested(lambda d: put(d, 0, 0.0))),
    Slip("a column is zero", "weights", requested(lambda d: put(d, (slice(None), -1), 0.0))),
    Slip("rows rolled", "weights", lambda t, l: np.roll(product(t, l), 1, axis=0)),
    Slip("columns rolled", "weights", lambda t, l: np.roll(product(t, l), 1, axis=1)),
    Slip("dW plus 1e-3 noise", "weights",
         lambda t, l: product(t, l) * (1 + 1e-3 * np.random.default_rng(l).normal(
             size=t.W[l].shape))),
]  # fmt: skip


def no_biases_trouble(tape: Tape, l: int) -> Array:
    return right.right_biases(tape, l)


BIASES = [
    Slip("db is a mean", "biases", lambda t, l: t.dZ[l].mean(axis=0)),
    Slip("db × m", "biases", lambda t, l: no_biases_trouble(t, l) * t.net.m),
    Slip("db of one sample", "biases", lambda t, l: t.dZ[l][-1]),
    Slip("db misses a sample", "biases", lambda t, l: t.dZ[l][1:].sum(axis=0)),
    Slip("db is zero", "biases", lambda t, l: 0 * no_biases_trouble(t, l)),
    Slip("db from dA", "biases", lambda t, l: t.dA[l].sum(axis=0)),
    Slip("db × 2", "biases", lambda t, l: 2 * no_biases_trouble(t, l)),
    Slip("−db", "biases", lambda t, l: -no_biases_trouble(t, l)),
    Slip("db × 1.0001", "biases", lambda t, l: 1.0001 * no_biases_trouble(t, l)),
    Slip("db summed over everything", "biases",
         lambda t, l: 0 * no_biases_trouble(t, l) + t.dZ[l].sum()),
    Slip("db rolled", "biases", lambda t, l: np.roll(no_biases_trouble(t, l), 1)),
    Slip("db's largest entry × 1.01", "biases",
         lambda t, l: no_biases_trouble(t, l) * (1 + 0.01 * (
             np.abs(no_biases_trouble(t, l)) == np.abs(no_biases_trouble(t, l)).max()))),
    Slip("a penalty on b", "biases", lambda t, l: no_biases_trouble(t, l) + 0.01 * t.b[l]),
    Slip("|db|", "biases", lambda t, l: np.abs(no_biases_trouble(t, l))),
]  # fmt: skip


def going_back(change: Callable[[Tape, int], Array]) -> Callable[[Tape, int], Array]:
    """Return what goes back, where anything does."""

    def made(tape: Tape, l: int) -> Array:
        needs(l > 1)
        return change(tape, l)

    return made


def updated(rate: float) -> Callable[[Tape, int], Array]:
    """Return dA by weights that have been updated before."""
    return going_back(
        lambda t, l: t.dZ[l] @ (t.W[l] - rate * (product(t, l) + right.right_penalty(t, l)))
    )


def of_other_layer(tape: Tape, l: int) -> Array:
    other = next((k for k in tape.W if k != l and tape.W[k].shape == tape.W[l].shape), None)
    needs(other is not None and l > 1)
    return tape.dZ[l] @ tape.W[other or l]


def mask_of_other(tape: Tape, l: int) -> Array:
    needs(l > 1 and tape.net.mask(l) is not None and tape.net.mask(l - 1) is not None)
    other = right.right_mask(tape, l - 1)
    needs(np.shape(other) == tape.Z[l].shape)
    return other


def has_mask(tape: Tape, l: int) -> Array:
    needs(tape.net.mask(l) is not None)
    return right.right_mask(tape, l)


BACK = [
    Slip("W not transposed", "back", going_back(lambda t, l: square(t, l, t.dZ[l] @ t.W[l].T))),
    Slip("W updated first, rate 0.1", "back", updated(0.1)),
    Slip("W updated first, rate 1e-3", "back", updated(1e-3)),
    Slip("W of another layer", "back", of_other_layer),
    Slip("|W|", "back", going_back(lambda t, l: t.dZ[l] @ np.abs(t.W[l]))),
    Slip("dA for dZ going back", "back", going_back(lambda t, l: t.dA[l] @ t.W[l])),
    Slip("only positive dA", "back",
         going_back(lambda t, l: np.maximum(right.right_back(t, l), 0))),
    Slip("detached", "back", going_back(lambda t, l: 0 * right.right_back(t, l))),
    Slip("dA / n", "back", going_back(lambda t, l: right.right_back(t, l) / t.W[l].shape[0])),
    Slip("dA × 1.0001", "back", going_back(lambda t, l: right.right_back(t, l) * 1.0001)),
    Slip("dA / m again", "back", going_back(lambda t, l: right.right_back(t, l) / t.net.m)),
    Slip("dA shifted by a sample", "back",
         going_back(lambda t, l: np.roll(right.right_back(t, l), 1, axis=0))),
    Slip("dA clipped", "back",
         going_back(lambda t, l: np.clip(right.right_back(t, l), -1e-2, 1e-2))),
    Slip("mean dA", "back",
         going_back(lambda t, l: 0 * right.right_back(t, l) + right.right_back(t, l).mean(0))),
    Slip("dA with A added", "back",
         going_back(lambda t, l: right.right_back(t, l) + 1e-3 * t.A[l - 1])),
    Slip("no mask", "mask", lambda t, l: 0 * has_mask(t, l) + 1.0),
    Slip("mask not scaled", "mask", lambda t, l: 1.0 * (has_mask(t, l) > 0)),
    Slip("mask twice", "mask", lambda t, l: has_mask(t, l) ** 2),
    Slip("mask inverted", "mask", lambda t, l: has_mask(t, l).max() - has_mask(t, l)),
    Slip("mask of the layer before", "mask", mask_of_other),
    Slip("mask drawn anew", "mask",
         lambda t, l: np.random.default_rng(l).permutation(has_mask(t, l), axis=0)),
    Slip("mask where there is none", "mask",
         lambda t, l: np.where(np.random.default_rng(l).random(t.Z[l].shape) < 0.8, 1 / 0.8, 0.0)),
]  # fmt: skip


def decay(tape: Tape, l: int) -> Array:
    needs(tape.net.l2 > 0)
    return right.right_penalty(tape, l)


PENALTY = [
    Slip("no penalty", "penalty", lambda t, l: 0 * decay(t, l)),
    Slip("penalty × 2", "penalty", lambda t, l: 2 * decay(t, l)),
    Slip("penalty / 2", "penalty", lambda t, l: decay(t, l) / 2),
    Slip("−penalty", "penalty", lambda t, l: -decay(t, l)),
    Slip("penalty not / m", "penalty", lambda t, l: decay(t, l) * t.net.m),
    Slip("penalty / m again", "penalty", lambda t, l: decay(t, l) / t.net.m),
    Slip("sign(W)", "penalty", lambda t, l: t.net.decay * np.sign(t.W[l]) + 0 * decay(t, l)),
    Slip("W²", "penalty", lambda t, l: t.net.decay * t.W[l] ** 2 + 0 * decay(t, l)),
    Slip("ΣW", "penalty", lambda t, l: t.net.decay * t.W[l].sum() + 0 * decay(t, l)),
    Slip("Wᵀ in the penalty", "penalty", lambda t, l: square(t, l, decay(t, l).T)),
    Slip("W of the layer before", "penalty",
         lambda t, l: of_before(t, l) * t.net.decay + 0 * decay(t, l)),
    Slip("a penalty that J has not", "penalty",
         lambda t, l: right.right_penalty(t, l) + 1e-3 * t.W[l]),
]  # fmt: skip


def of_before(tape: Tape, l: int) -> Array:
    needs(l > 1 and tape.W[l].shape == tape.W[l - 1].shape)
    return tape.W[l - 1]
