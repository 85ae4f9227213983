"""What a contestant does in a window of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, kw_only=True)
class Report:
    """Of one worker process."""

    steps: int
    seconds: float
    cpu_s: float
    weights: str
    """Hex digest."""


@dataclass(frozen=True, kw_only=True)
class Window:
    images_per_s: float
    """All workers together."""
    cpu_us: float
    """CPU time of all processes, per image."""
    whole_images_per_s: float | None = None
    """With what is done between epochs, if `images_per_s` is without it."""


def together(reports: Sequence[Report], batch: int) -> Window:
    """Workers that ran at the same time, each with `batch` rows in a step."""
    images = sum(report.steps for report in reports) * batch
    rate = sum(report.steps * batch / report.seconds for report in reports)
    return Window(images_per_s=rate, cpu_us=sum(report.cpu_s for report in reports) * 1e6 / images)


def descendants_cpu_s() -> float:
    """CPU time so far of all that this process has started and that lives, with that of their children that ended."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def end_descendants(limit_s: float) -> None:
    """Wait for all that this process has started, at last not politely."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), limit_s)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, limit_s)
