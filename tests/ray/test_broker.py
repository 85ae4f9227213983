"""The cluster's broker, and fetchers in actors of their own that share it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from startup_ray.ingest.broker import asker, start_broker
from startup_ray.ingest.fetch import Fetcher
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.hosts import HostLimits
from startup_ray.ingest.shares import Ask, Want
from startup_ray.job import FetchOptions
from tests.image_server import ImageServer

pytestmark = pytest.mark.usefixtures("ray_session")

HOST = ("e.com", 80)


def options_for(per_host: int, **more: Any) -> FetchOptions:
    return FetchOptions(per_host=per_host, retries=0, allow_private=(IPv4Network("127.0.0.1/32"),), **more)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


@ray.remote(num_cpus=0)
class FetchActor:
    """A fetcher as in the pool: its event loop is a thread of its own."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options

    def fetch(self, urls: list[str]) -> list[str]:
        statuses: list[str] = []
        thread = threading.Thread(target=lambda: statuses.extend(asyncio.run(self._run(urls))))
        thread.start()
        thread.join()
        return statuses

    async def _run(self, urls: list[str]) -> list[str]:
        limits = HostLimits(asker(self._options), max_open=self._options.concurrency)
        guard = Guard(self._options.allow_private)
        async with Fetcher(self._options, guard, limits=limits) as fetcher:

            async def one(url: str) -> str:
                fetched = await fetcher.fetch(url)
                fetcher.release(fetched)
                return fetched.status

            return list(await asyncio.gather(*map(one, urls)))


def test_actors_share_the_slots_of_a_host(server: ImageServer) -> None:
    options = options_for(3)
    broker = start_broker(options)
    actors: list[Any] = [FetchActor.remote(options) for _ in range(2)]  # type: ignore[attr-defined]
    urls = [[server.url(f"/slow/{actor}-{i}?s=0.05") for i in range(40)] for actor in range(2)]
    found = ray.get([actor.fetch.remote(mine) for actor, mine in zip(actors, urls, strict=True)], timeout=60)
    assert found == [["ok"] * 40] * 2
    assert server.most_open == 3
    ray.kill(broker)
    for actor in actors:
        ray.kill(actor)


def test_limits_are_part_of_the_name() -> None:
    one, same, other = start_broker(options_for(5)), start_broker(options_for(5)), start_broker(options_for(6))
    assert one._actor_id == same._actor_id != other._actor_id
    grants = [ray.get(broker.lease.remote("a", {HOST: Want(slots=9)}), timeout=30) for broker in (one, other)]
    assert [grant[HOST].slots for grant in grants] == [5, 6]
    for broker in (one, other):
        ray.kill(broker)


def test_a_broker_that_is_dead_is_replaced() -> None:
    options = options_for(7)
    first = start_broker(options)

    async def slots(ask: Ask) -> int:
        """As `HostLimits` does, ask again; a name is free only when the death of its actor is known."""
        until = time.monotonic() + 60
        while True:
            try:
                return (await ask("a", {HOST: Want(slots=4)}))[HOST].slots
            except (RayError, ValueError, TimeoutError):
                assert time.monotonic() < until
                await asyncio.sleep(0.1)

    async def run() -> tuple[int, int]:
        ask = asker(options)
        before = await slots(ask)
        ray.kill(first)
        return before, await slots(ask)

    assert asyncio.run(run()) == (4, 4)
    second = start_broker(options)
    assert second._actor_id != first._actor_id
    ray.kill(second)
