from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import NearestNeighbors

from startup_ray.neighbourhoods import memorisation, nearest, neighbourhoods


def draw(seed: int, n: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def clusters(seed: int, counts: list[int], d: int = 6) -> np.ndarray:
    """That many rows around each of some places far from one another."""
    return np.concatenate([draw(seed + i, n, d) + 100 * np.eye(d)[i] for i, n in enumerate(counts)])


def naive(fake: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    def radius(rows: np.ndarray, i: int) -> float:
        return float(sorted(np.linalg.norm(rows[i] - rows[j]) for j in range(len(rows)) if j != i)[k - 1])

    in_real = np.zeros((len(fake), len(real)), bool)
    in_fake = np.zeros((len(fake), len(real)), bool)
    for i in range(len(fake)):
        for j in range(len(real)):
            distance = np.linalg.norm(fake[i] - real[j])
            in_real[i, j], in_fake[i, j] = distance < radius(real, j), distance < radius(fake, i)
    return {
        "precision": in_real.any(axis=1).mean(),
        "recall": in_fake.any(axis=0).mean(),
        "density": in_real.sum() / k / len(fake),
        "coverage": in_real.any(axis=0).mean(),
    }


@pytest.mark.parametrize("block", [1, 8, 1024])
@pytest.mark.parametrize("k", [1, 3])
def test_neighbourhoods_are_those_of_a_double_loop(k: int, block: int) -> None:
    fake, real = draw(1, 17, 3) * 0.8 + 0.5, draw(2, 23, 3)
    assert neighbourhoods(fake, real, k=k, block=block) == pytest.approx(naive(fake, real, k), rel=1e-12)


@pytest.mark.parametrize("block", [1, 16, 1024])
def test_the_kth_neighbour_is_not_in_the_ball(block: int) -> None:
    """On a grid all distances are tied and exact."""
    real = np.arange(12.0)[:, None]
    assert neighbourhoods(real + 5, real, k=2, block=block) == naive(real + 5, real, 2)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("block", [13, 64, 1024])
def test_a_copy_is_perfect(block: int, offset: float) -> None:
    real = draw(1, 150, 20) + offset
    copy = real[np.random.default_rng(0).permutation(len(real))]
    assert neighbourhoods(copy, real, block=block) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


def test_far_away_fakes_are_worth_nothing() -> None:
    found = neighbourhoods(draw(1, 60) + 1e3, draw(2, 80))
    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_fresh_draws_have_a_density_of_about_one() -> None:
    found = neighbourhoods(draw(1, 600, 3), draw(2, 600, 3))
    assert found["density"] == pytest.approx(1, abs=0.1)
    assert min(found.values()) > 0.9


def test_a_dropped_mode_is_missed_by_recall_and_coverage_alone() -> None:
    real = clusters(1, [100, 100, 100])
    full, dropped = (neighbourhoods(clusters(50, counts), real) for counts in ([100, 100, 100], [150, 150, 0]))
    assert dropped["recall"] <= 2 / 3 < full["recall"]
    assert dropped["coverage"] <= 2 / 3 < full["coverage"]
    assert dropped["precision"] == pytest.approx(full["precision"], abs=0.05)


def test_one_image_over_and_over_recalls_nothing() -> None:
    real = draw(1, 100)
    found = neighbourhoods(np.repeat(real[:1], 40, axis=0), real)
    assert found["precision"] == 1
    assert found["recall"] == 0
    assert found["coverage"] < 0.2


def test_too_few_rows_are_refused() -> None:
    for fakes, reals, k in ((5, 9, 5), (9, 5, 5), (9, 9, 0)):
        with pytest.raises(ValueError, match="need more of each"):
            neighbourhoods(draw(1, fakes), draw(2, reals), k=k)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "m", "p"), [(1, 1, 1), (130, 70, 5), (60, 300, 64)])
def test_nearest_is_scikit_learns_for_any_block(n: int, m: int, p: int, offset: float) -> None:
    queries, references = draw(1, n, p) + offset, draw(2, m, p) + offset
    # A tree looks at differences; brute force would cancel.
    peer = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(references)
    expected, where = peer.kneighbors(queries)
    for block in (7, 32, 512):
        distances, places = nearest(queries, references, block=block)
        assert_allclose(distances, expected[:, 0], rtol=1e-12)
        assert_array_equal(places, where[:, 0])
    assert distances.dtype == np.float64
    assert places.dtype == np.int64


@pytest.mark.parametrize("block", [1, 9, 512])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_equal_rows_are_at_distance_zero_and_the_first_of_them_is_named(offset: float, block: int) -> None:
    rows = (draw(1, 40, 33) + offset).astype(np.float32)
    distances, places = nearest(rows, np.concatenate([rows, rows[::-1], rows]), block=block)
    assert_array_equal(distances, np.zeros(40))
    assert_array_equal(places, [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in rows])


@pytest.mark.parametrize("block", [1, 7, 512])
def test_of_equally_near_references_the_first_is_named(block: int) -> None:
    references, queries = draw(1, 25, 17), draw(2, 50, 17)
    once, twice = (nearest(queries, refs, block=block) for refs in (references, np.repeat(references, 3, axis=0)))
    assert_array_equal(twice[0], once[0])
    assert_array_equal(twice[1], 3 * once[1])


def test_no_queries_have_no_nearest_and_no_references_are_refused() -> None:
    assert [len(part) for part in nearest(draw(1, 0), draw(2, 3))] == [0, 0]
    with pytest.raises(ValueError, match="no rows"):
        nearest(draw(1, 3), draw(2, 0))


def test_copies_of_training_rows_are_found() -> None:
    train, held_out = draw(1, 300, 16), draw(2, 300, 16)
    found = memorisation(train[:200] + 1e-3 * draw(3, 200, 16), train, held_out)
    assert found["ratio"] == pytest.approx(0, abs=0.01)
    assert found["ratio_p5"] == pytest.approx(0, abs=0.01)
    assert found["copies"] == 1
    half = memorisation(np.concatenate([train[:100], draw(4, 100, 16)]), train, held_out)
    assert half["copies"] == pytest.approx(0.5, abs=0.03)


def test_fresh_draws_are_as_far_from_the_training_rows_as_held_out_ones() -> None:
    train, held_out = draw(1, 400, 16), draw(2, 400, 16)
    found = memorisation(draw(3, 400, 16), train, held_out)
    assert found["ratio"] == pytest.approx(1, abs=0.05)
    assert found["ratio_p5"] == pytest.approx(1, abs=0.1)
    assert found["copies"] == pytest.approx(0.01, abs=0.02)
    assert memorisation(held_out, train, held_out) == {"ratio": 1, "ratio_p5": 1, "copies": 0.0075}


def test_held_out_rows_that_are_training_rows_give_no_ratio() -> None:
    train = draw(1, 50)
    assert memorisation(draw(2, 50), train, train) == {"ratio": None, "ratio_p5": None, "copies": 0}


def test_memorisation_needs_rows_on_both_sides() -> None:
    for fakes, held_out in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="both are needed"):
            memorisation(draw(1, fakes), draw(2, 9), draw(3, held_out))
