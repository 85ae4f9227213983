"""What a sweep tries next: Optuna (Akiba et al. 2019, arXiv:1907.10902) behind three verbs that a journal can replay.

    study = Study(axes, searcher="tpe", mode="max", seed=0)
    values = study.ask(0)                                           # {"training.learning_rate": 0.0016, ...}
    study.tell(0, "stopped", [(1, 0.61), (3, 0.74)])

Law: `ask(number)` is a pure function of the axes, searcher, mode and seed, of the number, and of what has been added
and told so far, in whatever order. So a study that is rebuilt from its journal asks on as the one that was killed:
every question goes to a new sampler, seeded by seed and number, over a new in-memory study.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from startup_ray.space import MOST, Axis, grid
from startup_ray.tuning.codes import Code, Mode, direction, frozen_trial, text_of

Searcher = Literal["tpe", "random", "grid"]
STATES = ("running", "finished", "stopped", "diverged", "failed")
STARTUP = 4
"""Trials before TPE (Bergstra et al. 2011) has anything to go by; they are spread by a Latin hypercube."""
CANDIDATES = 100
"""Draws near the good ones, of which TPE takes the one that is least near the others. Optuna has 24."""
DRAWS = 32
"""Draws for one question, until one has not been tried; then any that is left."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A trial, as the journal has it."""

    number: int
    values: dict[str, Any]
    """Of its active axes."""
    state: str = "running"
    """One of `STATES`."""
    curve: tuple[tuple[int, float], ...] = ()
    """(epoch, value of the metric)."""

    @property
    def last(self) -> float:
        """Its last value; NaN for one that came to none worth the name."""
        return self.curve[-1][1] if self.curve and self.state in ("finished", "stopped") else math.nan


class Study:
    """The trials of a sweep, and which configuration the next one gets."""

    def __init__(self, axes: Sequence[Axis], *, searcher: Searcher, mode: Mode, seed: int) -> None:
        self._codes = [Code(axis) for axis in axes]
        self._finite = all(code.points is not None for code in self._codes)
        if searcher == "grid":
            grid(axes)  # raises if there is none
        self._axes, self._searcher, self._mode, self._seed = axes, searcher, mode, seed
        self._trials: dict[int, Told] = {}
        self._frozen: dict[int, FrozenTrial] = {}
        self._texts: dict[int, str] = {}

    def ask(self, number: int) -> dict[str, Any] | None:
        """Values of the active axes of trial `number`, which is running then; those it has if it was asked before.

        None once all of a finite space have been handed out; until then none is twice.
        """
        if number not in self._trials:
            values = self._next(number, set(self._texts.values()))
            if values is None:
                return None
            self.add(number, values)
        return dict(self._trials[number].values)

    def add(self, number: int, values: Mapping[str, Any]) -> None:
        """A trial of before, as running."""
        self._texts[number] = text_of(dict(values))
        self._put(Told(number=number, values=dict(values)))

    def tell(self, number: int, state: str, curve: Sequence[tuple[int, float]]) -> None:
        """What became of a trial."""
        if state not in STATES:
            raise ValueError(f"unknown state {state!r}")
        self._put(replace(self._trials[number], state=state, curve=tuple(curve)))

    def _put(self, told: Told) -> None:
        self._trials[told.number], self._frozen[told.number] = told, self._freeze(told)

    def _freeze(self, told: Told) -> FrozenTrial:
        """A trial as TPE ranks it: by its last value, whether finished or stopped; without one, as the worst of all.

        Told as pruned, stopped trials would rank behind all finished ones by their epochs, so that a bad trial which
        came to its end before there was anything to compare it with would count as good.
        """
        if told.state == "running":
            return frozen_trial(self._codes, told.values, TrialState.RUNNING)
        if math.isnan(told.last):
            # Without a value: the last in Optuna's order.
            return frozen_trial(self._codes, told.values, TrialState.PRUNED)
        return frozen_trial(self._codes, told.values, TrialState.COMPLETE, value=told.last)

    def _next(self, number: int, taken: set[str]) -> dict[str, Any] | None:
        left = (values for values in grid(self._axes) if text_of(values) not in taken) if self._finite else iter(())
        first = next(left, None)
        if self._searcher == "grid" or (self._finite and first is None):
            return first
        rng = np.random.default_rng([self._seed, number])
        for values in self._draws(number, rng):
            if text_of(values) not in taken or first is None:
                return values
        rest = [first, *itertools.islice(left, MOST)]
        return rest[rng.integers(len(rest))]

    def _draws(self, number: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        if self._searcher == "random":
            yield from (self._at(rng.random(len(self._codes))) for _ in range(DRAWS))
            return
        if number < STARTUP:
            yield self._at(self._spread(number))
        study = self._study(int(rng.integers(2**32)))
        for _ in range(DRAWS):
            yield self._suggest(study.ask())  # TPE avoids what it has drawn: it stays in this study, as running

    def _spread(self, number: int) -> np.ndarray:
        """Places of one of `STARTUP` configurations, each in a part of its own of every axis (McKay et al. 1979)."""
        rng, shape = np.random.default_rng([self._seed, STARTUP]), (len(self._codes), STARTUP)
        parts = rng.permuted(np.tile(np.arange(STARTUP), (shape[0], 1)), axis=1)
        places: np.ndarray = (parts + rng.random(shape))[:, number] / STARTUP
        return places

    def _at(self, places: np.ndarray) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for code, place in zip(self._codes, places, strict=True):
            if code.is_active(values):
                values[code.axis.key] = code.at(float(place))
        return values

    def _study(self, seed: int) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, n_ei_candidates=CANDIDATES, multivariate=True, constant_liar=True
        )
        study = optuna.create_study(sampler=sampler, direction=direction(self._mode))
        study.add_trials(self._frozen[number] for number in sorted(self._frozen))
        return study

    def _suggest(self, trial: Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for code in self._codes:
            if code.is_active(values):
                values[code.axis.key] = code.decode(code.suggest(trial))
        return values
