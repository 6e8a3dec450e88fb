"""The rounding model's arithmetic on whole layers: each kernel is one pass over its arrays.

Values are (m, n), a row for each sample; variances are in units of u². `fastcheck.rounding` has the
meaning of each step, these are only its loops.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastcheck.kernels.arrays import largest_of
from fastcheck.kernels.compiling import array_kernel, part_kernel, scalar_kernel
from fastcheck.types import Floats, Integers, Singles

__all__ = [
    "add_draws",
    "add_kink_variance",
    "add_products",
    "after_slopes",
    "balance",
    "count_repetitions",
    "deviations",
    "first_equals",
    "inexact_columns",
    "rounded_products",
    "rounded_sums",
    "row_singles",
    "shortfall",
    "single_weights",
    "split_along",
    "through_slopes",
    "weight_and_bias_variances",
]


SEEN = 1024  # places for the values last seen in a row
BINADES = 64  # above a bias that are told apart


@scalar_kernel
def _key(bits: Any, value: float, step: float, shift: int) -> Any:
    """A number that equal values share: the multiple of `step`, or all bits but the last ones."""
    return np.int64(np.rint(value / step)) if step > 0.0 else bits >> shift


@part_kernel
def _mean_repetitions(keys: Integers, values: Floats) -> float:
    """How many entries have the key of an entry, averaged with the squared values as weights."""
    order = np.argsort(keys)
    largest = max(float(values.max()), -float(values.min()))
    total = weights = 0.0
    start = 0
    while start < keys.size:
        stop, own = start, 0.0
        while stop < keys.size and keys[order[stop]] == keys[order[start]]:
            own += (values[order[stop]] / largest) ** 2
            stop += 1
        total += own * (stop - start)
        weights += own
        start = stop
    return total / weights


@array_kernel
def count_repetitions(
    values: Floats, order: Integers, step: float, shift: int, counts: Floats
) -> None:
    """Write for each column how often its values occur, on average; zeros left out.

    Values are equal if they are the same multiple of `step`; where that is 0, if their bits are the
    same but for the last `shift`. Rows that follow each other in `order` are compared first: only
    columns where two are equal are sorted.
    """
    bits = values.view(np.int64)
    m, n = values.shape
    for i in range(n):
        counts[i] = 0.0
    for k in range(1, m):
        s, t = order[k - 1], order[k]
        if step > 0.0:
            for i in range(n):
                equal = np.rint(values[s, i] / step) == np.rint(values[t, i] / step)
                counts[i] += 1.0 if equal and values[s, i] != 0.0 else 0.0
        else:
            for i in range(n):
                equal = bits[s, i] >> shift == bits[t, i] >> shift
                counts[i] += 1.0 if equal and values[s, i] != 0.0 else 0.0
    keys, column = np.empty(m, np.int64), np.empty(m)
    for i in range(n):
        if counts[i] == 0.0:
            counts[i] = 1.0
            continue
        for s in range(m):
            column[s] = values[s, i]
            keys[s] = _key(bits[s, i], values[s, i], step, shift)
        counts[i] = _mean_repetitions(keys, column)


@array_kernel
def first_equals(values: Floats, rows: Integers, shift: int, firsts: Integers) -> int:
    """Write where each entry's value first occurs in its row; return how many are repeated.

    Zeros count as different. A small table of the values last seen tells which rows to sort.
    """
    bits = values.view(np.int64)
    n = values.shape[1]
    seen = np.empty(SEEN, np.int64)
    repeated = 0
    for r in range(rows.size):
        own = bits[rows[r]]
        seen[:] = 0
        near = 0
        for i in range(n):
            key = own[i] >> shift
            place = (key ^ (key >> 11) ^ (key >> 22)) & (SEEN - 1)
            near += seen[place] == key and own[i] << 1 != 0
            seen[place] = key
        for i in range(n):
            firsts[r, i] = i
        if near == 0:
            continue
        order = np.argsort(own >> shift, kind="mergesort")
        for k in range(1, n):
            here, before = order[k], order[k - 1]
            if own[here] >> shift == own[before] >> shift and own[here] << 1 != 0:
                firsts[r, here] = firsts[r, before]
                repeated += 1
    return repeated


@array_kernel
def add_draws(
    variance: Floats, rows: Integers, pool: Floats, start: int, firsts: Integers, errors: Floats
) -> None:
    """Add σ times numbers of a pool, from `start` on and around, for some rows of a variance.

    Entries of the same `firsts` (r, n) have the same number; where that is empty, no two have.
    """
    n = errors.shape[1]
    at = start % pool.size
    for r in range(rows.size):
        if firsts.size > 0:
            for k in range(n):
                number = pool[(start + r * n + firsts[r, k]) % pool.size]
                errors[r, k] += number * math.sqrt(variance[rows[r], k])
            continue
        i = 0
        while i < n:
            count = min(n - i, pool.size - at)
            numbers, own = pool[at : at + count], variance[rows[r], i : i + count]
            row = errors[r, i : i + count]
            for k in range(count):
                row[k] += numbers[k] * math.sqrt(own[k])
            i += count
            at = (at + count) % pool.size


@array_kernel
def single_weights(W: Floats, factor: float, values: Singles, squares: Singles) -> float:
    """Write W · factor and its squares in float32; return the largest |W|."""
    largest = 0.0
    for i in range(W.shape[0]):
        row, value, square = W[i], values[i], squares[i]
        for j in range(row.size):
            w = np.float32(row[j] * factor)
            value[j] = w
            square[j] = w * w
        largest = max(largest, largest_of(row))
    return largest


@array_kernel
def row_singles(values: Floats, headroom: float, singles: Singles, sizes: Floats) -> None:
    """Write each row over its size in float32, so that the largest |value| is `headroom`."""
    for s in range(values.shape[0]):
        largest = largest_of(values[s])
        if not (largest > 1e-250 and largest < np.inf):
            largest = 1.0
        factor = headroom / largest
        for i in range(values.shape[1]):
            singles[s, i] = np.float32(values[s, i] * factor)
        sizes[s] = largest / headroom


@array_kernel
def balance(
    first: Floats, second: Floats, units: tuple[float, float], p: Singles, q: Singles
) -> None:
    """Write both over their units in float32, what is large in a row of one moved to the other.

    Their product, summed over rows, stays the same, and float32's range is not left.
    """
    for s in range(first.shape[0]):
        sizes = largest_of(first[s]) / units[0], largest_of(second[s]) / units[1]
        there = back = 0.0
        if sizes[0] > 1e-140 and sizes[1] > 1e-140:
            there = math.sqrt(sizes[1] / sizes[0])
            back = 1.0 / there / units[1]
            there /= units[0]
        for i in range(first.shape[1]):
            p[s, i] = np.float32(first[s, i] * there)
        for j in range(second.shape[1]):
            q[s, j] = np.float32(second[s, j] * back)


@array_kernel
def shortfall(
    errors: Floats,
    variance: Floats,
    common: Floats,
    values: Floats,
    rows: Integers,
    most: float,
    factors: Floats,
) -> None:
    """Write how many times each row's expected variance falls short of that of drawn errors.

    That is the greatest of Σ errors² / Σ (variance + common · values²) of the row, of all rows
    together, and of the rows' mean, but no less than 1 and no more than `most`. Draws where one of
    the two is 0 or no number are left out. `rows` says which row a draw belongs to, in order.
    """
    factors[:] = 1.0
    seen = expected = ratios = 0.0
    count = 0
    r = 0
    while r < rows.size:
        s, first, own = rows[r], r, 0.0
        total = 0.0
        for i in range(errors.shape[1]):
            total += variance[s, i] + common[s, 0] * values[s, i] * values[s, i]
        while r < rows.size and rows[r] == s:
            square = 0.0
            for i in range(errors.shape[1]):
                square += errors[r, i] * errors[r, i]
            if total > 0.0 and total < np.inf and square < np.inf:
                seen += square
                expected += total
                own += square / total
                count += 1
            r += 1
        ratios += own
        factors[s] = own / (r - first)
    least = max(1.0, ratios / count, seen / expected) if count > 0 else 1.0
    for s in range(factors.size):
        factors[s] = min(max(least, factors[s]), most)


@array_kernel
def add_products(product: Singles, sizes: Floats, unit: float, least: float, sums: Floats) -> None:
    """Add productᵀ · unit · sizes, a size for each row, and `least` where the sum is not 0."""
    for s in range(sums.shape[0]):
        factor = unit * sizes[s]
        for i in range(sums.shape[1]):
            total = sums[s, i] + product[i, s] * factor
            sums[s, i] = total + least if total > 0.0 else total


@scalar_kernel
def _steps_above(z: float, b: float) -> int:
    """How many binades z lies above b, at most the last of `BINADES`; −1 where it lies below."""
    if b == 0.0:
        return -1
    return max(min(math.frexp(z)[1] - math.frexp(b)[1], BINADES - 1), -1)


@scalar_kernel
def _share_of_bias(z: float, b: float) -> float:
    """How much of what adding b rounds off is of b alone: half for each digit of z − b in it."""
    return 2.0 ** min(math.frexp(z - b)[1] - math.frexp(z)[1], 0)


@array_kernel
def rounded_sums(
    Z: Floats, b: Floats, repeated: Floats, shares: tuple[float, float, float], variance: Floats
) -> None:
    """Write the variance of summing up z = (z − b) + b: shares of (z − b)², z² and b².

    Where z is larger than b the last digits of b are rounded off, the same ones in all samples
    whose z is of one binade: their errors are equal as far as no digits of z − b go with them.
    """
    of_product, of_sum, of_bias = shares
    m, n = Z.shape
    alike = np.zeros((n, BINADES))
    for s in range(m):
        for i in range(n):
            steps = _steps_above(Z[s, i], b[i])
            if steps >= 0:
                alike[i, steps] += _share_of_bias(Z[s, i], b[i])
    for s in range(m):
        for i in range(n):
            z = Z[s, i]
            product, steps, often = z - b[i], _steps_above(z, b[i]), repeated[i]
            if steps >= 0:
                often = max(often, _share_of_bias(z, b[i]) * alike[i, steps])
            own = of_product * product * product + of_bias * b[i] * b[i]
            variance[s, i] = own * repeated[i] + of_sum * z * z * often


@array_kernel
def add_kink_variance(
    Z: Floats, kink: float, jump: float, variance: Floats, u: float, chances: Floats, total: Floats
) -> None:
    """Add the variance of a slope that jumps at a kink, for the chance that z is beyond it.

    At t standard deviations it is exp(−t²/2)/2, but no less than `chances` say: up to t = the first
    number of a row the second, and nothing beyond the last row.
    """
    far, size = chances[-1, 0] ** 2, (jump / u) ** 2
    for s in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            square, spread = (Z[s, i] - kink) ** 2, variance[s, i] * u * u
            if square <= far * spread and spread > 0.0:
                square /= spread
                chance = 0.5 * math.exp(-0.5 * square)
                for k in range(chances.shape[0]):
                    if square <= chances[k, 0] ** 2:
                        chance = max(chance, chances[k, 1])
                total[s, i] += size * chance


@array_kernel
def after_slopes(
    slope: Floats, spread: Floats, u_squared: float, variance: Floats, after: Floats
) -> None:
    """Write what z's variance becomes in φ(z), whose slope has a variance `spread` of its own."""
    for s in range(slope.shape[0]):
        for i in range(slope.shape[1]):
            d = slope[s, i]
            after[s, i] = (d * d + spread[s, i] * u_squared) * variance[s, i]


@array_kernel
def through_slopes(
    gradient: Floats,
    variance: Floats,
    common: Floats,
    slope: Floats,
    slope_variance: Floats,
    u_squared: float,
    delta: Floats,
    delta_variance: Floats,
) -> None:
    """Write delta = gradient · slope and what becomes of the variances of both."""
    for s in range(gradient.shape[0]):
        g, d, v, w = gradient[s], slope[s], variance[s], slope_variance[s]
        row, spread = delta[s], delta_variance[s]
        shared = common[s, 0]
        for i in range(g.size):
            row[i] = g[i] * d[i]
            square = g[i] * g[i]
            total = v[i] + shared * square
            spread[i] = v[i] * d[i] * d[i] + (square + total * u_squared) * w[i]


@array_kernel
def inexact_columns(slope: Floats, inexact: Floats) -> None:
    """Write 1 for the units where a product with the slope rounds, 0 where all are 0 or 1."""
    for i in range(slope.shape[1]):
        inexact[i] = 0.0
    for s in range(slope.shape[0]):
        for i in range(slope.shape[1]):
            inexact[i] = 1.0 if slope[s, i] != 0.0 and slope[s, i] != 1.0 else inexact[i]


@array_kernel
def rounded_products(
    delta: Floats, relative: Floats, repeated: Floats, least: float, variance: Floats
) -> None:
    """Write the variance of rounding delta: shares of delta², and `least` where it is not 0."""
    for s in range(delta.shape[0]):
        for i in range(delta.shape[1]):
            d = delta[s, i]
            own = relative[i] * d * d + (least if d != 0.0 else 0.0)
            variance[s, i] = own * repeated[i]


@array_kernel
def split_along(
    values: Floats, variance: Floats, most: float, rest: Floats, common: Floats
) -> None:
    """Split each row's variances into one along the values and the rest; see `backward_errors`."""
    m, n = values.shape
    for s in range(m):
        v, own, left = values[s], variance[s], rest[s]
        size = largest_of(v)
        square, product = np.empty(n), np.empty(n)
        for i in range(n):
            square[i] = (v[i] / size) ** 2
            product[i] = square[i] * own[i]
        norm, along = square.sum(), product.sum()
        along /= norm
        common[s, 0] = along / size / size / norm
        if size > 0.0 and common[s, 0] <= most:
            for i in range(n):
                share = square[i] / norm
                left[i] = max(own[i] * (1.0 - 2.0 * share) + share * along, 0.0)
        else:
            common[s, 0] = 0.0
            for i in range(n):
                left[i] = own[i]


@array_kernel
def weight_and_bias_variances(
    delta: Floats,
    variance: Floats,
    common: Floats,
    shares: Floats,
    each: Floats,
    sums: Floats,
) -> None:
    """Write what the blocks' variances are made of.

    `each` (m, n) is the variance of delta and share · delta², of a share for each column; `sums`
    (3, n) are the sums over samples of that variance, of delta² and of delta.
    """
    m, n = delta.shape
    for i in range(n):
        sums[0, i] = sums[1, i] = sums[2, i] = 0.0
    for s in range(m):
        for i in range(n):
            square = delta[s, i] * delta[s, i]
            total = variance[s, i] + common[s, 0] * square
            each[s, i] = total + shares[i] * square
            sums[0, i] += total
            sums[1, i] += square
            sums[2, i] += delta[s, i]


@array_kernel
def deviations(
    variance: Singles,
    gradient: Any,
    scale: float,
    whole: bool,
    W: Floats,
    penalty: float,
    shares: Singles,
    repeated: tuple[Singles, Singles],
    unit: float,
    sigma: Floats,
) -> None:
    """Write σ of some weights, of their variance and of rounding g = data + penalty · W.

    Parameters
    ----------
    variance : ndarray, shape (k, n), float32
    gradient : ndarray, shape (k, n), float32 or float64
        g · 1/scale, or where it is not `whole` only the data's part of it.
    W, sigma : ndarray, shape (k, n), float64
    shares : ndarray, shape (4,), float32
        Of data², of (penalty · W)², of g², and what is added to all.
    repeated : tuple of ndarray, shape (k,) and (n,), float32
        How often terms of the sum over samples occur: the share of g² is that of each, times the
        smaller of its two.
    unit : float
        What σ is given in.
    """
    of_data, of_penalty, of_sum, least = shares
    for i in range(variance.shape[0]):
        rows = repeated[0][i]
        for j in range(variance.shape[1]):
            g, decay = np.float32(gradient[i, j] * scale), np.float32(penalty * W[i, j])
            if whole:
                data = g - decay
            else:
                data, g = g, g + decay
            of_whole = of_sum * min(rows, repeated[1][j])
            parts = of_data * data * data + of_penalty * decay * decay + of_whole * g * g
            sigma[i, j] = unit * np.sqrt(variance[i, j] + parts + least)
