"""Sweeps made by hand, for reports of them: the journal as files, and the document as `results.finish` writes it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from startup_ray import runs
from startup_ray.dataset import Dataset
from startup_ray.job import Job
from startup_ray.report.sweep_data import read_sweep
from startup_ray.storage import Folder
from startup_ray.tuning.journal import END, TRIAL, TRIALS
from startup_ray.tuning.leaderboard import places
from tests.report.made import JOB

SPACE = {
    "training.learning_rate": "loguniform(1e-4, 1e-1)",
    "training.optimizer": "choice(adam, sgd)",
    "training.optimizer_args.momentum": "uniform(0.5, 0.99) if training.optimizer == sgd",
    "model.filters": "choice([8], [16, 32])",
    "model.dense": "logint(16, 256)",
}
EPOCHS = 3
BEST = ({"training.learning_rate": 0.01, "training.optimizer": "adam", "model.filters": [8], "model.dense": 64}, 0.95)
SEEDS = (101, 102, 103)


def sweep_in(
    folder: Folder,
    *,
    space: Mapping[str, str] = SPACE,
    model: Mapping[str, Any] | None = None,
    dataset: Dataset | None = None,
    **options: Any,
) -> Folder:
    """One that has begun, without a trial.

    Args:
        model: of the job.
        options: of its sweep.
    """
    monitor = {} if model else {"monitor": "val/f1"}
    job = JOB | {"training": {"epochs": EPOCHS, **monitor}, "sweep": {"space": dict(space), **options}}
    job |= {"ingest": {"manifest": "sample:digits"}, "model": dict(model or {"kind": "cnn"})}
    folder.put_whole(runs.JOB, yaml.safe_dump(job, sort_keys=False).encode())
    runs.put_json(folder, runs.ENVIRONMENT, {"versions": {"keras": "3.15.1"}, "python": "3.11.7"})
    if dataset is not None:
        runs.put_json(folder, runs.DATASET, {"dataset": str(dataset.folder)})
    return folder


def trial_in(
    sweep: Folder,
    number: int,
    values: Mapping[str, Any],
    scores: Sequence[float],
    *,
    state: str = "finished",
    reason: str = "",
    seed: int = 7,
    of: int | None = None,
    metric: str = "val/f1",
) -> None:
    """A trial with a score after each of its epochs; `running` ones have not ended."""
    place = sweep / TRIALS / f"{number:05d}"
    runs.put_json(place, TRIAL, {"number": number, "values": dict(values), "seed": seed, "of": of})
    lines = [
        {"epoch": epoch, "seconds": 0.5, "val/loss": 1 / epoch, metric: score}
        for epoch, score in enumerate(scores, start=1)
    ]
    place.put_whole("metrics/0001.jsonl", "\n".join(json.dumps(line) for line in lines).encode())
    if state != "running":
        runs.put_json(place, END, {"state": state, "reason": reason, "start_s": 1.25})


def searched(sweep: Folder) -> None:
    """Four trials: two that finished, one that fell behind, one that diverged."""
    values, best = BEST
    sgd = {"training.learning_rate": 0.05, "training.optimizer": "sgd", "training.optimizer_args.momentum": 0.9}
    trial_in(sweep, 0, sgd | {"model.filters": [16, 32], "model.dense": 32}, [0.5, 0.8, 0.9])
    trial_in(sweep, 1, values, [0.6, 0.9, best])
    trial_in(sweep, 2, values | {"training.learning_rate": 0.0001}, [0.1], state="stopped", reason="asha")
    reason = "the loss is not finite\nat step 12"
    trial_in(sweep, 3, values | {"training.learning_rate": 0.1}, [float("nan")], state="diverged", reason=reason)


def confirmed(sweep: Folder, scores: Mapping[int, Sequence[float]], *, first: int = 4) -> None:
    """Trainings with fresh seeds: of each trial, what they have reached."""
    number = first
    for of, reached in scores.items():
        values = runs.read_json(sweep / TRIALS / f"{of:05d}", TRIAL)["values"]
        for seed, score in zip(SEEDS, reached, strict=False):
            trial_in(sweep, number, values, [0.5, 0.7, score], seed=seed, of=of)
            number += 1


def finished(sweep: Folder, **changes: Any) -> None:
    """Write the document that a sweep ends with, made of its trials."""
    runs.put_json(sweep, runs.EXIT, {"sweep": str(sweep), "best": {}})
    found = read_sweep(sweep)
    assert found is not None
    again = places(found.ranked, found.again, found.measure)
    best: dict[str, Any] = {"trial": found.ranked[0].number, "values": found.ranked[0].values}
    best |= {"value": found.measure.score(found.ranked[0])}
    if again:
        as_good = [place.trial for place in again[1:] if place.is_noise is not False]
        best = {"trial": again[0].trial, "values": again[0].values, "value": again[0].mean, "as_good": as_good}
        best |= {"interval": again[0].interval, "found": again[0].found}
    document = {
        "sweep": str(sweep),
        "metric": found.measure.metric,
        "mode": found.measure.mode,
        "seconds": 188.4,
        "processes": 4,
        "best": best,
        "leaderboard": [{**asdict(place), "mean": place.mean, "is_noise": place.is_noise} for place in again],
        "importance": {},
        "test": {},
    }
    runs.put_json(sweep, runs.EXIT, document | changes)
    runs.put_json(sweep, "spent.json", {"seconds": 66.4})


def many(sweep: Folder, count: int, *, metric: str = "val/f1", seed: int = 0) -> None:
    """That many trials, of which a third finish, drawn from the space of the sweep's job."""
    rng = random.Random(seed)
    options = Job.model_validate(yaml.safe_load(sweep.read(runs.JOB))).sweep
    assert options is not None
    for number in range(count):
        values: dict[str, Any] = {}
        for axis in options.axes:
            if axis.when is None or axis.when.holds(values):
                values[axis.key] = rng.choice(axis.points() or (axis.low, (axis.low + axis.high) / 3, axis.high))
        epochs, state = (EPOCHS, "finished") if number % 3 == 0 else (1, "stopped")
        rising = sorted(rng.uniform(0.1, 0.99) for _ in range(epochs))
        scores = rising if metric != "val/fid" else [400 * (1 - score) for score in rising]
        trial_in(sweep, number, values, scores, state=state, reason="" if epochs > 1 else "asha", metric=metric)
