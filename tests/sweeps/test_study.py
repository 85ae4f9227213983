from __future__ import annotations

import itertools
import json
import math
import random
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from startup_ray.space import Axis, SpaceError, grid, parse_space
from startup_ray.study import Mode, Searcher, Study, Told, importance, write_sqlite
from tests.sweeps.replay import AXES

SEARCHERS: list[Searcher] = ["tpe", "random", "grid"]
MIXED = parse_space(
    {
        "training.learning_rate": "loguniform(1e-4, 1e-1)",
        "training.rate": "uniform(0, 1, step=0.3)",
        "training.weight": "uniform(-1, 1)",
        "training.batch": "logint(8, 512)",
        "training.steps": "int(1, 1000, step=7)",
        "training.layers": "int(1, 4)",
        "training.optimizer": "choice(adam, sgd, null, true, 3, 0.5)",
        "training.momentum": "uniform(0, 0.99) if training.optimizer == sgd",
        "model.filters": "choice([8], [8, 16])",
    }
)
SMALL = parse_space({"a": "int(1, 3)", "b": "choice(x, y)", "c": "choice(1, 2, 3) if b == y"})
"""12 configurations."""


def key(values: dict[str, Any] | None) -> str:
    return json.dumps(values, sort_keys=True)


def value_of(values: dict[str, Any]) -> float:
    return float(-abs(math.log10(values["training.learning_rate"]) + 2.5) - (values["training.optimizer"] == "sgd"))


def search(study: Study, trials: int) -> list[dict[str, Any]]:
    """Ask and tell, one after the other."""
    found = []
    for number in range(trials):
        values = study.ask(number)
        assert values is not None
        study.tell(number, "finished", [(1, value_of(values))])
        found.append(values)
    return found


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_every_kind_of_axis_gives_native_values_of_its_own(searcher: Searcher) -> None:
    active = 0
    for values in search(Study(MIXED, searcher=searcher, mode="max", seed=1), 40):
        assert json.loads(json.dumps(values)) == values
        assert 1e-4 <= values["training.learning_rate"] <= 1e-1
        assert values["training.rate"] in (0.0, 0.3, 0.6, 0.9)
        assert -1 <= values["training.weight"] <= 1
        assert type(values["training.batch"]) is int
        assert 8 <= values["training.batch"] <= 512
        assert type(values["training.steps"]) is int
        assert values["training.steps"] % 7 == 1
        assert 1 <= values["training.steps"] <= 1_000
        assert values["training.layers"] in (1, 2, 3, 4)
        assert values["model.filters"] in ([8], [8, 16])
        assert ("training.momentum" in values) == (values["training.optimizer"] == "sgd")
        active += "training.momentum" in values
    assert 0 < active < 40


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_what_is_asked_is_a_function_of_what_was_told_in_whatever_order(searcher: Searcher) -> None:
    states = ("running", "finished", "stopped", "diverged", "failed")
    for seed in range(8):
        rng = random.Random(seed)
        killed = Study(MIXED, searcher=searcher, mode="max", seed=seed)
        journal: list[Told] = []
        for number in range(rng.randint(0, 20)):
            values, state = killed.ask(number), rng.choice(states)
            assert values is not None
            epochs = 9 if state == "finished" else rng.randint(0, 3)
            curve = tuple((epoch, rng.random()) for epoch in range(1, epochs + 1))
            journal.append(Told(number=number, values=json.loads(json.dumps(values)), state=state, curve=curve))
            if state != "running":
                killed.tell(number, state, curve)
        rebuilt = Study(MIXED, searcher=searcher, mode="max", seed=seed)
        for told in rng.sample(journal, k=len(journal)):
            rebuilt.add(told.number, told.values)
            if told.state != "running":
                rebuilt.tell(told.number, told.state, told.curve)
        for number in range(len(journal) + 3):
            assert killed.ask(number) == rebuilt.ask(number)


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_finite_space_is_handed_out_whole_and_nothing_twice(searcher: Searcher) -> None:
    for seed in range(5):
        study = Study(SMALL, searcher=searcher, mode="max", seed=seed)
        asked = [study.ask(number) for number in range(14)]
        assert asked[12:] == [None, None]
        assert sorted(map(key, asked[:12])) == sorted(map(key, grid(SMALL)))
        assert study.ask(3) == asked[3]  # once more


def test_a_grid_goes_in_order_and_needs_one() -> None:
    study = Study(SMALL, searcher="grid", mode="max", seed=0)
    study.add(0, next(grid(SMALL)))
    assert [study.ask(number) for number in range(12)] == list(grid(SMALL))
    with pytest.raises(SpaceError, match="learning_rate"):
        Study(MIXED, searcher="grid", mode="max", seed=0)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_tpe_finds_what_is_good_and_keeps_away_from_what_fails(mode: Mode) -> None:
    axes = parse_space({"x": "uniform(0, 1)", "y": "choice(good, nan, crash)"})
    counts = dict.fromkeys(("good", "nan", "crash"), 0)
    near = 0
    for seed in range(4):
        study = Study(axes, searcher="tpe", mode=mode, seed=seed)
        for number in range(40):
            values = study.ask(number)
            assert values is not None
            state = {"good": "stopped", "nan": "diverged", "crash": "failed"}[values["y"]]
            value = (values["x"] - 0.7) ** 2 * (-1 if mode == "max" else 1)
            study.tell(number, state, [(1, value)])
            if number >= 20:
                counts[values["y"]] += 1
                near += abs(values["x"] - 0.7) < 0.15
    assert counts["good"] > 40  # of 80; 27 by chance
    assert near > 34  # 24 by chance


def test_a_last_value_that_is_nan_counts_as_diverged() -> None:
    nan, diverged = (Study(SMALL, searcher="tpe", mode="max", seed=0) for _ in range(2))
    for study, state, curve in ((nan, "finished", [(1, math.nan)]), (diverged, "diverged", [(1, 0.5)])):
        for number in range(6):
            study.ask(number)
            study.tell(number, state if number % 2 else "finished", curve if number % 2 else [(1, number)])
    assert nan.ask(6) == diverged.ask(6)


def test_a_state_there_is_none_of_is_refused() -> None:
    study = Study(SMALL, searcher="random", mode="max", seed=0)
    study.ask(0)
    with pytest.raises(ValueError, match="unknown state 'done'"):
        study.tell(0, "done", [])


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


def test_random_values_are_spread_evenly_over_their_scale() -> None:
    axes = parse_space({"whole": "logint(1, 8)", "rate": "loguniform(1e-4, 1)", "kind": "choice(a, b)"})
    study = Study(axes, searcher="random", mode="max", seed=0)
    drawn = [values for number in range(2_000) if (values := study.ask(number))]
    share = {value: sum(values["whole"] == value for values in drawn) / 2_000 for value in range(1, 9)}
    for value, found in share.items():
        assert found == pytest.approx(math.log((value + 0.5) / (value - 0.5)) / math.log(8.5 / 0.5), abs=0.04)
    assert sum(values["rate"] < 1e-2 for values in drawn) == pytest.approx(1_000, abs=90)  # 4 sigma
    assert sum(values["kind"] == "a" for values in drawn) == pytest.approx(1_000, abs=90)


def test_a_journal_whose_values_were_rounded_is_taken() -> None:
    axes: tuple[Axis, ...] = AXES
    study = Study(axes, searcher="tpe", mode="max", seed=0)
    for number, values in enumerate(itertools.islice(grid(axes), 0, 96, 12)):
        rounded = values | {"training.learning_rate": float(f"{values['training.learning_rate']:.3g}")}
        study.add(number, rounded)
        study.tell(number, "finished", [(1, 0.5)])
    assert study.ask(8) is not None
