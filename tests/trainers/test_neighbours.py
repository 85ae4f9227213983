"""Sums through shared memory, with real processes that are really killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from startup_ray.trainers import neighbours
from startup_ray.trainers.neighbours import NeighbourLostError, Neighbours, join


@contextmanager
def together(world: int, timeout_s: float = 20.0) -> Iterator[list[Neighbours]]:
    """A group whose members are threads of this process."""
    token = uuid.uuid4().hex
    with ThreadPoolExecutor(world) as pool:
        group = list(pool.map(lambda rank: join(token, rank=rank, world=world, timeout_s=timeout_s), range(world)))
    yield group
    for one in group:
        one.close()


def each(group: list[Neighbours], act: Callable[[Neighbours], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(group)) as pool:
        return list(pool.map(act, group))


def values(rank: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(np.random.default_rng([rank, *shape]).normal(0, 1000, shape)).astype(dtype)


def expected(world: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    total = values(0, shape, dtype)
    for rank in range(1, world):
        total = total + values(rank, shape, dtype)
    return total


def _send(sent: dict[int, list[np.ndarray]], one: Neighbours) -> list[np.ndarray]:
    return one.sum(sent[one.rank])


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_sums_are_those_in_the_order_of_ranks_on_every_worker(world: int, dtype: str) -> None:
    """Sizes that grow and shrink, empty ones, and fewer numbers than workers."""
    with together(world) as group:
        for size in (3, 0, 1, 10_000, 7):
            shapes: list[tuple[int, ...]] = [(size,), (2, size), ()]
            sent = {one.rank: [values(one.rank, shape, dtype) for shape in shapes] for one in group}
            for sums in each(group, partial(_send, sent)):
                for found, shape in zip(sums, shapes, strict=True):
                    assert (found.dtype, found.shape) == (np.dtype(dtype), shape)
                    assert found.tobytes() == expected(world, shape, dtype).tobytes()


def test_a_sum_is_kept_when_the_next_one_overwrites_the_memory() -> None:
    with together(2) as group:
        first = each(group, lambda one: one.sum([np.full(5, one.rank + 1.0)]))
        each(group, lambda one: one.sum([np.full(5, 100.0)]))
        assert [sums[0].tolist() for sums in first] == [[3.0] * 5] * 2


def test_one_who_is_late_is_waited_for() -> None:
    def act(one: Neighbours) -> Any:
        time.sleep(0.3 * one.rank)
        return one.sum([np.ones(3)])[0].tolist()

    with together(2) as group:
        assert each(group, act) == [[2.0] * 3] * 2


def test_one_who_never_comes_is_told_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "LOOK_S", 0.05)
    with together(2, timeout_s=0.2) as group, pytest.raises(NeighbourLostError, match="worker 1 does not answer"):
        group[0].sum([np.ones(3)])


OTHER = """
import sys
import numpy as np
from startup_ray.trainers import neighbours
group = neighbours.join(sys.argv[1], rank=1, world=2, timeout_s=60)
print("here", flush=True)
while True:
    group.sum([np.ones(3)])
"""


@pytest.mark.parametrize(
    ("kind", "told", "within_s"),
    [(signal.SIGKILL, "worker 1 has died", 1.0), (signal.SIGSTOP, "worker 1 does not answer any more", 2.0)],
)
def test_a_process_that_ends_or_is_stopped_is_noticed(
    monkeypatch: pytest.MonkeyPatch, kind: signal.Signals, told: str, within_s: float
) -> None:
    monkeypatch.setattr(neighbours, "LOOK_S", 0.2)
    token = uuid.uuid4().hex
    other = subprocess.Popen([sys.executable, "-c", OTHER, token], stdout=subprocess.PIPE, cwd=os.getcwd())
    group = join(token, rank=0, world=2, timeout_s=60)

    def add_for_ever() -> None:
        while True:
            group.sum([np.ones(3)])

    try:
        for _ in range(100):
            assert group.sum([np.full(3, 2.0)])[0].tolist() == [3.0] * 3
        other.send_signal(kind)
        began = time.monotonic()
        with pytest.raises(NeighbourLostError, match=told):
            add_for_ever()
        assert time.monotonic() - began < 10 * within_s  # with room for a busy machine
    finally:
        other.kill()
        other.communicate()
        group.close()


def test_others_who_are_missing_at_the_start_are_told_after_the_limit() -> None:
    with pytest.raises(NeighbourLostError, match="do not find each other"):
        join(uuid.uuid4().hex, rank=1, world=2, timeout_s=1, call_s=0.2)
    with pytest.raises(NeighbourLostError, match="do not find each other"):
        join(uuid.uuid4().hex, rank=0, world=2, timeout_s=1, call_s=0.2)


def test_two_groups_at_once_do_not_meet() -> None:
    with together(2) as first, together(2) as second:
        sent = {id(one): np.full(4, value) for group, value in ((first, 1.0), (second, 7.0)) for one in group}
        totals = each([*first, *second], lambda one: one.sum([sent[id(one)]])[0].tolist())
    assert totals == [[2.0] * 4] * 2 + [[14.0] * 4] * 2
