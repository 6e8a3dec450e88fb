"""A network written as an ONNX graph of Gemm and activation nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcheck.model.network import ActivationSpec, Network

__all__ = ["graph_of"]

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # read by every runtime that knows this opset
# fastcheck's name -> the node's type, and whether it has alpha.
NODES = {
    "relu": ("Relu", False), "leaky_relu": ("LeakyRelu", True), "elu": ("Elu", True),
    "selu": ("Selu", False), "softplus": ("Softplus", False), "sigmoid": ("Sigmoid", False),
    "tanh": ("Tanh", False), "gelu": ("Gelu", False), "gelu_tanh": ("Gelu", False),
    "softsign": ("Softsign", False), "mish": ("Mish", False),
}  # fmt: skip
BOUNDS = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}


def graph_of(onnx: Any, network: Network) -> Any:
    """Return an ONNX model of a network, in its precision."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes: list[Any] = []
    constants: list[Any] = []
    parameters = network.parameters
    dtype = next(iter(parameters.values())).dtype
    here = "X"
    for layer in range(1, network.depth + 1):
        weights, biases = network.order.weights(layer), network.order.biases(layer)
        named = [weights] + ([biases] if biases is not None else [])
        for block in named:
            array = parameters[block.name]
            array = array.reshape(-1) if block.kind == "b" else array
            constants.append(numpy_helper.from_array(np.ascontiguousarray(array), block.name))
        inputs = [here, *(block.name for block in named)]
        turned = 0 if weights.transposed else 1
        nodes.append(
            helper.make_node("Gemm", inputs, [f"Z{layer}"], f"layer{layer}", transB=turned)
        )
        more, extra = _activation(onnx, network.activations[layer - 1], layer, dtype)
        nodes += more
        constants += extra
        here = nodes[-1].output[0]
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    graph = helper.make_graph(
        nodes,
        "fastcheck",
        [helper.make_tensor_value_info("X", kind, ["m", network.sizes[0]])],
        [helper.make_tensor_value_info(here, kind, ["m", network.sizes[-1]])],
        constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _activation(
    onnx: Any, activation: ActivationSpec, layer: int, dtype: Any
) -> tuple[list[Any], list[Any]]:
    """Return the nodes of an activation, and the constants they take."""
    make, name = onnx.helper.make_node, activation.name
    z, a = f"Z{layer}", f"A{layer}"
    if name == "identity":
        return [], []
    if name == "silu":
        gate = f"S{layer}"
        return [make("Sigmoid", [z], [gate]), make("Mul", [z, gate], [a])], []
    if name in BOUNDS:
        ends = [
            onnx.numpy_helper.from_array(np.array(value, dtype), f"{a}_{end}")
            for value, end in zip(BOUNDS[name], ("min", "max"), strict=True)
        ]
        return [make("Clip", [z, *(end.name for end in ends)], [a])], ends
    kind, has_alpha = NODES[name]
    given: dict[str, Any] = {"alpha": activation.parameter} if has_alpha else {}
    if name == "gelu_tanh":
        given["approximate"] = "tanh"
    return [make(kind, [z], [a], **given)], []
