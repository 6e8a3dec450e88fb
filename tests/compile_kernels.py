"""Compile every kernel once, in two processes, before the tests run side by side.

Without it each worker compiles what another one is compiling, too. The two processes need different
kernels: one that both compile at a time is compiled twice.
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("probes", "others")


def compile_part(part: str) -> None:
    """Run what needs the kernels of a part."""
    import numpy as np

    from fastcheck import Network, gradcheck, numerical_gradient

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3))]
    inputs, targets = rng.normal(size=(5, 3)), rng.integers(2, size=5)
    for activation in ("tanh", "relu"):
        network = Network.from_arrays(weights, activations=activation)
        if part == "probes":
            numerical_gradient(network, inputs, targets)
            numerical_gradient(network, inputs, targets, epsilon=1e-2)
        else:
            wrong = rng.normal(size=network.size).astype(np.float32)
            gradcheck(network, inputs, targets, wrong, method="textbook")


def compile_all() -> None:
    """Run both parts side by side; nothing is compiled in this process."""
    running = [subprocess.Popen([sys.executable, __file__, part]) for part in PARTS]
    failed = [part for part, process in zip(PARTS, running, strict=True) if process.wait()]
    if failed:
        raise RuntimeError(f"kernels: {', '.join(failed)} not compiled")


if __name__ == "__main__":
    compile_part(sys.argv[1])
