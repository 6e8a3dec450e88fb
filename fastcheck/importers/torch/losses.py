"""How the recorded operations behind a module's outputs make J: the loss and what scales it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, LossTerms, unsupported
from fastcheck.importers.torch.operations import array_of
from fastcheck.importers.torch.recording import Operation, Value

__all__ = ["LossReader"]

Targets = NDArray[Any]
WRITE_IT = (
    "Use the loss of torch.nn.functional, or say which loss it is: loss_as='squared_error', "
    "reduction='mean'."
)


@dataclass
class LossReader:
    """Reads the operations behind the last layer, one after the other.

    Attributes
    ----------
    chain : Chain
    m : int
        Number of samples.
    loss : Any
        In fastcheck's words, once it is known.
    targets : ndarray or None
        Rows (m, n_L) or labels (m,).
    coefficient : float
        What a sum of the losses is multiplied by so far.
    residual : ndarray or None
        Targets t, where the outputs have become z − t.
    reduced : bool
        Whether J is one number by now.
    penalty : bool
        Whether something made of parameters alone was added.
    """

    chain: Chain
    m: int
    loss: Any = None
    targets: Targets | None = None
    coefficient: float = 1.0
    residual: Targets | None = None
    reduced: bool = False
    penalty: bool = False

    def read(self, operation: Operation) -> None:
        """Take in one operation.

        Raises
        ------
        InputError
            For a loss that fastcheck does not have, weights of classes or samples, and targets
            whose shape makes the loss broadcast.
        """
        table = SCALINGS if self.loss is not None else LOSS_READERS
        if self.residual is not None and self.loss is None:
            table = SQUARES
        reader = table.get(operation.name)
        if reader is None:
            raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
        reader(self, operation)

    def terms(self) -> LossTerms:
        """Return the loss, once all operations are read."""
        if self.loss is None or not self.reduced or self.coefficient <= 0:
            raise InputError(
                "the loss gives no single number that grows with the errors",
                "a loss that is reduced by mean or sum",
                "Set reduction='mean', or add .mean().",
            )
        return LossTerms(self.loss, self.coefficient)

    def start(self, operation: Operation, loss: Any, targets: Targets, elements: int) -> None:
        """Note the loss, its targets, and its reduction over so many elements."""
        for name in ("weight", "pos_weight"):
            if isinstance(operation.kwargs.get(name), Value):
                raise unsupported(
                    f"{name}= of {operation.name} (its samples or classes count differently)",
                    operation.place,
                )  # fmt: skip
        self.loss, self.targets = loss, targets
        self.finish(_reduction(operation), elements)

    def finish(self, reduction: str, elements: int) -> None:
        """Reduce to one number, or leave the elements."""
        if reduction == "mean":
            self.coefficient /= elements
        self.reduced = reduction != "none"


def _reduction(operation: Operation) -> str:
    """Return mean, sum or none; the arguments that older PyTorch had are read too."""
    kwargs = operation.kwargs
    if kwargs.get("reduce") is not None or kwargs.get("size_average") is not None:
        if kwargs.get("reduce") is False:
            return "none"
        return "sum" if kwargs.get("size_average") is False else "mean"
    reduction = str(kwargs.get("reduction", "mean"))
    if reduction not in ("mean", "sum", "none"):
        raise unsupported(f"reduction={reduction!r} of {operation.name}", operation.place)
    return reduction


def _target(operation: Operation) -> tuple[Value, Value]:
    """Return outputs and targets of a loss."""
    outputs, targets = operation.argument(0, "input"), operation.argument(1, "target")
    if not isinstance(targets, Value) or targets.theta or not outputs.flow:
        raise unsupported(
            f"{operation.name} whose targets depend on the parameters (or stand first)",
            operation.place,
        )
    return outputs, targets


def _elementwise(loss: Any, form: str = "") -> Callable[[LossReader, Operation], None]:
    """Return the reader of a loss that compares element by element."""

    def read(reader: LossReader, operation: Operation) -> None:
        outputs, targets = _target(operation)
        spec = loss(operation) if callable(loss) else loss
        if form:
            reader.chain.fuse(form, operation.name)
        rows = _same_shape(reader, operation, outputs, targets)
        reader.start(operation, spec, rows, outputs.tensor.numel())

    return read


def _same_shape(
    reader: LossReader, operation: Operation, outputs: Value, targets: Value
) -> Targets:
    """Return the targets as rows; they have the outputs' shape, or the loss broadcasts."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"{operation.name} of outputs {outputs.shape} and targets {targets.shape}, which "
            f"broadcasts to {tuple(torch.broadcast_shapes(outputs.shape, targets.shape))}"
            if _broadcasts(outputs, targets)
            else f"{operation.name} of outputs {outputs.shape} and targets {targets.shape}",
            "outputs and targets of one shape",
            "Reshape one of them: targets.reshape(outputs.shape), or outputs.squeeze(-1).",
        )
    return array_of(targets.tensor).reshape(reader.m, -1)


def _broadcasts(outputs: Value, targets: Value) -> bool:
    try:
        torch.broadcast_shapes(outputs.shape, targets.shape)
    except RuntimeError:
        return False
    return True


def _huber(operation: Operation) -> Any:
    return "huber", float(operation.kwargs.get("delta", 1.0))


def _smooth_l1(reader: LossReader, operation: Operation) -> None:
    """Smooth L1 is Huber's loss divided by β."""
    beta = float(operation.kwargs.get("beta", 1.0))
    if beta <= 0:
        raise unsupported("smooth_l1_loss with beta=0, which is the L1 loss,", operation.place)
    _elementwise(("huber", beta))(reader, operation)
    reader.coefficient /= beta


def _mse(reader: LossReader, operation: Operation) -> None:
    _elementwise("squared_error")(reader, operation)
    reader.coefficient *= 2.0  # squared_error is ½ Σ (z − t)²


def _cross_entropy(reader: LossReader, operation: Operation) -> None:
    outputs, targets = _target(operation)
    if reader.chain.output in ("softmax", "log_softmax"):
        raise InputError(
            f"{operation.place}: cross_entropy on outputs of {reader.chain.output}: softmax twice",
            "logits: cross_entropy applies softmax itself",
            "Leave the last activation out.",
        )
    smoothing = float(operation.kwargs.get("label_smoothing", 0.0))
    rows = _class_targets(operation, outputs, targets, smoothing)
    reader.start(operation, "softmax_cross_entropy", rows, reader.m)


def _class_targets(
    operation: Operation, outputs: Value, targets: Value, smoothing: float = 0.0
) -> Targets:
    """Return labels (m,), or rows of probabilities (m, K)."""
    if len(outputs.shape) != 2:
        raise unsupported(
            f"{operation.name} of outputs of shape {outputs.shape}", operation.place,
            "It takes outputs (samples, classes).",
        )  # fmt: skip
    array, classes = array_of(targets.tensor), outputs.shape[1]
    if array.dtype.kind in "iu":
        if bool((array == operation.kwargs.get("ignore_index", -100)).any()):
            raise unsupported(
                "a batch with ignored labels (ignore_index)", operation.place,
                "Leave these samples out of the batch.",
            )  # fmt: skip
        if not smoothing or array.ndim != 1:
            return array
        array = np.eye(classes)[array]
    if not smoothing:
        return array
    return (1.0 - smoothing) * array.astype(np.float64) + smoothing / classes


def _nll(reader: LossReader, operation: Operation) -> None:
    outputs, targets = _target(operation)
    reader.chain.fuse("log_softmax", operation.name)
    rows = _class_targets(operation, outputs, targets)
    reader.start(operation, "softmax_cross_entropy", rows, reader.m)


def _log(reader: LossReader, operation: Operation) -> None:
    """log(softmax(z)), by hand."""
    reader.chain.fuse("softmax", "log")
    reader.chain.layers[-1].activation = "log_softmax"


def _times_targets(reader: LossReader, operation: Operation) -> None:
    """t·log p, by hand: minus the cross-entropy once it is summed."""
    others = [v for v in operation.inputs if not v.theta]
    if len(others) != 1 or reader.chain.output != "log_softmax":
        raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
    outputs = operation.flow[0]
    reader.chain.fuse("log_softmax", operation.name)
    reader.loss = "softmax_cross_entropy"
    reader.targets = _same_shape(reader, operation, outputs, others[0])
    reader.coefficient = -1.0


def _difference(reader: LossReader, operation: Operation) -> None:
    """z − t or t − z, by hand."""
    others = [v for v in operation.inputs if not v.theta]
    if len(others) != 1 or operation.kwargs.get("alpha", 1) != 1:
        raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
    reader.residual = _same_shape(reader, operation, operation.flow[0], others[0])


def _square(reader: LossReader, operation: Operation) -> None:
    """(z − t)², by hand."""
    power = operation.argument(1, "exponent", 2) if operation.name == "pow" else 2
    of_itself = operation.name != "mul" or len(operation.inputs) == 2
    if power != 2 or not of_itself:
        raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
    reader.loss, reader.targets, reader.coefficient = "squared_error", reader.residual, 2.0


def _averaged(reader: LossReader, operation: Operation) -> None:
    before, after = operation.flow[0], operation.output
    if after is None:
        return
    if operation.name == "mean":
        reader.coefficient *= after.tensor.numel() / max(before.tensor.numel(), 1)
    reader.reduced = after.tensor.numel() == 1


def _scaled(reader: LossReader, operation: Operation) -> None:
    """J times or divided by a number."""
    others = [a for a in operation.args if not (isinstance(a, Value) and a.flow)]
    number = others[0] if others else operation.kwargs.get("other")
    if isinstance(number, Value):
        one = number.tensor.numel() == 1 and not number.theta
        number = float(number.tensor) if one else math.nan
    if not isinstance(number, (int, float)) or not math.isfinite(number) or number == 0:
        raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
    inverted = operation.name == "div" and not (
        isinstance(operation.args[0], Value) and operation.args[0].flow
    )
    if inverted:
        raise unsupported("a number divided by J", operation.place, WRITE_IT)
    reader.coefficient *= 1.0 / number if operation.name == "div" else number


def _negated(reader: LossReader, operation: Operation) -> None:
    reader.coefficient = -reader.coefficient


def _added(reader: LossReader, operation: Operation) -> None:
    """A penalty written out: it is made of parameters alone."""
    if len(operation.parameters) != 1 or not reader.reduced:
        raise unsupported(f"{operation.name} as a part of J", operation.place, WRITE_IT)
    reader.penalty = True


def _as_is(reader: LossReader, operation: Operation) -> None:
    """Leave everything as it is."""


LOSS_READERS: dict[str, Callable[[LossReader, Operation], None]] = {
    "cross_entropy": _cross_entropy,
    "nll_loss": _nll,
    "binary_cross_entropy_with_logits": _elementwise("sigmoid_cross_entropy"),
    "binary_cross_entropy": _elementwise("sigmoid_cross_entropy", "sigmoid"),
    "mse_loss": _mse,
    "huber_loss": _elementwise(_huber),
    "smooth_l1_loss": _smooth_l1,
    "log": _log,
    "mul": _times_targets,
    "sub": _difference,
    "rsub": _difference,
}
SQUARES: dict[str, Callable[[LossReader, Operation], None]] = {
    "pow": _square,
    "square": _square,
    "mul": _square,
}
SCALINGS: dict[str, Callable[[LossReader, Operation], None]] = {
    "mean": _averaged,
    "sum": _averaged,
    "mul": _scaled,
    "div": _scaled,
    "neg": _negated,
    "add": _added,
    "squeeze": _as_is,
    "view": _as_is,
    "reshape": _as_is,
    "flatten": _as_is,
}
