"""What runs one trial after the other in a process of Ray Tune: a training, an epoch at a time.

A trial is a generator of its epochs' metrics, and closing it stops the trial. In a `slot` the training runs in this
process, which keeps TensorFlow loaded for the next trial. A `nested` one is a run of Ray Train with workers of its own.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ray import tune

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError, StartupRayError, TrainingError, first_line
from startup_ray.job import Job, ScalingOptions
from startup_ray.jobspace import with_values
from startup_ray.lease import Fence
from startup_ray.progress import ignore
from startup_ray.remote import pack_error
from startup_ray.runs import EXIT, FEATURES, USED, put_json, read_json
from startup_ray.storage import Folder
from startup_ray.trainers import worker
from startup_ray.trainers.backend import worker_environment
from startup_ray.trainers.launch import attempt, document_of
from startup_ray.trainers.lean import load_keras
from startup_ray.trainers.preflight import make_spec
from startup_ray.trainers.worker import Outcome, Task
from startup_ray.tuning.journal import END, Journal, Trial, drop, pick, read_trial
from startup_ray.tuning.pace import is_decided, together
from startup_ray.tuning.referee import Referee, ask

Turns = Generator[Mapping[str, Any], None, Outcome]
Train = Callable[["Terms", Trial, Folder, int], tuple[int, Turns]]
"""What is common to all trials, a trial, its folder, its mark -> the epochs it will have at most, and its turns."""


def train(terms: Terms, trial: Trial, place: Folder, mark: int) -> tuple[int, Turns]:
    """A training that goes on from its last checkpoint.

    Raises:
        UsageError: its values and the data do not fit together.
    """
    job = with_values(terms.job, trial.values)
    spec = make_spec(terms.dataset, model=job.model, training=job.training, scaling=terms.scaling, seed=trial.seed)
    if terms.folder.exists(FEATURES) and not place.exists(FEATURES):
        place.put_whole(FEATURES, terms.folder.read(FEATURES))
    task = Task(
        dataset=terms.dataset,
        folder=place,
        fence=terms.fence,
        spec=spec,
        scaling=terms.scaling,
        is_trial=True,
        keeps_models=trial.of is not None,
        memory=mark,
    )
    return spec.epochs, _finished(task, nested(task) if terms.is_nested else alone(task))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all trials of a sweep have in common; it pickles."""

    dataset: Dataset
    folder: Folder
    fence: Fence
    job: Job
    scaling: ScalingOptions
    """Of one trial."""
    train: Train = train

    @property
    def is_nested(self) -> bool:
        return self.job.sweep is not None and self.job.sweep.trial == "nested"

    @property
    def journal(self) -> Journal:
        return Journal(self.folder, self.fence)


class TrialProcess(tune.Trainable):
    """`config` has the number of the trial, which it reads from the journal, and the mark of a nested one."""

    _turns: Generator[Sequence[Mapping[str, Any]], None, Outcome] | None
    _place: Folder
    _mark: int
    _has_told: bool
    _epochs: int

    def setup(self, config: dict[str, Any], terms: Terms) -> None:  # type: ignore[override] # `tune.with_parameters`
        if not terms.is_nested:
            os.environ.update(worker_environment(terms.scaling.threads_per_worker, terms.scaling.gpus_per_worker))
        self._terms = terms
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train some epochs. A result holds their `lines`, or, when there is none any more, how the trial ended."""
        try:
            if self._turns is None:
                self._epochs, turns = self._terms.train(self._terms, self._trial(), self._place, self._mark)
                self._turns = together(turns, partial(is_decided, self._terms.job))
            lines = next(self._turns)
        except StopIteration as end:
            return _ended(end.value, state_of(end.value))
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this trial, and perhaps the sweep
            return _ended(error, "failed")
        # As tuples, because Tune flattens mappings.
        answer = {
            "lines": tuple(tuple(line.items()) for line in lines),
            "is_last": int(lines[-1]["epoch"]) >= self._epochs,
            "pid": os.getpid(),
        }
        return answer | ({} if self._has_told else self._first_words(lines))

    def cleanup(self) -> None:
        if self._turns is not None:
            self._turns.close()
            if self._place.exists(END):
                drop(self._place)  # a checkpoint may have been under way when it was stopped

    def _take(self, config: Mapping[str, Any]) -> None:
        self._began, self._has_told, self._epochs = time.monotonic(), False, 0
        self._place, self._mark = self._terms.journal.place(config["number"]), int(config["mark"])
        self._turns = None

    def _trial(self) -> Trial:
        trial = read_trial(self._place)
        assert trial is not None, "a trial is written down before it begins"
        return trial

    def _first_words(self, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What its worker really uses, and how long the start took."""
        self._has_told = True
        used = pick(read_json(self._place, USED), [*self._trial().values, "seed"])
        start_s = time.monotonic() - self._began - sum(float(line.get("seconds", 0.0)) for line in lines)
        return {"used": tuple(used.items()), "start_s": max(0.0, start_s)}


def _ended(outcome: Any, state: str) -> dict[str, Any]:
    answer = {"done": True, "pid": os.getpid(), "state": state, "reason": "", "fatal": b""}
    if isinstance(outcome, Exception):
        answer["reason"] = outcome.message if isinstance(outcome, StartupRayError) else first_line(outcome)
    if isinstance(outcome, ClusterError):  # storage too: no trial's fault, and the next ones would meet it as well
        answer["fatal"] = pack_error(outcome)
    return answer


def _finished(task: Task, turns: Turns) -> Turns:
    """The same turns, and a document at their end."""
    outcome = yield from turns
    if isinstance(outcome, dict):
        put_json(task.folder, EXIT, {**document_of(task.folder, task.spec, task.dataset), **outcome})
    return outcome


def state_of(outcome: Any) -> str:
    """How a trial ended that has come to this document, or to this error that another try would meet again."""
    if not isinstance(outcome, Exception):
        return "finished"
    return "diverged" if isinstance(outcome, TrainingError) else "failed"


def alone(task: Task) -> Turns:
    """In this process, which has trained other models before."""
    _keras().backend.clear_session()  # collects garbage as well
    outcome = yield from worker.epochs(task, rank=0, world=1, emit=lambda _: None, meet=lambda: None)
    return outcome


@cache
def _keras() -> Any:
    """Keras, loaded; that it and TensorFlow are no garbage need not be found out after each trial."""
    keras = load_keras()
    gc.collect()
    gc.freeze()
    return keras


def nested(task: Task, *, fit: Callable[..., Outcome] = attempt) -> Turns:
    """On workers of its own, which ask after each epoch whether to go on.

    They are told to stop and leave by themselves, as at the end: what is killed in the midst leaks its placement group,
    without which the next trial never starts.
    """
    referee = Referee()
    found: list[Outcome] = []
    raised: list[Exception] = []

    def train() -> None:
        try:
            found.append(fit(task, on_progress=ignore, goes_on=partial(ask, referee.actor)))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            raised.append(error)

    thread = threading.Thread(target=train, name="fit", daemon=True)
    thread.start()
    try:
        while (line := referee.next_line(thread.is_alive)) is not None:
            try:
                yield line
            except GeneratorExit:
                referee.answer(line, goes_on=False)
                raise
            referee.answer(line, goes_on=True)
    finally:
        thread.join()
        referee.close()
    if raised:
        raise raised[0]
    return found[0]
