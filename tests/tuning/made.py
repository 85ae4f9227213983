"""Sweeps without Ray and training: a table of curves, a journal in a folder, and trials that write as real ones.

sweep = Sweep(folder, curves, slots=2)
with sweep.conductor(trials=9) as conductor:
    sweep.play(conductor)                   # to the end, or for so many epochs and then killed
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from startup_ray.lease import hold
from startup_ray.runs import METRICS, read_history
from startup_ray.storage import Folder
from startup_ray.tuning.conductor import Conductor, Limits
from startup_ray.tuning.journal import Journal, Trial
from startup_ray.tuning.measure import Measure
from startup_ray.tuning.rungs import Rungs
from tests.fakes import Clock

MEASURE = Measure(metric="val/f1", mode="max", monitor="val/f1")


@dataclass
class Sweep:
    folder: Folder
    curves: Sequence[Sequence[float]]
    """Of each trial, by its number; a trial that has more numbers begins again from the first."""
    slots: int = 1
    clock: Clock = field(default_factory=Clock)

    @contextmanager
    def conductor(self, *, trials: int | None = None, asha: bool = True, **more: Any) -> Iterator[Conductor]:
        limits = more.pop("limits", Limits(trials=trials))
        with hold(self.folder) as lease:
            journal = Journal(self.folder, lease.fence)
            yield Conductor(
                journal.read(),
                journal=journal,
                measure=MEASURE,
                supply=lambda number: Trial(number=number, values={"model.dense": number}, seed=7),
                rungs=Rungs(mode="max", min_epochs=1, reduction=3) if asha else None,
                limits=limits,
                slots=self.slots,
                clock=self.clock,
                **more,
            )

    def play(self, conductor: Conductor, *, epochs: int = 10**9) -> int:
        """Run to the end, or until so many epochs were trained and all is killed; returns the epochs trained."""
        trained, running = 0, deque[int]()
        while not conductor.is_over and trained < epochs:
            while (trial := conductor.next()) is not None:
                running.append(trial.number)
            number = running.popleft()
            trained += 1
            if self.train(conductor, number):
                running.append(number)
        return trained

    def train(self, conductor: Conductor, number: int) -> bool:
        """An epoch of a trial, from what its folder says; whether it goes on."""
        place = conductor._journal.place(number)
        epoch = len(read_history(place)) + 1
        curve = self.curves[number % len(self.curves)]
        line = {"epoch": epoch, "val/f1": curve[epoch - 1], "val/loss": 1.0, "seconds": 1.0}
        self.clock.now += 1.0
        write_line(place, line)
        if not conductor.report(number, line, is_last=epoch == len(curve)):
            return False
        if epoch == len(curve):
            conductor.end(number, "finished")
            return False
        return True


def write_line(place: Folder, line: Mapping[str, Any]) -> None:
    """As a trial does before it reports."""
    place.put_whole(f"{METRICS}/{int(line['epoch']):04d}.jsonl", (json.dumps(line) + "\n").encode())
