"""What a sweep's trials are to Optuna once they are told: a file for optuna-dashboard, and which axes mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from startup_ray.space import Axis
from startup_ray.tuning.codes import Code, Mode, direction, frozen_trial, plain, shown
from startup_ray.tuning.study import Told


def write_sqlite(path: str, name: str, axes: Sequence[Axis], trials: Sequence[Told], mode: Mode) -> None:
    """Write a new file that Optuna and optuna-dashboard open, with the values as they are in the job file.

    Raises:
        FileExistsError: there is one.
    """
    if Path(path).exists():
        raise FileExistsError(path)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction(mode))
        study.add_trials(_export(axes, told) for told in sorted(trials, key=lambda told: told.number))
    finally:
        storage.remove_session()
        storage.engine.dispose()


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
    study = optuna.create_study(direction=direction(mode))
    for told in usable:
        value = told.last if math.isfinite(told.last) else worst
        study.add_trial(frozen_trial(codes, told.values, TrialState.COMPLETE, value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def _export(axes: Sequence[Axis], told: Told) -> FrozenTrial:
    states = {"running": TrialState.RUNNING, "stopped": TrialState.PRUNED}
    if told.state == "finished" and not math.isnan(told.last):
        states["finished"] = TrialState.COMPLETE  # Optuna lets none be complete without a value
    state = states.get(told.state, TrialState.FAIL)
    known: dict[str, BaseDistribution] = {axis.key: plain(axis) for axis in axes if axis.key in told.values}
    return create_trial(
        state=state,
        value=told.last if state == TrialState.COMPLETE else None,
        params={key: shown(known[key], told.values[key]) for key in known},
        distributions=known,
        intermediate_values=dict(told.curve),
        user_attrs={"number": told.number, "state": told.state},
    )
