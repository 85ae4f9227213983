"""Sweeps over the recorded table on a virtual clock: nothing is trained, so a hundred sweeps take seconds.

    Replay(table("val/f1"), searcher="tpe", asha=True, seed=0).run()    # epochs spent until the goal is met

As in a sweep, each of `slots` places trains one trial after the other; a start costs `start_epochs` of time and budget.
"""

from __future__ import annotations

import gzip
import heapq
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from startup_ray.space import Axis
from startup_ray.tuning.rungs import Rungs
from startup_ray.tuning.study import Searcher, Study

AXES = (
    Axis(key="training.learning_rate", kind="loguniform", low=1e-4, high=1.024e-1, num=6),
    Axis(key="training.optimizer", kind="choice", choices=("adam", "sgd")),
    Axis(key="training.global_batch", kind="choice", choices=(32, 128)),
    Axis(key="model.filters", kind="choice", choices=([8], [32])),
    Axis(key="model.dense", kind="choice", choices=(32, 128)),
)
"""The space of record.py, as a user writes it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    curves: dict[str, list[float]]
    """Of each configuration, by `row_of`."""
    mode: Literal["max", "min"]

    @property
    def goal(self) -> float:
        """What the third best configuration comes to."""
        return sorted((curve[-1] for curve in self.curves.values()), reverse=self.mode == "max")[2]

    def meets(self, value: float) -> bool:
        return value >= self.goal if self.mode == "max" else value <= self.goal


@cache
def table(metric: str) -> Table:
    document = json.loads(gzip.decompress(Path(__file__).with_name("digits.json.gz").read_bytes()))
    column = document["metrics"].index(metric)
    curves = [[line[column] for line in curve] for curve in document["curves"]]
    keys = map(row_of, document["configurations"])
    return Table(curves=dict(zip(keys, curves, strict=True)), mode="min" if metric == "val/loss" else "max")


def row_of(values: dict[str, Any]) -> str:
    """The same for values that differ by rounding."""
    plain = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in values.items()}
    return json.dumps(plain, sort_keys=True)


@dataclass(kw_only=True)
class Trial:
    values: dict[str, Any]
    curve: list[tuple[int, float]] = field(default_factory=list)
    state: str = "running"


class Replay:
    def __init__(
        self, table: Table, *, searcher: Searcher, asha: bool, seed: int, slots: int = 2, start_epochs: int = 0
    ) -> None:
        self.table, self.searcher, self.asha, self.seed = table, searcher, asha, seed
        self.start_epochs, self.spent = start_epochs, 0
        self.trials: dict[int, Trial] = {}  # the journal
        self.due: list[tuple[int, int]] = []  # (time at which its next epoch ends, trial)
        self.begin()
        for _ in range(slots):
            self.start(0)

    def begin(self) -> None:
        """A driver comes up with nothing but the journal; in another order than things happened in."""
        self.study = Study(AXES, searcher=self.searcher, mode=self.table.mode, seed=self.seed)
        self.rungs = Rungs(mode=self.table.mode)
        for number, trial in reversed(self.trials.items()):
            self.study.add(number, trial.values)
            for epoch, value in reversed(trial.curve):
                self.rungs.report(number, epoch, value)
            if trial.state != "running":
                self.study.tell(number, trial.state, trial.curve)

    def start(self, now: int) -> None:
        number = len(self.trials)
        values = self.study.ask(number)
        if values is not None:
            self.trials[number] = Trial(values=values)
            heapq.heappush(self.due, (now + self.start_epochs + 1, number))
            self.spent += self.start_epochs

    def step(self) -> bool:
        """One epoch of one trial; returns whether the goal is met."""
        now, number = heapq.heappop(self.due)
        trial = self.trials[number]
        curve = self.table.curves[row_of(trial.values)]
        epoch = len(trial.curve) + 1
        self.spent += 1
        trial.curve.append((epoch, curve[epoch - 1]))
        goes_on = self.rungs.report(number, epoch, curve[epoch - 1]) or not self.asha
        if epoch < len(curve) and goes_on:
            heapq.heappush(self.due, (now + 1, number))
            return False
        trial.state = "finished" if epoch == len(curve) else "stopped"
        self.study.tell(number, trial.state, trial.curve)
        if trial.state == "finished" and self.table.meets(curve[-1]):
            return True
        self.start(now)
        return False

    def run(self, kills: Collection[int] = ()) -> float:
        """Epochs until one of the three best has been trained to its end, infinite if all were stopped before.

        The driver is killed after each number of steps in `kills`.
        """
        steps = 0
        while self.due:
            if self.step():
                return self.spent
            steps += 1
            if steps in kills:
                self.begin()
        return math.inf


def median(
    metric: str, searcher: Searcher, *, asha: bool, seeds: range, slots: int = 2, start_epochs: int = 0
) -> float:
    runs = (
        Replay(table(metric), searcher=searcher, asha=asha, seed=seed, slots=slots, start_epochs=start_epochs)
        for seed in seeds
    )
    return float(np.median([run.run() for run in runs]))
