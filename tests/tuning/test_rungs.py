from __future__ import annotations

import math
import random

import pytest

from startup_ray.tuning.rungs import Rungs, is_milestone


def test_of_those_that_came_to_a_rung_the_best_third_goes_on() -> None:
    rungs = Rungs(mode="max", reduction=3)
    assert rungs.report(0, 1, 0.5)  # alone it is the best
    assert not rungs.report(1, 1, 0.4)
    assert rungs.report(2, 1, 0.6)  # one of three, and the best
    assert not rungs.report(3, 1, 0.55)  # still one
    assert rungs.report(4, 1, 0.6)  # as good as the best
    assert rungs.report(5, 1, 0.58) is False  # two of six: 0.6 and 0.6
    assert rungs.report(2, 2, 0.0)  # no rung
    assert rungs.report(2, 3, 0.7)  # the first in the next
    assert not rungs.report(4, 3, 0.6)


def test_mode_min_is_mode_max_of_the_negative() -> None:
    for seed in range(50):
        reports = draw(seed)
        least, most = Rungs(mode="min"), Rungs(mode="max")
        assert [least.report(t, e, v) for t, e, v in reports] == [most.report(t, e, -v) for t, e, v in reports]


def test_rungs_begin_at_min_epochs_and_are_reduction_times_as_far_each() -> None:
    rungs = Rungs(mode="max", min_epochs=2, reduction=4)
    assert all(rungs.report(0, epoch, 1.0) for epoch in range(1, 40))
    stopped_at = [epoch for epoch in range(1, 40) if not rungs.report(1, epoch, 0.5)]
    assert stopped_at == [2, 8, 32]
    assert stopped_at == [epoch for epoch in range(1, 40) if is_milestone(epoch, 2, 4)]


def test_a_rung_that_was_passed_without_a_report_has_the_next_one() -> None:
    rungs = Rungs(mode="max", reduction=3)
    assert rungs.report(0, 4, 0.5)  # at 1 and 3
    assert not rungs.report(1, 1, 0.4)
    assert not rungs.report(2, 3, 0.3)


def test_reports_in_any_order_and_twice_rebuild_the_rungs() -> None:
    for seed in range(200):
        reports = draw(seed)
        first, again = Rungs(mode="max"), Rungs(mode="max")
        for report in reports:
            first.report(*report)
        extra = random.Random(seed).choices(reports, k=len(reports) // 2)
        for report in random.Random(-seed).sample(reports + extra, k=len(reports) + len(extra)):
            again.report(*report)
        probes = [(100, epoch, value / 10) for epoch in (1, 3, 9) for value in range(11)]
        for probe in reports + probes:
            assert first.report(*probe) == again.report(*probe)


def draw(seed: int) -> list[tuple[int, int, float]]:
    """Curves of some trials, with gaps, ties, NaN, and epochs that were trained twice."""
    rng = random.Random(seed)
    reports = [(t, e, round(rng.random(), 1)) for t in range(rng.randint(1, 12)) for e in range(1, rng.randint(2, 12))]
    reports += [(t, e, round(rng.random(), 1)) for t, e, _ in reports if rng.random() < 0.1]
    reports = [(t, e, math.nan if rng.random() < 0.1 else v) for t, e, v in reports if rng.random() < 0.8]
    return rng.sample(reports, k=len(reports))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_worst_and_never_goes_on(mode: str) -> None:
    rungs = Rungs(mode="max" if mode == "max" else "min")
    assert not rungs.report(0, 1, math.nan)
    assert rungs.report(1, 1, -1e300 if mode == "max" else 1e300)
    assert not rungs.report(0, 1, math.nan)


def test_what_makes_no_rungs_is_refused() -> None:
    with pytest.raises(ValueError, match="min_epochs 0"):
        Rungs(mode="max", min_epochs=0)
    with pytest.raises(ValueError, match="reduction 1"):
        Rungs(mode="max", reduction=1)
