from __future__ import annotations

import warnings
from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from startup_ray.metrics import AVERAGED, AVERAGES, NAMES, TOP, Stats, confusion_scores
from startup_ray.scored import ScoredRows

CASES = [200, pytest.param(1_000, marks=pytest.mark.soak)]
"""Random sets of rows."""


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels int [N] and logits float32 [N, C], with absent classes, ties, certainty and one-class sets among them."""
    rng = np.random.default_rng(seed)
    classes, rows = int(rng.integers(2, 9)), int(rng.integers(1, 200))
    used = rng.choice(classes, int(rng.integers(1, classes + 1)), replace=False)
    labels = rng.choice(used, rows)
    logits = rng.normal(0, 10 ** rng.uniform(-1, 2.5), (rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += np.float32(rng.uniform(0, 3))
    if seed % 3 == 0:
        logits = np.round(logits / 4)  # ties
    if seed % 5 == 0:
        logits[:, used[0]] += 1_000  # one class predicted for all
    return labels, logits


@pytest.mark.ray  # it takes seconds
@pytest.mark.parametrize("cases", CASES)
def test_every_metric_equals_scikit_learn(cases: int) -> None:
    for seed in range(cases):
        labels, logits = draw(seed)
        found = Stats.empty(logits.shape[1]).update(ScoredRows.of(labels, logits)).scores("weighted")
        for name, value in expected(labels, logits).items():
            assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=f"{name}, seed {seed}")  # type: ignore[arg-type]
        assert list(found) == list(NAMES)


@pytest.mark.ray  # it takes seconds
@pytest.mark.parametrize("cases", CASES)
def test_ranking_metrics_equal_scikit_learn_where_it_has_them(cases: int) -> None:
    for seed in range(cases):
        labels, logits = draw(seed)
        scores, present = ScoredRows.of(labels, logits).scores.astype(np.float32), np.unique(labels)
        stats = Stats.empty(logits.shape[1]).update(ScoredRows.of(labels, logits))
        found = stats.ranked_per_class()
        for i in range(logits.shape[1]):
            if i not in present:
                assert found["roc_auc"][i] is found["average_precision"][i] is None
                continue
            assert found["average_precision"][i] == pytest.approx(
                sk.average_precision_score(labels == i, scores[:, i]), abs=1e-12
            )
            if len(present) > 1:
                assert found["roc_auc"][i] == pytest.approx(sk.roc_auc_score(labels == i, scores[:, i]), abs=1e-12)
        known = [value for value in found["roc_auc"] if value is not None]
        assert stats.scores()["roc_auc"] == (pytest.approx(np.mean(known), abs=1e-12) if known else None)


def expected(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    predicted = logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but never true
        found = {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "kappa": sk.cohen_kappa_score(labels, predicted, replace_undefined_by=0.0),
            "mcc": sk.matthews_corrcoef(labels, predicted),
            "log_loss": sk.log_loss(labels, ScoredRows.of(labels, logits).scores, labels=range(logits.shape[1])),
            "brier": sk.brier_score_loss(labels, ScoredRows.of(labels, logits).scores, labels=range(logits.shape[1])),
        }
        for k in TOP:
            found[f"top_{k}_accuracy"] = 1.0 if logits.shape[1] == 2 else top_k(labels, logits, k)
        found["ece"] = ece(labels, ScoredRows.of(labels, logits).scores)
        for average in AVERAGES:
            values = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
            found |= {f"{name}_{average}": value for name, value in zip(AVERAGED, values[:3], strict=True)}
    found |= {name: found[f"{name}_weighted"] for name in AVERAGED}
    return found


def top_k(labels: np.ndarray, logits: np.ndarray, k: int) -> float:
    return float(sk.top_k_accuracy_score(labels, logits, k=k, labels=range(logits.shape[1])))


def ece(labels: np.ndarray, scores: np.ndarray) -> float:
    """As Guo et al. (2017) define it, bin by bin."""
    sure, is_hit = scores.max(axis=1), scores.argmax(axis=1) == labels
    found = 0.0
    for i in range(15):
        inside = (sure > i / 15) & (sure <= (i + 1) / 15)
        if inside.any():
            found += inside.mean() * abs(is_hit[inside].mean() - sure[inside].mean())
    return found


def test_per_class_values_equal_scikit_learn() -> None:
    for seed in range(100):
        labels, logits = draw(seed)
        classes = range(logits.shape[1])
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            labels, logits.argmax(axis=1), labels=classes, zero_division=0
        )
        found = Stats.empty(len(classes)).update(ScoredRows.of(labels, logits)).per_class()
        assert_allclose(found["precision"], precision, atol=1e-12)
        assert_allclose(found["recall"], recall, atol=1e-12)
        assert_allclose(found["f1"], f1, atol=1e-12)
        assert found["support"].tolist() == support.tolist()


def test_many_matrices_at_once_give_what_each_gives_alone() -> None:
    matrices = np.random.default_rng(0).integers(0, 5, (3, 4, 5, 5))
    together = confusion_scores(matrices)
    assert together["f1_macro"].shape == (3, 4)
    for name, values in together.items():
        assert values[2, 1] == confusion_scores(matrices[2, 1])[name], name


def test_any_partition_in_any_order_gives_the_same_bytes() -> None:
    labels, logits = messy(1_000)
    whole = Stats.empty(4).update(ScoredRows.of(labels, logits)).pack()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        pieces = np.split(order, np.sort(rng.integers(0, len(order), rng.integers(1, 40))))
        parts = [Stats.empty(4).update(ScoredRows.of(labels[piece], logits[piece])) for piece in pieces]
        assert reduce(Stats.merge, parts).pack() == whole
        middle = len(parts) // 2  # another bracketing
        halves = reduce(Stats.merge, parts[middle:]).merge(reduce(Stats.merge, parts[:middle], Stats.empty(4)))
        assert halves.pack() == whole


def test_empty_is_the_zero_of_merge_and_pack_loses_nothing() -> None:
    stats = Stats.empty(4).update(ScoredRows.of(*messy(50)))
    assert stats.merge(Stats.empty(4)).pack() == stats.pack() == Stats.empty(4).merge(stats).pack()
    assert Stats.unpack(stats.pack()).pack() == stats.pack()
    assert Stats.unpack(stats.pack()).scores() == stats.scores()
    with pytest.raises(ValueError, match="do not merge"):
        stats.merge(Stats.empty(5))


def messy(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    labels = rng.integers(-1, 6, rows)  # 4 classes: -1 has no label, 4 and 5 are unknown
    logits = rng.normal(0, 20, (rows, 4)).astype(np.float32)
    logits[rng.random(rows) < 0.1, 2] = np.nan
    logits[rng.random(rows) < 0.05, 1] = np.inf
    return labels, logits


def test_every_row_is_in_exactly_one_account() -> None:
    logits = np.array([[1, 0], [0, 1], [np.nan, 0], [np.nan, 0], [1, -np.inf], [2, 1]], np.float32)
    rows = Stats.empty(2).update(ScoredRows.of(np.array([0, -1, 1, -1, 0, 7]), logits)).rows()
    assert rows == {"total": 6, "scored": 1, "unlabeled": 2, "unknown_class": 1, "bad_scores": 2, "corrupt": 0}


def test_without_a_scored_row_there_are_no_values() -> None:
    nothing = Stats.empty(3).update(ScoredRows.of(np.array([-1]), np.zeros((1, 3), np.float32)))
    assert set(nothing.scores().values()) == {None}
    assert set(nothing.bounds().values()) == {None}


def test_logits_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Stats.empty(3).update(ScoredRows.of(np.array([0]), np.zeros((1, 2), np.float32)))


def test_loss_stays_finite_and_exact_for_certain_models() -> None:
    logits = np.array([[0, 3e38], [3e38, 0], [1, 1]], np.float32)
    losses = ScoredRows.of(np.array([0, 0, 1]), logits).losses
    assert_allclose(losses, [-np.log(np.finfo(np.float64).eps), 0, np.log(2)], rtol=1e-15)
    many = Stats.empty(2).update(ScoredRows.of(np.zeros(300_000, int), np.tile(logits[:1], (300_000, 1))))
    assert many.scores()["log_loss"] == pytest.approx(losses[0], abs=1e-12)  # no overflow of int64
