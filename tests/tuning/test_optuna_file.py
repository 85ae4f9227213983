from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import optuna
import pytest

from startup_ray.space import grid
from startup_ray.space_text import parse_space
from startup_ray.tuning.optuna_file import importance, write_sqlite
from startup_ray.tuning.study import Study, Told
from tests.tuning.spaces import MIXED, SMALL, search


def test_sqlite_opens_with_the_values_of_the_job_file(tmp_path: Path) -> None:
    values = search(Study(MIXED, searcher="random", mode="max", seed=0), 6)
    states = ("finished", "stopped", "diverged", "failed", "running", "finished")
    curves = [((1, 0.5), (2, 0.75)), ((1, 0.25),), ((1, math.nan),), (), ((1, 0.5),), ((1, math.nan),)]
    trials = [Told(number=i, values=values[i], state=states[i], curve=curves[i]) for i in range(6)]
    path = str(tmp_path / "study.sqlite")
    write_sqlite(path, "sweep", MIXED, trials[::-1], "max")
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.load_study(study_name="sweep", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING", "FAIL"]
    assert [trial.user_attrs["state"] for trial in study.trials] == list(states)
    assert study.best_value == 0.75
    for trial, told in zip(study.trials, trials, strict=True):
        expected = told.values | {"model.filters": json.dumps(told.values["model.filters"])}
        assert trial.params.keys() == expected.keys()
        for name, value in expected.items():
            assert trial.params[name] == (pytest.approx(value) if isinstance(value, float) else value)
        rate = trial.distributions["training.learning_rate"]
        assert isinstance(rate, optuna.distributions.FloatDistribution)
        assert rate.log
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.75}
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(FileExistsError):
        write_sqlite(path, "sweep", MIXED, trials, "max")
    with sqlite3.connect(path) as file:
        assert file.execute("select count(*) from trials").fetchone() == (6,)
    file.close()


@pytest.mark.ray
def test_importance_finds_the_axis_that_matters() -> None:
    for state in ("finished", "stopped"):
        axes = parse_space({"rate": "loguniform(1e-5, 1)", "noise": "uniform(0, 1)", "kind": "choice(a, b, c)"})
        study = Study(axes, searcher="random", mode="min", seed=3)
        trials = []
        for number in range(30):
            values = study.ask(number)
            assert values is not None
            curve = ((1, (math.log10(values["rate"]) + 3) ** 2),)
            study.tell(number, state, curve)
            trials.append(Told(number=number, values=values, state=state, curve=curve))
        found = importance(axes, trials, "min")
        assert sum(found.values()) == pytest.approx(1)
        assert found["rate"] > 0.8
        assert found == importance(axes, trials, "min")


def test_importance_counts_diverged_trials_as_the_worst_and_leaves_out_conditional_axes() -> None:
    trials = [
        Told(number=i, values=values, state="diverged" if values["a"] == 3 else "finished", curve=((1, values["a"]),))
        for i, values in enumerate(grid(SMALL))
    ]
    found = importance(SMALL, trials, "max")
    assert list(found) == ["a", "b"]
    assert found["a"] > 0.9


def test_importance_of_too_little_is_empty() -> None:
    trials = [Told(number=i, values=v, state="finished", curve=((1, i),)) for i, v in enumerate(grid(SMALL))]
    assert importance(SMALL, trials[:3], "max") == {}
    same = [Told(number=i, values=v, state="finished", curve=((1, 1),)) for i, v in enumerate(grid(SMALL))]
    assert importance(SMALL, same, "max") == {}
    assert importance(SMALL, [], "max") == {}
