from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import sqrtm

from startup_ray.fidelity import Modes, Moments, frechet_distance, kernel_distance, modes


def features(seed: int, n: int, d: int, *, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Correlated float64 [n, d]."""
    mixing = np.eye(d) + 0.3 * np.random.default_rng(9).normal(size=(d, d)) / np.sqrt(d)
    drawn: np.ndarray = shift + scale * np.random.default_rng(seed).normal(size=(n, d)) @ mixing
    return drawn


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(n=101, mean=mean, spread=100 * covariance)


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("seed", range(4))
def test_moments_of_any_partition_in_any_order_are_those_of_numpy(seed: int, offset: float) -> None:
    rows = features(seed, 700, 12) + offset
    rng = np.random.default_rng(seed)
    pieces = np.split(rng.permutation(len(rows)), np.sort(rng.integers(0, len(rows), 6)))
    parts = [Moments.of(rows[piece]) for piece in [*pieces, pieces[0][:0]]]
    left, right = (reduce(Moments.merge, half, Moments.empty(12)) for half in (parts[5:], parts[:5]))
    for merged in (reduce(Moments.merge, parts), reduce(Moments.merge, reversed(parts)), left.merge(right)):
        assert merged.n == len(rows)
        assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-13, atol=1e-13)
        assert_allclose(merged.covariance(), np.cov(rows, rowvar=False), rtol=0, atol=1e-10)
    assert_array_equal(left.merge(right).to_array(), right.merge(left).to_array())


def test_moments_of_float32_are_float64() -> None:
    rows = features(1, 400, 5, shift=100.0).astype(np.float32)
    moments = Moments.of(rows)
    assert moments.mean.dtype == moments.spread.dtype == np.float64
    assert_allclose(moments.covariance(), np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.ones((1, 3)), features(0, 50, 3), features(0, 5, 1)])
def test_an_array_of_moments_gives_their_bytes_back(rows: np.ndarray) -> None:
    moments = Moments.of(rows)
    array = moments.to_array()
    again = Moments.from_array(array)
    assert (again.n, again.mean.tobytes(), again.spread.tobytes()) == (
        moments.n,
        moments.mean.tobytes(),
        moments.spread.tobytes(),
    )
    assert again.to_array().tobytes() == array.tobytes()
    assert array.shape == (1 + rows.shape[1] + rows.shape[1] ** 2,)


def test_an_array_that_holds_no_moments_is_refused() -> None:
    for array in (np.zeros(0), np.zeros(4), np.zeros((1, 7))):
        with pytest.raises(ValueError, match="holds no moments"):
            Moments.from_array(array)


def test_fewer_than_two_rows_have_no_covariance() -> None:
    assert_array_equal(Moments.empty(2).covariance(), np.zeros((2, 2)))
    assert_array_equal(Moments.of(np.array([[3.0, 4.0]])).covariance(), np.zeros((2, 2)))


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="of 2 and of 3 features"):
        Moments.empty(2).merge(Moments.empty(3))
    with pytest.raises(ValueError, match="0 rows of 2 features"):
        frechet_distance(Moments.empty(2), Moments.of(np.ones((4, 2))))
    with pytest.raises(ValueError, match="equally many features"):
        frechet_distance(Moments.of(np.ones((4, 3))), Moments.of(np.ones((4, 2))))


@pytest.mark.parametrize(
    ("n", "m", "d", "rtol"),
    # Where the product of covariances is singular, it is the peer whose root is off, by the root of rounding.
    [(300, 200, 8, 1e-8), (500, 900, 48, 1e-8), (200, 150, 1, 1e-8), (20, 300, 40, 1e-6), (15, 20, 40, 1e-6)],
)
def test_frechet_distance_is_the_formula_with_the_root_of_the_product(n: int, m: int, d: int, rtol: float) -> None:
    one, other = Moments.of(features(1, n, d)), Moments.of(features(2, m, d, shift=0.2, scale=1.4))
    first, second, apart = one.covariance(), other.covariance(), one.mean - other.mean
    shared = np.trace(sqrtm(first @ second)).real
    expected = apart @ apart + np.trace(first) + np.trace(second) - 2 * shared
    assert frechet_distance(one, other) == pytest.approx(expected, rel=rtol)
    assert frechet_distance(other, one) == pytest.approx(frechet_distance(one, other), rel=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 300, 40), (15, 20, 40), (10, 10, 200)])
def test_frechet_distance_of_fewer_rows_than_features_is_that_of_the_rows(n: int, m: int, d: int) -> None:
    """tr (S1 S2)^(1/2) is the nuclear norm of A B^T for any A^T A = S1 and B^T B = S2: here the centred rows."""
    rows, others = features(1, n, d), features(2, m, d, shift=0.2, scale=1.4)
    a, b = ((part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in (rows, others))
    apart = rows.mean(axis=0) - others.mean(axis=0)
    expected = apart @ apart + (a * a).sum() + (b * b).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    assert frechet_distance(Moments.of(rows), Moments.of(others)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("n", "d"), [(300, 16), (12, 60), (1, 5)])
def test_frechet_distance_of_equal_moments_is_zero(n: int, d: int) -> None:
    moments = Moments.of(features(3, n, d))
    assert 0 <= frechet_distance(moments, moments) < 1e-11 * d


def test_frechet_distance_of_known_gaussians() -> None:
    """Axes in common: squares of the differences of means and of standard deviations."""
    one = gaussian(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 0.0]))
    other = gaussian(np.array([3.0, 1.0, 2.0]), np.diag([9.0, 4.0, 25.0]))
    assert frechet_distance(one, other) == pytest.approx(9 + 4 + 25, rel=1e-14)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [gaussian(turn @ m.mean, turn @ m.covariance() @ turn.T) for m in (one, other)]
    assert frechet_distance(*turned) == pytest.approx(38, rel=1e-12)


def test_frechet_distance_of_shards_is_that_of_the_whole() -> None:
    one, other = features(1, 600, 24), features(2, 500, 24, shift=0.1)
    shards = [Moments.from_array(Moments.of(part).to_array()) for part in np.array_split(other, 7)]
    sharded = frechet_distance(Moments.of(one), reduce(Moments.merge, shards))
    assert sharded == pytest.approx(frechet_distance(Moments.of(one), Moments.of(other)), rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (40, 70, 6), (130, 90, 32)])
def test_kernel_distance_is_the_naive_formula_for_any_block(n: int, m: int, d: int) -> None:
    one, other = features(1, n, d), features(2, m, d, shift=0.5)
    first, second, across = ((a @ b.T / d + 1) ** 3 for a, b in ((one, one), (other, other), (one, other)))
    expected = (first.sum() - np.trace(first)) / (n * (n - 1)) + (second.sum() - np.trace(second)) / (m * (m - 1))
    expected -= 2 * across.mean()
    found = [kernel_distance(one, other, block=block) for block in (5, 32, 64, 1024)]
    assert found == pytest.approx([expected] * 4, rel=1e-11)
    assert found == pytest.approx([found[0]] * 4, rel=1e-12)


def test_kernel_distance_is_without_bias_and_sees_a_shift() -> None:
    """Of equal distributions the mean over draws is 0, and some are below; a biased estimate is above 0 in each."""
    draws = [kernel_distance(features(i, 60, 8), features(100 + i, 60, 8)) for i in range(60)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 3 * error
    assert min(draws) < 0 < max(draws)
    shifted = kernel_distance(features(1, 400, 8).astype(np.float32), features(2, 400, 8, shift=0.5))
    assert shifted > 20 * abs(kernel_distance(features(1, 400, 8), features(2, 400, 8)))


def test_kernel_distance_needs_pairs() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(np.ones((1, 3)), np.ones((5, 3)))


def test_modes_of_parts_are_those_of_the_whole() -> None:
    predicted = np.random.default_rng(1).integers(0, 6, 500)
    predicted[predicted == 4] = 1
    parts = [modes(part, 7) for part in np.array_split(predicted, 5)]
    merged = reduce(Modes.merge, parts, modes(predicted[:0], 7))
    assert_array_equal(merged.counts, modes(predicted, 7).counts)
    assert merged.counts.dtype == np.int64
    assert_allclose(merged.shares, np.bincount(predicted, minlength=7) / 500)
    assert merged.missing == (4, 6)
    assert merged.rarest == 0


def test_entropy_is_one_of_even_shares_and_zero_of_one_mode() -> None:
    for classes in (2, 3, 5, 13, 1000):
        assert modes(np.arange(5 * classes) % classes, classes).entropy == pytest.approx(1, abs=1e-12)
        assert modes(np.arange(5 * classes) % classes, classes).entropy <= 1
        assert modes(np.ones(9, np.int64), classes).entropy == 0
    assert modes(np.array([0, 0, 1, 2]), 4).entropy == pytest.approx(0.75)
    assert modes(np.zeros(3, np.int64), 1).entropy == 1
    assert modes(np.array([0, 1, 1, 1]), 2).rarest == 0.25


def test_without_rows_every_mode_is_missing() -> None:
    none = modes(np.zeros(0, np.int64), 3)
    assert (none.entropy, none.rarest, none.missing) == (0, 0, (0, 1, 2))


def test_modes_that_do_not_belong_together_are_refused() -> None:
    for predicted in ([0, 3], [-1, 2]):
        with pytest.raises(ValueError, match="expected 0 to 2"):
            modes(np.array(predicted), 3)
    with pytest.raises(ValueError, match="of 2 and of 3 classes"):
        modes(np.array([1]), 2).merge(modes(np.array([1]), 3))
