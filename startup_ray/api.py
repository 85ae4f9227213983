"""The public verbs: take the job apart, find the folder, hold its lease, hand each stage its own section.

    job = load_job("jobs/digits-cnn.yaml", set=["training.epochs=3"])
    with connect():
        dataset = ingest_images(job)
        run = train_model(dataset, job)
        scores = evaluate_model(run, dataset, job)
    write_report([run], "report.html")

From here down: `ingest/pipeline.py`, `trainers/launch.py`, `evaluate.py`, `report/`. Each verb finds what is
finished and returns it at once; with `fresh` it starts anew in a new folder.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from startup_ray import runs
from startup_ray.dataset import Dataset, read_dataset, require_success
from startup_ray.errors import UsageError
from startup_ray.job import Job
from startup_ray.lease import hold
from startup_ray.manifest import manifest_digest, require_manifest
from startup_ray.runs import Run
from startup_ray.storage import Folder

log = logging.getLogger("startup_ray")

STAGES = ("ingest", "train", "evaluate", "report")
State = Literal["finished", "resumes", "new", "waits"]


def ignore(_: Any) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Step:
    """What one stage of a job would do now."""

    stage: str
    state: State
    folder: str
    """Empty while it depends on a stage that has not run."""


def ingest_images(job: Job, *, fresh: bool = False, on_progress: Callable[[Any], None] = ignore) -> Dataset:
    """Fetch and decode what the manifest names, with a ledger of every item.

    Args:
        job: its `ingest` section, `name` and `storage` are used.
        fresh: begin a new dataset folder even if one is there.
        on_progress: called with `ingest.pipeline.Progress` as items end.

    Raises:
        ManifestError: the manifest cannot be read.
        DataError: fewer items than `min_success` arrived; dataset and ledger are kept.
        StorageError: storage cannot be used, or another process writes this dataset.
    """
    folder = dataset_folder(job, fresh=fresh)
    found = _current(job, _finished(folder))
    if found is None:
        from startup_ray.ingest.pipeline import ingest
        from startup_ray.session import require_storage

        require_storage(folder)
        with hold(folder) as lease:
            found = ingest(job.ingest, folder, lease.fence, on_progress=on_progress)
    else:
        _say_finished("ingest", folder)
    require_success(found, job.ingest.min_success)
    return found


def train_model(dataset: Dataset, job: Job, *, fresh: bool = False, on_progress: Callable[[Any], None] = ignore) -> Run:
    """Train `job.model` on `job.scaling.workers` workers, or go on from the last checkpoint.

    Args:
        dataset: what `ingest_images` returned.
        job: its `model`, `training`, `scaling`, `seed`, `name` and `storage` are used.
        fresh: begin a new run folder even if one is there.
        on_progress: called with `trainers.launch.TrainProgress`.

    Raises:
        UsageError: the data does not fit the job: fewer rows than a global batch, no labels.
        ClusterError: the cluster has not what the job asks for.
        TrainingError: a worker failed more than `max_failures` times, or the loss is not finite.
    """
    folder = run_folder(dataset, job, fresh=fresh)
    run = runs.read_run(folder)
    if run.is_finished:
        _say_finished("train", folder)
        return run
    from startup_ray.session import require_storage
    from startup_ray.trainers import launch

    launch.preflight(dataset, training=job.training, scaling=job.scaling)
    require_storage(folder)
    with hold(folder) as lease:
        _describe(folder, job, dataset)
        document = launch.train(
            dataset,
            folder,
            lease.fence,
            model=job.model,
            training=job.training,
            scaling=job.scaling,
            seed=job.seed,
            on_progress=on_progress,
        )
    return Run(folder, document)


def evaluate_model(
    run: Run, dataset: Dataset, job: Job, *, split: str = "test", on_progress: Callable[[Any], None] = ignore
) -> dict[str, Any]:
    """Judge the best model of a run on rows that it has not seen.

    Returns:
        The document of `startup-ray evaluate --json`; unmet gates are told in it, not raised.

    Raises:
        UsageError: model and data do not fit together, or the split is empty.
    """
    folder = evaluation_folder(run, dataset, job, split=split)
    found = runs.read_json(folder, runs.EVALUATION)
    if found:
        _say_finished("evaluate", folder)
        return found
    from startup_ray.evaluate import evaluate

    with hold(folder):
        return evaluate(
            run.folder,
            dataset,
            folder,
            options=job.evaluation,
            split=split,
            seed=job.seed,
            on_progress=on_progress,
        )


def write_report(found: Sequence[Run], path: str) -> str:
    """Write one self-contained HTML file about a run, or a comparison of several; returns its path or URI."""
    from startup_ray.report import write_report as write

    return write([run.folder for run in found], path)


def dataset_folder(job: Job, *, fresh: bool = False) -> Folder:
    """Where this job's dataset lies or will lie.

    Raises:
        StorageError: storage that would not outlive the process.
    """
    from startup_ray.session import require_lasting

    require_lasting(job.storage)
    return runs.dataset_folder(job.storage, job.name, runs.dataset_key(job.ingest), fresh=fresh)


def run_folder(dataset: Dataset, job: Job, *, fresh: bool = False) -> Folder:
    """Where this job's training run on this dataset lies or will lie."""
    from startup_ray.session import require_lasting

    require_lasting(job.storage)
    key = runs.run_key(dataset.digest, job.ingest.image, job.model, job.training, job.seed)
    return runs.run_folder(job.storage, job.name, key, fresh=fresh)


def evaluation_folder(run: Run, dataset: Dataset, job: Job, *, split: str = "test") -> Folder:
    """Where the evaluation of this run by these options lies or will lie."""
    return run.folder / "evaluations" / runs.evaluation_key(dataset.digest, split, job.evaluation)


def find_dataset(job: Job) -> Dataset | None:
    """The finished dataset of this job, whether its manifest has changed since or is gone."""
    return _finished(dataset_folder(job))


def find_run(dataset: Dataset, job: Job) -> Run:
    """The newest finished run of this job.

    Raises:
        UsageError: there is none.
    """
    run = runs.read_run(run_folder(dataset, job))
    if not run.is_finished:
        raise UsageError("no finished run of this job", where=str(run.folder), hint="run `startup-ray train JOB` first")
    return run


def plan(job: Job, stages: Sequence[str] = STAGES, *, fresh: bool = False) -> list[Step]:
    """What the stages of this job would do now, from what lies on storage; starts nothing.

    Raises:
        ManifestError: there is something to ingest, and no manifest.
    """
    folder = dataset_folder(job, fresh=fresh and "ingest" in stages)
    dataset = _finished(folder)
    if "ingest" in stages:
        require_manifest(job.ingest.manifest)
        dataset = _current(job, dataset)
    steps = {"ingest": Step("ingest", "finished" if dataset else _begun(folder), str(folder))}
    waits = {stage: Step(stage, "waits", "") for stage in STAGES[1:]}
    if dataset is None:
        return [(steps | waits)[stage] for stage in stages]
    run = runs.read_run(run_folder(dataset, job, fresh=fresh and "train" in stages))
    steps["train"] = Step("train", "finished" if run.is_finished else _begun(run.folder), str(run.folder))
    if run.is_finished:
        judged = evaluation_folder(run, dataset, job)
        state: State = "finished" if runs.read_json(judged, runs.EVALUATION) else "new"
        steps["evaluate"] = Step("evaluate", state, str(judged))
        steps["report"] = Step("report", "new", run.folder.path(runs.REPORT))
    return [(waits | steps)[stage] for stage in stages]


def _finished(folder: Folder) -> Dataset | None:
    return read_dataset(folder) if folder.exists(runs.DATASET) else None


def _current(job: Job, dataset: Dataset | None) -> Dataset | None:
    """The dataset if it is that of the manifest as it is now."""
    is_current = dataset is not None and dataset.manifest_digest == manifest_digest(job.ingest.manifest)
    return dataset if is_current else None


def _begun(folder: Folder) -> State:
    return "resumes" if folder.exists() else "new"


def _describe(folder: Folder, job: Job, dataset: Dataset) -> None:
    """Put beside a run what made it: the resolved job, the software, the dataset."""
    text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)
    folder.put_whole("job.yaml", text.encode())
    runs.put_json(folder, runs.DATASET, {"dataset": str(dataset.folder), "digest": dataset.digest})
    packages = ("startup_ray", "ray", "tensorflow", "keras", "numpy", "pyarrow")
    environment = {
        "versions": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    runs.put_json(folder, "environment.json", environment)


def _say_finished(stage: str, folder: Folder) -> None:
    log.info("%s: finished before, in %s (--fresh starts anew)", stage, folder)
