"""Decides which trial begins, whether one goes on, and when there were enough. It knows no Ray: others act on it.

    conductor = Conductor(trials, supply=search.next, rungs=rungs, ...)
    trial = conductor.next()                        # None: nothing now; conductor.is_over tells the rest
    goes_on = conductor.report(trial.number, line, is_last=False)
    conductor.end(trial.number, "finished")
    conductor.lost(trial.number, "its process died")    # is handed out again, some times

Law: a conductor made from the journal of one that was killed decides on as that one would have.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from startup_ray.errors import StartupRayError, UsageError
from startup_ray.tuning.journal import Journal, State, Trial
from startup_ray.tuning.measure import Measure
from startup_ray.tuning.rungs import Rungs


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of all trials together; None: no limit."""

    trials: int | None = None
    epochs: int | None = None
    seconds: float | None = None


class Conductor:
    """Use it from one thread."""

    def __init__(
        self,
        trials: Iterable[Trial],
        *,
        journal: Journal,
        measure: Measure,
        supply: Callable[[int], Trial | None],
        told: Callable[[Trial], None] = lambda _: None,
        rungs: Rungs | None = None,
        limits: Limits = Limits(),
        slots: int,
        max_failures: int = 0,
        expected: Callable[[Trial], Mapping[str, Any]] = lambda trial: trial.values,
        spent_s: float = 0.0,
        first: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            trials: those of before, of this part of the sweep.
            supply: the number of a trial -> the trial; None when there is none left.
            told: is called with each trial that has ended.
            slots: trials at the same time.
            max_failures: of processes, for each trial.
            expected: the values that a trial's worker is to use, as the job file's sections hold them.
            spent_s: of the wall time, before.
            first: the number of the next trial, if it is above those of `trials`.
        """
        self.trials = {trial.number: trial for trial in trials}
        self.failure: StartupRayError | None = None
        """What ends the sweep, and not only a trial."""
        self._journal, self._measure, self._supply, self._told = journal, measure, supply, told
        self._rungs, self.limits, self._slots, self._max_failures = rungs, limits, slots, max_failures
        self._expected, self._spent_s, self._clock, self._began = expected, spent_s, clock, clock()
        self._next = max(first, *(number + 1 for number in self.trials), 0)
        self._waiting = deque(number for number, trial in self.trials.items() if trial.state == "running")
        self._running: set[int] = set()
        self._failures: dict[int, int] = {}
        self._is_exhausted = False
        for trial in self.trials.values():
            self._record(trial)

    @property
    def is_exhausted(self) -> bool:
        """Whether no trial will begin any more, unless one is lost."""
        return not self._waiting and not self._may_begin()

    @property
    def is_over(self) -> bool:
        return self.failure is not None or (self.is_exhausted and not self._running)

    @property
    def running(self) -> list[Trial]:
        return [self.trials[number] for number in sorted(self._running)]

    @property
    def spent_s(self) -> float:
        """Wall time, that of before included."""
        return self._spent_s + self._clock() - self._began

    @property
    def epochs(self) -> int:
        """Done by all trials."""
        return sum(trial.epochs for trial in self.trials.values())

    def next(self) -> Trial | None:
        """A trial to begin, or to go on with, now; written down already."""
        if self.failure is not None or len(self._running) >= self._slots:
            return None
        if self._waiting:
            if self._out_of(len(self._running)):
                self._end_waiting()
                return None
            trial = self.trials[self._waiting.popleft()]
            if self._has_fallen_behind(trial):
                self.end(trial.number, "stopped", "asha")
                return self.next()
        else:
            new = self._supply(self._next) if self._may_begin() else None
            if new is None:
                self._is_exhausted = self._is_exhausted or self._may_begin()
                return None
            self._journal.begin(new)
            trial, self._next = new, self._next + 1
            self.trials[trial.number] = trial
        self._running.add(trial.number)
        return trial

    def started(self, number: int, used: Mapping[str, Any], start_s: float) -> None:
        """See that a worker uses what it was told to, before its first report.

        It is our fault if it does not, and everything that the sweep has found is in doubt.
        """
        trial = self.trials[number]
        self.trials[number] = replace(trial, start_s=trial.start_s + start_s)
        wanted = dict(self._expected(trial))
        wrong = {key: used.get(key) for key, value in wanted.items() if used.get(key) != value}
        if wrong:
            asked = {key: wanted[key] for key in wrong}
            self.failure = StartupRayError(
                f"trial {number} was to be trained with {asked} and its worker used {wrong}",
                where=str(self._journal.place(number)),
                hint="please report this; the results of this sweep are not to be trusted",
            )

    def report(self, number: int, *lines: Mapping[str, Any], is_last: bool) -> bool:
        """Take the metrics of some epochs; returns whether the trial goes on. If not, it has ended.

        Args:
            lines: in the order of the epochs; of those before the last none decides anything.
        """
        new = {int(line["epoch"]): dict(line) for line in lines}
        self.trials[number] = trial = replace(self.trials[number], lines={**self.trials[number].lines, **new})
        curve = self._measure.curve(trial)
        if not curve and max(new) >= self._measure.late_by:
            self.failure = _never_reported(self._measure.metric, lines[-1])
        goes_on = self._rungs is None or not curve or self._rungs.report(number, *curve[-1])
        if self.failure is not None:
            return False
        if is_last:
            return True
        if not goes_on:
            self.end(number, "stopped", "asha")
        elif reason := self._out_of(len(self._running) - 1):
            self.end(number, "stopped", reason)
            goes_on = False
        return goes_on

    def end(self, number: int, state: State, reason: str = "") -> None:
        """Write down how a trial ended."""
        is_at_work = state == "stopped" and number in self._running
        self._running.discard(number)
        trial = self.trials[number] = replace(self.trials[number], state=state, reason=reason)
        self._journal.end(trial, is_at_work=is_at_work)
        self._told(trial)

    def lost(self, number: int, reason: str) -> None:
        """Its process has died: it goes on from its last checkpoint, unless that has happened too often."""
        self._running.discard(number)
        self._failures[number] = self._failures.get(number, 0) + 1
        if self._failures[number] > self._max_failures:
            self.end(number, "failed", reason)
        else:
            self._waiting.append(number)

    def release(self, number: int) -> None:
        """It is not running any more, for no fault of its own."""
        if number in self._running:
            self._running.discard(number)
            self._waiting.append(number)

    def _may_begin(self) -> bool:
        is_full = self.limits.trials is not None and len(self.trials) >= self.limits.trials
        return not self._is_exhausted and not is_full and not self._out_of(len(self._running))

    def _out_of(self, begun: int) -> str:
        """The budget that leaves no further epoch, beside those that have begun; empty if all leave one."""
        limits = self.limits
        if limits.seconds is not None and self.spent_s >= limits.seconds:
            return "budget"
        if limits.epochs is not None and self.epochs + begun >= limits.epochs:
            return "epochs"
        return ""

    def _end_waiting(self) -> None:
        reason = self._out_of(len(self._running))
        while self._waiting:
            self.end(self._waiting.popleft(), "stopped", reason)

    def _has_fallen_behind(self, trial: Trial) -> bool:
        """Whether its last report, which may never have been answered, would have stopped it."""
        curve = self._measure.curve(trial)
        is_judged = self._rungs is not None and curve and trial.epochs < trial.most_epochs
        return bool(is_judged) and self._rungs is not None and not self._rungs.report(trial.number, *curve[-1])

    def _record(self, trial: Trial) -> None:
        if self._rungs is not None:
            for epoch, value in self._measure.curve(trial):
                self._rungs.report(trial.number, epoch, value)


def _never_reported(metric: str, line: Mapping[str, Any]) -> UsageError:
    names = sorted(name for name in line if "/" in name)
    return UsageError(
        f"training reports no metric {metric!r}",
        where="sweep.metric",
        hint=f"it reports {', '.join(names)}",
    )
