"""Check a backward pass as courses write it, find the bug in it, mend it, and check again.

python numpy_network.py

Samples are columns, b is (n, 1), and the gradient is a dictionary {"dW1": …, "db1": …, …}.
"""

import numpy as np

from fastcheck import Network, gradcheck

rng = np.random.default_rng(1)
m, l2 = 40, 0.7
X = rng.normal(size=(20, m))
Y = rng.integers(5, size=m)
parameters = {
    "W1": rng.normal(size=(16, 20)) / np.sqrt(20),
    "b1": rng.normal(size=(16, 1)) / 10,
    "W2": rng.normal(size=(5, 16)) / np.sqrt(16),
    "b2": rng.normal(size=(5, 1)) / 10,
}


def forward(X, p):
    Z1 = p["W1"] @ X + p["b1"]
    A1 = np.tanh(Z1)
    Z2 = p["W2"] @ A1 + p["b2"]
    exponentials = np.exp(Z2 - Z2.max(axis=0))
    return Z1, A1, exponentials / exponentials.sum(axis=0)


def backward(X, Y, p, tanh_derivative):
    Z1, A1, A2 = forward(X, p)
    dZ2 = (A2 - np.eye(5)[:, Y]) / m
    dZ1 = p["W2"].T @ dZ2 * tanh_derivative(Z1, A1)
    return {
        "dW1": dZ1 @ X.T + l2 / m * p["W1"],
        "db1": dZ1.sum(axis=1, keepdims=True),
        "dW2": dZ2 @ A1.T + l2 / m * p["W2"],
        "db2": dZ2.sum(axis=1, keepdims=True),
    }


def check(gradients):
    network = Network.from_parameters(
        parameters, activations="tanh", loss="softmax_cross_entropy", l2=l2, layout="course"
    )
    return gradcheck(network, X, Y, gradients)


# tanh' is 1 - tanh², and tanh(Z1) is A1: squaring Z1 itself is the bug.
wrong = check(backward(X, Y, parameters, lambda Z1, A1: 1 - Z1**2))
print(wrong)
assert wrong.status == "wrong"

right = check(backward(X, Y, parameters, lambda Z1, A1: 1 - A1**2))
print(f"\nMended: difference {right.difference:.1e}")
assert right.passed
