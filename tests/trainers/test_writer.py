from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from startup_ray.errors import RunHeldError, StorageError
from startup_ray.lease import hold
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.loop import Position
from startup_ray.trainers.writer import Writer


class Gate:
    """Jobs that stay until they are let through; `done` names those that have ended, in order."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.open = threading.Event()
        self.begun = threading.Event()

    def job(self, number: int, error: BaseException | None = None) -> Callable[[], None]:
        def run() -> None:
            self.begun.set()
            assert self.open.wait(10)
            if error is not None:
                raise error
            self.done.append(number)

        return run


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    writers = [thread for thread in threading.enumerate() if thread.name == "writer"]
    for thread in writers:
        thread.join(5)
    assert not any(thread.is_alive() for thread in writers)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def await_jobs(writer: Writer) -> None:
    with suppress(StorageError):  # they were just let go, and this writer has little patience
        writer.flush()
    writer.close()


def test_jobs_are_done_in_order_and_all_by_the_end() -> None:
    done: list[int] = []
    with Writer() as writer:
        for number in range(100):
            writer.put(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == list(range(100))


def test_one_is_done_and_one_waits_without_holding_up_the_caller(gate: Gate) -> None:
    with Writer() as writer:
        writer.put(gate.job(1))
        assert gate.begun.wait(5)
        writer.put(gate.job(2))
        assert writer.waited_s < 0.5
        assert gate.done == []
        third = in_thread(lambda: writer.put(gate.job(3)))
        third.join(0.1)
        assert third.is_alive()
        gate.open.set()
        third.join(5)
        assert not third.is_alive()
    assert gate.done == [1, 2, 3]
    assert writer.waited_s >= 0.05


@pytest.mark.parametrize("error", [StorageError("full"), RunHeldError("taken over"), OSError("odd"), SystemExit(1)])
def test_an_error_is_met_by_the_caller_and_nothing_is_done_after_it(gate: Gate, error: BaseException) -> None:
    writer = Writer()
    writer.put(gate.job(1))
    assert gate.begun.wait(5)
    writer.check()
    writer.put(gate.job(2, error))
    gate.open.set()
    for call in (writer.flush, writer.check, lambda: writer.put(gate.job(3)), writer.close, writer.close):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error
    assert gate.done == [1]


def test_the_job_that_waits_behind_a_failed_one_is_not_done(gate: Gate) -> None:
    writer = Writer()
    writer.put(gate.job(1, StorageError("full")))
    assert gate.begun.wait(5)
    writer.put(gate.job(2))
    gate.open.set()
    with pytest.raises(StorageError, match="full"):
        writer.close()
    assert gate.done == []


def test_an_error_of_the_last_job_is_met_at_the_end() -> None:
    def fail() -> None:
        raise StorageError("full")

    with pytest.raises(StorageError, match="full"), Writer() as writer:
        writer.put(fail)


def test_a_body_that_fails_still_gets_written_what_it_has_put(gate: Gate) -> None:
    def body() -> None:
        with Writer() as writer:
            writer.put(gate.job(1))
            assert gate.begun.wait(5)
            writer.put(gate.job(2))
            threading.Timer(0.1, gate.open.set).start()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        body()
    assert gate.done == [1, 2]


def test_a_body_that_fails_keeps_its_own_error(gate: Gate) -> None:
    gate.open.set()

    def body() -> None:
        with Writer() as writer:
            writer.put(gate.job(1, StorageError("full")))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        body()


@pytest.mark.ray
@pytest.mark.parametrize("call", ["put", "flush", "close"])
def test_storage_that_hangs_is_told_within_the_limit(gate: Gate, call: str) -> None:
    writer = Writer(timeout_s=0.1)
    writer.put(gate.job(1))
    assert gate.begun.wait(5)
    writer.put(gate.job(2))
    began = time.monotonic()
    with pytest.raises(StorageError, match="storage has not taken"):
        writer.put(gate.job(3)) if call == "put" else getattr(writer, call)()
    assert time.monotonic() - began < 3
    gate.open.set()
    await_jobs(writer)


@pytest.mark.ray
def test_a_body_that_fails_does_not_wait_for_storage_that_hangs(gate: Gate) -> None:
    def body() -> None:
        with Writer(farewell_s=0.1) as writer:
            writer.put(gate.job(1))
            assert gate.begun.wait(5)
            writer.put(gate.job(2))
            raise ValueError("mine")

    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        body()
    assert time.monotonic() - began < 5
    gate.open.set()


def test_a_closed_writer_takes_nothing_more() -> None:
    writer = Writer()
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.put(lambda: None)


def test_what_a_finished_job_held_is_freed() -> None:
    class Weights:
        pass

    with Writer() as writer:
        weights = Weights()
        gone = weakref.ref(weights)
        writer.put(partial(repr, weights))
        del weights
        writer.flush()
        gc.collect()
        assert gone() is None


def test_checkpoints_put_are_saved_as_if_written_at_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    weights = np.zeros(1000, np.float32)
    with hold(folder) as lease, Writer() as writer:
        for step in (5, 10, 15):
            weights += 1
            state = State(position=Position(step=step, epoch=0), arrays=[weights.copy()])
            writer.put(lambda state=state: checkpoint.save(folder, lease.fence, state, keep=2))  # type: ignore[misc]
    assert checkpoint.steps(folder) == [10, 15]
    assert checkpoint.read(folder, 10).arrays[0][0] == 2
    assert checkpoint.read(folder, 15).arrays[0][0] == 3
