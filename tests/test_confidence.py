from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest

from startup_ray.confidence import compare, intervals, mcnemar
from startup_ray.metrics import confusion_scores


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


def three(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of three classes, a model that is right in 7 of 10 rows, and one that is right in 8, mostly the same."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, rows)
    wrong = (labels + rng.integers(1, 3, rows)) % 3
    luck = rng.random(rows)
    return labels, np.where(luck < 0.7, labels, wrong), np.where(luck + rng.normal(0, 0.15, rows) < 0.8, labels, wrong)


def test_a_difference_is_that_of_the_metrics_and_its_interval_that_of_resampled_rows() -> None:
    labels, one, other = three(600)
    found = compare(labels, one, other, num_classes=3, seed=1)
    drawn = np.random.default_rng(2).integers(0, 600, (2_000, 600))

    def scores(predicted: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        cells = labels[rows] * 3 + predicted[rows]
        return confusion_scores(np.stack([np.bincount(row, minlength=9).reshape(3, 3) for row in cells]))

    plain = [scores(predicted, np.arange(600)[None]) for predicted in (one, other)]
    resampled = [scores(predicted, drawn) for predicted in (one, other)]
    for name, difference in found["differences"].items():
        name = name if name in plain[0] else f"{name}_macro"
        assert difference["value"] == pytest.approx(plain[1][name][0] - plain[0][name][0], abs=1e-12)
        ends = np.quantile(resampled[1][name] - resampled[0][name], [0.025, 0.975])
        assert_allclose([difference["low"], difference["high"]], ends, atol=0.008, err_msg=name)
        assert difference["significant"]
    assert found == compare(labels, one, other, num_classes=3, seed=1)


def test_the_same_model_twice_differs_in_nothing() -> None:
    labels, one, _ = three(100)
    found = compare(labels, one, one, num_classes=3, seed=1)
    assert found["p_value"] == 1.0
    assert found["differences"]["f1"] == {"value": 0.0, "low": 0.0, "high": 0.0, "significant": False}
    assert compare(labels[:0], one[:0], one[:0], num_classes=3, seed=1) == {"rows": 0}


def test_turned_around_the_difference_is_the_other_way() -> None:
    labels, one, other = three(400)
    there = compare(labels, one, other, num_classes=3, seed=1)
    back = compare(labels, other, one, num_classes=3, seed=1)
    assert there["p_value"] == back["p_value"]
    assert there["only_one_right"] == back["only_other_right"] > 0
    assert there["differences"]["accuracy"]["value"] == -back["differences"]["accuracy"]["value"]


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 9), (12, 2), (5, 5), (800, 900), (0, 1)])
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, rel=1e-9)
