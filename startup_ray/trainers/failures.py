"""Why workers failed, in one line each: what Ray Train raises, as what a user can act on.

Ray Train names a worker that died or hangs by a description of it in the text of its error, so that is where host
and process are read from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import UserCallback

from startup_ray.errors import ClusterError, StartupRayError, TrainingError
from startup_ray.storage import Folder
from startup_ray.trainers.messages import Note

LIMITS_S = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": 1,
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": 60,
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": 60,
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": 3600,
}
"""Ray Train's own are 2 s, 600 s, 60 s and for ever; what a user has set stays. The last is how long a worker waits
for others that still decode images. A worker that cannot reach the others looks like one that hangs."""
ELASTIC_START_S = 30
"""Of a group that may be smaller: for 20 s after a node has gone Ray Train still counts on it, and waits in vain."""
AGAIN = "run the same command again to go on from the last checkpoint; -v shows the whole error"
_SILENT = re.compile(
    r"task:(\d+): The following tasks are unhealthy \(stopped sending heartbeats\)"
    r"|worker (\d+) does not answer any more"
)
"""What TensorFlow, and `neighbours.py`, say of another worker that hangs."""


class Watch(UserCallback):
    """Tells each failure as it happens. Lives in Ray Train's controller."""

    def __init__(self, tell: Callable[[Note], None], max_failures: int) -> None:
        self._tell, self._left, self._max = tell, max_failures, max_failures

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        if self._left > 0:
            self._left -= 1
            count = f"restart {self._max - self._left} of at most {self._max}"
            text = f"{_cause(worker_exceptions)[1]}; going on from the last checkpoint ({count})"
            self._tell(Note(text, is_warning=True))


@contextmanager
def limits(*, start_s: float | None = None) -> Iterator[None]:
    """Ray Train's time limits in this environment, from where its controller and its workers get them.

    Args:
        start_s: for the start of workers, if another than usual.
    """
    wanted = LIMITS_S | ({} if start_s is None else {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": start_s})
    missing = {name: f"{value:g}" for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def explain(error: Exception, folder: Folder) -> StartupRayError:
    """An error of Ray Train as one line and a way out; the rest is its __cause__."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        cause, line = _cause(failures)
        if isinstance(cause, StartupRayError):
            return cause
        return TrainingError(line, where=str(folder), hint=_hint(cause))
    cause = getattr(error, "controller_failure", error)
    return ClusterError(f"Ray could not run the workers: {_first_line(cause)}", where=str(folder), hint=AGAIN)


def reason_in(text: str) -> str:
    """The line of an error's text that says what happened; TensorFlow begins with where in the graph."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("  ")]
    told = [line for line in lines if not line.startswith(("Graph execution error", "Detected at node", "<stack"))]
    return next(iter(told or lines), "no message")


def _cause(failures: Mapping[int, Exception]) -> tuple[Any, str]:
    """The error that came first and a line about it: of a worker that died, and not of one that could not reach it."""
    roots = {rank: _root(failure) for rank, failure in failures.items()}
    rank = min(roots, key=lambda rank: (not isinstance(roots[rank], ray.exceptions.RayError), rank))
    silent = _SILENT.search(str(roots[rank]))
    if silent:
        return roots[rank], f"worker {silent[1] or silent[2]} failed: it does not answer any more"
    return roots[rank], f"worker {rank}{_place(failures[rank])} failed: {_what(roots[rank])}"


def _root(failure: Any) -> Any:
    """What Ray Train has wrapped: an error of the train function, or of the watch over its process."""
    return getattr(failure, "_base_exc", None) or getattr(failure, "health_check_failure", None) or failure


def _place(failure: Exception) -> str:
    text = str(failure)
    process, host = re.search(r"\bpid=(\d+)", text), re.search(r"\bnode_ip='([^']*)'", text)
    return f" (process {process[1]} on {host[1]})" if process and host else ""


def _what(error: BaseException) -> str:
    text = str(error)
    if "low on memory" in text:
        return "its host ran out of memory"
    if "health check has been hanging" in text:
        return "it does not answer any more"
    if isinstance(error, ray.exceptions.RayActorError) and "creation task" not in text.split("\n", 1)[0]:
        return "its process died"
    return _first_line(error)


def _hint(error: BaseException) -> str:
    if "low on memory" in str(error):
        return f"lower training.global_batch or scaling.workers; {AGAIN}"
    return AGAIN


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayActorError) and "creation task" in lines[0]:
        return lines[-1].strip()
    return lines[0]
