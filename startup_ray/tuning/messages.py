"""What a sweep tells those who watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from startup_ray.trainers.messages import duration
from startup_ray.tuning.conductor import Conductor
from startup_ray.tuning.journal import ENDS, Trial
from startup_ray.tuning.measure import Measure

Phase = Literal["search", "confirm"]


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    phase: Phase
    counts: Mapping[str, int]
    """Trials by state."""
    most: int | None
    """Trials that there will be, if no budget ends the search before."""
    metric: str
    best: tuple[int, float, Mapping[str, Any]] | None
    """Number, score and values of the best trial that has finished, or else of the best so far."""
    running: tuple[tuple[int, int, float | None, Mapping[str, Any]], ...]
    """Number, epochs, score so far and values."""
    epochs: int
    left: str
    """Of the budgets, in words; empty if there is none."""

    @property
    def done(self) -> int:
        return sum(number for state, number in self.counts.items() if state != "running")

    @property
    def total(self) -> int | None:
        return self.most

    @property
    def text(self) -> str:
        """One line for people."""
        of = f" of {self.most}" if self.most is not None else ""
        states = ", ".join(f"{number} {state}" for state, number in self.counts.items() if number)
        best = f"; best {self.metric} {self.best[1]:.4f} (trial {self.best[0]})" if self.best else ""
        word = "trials" if self.phase == "search" else "trainings with fresh seeds"
        return f"{self.done}{of} {word}: {states or 'none yet'}{best}{f'; {self.left}' if self.left else ''}"


def progress_of(conductor: Conductor, measure: Measure) -> SweepProgress:
    """How it stands now."""
    trials = list(conductor.trials.values())
    states = Counter(trial.state for trial in trials)
    return SweepProgress(
        phase="search" if all(trial.of is None for trial in trials) else "confirm",
        counts={state: states[state] for state in ("running", *ENDS)},
        most=conductor.limits.trials,
        metric=measure.metric,
        best=_best(trials, measure),
        running=tuple((one.number, one.epochs, measure.score(one), one.values) for one in conductor.running),
        epochs=conductor.epochs,
        left=_left(conductor),
    )


def _best(trials: list[Trial], measure: Measure) -> tuple[int, float, Mapping[str, Any]] | None:
    finished = [trial for trial in trials if trial.state == "finished"] or trials
    scored = [(score, trial) for trial in finished if (score := measure.score(trial)) is not None]
    score, trial = max(scored, key=lambda pair: measure.sign * pair[0], default=(None, None))
    return None if score is None or trial is None else (trial.number, score, trial.values)


def _left(conductor: Conductor) -> str:
    limits, parts = conductor.limits, []
    if limits.seconds is not None:
        parts.append(duration(max(0.0, limits.seconds - conductor.spent_s)))
    if limits.epochs is not None:
        parts.append(f"{max(0, limits.epochs - conductor.epochs)} epochs")
    return f"{' and '.join(parts)} left" if parts else ""
