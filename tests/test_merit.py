from __future__ import annotations

import pytest

from startup_ray.merit import is_better, is_lower_better, kept


def line(f1: float, loss: float) -> dict[str, float]:
    return {"val/f1": f1, "val/loss": loss}


@pytest.mark.parametrize(
    ("now", "best", "monitor", "better"),
    [
        (line(0.9, 2.0), line(0.8, 1.0), "val/f1", True),
        (line(0.8, 1.0), line(0.9, 2.0), "val/f1", False),
        (line(0.9, 1.0), line(0.9, 2.0), "val/f1", True),
        (line(0.9, 1.0), line(0.9, 1.0), "val/f1", False),
        (line(0.8, 1.0), line(0.9, 2.0), "val/loss", True),
        (line(0.0, 9.0), {}, "val/f1", True),
        ({}, {}, "val/f1", False),
    ],
)
def test_the_best_epoch(now: dict[str, float], best: dict[str, float], monitor: str, better: bool) -> None:
    assert is_better(now, best, monitor) is better


@pytest.mark.parametrize(("metric", "lower"), [("val/loss", True), ("val/fid", True), ("val/f1", False)])
def test_which_metrics_are_better_when_lower(metric: str, lower: bool) -> None:
    assert is_lower_better(metric) is lower


def test_a_trial_is_judged_by_the_model_that_it_would_keep() -> None:
    lines = [
        {"epoch": 1, "val/f1": 0.5, "val/accuracy": 0.6, "val/loss": 1.0},
        {"epoch": 2, "val/f1": 0.4, "val/accuracy": 0.9, "val/loss": 1.0},
        {"epoch": 3, "val/f1": 0.7, "val/accuracy": 0.8, "val/loss": 1.0},
    ]
    assert kept(lines, "val/f1", "val/accuracy") == ((1, 0.6), (2, 0.6), (3, 0.8))
    assert kept(lines, "val/loss", "val/f1") == ((1, 0.5), (2, 0.5), (3, 0.5))


def test_epochs_before_the_first_look_have_no_value() -> None:
    lines: list[dict[str, float]] = [
        {"epoch": 1, "train/loss": 3.0},
        {"epoch": 2, "val/fid": 9.0},
        {"epoch": 3},
        {"epoch": 4, "val/fid": 7.0},
    ]
    assert kept(lines, "val/fid", "val/fid") == ((2, 9.0), (3, 9.0), (4, 7.0))
