"""What a dense network is: layers, activations, loss and penalty; validated at the door."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcheck.errors import InputError, near_names
from fastcheck.kernels.calls import Calls
from fastcheck.kernels.forward import NetworkArrays
from fastcheck.model.batch import Batch, read_inputs, read_targets
from fastcheck.model.parameters import Block, ThetaLayout
from fastcheck.model.specs import ActivationInput, ActivationSpec, LossInput, LossSpec, bind
from fastcheck.types import Floats
from fastcheck.validation import finite_array, lower_precision, one_of, positive_number

__all__ = [
    "PENALTIES",
    "ActivationSpec",
    "Batch",
    "LossSpec",
    "Network",
    "NetworkOptions",
    "bias_vector",
]


LAYOUTS = ("rows", "course", "keras")
REDUCTIONS = ("mean", "sum", "mean_elements")
PENALTIES = {
    "l2/2m": "(λ/2m)·Σ‖W‖²",
    "l2/m": "(λ/m)·Σ‖W‖²",
    "l2/2": "(λ/2)·Σ‖W‖²",
    "l2": "λ·Σ‖W‖²",
}


class NetworkOptions(TypedDict, total=False):
    """What a network is besides its arrays; see `Network.from_arrays`."""

    activations: str | Sequence[ActivationInput]
    loss: LossInput
    l2: float
    penalty: str
    reduction: str
    loss_scale: float
    layout: str
    dropout_masks: Sequence[ArrayLike | None] | Mapping[int, ArrayLike] | None
    keep_prob: float
    names: Mapping[str, str]


def _listed(arrays: Any, name: str) -> list[Any]:
    """Return a sequence or what a generator yields as a list."""
    try:
        return list(arrays)
    except TypeError:
        kind = type(arrays).__name__
        raise InputError(f"{name} of type {kind}", "a list with one array a layer") from None


def _weight_arrays(
    weights: Sequence[ArrayLike], transposed: bool
) -> tuple[list[Floats], list[str]]:
    """Return the weights in row convention, and their precisions; shapes must chain."""
    weights = _listed(weights, "weights")
    if len(weights) == 0:
        raise InputError("no weights", "at least one weight matrix")
    arrays, precisions = [], []
    for layer, given in enumerate(weights, start=1):
        array, precision = finite_array(given, f"W{layer}")
        if array.ndim != 2 or 0 in array.shape:
            raise InputError(f"W{layer} has shape {array.shape}", "a matrix with rows and columns")
        arrays.append(array.T if transposed else array)
        precisions.append(precision)
    for layer in range(2, len(arrays) + 1):
        before, here = arrays[layer - 2], arrays[layer - 1]
        if here.shape[1] != before.shape[0]:
            turned = here.shape[0] == before.shape[0]
            other = "rows" if transposed else "keras"
            raise InputError(
                f"W{layer} takes {here.shape[1]} inputs, but W{layer - 1} gives {before.shape[0]}",
                "shapes that chain: the outputs of one layer are the inputs of the next",
                f"Its transpose would fit: is this layout={other!r}?" if turned else "",
            )
    return arrays, precisions


def bias_vector(values: ArrayLike, size: int, name: str) -> tuple[Floats, str]:
    """Return a bias (n,), (n, 1) or (1, n) as (n,), and its precision."""
    array, precision = finite_array(values, name)
    if array.size != size or max(array.shape, default=1) != size:
        raise InputError(
            f"{name} has shape {array.shape}", f"({size},), ({size}, 1) or (1, {size})"
        )
    return array.reshape(size), precision


def _bias_arrays(
    biases: Sequence[ArrayLike | None] | None, weights: Sequence[Floats]
) -> tuple[list[Floats | None], list[str]]:
    """Return the biases as vectors, None where a layer has none."""
    given = [None] * len(weights) if biases is None else _listed(biases, "biases")
    if len(given) != len(weights):
        raise InputError(
            f"{len(given)} biases for {len(weights)} weights", "as many biases as weights"
        )
    arrays: list[Floats | None] = []
    precisions = []
    for layer, (values, W) in enumerate(zip(given, weights, strict=True), start=1):
        if values is None:
            arrays.append(None)
            continue
        array, precision = bias_vector(values, W.shape[0], f"b{layer}")
        arrays.append(array)
        precisions.append(precision)
    return arrays, precisions


def _masks(options: NetworkOptions, sizes: Sequence[int]) -> tuple[Floats | None, ...]:
    """Return one multiplicative mask (m, n_l) or None a layer, scaled by 1/keep_prob."""
    keep_prob = positive_number(options.get("keep_prob", 1.0), "keep_prob")
    given = options.get("dropout_masks")
    layers = len(sizes) - 1
    if keep_prob > 1:
        raise InputError(f"keep_prob={keep_prob}", "0 < keep_prob <= 1")
    if given is None:
        if keep_prob < 1:
            raise InputError(
                f"keep_prob={keep_prob} without dropout_masks: J is another function at each call",
                "a J(θ) that gives the same value for the same θ",
                "Check with keep_prob=1, or pass the fixed masks as dropout_masks.",
            )
        return (None,) * layers
    by_layer = dict(given) if isinstance(given, Mapping) else dict(enumerate(given, start=1))
    stray = [layer for layer in by_layer if layer not in range(1, layers + 1)]
    if stray:
        raise InputError(f"dropout mask for layer {stray[0]}", f"layers 1..{layers}")
    masks: list[Floats | None] = []
    for layer in range(1, layers + 1):
        values = by_layer.get(layer)
        if values is None:
            masks.append(None)
            continue
        mask, _ = finite_array(values, f"dropout mask {layer}")
        if options.get("layout") == "course" and mask.ndim == 2:
            mask = mask.T
        if mask.ndim != 2 or mask.shape[1] != sizes[layer]:
            raise InputError(f"dropout mask {layer} has shape {mask.shape}", f"(m, {sizes[layer]})")
        masks.append(np.ascontiguousarray(mask / keep_prob))
    return tuple(masks)


@dataclass(frozen=True)
class Network:
    """A dense network as plain data, with its parameters in one θ.

    Make one with `Network.from_arrays` or `Network.from_parameters`.

    Attributes
    ----------
    order : ThetaLayout
        The order of θ.
    theta : ndarray, shape (N,), float64
    activations : tuple of ActivationSpec
        One a layer.
    loss : LossSpec
    l2 : float
        λ.
    penalty : str
        Its convention, a key of `PENALTIES`.
    reduction : str
        `mean` over samples, `sum`, or `mean_elements` over samples and outputs.
    loss_scale : float
        What the reduced loss is multiplied by: other programs keep or leave out a factor ½.
    masks : tuple
        One multiplicative dropout mask (m, n_l) or None a layer.
    precision : str
        The coarsest precision the parameters came in.
    layout : str
        The user's convention: `rows`, `course` or `keras`.
    """

    order: ThetaLayout
    theta: Floats
    activations: tuple[ActivationSpec, ...]
    loss: LossSpec
    l2: float = 0.0
    penalty: str = "l2/2m"
    reduction: str = "mean"
    loss_scale: float = 1.0
    masks: tuple[Floats | None, ...] = ()
    precision: str = "float64"
    layout: str = "rows"

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike | None] | None = None,
        **options: Unpack[NetworkOptions],
    ) -> Network:
        """Make a network from its weights and biases.

        Parameters
        ----------
        weights : sequence of array_like
            W_1, …, W_L, each `(n_l, n_{l-1})`; `(n_{l-1}, n_l)` with `layout="keras"`.
        biases : sequence of array_like or None, optional
            b_1, …, b_L, each `(n_l,)`, `(n_l, 1)` or `(1, n_l)`; None for a layer without.
        activations : str or sequence
            One a layer: a name, `(name, parameter)`, or a function of one float that numba can
            compile. A single one stands for all hidden layers, with logits as output.
        loss : str, tuple or callable
            A name, `(name, parameter)`, or a function (output, target) -> float, summed
            over outputs.
        l2 : float
            λ, default 0. The penalty is on weights, never on biases.
        penalty : str
            `"l2/2m"` (default) for λ/2m·Σ‖W‖², `"l2/m"`, `"l2/2"` or `"l2"`.
        reduction : str
            `"mean"` (default) over samples, `"sum"`, or `"mean_elements"`.
        loss_scale : float
            What the reduced loss is multiplied by, default 1; the penalty is not.
        layout : str
            `"rows"` (PyTorch: samples are rows), `"course"` (samples are columns, b is (n, 1)) or
            `"keras"` (W is (n_in, n_out)).
        dropout_masks : sequence or mapping, optional
            Fixed masks of A_l, `(m, n_l)` (course: `(n_l, m)`), by layer.
        keep_prob : float
            The masks are divided by it.
        names : mapping, optional
            The user's names of the blocks by ours (`{"W1": "net.0.weight"}`).

        Raises
        ------
        InputError
            For shapes that don't chain, unknown names, NaN or infinity, and dropout without masks.
        """
        layout = one_of(options.get("layout", "rows"), LAYOUTS, "layout")
        W, precisions = _weight_arrays(weights, layout == "keras")
        b, more = _bias_arrays(biases, W)
        sizes = [W[0].shape[1]] + [w.shape[0] for w in W]
        order = ThetaLayout.from_sizes(
            sizes,
            [v is not None for v in b],
            names=options.get("names"),
            transposed=layout == "keras",
        )
        arrays = {order.weights(k).name: w for k, w in enumerate(W, start=1)}
        for layer, vector in enumerate(b, start=1):
            block = order.biases(layer)
            if block is not None and vector is not None:
                arrays[block.name] = vector
        theta = order.pack(arrays)
        if W[0].base is theta:  # the user's own vector, who may write into it later
            theta = theta.copy()
        network = cls._of_options(order, theta, options)
        return replace(network, precision=lower_precision(*precisions, *more), layout=layout)

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, ArrayLike], **options: Unpack[NetworkOptions]
    ) -> Network:
        """Make a network from a dictionary `{"W1": …, "b1": …, …}`, as courses keep it.

        Raises
        ------
        InputError
            For a gap in the numbering, a bias without weights or a key of another name, and for
            all that `from_arrays` refuses.
        """
        numbers = {
            int(match.group(1)) for key in parameters if (match := re.fullmatch(r"W(\d+)", key))
        }
        layers = range(1, len(numbers) + 1)
        known = {f"{kind}{layer}" for kind in "Wb" for layer in layers}
        if not numbers or numbers != set(layers):
            raise InputError(
                f"parameters {', '.join(sorted(parameters)) or 'none'}",
                "W1, b1, …, WL, bL, without a gap",
            )
        stray = sorted(set(parameters) - known)
        if stray:
            raise InputError(f"parameter {stray[0]!r}", "W1, b1, …", near_names(stray[0], known))
        return cls.from_arrays(
            [parameters[f"W{layer}"] for layer in layers],
            [parameters.get(f"b{layer}") for layer in layers],
            **options,
        )

    @classmethod
    def _of_options(cls, order: ThetaLayout, theta: Floats, options: NetworkOptions) -> Network:
        """Bind activations, loss, penalty and masks."""
        unknown = sorted(set(options) - set(NetworkOptions.__annotations__))
        if unknown:
            raise InputError(
                f"unknown option {unknown[0]!r}", "an option of Network",
                near_names(unknown[0], NetworkOptions.__annotations__),
            )  # fmt: skip
        sizes = _sizes(order)
        activations, loss = bind(
            options.get("activations", "relu"),
            options.get("loss", "softmax_cross_entropy"),
            len(sizes) - 1,
        )
        return cls(
            order,
            theta,
            activations,
            loss,
            l2=positive_number(options.get("l2", 0.0), "l2", zero=True),
            penalty=one_of(options.get("penalty", "l2/2m"), tuple(PENALTIES), "penalty"),
            reduction=one_of(options.get("reduction", "mean"), REDUCTIONS, "reduction"),
            loss_scale=positive_number(options.get("loss_scale", 1.0), "loss_scale"),
            masks=_masks(options, sizes),
        )

    @cached_property
    def sizes(self) -> list[int]:
        """`n_0, …, n_L`."""
        return _sizes(self.order)

    @property
    def size(self) -> int:
        """N, the number of parameters."""
        return self.order.size

    @property
    def depth(self) -> int:
        """L, the number of layers."""
        return len(self.activations)

    def W(self, layer: int) -> Floats:
        """Return W_l as a view into θ, shape `(n_l, n_{l-1})`."""
        block = self.order.weights(layer)
        return self.theta[block.slice].reshape(block.shape)

    def b(self, layer: int) -> Floats | None:
        """Return b_l as a view into θ, shape `(n_l,)`; None where the layer has none."""
        block = self.order.biases(layer)
        return None if block is None else self.theta[block.slice]

    @property
    def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters in the user's layout and precision, `{"W1": …, "b1": …}`."""
        return {b.name: self.user_array(b, v) for b, v in self.order.views(self.theta)}

    @property
    def weights(self) -> list[NDArray[Any]]:
        """W_1, …, W_L in the user's layout and precision."""
        return [self.user_array(b, v) for b, v in self.order.views(self.theta) if b.kind == "W"]

    @property
    def biases(self) -> list[NDArray[Any] | None]:
        """b_1, …, b_L in the user's layout and precision; None for a layer without."""
        found = {
            b.layer: self.user_array(b, v) for b, v in self.order.views(self.theta) if b.kind == "b"
        }
        return [found.get(layer) for layer in range(1, self.depth + 1)]

    def user_array(self, block: Block, values: Floats) -> NDArray[Any]:
        """Return a block as the user has it: transposed, as a column, in the user's precision."""
        array = values.T if block.transposed else values
        if self.layout == "course" and block.kind == "b":
            array = array.reshape(-1, 1)
        known = self.precision in ("float32", "float16")
        return array.astype(self.precision) if known else array

    owner_array = user_array  # its name before 0.2

    def with_theta(self, theta: Floats) -> Network:
        """Return the same network at another θ, of which it keeps a copy."""
        if theta.shape != self.theta.shape:
            raise InputError(f"θ of shape {theta.shape}", f"shape {self.theta.shape}")
        return replace(self, theta=np.array(theta, dtype=np.float64))

    def part(self, first: int, last: int) -> Network:
        """Return the network of samples `first` to `last` − 1: with their dropout masks."""
        if all(mask is None for mask in self.masks):
            return self
        cut = [None if mask is None else mask[first:last] for mask in self.masks]
        return replace(self, masks=tuple(cut))

    @property
    def direct(self) -> bool:
        """Whether an activation or the loss is the user's own: their differences cancel."""
        own = [activation.entry is None for activation in self.activations]
        return any(own) or self.loss.entry is None

    def describe(self) -> str:
        """`784-512-512-10 relu, softmax_cross_entropy, λ = 0.1`, in one line."""
        hidden = list(dict.fromkeys(str(a) for a in self.activations))
        scale = "" if self.loss_scale == 1.0 else f"{self.loss_scale:g}·"
        parts = ["-".join(map(str, self.sizes)) + " " + "/".join(hidden), f"{scale}{self.loss}"]
        if self.l2:
            parts.append(f"λ = {self.l2:g}")
        return ", ".join(parts)

    def penalty_scale(self, m: int) -> float:
        """What Σ‖W‖² is multiplied by in J, for a batch of m samples."""
        divisor = {"l2/2m": 2.0 * m, "l2/m": float(m), "l2/2": 2.0, "l2": 1.0}[self.penalty]
        return self.l2 / divisor

    def data_scale(self, m: int) -> float:
        """What the sum of the samples' losses is multiplied by in J."""
        outputs = self.sizes[-1]
        shares = {"mean": 1.0 / m, "sum": 1.0, "mean_elements": 1.0 / (m * outputs)}
        return self.loss_scale * shares[self.reduction]

    def arrays(self, m: int) -> NetworkArrays:
        """Return the network as kernels see it, for a batch of m samples."""
        offsets = [self.order.biases(layer) for layer in range(1, self.depth + 1)]
        masks, mask_offsets = self._flat_masks(m)
        return NetworkArrays(
            sizes=np.array(self.sizes, dtype=np.int64),
            weight_offsets=np.array(
                [self.order.weights(k).offset for k in range(1, self.depth + 1)], dtype=np.int64
            ),
            bias_offsets=np.array([-1 if b is None else b.offset for b in offsets], dtype=np.int64),
            activations=np.arange(self.depth, dtype=np.int64),
            parameters=np.array([a.parameter for a in self.activations], dtype=np.float64),
            masks=masks,
            mask_offsets=mask_offsets,
            cancels=self.loss.entry is None or self.activations[-1].entry is None,
            loss_parameter=float(self.loss.parameter),
            data_scale=self.data_scale(m),
            penalty_scale=self.penalty_scale(m),
            corners=np.array(self.loss.corners, dtype=np.float64),
        )

    def _flat_masks(self, m: int) -> tuple[Floats, NDArray[np.int64]]:
        offsets = np.full(self.depth, -1, dtype=np.int64)
        parts: list[Floats] = []
        start = 0
        for layer, mask in enumerate(self.masks):
            if mask is None:
                continue
            if mask.shape[0] != m:
                raise InputError(
                    f"dropout mask {layer + 1} for {mask.shape[0]} samples",
                    f"{m}, the batch's size",
                )
            offsets[layer] = start
            start += mask.size
            parts.append(mask.ravel())
        return (np.concatenate(parts) if parts else np.zeros(0)), offsets

    @cached_property
    def calls(self) -> Calls:
        """Where this process has the activations and the loss."""
        return Calls([a.numerics for a in self.activations], self.loss.numerics)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "calls"}

    def batch(self, inputs: ArrayLike, targets: ArrayLike) -> Batch:
        """Read a batch in the user's layout.

        Parameters
        ----------
        inputs : array_like, shape (m, n_0); course: (n_0, m)
        targets : array_like
            Integer labels (m,) for softmax cross-entropy, else (m, n_L); course: (n_L, m), (1, m).

        Raises
        ------
        InputError
            For other shapes, an empty batch, NaN or infinity, labels out of range, rows of
            probabilities that don't sum to 1.
        """
        X = read_inputs(inputs, self.sizes[0], self.layout)
        kind = self.loss.entry.targets if self.loss.entry is not None else "real"
        shape = (X.shape[0], self.sizes[-1])
        return Batch(X, read_targets(targets, shape, self.layout, kind))


def _sizes(order: ThetaLayout) -> list[int]:
    weights = [block for block in order.blocks if block.kind == "W"]
    return [weights[0].shape[1]] + [block.shape[0] for block in weights]
