"""The textbook method is its definition: two whole passes each, held against the plain oracle."""

import dataclasses
import pickle  # noqa: TID251 - how work reaches another process
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from cloudpickle import register_pickle_by_value  # noqa: TID251 - it only sends, to our own workers
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck.errors import InputError
from fastcheck.execution.parallel import run
from fastcheck.kernels import products
from fastcheck.kernels.compiling import array_kernel
from fastcheck.methods.textbook import PreparedTextbook, chunk_size_for, prepare, worker_bytes
from fastcheck.model.approximation import Approximation
from fastcheck.model.network import Network
from fastcheck.settings import Settings
from tests import oracle
from tests.builders import as_network
from tests.networks import Drawn, problems, random_problem

PREPARED = dict[str, Any]

# Worker processes can't import the tests, which are no installed package: send what they define.
register_pickle_by_value(sys.modules[__name__])


def repeated(drawn: Drawn, m: int) -> Drawn:
    """The same network on m samples, more than one block of them if m > 32."""
    rows = np.arange(m) % drawn.inputs.shape[0]
    masks = drawn.masks and [None if k is None else k[rows] for k in drawn.masks]
    scale = np.linspace(0.5, 1.5, m)[:, None]
    return dataclasses.replace(
        drawn, inputs=drawn.inputs[rows] * scale, targets=drawn.targets[rows], masks=masks
    )


def prepared(drawn: Drawn, indices: Any = None, **options: Any) -> PreparedTextbook:
    network, batch = as_network(drawn)
    chosen = None if indices is None else np.asarray(indices, dtype=np.int64)
    return prepare(network, batch, chosen, Settings.of(**options))


def approximation(work: PreparedTextbook, **options: Any) -> Approximation:
    return work.assemble(run(work, Settings.of(**options), ""))


def smooth(seed: int = 0, m: int = 40, **options: Any) -> Drawn:
    given: PREPARED = {"activations": "tanh", "loss": "softmax_cross_entropy", "depth": 3}
    drawn = random_problem(np.random.default_rng(seed), **given | options)
    return repeated(drawn, m)


@given(problems(), st.sampled_from([1, 3, 8, 31, 32, 33, 70]))
@settings(max_examples=150, deadline=None)
def test_the_cost_is_the_oracles(drawn: Drawn, m: int) -> None:
    drawn = repeated(drawn, m)
    ours = prepared(drawn).cost()
    reference = oracle.cost(*drawn.arrays, **drawn.conventions)
    assert ours == pytest.approx(reference, rel=2e-13, abs=1e-300)


@given(problems(), st.sampled_from([1, 5, 40]), st.sampled_from([1e-7, 1e-5, 1e-3]))
@settings(max_examples=100, deadline=None)
def test_the_differences_are_the_definitions(drawn: Drawn, m: int, epsilon: float) -> None:
    drawn = repeated(drawn, m)
    work = prepared(drawn, epsilon=epsilon)
    network = work.network
    J = oracle.cost_of_theta(
        drawn.weights, drawn.biases, drawn.inputs, drawn.targets, **drawn.conventions
    )
    reference = oracle.central_differences(J, network.theta.copy(), epsilon)
    rounding = 2e-15 * (abs(work.cost()) + 1e-3) / epsilon  # of either side
    stored = 2.0**-52 * np.abs(network.theta) / epsilon * np.abs(reference)
    assert np.abs(approximation(work).values - reference).max() <= rounding + stored.max() * 2


@pytest.mark.parametrize("seed", range(12))
def test_the_noise_is_as_measured(seed: int) -> None:
    drawn = smooth(seed, max_width=40)
    work = prepared(drawn, epsilon=1e-6)
    gradient = oracle.pack(*oracle.backprop(*drawn.arrays, **drawn.conventions))
    error = approximation(work).values - gradient
    assert 0.1 < np.sqrt(np.mean(error**2)) / work.noise < 3
    assert np.abs(error).max() < 8 * work.noise


def test_noise_is_never_less_than_the_rounding_of_the_cost() -> None:
    ones = np.zeros((2, 3))  # J is log 2 whatever is done to it by a factor
    network = Network.from_arrays([ones], loss="softmax_cross_entropy")
    work = prepare(network, network.batch(np.ones((4, 3)), [0, 1, 0, 1]), None, Settings.of())
    assert 1.0 <= work.noise / (2.0**-53 * np.log(2) / 1e-7) < 5.0


def test_theta_comes_back_bit_for_bit_and_the_owners_is_never_touched() -> None:
    work = prepared(smooth(), epsilon=1e-3)
    before = work.network.theta.tobytes()
    work.network.theta.flags.writeable = False
    for chunk in work.chunks:
        work.differences(chunk)
    assert work.network.theta.tobytes() == before
    own = work._workspace().theta
    assert own is not work.network.theta
    assert own.tobytes() == before


def test_the_same_bits_for_any_workers_backend_and_chunks() -> None:
    drawn = smooth(max_width=12)
    reference = approximation(prepared(drawn), jobs=1).values.tobytes()
    for chunk_size, jobs, backend in [(1, 1, "threads"), (7, 3, "threads"), (50, 2, "loky")]:
        work = prepared(drawn, chunk_size=chunk_size)
        results = run(Slow(work), Settings.of(jobs=jobs, backend=backend), "")
        assert work.assemble(results).values.tobytes() == reference


class Slow:
    """The same work without its estimate of time, so that workers are used for little of it."""

    def __init__(self, work: PreparedTextbook) -> None:
        self.work = work
        self.chunks, self.weights, self.differences = work.chunks, work.weights, work.differences


def test_a_sample_gives_the_values_of_the_whole() -> None:
    drawn = smooth()
    whole = approximation(prepared(drawn)).values
    indices = np.arange(1, whole.size, 3)
    some = approximation(prepared(drawn, indices))
    assert some.values.tobytes() == whole[indices].tobytes()
    assert some.indices is not None
    assert some.indices.tolist() == indices.tolist()


def test_an_epsilon_that_is_lost_is_refused_with_the_component_and_a_cure() -> None:
    W = np.ones((2, 3))
    W[1, 2] = -3e9
    network = Network.from_arrays([W], loss="squared_error")
    batch = network.batch(np.full((1, 3), 1e-9), np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"W1\[1, 2\] = -3e\+09.*epsilon=4.8e-07 or more"):
        prepare(network, batch, None, Settings.of())
    smallest = float(np.spacing(3e9))
    assert np.isfinite(prepare(network, batch, None, Settings.of(epsilon=smallest)).noise)
    others = np.array([0, 1, 2, 3, 4])  # it is not touched by these
    prepare(network, batch, others, Settings.of())


def test_a_step_that_rounding_changes_does_not_change_the_slope() -> None:
    # At θ = 1000 a step of 1e-12 is stored as 1.02e-12: 2 % off if 2ε were divided by.
    network = Network.from_arrays([[[1000.0]]], loss="squared_error", activations="identity")
    batch = network.batch([[1.0]], [[999.0]])
    work = prepare(network, batch, None, Settings.of(epsilon=1e-12))
    (value,) = approximation(work).values
    stored = (1000 + 1e-12) - (1000 - 1e-12)
    assert abs(stored / 2e-12 - 1) > 1e-2
    assert value == pytest.approx(1.0, abs=1e-3)


def test_a_cost_that_overflows_is_refused() -> None:
    network = Network.from_arrays([[[1e200]]], loss="squared_error", activations="identity")
    batch = network.batch([[1e200]], [[0.0]])
    with pytest.raises(InputError, match=r"J\(θ\) is inf"):
        prepare(network, batch, None, Settings.of(epsilon=1e190))


def test_chunks_depend_on_the_problem_alone() -> None:
    drawn = smooth(max_width=30)
    one, many = prepared(drawn, jobs=1), prepared(drawn, jobs=64)
    assert one.chunk_size == many.chunk_size
    large = Network.from_arrays([np.ones((512, 784)), np.ones((10, 512))], activations="relu")
    assert 10 < chunk_size_for(large, 32) < 400
    assert chunk_size_for(large, 32) > chunk_size_for(large, 320) >= 1
    work = prepared(drawn, chunk_size=7)
    assert sum(work.weights) == work.network.size
    assert set(work.weights[:-1]) == {7}


def test_a_chunk_takes_about_as_long_as_it_should() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((300, 400)), rng.standard_normal((10, 300))]
    network = Network.from_arrays(weights, activations="relu", loss="softmax_cross_entropy")
    batch = network.batch(rng.standard_normal((32, 400)), rng.integers(0, 10, 32))
    work = prepare(network, batch, None, Settings.of())
    taken = []
    for chunk in (0, 1):
        start = time.thread_time()
        work.differences(chunk)
        taken.append(time.thread_time() - start)
    assert 0.03 < min(taken) < 0.9  # 0.15 s on an ordinary core


def test_memory_is_what_it_says_and_is_bounded() -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.standard_normal((500, 900)), rng.standard_normal((3, 500))])
    batch = network.batch(rng.standard_normal((3000, 900)), rng.integers(0, 3, 3000))
    indices = np.array([5])
    prepare(network, batch, indices, Settings.of()).differences(0)  # compiled
    tracemalloc.start()
    work = prepare(network, batch, indices, Settings.of())
    work.differences(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    noise = 3.2 * network.theta.nbytes  # a point, a step, and what the step is made of
    assert peak < 1.05 * (worker_bytes(network) + noise + 2 * batch.X.nbytes) + 1e6
    assert work.worker_bytes == worker_bytes(network)
    with pytest.raises(InputError, match=r"451,500 parameters.*Give memory=") as caught:
        prepare(network, batch, indices, Settings.of(memory=1e6))
    suggested = float(caught.value.remedy.split("=")[1].rstrip("."))
    prepare(network, batch, indices, Settings.of(memory=suggested))


def test_an_interrupted_run_is_marked_and_has_no_values_where_it_did_not_come() -> None:
    work = prepared(smooth(), chunk_size=5)
    results: list[Any] = [work.differences(chunk) for chunk in work.chunks]
    assert work.assemble(results).complete
    results[1] = None
    partial = work.assemble(results)
    assert not partial.complete
    assert np.flatnonzero(np.isnan(partial.values)).tolist() == [5, 6, 7, 8, 9]


def test_a_pickled_copy_gives_the_same_and_carries_no_workspace() -> None:
    work = prepared(smooth())
    expected = work.differences(0)
    data = pickle.dumps(work)
    assert len(data) < 3 * (work.network.theta.nbytes + work.batch.X.nbytes) + 20_000
    assert pickle.loads(data).differences(0).tobytes() == expected.tobytes()  # noqa: S301


def test_every_change_of_the_problem_changes_the_digest() -> None:
    base = smooth()
    other = base.weights[0].copy()
    other[0, 0] += 1e-12
    changed: list[dict[str, Any]] = [
        {"weights": [other, *base.weights[1:]]},
        {"inputs": base.inputs * 1.5},
        {"targets": base.targets[::-1].copy()},
        {"l2": base.l2 + 0.5},
        {"activations": ["tanh", "sigmoid", "identity"]},
        {"reduction": "sum" if base.reduction == "mean" else "mean"},
    ]
    works = [prepared(dataclasses.replace(base, **c)) for c in changed]
    works += [prepared(base, epsilon=1e-6), prepared(base, chunk_size=3), prepared(base, [0, 1])]
    works += [prepared(base), prepared(base, [0, 2])]
    assert len({w.digest for w in works}) == len(works)
    assert prepared(base, jobs=3).digest == prepared(base).digest


def test_notes_name_the_noise_and_warn_of_kinks_only_where_there_can_be_some() -> None:
    plain, kinked = prepared(smooth()), prepared(smooth(activations="relu"))
    noise, *rest = approximation(plain).notes
    assert f"{plain.noise:.0e}" in noise
    assert rest == []
    assert "kinks" in approximation(kinked).notes[1].lower()


WIDTHS = [8, 16, 24, 32, 40]


@array_kernel
def multiply(W: Any, A: Any, Z: Any, n_in: int, width: int) -> None:
    products.product(W, A, Z, n_in, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 3, 4, 6, 13, 16])
def test_products_are_those_of_numpy(rows: int, width: int) -> None:
    rng = np.random.default_rng(rows * width)
    for n_in in (1, 2, 37):
        W, A = rng.standard_normal((rows, n_in)), rng.standard_normal((n_in, width))
        Z = np.full(rows * width + 1, 7.0)
        multiply(W.ravel(), A.ravel(), Z[:-1], n_in, width)
        bound = 4e-16 * n_in * (np.abs(W) @ np.abs(A))
        assert (np.abs(Z[:-1].reshape(rows, width) - W @ A) <= bound).all()
        assert Z[-1] == 7.0


@pytest.mark.parametrize("tile", [(4, 32, 8), (6, 8, 4), (4, 8, 2), (1, 8, 8)])
def test_every_tile_gives_the_same_bits_whatever_the_processor(tile: tuple[int, int, int]) -> None:
    rows, columns, lanes = tile
    compiled = products._compiled_tile(products.Tile(rows, columns, lanes))

    @array_kernel
    def apply(W: Any, A: Any, Z: Any, n_in: int, width: int) -> None:
        compiled(W, 0, A, 0, Z, 0, n_in, width)

    rng = np.random.default_rng(0)
    W, A = rng.standard_normal(rows * 29), rng.standard_normal(29 * columns)
    Z, reference = np.empty(rows * columns), np.empty(rows * columns)
    apply(W, A, Z, 29, columns)
    multiply(W, A, reference, 29, columns)
    assert Z.tobytes() == reference.tobytes()
