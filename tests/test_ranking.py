from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from sklearn import metrics as sk

from startup_ray.metrics import Stats
from startup_ray.ranking import MIXED, Ranks, _keys
from startup_ray.scored import ScoredRows

ROWS = 12_000
"""More than have bins of their own."""


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels int [N] and probabilities float32 [N, C]: of unsure, sure, saturated and good or useless models."""
    rng = np.random.default_rng(seed)
    classes, sharpness = int(rng.integers(2, 8)), 10 ** rng.uniform(-2, 2.5)
    labels = rng.integers(0, classes, ROWS)
    logits = rng.normal(0, sharpness, (ROWS, classes))
    logits[np.arange(ROWS), labels] += sharpness * rng.uniform(0, 3)
    return labels, ScoredRows.of(labels, logits).scores.astype(np.float32)


def most(classes: int) -> int:
    return 15_360 // classes


def same(one: Ranks, other: Ranks) -> bool:
    names = ("keys", "scores", "rows", "positives")
    return one.level == other.level and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


@pytest.mark.parametrize("seed", range(12))
def test_intervals_hold_and_are_narrow(seed: int) -> None:
    labels, scores = case(seed)
    classes = scores.shape[1]
    coarse = 0
    for i, ranks in enumerate(Ranks.of_classes(scores, labels, most=most(classes))):
        auc, precision = ranks.roc_auc(), ranks.average_precision()
        assert auc is not None
        assert precision is not None
        assert auc.low - 1e-12 <= sk.roc_auc_score(labels == i, scores[:, i]) <= auc.high + 1e-12
        true = sk.average_precision_score(labels == i, scores[:, i])
        assert precision.low - 1e-12 <= true <= precision.high + 1e-12
        assert max(auc.high - auc.value, auc.value - auc.low) < 1e-3
        assert precision.low <= precision.value <= precision.high
        coarse += ranks.level > 0
    assert coarse == classes or scores.max(axis=1).mean() > 0.99


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bins", [8, 100, 1_500])
def test_any_partition_in_any_order_gives_the_same_bins(seed: int, bins: int) -> None:
    labels, scores = case(seed)
    if seed % 2:
        scores = scores.round(2)  # ties
    whole = Ranks.of_classes(scores, labels, most=bins)
    rng = np.random.default_rng(seed)
    order = rng.permutation(ROWS)
    pieces = np.split(order, np.sort(rng.integers(0, ROWS, 7)))
    parts = [Ranks.of_classes(scores[piece], labels[piece], most=bins) for piece in pieces]
    for i, ranks in enumerate(whole):
        mine = [part[i] for part in parts]
        assert same(reduce(lambda a, b: a.merge(b, most=bins), mine), ranks)
        left, right = (reduce(lambda a, b: a.merge(b, most=bins), half) for half in (mine[4:], mine[:4]))
        assert same(left.merge(right, most=bins), ranks)
        assert same(ranks.merge(Ranks.empty(), most=bins), ranks)
        assert len(ranks.keys) <= bins
        assert ranks.rows.sum() == ROWS
        assert ranks.positives.sum() == (labels == i).sum()


def test_few_scores_and_their_ties_are_exact_for_any_number_of_rows() -> None:
    labels, scores = case(3)
    scores = scores.round(2)
    for i, ranks in enumerate(Ranks.of_classes(scores, labels)):
        auc, precision = ranks.roc_auc(), ranks.average_precision()
        assert auc is not None
        assert precision is not None
        assert auc.low == auc.value == auc.high == pytest.approx(sk.roc_auc_score(labels == i, scores[:, i]), abs=1e-12)
        assert (
            precision.low
            == precision.high
            == pytest.approx(sk.average_precision_score(labels == i, scores[:, i]), abs=1e-12)
        )


def test_a_constant_score_tells_nothing_and_says_so_exactly() -> None:
    labels = np.arange(ROWS) % 2
    (_, ranks) = Ranks.of_classes(np.full((ROWS, 2), 0.5, np.float32), labels)
    assert ranks.roc_auc() == (0.5, 0.5, 0.5)
    assert ranks.average_precision() == (0.5, 0.5, 0.5)


def test_without_rows_on_both_sides_there_is_no_value() -> None:
    scores = np.array([[0.2, 0.8], [0.4, 0.6]], np.float32)
    first, second = Ranks.of_classes(scores, np.array([1, 1]))
    assert first.roc_auc() is second.roc_auc() is first.average_precision() is None
    assert second.average_precision() == (1.0, 1.0, 1.0)
    assert Ranks.empty().roc_auc() is None


def test_keys_keep_the_order_of_all_scores() -> None:
    tiny = np.float32(1e-45)
    scores = np.unique(
        np.concatenate(
            [
                np.random.default_rng(1).random(5_000, np.float32),
                np.geomspace(1e-45, 1, 5_000).astype(np.float32),
                1 - np.geomspace(6e-8, 1, 500).astype(np.float32),
                np.array([0, tiny, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1], np.float32),
            ]
        )
    )
    keys = _keys(scores)
    assert (np.diff(keys) > 0).all()
    assert keys[0] == -1
    assert keys[-1] == 2**31 - 1
    assert keys[1:-1].min() >= 1 << 23
    assert keys[1:-1].max() <= 172 << 23


def test_saturated_scores_keep_bins_of_their_own() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((50_000, 1)).astype(np.float32)
    scores[:9_000], scores[9_000:20_000] = 0, 1
    (ranks,) = Ranks.of_classes(scores, np.zeros(50_000, np.int64), most=8)
    assert ranks.scores[0] == ranks.keys[0] == -1
    assert ranks.scores[-1] == 2**31 - 1
    assert (ranks.rows[0], ranks.rows[-1]) == (9_000, 11_000)
    assert (ranks.scores[1:-1] == MIXED).any()


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("rows", [4_096, 300_000])
def test_a_block_of_ten_classes_is_at_most_64_kb(sharpness: float, rows: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, rows)
    logits = rng.normal(0, sharpness, (rows, 10))
    stats = Stats.empty(10).update(ScoredRows.of(labels, logits))
    assert len(stats.pack()) <= 64_000
    again = Stats.unpack(stats.pack())
    assert again.pack() == stats.pack()
    assert all(same(a, b) for a, b in zip(again.ranks, stats.ranks, strict=True))
