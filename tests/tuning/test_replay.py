from __future__ import annotations

import random
from functools import cache

import pytest

from startup_ray.space import grid
from startup_ray.tuning.study import Searcher
from tests.tuning.replay import AXES, Replay, median, row_of, table

CASES = range(60)
MANY = range(200)
"""Random search costs little to replay, and its median spreads."""


def test_the_space_is_that_of_the_table() -> None:
    rows = [row_of(values) for values in grid(AXES)]
    assert len(rows) == 96
    for metric in ("val/f1", "val/loss", "val/accuracy"):
        assert set(rows) == table(metric).curves.keys()
        assert sum(table(metric).meets(curve[-1]) for curve in table(metric).curves.values()) >= 3


@cache
def random_search(start_epochs: int) -> float:
    return median("val/f1", "random", asha=False, seeds=MANY, start_epochs=start_epochs)


@pytest.mark.ray  # it takes seconds
@pytest.mark.parametrize(("start_epochs", "times"), [(0, 2.5), (4, 2.0)])
def test_tpe_with_asha_finds_a_good_configuration_in_a_fraction_of_the_epochs(start_epochs: int, times: float) -> None:
    ours = median("val/f1", "tpe", asha=True, seeds=CASES, start_epochs=start_epochs)
    assert ours * times <= random_search(start_epochs)


@pytest.mark.ray  # it takes seconds
@pytest.mark.parametrize("start_epochs", [0, 4])
def test_random_search_takes_as_long_as_it_must(start_epochs: int) -> None:
    """Of 96 in any order the first of 3 is the 20th or earlier in half of the cases, as (1 - 20/96)**3 is a half."""
    assert random_search(start_epochs) == pytest.approx(20 * (9 + start_epochs), rel=0.15)


@pytest.mark.parametrize("searcher", ["tpe", "random", "grid"])
def test_a_sweep_that_is_killed_again_and_again_goes_the_same_way(searcher: Searcher) -> None:
    for seed in range(4):
        rng = random.Random(seed)
        settings = {"slots": rng.randint(1, 4), "start_epochs": rng.choice([0, 4])}
        whole = Replay(table("val/f1"), searcher=searcher, asha=True, seed=seed, **settings)
        killed = Replay(table("val/f1"), searcher=searcher, asha=True, seed=seed, **settings)
        assert whole.run() == killed.run(kills=rng.sample(range(200), k=60))
        assert list(whole.trials.items()) == list(killed.trials.items())
