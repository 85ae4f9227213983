"""What the tests of training share: a small dataset, small nets with all options, runs and kills."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from startup_ray.dataset import Dataset
from startup_ray.job import AugmentOptions, CnnOptions, ModelOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import hold
from startup_ray.progress import ignore
from startup_ray.storage import Folder
from startup_ray.trainers import launch
from startup_ray.trainers.messages import TrainProgress
from startup_ray.trainers.preflight import WAIT_S, preflight
from tests.fakes import make_dataset, patterns

MARKS = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.* is deprecated:Warning:ray.data.context"),  # by its own making
]

MODEL = CnnOptions(filters=(4,), dense=8, batch_norm=True, l2=1e-3)
WITH_DROPOUT = MODEL.model_copy(update={"dropout": 0.3})
TRAINING = TrainingOptions(
    epochs=4,
    global_batch=35,  # which neither 2 nor 3 divide
    learning_rate=0.02,
    schedule="cosine",
    warmup_steps=3,
    clip_norm=1.0,
    ema=0.8,
    augment=AugmentOptions(shift=0.05, rotate_deg=5, zoom=0.05, contrast=0.2),
    steps_per_call=4,
    checkpoint_every_steps=4,
    keep=3,
)
LONG = TRAINING.model_copy(update={"epochs": 12, "steps_per_call": 1})
"""More than a second of steps, so that a kill finds it at work."""
STEPS = LONG.epochs * (209 // 35)


def dataset_in(folder: Folder) -> Dataset:
    images, names = patterns(820)
    labels: list[str | None] = [None if i % 20 == 0 else name for i, name in enumerate(names)]
    return make_dataset(folder, images, labels, ["train"] * 220 + ["val"] * 600)


def fit(
    dataset: Dataset,
    folder: Folder,
    *,
    model: ModelOptions = WITH_DROPOUT,
    training: TrainingOptions = TRAINING,
    workers: int | tuple[int, int] = 2,
    max_failures: int = 0,
    on_progress: Callable[[TrainProgress], None] = ignore,
    wait_s: float = WAIT_S,
    **options: Any,
) -> dict[str, Any]:
    scaling = ScalingOptions(workers=workers, max_failures=max_failures, **options)
    spec = preflight(dataset, model=model, training=training, scaling=scaling, seed=7)
    with hold(folder) as lease:
        return launch.train(
            dataset,
            folder,
            lease.fence,
            spec=spec,
            scaling=scaling,
            on_progress=lambda item: on_progress(item) if isinstance(item, TrainProgress) else None,
            wait_s=wait_s,
        )


def lines(folder: Folder) -> list[dict[str, Any]]:
    """Metrics of all attempts, by epoch; a later attempt's count."""
    found: dict[int, dict[str, Any]] = {}
    for name in folder.list("metrics"):
        for text in folder.read(f"metrics/{name}").decode().splitlines():
            found[json.loads(text)["epoch"]] = json.loads(text)
    return [found[epoch] for epoch in sorted(found)]


def results(folder: Folder) -> list[dict[str, Any]]:
    """The metrics that must not depend on time."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines(folder)]


class Killer:
    """Sends a signal to the worker of a rank, one of `blows` at each attempt, once it has done `after` steps."""

    def __init__(self, blows: list[tuple[int, signal.Signals]], after: int) -> None:
        self.blows, self.after, self.struck = blows, after, set[int]()

    def __call__(self, progress: TrainProgress) -> None:
        if self.blows and progress.step >= self.after and not self.struck & set(progress.pids):
            rank, kind = self.blows.pop(0)
            self.struck |= set(progress.pids)
            os.kill(progress.pids[rank], kind)


def await_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
