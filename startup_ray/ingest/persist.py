"""Attempts until one ends well, or cannot end better, or there have been enough.

fetched = await persist(lambda: attempt(url), retries=3)     # attempts and seconds of all together
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from startup_ray.ingest.exchange import Fetched

BACKOFF_S = 0.5
BACKOFF_CAP_S = 30.0
PATIENCE_S = 180.0
"""What an item may wait between its attempts, all together. Waiting in line for its host does not count."""


async def persist(
    attempt: Callable[[], Awaitable[Fetched]],
    retries: int,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Fetched:
    """The last of at most `retries` + 1 attempts; between two of them it waits, or as long as the server asks for.

    Full jitter: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    attempts, elapsed_s, waited_s = 0, 0.0, 0.0
    for number in range(retries + 1):
        fetched = await attempt()
        attempts += fetched.attempts
        elapsed_s += fetched.elapsed_s
        pause_s = max(uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_S * 2.0**number)), fetched.retry_after_s)
        waited_s += pause_s
        if number == retries or not fetched.is_transient or waited_s > PATIENCE_S:
            break
        await sleep(pause_s)
    return replace(fetched, attempts=attempts, elapsed_s=elapsed_s)
