from __future__ import annotations

import csv
import io
from typing import Literal

import pytest
from scipy import stats

from startup_ray.tuning.journal import State, Trial
from startup_ray.tuning.leaderboard import as_csv, interval, places, ranked, table
from startup_ray.tuning.measure import Measure


def measure(mode: Literal["max", "min"] = "max") -> Measure:
    metric = "val/f1" if mode == "max" else "val/loss"
    return Measure(metric=metric, mode=mode, monitor=metric)


def trial(number: int, score: float, state: State = "finished", of: int | None = None, seed: int = 0) -> Trial:
    line = {"epoch": 1, "val/f1": score, "val/loss": score, "seconds": 2.0}
    return Trial(number=number, values={"model.dense": number}, seed=seed, of=of, state=state, lines={1: line})


def test_only_what_was_trained_to_the_end_is_ranked() -> None:
    trials = [trial(0, 0.5), trial(1, 0.9, "stopped"), trial(2, 0.7), trial(3, 0.7), trial(4, 0.8, "diverged")]
    assert [one.number for one in ranked(trials, measure())] == [2, 3, 0]
    assert [one.number for one in ranked(trials, measure("min"))] == [0, 2, 3]


def test_the_winner_is_the_best_with_fresh_seeds_and_not_the_luckiest() -> None:
    best = [trial(3, 0.99), trial(1, 0.95)]
    again = [trial(9 + i, score, of=3, seed=i) for i, score in enumerate((0.90, 0.91, 0.92))]
    again += [trial(12 + i, score, of=1, seed=i) for i, score in enumerate((0.940, 0.950, 0.965))]
    first, second = places(best, again, measure())
    assert (first.trial, second.trial) == (1, 3)
    assert first.mean == pytest.approx(0.951667, abs=1e-6)
    assert (first.found, second.found) == (0.95, 0.99)
    # In pairs by seed: 0.04, 0.04 and 0.045.
    assert second.behind == pytest.approx(0.125 / 3)
    assert second.is_noise is False
    assert first.is_noise is None


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    best = [trial(0, 0.9), trial(1, 0.9)]
    again = [trial(9 + i, score, of=0, seed=i) for i, score in enumerate((0.90, 0.80, 0.95))]
    again += [trial(12 + i, score, of=1, seed=i) for i, score in enumerate((0.85, 0.90, 0.80))]
    first, second = places(best, again, measure())
    assert (first.trial, second.is_noise) == (0, True)


def test_one_seed_tells_no_interval() -> None:
    found = places([trial(0, 0.9), trial(1, 0.8)], [trial(2, 0.9, of=0), trial(3, 0.8, of=1)], measure())
    assert [(place.interval, place.is_noise) for place in found] == [(None, None), (None, None)]


def test_a_configuration_whose_trainings_all_diverged_has_no_place() -> None:
    best = [trial(0, 0.9), trial(1, 0.8)]
    found = places(best, [trial(2, 0.9, "diverged", of=0), trial(3, 0.8, of=1)], measure())
    assert [place.trial for place in found] == [1]


def test_the_interval_is_that_of_scipy() -> None:
    values = [0.91, 0.95, 0.93, 0.9]
    expected = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval([0.9]) is None


def test_the_table_has_a_column_for_every_axis_of_any_trial() -> None:
    other = Trial(number=7, values={"model.filters": [8, 16]}, seed=1, state="failed", reason="it, failed")
    rows = list(csv.DictReader(io.StringIO(as_csv(table([trial(0, 0.5), other], measure())).decode())))
    assert rows[0]["model.dense"] == "0"
    assert rows[0]["val/f1"] == "0.5"
    assert rows[1]["model.filters"] == "[8, 16]"
    assert (rows[1]["reason"], rows[1]["val/f1"], rows[1]["model.dense"]) == ("it, failed", "", "")
