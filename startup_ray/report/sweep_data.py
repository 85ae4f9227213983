"""What a report tells of a sweep, read from its folder: the journal is the truth, `exit.json` what was made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from startup_ray import runs
from startup_ray.errors import StartupRayError, StorageError
from startup_ray.job import Job
from startup_ray.jobfile import parse_job
from startup_ray.merit import is_lower_better
from startup_ray.report.wording import without_secrets
from startup_ray.space import Axis
from startup_ray.storage import Folder
from startup_ray.sweep_options import SweepOptions
from startup_ray.tuning.journal import SPENT, TRIALS, Trial, read_trials
from startup_ray.tuning.leaderboard import SHOWN, places, ranked, row_of
from startup_ray.tuning.measure import Measure, measure_of

MAX_LINES, MAX_BEST = 300, 100
"""Trials that are drawn, and the best of these."""

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All that a report shows of one sweep."""

    folder: str
    document: Values
    """Of `startup-ray sweep --json`; empty while unfinished."""
    trials: Sequence[Trial]
    """Of the search."""
    again: Sequence[Trial] = ()
    """The best of them with fresh seeds."""
    measure: Measure
    axes: Sequence[Axis]
    options: SweepOptions | None = None
    """None: the job is of another version."""
    full: int = 0
    """Epochs of a training that nobody stops; 0 where that is not known."""
    wall_s: float = 0.0
    """Of the search."""
    ranked: Sequence[Trial] = field(default_factory=list)
    """Those that have finished, the best first."""

    @property
    def is_finished(self) -> bool:
        return bool(self.document)

    @property
    def best(self) -> Values:
        """Trial, values and value of the winner, of an unfinished sweep those of the best so far; empty for none."""
        if self.document:
            found: Values = self.document["best"]
            return found
        return row_of(self.ranked[0], self.measure) if self.ranked else {}

    @property
    def leaderboard(self) -> list[Values]:
        """Configurations that were trained again, the best first."""
        if self.document:
            found: list[Values] = self.document.get("leaderboard", [])
            return found
        return [place.row() for place in places(self.ranked, self.again, self.measure)]

    @property
    def search(self) -> list[Values]:
        """The best that the search has seen."""
        return [row_of(trial, self.measure) for trial in self.ranked[:SHOWN]]


def is_sweep(folder: Folder, document: Mapping[str, Any]) -> bool:
    """Whether this folder, with this exit.json, is that of a sweep; one without any trial yet reads as a run."""
    return "sweep" in document or (not document and bool(folder.list(TRIALS)))


def read_sweep(folder: Folder) -> Sweep | None:
    """None where nothing is known of a sweep.

    Raises:
        StorageError: storage cannot be read.
    """
    document = _clean(runs.read_json(folder, runs.EXIT))
    if not is_sweep(folder, document):
        return None
    trials = _trials(folder)
    job = _job(folder)
    measure = measure_of(job, job.sweep) if job and job.sweep else _measure(document)
    return Sweep(
        folder=str(folder),
        document=document,
        trials=[trial for trial in trials if trial.of is None],
        again=[trial for trial in trials if trial.of is not None],
        measure=measure,
        axes=_axes(job.sweep) if job and job.sweep else guessed(trials),
        options=job.sweep if job else None,
        full=_full(job, trials),
        wall_s=float(runs.read_json(folder, SPENT).get("seconds") or 0.0),
        ranked=ranked(trials, measure),
    )


def sweep_of(run: Folder) -> tuple[str, Sweep | None]:
    """Where the sweep lies that a run's values come from, empty for none; and what is there still."""
    place = str(runs.read_json(run, runs.SWEEP).get("sweep") or "")
    try:
        return place, read_sweep(Folder(place)) if place else None
    except StorageError:  # moved or deleted since
        return place, None


def chosen(sweep: Sweep) -> list[Trial]:
    """Trials that are drawn: all, or the best and of the rest some, evenly from the first to the last."""
    known = [trial for trial in sweep.trials if trial.state != "running"]
    if len(known) <= MAX_LINES:
        return known
    best = {trial.number for trial in sweep.ranked[:MAX_BEST]}
    rest = [trial for trial in known if trial.number not in best]
    some = MAX_LINES - len(best)
    kept = best | {rest[i * len(rest) // some].number for i in range(some)}
    return [trial for trial in known if trial.number in kept]


def guessed(trials: Iterable[Trial]) -> tuple[Axis, ...]:
    """Axes of trials whose job cannot be read any more: ranges of numbers, or the values that there are."""
    found: dict[str, list[Any]] = {}
    for trial in trials:
        for key, value in trial.values.items():
            found.setdefault(key, []).append(value)
    return tuple(_guess(key, values) for key, values in found.items())


def _guess(key: str, values: list[Any]) -> Axis:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return Axis(key=key, kind="uniform", low=min(values), high=max(values))
    once = [value for i, value in enumerate(values) if value not in values[:i]]
    return Axis(key=key, kind="choice", choices=tuple(once))


def _trials(folder: Folder) -> list[Trial]:
    return [replace(one, values=_clean(one.values), reason=_clean(one.reason)) for one in read_trials(folder)]


def _axes(options: SweepOptions) -> tuple[Axis, ...]:
    """Read before they are cleaned, or a choice of URLs could not be read."""
    return tuple(replace(axis, choices=tuple(_clean(list(axis.choices)))) for axis in options.axes)


def _clean(value: Any) -> Any:
    """A document whose texts have no secrets."""
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def _job(folder: Folder) -> Job | None:
    """With its secrets."""
    try:
        return parse_job(folder.read(runs.JOB).decode("utf-8", "replace"))
    except (StartupRayError, FileNotFoundError):  # of another version, or not there
        return None


def _measure(document: Mapping[str, Any]) -> Measure:
    metric = str(document.get("metric") or "val/loss")
    told = document.get("mode")
    is_less = told == "min" if told in ("min", "max") else is_lower_better(metric)
    return Measure(metric=metric, mode="min" if is_less else "max", monitor=metric)


def _full(job: Job | None, trials: Sequence[Trial]) -> int:
    if job and job.sweep and job.training.steps is None and "training.epochs" not in job.sweep.space:
        return job.training.epochs
    return max((trial.epochs for trial in trials if trial.state == "finished"), default=0)
