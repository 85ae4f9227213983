"""Which folders a job's stages work in, and what they would do now. Reads storage, writes and starts nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from startup_ray import runs
from startup_ray.dataset import Dataset, read_dataset, require_one_size
from startup_ray.errors import UsageError
from startup_ray.job import Job, PythonOptions
from startup_ray.jobfile import load_job, parse_job
from startup_ray.jobspace import with_values
from startup_ray.ledger import NOTHING, Again
from startup_ray.manifest import manifest_digest, require_manifest
from startup_ray.runs import Run
from startup_ray.session import require_lasting
from startup_ray.sources import sources_of
from startup_ray.storage import Folder, open_folder
from startup_ray.usercode import locate

STAGES = ("ingest", "sweep", "train", "evaluate", "report")
State = Literal["finished", "resumes", "new", "waits"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one stage of a job would do now."""

    stage: str
    state: State
    folder: str = ""
    """Empty while it depends on a stage that has not run."""
    needs_ray: bool = False


def dataset_folder(job: Job, *, fresh: bool = False) -> Folder:
    """Where this job's dataset lies or will lie.

    Raises:
        StorageError: storage that would not outlive the process.
    """
    require_lasting(job.storage)
    series = _datasets(job)
    return series.next() if fresh else series.newest()


def run_folder(dataset: Dataset, job: Job, *, fresh: bool = False) -> Folder:
    """Where this job's training run on this dataset lies or will lie."""
    require_lasting(job.storage)
    series = _runs(dataset, job)
    return series.next() if fresh else series.newest()


def stages_of(job: Job) -> tuple[str, ...]:
    """What `run` does: no sweep where none is asked for."""
    return tuple(stage for stage in STAGES if stage != "sweep" or job.sweep is not None)


def sweep_folder(dataset: Dataset, job: Job, *, fresh: bool = False) -> Folder:
    """Where this job's sweep on this dataset lies or will lie.

    Raises:
        UsageError: the job has none.
    """
    require_lasting(job.storage)
    series = _sweeps(dataset, job)
    return series.next() if fresh else series.newest()


def finished_sweep(folder: Folder, job: Job) -> dict[str, Any]:
    """The document of a sweep that has done all that the job asks for now; empty if it has not."""
    document = runs.read_json(folder, runs.EXIT)
    is_done = job.sweep is not None and document.get("asked") == runs.extent(job.sweep)
    return document if is_done else {}


def winner_of(job: Job, document: Mapping[str, Any]) -> Job:
    """A job with the values that a sweep of it has found best, and without its sweep."""
    return with_values(job, document["best"]["values"])


def evaluation_folder(run: Run, dataset: Dataset, job: Job, *, split: str = "test") -> Folder:
    """Where the evaluation of this run by these options lies or will lie."""
    return run.folder / "evaluations" / runs.evaluation_key(dataset.digest, split, job.evaluation)


def find_dataset(job: Job) -> Dataset | None:
    """The newest finished dataset of this job, whether its manifest has changed since or is gone."""
    folder = _datasets(job).newest_with(runs.DATASET)
    return read_dataset(folder) if folder else None


def current_dataset(job: Job, folder: Folder, again: Again = NOTHING) -> Dataset | None:
    """The finished dataset in this folder, if it is that of the manifest as it is now and nothing in it is done again.

    Raises:
        ManifestError: there is a dataset, and the manifest cannot be read.
    """
    if not folder.exists(runs.DATASET):
        return None
    dataset = read_dataset(folder)
    if any(again.takes(state) for state in dataset.counts):
        return None
    return dataset if dataset.manifest_digest == manifest_digest(job.ingest.manifest, job.ingest.columns) else None


def find_run(dataset: Dataset, job: Job) -> Run:
    """The newest finished run of this job; of one with a finished sweep, first that of the winner.

    Raises:
        UsageError: there is none.
    """
    winner = _winner(dataset, job)
    for candidate in (winner, job) if winner else (job,):
        folder = _runs(dataset, candidate).newest_with(runs.EXIT)
        if folder is not None:
            return runs.read_run(folder)
    run = runs.read_run(run_folder(dataset, winner or job))
    require_finished(run)
    return run


def need_dataset(job: Job) -> Dataset:
    """The newest finished dataset of this job.

    Raises:
        UsageError: there is none.
    """
    dataset = find_dataset(job)
    if dataset is None:
        where = str(dataset_folder(job))
        raise UsageError("no finished dataset of this job", where=where, hint="run `startup-ray ingest JOB` first")
    return dataset


def is_job_file(target: str) -> bool:
    """Whether a word names a job file, and not the folder of a run."""
    return Path(target).suffix in (".yaml", ".yml")


def named_run(target: str, overrides: Sequence[str] = ()) -> Run:
    """The run in a folder, finished or not, or the newest finished one of a job file.

    Args:
        overrides: of the job file, as `load_job` takes them.

    Raises:
        UsageError: there is none.
    """
    if is_job_file(target):
        job = load_job(target, set=overrides)
        return find_run(need_dataset(job), job)
    run = runs.read_run(open_folder(target))
    if not run.folder.exists(runs.JOB):
        raise UsageError("not the folder of a run", where=target, hint="`startup-ray runs` lists what there is")
    return run


def judged_by(job: Job) -> str:
    """Where what `evaluation.features` names lies; empty if it names nothing.

    Raises:
        UsageError: it names a job without a finished run.
    """
    named = job.evaluation.features
    if not named:
        return ""
    if is_job_file(named):
        return str(named_run(named).folder)
    kind, _, path = named.rpartition("inception:")
    return f"{'inception:' if named != path else kind}{runs.location_of(path)}"


def job_of(run: Run, overrides: Sequence[str] = ()) -> Job:
    """The job that made a run; what its manifest's location hides as a secret is not in it."""
    place = run.folder.path(runs.JOB)
    try:
        return parse_job(run.folder.read(runs.JOB).decode(), set=overrides, path=place)
    except FileNotFoundError:
        raise UsageError("not the folder of a run", where=str(run.folder), hint="it has no job.yaml") from None


def require_finished(run: Run) -> None:
    """Raise UsageError, naming `train`, unless the run is finished."""
    if not run.is_finished:
        raise UsageError("no finished run of this job", where=str(run.folder), hint="run `startup-ray train JOB` first")


def survey_ingest(job: Job, folder: Folder, again: Again = NOTHING) -> dict[str, Any]:
    """Items, hosts and rows to fetch, if the ingest of this job ran now; reads the whole manifest.

    Raises:
        ManifestError: it cannot be read.
    """
    from startup_ray.ingest.chunks import items_per_chunk
    from startup_ray.ingest.plan import plan_manifest, survey
    from startup_ray.ingest.source import open_source

    with open_source(job.ingest.manifest) as source, tempfile.TemporaryDirectory(prefix="startup-ray-") as spool:
        size = items_per_chunk(job.ingest.image)
        sources = sources_of(job.ingest, runs.location_of(job.ingest.manifest))
        planned, _ = plan_manifest(source.location, job.ingest, sources, folder, Folder(spool), size, again)
        return survey(planned, Folder(spool)).document()


def plan(job: Job, stages: Sequence[str] = STAGES, *, fresh: bool = False, again: Again = NOTHING) -> list[Step]:
    """What the stages of this job would do now, from what lies on storage; starts nothing.

    Raises:
        ManifestError: there is something to ingest, and no manifest.
        UsageError: no model can be trained on images of such sizes, which is told before they are fetched.
    """
    if "sweep" in stages and job.sweep is None:
        raise _no_sweep()
    if "train" in stages:
        require_one_size(job.ingest.image.shape, where="ingest.image.resize")
    if "train" in stages and job.model.kind == "gan":
        from startup_ray.trainers.gan.recipes import base_of

        base_of(job.ingest.image.shape)
    if "ingest" in stages:
        folder = dataset_folder(job, fresh=fresh)
        require_manifest(job.ingest.manifest)
        dataset = current_dataset(job, folder, again)
    else:
        dataset = find_dataset(job)
        folder = dataset.folder if dataset else dataset_folder(job)
    state: State = "finished" if dataset else _begun(folder)
    steps = {stage: Step(stage=stage, state="waits") for stage in STAGES}
    steps["ingest"] = Step(stage="ingest", state=state, folder=str(folder), needs_ray=dataset is None)
    found: Job | None = job
    if dataset is not None and "sweep" in stages:
        steps["sweep"], found = _plan_sweep(dataset, job, fresh=fresh)
    if dataset is not None and found is not None:
        job = found
        trained = None if "train" in stages else _runs(dataset, job).newest_with(runs.EXIT)
        run = runs.read_run(trained or run_folder(dataset, job, fresh=fresh and "train" in stages))
        steps |= {step.stage: step for step in _plan_run(job, dataset, run)}
        if fresh and "evaluate" in stages and steps["evaluate"].state == "finished":
            steps["evaluate"] = _plan_evaluation(job, dataset, steps["evaluate"].folder, "new")
    return [steps[stage] for stage in stages]


def _plan_sweep(dataset: Dataset, job: Job, *, fresh: bool) -> tuple[Step, Job | None]:
    """The step, and the job that is trained after it, if that is known."""
    folder = sweep_folder(dataset, job, fresh=fresh)
    document = finished_sweep(folder, job)
    state: State = "finished" if document else _begun(folder)
    step = Step(stage="sweep", state=state, folder=str(folder), needs_ray=not document)
    return step, winner_of(job, document) if document else None


def _winner(dataset: Dataset, job: Job) -> Job | None:
    """The job with the values that its newest finished sweep has found."""
    folder = _sweeps(dataset, job).newest_with(runs.EXIT) if job.sweep is not None else None
    return winner_of(job, runs.read_json(folder, runs.EXIT)) if folder is not None else None


def _plan_run(job: Job, dataset: Dataset, run: Run) -> list[Step]:
    if not run.is_finished:
        return [Step(stage="train", state=_begun(run.folder), folder=str(run.folder), needs_ray=True)]
    judged = evaluation_folder(run, dataset, job)
    state: State = "finished" if judged.exists(runs.EVALUATION) else "new"
    return [
        Step(stage="train", state="finished", folder=str(run.folder)),
        _plan_evaluation(job, dataset, str(judged), state),
        Step(stage="report", state="new", folder=run.folder.path(runs.REPORT)),
    ]


def _plan_evaluation(job: Job, dataset: Dataset, folder: str, state: State) -> Step:
    is_large = job.model.kind != "gan" and dataset.splits["test"] > job.evaluation.ray_above_rows
    return Step(stage="evaluate", state=state, folder=folder, needs_ray=is_large and state != "finished")


def _datasets(job: Job) -> runs.Series:
    return runs.dataset_series(job.storage, job.name, runs.dataset_key(job.ingest))


def _runs(dataset: Dataset, job: Job) -> runs.Series:
    return runs.run_series(job.storage, job.name, _run_key(dataset, job))


def _sweeps(dataset: Dataset, job: Job) -> runs.Series:
    if job.sweep is None:
        raise _no_sweep()
    return runs.sweep_series(job.storage, job.name, runs.sweep_key(_run_key(dataset, job), job.sweep))


def _no_sweep() -> UsageError:
    hint = "give it a section `sweep`, for example {space: {training.learning_rate: 'loguniform(1e-4, 1e-1)'}}"
    return UsageError("the job has no sweep", where="sweep", hint=hint)


def _run_key(dataset: Dataset, job: Job) -> str:
    code = locate(job.model.build).digest() if isinstance(job.model, PythonOptions) else ""
    return runs.run_key(dataset.digest, job.ingest.image, job.model, job.training, job.seed, code=code)


def _begun(folder: Folder) -> State:
    return "resumes" if folder.exists() else "new"
