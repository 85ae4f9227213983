"""Long counts, by `make soak` alone: a job killed again and again ends as if it never had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest

from startup_ray.storage import Folder
from startup_ray.trainers.messages import TrainProgress
from tests.ray.desk import Desk
from tests.ray.test_commands import JOB
from tests.ray.training import LONG, dataset_in, fit, results

CHANGE = ["--set", "training.epochs=40", "--set", "training.checkpoint_every_steps=7"]
KILLS = 8


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    moments = random.Random(7)
    desk = Desk(tmp_path)
    resumed = []
    for _ in range(KILLS):
        process = desk.start("run", JOB, *CHANGE, "--json", start_new_session=True)
        try:
            process.wait(moments.uniform(8, 40))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    for _ in range(2):
        code, document, err = desk.run("run", JOB, *CHANGE)
        assert code == 0, err
        resumed.append(document)
    assert resumed[0] == resumed[1]
    code, undisturbed, err = desk.run("run", JOB, *CHANGE, "--fresh")
    assert code == 0, err
    for stage, keys in {
        "ingest": ("digest", "counts", "splits", "classes"),
        "train": ("weights_digest", "metrics", "steps"),
        "evaluate": ("metrics", "intervals", "confusion"),
    }.items():
        for key in keys:
            assert resumed[0]["stages"][stage][key] == undisturbed["stages"][stage][key], key


class Random:
    """Kills a random worker at each of the steps given, once, and keeps when."""

    def __init__(self, moments: random.Random, steps: list[int]) -> None:
        self.moments, self.steps = moments, steps
        self.killed: dict[int, float] = {}
        self.resumed_s: list[float] = []
        self._awaited: tuple[int, ...] = ()

    def __call__(self, progress: TrainProgress) -> None:
        if self._awaited and progress.pids != self._awaited:
            self.resumed_s.append(time.time() - list(self.killed.values())[-1])
            self._awaited = ()
        if self.steps and progress.step >= self.steps[0] and not self._awaited:
            self.steps.pop(0)
            self._awaited = progress.pids
            victim = self.moments.choice(progress.pids)
            self.killed[victim] = time.time()
            os.kill(victim, signal.SIGKILL)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_session")
def test_workers_killed_at_random_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty kills in four runs with all options; prints how long it took to notice and to go on."""
    moments = random.Random(11)
    training = LONG.model_copy(update={"epochs": 60})
    steps = training.epochs * 5
    dataset = dataset_in(Folder(str(tmp_path / "dataset")))
    undisturbed = fit(dataset, Folder(str(tmp_path / "undisturbed")), training=training)
    noticed_s, resumed_s = [], []
    for number, k in enumerate((1, 7, 16, 1)):
        folder = Folder(str(tmp_path / f"run-{number}"))
        killer = Random(moments, sorted(moments.sample(range(1, steps - 40), 5)))
        caplog.clear()
        document = fit(
            dataset,
            folder,
            training=training.model_copy(update={"steps_per_call": k, "checkpoint_every_steps": 7}),
            max_failures=5,
            on_progress=killer,
        )
        setbacks = [record for record in caplog.records if "going on from" in record.message]
        assert (len(killer.killed), len(setbacks), killer.steps) == (5, 5, [])
        noticed_s += [record.created - at for record, at in zip(setbacks, killer.killed.values(), strict=True)]
        resumed_s += killer.resumed_s
        assert document["weights_digest"] == undisturbed["weights_digest"]
        assert results(folder) == results(Folder(str(tmp_path / "undisturbed")))
    with capsys.disabled():
        for name, seconds in (("noticed", noticed_s), ("first progress after", resumed_s)):
            text = ", ".join(f"{value:.2f}" for value in sorted(seconds))
            print(f"\n{len(seconds)} kills, {name}: median {median(seconds):.2f} s of {text}")  # noqa: T201
