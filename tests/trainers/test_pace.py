from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from startup_ray.trainers.pace import Pace


def produce(path: str, made: Synchronized[int]) -> None:
    pace = Pace.join(path)
    for number in range(20):
        pace.await_turn(number, ahead=3)
        made.value += 1


def await_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_another_process_runs_ahead_by_so_many_and_no_more() -> None:
    context = multiprocessing.get_context("spawn")
    made = context.Value("i", 0)
    with Pace.begin() as pace:
        producer = context.Process(target=produce, args=(pace.path, made), daemon=True)
        producer.start()
        for taken in range(18):
            await_until(lambda wanted=taken + 3: made.value >= min(wanted, 20))  # type: ignore[misc]
            time.sleep(0.03)
            assert made.value == min(taken + 3, 20)
            pace.take()
        producer.join(timeout=30)
        assert producer.exitcode == 0
    assert not Path(pace.path).exists()
