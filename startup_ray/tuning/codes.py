"""The axes of a sweep as Optuna knows them, in both ways in which they are handed to it.

A searcher gets codes: the index of a point, or the value in a range without steps, and `decode` makes a value of the
job file of it again. A file for people gets the values themselves (`plain`, `shown`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from startup_ray.space import Axis

Mode = Literal["max", "min"]

optuna.logging.set_verbosity(optuna.logging.ERROR)


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
        return plain(self.axis)

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
            return [text_of(choice) for choice in self.axis.choices].index(text_of(value))
        if self.points is not None:
            return int(np.abs(np.asarray(self.points, np.float64) - value).argmin())
        return shown(plain(self.axis), value)


def frozen_trial(
    codes: Sequence[Code], values: Mapping[str, Any], state: TrialState, value: float | None = None
) -> FrozenTrial:
    """A trial as a searcher knows it: its values as codes, and what it came to."""
    active = [code for code in codes if code.axis.key in values]
    return create_trial(
        state=state,
        value=value,
        params={code.axis.key: code.encode(values[code.axis.key]) for code in active},
        distributions={code.axis.key: code.distribution for code in active},
    )


def plain(axis: Axis) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """An axis with the values of the job file; of lists and mappings, which Optuna does not take, their JSON."""
    if axis.kind == "choice":
        return CategoricalDistribution([_shown_choice(choice) for choice in axis.choices])
    log, step = axis.kind in ("loguniform", "logint"), axis.step
    high = axis.high if step is None else (axis.points() or [axis.high])[-1]  # Optuna wants it to be reached
    if axis.kind in ("int", "logint"):
        return IntDistribution(int(axis.low), int(high), step=int(step or 1), log=log)
    return FloatDistribution(axis.low, high, step=step, log=log)


def shown(known: BaseDistribution, value: Any) -> Any:
    """A value as Optuna takes it; of a range the nearest there is, for one in a journal may have been rounded."""
    if not isinstance(known, FloatDistribution | IntDistribution):
        return _shown_choice(value)
    inside = min(max(value, known.low), known.high)
    if known.step is not None and not known.log:
        inside = known.low + known.step * round((inside - known.low) / known.step)
    return round(inside) if isinstance(known, IntDistribution) else float(inside)


def _shown_choice(choice: Any) -> bool | int | float | str | None:
    return choice if choice is None or isinstance(choice, bool | int | float | str) else text_of(choice)


def direction(mode: Mode) -> Literal["maximize", "minimize"]:
    """The mode, in Optuna's word."""
    return "maximize" if mode == "max" else "minimize"


def text_of(value: Any) -> str:
    """The same for equal values."""
    return json.dumps(value, sort_keys=True)
