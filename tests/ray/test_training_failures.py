"""What goes wrong in training, or cannot begin, and how it is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError, RunHeldError, TrainingError, UsageError
from startup_ray.job import CnnOptions, ScalingOptions, TrainingOptions
from startup_ray.runs import read_run
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from startup_ray.trainers.messages import TrainProgress
from startup_ray.trainers.preflight import preflight
from tests.fakes import make_dataset, patterns
from tests.ray.training import (
    LONG,
    MARKS,
    MODEL,
    TRAINING,
    Killer,
    await_until,
    fit,
    is_gone,
)

pytestmark = MARKS


def test_a_worker_that_always_dies_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        fit(dataset, Folder(str(tmp_path)), training=LONG, on_progress=Killer([(1, signal.SIGKILL)], after=5))
    assert re.fullmatch(r"worker 1 \(process \d+ on [\d.:a-f]+\) failed: its process died", caught.value.message)
    assert "again" in caught.value.hint
    assert caught.value.__cause__ is not None


def test_one_failure_more_than_allowed_ends_the_run(dataset: Dataset, tmp_path: Path) -> None:
    killer = Killer([(1, signal.SIGKILL)] * 3, after=5)
    with pytest.raises(TrainingError, match="its process died"):
        fit(dataset, Folder(str(tmp_path)), training=LONG, max_failures=1, on_progress=killer)
    assert len(killer.blows) == 1


def test_a_worker_that_hangs_is_killed_and_replaced(
    dataset: Dataset,
    undisturbed: tuple[dict[str, Any], Folder],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killer = Killer([(1, signal.SIGSTOP)], after=9)
    document = fit(dataset, Folder(str(tmp_path)), training=LONG, max_failures=1, on_progress=killer)
    assert re.search(r"worker 1.* failed: it does not answer any more", caplog.text)
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]
    await_until(lambda: all(is_gone(pid) for pid in killer.struck))


def test_a_run_that_another_process_takes_over_ends_on_all_workers(dataset: Dataset, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    pids: set[int] = set()

    def take_over(progress: TrainProgress) -> None:
        pids.update(progress.pids)
        record = json.loads(folder.read("lease/1.json"))
        folder.put_whole("lease/2.json", json.dumps({**record, "nonce": "another"}).encode())

    with pytest.raises(RunHeldError, match="has taken over this folder"):
        fit(dataset, folder, training=LONG.model_copy(update={"epochs": 5000}), on_progress=take_over)
    assert len(pids) == 2
    await_until(lambda: all(is_gone(pid) for pid in pids))


def test_cpus_that_other_work_holds_are_told_before_anything_starts(dataset: Dataset, tmp_path: Path) -> None:
    holder: Any = ray.remote(num_cpus=3)(Holder).remote()
    try:
        ray.get(holder.__ray_ready__.remote())
        with pytest.raises(ClusterError, match="training needs 2 CPUs, only 1 were free for 1 s"):
            fit(dataset, Folder(str(tmp_path)), wait_s=1)
    finally:
        ray.kill(holder)
    await_until(lambda: ray.available_resources().get("CPU") == 4)


class Holder:
    """Holds what it is given."""


def test_divergence_names_the_step_and_keeps_no_bad_weights(dataset: Dataset, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    wild = TRAINING.model_copy(update={"learning_rate": 1e30, "checkpoint_every_steps": 1})
    with pytest.raises(TrainingError, match=r"training diverged: .* step \d+"):
        fit(dataset, folder, training=wild, max_failures=3)
    assert not read_run(folder).is_finished
    found = checkpoint.newest(folder, note=pytest.fail)
    assert found is None or all(abs(array).max() < float("inf") for array in found.arrays)


def test_ctrl_c_ends_all_workers(dataset: Dataset, tmp_path: Path) -> None:
    pids: set[int] = set()
    pressed: list[float] = []

    def press(progress: TrainProgress) -> None:
        pids.update(progress.pids)
        if not pressed:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(dataset, Folder(str(tmp_path)), training=LONG.model_copy(update={"epochs": 5000}), on_progress=press)
    assert time.monotonic() - pressed[0] < 15
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(pids) == 2
    await_until(lambda: all(is_gone(pid) for pid in pids))
    await_until(lambda: ray.available_resources().get("CPU") == 4)


def check(dataset: Dataset, *, training: TrainingOptions, scaling: ScalingOptions, model: CnnOptions = MODEL) -> None:
    preflight(dataset, model=model, training=training, scaling=scaling, seed=7)


def test_too_little_data_is_told_with_the_way_out(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="global_batch is 210, the train split has 209 rows to train on") as caught:
        check(dataset, training=TrainingOptions(global_batch=210), scaling=ScalingOptions())
    assert "209 or less" in caught.value.hint
    check(dataset, training=TrainingOptions(global_batch=209), scaling=ScalingOptions())
    with pytest.raises(UsageError, match="global_batch is 3, too few for 4 workers"):
        check(dataset, training=TrainingOptions(global_batch=3), scaling=ScalingOptions(workers=4))


@pytest.mark.parametrize(("labels", "told"), [([None] * 9, "no labels"), (["a"] * 9, "only the class 'a'")])
def test_nothing_to_tell_apart(tmp_path: Path, labels: list[str | None], told: str) -> None:
    images, _ = patterns(9)
    dataset = make_dataset(Folder(str(tmp_path)), images, labels, ["train"] * 9)
    with pytest.raises(UsageError, match=told):
        check(dataset, training=TrainingOptions(global_batch=4), scaling=ScalingOptions())


def test_too_many_cpus_are_told_before_anything_waits(dataset: Dataset) -> None:
    scaling = ScalingOptions(workers=3, threads_per_worker=2)
    with pytest.raises(ClusterError, match=r"asks for 6 CPUs \(3 workers of 2 CPU\), the cluster has 4 CPUs"):
        check(dataset, training=TRAINING, scaling=scaling)


def test_too_many_poolings_are_told_before_anything_starts(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="8x8 pixels are too small"):
        check(dataset, training=TRAINING, scaling=ScalingOptions(), model=CnnOptions(filters=(4, 4, 4)))


def test_the_driver_never_imports_tensorflow() -> None:
    code = "import sys, startup_ray.trainers.launch; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
