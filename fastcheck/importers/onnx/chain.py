"""The nodes of an ONNX graph, read one after the other into a chain of dense layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain, Layer, unsupported

__all__ = ["read_chain"]


@dataclass
class Graph:
    """An ONNX graph, and how far it has been read.

    Attributes
    ----------
    constants : dict
        Initializers and constants by name.
    roots : dict
        Transposed and renamed initializers by the initializer's name.
    transposed : set
        Names of transposed initializers.
    """

    onnx: Any
    chain: Chain
    constants: dict[str, NDArray[Any]]
    roots: dict[str, str]
    transposed: set[str]

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return a node's attributes by name."""
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def number(self, name: str) -> float | None:
        """Return a constant of one element, None for no such input."""
        if not name:
            return None
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else np.nan


def place_of(node: Any) -> str:
    """Return how messages call a node."""
    return f"{node.name or node.output[0]} ({node.op_type})"


def read_chain(onnx: Any, graph: Any, chain: Chain, X: NDArray[Any]) -> NDArray[Any]:
    """Read a graph into a chain, and return what enters its first layer.

    Raises
    ------
    InputError
        For a node that is no dense layer and no activation, with its name.
    """
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    inputs = [i.name for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise unsupported(
            f"a graph with {len(inputs)} inputs and {len(graph.output)} outputs",
            graph.name or "graph",
        )
    state = Graph(onnx, chain, constants, {}, set())
    nodes = [node for node in graph.node if not _constant(state, node)]
    here = inputs[0]
    while nodes:
        node = _next(nodes, here, state)
        nodes.remove(node)
        gate = _gated(node, nodes, here)
        if gate is not None:
            nodes.remove(gate)
            chain.activation("silu", place_of(node))
            here = gate.output[0]
            continue
        _add(state, node, here)
        here = node.output[0]
    if here != graph.output[0].name:
        raise unsupported(f"a graph whose output {graph.output[0].name!r} comes earlier", "graph")
    return X.reshape(X.shape[0], -1)


def _constant(state: Graph, node: Any) -> bool:
    """Take in nodes that only hand constants on; return whether it was one."""
    kind = node.op_type
    if kind == "Constant":
        ((name, value),) = state.attributes(node).items()
        plain = name == "value"
        array = state.onnx.numpy_helper.to_array(value) if plain else np.asarray(value)
        state.constants[node.output[0]] = array
        return True
    if not node.input or not all(name in state.constants for name in node.input):
        return False
    array, root = state.constants[node.input[0]], state.roots.get(node.input[0], node.input[0])
    if kind == "Transpose" and array.ndim == 2:
        state.constants[node.output[0]] = array.T
        state.transposed ^= {node.output[0]} if node.input[0] not in state.transposed else set()
    elif kind == "Identity":
        state.constants[node.output[0]] = array
        state.transposed |= {node.output[0]} if node.input[0] in state.transposed else set()
    else:
        raise unsupported(f"{kind} of initializers", place_of(node))
    state.roots[node.output[0]] = root
    return True


def _next(nodes: list[Any], here: str, state: Graph) -> Any:
    """Return the node that takes a value; a sigmoid gate (SiLU) may take it twice."""
    takers = [node for node in nodes if here in node.input]
    if not takers:
        raise unsupported("a graph in parts", place_of(nodes[0]))
    if len(takers) == 1:
        return takers[0]
    for node in takers:
        if _gated(node, nodes, here) is not None and len(takers) == 2:
            return node
    raise unsupported(
        f"{here} taken by {len(takers)} nodes (a skip or a branch: "
        + ", ".join(place_of(n) for n in takers) + ")", place_of(takers[-1]),
    )  # fmt: skip


def _gated(node: Any, nodes: list[Any], here: str) -> Any:
    """Return the Mul of x · sigmoid(x), which is how SiLU is written; None for anything else."""
    if node.op_type != "Sigmoid":
        return None
    for other in nodes:
        if other.op_type == "Mul" and set(other.input) == {here, node.output[0]}:
            return other
    return None


def _add(state: Graph, node: Any, here: str) -> None:
    kind = node.op_type
    if kind in LAYERS:
        LAYERS[kind](state, node, here)
    elif kind in ACTIVATIONS:
        state.chain.activation(ACTIVATIONS[kind](state, node), place_of(node))
    elif kind not in SILENT or not SILENT[kind](state, node):
        raise unsupported(kind, place_of(node))


def _weights(state: Graph, node: Any, name: str, *, turned: bool) -> None:
    """Add a layer without biases; `turned` where the node takes (n_out, n_in)."""
    if name not in state.constants or state.constants[name].ndim != 2:
        raise unsupported(f"{node.op_type} whose weights are no initializer", place_of(node))
    root = state.roots.get(name, name)
    used = state.constants[name]
    own = used.T if name in state.transposed else used
    transposed = turned == (name in state.transposed)
    state.chain.dense(Layer(own, None, (root, ""), transposed=transposed), place_of(node))


def _biases(state: Graph, node: Any, name: str) -> None:
    layer = state.chain.layers[-1] if state.chain.layers else None
    array = state.constants.get(name)
    free = layer is not None and layer.biases is None and layer.activation is None
    if layer is None or array is None or not free or array.size != layer.outputs:
        raise unsupported(f"{node.op_type} of {name!r}, which is no layer's bias,", place_of(node))
    layer.biases = array.reshape(-1)
    layer.names = (layer.names[0], state.roots.get(name, name))


def _gemm(state: Graph, node: Any, here: str) -> None:
    given = state.attributes(node)
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
        raise unsupported("Gemm with alpha, beta or transA", place_of(node))
    if node.input[0] != here:
        raise unsupported("Gemm with samples in columns", place_of(node))
    _weights(state, node, node.input[1], turned=bool(given.get("transB", 0)))
    if len(node.input) > 2 and node.input[2]:
        _biases(state, node, node.input[2])


def _matmul(state: Graph, node: Any, here: str) -> None:
    if node.input[0] != here:
        raise unsupported("MatMul with samples in columns", place_of(node))
    _weights(state, node, node.input[1], turned=False)


def _add_biases(state: Graph, node: Any, here: str) -> None:
    _biases(state, node, next(name for name in node.input if name != here))


LAYERS: dict[str, Callable[[Graph, Any, str], None]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add_biases,
}

Reader = Callable[[Graph, Any], Any]


def _plain(name: str) -> Reader:
    return lambda state, node: name


def _with_alpha(name: str, default: float) -> Reader:
    def read(state: Graph, node: Any) -> Any:
        # An attribute is a float32: 0.01 is meant, not 0.00999999977648.
        return name, float(str(np.float32(state.attributes(node).get("alpha", default))))

    return read


def _clip(state: Graph, node: Any) -> Any:
    given = state.attributes(node)
    bounds = [state.number(n) for n in [*node.input[1:], "", ""][:2]]
    bounds = [given.get(k, b) for k, b in zip(("min", "max"), bounds, strict=True)]
    known: dict[tuple[Any, Any], str] = {
        (0.0, None): "relu",
        (-1.0, 1.0): "hardtanh",
        (0.0, 6.0): "relu6",
    }
    if tuple(bounds) not in known:
        raise unsupported(f"Clip to {bounds[0]}..{bounds[1]}", place_of(node))
    return known[bounds[0], bounds[1]]


def _gelu(state: Graph, node: Any) -> Any:
    tanh = state.attributes(node).get("approximate", b"none") == b"tanh"
    return "gelu_tanh" if tanh else "gelu"


def _selu(state: Graph, node: Any) -> Any:
    given = state.attributes(node)
    usual = {"alpha": 1.6732632, "gamma": 1.0507009}
    if any(abs(given.get(k, v) - v) > 1e-6 for k, v in usual.items()):
        raise unsupported(f"Selu with {given}", place_of(node))
    return "selu"


def _unit_alpha(name: str) -> Reader:
    def read(state: Graph, node: Any) -> Any:
        if state.attributes(node).get("alpha", 1.0) != 1.0:
            raise unsupported(f"{node.op_type} with alpha other than 1", place_of(node))
        return name

    return read


def _softmax(name: str) -> Reader:
    def read(state: Graph, node: Any) -> Any:
        if state.attributes(node).get("axis", -1) not in (-1, 1):
            raise unsupported(f"{node.op_type} over another axis than the classes'", place_of(node))
        return name

    return read


ACTIVATIONS: dict[str, Reader] = {
    "Relu": _plain("relu"),
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Softplus": _plain("softplus"),
    "Softsign": _plain("softsign"),
    "Mish": _plain("mish"),
    "LeakyRelu": _with_alpha("leaky_relu", 0.01),
    "Elu": _with_alpha("elu", 1.0),
    "Celu": _unit_alpha("elu"),
    "Swish": _unit_alpha("silu"),
    "Selu": _selu,
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
}


def _flat(state: Graph, node: Any) -> bool:
    return bool(state.attributes(node).get("axis", 1) == 1)


def _flat_shape(state: Graph, node: Any) -> bool:
    """(m, -1) or (m, features): the order of the numbers stays."""
    shape = state.constants.get(node.input[1])
    return shape is not None and shape.size == 2


def _not_training(state: Graph, node: Any) -> bool:
    mode = state.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if mode is not None and bool(mode.reshape(-1)[0]):
        raise InputError(
            f"{place_of(node)} is in training mode, so J is another function at each call",
            "a graph for inference",
            "Export the model in eval mode.",
        )
    return True


def _always(state: Graph, node: Any) -> bool:
    return True


# Nodes that hand their input on, under a condition.
SILENT: dict[str, Callable[[Graph, Any], bool]] = {
    "Identity": _always,
    "Dropout": _not_training,
    "Flatten": _flat,
    "Reshape": _flat_shape,
}
