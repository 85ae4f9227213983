"""When a trial reports: Ray Tune takes milliseconds of all cores for each report, so short epochs are told together.

    for lines in together(turns, partial(is_decided, job)):
        ...                                     # metrics of one or more epochs; closing it closes the turns

Law: what a sweep decides is what it would decide with a report of each epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from startup_ray.job import Job
from startup_ray.tuning.measure import measure_of
from startup_ray.tuning.rungs import is_milestone

TELLS_S = 0.5
"""How long a trial trains on without a report, where none decides anything."""

Line = Mapping[str, Any]
Outcome = TypeVar("Outcome")


def together(
    turns: Generator[Line, None, Outcome],
    is_decided: Callable[[int], bool],
    *,
    tells_s: float = TELLS_S,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Sequence[Line], None, Outcome]:
    """The same epochs, those of `tells_s` seconds at once, and none after one that decides.

    However the turns end, what came before is told first.
    """
    lines: list[Line] = []
    began, end = clock(), None
    try:
        while end is None:
            try:
                lines.append(next(turns))
            except Exception as error:  # noqa: BLE001 - raised again below
                end = error
            if lines and (end or is_decided(int(lines[-1]["epoch"])) or clock() - began >= tells_s):
                yield lines
                lines, began = [], clock()
    finally:
        turns.close()
    if isinstance(end, StopIteration):
        outcome: Outcome = end.value
        return outcome
    raise end


def is_decided(job: Job, epoch: int) -> bool:
    """Whether it may depend on this epoch, and not only on the time, that its trial goes on."""
    options = job.sweep
    assert options is not None
    if options.epochs is not None or measure_of(job, options).late_by > 1:
        return True
    return options.scheduler == "asha" and is_milestone(epoch, options.min_epochs, options.reduction)
