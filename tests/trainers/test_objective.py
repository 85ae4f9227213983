from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ray

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 40).astype(np.int32)
LOGITS = RNG.normal(0, 2, (40, 4)).astype(np.float32)


def compiled(loss: Any, metrics: Any) -> Any:
    import keras

    from startup_ray.trainers.objective import take_compiled

    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile("sgd", loss, metrics=metrics)
    return take_compiled(model, 4)[0]


def test_cross_entropy_and_its_smoothing_are_those_of_keras() -> None:
    import keras

    from startup_ray.trainers.objective import cross_entropy

    for smoothing in (0.0, 0.2):
        hot = np.eye(4, dtype=np.float32)[LABELS]
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        found = np.asarray(cross_entropy(smoothing).losses(LABELS, LOGITS))
        np.testing.assert_allclose(found, np.asarray(theirs(hot, LOGITS)), rtol=1e-5)


@pytest.mark.parametrize("is_one_hot", [False, True])
def test_metrics_of_parts_add_up_to_those_of_the_whole(is_one_hot: bool) -> None:
    import keras

    kinds = keras.losses, keras.metrics
    loss = (kinds[0].CategoricalCrossentropy if is_one_hot else kinds[0].SparseCategoricalCrossentropy)(
        from_logits=True
    )
    top = kinds[1].TopKCategoricalAccuracy if is_one_hot else kinds[1].SparseTopKCategoricalAccuracy
    metrics = [top(2, name="top2")] + ([kinds[1].F1Score(name="each")] if is_one_hot else [])
    objective = compiled(loss, metrics)
    parts = [np.asarray(objective.states(LABELS[i:j], LOGITS[i:j]), np.float64) for i, j in ((0, 7), (7, 8), (8, 40))]
    found = objective.results(np.sum(parts, axis=0))
    for metric in metrics:
        metric.reset_state()
        metric.update_state(np.eye(4, dtype=np.float32)[LABELS] if is_one_hot else LABELS, LOGITS)
    assert found["top2"] == pytest.approx(float(metrics[0].result()), rel=1e-6)
    if is_one_hot:
        theirs = np.asarray(metrics[1].result())
        assert [found[f"each_{i}"] for i in range(4)] == pytest.approx(theirs.tolist(), rel=1e-6)


def test_a_compiled_loss_is_taken_row_by_row() -> None:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rows = np.asarray(compiled(loss, []).losses(LABELS, LOGITS))
    assert rows.shape == (40,)
    assert rows.mean() == pytest.approx(float(loss(LABELS, LOGITS)), rel=1e-6)


def test_a_metric_of_integers_is_counted_too() -> None:
    import keras

    metric = keras.metrics.MeanIoU(4, sparse_y_pred=False, name="iou")
    objective = compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True), [metric])
    total = sum(np.asarray(objective.states(LABELS[i:j], LOGITS[i:j]), np.float64) for i, j in ((0, 7), (7, 40)))
    metric.reset_state()
    metric.update_state(LABELS, LOGITS)
    assert objective.results(total)["iou"] == pytest.approx(float(metric.result()))


def test_a_value_that_is_no_number_is_left_out() -> None:
    import keras

    metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    objective = compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True), [metric])
    assert objective.results([math.nan] * objective.size) == {}


def test_what_is_counted_anyway_is_not_counted_twice() -> None:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    objective = compiled(loss, ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
    assert [metric.name for metric in objective.metrics] == ["top2"]
