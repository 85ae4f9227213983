"""What a report tells of a run, read from storage. What is not there is left out, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from startup_ray import runs
from startup_ray.comparison import last_evaluation
from startup_ray.dataset import Dataset, read_dataset
from startup_ray.errors import StartupRayError, StorageError, UsageError
from startup_ray.jobfile import parse_job
from startup_ray.report.collection import (
    HostFailures,
    LabelRows,
    LeftOut,
    Stage,
    failing_hosts,
    funnel,
    label_rows,
    left_out,
)
from startup_ray.report.mistakes import Mistakes, read_mistakes
from startup_ray.report.samples import MAX_GRIDS, Samples, read_samples
from startup_ray.report.sweep_data import Sweep, is_sweep, read_sweep, sweep_of
from startup_ray.report.wording import without_secrets
from startup_ray.storage import Folder


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a report shows of one run."""

    name: str
    folder: str
    train: dict[str, Any]
    """Document of `train`; empty while unfinished."""
    evaluation: dict[str, Any]
    """Document of the last evaluation; empty if there is none."""
    has_predictions: bool = False
    history: list[dict[str, Any]]
    environment: dict[str, Any]
    job: dict[str, Any]
    job_text: str
    asked: dict[str, Any] = field(default_factory=dict)
    """Keys of the job whose values are not the defaults."""
    dataset: Dataset | None = None
    manifest: str = ""
    """Location, without secrets."""
    funnel: list[Stage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    hosts: list[HostFailures] = field(default_factory=list)
    labels: list[LabelRows] = field(default_factory=list)
    mistakes: Mistakes = field(default_factory=Mistakes)
    samples: Samples = field(default_factory=Samples)
    is_sweep: bool = False
    """It is no run, but a sweep of them: `train` is empty."""
    from_sweep: str = ""
    """Of a run: the folder of the sweep that its values come from, which may be gone."""
    sweep: Sweep | None = None
    """This one, or that."""

    @property
    def is_gan(self) -> bool:
        """Known before it has finished."""
        model = self.job.get("model")
        return "gan" in (self.train.get("kind"), model.get("kind") if isinstance(model, dict) else None)


def read_views(folders: Sequence[Folder], *, max_mistakes: int, max_grids: int = MAX_GRIDS) -> list[View]:
    """Read runs and their datasets.

    Args:
        folders: of the runs.
        max_mistakes: of a classifier, that are shown as its surest.
        max_grids: of a GAN, of those made while training.

    Raises:
        UsageError: no run lies here.
        StorageError: storage cannot be read.
    """
    of_datasets: dict[str, dict[str, Any]] = {}  # by digest, for runs often share theirs
    return [_read_view(run, max_mistakes, max_grids, of_datasets) for run in folders]


def _read_view(run: Folder, max_mistakes: int, max_grids: int, of_datasets: dict[str, dict[str, Any]]) -> View:
    try:
        job_text = without_secrets(run.read(runs.JOB).decode("utf-8", "replace"))
    except FileNotFoundError:
        raise UsageError("no run here: job.yaml is missing", where=str(run)) from None
    dataset = _dataset_of(run)
    judged = last_evaluation(run)
    evaluation = runs.read_json(judged, runs.EVALUATION) if judged else {}
    predictions = judged / "predictions" if judged else None
    loaded = yaml.safe_load(job_text)
    train = runs.read_json(run, runs.EXIT)
    is_one = is_sweep(run, train)
    from_sweep, found = ("", read_sweep(run)) if is_one else sweep_of(run)
    view = View(
        name=run.name,
        folder=str(run),
        train={} if is_one else train,
        evaluation=evaluation,
        has_predictions=bool(predictions and predictions.list()),
        history=runs.read_history(run),
        environment=runs.read_json(run, runs.ENVIRONMENT),
        job=loaded if isinstance(loaded, dict) else {},
        job_text=job_text,
        asked=_asked(job_text),
        is_sweep=is_one,
        from_sweep=without_secrets(from_sweep),
        sweep=found,
    )
    if view.is_gan:
        view, predictions = replace(view, samples=read_samples(run, judged, most=max_grids)), None
    if dataset is None:
        return view
    if dataset.digest not in of_datasets:
        of_datasets[dataset.digest] = {
            "manifest": without_secrets(dataset.manifest),
            "funnel": funnel(dataset),
            "left_out": left_out(dataset),
            "hosts": failing_hosts(dataset),
            "labels": label_rows(dataset),
        }
    mistakes = read_mistakes(dataset, predictions, evaluation["classes"], max_mistakes) if predictions else Mistakes()
    return replace(view, dataset=dataset, mistakes=mistakes, **of_datasets[dataset.digest])


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested sections by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _asked(job_text: str) -> dict[str, Any]:
    try:
        job = parse_job(job_text)
    except StartupRayError:  # of another version
        return {}
    return flat(job.model_dump(mode="json", exclude_defaults=True, exclude={"name", "storage"}))


def _dataset_of(run: Folder) -> Dataset | None:
    place = runs.read_json(run, runs.DATASET).get("dataset")
    try:
        return read_dataset(Folder(place)) if place else None
    except (UsageError, StorageError):  # moved or deleted since
        return None
