"""One broker for the whole cluster: a named actor, and the way to it from a fetcher's event loop.

    broker = start_broker(options)              # in the driver; keep it while the fetchers run
    limits = HostLimits(asker(options), max_open=options.concurrency)     # in each fetch actor

The driver's broker dies with the driver. If it dies before, whoever asks next starts another, which learns from
each fetcher what is in use. Its limits are part of its name: jobs with equal limits share one broker, so that a host
meets them once, and jobs with different ones have each their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from startup_ray.ingest.shares import Ask, Broker, Grant, Host, Want
from startup_ray.job import FetchOptions

NAMESPACE = "startup_ray"
ANSWER_S = 5.0
"""A call that has no answer by then has failed; the actor may still be starting."""


def start_broker(options: FetchOptions) -> Any:
    """The actor handle of the broker for these limits, started unless it runs already.

    It holds no CPU, and begins on this node if it can: the driver's node is the last to go.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    actor: Any = ray.remote(Broker)
    return actor.options(
        name=f"host-limits-{options.per_host}-{options.rate_per_host}",
        namespace=NAMESPACE,
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
    ).remote(options.per_host, options.rate_per_host)


def asker(options: FetchOptions) -> Ask:
    """An `ask` for `HostLimits` that leads to the cluster's broker."""
    broker: Any = None

    async def ask(holder: str, wants: Mapping[Host, Want]) -> dict[Host, Grant]:
        nonlocal broker
        try:
            if broker is None:
                broker = await asyncio.to_thread(start_broker, options)
            answer = asyncio.wrap_future(broker.lease.remote(holder, dict(wants)).future())
            grants: dict[Host, Grant] = await asyncio.wait_for(answer, ANSWER_S)
        except Exception:
            broker = None  # look for it again: it may be another one by now
            raise
        return grants

    return ask
