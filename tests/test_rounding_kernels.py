"""The loops of the rounding model, each held against a line of NumPy."""

from typing import Any

import numpy as np
import pytest

from fastcheck.kernels import rounding as kernels

RNG = np.random.default_rng(12)
M, N, K = 9, 13, 5
VALUES = RNG.normal(size=(M, N))
VARIANCE = RNG.random((M, N))
COMMON = RNG.random((M, 1))
SLOPE = RNG.choice([0.0, 1.0, 0.5], (M, N))


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("step", [0.0, 0.25])
@pytest.mark.parametrize("order", ["shuffled", "sorted", "tiled"])
def test_repetitions_are_counted_in_each_column(step: float, order: str) -> None:
    kinds = np.array([0.0, 0.5, 0.5 + 2.0**-40, 1.0, -1.0])
    values = RNG.choice(kinds, (200, 7))
    values = {"sorted": np.sort(values, axis=0), "tiled": np.tile(values[:5], (40, 1))}.get(
        order, values
    )
    values[:, 6] = np.arange(200.0)
    counts = np.empty(7)
    kernels.count_repetitions(values, RNG.permutation(200), step, 30, counts)
    equal = np.abs(values[:, np.newaxis] - values) < 1e-9
    weights = values**2
    close(counts, (weights * equal.sum(axis=0)).sum(axis=0) / weights.sum(axis=0))
    assert counts[6] == 1.0


def test_equal_units_have_equal_draws() -> None:
    values = RNG.normal(size=(3, 40))
    values[1, ::4], values[2] = 0.7, -0.2
    rows, firsts = np.array([0, 1, 1, 2]), np.empty((4, 40), np.int64)
    assert kernels.first_equals(values, rows, 6, firsts) == 9 + 9 + 39
    expected = np.tile(np.arange(40), (4, 1))
    expected[1:3, ::4], expected[3] = 0, 0
    np.testing.assert_array_equal(firsts, expected)
    pool, errors, spread = RNG.normal(size=17), np.zeros((4, 40)), RNG.random((3, 40))
    kernels.add_draws(spread, rows, pool, 5, firsts, errors)
    number = pool[(5 + 40 * np.arange(4)[:, np.newaxis] + firsts) % 17]
    close(errors, number * np.sqrt(spread[rows]))


def test_draws_are_numbers_of_the_pool_times_sigma() -> None:
    pool, rows = RNG.normal(size=17), np.array([0, 0, 4, 8])
    errors = RNG.normal(size=(4, N))
    expected = errors + pool[(5 + np.arange(4 * N)) % 17].reshape(4, N) * np.sqrt(VARIANCE[rows])
    kernels.add_draws(VARIANCE, rows, pool, 5, np.empty((0, 0), np.int64), errors)
    close(errors, expected)


def test_rows_in_float32_times_their_sizes_are_the_rows() -> None:
    values = VALUES * 10.0 ** np.arange(-200, 250, 50)[:M, np.newaxis]
    values[3] = 0.0
    singles, sizes = np.empty((M, N), np.float32), np.empty(M)
    kernels.row_singles(values, 1e6, singles, sizes)
    np.testing.assert_allclose(singles * sizes[:, np.newaxis], values, rtol=1e-6)
    assert np.abs(singles).max() <= np.float32(1e6)
    sums, product = VARIANCE.copy(), RNG.random((N, M)).astype(np.float32)
    kernels.add_products(product, sizes, 2.0, 1e-3, sums)
    close(sums, VARIANCE + 2.0 * product.T * sizes[:, np.newaxis] + 1e-3)


def test_weights_and_their_squares_in_float32() -> None:
    W = RNG.normal(size=(4, 6))
    both = np.empty((2, 4, 6), np.float32)
    assert kernels.single_weights(W, 0.5, *both) == np.abs(W).max()
    np.testing.assert_allclose(both, [0.5 * W, 0.25 * W * W], rtol=1e-6)


def test_balanced_factors_have_the_product_of_what_they_were_made_of() -> None:
    large, small = VALUES * 1e60, RNG.normal(size=(M, K)) * 1e-60
    p, q = np.empty((M, N), np.float32), np.empty((M, K), np.float32)
    kernels.balance(large, small, (2.0, 4.0), p, q)
    exact = np.einsum("sn,sk->snk", large, small) / 8.0
    np.testing.assert_allclose(np.einsum("sn,sk->snk", p, q), exact, rtol=1e-6)
    np.testing.assert_allclose(np.abs(p).max(axis=1), np.abs(q).max(axis=1), rtol=1e-6)


def test_the_shortfall_is_of_the_row_or_of_all_rows() -> None:
    rows = np.array([0, 0, 2, 5, 7])
    total = VARIANCE + COMMON * VALUES**2
    errors = RNG.normal(size=(5, N)) * np.sqrt(total[rows])
    errors[3] *= 9.0
    variance = VARIANCE.copy()
    variance[7] = np.inf
    factors = np.empty(M)
    kernels.shortfall(errors, variance, COMMON, VALUES, rows, 50.0, factors)
    seen, expected = (errors[:4] ** 2).sum(axis=1), total[rows[:4]].sum(axis=1)
    least = max(1.0, np.mean(seen / expected), seen.sum() / expected.sum())
    assert least > 5.0
    exact = np.full(M, least)
    exact[5] = min(seen[3] / expected[3], 50.0)
    close(factors, exact)
    kernels.shortfall(errors, np.full((M, N), np.inf), COMMON, VALUES, rows, 50.0, factors)
    close(factors, np.ones(M))


def _alike_after_biases(Z: Any, b: Any) -> Any:
    """Return how many samples lose the same digits of b, weighted with what is lost of b alone."""
    binades, before = np.frexp(Z)[1], np.frexp(Z - b)[1]
    weights = 0.5 ** np.maximum(binades - before, 0)
    above = (b != 0.0) & (binades >= np.frexp(b)[1])
    same = (binades[:, np.newaxis] == binades) | (np.abs(b) < 1e-20)
    both = same & above[:, np.newaxis] & above
    return weights * (both * weights).sum(axis=1)


def test_sums_and_products_are_rounded() -> None:
    b, repeated, own = RNG.normal(size=N), 1.0 + RNG.random(N), np.empty((M, N))
    b[:2] = 0.0, 1e-30
    kernels.rounded_sums(VALUES, b, repeated, (2.0, 3.0, 5.0), own)
    often = np.maximum(repeated, _alike_after_biases(VALUES, b))
    products = (2.0 * (VALUES - b) ** 2 + 5.0 * b**2) * repeated
    close(own, products + 3.0 * VALUES**2 * often)
    delta = VALUES * SLOPE
    kernels.rounded_products(delta, b**2, repeated, 7.0, own)
    close(own, (b**2 * delta**2 + 7.0 * (delta != 0.0)) * repeated)


def test_variances_through_slopes() -> None:
    delta, variance, spread = np.empty((M, N)), np.empty((M, N)), RNG.random((M, N))
    kernels.through_slopes(VALUES, VARIANCE, COMMON, SLOPE, spread, 0.1, delta, variance)
    total = VARIANCE + COMMON * VALUES**2
    close(delta, VALUES * SLOPE)
    close(variance, VARIANCE * SLOPE**2 + (VALUES**2 + 0.1 * total) * spread)
    kernels.after_slopes(SLOPE, spread, 0.1, VARIANCE, variance)
    close(variance, (SLOPE**2 + 0.1 * spread) * VARIANCE)
    inexact = np.empty(N)
    slope = SLOPE.copy()
    slope[:, :4] = np.round(slope[:, :4])
    kernels.inexact_columns(slope, inexact)
    close(inexact, ~np.all((slope == 0.0) | (slope == 1.0), axis=0))


def test_units_near_a_kink_are_undecided() -> None:
    chances = np.array([(2.0, 0.2), (4.0, 0.05)])
    Z = np.array([[0.0, 0.1, 0.3, 0.5, -0.3, 0.0]]) + 1.0
    variance = np.array([[4.0, 4.0, 4.0, 4.0, 4.0, 0.0]])
    total = np.ones((1, 6))
    kernels.add_kink_variance(Z, 1.0, 0.5, variance, 0.05, chances, total)  # σ is 0.1
    half = 0.5 * np.exp(-0.5)
    close(total, 1.0 + (0.5 / 0.05) ** 2 * np.array([[0.5, half, 0.05, 0.0, 0.05, 0.0]]))


def test_a_split_leaves_what_is_not_along_the_values() -> None:
    rest, common = np.empty((M, N)), np.empty((M, 1))
    values, most = VALUES.copy(), 0.9
    values[2] = 0.0
    values[4] *= 1e-3
    kernels.split_along(values, VARIANCE, most, rest, common)
    for s in range(M):
        norm = values[s] @ values[s]
        along = values[s] ** 2 @ VARIANCE[s] / norm**2 if norm else np.inf
        if along > most:
            assert (common[s, 0], rest[s].tolist()) == (0.0, VARIANCE[s].tolist())
            continue
        projection = np.eye(N) - np.outer(values[s], values[s]) / norm
        close(common[s, 0], along)
        np.testing.assert_allclose(
            rest[s], np.diag(projection @ np.diag(VARIANCE[s]) @ projection), rtol=1e-9
        )


def test_variances_of_the_blocks() -> None:
    each, sums, shares = np.empty((M, N)), np.empty((3, N)), RNG.random(N)
    kernels.weight_and_bias_variances(VALUES, VARIANCE, COMMON, shares, each, sums)
    total = VARIANCE + COMMON * VALUES**2
    close(each, total + shares * VALUES**2)
    close(sums, [total.sum(axis=0), (VALUES**2).sum(axis=0), VALUES.sum(axis=0)])


@pytest.mark.parametrize("whole", [False, True])
def test_sigma_of_weights_with_a_penalty(whole: bool) -> None:
    W, data = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
    variance, sigma = RNG.random((3, 4)).astype(np.float32), np.empty((3, 4))
    shares = np.array([0.2, 0.3, 0.4, 0.1], np.float32)
    decay = 0.7 * W
    given = 5.0 * (data + decay) if whole else (5.0 * data).astype(np.float32)
    often = np.array([1.0, 9.0, 4.0], np.float32), np.array([2.0, 1.0, 7.0, 3.0], np.float32)
    kernels.deviations(variance, given, 0.2, whole, W, 0.7, shares, often, 6.0, sigma)
    of_sum = 0.4 * np.minimum(often[0][:, np.newaxis], often[1])
    exact = variance + 0.2 * data**2 + 0.3 * decay**2 + of_sum * (data + decay) ** 2 + 0.1
    np.testing.assert_allclose(sigma, 6.0 * np.sqrt(exact), rtol=1e-5)
