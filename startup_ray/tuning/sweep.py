"""A sweep from its first trial to its winner; what each part decides is told where it lives.

    document = sweep(dataset, folder, lease.fence, job=job, on_progress=print)

Run again on the same folder it goes on where it was, also with more trials, a larger budget or more confirmation.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from startup_ray.dataset import Dataset
from startup_ray.errors import TrainingError, UsageError
from startup_ray.job import Job, ScalingOptions
from startup_ray.jobspace import with_values
from startup_ray.lease import Fence
from startup_ray.options import GanOptions
from startup_ray.remote import run_task
from startup_ray.runs import put_json, read_json
from startup_ray.space import around, probes
from startup_ray.storage import Folder
from startup_ray.sweep_options import SweepOptions
from startup_ray.trainers.launch import bring_judge
from startup_ray.trainers.preflight import make_spec, preflight, require_room, room_to_come
from startup_ray.trainers.program import Spec
from startup_ray.trainers.worker import require_gpu
from startup_ray.tuning.conductor import Conductor, Limits
from startup_ray.tuning.edge import TRIALS_PER_PROCESS, Relay, carry_out
from startup_ray.tuning.journal import SPENT, Trial, pick
from startup_ray.tuning.leaderboard import ranked
from startup_ray.tuning.measure import Measure, measure_of
from startup_ray.tuning.messages import SweepProgress, progress_of
from startup_ray.tuning.results import finish, load, test_winner
from startup_ray.tuning.rungs import Rungs
from startup_ray.tuning.study import Study
from startup_ray.tuning.trial import Terms, Train, train

log = logging.getLogger("startup_ray")

Show = Callable[[SweepProgress], None]


def sweep(
    dataset: Dataset,
    folder: Folder,
    fence: Fence,
    *,
    job: Job,
    features: str = "",
    on_progress: Show = lambda _: None,
    trains: Train = train,
    trials_per_process: int = TRIALS_PER_PROCESS,
) -> dict[str, Any]:
    """Search, train the best again with fresh seeds, and write down who has won.

    Args:
        fence: the right to write `folder`.
        job: with a `sweep`.
        features: what a GAN's images are judged by, as `evaluation.features` names it.
        on_progress: called in this thread.
        trains: what a trial does.
        trials_per_process: after about so many, slots get new processes.

    Returns:
        The document of `startup-ray sweep --json`.

    Raises:
        UsageError: data, job and metric do not fit together, or the budget allows no trial.
        ClusterError: the cluster has not what a trial asks for.
        TrainingError: no trial has finished.
        KeyboardInterrupt: after Ctrl-C; run it again to go on.
    """
    options = job.sweep
    assert options is not None
    scaling, measure = _scaling(job, options), measure_of(job, options)
    _require(job, options, measure, dataset, scaling, features=features)
    if isinstance(job.model, GanOptions):
        bring_judge(dataset, folder, fence, features=features, threads=scaling.threads_per_worker)
    terms = Terms(dataset=dataset, folder=folder, fence=fence, job=job, scaling=scaling, train=trains)
    parts = _Parts(terms=terms, options=options, measure=measure, slots=_slots(options, scaling))
    loading = threading.Thread(target=load, daemon=True)

    def changed(conductor: Conductor) -> None:
        if conductor.is_exhausted and loading.ident is None:
            loading.start()  # there are fewer trials than slots from now on
        on_progress(progress_of(conductor, measure))

    pids = carry_out(
        Relay(parts.conductors()),
        terms,
        slots=parts.slots,
        on_change=changed,
        trials_per_process=trials_per_process,
    )
    trials = terms.journal.read()
    best = ranked(trials, measure)
    if not best:
        raise _nothing_finished(trials, folder)
    confirmed = parts.confirmed(trials)
    tested = test_winner(terms, best, confirmed, measure) if options.test else {}
    searched = [trial for trial in trials if trial.of is None]
    return finish(terms, searched, confirmed, measure, processes=len(pids), tested=tested)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The search, and the confirmation of what it finds."""

    terms: Terms
    options: SweepOptions
    measure: Measure
    slots: int

    def conductors(self) -> Iterator[Conductor]:
        """The second is asked for when the first has had enough, and made from what is in the journal then."""
        before = self.terms.journal.read()
        if before:
            log.info("sweep: going on with %d trials", len(before))
        yield self._search(before)
        if self.options.confirm:
            yield self._confirm(self.terms.journal.read())

    def confirmed(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those trainings with fresh seeds that count."""
        asked = {(trial.number, seed) for trial, seed in self._wanted(trials)}
        return [trial for trial in trials if (trial.of, trial.seed) in asked]

    def _wanted(self, trials: Sequence[Trial]) -> list[tuple[Trial, int]]:
        best = ranked(trials, self.measure)[: self.options.confirm]
        return [(trial, seed) for seed in fresh_seeds(self.terms.job.seed, self.options.seeds) for trial in best]

    def _search(self, trials: Sequence[Trial]) -> Conductor:
        terms, options, measure = self.terms, self.options, self.measure
        own = [trial for trial in trials if trial.of is None]
        study = Study(options.axes, searcher=options.searcher, mode=measure.mode, seed=terms.job.seed)
        for trial in own:
            study.add(trial.number, trial.values)
            if trial.state != "running":
                study.tell(trial.number, trial.state, measure.curve(trial))

        def supply(number: int) -> Trial | None:
            values = study.ask(number)
            return None if values is None else Trial(number=number, values=values, seed=terms.job.seed)

        def told(trial: Trial) -> None:
            study.tell(trial.number, trial.state, measure.curve(trial))
            put_json(terms.folder, SPENT, {"seconds": round(conductor.spent_s, 1)})

        asha = Rungs(mode=measure.mode, min_epochs=options.min_epochs, reduction=options.reduction)
        conductor = self._conductor(
            own,
            trials,
            supply=supply,
            told=told,
            rungs=asha if options.scheduler == "asha" else None,
            limits=Limits(trials=options.trials, epochs=options.epochs, seconds=options.budget),
            spent_s=float(read_json(terms.folder, SPENT).get("seconds", 0.0)),
        )
        return conductor

    def _confirm(self, trials: Sequence[Trial]) -> Conductor:
        """The best again with fresh seeds, the same for each of them, to the end."""
        wanted, own = self._wanted(trials), self.confirmed(trials)
        done = {(trial.of, trial.seed) for trial in own}
        left = iter([(trial, seed) for trial, seed in wanted if (trial.number, seed) not in done])

        def supply(number: int) -> Trial | None:
            trial, seed = next(left, (None, 0))
            return None if trial is None else Trial(number=number, values=trial.values, seed=seed, of=trial.number)

        return self._conductor(own, trials, supply=supply, limits=Limits(trials=len(wanted)))

    def _conductor(self, own: Sequence[Trial], trials: Sequence[Trial], **more: Any) -> Conductor:
        return Conductor(
            own,
            journal=self.terms.journal,
            measure=self.measure,
            slots=self.slots,
            max_failures=self.terms.scaling.max_failures,
            expected=lambda trial: _expected(self.terms.job, trial),
            first=max((trial.number for trial in trials), default=-1) + 1,
            **more,
        )


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Seeds that the search has not seen; more of them begin with the same ones."""
    drawn = (int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) % 2**31 for i in range(2 * count + 1))
    return [each for each in dict.fromkeys(drawn) if each != seed][:count]


def _expected(job: Job, trial: Trial) -> Mapping[str, Any]:
    """A trial's values as the sections of a job hold them, its seed too."""
    plain = with_values(job, trial.values).model_dump(mode="json")
    return {**pick(plain, trial.values), "seed": trial.seed}


def _slots(options: SweepOptions, scaling: ScalingOptions) -> int:
    """Trials that run at the same time. What more than there is room for would wait for could never be free."""
    room, to_come = require_room(scaling) // scaling.min_workers, room_to_come(scaling)
    # Ray Tune asks for a place for each trial, and an autoscaler heeds that.
    room = max(room, (options.slots or 0) if math.isinf(to_come) else int(to_come) // scaling.min_workers)
    if options.slots is not None and options.slots > room:
        log.warning("sweep: the cluster has room for %d trials at a time, not for %d", room, options.slots)
    return min(options.slots or room, room)


def _scaling(job: Job, options: SweepOptions) -> ScalingOptions:
    """Of one trial."""
    return job.scaling if options.trial == "nested" else job.scaling.model_copy(update={"workers": 1})


def _require(
    job: Job, options: SweepOptions, measure: Measure, dataset: Dataset, scaling: ScalingOptions, *, features: str
) -> None:
    """See that there is all that trials ask for, rather than in the first one."""
    spec = preflight(dataset, model=job.model, training=job.training, scaling=scaling, seed=job.seed, features=features)
    _require_worth(options, measure, spec, dataset)
    _require_trainable(job, options, dataset, scaling)
    if scaling.gpus_per_worker:
        run_task(require_gpu, stage="look at the GPUs", gpus=scaling.gpus_per_worker)


def _require_worth(options: SweepOptions, measure: Measure, spec: Spec, dataset: Dataset) -> None:
    """See that a trial can be finished and compared."""
    if measure.metric.startswith("val/") and not dataset.splits["val"]:
        hint = "set ingest.split.val, or sweep.metric to one of train/..."
        raise UsageError(f"{measure.metric} needs a val split, and there is none", where="sweep.metric", hint=hint)
    if options.test and not dataset.splits["test"]:
        raise UsageError(
            "sweep.test needs a test split, and there is none", where="sweep.test", hint="set ingest.split.test"
        )
    axis = next((axis for axis in options.axes if axis.key == "training.epochs"), None)
    least = spec.epochs
    if axis is not None:
        least = int(min(axis.choices) if axis.choices else axis.low)
    if options.epochs is not None and options.epochs < least:
        raise UsageError(
            f"sweep.epochs is {options.epochs}, and a single trial takes {least}: none would finish",
            where="sweep.epochs",
            hint=f"set sweep.epochs to {least} or more, or lower training.epochs",
        )


def _require_trainable(job: Job, options: SweepOptions, dataset: Dataset, scaling: ScalingOptions) -> None:
    """See that a GAN, which does not take all options, takes some value of each axis."""
    for axis in options.axes if isinstance(job.model, GanOptions) else ():
        refused = []
        for value in probes(axis):
            own = with_values(job, around(options.axes, axis.key, value))
            try:
                make_spec(dataset, model=own.model, training=own.training, scaling=scaling, seed=job.seed)
            except UsageError as error:
                refused.append(error)
        if len(refused) == len(probes(axis)):
            raise UsageError(refused[0].message, where=f"sweep.space.{axis.key}", hint=refused[0].hint)


def _nothing_finished(trials: Sequence[Trial], folder: Folder) -> TrainingError:
    bad = [trial for trial in trials if trial.state in ("failed", "diverged")]
    if not bad:
        text, hint = "the budget has ended the search before a trial had finished", "raise sweep.budget or sweep.epochs"
        return TrainingError(text, where=str(folder), hint=f"{hint}, and run it again: what is there counts")
    text = f"none of {len(trials)} trials has finished: {bad[0].reason or bad[0].state} (trial {bad[0].number})"
    return TrainingError(text, where=str(folder), hint="`startup-ray train JOB` shows more of what fails")
