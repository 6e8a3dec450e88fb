"""A test suite that holds a backward pass to J: fastcheck's pytest fixture.

pytest test_backward.py
"""

import numpy as np
import pytest

from fastcheck import Network


def backward(network, X, Y):
    """A backward pass of your own: two layers, tanh, half the squared error."""
    W1, b1, W2, b2 = (network.parameters[name] for name in ("W1", "b1", "W2", "b2"))
    A1 = np.tanh(X @ W1.T + b1)
    dZ2 = (A1 @ W2.T + b2 - Y) / len(X)
    dZ1 = dZ2 @ W2 * (1 - A1**2)
    return {"dW1": dZ1.T @ X, "db1": dZ1.sum(0), "dW2": dZ2.T @ A1, "db2": dZ2.sum(0)}


@pytest.mark.parametrize("hidden", [1, 7, 40])
def test_backward(gradcheck, hidden):
    rng = np.random.default_rng(gradcheck.seed)  # the same in every run, another in every test
    network = Network.from_arrays(
        [rng.normal(size=(hidden, 6)), rng.normal(size=(3, hidden))],
        [rng.normal(size=hidden), rng.normal(size=3)],
        activations="tanh",
        loss="squared_error",
    )
    gradcheck(network, rng.normal(size=(5, 6)), rng.normal(size=(5, 3)), backward)
