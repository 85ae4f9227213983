from __future__ import annotations

import warnings
from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from startup_ray.metrics import AVERAGED, AVERAGES, NAMES, Stats, confusion_scores, intervals, row_losses, softmax

CASES = range(200)


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
def test_every_metric_equals_scikit_learn() -> None:
    for seed in CASES:
        labels, logits = draw(seed)
        found = Stats.empty(logits.shape[1]).update(labels, logits).scores("weighted")
        for name, value in expected(labels, logits).items():
            assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=f"{name}, seed {seed}")  # type: ignore[arg-type]
        assert list(found) == list(NAMES)


def expected(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    predicted = logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but never true
        found = {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "kappa": sk.cohen_kappa_score(labels, predicted, replace_undefined_by=0.0),
            "mcc": sk.matthews_corrcoef(labels, predicted),
            "log_loss": sk.log_loss(labels, softmax(logits), labels=range(logits.shape[1])),
        }
        for average in AVERAGES:
            values = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
            found |= {f"{name}_{average}": value for name, value in zip(AVERAGED, values[:3], strict=True)}
    found |= {name: found[f"{name}_weighted"] for name in AVERAGED}
    return found


def test_per_class_values_equal_scikit_learn() -> None:
    for seed in CASES:
        labels, logits = draw(seed)
        classes = range(logits.shape[1])
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            labels, logits.argmax(axis=1), labels=classes, zero_division=0
        )
        found = Stats.empty(len(classes)).update(labels, logits).per_class()
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
    whole = Stats.empty(4).update(labels, logits).pack()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        pieces = np.split(order, np.sort(rng.integers(0, len(order), rng.integers(1, 40))))
        parts = [Stats.empty(4).update(labels[piece], logits[piece]) for piece in pieces]
        assert reduce(Stats.merge, parts).pack() == whole
        middle = len(parts) // 2  # another bracketing
        halves = reduce(Stats.merge, parts[middle:]).merge(reduce(Stats.merge, parts[:middle], Stats.empty(4)))
        assert halves.pack() == whole


def test_empty_is_the_zero_of_merge_and_pack_loses_nothing() -> None:
    stats = Stats.empty(4).update(*messy(50))
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
    rows = Stats.empty(2).update(np.array([0, -1, 1, -1, 0, 7]), logits).rows()
    assert rows == {"total": 6, "scored": 1, "unlabeled": 2, "unknown_class": 1, "bad_scores": 2, "corrupt": 0}


def test_without_a_scored_row_there_are_no_values() -> None:
    nothing = Stats.empty(3).update(np.array([-1]), np.zeros((1, 3), np.float32))
    assert set(nothing.scores().values()) == {None}
    assert intervals(nothing.confusion, seed=0) == {}


def test_logits_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Stats.empty(3).update(np.array([0]), np.zeros((1, 2), np.float32))


def test_loss_stays_finite_and_exact_for_certain_models() -> None:
    logits = np.array([[0, 3e38], [3e38, 0], [1, 1]], np.float32)
    losses = row_losses(np.array([0, 0, 1]), logits)
    assert_allclose(losses, [-np.log(np.finfo(np.float64).eps), 0, np.log(2)], rtol=1e-15)
    many = Stats.empty(2).update(np.zeros(300_000, int), np.tile(logits[:1], (300_000, 1)))
    assert many.scores()["log_loss"] == pytest.approx(losses[0], abs=1e-12)  # no overflow of int64


def test_intervals_are_those_of_resampled_rows() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 400)
    predicted = np.where(rng.random(400) < 0.8, labels, rng.integers(0, 3, 400))
    matrix = np.bincount(labels * 3 + predicted, minlength=9).reshape(3, 3)
    drawn = rng.integers(0, 400, (2_000, 400))
    cells = labels[drawn] * 3 + predicted[drawn]
    resampled = confusion_scores(np.stack([np.bincount(row, minlength=9).reshape(3, 3) for row in cells]))
    found = intervals(matrix, seed=7)
    for name, values in resampled.items():
        assert_allclose(found[name], np.quantile(values, [0.025, 0.975]), atol=0.01, err_msg=name)
        low, high = found[name]
        assert low < confusion_scores(matrix)[name] < high
    assert found == intervals(matrix, seed=7)
    assert found != intervals(matrix, seed=8)
    assert intervals(matrix, seed=7, average="micro")["f1"] == found["accuracy"]


def test_few_rows_without_a_mistake_are_no_certainty() -> None:
    """Wilson's lower end for n of n is n / (n + z**2)."""
    for rows in (3, 10, 60):
        found = intervals(np.diag([rows - 1, 1]), seed=7)
        assert found["accuracy"] == pytest.approx((rows / (rows + 1.959964**2), 1.0), rel=1e-6)
        assert "f1" not in found


def test_the_interval_of_accuracy_covers_the_truth() -> None:
    """Of 300 samples of 60 rows at a true accuracy of 0.97, about 95% of the intervals hold it."""
    hits = np.random.default_rng(7).binomial(60, 0.97, 300)
    ends = {h: intervals(np.array([[h, 60 - h], [0, 0]]), seed=1, draws=10)["accuracy"] for h in set(hits.tolist())}
    covered = np.mean([ends[h][0] <= 0.97 <= ends[h][1] for h in hits.tolist()])
    assert 0.91 < covered < 0.99
