from __future__ import annotations

import pytest

from startup_ray.trainers.worker import is_better


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
