"""What every use of Ray needs: Ray Data kept quiet, errors told as ours, and a task of one's own."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from startup_ray.errors import ClusterError, StartupRayError

CANCEL_S = 10.0
"""How long to wait for a task that is not wanted any more."""


def run_task(function: Callable[..., Any], *args: Any, stage: str, here: bool = False) -> Any:
    """Call a function in a Ray task of its own, so that its memory is not the driver's.

    Ray never calls it again: of two calls under one fence neither would see the other.

    Args:
        stage: what stopped, if Ray gives up.
        here: on this node, whose files or loopback it needs.

    Raises:
        StartupRayError: as the function raised it.
        ClusterError: Ray gave up.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    placed: Any = NodeAffinitySchedulingStrategy(node, soft=False) if here else "DEFAULT"
    with told_as_ours(stage):
        task: Any = ray.remote(function)
        answer = task.options(num_cpus=0, max_retries=0, scheduling_strategy=placed).remote(*args)
        try:
            return ray.get(answer)
        except BaseException:  # an interrupt above all: nothing may go on writing after we have left
            with suppress(Exception):  # what stopped us is what counts
                ray.cancel(answer, force=True)
                ray.wait([answer], timeout=CANCEL_S)
            raise


def pack_error(error: StartupRayError) -> bytes:
    """An error as a value in a block of Ray Data.

    One that is raised there is tried again, and keeps the pool alive, CPUs and all, until the driver collects its
    garbage.
    """
    return pickle.dumps(error)


def raise_packed(error: bytes | None) -> None:
    """Raise what `pack_error` packed in an actor of ours; nothing if there is nothing.

    Raises:
        StartupRayError: the same.
    """
    if error:
        raise pickle.loads(error)  # noqa: S301 - never from storage or from outside


@contextmanager
def quiet_data(**options: Any) -> Iterator[None]:
    """Ray Data without bars, notices and statistics, and with these fields of its `DataContext`."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    for name, value in options.items():
        setattr(context, name, value)
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def told_as_ours(stage: str) -> Iterator[None]:
    """Errors of ours that Ray wrapped on their way as they were raised, Ray's own as ClusterError."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        inner: BaseException | None = error
        while inner is not None and not (isinstance(inner, StartupRayError) and not isinstance(inner, RayError)):
            inner = getattr(inner, "cause", None) or inner.__cause__
        if isinstance(inner, StartupRayError):
            raise inner from error
        reason = str(error).strip().rsplit("\n", 1)[-1]
        raise ClusterError(f"the {stage} stopped: {reason}", hint="run it again, it goes on where it was") from error
