"""Compile every kernel once, in two processes, before the tests run side by side.

Without it each worker compiles what another one is compiling, too. What one of the processes has
compiled the other takes from the cache: they start with different kernels.
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("probes", "textbook")


def compile_part(part: str) -> None:
    """Run what needs all kernels, those of a part first."""
    import numpy as np

    from fastcheck import Network, gradcheck, numerical_gradient

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3))]
    inputs, targets = rng.normal(size=(5, 3)), rng.integers(2, size=5)
    for activation in ("tanh", "relu"):
        network = Network.from_arrays(weights, activations=activation)
        wrong = rng.normal(size=network.size).astype(np.float32)
        if part == "textbook":
            numerical_gradient(network, inputs, targets, method="textbook")
        gradcheck(network, inputs, targets, wrong)


def compile_all() -> None:
    """Run both parts side by side; nothing is compiled in this process."""
    running = [subprocess.Popen([sys.executable, __file__, part]) for part in PARTS]
    failed = [part for part, process in zip(PARTS, running, strict=True) if process.wait()]
    if failed:
        raise RuntimeError(f"kernels: {', '.join(failed)} not compiled")


if __name__ == "__main__":
    compile_part(sys.argv[1])
