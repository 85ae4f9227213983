"""Jobs done in order in one background thread, so that a training step does not wait for storage.

    with Writer() as writer:                # waits at the end until all is written
        state = State(arrays=copies, ...)
        writer.put(lambda: checkpoint.save(folder, fence, state, keep=3))
        writer.check()                      # raises what a job has met

Law: jobs are done in the order in which they were put, and none after one that failed: what is committed never has
a hole before it. One job is done and at most one waits, which bounds the memory that jobs hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from startup_ray.errors import StorageError

Job = Callable[[], object]

TIMEOUT_S = 240.0
"""How long the caller waits for its jobs: less than the others wait for rank 0 (`sync.TIMEOUT_S`)."""


FAREWELL_S = 30.0
"""How long a body that fails waits for what it has put: whole states of the run, worth keeping, if storage is quick."""


class Writer:
    """Use as a context, from one thread."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S, farewell_s: float = FAREWELL_S) -> None:
        self.waited_s = 0.0
        """Seconds that `put` and `flush` have kept the caller waiting so far."""
        self._timeout_s = timeout_s
        self._farewell_s = farewell_s
        self._change = threading.Condition()
        self._waiting: Job | None = None
        self._is_busy = False
        self._is_closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Have a job done; returns at once unless one waits already.

        The job runs while training goes on, so it must own what it writes: arrays are to be copies, and models files
        or bytes already made, since the next step changes the weights in place.

        Raises:
            StorageError: the one that waits could not begin within `timeout_s`.
            BaseException: what an earlier job has met; this one is not done.
        """
        with self._change:
            self._wait(lambda: self._waiting is None)
            if self._is_closed:
                raise RuntimeError("this writer is closed")
            self._waiting = job
            self._change.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="writer")
                self._thread.start()

    def check(self) -> None:
        """Raise what a job has met so far, without waiting."""
        with self._change:
            if self._error is not None:
                raise self._error

    def flush(self) -> None:
        """Wait until all jobs are done.

        Raises:
            StorageError: they are not within `timeout_s`.
            BaseException: what a job has met.
        """
        with self._change:
            self._wait(self._is_idle)

    def close(self) -> None:
        """`flush`, and end the thread; a second call only raises again what a job has met."""
        try:
            self.flush()
        finally:
            self._stop(join_s=1.0)  # idle, or given up by `flush`: a daemon's hung call cannot be ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with self._change:
            self._change.wait_for(lambda: self._error is not None or self._is_idle(), self._farewell_s)
        self._stop(join_s=1.0)

    def _is_idle(self) -> bool:
        return self._waiting is None and not self._is_busy

    def _wait(self, is_so: Callable[[], bool]) -> None:
        """Wait, holding `_change`, for a condition or the failure of a job, which is raised."""
        began = time.perf_counter()
        is_met = self._change.wait_for(lambda: self._error is not None or is_so(), self._timeout_s)
        self.waited_s += time.perf_counter() - began
        if self._error is not None:
            raise self._error
        if not is_met:
            raise StorageError(
                f"storage has not taken what was written for {self._timeout_s:.0f} s",
                hint="see whether the storage is reachable and fast enough for the model's checkpoints",
            )

    def _stop(self, *, join_s: float) -> None:
        with self._change:
            self._is_closed, self._waiting = True, None
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(join_s)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            error: BaseException | None = None
            try:
                job()
            except BaseException as found:  # noqa: BLE001 - whatever it is, the caller is to meet it
                error = found
            job = None  # what it holds is freed now and not when the next one comes
            with self._change:
                self._is_busy, self._error = False, error
                self._change.notify_all()
            if error is not None:
                return

    def _next(self) -> Job | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting is not None or self._is_closed)
            job, self._waiting = self._waiting, None
            self._is_busy = job is not None
            self._change.notify_all()
            return job
