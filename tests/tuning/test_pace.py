from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest

from startup_ray.job import Job
from startup_ray.jobfile import parse_job
from startup_ray.tuning.pace import is_decided, together
from startup_ray.tuning.rungs import Rungs
from tests.fakes import Clock

JOB = """
name: bands
ingest: {manifest: nowhere.json}
training: {epochs: 30}
sweep: {space: {model.dense: 'int(4, 16)'}}
"""


def job_with(*words: str) -> Job:
    return parse_job(JOB, set=words)


class Training:
    """Epochs of so many seconds, that end in a word or an error."""

    def __init__(self, clock: Clock, *seconds: float, end: str | Exception = "done") -> None:
        self.clock, self.seconds, self.end, self.is_closed = clock, seconds, end, False

    def turns(self) -> Generator[dict[str, Any], None, str]:
        try:
            for epoch, seconds in enumerate(self.seconds, 1):
                self.clock.now += seconds
                yield {"epoch": epoch}
        finally:
            self.is_closed = True
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


def told(training: Training, *decided: int) -> Generator[list[int], None, str]:
    batches = together(training.turns(), lambda epoch: epoch in decided, tells_s=0.5, clock=training.clock)
    try:
        while True:
            yield [line["epoch"] for line in next(batches)]
    except StopIteration as end:
        return str(end.value)
    finally:
        batches.close()


def test_short_epochs_are_told_together() -> None:
    training = Training(Clock(), *[0.25] * 7)
    batches = told(training)
    assert [*batches] == [[1, 2], [3, 4], [5, 6], [7]]
    assert training.is_closed


def test_long_epochs_are_told_one_by_one() -> None:
    assert [*told(Training(Clock(), 3.0, 0.5, 7.0))] == [[1], [2], [3]]


def test_one_that_decides_is_the_last_of_its_report() -> None:
    assert [*told(Training(Clock(), *[0.125] * 10), 1, 3, 9)] == [[1], [2, 3], [4, 5, 6, 7], [8, 9], [10]]


def test_the_time_that_an_answer_takes_is_not_the_trials() -> None:
    clock = Clock()
    batches = told(Training(clock, *[0.25] * 4))
    assert next(batches) == [1, 2]
    clock.now += 60.0
    assert next(batches) == [3, 4]


def test_outcomes_and_errors_come_after_what_was_before() -> None:
    def outcome() -> Iterator[Any]:
        yield (yield from told(Training(Clock(), 0.1, 0.1)))

    assert [*outcome()] == [[1, 2], "done"]
    failing = told(Training(Clock(), 0.1, 0.1, end=MemoryError("no room")))
    assert next(failing) == [1, 2]
    with pytest.raises(MemoryError, match="no room"):
        next(failing)


def test_closing_it_closes_the_training() -> None:
    training = Training(Clock(), *[0.25] * 4)
    batches = told(training)
    next(batches)
    batches.close()
    assert training.is_closed


@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 4), (2, 3), (3, 2)])
def test_what_is_not_told_at_once_would_stop_no_trial(min_epochs: int, reduction: int) -> None:
    job = job_with(f"sweep.min_epochs={min_epochs}", f"sweep.reduction={reduction}")
    rungs = Rungs(mode="max", min_epochs=min_epochs, reduction=reduction)
    for epoch in range(1, 31):
        assert rungs.report(0, epoch, 1.0)
        goes_on = rungs.report(1, epoch, 0.0)
        assert goes_on != is_decided(job, epoch)


def test_without_asha_none_decides_and_with_a_budget_of_epochs_each() -> None:
    assert not any(map(partial(is_decided, job_with("sweep.scheduler=none")), range(1, 31)))
    assert all(map(partial(is_decided, job_with("sweep.epochs=100")), range(1, 31)))


def test_where_the_metric_is_not_reported_each_epoch_any_may_decide() -> None:
    gan = job_with("model.kind=gan", "sweep.space={training.learning_rate: 'uniform(0.1, 0.2)'}")
    assert all(map(partial(is_decided, gan), range(1, 31)))
