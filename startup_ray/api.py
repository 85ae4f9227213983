"""The public verbs: take the job apart, find the folder, hold its lease, hand each stage its own section.

    job = load_job("jobs/digits-cnn.yaml", set=["training.epochs=3"])
    with connect():
        dataset = ingest_images(job)
        run = train_model(dataset, job)
        scores = evaluate_model(run, dataset, job)
    write_report([run], "report.html")

From here down: `ingest/pipeline.py`, `trainers/launch.py`, `evaluate.py`, `report/`. Which folder it is, is
`planning.py`. Each verb finds what is finished and returns it at once; with `fresh` it starts anew in a new folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from startup_ray import runs
from startup_ray.dataset import Dataset, require_success
from startup_ray.errors import UsageError
from startup_ray.job import IngestOptions, Job
from startup_ray.lease import hold
from startup_ray.ledger import NOTHING, Again, count
from startup_ray.planning import (
    current_dataset,
    dataset_folder,
    evaluation_folder,
    finished_sweep,
    job_of,
    judged_by,
    require_finished,
    run_folder,
    sweep_folder,
    winner_of,
)
from startup_ray.progress import Progress, ignore
from startup_ray.provenance import describe
from startup_ray.runs import Run
from startup_ray.storage import Folder, open_folder

log = logging.getLogger("startup_ray")


def ingest_images(
    job: Job,
    *,
    fresh: bool = False,
    again: Again = NOTHING,
    on_progress: Callable[[Progress], None] = ignore,
) -> Dataset:
    """Fetch and decode what the manifest names, with a ledger of every item.

    Args:
        job: its `ingest` section, `name` and `storage` are used.
        fresh: begin a new dataset folder even if one is there.
        again: fetch once more what ended in these states: `failures()`, `failures(["timeout", "http_5xx"])`.
        on_progress: called with `ingest.pipeline.Progress` as items end.

    Raises:
        ManifestError: the manifest cannot be read.
        DataError: fewer items than `min_success` arrived; dataset and ledger are kept.
        StorageError: storage cannot be used, or another process writes this dataset.
    """
    folder = dataset_folder(job, fresh=fresh)
    found = current_dataset(job, folder, again)
    if found is None:
        from startup_ray.ingest.pipeline import ingest
        from startup_ray.session import require_storage

        require_storage(folder)
        with hold(folder) as lease:
            found = ingest(job.ingest, folder, lease.fence, again=again, on_progress=on_progress)
    else:
        _say_finished("ingest", folder)
    require_success(found, job.ingest.min_success)
    return found


def train_model(
    dataset: Dataset, job: Job, *, fresh: bool = False, on_progress: Callable[[Progress], None] = ignore
) -> Run:
    """Train `job.model` on `job.scaling.workers` workers, or go on from the last checkpoint.

    Args:
        dataset: what `ingest_images` returned.
        job: its `model`, `training`, `scaling`, `seed`, `name` and `storage` are used.
        fresh: begin a new run folder even if one is there.
        on_progress: called with `TrainProgress` and `DecodeProgress` of `trainers.messages`, in a thread.

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
    from startup_ray.trainers import checkpoint, launch
    from startup_ray.trainers.preflight import preflight

    spec = preflight(
        dataset,
        model=job.model,
        training=job.training,
        scaling=job.scaling,
        seed=job.seed,
        features=judged_by(job),
        is_begun=folder.exists(checkpoint.LATEST),
    )
    require_storage(folder)
    with hold(folder) as lease:
        describe(folder, job, dataset)
        document = launch.train(
            dataset,
            folder,
            lease.fence,
            spec=spec,
            scaling=job.scaling,
            on_progress=on_progress,
        )
    return Run(folder, document)


def search(dataset: Dataset, job: Job, *, fresh: bool = False, on_progress: Callable[[Progress], None] = ignore) -> Job:
    """Search the space of `job.sweep`, or go on with it; see `search_values`.

    Returns:
        The job with the winning values, and without its sweep: what `train_model` takes.
    """
    return winner_of(job, search_values(dataset, job, fresh=fresh, on_progress=on_progress))


def search_values(
    dataset: Dataset, job: Job, *, fresh: bool = False, on_progress: Callable[[Any], None] = ignore
) -> dict[str, Any]:
    """Search the space of `job.sweep` on the validation split, and train the best again with fresh seeds.

    Args:
        dataset: what `ingest_images` returned.
        job: with a sweep, which is done on `job.scaling`.
        fresh: begin a new sweep folder even if one is there.
        on_progress: called with `tuning.messages.SweepProgress`.

    Returns:
        The document of `startup-ray sweep --json`.

    Raises:
        UsageError: the job has no sweep, its data does not fit, or its budget allows no trial.
        ClusterError: the cluster has not what a trial asks for.
        TrainingError: no trial has finished.
    """
    folder = sweep_folder(dataset, job, fresh=fresh)
    document = finished_sweep(folder, job)
    if document:
        _say_finished("sweep", folder)
        return document
    from startup_ray.session import require_storage
    from startup_ray.tuning.sweep import sweep

    require_storage(folder)
    with hold(folder) as lease:
        describe(folder, job, dataset)
        document = sweep(dataset, folder, lease.fence, job=job, features=judged_by(job), on_progress=on_progress)
        write_report([Run(folder, {})], folder.path(runs.REPORT))
    return document


def evaluate_model(
    run: Run,
    dataset: Dataset,
    job: Job,
    *,
    split: str = "test",
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Judge the best model of a run on rows that it has not seen.

    Args:
        split: train, val or test; of a GAN, whose samples are compared with train and test, none is chosen.
        fresh: score again what was scored before.
        on_progress: called with `progress.Part`.

    Returns:
        The document of `startup-ray evaluate --json`; unmet gates are told in it, not raised.

    Raises:
        UsageError: the run is unfinished, model and data do not fit together, or the split is empty.
    """
    require_finished(run)
    folder = evaluation_folder(run, dataset, job, split=split)
    document = {} if fresh else runs.read_json(folder, runs.EVALUATION)
    if document:
        _say_finished("evaluate", folder)
    else:
        with hold(folder):
            document = _evaluate(run, dataset, job, folder, split, on_progress)
    runs.put_json(run.folder, runs.LAST_EVALUATION, {"key": folder.name})  # the one that a report shows
    return document


def _evaluate(
    run: Run, dataset: Dataset, job: Job, folder: Folder, split: str, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    if run.is_gan:
        from startup_ray.trainers.gan.evaluation import evaluate_gan

        options = job.evaluation.model_copy(update={"features": judged_by(job) or None})
        return evaluate_gan(run.folder, dataset, folder, options=options, seed=job.seed, on_progress=on_progress)
    from startup_ray.evaluate import evaluate

    return evaluate(
        run.folder, dataset, folder, options=job.evaluation, split=split, seed=job.seed, on_progress=on_progress
    )


def require_judgeable(dataset: Dataset, job: Job) -> None:
    """See before an hour of training that there will be something to judge, and gates that can be read.

    Raises:
        UsageError: there will not.
    """
    if job.model.kind == "gan":
        from startup_ray.trainers.gan.evaluation import gates_of

        gates_of(job.evaluation)
        return
    from startup_ray.evaluate import preflight

    preflight(dataset, dataset.classes, job.evaluation)


def write_report(found: Sequence[Run], path: str) -> str:
    """Write one self-contained HTML file about a run, or a comparison of several; returns its path or URI."""
    from startup_ray.report import write_report as write

    return write([run.folder for run in found], path)


def compare_runs(one: Run, other: Run, *, seed: int = 0) -> dict[str, Any]:
    """How much better the other run is than the one, on the rows that both were evaluated on last.

    Args:
        seed: of the bootstrap.

    Returns:
        The document of `startup-ray compare --json`.

    Raises:
        UsageError: a run is not evaluated, or they were judged on different rows.
    """
    from startup_ray.comparison import compare_runs as compare

    return compare(one.folder, other.folder, seed=seed)


def export_model(
    run: Run, *, to: Sequence[str] = ("keras", "savedmodel", "onnx"), out: str | None = None, samples: int = 64
) -> dict[str, Any]:
    """Write the best model of a run in other formats; each is loaded again and compared with it.

    Args:
        to: names of formats: keras, savedmodel, onnx.
        out: a folder or URI, `<run>/exports` by default.
        samples: images that are compared, of the run's dataset or, if it is gone, random.

    Returns:
        The document of `startup-ray export --json`.

    Raises:
        UsageError: the run is unfinished, no such format, one that needs more packages or cannot hold this model.
        StartupRayError: an export says something else than the model, and was deleted again.
    """
    require_finished(run)
    from startup_ray.export import export, find_formats

    target = open_folder(out) if out else run.folder / runs.EXPORTS
    return export(run.folder, target, image=job_of(run).ingest.image, formats=find_formats(to), samples=samples)


def sample_images(run: Run, out: str, *, count: int = 64, label: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Write images that the generator of a run makes, `000000.png` and so on, and `grid.png`.

    Args:
        out: a folder or URI.
        label: the class that is asked for, by its name; without one, each in turn.
        seed: the same seed gives the same images.

    Returns:
        The document of `startup-ray sample --json`.

    Raises:
        UsageError: the run is unfinished or no GAN, or its generator is not asked for such a class.
        StorageError: the folder cannot be written.
    """
    require_finished(run)
    if not run.is_gan:
        raise UsageError("this run is a classifier, which makes no images", where=str(run.folder))
    from startup_ray.trainers.gan.publish import publish

    return publish(run.folder, open_folder(out), count=count, label=label, seed=seed)


def predict_images(
    run: Run,
    targets: Sequence[str],
    *,
    ingest: IngestOptions | None = None,
    out: str | None = None,
    top: int = 3,
    on_progress: Callable[[Progress], None] = ignore,
) -> dict[str, Any]:
    """Label images by the best model of a run.

    Args:
        targets: a manifest (path, URL, sample), or folders and image files.
        ingest: how they are fetched and what they are made into, by default as the run's own images were.
        out: a file to write, .jsonl, .csv or .parquet.
        top: how many classes each prediction names.
        on_progress: called as items end.

    Returns:
        The document of `startup-ray predict --json`; items without a label are told in it, not raised.

    Raises:
        UsageError: the run is unfinished or a GAN, nothing is at a path, or the model does not fit the images.
        ManifestError: the manifest cannot be read.
    """
    require_finished(run)
    if run.is_gan:
        hint = "`startup-ray sample` writes images of it"
        raise UsageError("this run is a GAN, which labels no images", where=str(run.folder), hint=hint)
    from startup_ray.predict import predict
    from startup_ray.predict.table import open_target, plain, write

    target = open_target(out) if out else None
    options = ingest or job_of(run).ingest
    rows = predict(run.folder, targets, options=options, top=top, on_progress=on_progress)
    return {
        "run": str(run.folder),
        "rows": count(row.status for row in rows),
        "classes": count(row.predicted for row in rows if row.predicted is not None),
        "predictions": write(rows, target) if target else [plain(row) for row in rows],
    }


def _say_finished(stage: str, folder: Folder) -> None:
    log.info("%s: finished before, in %s (--fresh starts anew)", stage, folder)
