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
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from startup_ray.space import MOST, Axis, grid

Searcher = Literal["tpe", "random", "grid"]
Mode = Literal["max", "min"]
STATES = ("running", "finished", "stopped", "diverged", "failed")
STARTUP = 4
"""Trials before TPE (Bergstra et al. 2011) has anything to go by; they are spread by a Latin hypercube."""
CANDIDATES = 100
"""Draws near the good ones, of which TPE takes the one that is least near the others. Optuna has 24."""
DRAWS = 32
"""Draws for one question, until one has not been tried; then any that is left."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


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
        self._texts[number] = _text(dict(values))
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
            return _trial(self._codes, told, TrialState.RUNNING)
        if math.isnan(told.last):
            return _trial(self._codes, told, TrialState.PRUNED)  # without a value: the last in Optuna's order
        return _trial(self._codes, told, TrialState.COMPLETE, value=told.last)

    def _next(self, number: int, taken: set[str]) -> dict[str, Any] | None:
        left = (values for values in grid(self._axes) if _text(values) not in taken) if self._finite else iter(())
        first = next(left, None)
        if self._searcher == "grid" or (self._finite and first is None):
            return first
        rng = np.random.default_rng([self._seed, number])
        for values in self._draws(number, rng):
            if _text(values) not in taken or first is None:
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
        study = optuna.create_study(sampler=sampler, direction=_direction(self._mode))
        study.add_trials(self._frozen[number] for number in sorted(self._frozen))
        return study

    def _suggest(self, trial: Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for code in self._codes:
            if code.is_active(values):
                values[code.axis.key] = code.decode(code.suggest(trial))
        return values


@dataclass(frozen=True)
class Code:
    """An axis as the searcher knows it: the index of a point, or the value in a range without steps."""

    axis: Axis

    @cached_property
    def points(self) -> tuple[Any, ...] | None:
        return self.axis.points()

    @cached_property
    def distribution(self) -> CategoricalDistribution | FloatDistribution | IntDistribution:
        if self.axis.kind == "choice":
            return CategoricalDistribution(range(len(self.axis.choices)))  # Optuna takes no lists
        if self.points is not None:
            return IntDistribution(0, len(self.points) - 1)  # of equal ratio, too: their indices are evenly spaced
        return _plain(self.axis)

    def is_active(self, values: Mapping[str, Any]) -> bool:
        return self.axis.when is None or self.axis.when.holds(values)

    def suggest(self, trial: Trial) -> Any:
        key, known = self.axis.key, self.distribution
        if isinstance(known, CategoricalDistribution):
            return trial.suggest_categorical(key, known.choices)
        if isinstance(known, IntDistribution):
            return trial.suggest_int(key, known.low, known.high, step=known.step, log=known.log)
        return trial.suggest_float(key, known.low, known.high, step=known.step, log=known.log)

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1) of the axis."""
        if self.points is not None:
            return self.points[int(place * len(self.points))]
        half = 0.5 if self.axis.kind == "logint" else 0  # so that the ends are as likely as what lies between
        low, high = self.axis.low - half, self.axis.high + half
        is_log = self.axis.kind in ("loguniform", "logint")
        return self.encode(low * (high / low) ** place if is_log else low + place * (high - low))

    def decode(self, code: Any) -> Any:
        return code if self.points is None else self.points[code]

    def encode(self, value: Any) -> Any:
        """The inverse of `decode`, or the nearest there is.

        Raises:
            ValueError: it is none of the choices.
        """
        if self.axis.kind == "choice":
            return [_text(choice) for choice in self.axis.choices].index(_text(value))
        if self.points is not None:
            return int(np.abs(np.asarray(self.points, np.float64) - value).argmin())
        return _shown(_plain(self.axis), value)


def write_sqlite(path: str, name: str, axes: Sequence[Axis], trials: Sequence[Told], mode: Mode) -> None:
    """Write a new file that Optuna and optuna-dashboard open, with the values as they are in the job file.

    Raises:
        FileExistsError: there is one.
    """
    if Path(path).exists():
        raise FileExistsError(path)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=_direction(mode))
        study.add_trials(_export(axes, told) for told in sorted(trials, key=lambda told: told.number))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _export(axes: Sequence[Axis], told: Told) -> FrozenTrial:
    states = {"running": TrialState.RUNNING, "stopped": TrialState.PRUNED}
    if told.state == "finished" and not math.isnan(told.last):
        states["finished"] = TrialState.COMPLETE  # Optuna lets none be complete without a value
    state = states.get(told.state, TrialState.FAIL)
    known: dict[str, BaseDistribution] = {axis.key: _plain(axis) for axis in axes if axis.key in told.values}
    return create_trial(
        state=state,
        value=told.last if state == TrialState.COMPLETE else None,
        params={key: _shown(known[key], told.values[key]) for key in known},
        distributions=known,
        intermediate_values=dict(told.curve),
        user_attrs={"number": told.number, "state": told.state},
    )


def importance(axes: Sequence[Axis], trials: Sequence[Told], mode: Mode) -> dict[str, float]:
    """Share of each axis in how much the metric varies, by fANOVA (Hutter et al. 2014); together they are 1.

    Stopped trials count with their last value, diverged ones with the worst of those. Only axes that are active in
    all of them can be judged. Empty for fewer than 4 trials, and where all came to the same.
    """
    usable = [told for told in trials if math.isfinite(told.last) or told.state == "diverged"]
    codes = [Code(axis) for axis in axes if all(axis.key in told.values for told in usable)]
    found = [told.last for told in usable if math.isfinite(told.last)]
    if len(usable) < 4 or not codes or len({*found}) < 2:
        return {}
    worst = min(found) if mode == "max" else max(found)
    study = optuna.create_study(direction=_direction(mode))
    for told in usable:
        value = told.last if math.isfinite(told.last) else worst
        study.add_trial(_trial(codes, told, TrialState.COMPLETE, value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def _trial(codes: Sequence[Code], told: Told, state: TrialState, value: float | None = None) -> FrozenTrial:
    active = [code for code in codes if code.axis.key in told.values]
    return create_trial(
        state=state,
        value=value,
        params={code.axis.key: code.encode(told.values[code.axis.key]) for code in active},
        distributions={code.axis.key: code.distribution for code in active},
    )


def _plain(axis: Axis) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """An axis with the values of the job file; of lists and mappings, which Optuna does not take, their JSON."""
    if axis.kind == "choice":
        return CategoricalDistribution([_shown_choice(choice) for choice in axis.choices])
    log, step = axis.kind in ("loguniform", "logint"), axis.step
    high = axis.high if step is None else (axis.points() or [axis.high])[-1]  # Optuna wants it to be reached
    if axis.kind in ("int", "logint"):
        return IntDistribution(int(axis.low), int(high), step=int(step or 1), log=log)
    return FloatDistribution(axis.low, high, step=step, log=log)


def _shown_choice(choice: Any) -> bool | int | float | str | None:
    return choice if choice is None or isinstance(choice, bool | int | float | str) else _text(choice)


def _shown(known: BaseDistribution, value: Any) -> Any:
    """A value as Optuna takes it; of a range the nearest there is, for one in a journal may have been rounded."""
    if not isinstance(known, FloatDistribution | IntDistribution):
        return _shown_choice(value)
    inside = min(max(value, known.low), known.high)
    if known.step is not None and not known.log:
        inside = known.low + known.step * round((inside - known.low) / known.step)
    return round(inside) if isinstance(known, IntDistribution) else float(inside)


def _direction(mode: Mode) -> Literal["maximize", "minimize"]:
    return "maximize" if mode == "max" else "minimize"


def _text(value: Any) -> str:
    """The same for equal values."""
    return json.dumps(value, sort_keys=True)
