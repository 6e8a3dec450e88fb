"""Write a problem.npz for fastcheck with nothing but NumPy: your forward and backward pass go here.

python write_problem.py problem.npz && fastcheck problem.npz
"""

import json
import sys

import numpy as np

rng = np.random.default_rng(1)
m, inputs, hidden, classes, l2 = 20, 12, 8, 3, 0.5

X = rng.normal(size=(m, inputs))  # samples are rows
Y = rng.integers(classes, size=m)  # labels, counted from 0
W1, b1 = rng.normal(size=(hidden, inputs)) / np.sqrt(inputs), rng.normal(size=hidden)
W2, b2 = rng.normal(size=(classes, hidden)) / np.sqrt(hidden), rng.normal(size=classes)

# Forward: Z = A W^T + b.
A1 = np.tanh(X @ W1.T + b1)
logits = A1 @ W2.T + b2
P = np.exp(logits - logits.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)
data = -np.log(P[np.arange(m), Y]).mean()
J = data + l2 / (2 * m) * ((W1**2).sum() + (W2**2).sum())

# Backward: this is what is checked.
dZ2 = P.copy()
dZ2[np.arange(m), Y] -= 1
dZ2 /= m
dW2, db2 = dZ2.T @ A1 + l2 / m * W2, dZ2.sum(axis=0)
dZ1 = (dZ2 @ W2) * (1 - A1**2)
dW1, db1 = dZ1.T @ X + l2 / m * W1, dZ1.sum(axis=0)

spec = {
    "activations": ["tanh", "identity"],
    "loss": "softmax_cross_entropy",
    "l2": l2,
    "name": "written in Python",
}
np.savez(
    sys.argv[1] if len(sys.argv) > 1 else "problem.npz",
    W1=W1, b1=b1, W2=W2, b2=b2, X=X, Y=Y, J=J,
    dW1=dW1, db1=db1, dW2=dW2, db2=db2,
    spec=json.dumps(spec),
)  # fmt: skip
