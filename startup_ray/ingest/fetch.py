"""URLs to bodies, or to the state that they end in; a failure is a value, never an exception.

    async with Fetcher(options, Guard(options.allow_private)) as fetcher:
        fetched = await fetcher.fetch("https://example.com/cat.jpg")
        ...                                # decode fetched.body
        fetcher.release(fetched)           # makes room for the next body

Bounds: `concurrency` requests and bodies in hand together; at each host, that of a redirect included, what
`HostLimits` grants. An item that waits for a host, or to be tried again, holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from yarl import URL

from startup_ray import __version__
from startup_ray.ingest.breaker import Breaker
from startup_ray.ingest.credentials import NONE, Headers
from startup_ray.ingest.exchange import Fetched, Reading, exchange, open_session
from startup_ray.ingest.faults import Fault, is_host_ill, told
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.hosts import HostGivenUpError, HostLimits
from startup_ray.ingest.optout import ROBOTS_BYTES, ROBOTS_REDIRECTS, Robots
from startup_ray.ingest.persist import persist
from startup_ray.ingest.resolve import Getaddrinfo, Resolver
from startup_ray.ingest.shares import Host, local_ask
from startup_ray.job import FetchOptions

__all__ = ["Fetched", "Fetcher"]

USER_AGENT = f"startup_ray/{__version__}"
LOOKUPS = 32
"""Names looked up at once, or more where there are more requests at once."""


class Fetcher:
    """One session with keep-alive. Use it in one event loop, as a context.

    Args:
        limits: turns at hosts, of this fetcher alone by default. It is closed with the fetcher.
        headers: sent to single origins.
        room: for bodies in hand, shared with others that fetch some; of this fetcher alone by default.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        options: FetchOptions,
        guard: Guard,
        *,
        limits: HostLimits | None = None,
        headers: Headers = NONE,
        room: asyncio.Semaphore | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.time,
        getaddrinfo: Getaddrinfo = socket.getaddrinfo,
    ) -> None:
        self._options = options
        self._guard = guard
        if limits is None:
            ask = local_ask(options.per_host, options.rate_per_host)
            limits = HostLimits(ask, Breaker(uniform=uniform), max_open=options.concurrency)
        self._limits = limits
        self._headers = headers
        self._sleep = sleep
        self._uniform = uniform
        self._clock = clock
        self._getaddrinfo = getaddrinfo
        self._room = room or asyncio.Semaphore(options.concurrency)
        self._agent = options.user_agent or USER_AGENT
        token = self._agent.partition("/")[0].strip()
        self._images = Reading(max_bytes=options.max_bytes, opt_out_of=token if options.respect_opt_out else "")
        self._robots = Robots(self._load_robots, token) if options.respect_robots_txt else None

    async def __aenter__(self) -> Self:
        self._resolver = Resolver(max(LOOKUPS, self._options.concurrency), self._getaddrinfo)
        self._session = open_session(self._options, self._agent, self._resolver, self._guard)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._robots:
            await self._robots.close()
        await self._limits.close()
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: str) -> Fetched:
        """The body behind a URL. One that is ok takes up room until it is handed to `release`.

        Raises:
            ClusterError: the limits per host cannot be asked for.
        """
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)  # a signed URL must stay as it was signed
        except ValueError as error:
            return Fetched(status="bad_url", reason=told(error))
        return await self._persist(target, self._images, self._options.max_redirects, self._robots)

    def release(self, fetched: Fetched) -> None:
        """Give back the room of a body that is done with; call it in the event loop."""
        if fetched.body is not None:
            self._room.release()

    async def _load_robots(self, url: URL) -> Fetched:
        reading = Reading(max_bytes=ROBOTS_BYTES, is_cut=True)
        fetched = await self._persist(url, reading, ROBOTS_REDIRECTS, None)
        self.release(fetched)
        return fetched

    async def _persist(self, url: URL, reading: Reading, redirects: int, robots: Robots | None) -> Fetched:
        return await persist(
            lambda: self._attempt(url, reading, redirects, robots),
            self._options.retries,
            sleep=self._sleep,
            uniform=self._uniform,
        )

    async def _attempt(self, url: URL, reading: Reading, redirects: int, robots: Robots | None) -> Fetched:
        """One request, and those that its redirects lead to; waiting for a host takes nothing from its time."""
        elapsed_s, requests = 0.0, 0
        for _ in range(redirects + 1):
            fault = _unfit(url) or (await robots.judge(url) if robots else None)
            if fault:
                fetched = Fetched(status=fault.status, reason=fault.reason)
            else:
                fetched = await self._request(url, reading, self._options.timeout_s - elapsed_s)
            requests += fetched.attempts
            elapsed_s += fetched.elapsed_s
            if fetched.location is None:
                break
            url = fetched.location
        else:
            fetched = Fetched(status="too_many_redirects", reason=f"after {redirects + 1} answers")
        return replace(fetched, attempts=min(requests, 1), elapsed_s=elapsed_s)

    async def _request(self, url: URL, reading: Reading, timeout_s: float) -> Fetched:
        """One request, when it is its turn at the host and there is room for a body."""
        fetched = Fetched(status="reset")
        try:
            async with self._limits.turn(_host(url)) as turn:
                await self._room.acquire()
                try:
                    fetched = await exchange(
                        self._session,
                        url,
                        reading,
                        headers=self._headers.of(url),
                        timeout_s=timeout_s,
                        now=self._clock(),
                    )
                finally:
                    if fetched.body is None:
                        self._room.release()
                turn.tell(Fault(fetched.status, fetched.reason) if is_host_ill(fetched.status) else None)
        except HostGivenUpError as error:
            return Fetched(status=error.fault.status, reason=error.fault.reason)
        return fetched


def _host(url: URL) -> Host:
    return (url.raw_host or "").lower().rstrip("."), url.port or 0


def _unfit(url: URL) -> Fault | None:
    """What no request can be made of."""
    if url.scheme not in ("http", "https"):
        return Fault("blocked_scheme", f"{url.scheme[:20]}: is neither http nor https")
    try:
        host, _ = _host(url)  # a URL that is taken as it stands is parsed only here
    except ValueError as error:
        return Fault("bad_url", told(error))
    return None if host else Fault("bad_url", "no host")
