"""The limit of one core: startup_ray's fetching alone and its decoding alone, without Ray, ledger and files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import uvloop

from rig import ours
from startup_ray.ingest.decode import decode
from startup_ray.ingest.encode import encode
from startup_ray.ingest.fetch import Fetcher
from startup_ray.ingest.guard import Guard


def fetch_cpu_s(urls: Sequence[str]) -> float:
    """CPU time of this process per body that is fetched."""
    began = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_fetch_all(urls))
    return (time.process_time() - began) / len(urls)


def decode_cpu_s(bodies: Sequence[bytes], target: int) -> float:
    """CPU time of this process per body that is decoded, made small and encoded."""
    options, max_pixels = ours.image_options(target), ours.fetch_options().max_pixels
    began = time.process_time()
    for body in bodies:
        decoded = decode(body, options, max_pixels)
        assert decoded.pixels is not None, decoded.reason
        encode(decoded.pixels, options)
    return (time.process_time() - began) / len(bodies)


async def _fetch_all(urls: Sequence[str]) -> None:
    options = ours.fetch_options()
    async with Fetcher(options, Guard(options.allow_private)) as fetcher:

        async def fetch(url: str) -> None:
            fetched = await fetcher.fetch(url)
            assert fetched.status == "ok", fetched.reason
            fetcher.release(fetched)

        async with asyncio.TaskGroup() as group:
            for url in urls:
                group.create_task(fetch(url))
