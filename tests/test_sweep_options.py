from __future__ import annotations

import pytest

from startup_ray.job import CnnOptions, GanOptions, TrainingOptions
from startup_ray.sweep_options import SweepOptions, metric_of, mode_of


def test_what_is_searched_for_follows_from_the_model() -> None:
    options = SweepOptions(space={"model.dense": "int(1, 2)"})
    training = TrainingOptions(monitor="val/accuracy")
    assert metric_of(options, CnnOptions(), training) == "val/accuracy"
    assert metric_of(options, GanOptions(), training) == "val/fid"
    assert metric_of(options.model_copy(update={"metric": "train/loss"}), CnnOptions(), training) == "train/loss"


@pytest.mark.parametrize(
    ("metric", "mode"), [("val/loss", "min"), ("train/loss", "min"), ("val/fid", "min"), ("val/f1", "max")]
)
def test_the_way_to_search_follows_from_the_metric(metric: str, mode: str) -> None:
    options = SweepOptions(space={"model.dense": "int(1, 2)"})
    assert mode_of(options, metric) == mode
    assert mode_of(options.model_copy(update={"mode": "max"}), metric) == "max"
