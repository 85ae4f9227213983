"""URLs to bodies, or to the state that they end in; a failure is a value, never an exception.

    async with Fetcher(options, Guard(options.allow_private)) as fetcher:
        fetched = await fetcher.fetch("https://example.com/cat.jpg")
        ...                                # decode fetched.body
        fetcher.release(fetched)           # makes room for the next body

Bounds: `concurrency` attempts and bodies in hand together, `per_host` attempts at the host that an item names.
An item that waits for its host, or to be tried again, holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from startup_ray import __version__
from startup_ray.ingest.faults import classify, is_transient, retry_after_s, told
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.resolve import Getaddrinfo, Resolver
from startup_ray.job import FetchOptions

USER_AGENT = f"startup_ray/{__version__} (image dataset builder; aiohttp)"
BACKOFF_S = 0.5
BACKOFF_CAP_S = 30.0
LOOKUPS = 32
"""Names looked up at once, or more where there are more attempts at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """How the fetching of one URL ended; `body` is there exactly when `status` is ok."""

    status: str
    """A state of the ledger; ok means a whole body, whatever is in it."""
    reason: str = ""
    http_status: int | None = None
    body: bytes | None = None
    size: int = 0
    """Bytes of the body that arrived in memory, whole or not."""
    attempts: int = 0
    elapsed_s: float = 0.0
    """Sum over the attempts, without the waits between them."""
    is_transient: bool = False
    """Whether another attempt may end better."""
    retry_after_s: float = 0.0
    """What the server asked for, at most RETRY_AFTER_CAP_S."""


class Fetcher:
    """One session with keep-alive. Use it in one event loop, as a context."""

    def __init__(
        self,
        options: FetchOptions,
        guard: Guard,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.time,
        getaddrinfo: Getaddrinfo = socket.getaddrinfo,
    ) -> None:
        self._options = options
        self._guard = guard
        self._sleep = sleep
        self._uniform = uniform
        self._clock = clock
        self._getaddrinfo = getaddrinfo
        self._room = asyncio.Semaphore(options.concurrency)
        # Weak, so that a host is forgotten with its last item: a manifest may name millions.
        self._hosts: weakref.WeakValueDictionary[tuple[str, int], asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def __aenter__(self) -> Self:
        self._resolver = Resolver(max(LOOKUPS, self._options.concurrency), self._getaddrinfo)
        self._session = aiohttp.ClientSession(
            # The bounds are kept here: time spent in the connector's own queue would count against the attempt.
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=300, resolver=self._resolver, socket_factory=self._guard.open_socket
            ),
            timeout=aiohttp.ClientTimeout(total=self._options.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),  # one item's cookie is nothing to the next
            headers={"User-Agent": USER_AGENT, "Accept": "image/*, */*;q=0.5"},
            trust_env=False,  # a proxy would connect past the guard
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: str) -> Fetched:
        """The body behind a URL. One that is ok takes up room until it is handed to `release`."""
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)  # a signed URL must stay as it was signed
            host = self._hosts.setdefault(
                (target.host or "", target.port or 0), asyncio.Semaphore(self._options.per_host)
            )
        except ValueError as error:
            return Fetched(status="bad_url", reason=told(error))
        elapsed_s = 0.0
        for attempt in range(self._options.retries + 1):
            async with host:
                await self._room.acquire()
                began = time.monotonic()
                fetched = Fetched(status="reset")
                try:
                    fetched = await self._attempt(target)
                finally:
                    if fetched.body is None:
                        self._room.release()
            elapsed_s += time.monotonic() - began
            if attempt == self._options.retries or not fetched.is_transient:
                break
            await self._sleep(max(self._backoff_s(attempt), fetched.retry_after_s))
        return replace(fetched, attempts=attempt + 1, elapsed_s=elapsed_s)

    def release(self, fetched: Fetched) -> None:
        """Give back the room of a body that is done with; call it in the event loop."""
        if fetched.body is not None:
            self._room.release()

    def _backoff_s(self, attempt: int) -> float:
        """Full jitter: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015)."""
        return self._uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_S * 2.0**attempt))

    async def _attempt(self, url: URL) -> Fetched:
        try:
            # aiohttp gives up when it has seen `max_redirects`, we when there is one more than allowed.
            async with self._session.get(url, max_redirects=self._options.max_redirects + 1) as response:
                if response.status == 200:
                    return await self._read(response)
                status = f"http_{response.status:03d}"
                return Fetched(
                    status=status,
                    reason=response.reason or "",
                    http_status=response.status,
                    is_transient=is_transient(status),
                    retry_after_s=retry_after_s(response.headers, self._clock()) if is_transient(status) else 0.0,
                )
        except Exception as error:  # noqa: BLE001 - whatever a server can bring about is a value
            status, reason = classify(error)
            return Fetched(status=status, reason=reason, is_transient=is_transient(status, error))

    async def _read(self, response: aiohttp.ClientResponse) -> Fetched:
        limit = self._options.max_bytes
        if (response.content_length or 0) > limit:
            return Fetched(
                status="too_large",
                reason=f"{response.content_length} bytes announced, {limit} allowed",
                http_status=200,
            )
        body = bytearray()
        try:
            async for piece in response.content.iter_any():  # decompressed, so the limit is on memory
                body += piece
                if len(body) > limit:
                    return Fetched(
                        status="too_large", reason=f"more than {limit} bytes", http_status=200, size=len(body)
                    )
        except Exception as error:  # noqa: BLE001 - see above
            status, reason = classify(error)
            if status in ("reset", "truncated"):
                status, reason = "truncated", f"{len(body)} of {response.content_length or 'unknown'} bytes"
            return Fetched(
                status=status, reason=reason, http_status=200, size=len(body), is_transient=is_transient(status)
            )
        return Fetched(status="ok", http_status=200, body=bytes(body), size=len(body))
