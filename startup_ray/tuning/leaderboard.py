"""Which configurations are best, and how sure that is.

The best of many trials on one validation split is partly the luckiest. So the best few are trained again with fresh
seeds, the same for each of them, and it is these results that are compared: means with Student's intervals, and
differences of the same seeds in pairs. They hold the chance of training, not that of which rows the split has.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from startup_ray.merit import is_lower_better
from startup_ray.tuning.journal import Trial
from startup_ray.tuning.measure import Measure

LEVEL = 0.95
SHOWN = 10
"""The best of the search that are told."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A configuration that was trained again."""

    trial: int
    values: dict[str, Any]
    found: float
    """What the search has seen of it."""
    scores: tuple[float, ...]
    """With fresh seeds; fewer than asked for where a training diverged."""
    interval: Interval | None
    """Of the mean; None for fewer than two scores."""
    behind: float | None = None
    """Mean difference to the first place, in which it is worse; None for the first."""
    behind_interval: Interval | None = None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def is_noise(self) -> bool | None:
        """Whether it may be as good as the first; None where that cannot be told."""
        return None if self.behind_interval is None else self.behind_interval[0] <= 0 <= self.behind_interval[1]

    def row(self) -> dict[str, Any]:
        """For a document."""
        return {**asdict(self), "mean": self.mean, "is_noise": self.is_noise}


def row_of(trial: Trial, measure: Measure) -> dict[str, Any]:
    """What the search has found, for a document."""
    return {"trial": trial.number, "values": trial.values, "value": measure.score(trial)}


def ranked(trials: Sequence[Trial], measure: Measure) -> list[Trial]:
    """Trials of the search that have finished, the best first; of equals the earlier."""
    finished = [trial for trial in trials if trial.of is None and trial.state == "finished"]
    scored = [(trial, score) for trial in finished if (score := measure.score(trial)) is not None]
    return [trial for trial, score in sorted(scored, key=lambda pair: (-measure.sign * pair[1], pair[0].number))]


def places(best: Sequence[Trial], again: Sequence[Trial], measure: Measure) -> list[Place]:
    """The configurations of `best` by the means of their trainings in `again`; those without any are left out."""
    scores = {trial.number: _scores(trial, again, measure) for trial in best}
    known = [trial for trial in best if scores[trial.number]]
    order = sorted(known, key=lambda trial: -measure.sign * statistics.fmean(scores[trial.number].values()))
    return [_place(trial, scores, order[0], measure) for trial in order]


def _scores(trial: Trial, again: Sequence[Trial], measure: Measure) -> dict[int, float]:
    """By seed."""
    own = [(one.seed, measure.score(one)) for one in again if one.of == trial.number and one.state == "finished"]
    return {seed: score for seed, score in own if score is not None}


def _place(trial: Trial, scores: dict[int, dict[int, float]], first: Trial, measure: Measure) -> Place:
    own, winner = scores[trial.number], scores[first.number]
    behind = [measure.sign * (winner[seed] - own[seed]) for seed in own if seed in winner] if trial is not first else []
    return Place(
        trial=trial.number,
        values=trial.values,
        found=measure.score(trial) or 0.0,
        scores=tuple(own.values()),
        interval=_within(interval(list(own.values())), measure),
        behind=statistics.fmean(behind) if behind else None,
        behind_interval=interval(behind),
    )


def _within(found: Interval | None, measure: Measure) -> Interval | None:
    """What no mean can be is left out: shares are in [0, 1], losses and distances are not negative."""
    top = math.inf if is_lower_better(measure.metric) else 1.0
    return None if found is None else (max(0.0, found[0]), min(top, found[1]))


def interval(values: Sequence[float]) -> Interval | None:
    """Of the mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def table(trials: Sequence[Trial], measure: Measure) -> list[dict[str, Any]]:
    """A row per trial: what it was, how it ended, what it reached and cost; one column per axis."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "reason": trial.reason,
            "of": trial.of,
            measure.metric: measure.score(trial),
            "epochs": trial.epochs,
            "seconds": round(trial.seconds, 3),
            "seed": trial.seed,
            **{key: trial.values.get(key) for key in keys},
        }
        for trial in trials
    ]


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows of `table` with a header."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()
