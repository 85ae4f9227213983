"""By what the trials of a sweep are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from startup_ray.job import Job
from startup_ray.options import GanOptions, monitor_of
from startup_ray.sweep_options import SweepOptions, metric_of, mode_of
from startup_ray.tuning.journal import Trial


@dataclass(frozen=True, kw_only=True)
class Measure:
    metric: str
    mode: Literal["max", "min"]
    monitor: str
    """Says which epoch's model a trial keeps; it is the metric of that model that counts."""
    late_by: int = 1
    """Epochs after which the metric has been reported at the latest."""

    @property
    def sign(self) -> int:
        """What makes more of it better."""
        return 1 if self.mode == "max" else -1

    def curve(self, trial: Trial) -> tuple[tuple[int, float], ...]:
        """Epochs and what counts after each."""
        return trial.curve(self.metric, self.monitor)

    def score(self, trial: Trial) -> float | None:
        """What counts at the end; None if the metric was never reported."""
        curve = self.curve(trial)
        return curve[-1][1] if curve else None


def measure_of(job: Job, options: SweepOptions) -> Measure:
    """As the job asks for it."""
    metric = metric_of(options, job.model, job.training)
    return Measure(
        metric=metric,
        mode=mode_of(options, metric),
        monitor=monitor_of(job.model, job.training),
        late_by=job.model.watch_every_epochs if isinstance(job.model, GanOptions) else 1,
    )
