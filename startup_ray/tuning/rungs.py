"""Which trials of a sweep go on: asynchronous successive halving (ASHA; Li et al. 2018, arXiv:1810.05934).

    rungs = Rungs(mode="max", min_epochs=1, reduction=4)    # rungs at epochs 1, 4, 16, ...
    rungs.report(trial=7, epoch=4, value=0.91)              # False: stop it

The stopping variant, as Ray Tune and Optuna have it: a trial that is among the best 1/reduction of those that have
come to a rung goes on at once, any other stops for good; nobody waits. Among fewer than `reduction`, the best goes on.
Why not Ray's AsyncHyperBandScheduler: it loses its rungs when a sweep is restored (ray-project/ray#30838), and nothing
public puts them back.

Law: what is recorded is a pure function of the set of reports. So the rungs of a sweep that was killed are rebuilt by
reporting every curve again, in any order, whatever `report` answers meanwhile; a report made twice counts once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

Mode = Literal["max", "min"]


def is_milestone(epoch: int, min_epochs: int, reduction: int) -> bool:
    """Whether there is a rung at this epoch."""
    while epoch > min_epochs and epoch % reduction == 0:
        epoch //= reduction
    return epoch == min_epochs


class Rungs:
    """Values of the trials at each milestone, min_epochs * reduction**k epochs."""

    def __init__(self, *, min_epochs: int = 1, reduction: int = 4, mode: Mode) -> None:
        if min_epochs < 1 or reduction < 2:
            raise ValueError(f"min_epochs {min_epochs} must be at least 1, reduction {reduction} at least 2")
        self._min_epochs, self._reduction, self._mode = min_epochs, reduction, mode
        self._rungs: dict[int, dict[int, tuple[int, float]]] = {}  # {milestone: {trial: (epoch, loss)}}

    def report(self, trial: int, epoch: int, value: float) -> bool:
        """Record what a trial reached after that many epochs; returns whether it goes on.

        Each milestone keeps the first report of a trial at or after it; a report that no milestone keeps stops
        nothing. Made again, a report is judged again, among all that have come since.
        """
        loss = self._loss(value)
        goes_on = True
        for milestone in self._passed(epoch):
            rung = self._rungs.setdefault(milestone, {})
            # Of two values of one epoch, as a trial has that went back to a checkpoint, the worse: in any order.
            first, known = rung.get(trial, (epoch, -math.inf))
            if epoch < first:
                rung[trial] = (epoch, loss)
            elif epoch == first:
                rung[trial] = (epoch, max(loss, known))
            goes_on = goes_on and (epoch > first or self._is_among_best(trial, rung))
        return goes_on

    def _passed(self, epoch: int) -> Iterator[int]:
        milestone = self._min_epochs
        while milestone <= epoch:
            yield milestone
            milestone *= self._reduction

    def _loss(self, value: float) -> float:
        """Less is better, and NaN is worst."""
        if math.isnan(value):
            return math.inf
        return value if self._mode == "min" else -value

    def _is_among_best(self, trial: int, rung: dict[int, tuple[int, float]]) -> bool:
        own = rung[trial][1]
        better = sum(loss < own for _, loss in rung.values())
        return own < math.inf and better < max(1, len(rung) // self._reduction)
