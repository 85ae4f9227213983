"""What the tests of sweeps share: a job over a small dataset, trials that replay a curve, and sweeps in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from startup_ray.dataset import Dataset, read_dataset
from startup_ray.job import Job
from startup_ray.jobfile import parse_job
from startup_ray.jobspace import with_values
from startup_ray.lease import hold
from startup_ray.runs import USED, put_json, read_history
from startup_ray.storage import Folder
from startup_ray.tuning.journal import Trial, read_trials
from startup_ray.tuning.sweep import sweep
from startup_ray.tuning.trial import Terms, Turns
from tests.tuning.made import write_line

ROOT = Path(__file__).parents[2]
JOB = """
name: bands
seed: 7
ingest: {manifest: nowhere.json}
model: {filters: [4], dense: 8}
training: {epochs: 3, global_batch: 35, steps_per_call: 2, checkpoint_every_steps: 4}
scaling: {workers: 2, max_failures: 2}
sweep:
  trials: 6
  confirm: 0
  space:
    training.learning_rate: loguniform(1e-4, 1e-1)
    model.dense: int(4, 16)
"""


def job_with(*words: str) -> Job:
    return parse_job(JOB, set=words)


def run(dataset: Dataset, folder: Folder, job: Job, **more: Any) -> dict[str, Any]:
    """A sweep in this process."""
    with hold(folder) as lease:
        return sweep(dataset, folder, lease.fence, job=job, **more)


def told(folder: Folder) -> list[tuple[Any, ...]]:
    """What must not depend on time."""
    return [
        (trial.number, trial.values, trial.seed, trial.of, trial.state, trial.curve("val/f1", "val/f1"))
        for trial in read_trials(folder)
    ]


def replayed(terms: Terms, trial: Trial, place: Folder, mark: int) -> tuple[int, Turns]:
    """A trial that trains nothing, but writes what a real one writes, a line in 50 ms."""

    def turns() -> Turns:
        job = with_values(terms.job, trial.values).model_dump(mode="json")
        used = {"seed": trial.seed, "epochs": terms.job.training.epochs, "process": {"pid": os.getpid()}}
        put_json(place, USED, job | used)
        reach = 1 - abs(trial.values["training.learning_rate"] - 0.01) - trial.values["model.dense"] / 100
        for epoch in range(len(read_history(place)) + 1, terms.job.training.epochs + 1):
            time.sleep(0.05)
            line = {"epoch": epoch, "val/f1": reach * (1 - 0.5**epoch), "val/loss": 1.0, "seconds": 0.05}
            write_line(place, line)
            write_line(place / f"attempts/{os.getpid()}", line)
            yield line
        return {}

    return terms.job.training.epochs, turns()


class Driver:
    """A sweep in a process of its own, on the Ray of this one."""

    def __init__(self, dataset: Dataset, folder: Folder, words: Sequence[str], *, replays: bool) -> None:
        address = ray.get_runtime_context().gcs_address
        order = json.dumps([address, str(dataset.folder), str(folder), list(words), replays])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray.sweeping", order],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def document(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err[-3000:]
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def main(order: str) -> None:
    address, dataset, folder, words, replays = json.loads(order)
    ray.init(address=address, log_to_driver=False)
    more = {"trains": replayed} if replays else {}
    document = run(read_dataset(Folder(dataset)), Folder(folder), job_with(*words), **more)
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
