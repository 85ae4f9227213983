"""Sweeps on a real Ray: nothing is lost whatever is killed, and what a trial finds is what training alone finds."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group_table

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError, RunHeldError, TrainingError, UsageError
from startup_ray.job import Job
from startup_ray.jobfile import load_job
from startup_ray.jobspace import with_values
from startup_ray.runs import EXIT, USED, put_json, read_json
from startup_ray.storage import Folder
from startup_ray.tuning.journal import TRIALS, read_trials
from startup_ray.tuning.messages import SweepProgress
from tests.ray.sweeping import Driver, job_with, replayed, run, told
from tests.ray.training import MARKS, await_until, fit, results
from tests.s3 import s3_server

pytestmark = MARKS

REPLAY = ("sweep.trials=12", "training.epochs=9")
ONE_SLOT = "sweep.slots=1"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "sweep"))


@pytest.fixture(scope="module")
def replay(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An undisturbed sweep of replayed trials, one after the other."""
    folder = Folder(str(tmp_path_factory.mktemp("sweep")))
    run(dataset, folder, job_with(*REPLAY, ONE_SLOT), trains=replayed)
    return folder


def test_a_sweep_from_the_search_to_the_test_split(dataset: Dataset, folder: Folder) -> None:
    seen: list[SweepProgress] = []
    job = job_with("sweep.trials=4", "sweep.confirm=1", "sweep.seeds=2", "sweep.slots=2")
    document = run(dataset, folder, job, on_progress=seen.append)
    trials = read_trials(folder)
    search = [trial for trial in trials if trial.of is None]
    assert len(search) == document["trials"] == 4
    assert Counter(trial.state for trial in search)["finished"] == document["finished"] >= 1
    assert document["finished"] + document["stopped"] == 4
    # Two slots for all trials; between search and confirmation Ray Tune may end one of two idle processes.
    assert 2 <= document["processes"] <= 3
    again = [trial for trial in trials if trial.of is not None]
    assert len(again) == 2
    assert len({trial.seed for trial in again}) == 2
    assert 7 not in {trial.seed for trial in again}
    assert document["best"]["value"] == pytest.approx(document["leaderboard"][0]["mean"])
    assert seen[-1].phase == "confirm"
    assert "trainings with fresh seeds" in seen[-1].text
    _alone_it_is_the_same(dataset, folder, job)
    _files_are_whole(folder, job)


def _alone_it_is_the_same(dataset: Dataset, folder: Folder, job: Job) -> None:
    """The last of the search that has finished, in a process that had trained others before: bit for bit."""
    trial = next(one for one in reversed(read_trials(folder)) if one.state == "finished" and one.of is None)
    own, alone = with_values(job, trial.values), Folder(f"{folder}-alone")
    document = fit(dataset, alone, model=own.model, training=own.training, workers=1)
    in_sweep = read_json(folder / TRIALS / f"{trial.number:05d}", EXIT)
    assert in_sweep["weights_digest"] == document["weights_digest"]
    assert [dict(trial.lines[epoch]) for epoch in sorted(trial.lines)] == [
        {
            **line,
            "seconds": trial.lines[line["epoch"]]["seconds"],
            "images_per_s": trial.lines[line["epoch"]]["images_per_s"],
        }
        for line in results(alone)
    ]


def _files_are_whole(folder: Folder, job: Job) -> None:
    best = load_job(folder.path("best.yaml"))
    assert best.sweep is None
    assert best.name == job.name
    lines = folder.read("trials.csv").decode().splitlines()
    assert len(lines) == 1 + 6
    with sqlite3.connect(folder.path("optuna.sqlite3")) as database:
        assert database.execute("select count(*) from trials").fetchone() == (4,)


def test_a_slot_that_is_killed_costs_no_trial_and_no_bit(dataset: Dataset, folder: Folder, tmp_path: Path) -> None:
    never = Folder(str(tmp_path / "never"))
    each_told = "sweep.epochs=100"  # a budget of epochs: else the fast ones are all told together
    words = (ONE_SLOT, "sweep.trials=2", "sweep.scheduler=none", "training.epochs=6", each_told)
    run(dataset, never, job_with(*words))
    killed: list[int] = []

    def kill(progress: SweepProgress) -> None:
        if not killed and any(epochs >= 2 for _, epochs, _, _ in progress.running):
            used = read_json(folder / TRIALS / f"{progress.running[0][0]:05d}", USED)
            killed.append(used["process"]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    document = run(dataset, folder, job_with(*words), on_progress=kill)
    assert killed
    assert document["processes"] == 2
    assert told(folder) == told(never)
    attempts = [len((folder / TRIALS / f"{n:05d}").list("metrics")) for n in range(2)]
    assert sorted(attempts) == [1, 2]


def test_a_driver_that_is_killed_is_gone_on_with(dataset: Dataset, folder: Folder, replay: Folder) -> None:
    scene = Scene(dataset, folder, replay, [*REPLAY, ONE_SLOT], replays=True)
    scene.play([(0.5, "driver")])
    assert told(folder) == told(replay)
    assert _epochs_trained_again(folder) <= 1


def test_a_sweep_that_another_process_takes_over_ends_and_says_so(dataset: Dataset, folder: Folder) -> None:
    def take_over(progress: SweepProgress) -> None:
        if progress.done == 1:
            record = read_json(folder, "lease/1.json")
            put_json(folder, "lease/2.json", {**record, "nonce": "other"})

    with pytest.raises(RunHeldError, match="has taken over this folder"):
        run(dataset, folder, job_with(ONE_SLOT), trains=replayed, on_progress=take_over)


@pytest.mark.soak
def test_on_an_object_store_it_is_the_same(dataset: Dataset, replay: Folder) -> None:
    with s3_server() as server:
        place = server.folder("sweeps") / "one"
        run(dataset, place, job_with(*REPLAY, ONE_SLOT), trains=replayed)
        assert told(place) == told(replay)


def test_processes_are_made_new_before_they_grow(dataset: Dataset, folder: Folder) -> None:
    document = run(dataset, folder, job_with(ONE_SLOT), trains=replayed, trials_per_process=2)
    assert document["trials"] == 6
    assert document["processes"] == 3


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_kills_at_twenty_random_moments(dataset: Dataset, folder: Folder, replay: Folder) -> None:
    rng = random.Random(8)
    for i in range(10):
        scene = Scene(dataset, folder / str(i), replay, [*REPLAY, ONE_SLOT], replays=True)
        scene.play(sorted((rng.random(), rng.choice(["driver", "slot"])) for _ in range(2)))
        assert told(scene.folder) == told(replay)
        assert _epochs_trained_again(scene.folder) <= 2


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_kills_of_real_training_cost_no_bit(dataset: Dataset, folder: Folder, tmp_path: Path) -> None:
    never = Folder(str(tmp_path / "never"))
    words = [ONE_SLOT, "sweep.trials=6", "training.epochs=9", "sweep.confirm=1", "sweep.seeds=2"]
    run(dataset, never, job_with(*words))
    scene = Scene(dataset, folder, never, words, replays=False)
    scene.play([(0.2, "driver"), (0.5, "slot"), (0.8, "driver")])
    assert told(folder) == told(never)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_nested_trial_that_is_killed_frees_what_it_had(dataset: Dataset, folder: Folder) -> None:
    total = ray.cluster_resources()["CPU"]
    killed: list[int] = []

    def kill(progress: SweepProgress) -> None:
        if not killed and any(epochs >= 1 for _, epochs, _, _ in progress.running):
            killed.extend(one.pid for one in psutil.process_iter() if one.name().startswith("ray::TrialProce"))
            os.kill(killed[0], signal.SIGKILL)

    words = ("sweep.trial=nested", "sweep.trials=2", "sweep.scheduler=none", "training.epochs=6", "scaling.workers=3")
    run(dataset, folder, job_with(*words), on_progress=kill)
    assert killed
    assert [(trial.state, trial.epochs) for trial in read_trials(folder)] == [("finished", 6)] * 2
    await_until(lambda: ray.available_resources().get("CPU", 0) == total, limit_s=10)


@dataclass
class Scene:
    """A sweep in processes of its own, beside one that nobody disturbs."""

    dataset: Dataset
    folder: Folder
    undisturbed: Folder
    words: Sequence[str]
    replays: bool

    def play(self, blows: Sequence[tuple[float, str]]) -> None:
        """Kill the driver, or the process that trains, at these shares of all epochs; then go on to the end."""
        total = sum(trial.epochs for trial in read_trials(self.undisturbed))
        for share, what in blows:
            driver = Driver(self.dataset, self.folder, self.words, replays=self.replays)
            await_until(partial(self._has_come_to, driver, int(share * total)))
            if what == "driver":
                driver.kill()
            else:
                self._kill_slot()
                driver.document()
        Driver(self.dataset, self.folder, self.words, replays=self.replays).document()

    def _has_come_to(self, driver: Driver, epochs: int) -> bool:
        return sum(trial.epochs for trial in read_trials(self.folder)) >= epochs or driver.process.poll() is not None

    def _kill_slot(self) -> None:
        for trial in read_trials(self.folder):
            used = read_json(self.folder / TRIALS / f"{trial.number:05d}", USED)
            if trial.state == "running" and used:
                with suppress(ProcessLookupError):
                    os.kill(used["process"]["pid"], signal.SIGKILL)


def _epochs_trained_again(folder: Folder) -> int:
    again = 0
    for trial in read_trials(folder):
        place = folder / TRIALS / f"{trial.number:05d}"
        lines = [name for pid in place.list("attempts") for name in (place / f"attempts/{pid}").list("metrics")]
        again += len(lines) - trial.epochs
    return again


def test_nested_trials_free_all_they_had_stopped_or_not(dataset: Dataset, folder: Folder) -> None:
    total = ray.cluster_resources()["CPU"]
    words = ("sweep.space={training.learning_rate: 'choice(1e-2, 1e-7)'}", "sweep.searcher=grid", ONE_SLOT)
    more = ("sweep.trial=nested", "sweep.metric=val/loss", "training.monitor=val/loss")
    document = run(dataset, folder, job_with(*words, *more))
    await_until(lambda: ray.available_resources().get("CPU", 0) == total, limit_s=10)
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert [(trial.state, trial.epochs) for trial in read_trials(folder)] == [("finished", 3), ("stopped", 1)]
    assert document["best"]["values"] == {"training.learning_rate": 1e-2}
    used = read_json(folder / TRIALS / "00001", USED)
    assert used["training"]["learning_rate"] == 1e-7


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (("sweep.metric=val/precision",), UsageError, "training reports no metric 'val/precision'"),
        (("sweep.epochs=2",), UsageError, "a single trial takes 3: none would finish"),
        (("sweep.test=true", "sweep.confirm=1"), UsageError, "sweep.test needs a test split, and there is none"),
        (("sweep.trial=nested", "scaling.workers=9"), ClusterError, "training asks for 9 CPUs"),
        (("scaling.gpus_per_worker=0.5", "scaling.gpu_memory=1GB"), ClusterError, "but TensorFlow sees none there"),
        (("sweep.budget=0.001s",), TrainingError, "the budget has ended the search before a trial had finished"),
    ],
)
def test_what_cannot_be_is_told(
    dataset: Dataset, folder: Folder, words: tuple[str, ...], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        run(dataset, folder, job_with(*words), trains=replayed)
    assert text in str(caught.value)


def test_bad_trials_are_told_and_the_others_go_on(dataset: Dataset, folder: Folder) -> None:
    words = (
        "sweep.space={training.learning_rate: 'choice(1e-3, 1e30)', model.filters: 'choice([4], [4, 4, 4, 4, 4])'}",
        "sweep.searcher=grid",
        "sweep.scheduler=none",
        "training.epochs=1",
        ONE_SLOT,
    )
    document = run(dataset, folder, job_with(*words))
    states = {(t.values["training.learning_rate"], len(t.values["model.filters"])): t for t in read_trials(folder)}
    assert states[0.001, 1].state == "finished"
    assert states[1e30, 1].state == "diverged"
    assert "not finite" in states[1e30, 1].reason
    assert states[0.001, 5].state == "failed"
    assert "too small for 5 convolutions" in states[0.001, 5].reason
    assert document["best"]["trial"] == states[0.001, 1].number
