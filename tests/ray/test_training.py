"""Laws of training with real workers: real Ray Train, real TensorFlow, real kills. Nets and data are tiny."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError, RunHeldError, TrainingError, UsageError
from startup_ray.job import AugmentOptions, CnnOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import hold
from startup_ray.progress import ignore
from startup_ray.runs import read_run
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, launch
from startup_ray.trainers.messages import DecodeProgress, Note, TrainProgress
from startup_ray.trainers.worker import Task
from tests.fakes import make_dataset, patterns
from tests.s3 import s3_server

pytestmark = [
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Dataset:
    """209 labelled rows to train on, and batches of validation for three workers, the last of them short."""
    return dataset_in(Folder(str(tmp_path_factory.mktemp("dataset"))))


def dataset_in(folder: Folder) -> Dataset:
    images, names = patterns(820)
    labels: list[str | None] = [None if i % 20 == 0 else name for i, name in enumerate(names)]
    return make_dataset(folder, images, labels, ["train"] * 220 + ["val"] * 600)


def fit(
    dataset: Dataset,
    folder: Folder,
    *,
    model: CnnOptions = WITH_DROPOUT,
    training: TrainingOptions = TRAINING,
    workers: int = 2,
    max_failures: int = 0,
    on_progress: Callable[[TrainProgress], None] = ignore,
    wait_s: float = launch.FREE_CPUS_S,
) -> dict[str, Any]:
    with hold(folder) as lease:
        return launch.train(
            dataset,
            folder,
            lease.fence,
            model=model,
            training=training,
            scaling=ScalingOptions(workers=workers, max_failures=max_failures),
            seed=7,
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


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Folder]:
    """The long run with two workers."""
    folder = Folder(str(tmp_path_factory.mktemp("run")))
    return fit(dataset, folder, training=LONG), folder


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


def test_validation_is_the_same_integers_at_any_worker_count(dataset: Dataset, tmp_path: Path) -> None:
    """Training at a rate too small to change a weight leaves all runs with the weights of the seed."""
    still = TRAINING.model_copy(update={"epochs": 1, "learning_rate": 1e-30, "ema": None})
    model = MODEL.model_copy(update={"batch_norm": False})
    found = []
    for workers in (1, 2, 3):
        folder = Folder(str(tmp_path / str(workers)))
        fit(dataset, folder, model=model, training=still, workers=workers)
        found.append({name: value for name, value in results(folder)[0].items() if name.startswith("val/")})
    assert found[0] == found[1] == found[2]
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
        (1, [(1, signal.SIGKILL), (0, signal.SIGKILL)]),
        (7, [(0, signal.SIGKILL), (1, signal.SIGSEGV)]),
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
    with hold(folder) as lease:
        task = Task(
            dataset=dataset,
            folder=folder,
            fence=lease.fence,
            model=WITH_DROPOUT,
            training=LONG,
            scaling=ScalingOptions(workers=2, max_failures=1),
            seed=7,
        )
        document = launch._fit(task, Fails(note))
    assert note.exists()
    assert isinstance(document, dict)
    assert document["weights_digest"] == undisturbed[0]["weights_digest"]
    assert results(folder) == results(undisturbed[1])


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
    launch.preflight(dataset, model=model, training=training, scaling=scaling)


def test_too_little_data_is_told_with_the_way_out(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="global_batch is 210, the train split has 209 labelled rows") as caught:
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
    with pytest.raises(ClusterError, match=r"asks for 6 CPUs \(3 workers of 2\), the cluster has 4"):
        check(dataset, training=TRAINING, scaling=scaling)


def test_too_many_poolings_are_told_before_anything_starts(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="8x8 pixels are too small"):
        check(dataset, training=TRAINING, scaling=ScalingOptions(), model=CnnOptions(filters=(4, 4, 4)))


def test_the_driver_never_imports_tensorflow() -> None:
    code = "import sys, startup_ray.trainers.launch; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
