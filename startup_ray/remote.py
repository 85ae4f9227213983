"""What every use of Ray needs: Ray Data kept quiet, errors told as ours, and a call in a process of its own."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from startup_ray.errors import ClusterError, StartupRayError

KILL_S = 10.0
"""How long to wait for the end of what is not wanted any more."""


def run_task(
    function: Callable[..., Any],
    *args: Any,
    stage: str,
    here: bool = False,
    env: Mapping[str, str] | None = None,
    gpus: float = 0.0,
) -> Any:
    """Call a function in a process of its own, which is gone with its memory when this returns or raises.

    It is an actor with one call, because `ray.cancel` of a task that is about to end aborts the driver (Ray 2.60,
    "Tried to complete task that was not pending"). Ray never makes the call again: of two calls under one fence
    neither would see the other.

    Args:
        stage: what stopped, if Ray gives up.
        here: on this node, whose files or loopback it needs.
        env: variables of the environment that the process is born with.
        gpus: that the process is given.

    Raises:
        StartupRayError: as the function raised it.
        ClusterError: Ray gave up.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    placed: Any = NodeAffinitySchedulingStrategy(node, soft=False) if here else "DEFAULT"
    with told_as_ours(stage):
        born: Any = {"env_vars": dict(env)} if env else None
        actor: Any = ray.remote(_Caller)
        caller = actor.options(num_cpus=0, num_gpus=gpus, scheduling_strategy=placed, runtime_env=born).remote()
        answer = caller.call.remote(function, *args)
        try:
            return ray.get(answer)
        finally:  # after an interrupt above all: nothing may go on writing after we have left
            ray.kill(caller)
            ray.wait([answer], timeout=KILL_S)


def on_each_node(function: Callable[..., Any], *args: Any) -> list[tuple[str, Any]]:
    """Call a function once on each living node: its address, and the answer to be got."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        here: Any = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        call: Any = ray.remote(_call).options(num_cpus=0, scheduling_strategy=here, max_retries=0)
        asked.append((str(node["NodeManagerAddress"]), call.remote(function, *args)))
    return asked


@contextmanager
def listening(hear: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """A function for other processes to call, wherever they run; what it is told is heard here, in a thread."""
    import ray
    from ray.exceptions import RayError
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # others may go
    told: Any = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def listen() -> None:
        with suppress(RayError):  # Ray is gone: the one who waits for the result will say so
            while (item := told.get()) is not None:  # asking again and again would take CPU time from the workers
                hear(item)

    thread = threading.Thread(target=listen, daemon=True, name="progress")
    thread.start()
    try:
        # Sent and forgotten: who works does not wait for the one who watches.
        yield lambda item: told.actor.put_nowait.remote(item) and None
    finally:
        with suppress(RayError):
            told.put(None)
        thread.join()
        told.shutdown(force=True)


def last_line(error: BaseException) -> str:
    """Where Ray's errors say what happened."""
    return (str(error).strip() or type(error).__name__).rsplit("\n", 1)[-1].strip()


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class _Caller:
    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return _call(function, *args)


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
        raise ClusterError(
            f"the {stage} stopped: {last_line(error)}", hint="run it again, it goes on where it was"
        ) from error
