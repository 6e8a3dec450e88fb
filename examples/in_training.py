"""Check at the initialisation and again after some training: some bugs can't be seen before.

python in_training.py

The penalty is put on the biases, too. They start at 0, where a penalty has no gradient.
"""

import numpy as np

from fastcheck import Network, backward_pass, gradcheck

rng = np.random.default_rng(3)
X, Y = rng.normal(size=(50, 10)), rng.integers(3, size=50)
network = Network.from_arrays(
    [rng.normal(size=(8, 10)) / np.sqrt(5), rng.normal(size=(3, 8)) / np.sqrt(4)],
    [np.zeros(8), np.zeros(3)],
    activations="relu",
    loss="softmax_cross_entropy",
    l2=2.0,
)


def gradients(network, X, Y):
    """Yours; here the right one, with a penalty on biases added."""
    right = backward_pass(network, X, Y)
    biases = network.parameters
    return {
        name: dA + 2.0 / len(X) * biases[name[1:]] if name.startswith("db") else dA
        for name, dA in right.items()
    }


at_first = gradcheck(network, X, Y, gradients)
print(f"At the initialisation: {at_first.status}, difference {at_first.difference:.1e}\n")
assert at_first.passed

report = gradcheck(network, X, Y, gradients, train_steps=50, learning_rate=0.5)
print(report)
assert report.status == "wrong"
