"""Laws of training with real workers: real Ray Train, real TensorFlow, real kills. Nets and data are tiny."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from startup_ray.dataset import Dataset
from startup_ray.job import ScalingOptions
from startup_ray.lease import hold
from startup_ray.runs import read_run
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, launch
from startup_ray.trainers.messages import DecodeProgress, Note, TrainProgress
from startup_ray.trainers.preflight import preflight
from startup_ray.trainers.worker import Task
from tests.ray.training import (
    LONG,
    MARKS,
    MODEL,
    STEPS,
    TRAINING,
    WITH_DROPOUT,
    Killer,
    dataset_in,
    fit,
    results,
)
from tests.s3 import s3_server

pytestmark = MARKS


def test_any_worker_count_equals_one_worker(dataset: Dataset, tmp_path: Path) -> None:
    """With all options but dropout, a global batch that the workers do not divide, any number of steps per call."""
    curves, states = [], []
    for workers, k in ((1, 16), (2, 1), (3, 7)):
        folder = Folder(str(tmp_path / str(workers)))
        training = TRAINING.model_copy(update={"steps_per_call": k})
        assert fit(dataset, folder, model=MODEL, training=training, workers=workers)["workers"] == workers
        state = checkpoint.newest(folder, note=pytest.fail)
        assert state is not None
        curves.append(results(folder))
        states.append(state.arrays)
    assert curves[0][-1]["train/loss"] < 0.8 * curves[0][0]["train/loss"]
    for several in (1, 2):
        for line, of_one in zip(curves[several], curves[0], strict=True):
            assert line == pytest.approx(of_one, rel=1e-3, abs=1e-4)
        for array, of_one_worker in zip(states[several], states[0], strict=True):
            np.testing.assert_allclose(array, of_one_worker, rtol=1e-3, atol=1e-3)


@pytest.mark.soak
def test_validation_is_the_same_integers_at_any_worker_count(dataset: Dataset, tmp_path: Path) -> None:
    """Training at a rate too small to change a weight leaves all runs with the weights of the seed."""
    still = TRAINING.model_copy(update={"epochs": 1, "learning_rate": 1e-30, "ema": None})
    model = MODEL.model_copy(update={"batch_norm": False})
    found = []
    for workers in (1, 3):
        folder = Folder(str(tmp_path / str(workers)))
        fit(dataset, folder, model=model, training=still, workers=workers)
        found.append({name: value for name, value in results(folder)[0].items() if name.startswith("val/")})
    assert found[0] == found[1]
    assert found[0]["val/accuracy"] * 570 == pytest.approx(round(found[0]["val/accuracy"] * 570))
    assert 0 < found[0]["val/accuracy"] < 1


def test_what_a_run_leaves_and_says(dataset: Dataset, undisturbed: tuple[dict[str, Any], Folder]) -> None:
    document, folder = undisturbed
    assert read_run(folder).document == document
    assert (document["epochs"], document["steps"], document["resumed_from"]) == (LONG.epochs, STEPS, None)
    assert document["run"] == str(folder)
    assert Path(document["model"]).is_file()
    assert json.loads(folder.read("classes.json")) == list(dataset.classes)
    assert {"last.keras", "model.keras", "LATEST"} <= set(folder.list())
    assert folder.list("tensorboard") == ["events.out.tfevents.0000000001.startup-ray"]
    assert document["step_s"]["total"] >= document["step_s"]["all_reduce"] > 0
    assert 0 <= document["checkpoint_wait_s"] < 60
    assert 0 < document["first_step_s"] < 120
    assert len(folder.list("checkpoints")) == LONG.keep
    assert "ray" not in folder.list()
    assert results(folder)[-1] | document["metrics"] == results(folder)[-1]
    assert set(document["metrics"]) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1"}


@pytest.mark.parametrize(
    ("k", "blows"),
    [
        pytest.param(1, [(1, signal.SIGKILL), (0, signal.SIGKILL)], marks=pytest.mark.soak),
        pytest.param(7, [(0, signal.SIGKILL), (1, signal.SIGSEGV)], marks=pytest.mark.soak),
        (16, [(1, signal.SIGKILL), (0, signal.SIGABRT)]),
    ],
)
def test_killed_workers_cost_no_bit(
    dataset: Dataset,
    undisturbed: tuple[dict[str, Any], Folder],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    k: int,
    blows: list[tuple[int, signal.Signals]],
) -> None:
    folder = Folder(str(tmp_path))
    killer = Killer(blows, after=9)
    training = LONG.model_copy(update={"steps_per_call": k})
    document = fit(dataset, folder, training=training, max_failures=2, on_progress=killer)
    assert not killer.blows
    for restart in (1, 2):
        assert f"its process died; going on from the last checkpoint (restart {restart} of at most 2)" in caplog.text
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]
    assert results(folder) == results(undisturbed[1])


class Fails:
    """Is told the progress on rank 0, and raises once there."""

    def __init__(self, note: Path) -> None:
        self.note = note

    def __call__(self, progress: TrainProgress | DecodeProgress | Note) -> None:
        if isinstance(progress, TrainProgress) and progress.step >= 9 and not self.note.exists():
            self.note.touch()
            raise ValueError("on this rank alone")


def test_an_exception_in_one_rank_costs_no_bit(
    dataset: Dataset, undisturbed: tuple[dict[str, Any], Folder], tmp_path: Path
) -> None:
    folder, note = Folder(str(tmp_path / "run")), tmp_path / "note"
    scaling = ScalingOptions(workers=2, max_failures=1)
    with hold(folder) as lease:
        task = Task(
            dataset=dataset,
            folder=folder,
            fence=lease.fence,
            spec=preflight(dataset, model=WITH_DROPOUT, training=LONG, scaling=scaling, seed=7),
            scaling=scaling,
        )
        document = launch._fit(task, Fails(note))
    assert note.exists()
    assert isinstance(document, dict)
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]
    assert results(folder) == results(undisturbed[1])


@pytest.mark.soak  # checkpoints on such a store are held by tests/test_storage_s3.py
def test_on_an_object_store_a_kill_costs_no_bit_either(undisturbed: tuple[dict[str, Any], Folder]) -> None:
    with s3_server() as server:
        folder = server.folder("runs") / "one"
        killer = Killer([(0, signal.SIGKILL)], after=9)
        document = fit(dataset_in(server.folder("dataset")), folder, training=LONG, max_failures=1, on_progress=killer)
        assert not killer.blows
        assert document["weights_digest"] == undisturbed[0]["weights_digest"]
        assert results(folder) == results(undisturbed[1])
        assert document["model"] == folder.path("model.keras")
        assert {"model.keras", "exit.json", "LATEST"} <= set(folder.list())
        assert len(checkpoint.steps(folder)) == LONG.keep
        assert "ray" not in folder.list()


def test_run_again_it_goes_on_from_the_newest_whole_checkpoint(
    dataset: Dataset,
    undisturbed: tuple[dict[str, Any], Folder],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Folder(str(tmp_path / "run"))
    subprocess.run(["cp", "-r", str(undisturbed[1]), str(folder)], check=True)
    *_, before, last = checkpoint.steps(folder)
    folder.put_whole(f"checkpoints/{last}/variables.npz", folder.read(f"checkpoints/{last}/variables.npz")[:-9])
    document = fit(dataset, folder, training=LONG)
    assert f"checkpoint {last} is damaged" in caplog.text
    assert document["resumed_from"] == before
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]
    assert document["metrics"] == undisturbed[0]["metrics"]
