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
import errno
import random
import ssl
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from startup_ray import __version__
from startup_ray.ingest.guard import BLOCKED, Guard
from startup_ray.job import FetchOptions

USER_AGENT = f"startup_ray/{__version__} (image dataset builder; aiohttp)"
BACKOFF_S = 0.5
BACKOFF_CAP_S = 30.0
RETRY_AFTER_CAP_S = 60.0
"""A server may ask for more patience, but gets no more."""

_AGAIN = frozenset({"http_408", "http_425", "http_429", "timeout", "refused", "reset", "truncated"})
_FAULTS = (aiohttp.ClientError, OSError, ValueError, RuntimeError)  # uvloop raises RuntimeError for some sockets


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
    ) -> None:
        self._options = options
        self._guard = guard
        self._sleep = sleep
        self._uniform = uniform
        self._clock = clock
        self._room = asyncio.Semaphore(options.concurrency)
        # Weak, so that a host is forgotten with its last item: a manifest may name millions.
        self._hosts: weakref.WeakValueDictionary[tuple[str, int], asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The bounds are kept here: time spent in the connector's own queue would count against the attempt.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, socket_factory=self._guard.open_socket),
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

    async def fetch(self, url: str) -> Fetched:
        """The body behind a URL. One that is ok takes up room until it is handed to `release`."""
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)  # a signed URL must stay as it was signed
            host = self._hosts.setdefault(
                (target.host or "", target.port or 0), asyncio.Semaphore(self._options.per_host)
            )
        except ValueError as error:
            return Fetched(status="bad_url", reason=_told(error))
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
            if attempt == self._options.retries or not is_transient(fetched.status):
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
                return Fetched(
                    status=f"http_{response.status:03d}",
                    reason=response.reason or "",
                    http_status=response.status,
                    retry_after_s=retry_after_s(response.headers, self._clock()),
                )
        except _FAULTS as error:
            status, reason = classify(error)
            return Fetched(status=status, reason=reason)

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
        except _FAULTS as error:
            status, reason = classify(error)
            if status in ("reset", "truncated"):
                status, reason = "truncated", f"{len(body)} of {response.content_length or 'unknown'} bytes"
            return Fetched(status=status, reason=reason, http_status=200, size=len(body))
        return Fetched(status="ok", http_status=200, body=bytes(body), size=len(body))


def is_transient(status: str) -> bool:
    """Whether another attempt may end better (RFC 9110, section 15; 425 in RFC 8470, 429 in RFC 6585)."""
    return status in _AGAIN or status.startswith("http_5")


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """Seconds that `Retry-After` asks for, in [0, RETRY_AFTER_CAP_S]; a number or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_CAP_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(aware.timestamp() - now, 0.0), RETRY_AFTER_CAP_S)


def classify(error: Exception) -> tuple[str, str]:
    """A fault of a request -> state of the ledger, and a reason in one line."""
    if isinstance(error, TimeoutError):
        return "timeout", "no whole answer in time"
    if isinstance(error, aiohttp.TooManyRedirects):
        return "too_many_redirects", f"after {len(error.history)} answers"
    if isinstance(error, aiohttp.NonHttpUrlClientError):
        return "blocked_scheme", f"redirected to {str(error).partition(':')[0][:20]}:"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns", _told(error.os_error)
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError, ssl.CertificateError)):
        return "tls", _told(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _of_connecting(error.os_error)
    if isinstance(error, aiohttp.ClientPayloadError):
        is_coded_badly = isinstance(error.__cause__, ContentEncodingError)
        return "corrupt" if is_coded_badly else "truncated", _told(error)
    if isinstance(error, ValueError):  # yarl's and aiohttp's InvalidURL, idna's UnicodeError
        return "bad_url", _told(error)
    return "reset", _told(error)


def _of_connecting(error: OSError) -> tuple[str, str]:
    if BLOCKED in str(error):  # in the text, because it may be one of several addresses that were tried
        return "blocked_address", _told(error)
    return "reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else "refused", _told(error)


def _told(error: BaseException) -> str:
    """One line; of an invalid URL its fault alone, because the URL may hold secrets."""
    text = getattr(error, "description", None) or getattr(error, "strerror", None) or str(error)
    return (text or type(error).__name__).split("\n", 1)[0][:200]
