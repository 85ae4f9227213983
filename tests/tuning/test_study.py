from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import pytest

from startup_ray.space import Axis, SpaceError, grid
from startup_ray.space_text import parse_space
from startup_ray.tuning.codes import Mode
from startup_ray.tuning.study import Searcher, Study, Told
from tests.tuning.replay import AXES
from tests.tuning.spaces import MIXED, SMALL, search

SEARCHERS: list[Searcher] = ["tpe", "random", "grid"]


def key(values: dict[str, Any] | None) -> str:
    return json.dumps(values, sort_keys=True)


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
