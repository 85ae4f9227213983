"""Nodes that an autoscaler starts when they are asked for.

    limits = find_limits()
    if limits is not None:
        grow({"CPU": 1, "GPU": 1}, 4, limits, asker="training")

What asks is a placement group, and it is removed as soon as it is there. `ray.autoscaler.sdk.request_resources` would
be one for the whole cluster: Ray Train and Ray Data overwrite it every 20 s, and it outlives a driver that is killed,
so that the nodes would stay for ever. A group ends with its job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray

from startup_ray.errors import ClusterError
from startup_ray.reach import Limits

log = logging.getLogger("startup_ray")

GROW_S = 900.0
"""How long nodes may take to come: a cloud needs minutes to start one with GPUs, and longer where they are scarce."""
POLL_S = 0.5
ANSWER_S = 10.0
LOWER = "lower scaling.workers or what each asks for, or raise the limits of the cluster"


def require_reach(
    each: Mapping[str, float], count: int, limits: Limits, *, asker: str, shape: str = ""
) -> tuple[str, str]:
    """See that the cluster may grow so far as to have room for so many workers, which it has not now.

    Args:
        asker: "training", for what is told.
        shape: "4 workers of 1 CPU, 1 GPU".

    Returns:
        What is asked for, and the same with what there is.

    Raises:
        ClusterError: it may not.
    """
    has, is_enough = totals(each), limits.room(each) >= count
    most = {name: max(limits.total(name, each), has[name]) for name in each}
    short = [name for name, one in each.items() if count * one > (has if is_enough else most)[name] + 1e-9]
    name = (short or list(each))[-1]  # GPUs rather than CPUs
    asks = f"{asker} asks for {count * each[name]:g} {name}s" + (f" ({shape})" if shape else "")
    may = f" and may grow to {most[name]:g}" if limits.is_known else ""
    text = f"{asks}, the cluster has {has[name]:g}{may}"
    if not is_enough:
        raise ClusterError(text if short else f"{text}, in nodes that do not fit these workers", hint=LOWER)
    return asks, text


def grow(each: Mapping[str, float], count: int, limits: Limits, *, asker: str, shape: str = "", **more: Any) -> None:
    """Have such room, and wait until it is there and free.

    Args:
        more: of `await_nodes`.

    Raises:
        ClusterError: the cluster may not grow so far, or has not in time.
    """
    asks, text = require_reach(each, count, limits, asker=asker, shape=shape)
    log.info("%s: waiting for nodes", text)
    await_nodes(each, count, limits, asks=asks, **more)


def await_nodes(
    each: Mapping[str, float],
    count: int,
    limits: Limits,
    *,
    asks: str,
    limit_s: float = GROW_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask for nodes, and wait until there is room for so many workers, and free.

    Args:
        asks: "training asks for 4 GPUs", for what is told.

    Raises:
        ClusterError: they have not come in time, or the autoscaler says that they never will.
    """
    began, before = clock(), totals(each)
    group = ray.util.placement_group([dict(each) for _ in range(count)])
    try:
        while ray.util.placement_group_table(group)["state"] != "CREATED":
            if clock() - began > limit_s:
                raise _too_late(asks, before, limit_s)
            if not limits.is_known and _is_refused(group, each):
                raise ClusterError(
                    f"{asks}, the cluster has {amounts(totals(each))} and cannot grow so far", hint=LOWER
                )
            sleep(POLL_S)
    finally:
        ray.util.remove_placement_group(group)
    if (now := totals(each)) != before:
        log.info("the cluster has grown from %s to %s in %.0f s", amounts(before), amounts(now), clock() - began)


def totals(names: Iterable[str]) -> dict[str, float]:
    """What the living nodes have of these resources."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return {name: sum(node.get(name, 0.0) for node in nodes) for name in names}


def amounts(resources: Mapping[str, float]) -> str:
    """In words: 2 CPUs and 2 GPUs."""
    return " and ".join(f"{amount:g} {name}s" for name, amount in resources.items())


def _is_refused(group: Any, each: Mapping[str, float]) -> bool:
    """Whether the autoscaler finds no way to it while nothing is at work here; its version 2 alone tells."""
    from ray.core.generated import autoscaler_pb2

    raylet: Any = ray._raylet
    messages: Any = autoscaler_pb2
    client = raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    reply = messages.GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=ANSWER_S))
    refused = reply.autoscaling_state.infeasible_gang_resource_requests
    return any(group.id.hex() in one.details for one in refused) and not held(each)


def held(names: Iterable[str]) -> dict[str, float]:
    """What other work holds of these resources."""
    free = ray.available_resources()
    used = {name: amount - free.get(name, 0.0) for name, amount in totals(names).items()}
    return {name: amount for name, amount in used.items() if amount > 1e-9}


def _too_late(asks: str, before: Mapping[str, float], passed: float) -> ClusterError:
    now, others = totals(before), held(before)
    came = f"has grown from {amounts(before)} to {amounts(now)}" if now != before else f"still has {amounts(now)}"
    busy = f", {amounts(others)} of them held by other work" if others else ""
    return ClusterError(
        f"{asks}; in {passed:.0f} s of waiting for nodes the cluster {came}{busy}",
        hint="`ray status` on the head tells why nodes do not start; when they can, run the same command again",
    )
