"""The lines of a backward pass as they should be, in the course's notation and in row notation."""

from __future__ import annotations

from fastcheck.model.network import Network

__all__ = ["fixed_lines"]

SLOPES = {
    "identity": "dZ{l} = dA{l}",
    "relu": "dZ{l} = dA{l} * (Z{l} > 0)",
    "tanh": "dZ{l} = dA{l} * (1 - A{l}**2)",
    "sigmoid": "dZ{l} = dA{l} * A{l} * (1 - A{l})",
}
ERRORS = {
    "softmax_cross_entropy": "dZ{l} = softmax(Z{l}) - Y",
    "sigmoid_cross_entropy": "dZ{l} = sigmoid(Z{l}) - Y",
    "squared_error": "dA{l} = A{l} - Y",
    "mean_squared_error": "dA{l} = 2 * (A{l} - Y) / n{l}",
}
PENALTY = {
    "l2/2m": "lambd / m * W{l}",
    "l2/m": "2 * lambd / m * W{l}",
    "l2/2": "lambd * W{l}",
    "l2": "2 * lambd * W{l}",
}
MEAN = {"mean": " / m", "sum": "", "mean_elements": " / (m * n_L)"}
# What a layer's products are in Keras's layout, where W is (n_in, n_out).
KERAS = {"dZ{l}.T @ A{k}": "A{k}.T @ dZ{l}", "dZ{n} @ W{n}": "dZ{n} @ W{n}.T"}


def _slopes(network: Network, layer: int) -> tuple[str, str]:
    activation = network.activations[layer - 1]
    line = SLOPES.get(activation.name, f"dZ{{l}} = dA{{l}} * {activation.name}_derivative(Z{{l}})")
    return line, line


def _mask(network: Network, layer: int) -> tuple[str, str]:
    masks = network.masks or (None,) * network.depth
    line = "dA{l} = dA{l} * D{l} / keep_prob" if masks[layer - 1] is not None else ""
    return (line, line) if line else _slopes(network, layer)


def _output(network: Network, layer: int) -> tuple[str, str]:
    if layer < network.depth:  # found in the error of a hidden layer: no line of that layer
        return "", ""
    line = ERRORS.get(network.loss.name, f"dA{{l}} = {network.loss.name}_derivative(A{{l}}, Y)")
    name, error = line.split(" = ", 1)
    # The course divides dW and db by m; who keeps samples in rows divides the error once for all.
    return line, f"{name} = ({error}){MEAN[network.reduction]}" if MEAN[network.reduction] else line


def _weights(network: Network, layer: int) -> tuple[str, str]:
    penalty = f" + {PENALTY[network.penalty]}" if network.l2 else ""
    mean = MEAN[network.reduction]
    return (
        f"dW{{l}} = np.dot(dZ{{l}}, A{{k}}.T){mean}{penalty}",
        f"dW{{l}} = dZ{{l}}.T @ A{{k}}{penalty}",
    )


def _biases(network: Network, layer: int) -> tuple[str, str]:
    mean = MEAN[network.reduction]
    return f"db{{l}} = np.sum(dZ{{l}}, axis=1, keepdims=True){mean}", "db{l} = dZ{l}.sum(axis=0)"


def _back(network: Network, layer: int) -> tuple[str, str]:
    return "dA{l} = np.dot(W{n}.T, dZ{n})", "dA{l} = dZ{n} @ W{n}"


LINES = {
    "slopes": _slopes,
    "mask": _mask,
    "output": _output,
    "weights": _weights,
    "biases": _biases,
    "back": _back,
}


def fixed_lines(network: Network, layer: int, line: str) -> tuple[str, str]:
    """Return the right line of code for a layer.

    Parameters
    ----------
    network : Network
    layer : int
        1..L.
    line : str
        A key of `LINES`, or `whole` for what no single line holds.

    Returns
    -------
    tuple of str
        In the course's notation (samples are columns) and in row notation, with W as the user
        has it; empty for `whole`.
    """
    if line not in LINES:
        return "", ""
    course, rows = LINES[line](network, layer)
    if network.layout == "keras":
        for ours, theirs in KERAS.items():
            rows = rows.replace(ours, theirs)
    return _placed(course, layer), _placed(rows, layer)


def _placed(line: str, layer: int) -> str:
    inputs = line if layer > 1 else line.replace("A{k}", "X")
    return inputs.format(l=layer, k=layer - 1, n=layer + 1)
