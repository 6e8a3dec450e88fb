"""No stale kernel is ever run, and kernels keep to the rules that make threads safe."""

from __future__ import annotations

import importlib
import math
import os
import pickle  # noqa: TID251
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import fastcheck.kernels
from fastcheck import Network, numerical_gradient
from fastcheck.kernels import compiling


def kernels() -> list[Dispatcher]:
    found = []
    for module in pkgutil.iter_modules(fastcheck.kernels.__path__):
        members = vars(importlib.import_module(f"fastcheck.kernels.{module.name}")).values()
        found += [member for member in members if isinstance(member, Dispatcher)]
    return found


def test_every_kernel_is_serial_and_lets_other_threads_run() -> None:
    assert len(kernels()) > 50
    for kernel in kernels():
        options = kernel.targetoptions
        assert options["nogil"]
        assert not options.get("parallel")
        assert set(options["fastmath"]) == {"contract"}
        assert options["error_model"] == "numpy"


def test_a_change_in_any_kernel_source_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "kernels"
    shutil.copytree(Path(compiling.__file__).parent, package)
    monkeypatch.setattr(compiling, "__file__", str(package / "compiling.py"))
    digest = compiling._source_digest.__wrapped__
    before = digest()
    assert before == digest()
    for source in ("activations.py", "losses.py"):
        with (package / source).open("a") as file:
            file.write("# changed\n")
        assert digest() != before
        before = digest()


def test_another_compiler_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = compiling._source_digest.__wrapped__
    before = digest()
    monkeypatch.setattr(compiling, "version", lambda package: "0.0")
    assert digest() != before


def test_kernels_are_kept_in_the_folder_of_their_digest() -> None:
    textbook = importlib.import_module("fastcheck.kernels.textbook")
    assert Path(textbook.textbook_cost._cache.cache_path).is_relative_to(compiling.CACHE_FOLDER)


# Two functions of one name, too long to be inlined, and a kernel for each.
TWO_OF_ONE_NAME = """
import math, sys
from fastcheck.kernels.compiling import array_kernel, part_kernel

def leaf(result):
    @part_kernel
    def of_one_name(x):
        total = 0.0
        for i in range(int(x) + 3):
            total += math.sin(x + i) * math.cos(x - i) * math.tan(x * i) + math.lgamma(2.0 + i)
            total += math.sinh(0.1 * i) + math.atan2(x, 1.0 + i) * math.erf(x) + math.exp(-x)
            total += math.cosh(0.1 * i) + math.asinh(x) * math.log1p(i) + math.expm1(x) ** i
        return total * 0.0 + result
    return of_one_name

one, two = leaf(1.0), leaf(2.0)

@array_kernel
def first(x):
    return one(x)

@array_kernel
def second(x):
    return two(x)

print(*[globals()[name](0.5) for name in sys.argv[1:]])
"""


def test_kernels_that_two_processes_kept_are_not_taken_for_each_other(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_OF_ONE_NAME)
    paths = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}

    def results(*names: str) -> str:
        command = [sys.executable, str(script), *names]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | paths
        )
        return ran.stdout.strip()

    assert results("first") == "1.0"
    assert results("second") == "2.0"
    assert len(list(tmp_path.rglob("two*.nbc"))) == 2
    assert results("first", "second") == "1.0 2.0"


# Activations of the tables in an order of its own, and one of the user's, of one name in all.
BY_ADDRESS = """
import sys
import numpy as np
from fastcheck.kernels.activations import ACTIVATIONS
from fastcheck.kernels.calls import Calls
from fastcheck.kernels.custom import own_activation, own_loss
from fastcheck.kernels.losses import LOSSES

factor, *names = sys.argv[1:]
factor = float(factor)

def of_one_name(z):
    return factor * z

entries = [*[ACTIVATIONS[name] for name in names], own_activation(of_one_name)]
calls = Calls(entries, LOSSES["squared_error"])
for layer, name in enumerate([*names, "own"], start=1):
    z = np.array([0.5, -0.5])
    calls.activate(layer, 0.01, z)
    print(name, *z)
print("loss", calls.sum_of_losses(0.0, np.array([[3.0]]), np.array([[1.0]])))
own = Calls(entries, own_loss(lambda output, target: factor * (output - target)))
print("own loss", own.sum_of_losses(0.0, np.array([[3.0]]), np.array([[1.0]])))
"""
VALUES = {
    "relu": (0.5, 0.0),
    "tanh": (math.tanh(0.5), math.tanh(-0.5)),
    "leaky_relu": (0.5, -0.005),
    "identity": (0.5, -0.5),
}


def test_four_processes_at_once_call_their_own_functions_on_a_cold_cache_and_a_full_one(
    tmp_path: Path,
) -> None:
    script = tmp_path / "by_address.py"
    script.write_text(BY_ADDRESS)
    paths = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}

    def started(process: int) -> tuple[str, subprocess.Popen[str]]:
        names = [*VALUES][process:] + [*VALUES][:process]
        factor = process + 2.0
        expected = {**{name: VALUES[name] for name in names}, "own": (0.5 * factor, -0.5 * factor)}
        text = [f"{name} {one!r} {two + 0.0!r}" for name, (one, two) in expected.items()]
        text += ["loss 2.0", f"own loss {2.0 * factor!r}"]
        command = [sys.executable, str(script), str(factor), *names]
        environment = os.environ | paths
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        return "\n".join(text), running

    for _ in range(2):
        running = [started(number) for number in range(4)]
        printed = [process.communicate()[0] for _, process in running]
        assert [p.strip().replace("-0.0\n", "0.0\n") for p in printed] == [e for e, _ in running]
    # One of each entry in use, and none of the user's own.
    assert len(list(tmp_path.rglob("calls._*.nbc"))) == len(VALUES) + 1


def test_no_address_leaves_its_process() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(2, 4))]
    network = Network.from_arrays(weights, activations="relu", loss="squared_error")
    inputs, targets = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    known = numerical_gradient(network, inputs, targets)
    with pytest.raises(TypeError, match="one process"):
        pickle.dumps(network.calls)
    again = pickle.loads(pickle.dumps(network))  # noqa: S301
    assert "calls" not in vars(again)
    assert (numerical_gradient(again, inputs, targets) == known).all()


def test_an_own_function_that_changed_is_another_one() -> None:
    def bound(factor: float) -> Network:
        def of_one_name(z: float) -> float:
            return factor * z

        layer = [np.ones((1, 1))]
        return Network.from_arrays(layer, activations=[of_one_name], loss="squared_error")

    for factor in (2.0, 3.0):  # J = (factor · w)² / 2 at w = 1
        found = numerical_gradient(bound(factor), [[1.0]], [[0.0]])
        assert found[0] == pytest.approx(factor**2, rel=1e-8)


WARM = """
from fastcheck.cli.warm_up import warm_up
from fastcheck.kernels import disk_cache
from tests.test_kernel_cache import kernels

compiled = []
disk_cache.listeners.append(compiled.append)
warm_up()
kept = [kernel for kernel in kernels() if isinstance(kernel._cache, disk_cache.KernelCache)]
print(compiled, [kernel.__name__ for kernel in kept if not kernel.signatures])
"""


@pytest.mark.slow
def test_after_warm_up_nothing_is_left_to_compile() -> None:
    command = [sys.executable, "-m", "fastcheck", "--warm-up"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(compiling.CACHE_FOLDER) in said.stdout
    command = [sys.executable, "-c", WARM]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == "[] []\n"
