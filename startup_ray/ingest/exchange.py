"""One request and its answer, read within bounds. A redirect is an answer too: following it is another request.

session = open_session(options, agent, resolver, guard)
fetched = await exchange(session, url, reading, headers={}, timeout_s=20)
fetched.location                   # where a redirect leads
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiohttp
from yarl import URL

from startup_ray.ingest.faults import Fault, classify, is_transient, retry_after_s
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.optout import forbidding
from startup_ray.ingest.resolve import Resolver
from startup_ray.job import FetchOptions

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNDONE = frozenset({"gzip", "deflate", "br", "zstd"})
"""Content codings that aiohttp undoes, or says that it cannot."""
_NOTHING = frozenset({"", "identity", "aws-chunked"})
"""What stands there although nothing is encoded; object stores repeat the header of the upload."""


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
    """Sum over the requests, without the waits between them."""
    is_transient: bool = False
    """Whether another attempt may end better."""
    retry_after_s: float = 0.0
    """What the server asked for, at most RETRY_AFTER_CAP_S."""
    location: URL | None = None
    """Where a redirect leads; only in what is not yet the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How an answer is read."""

    max_bytes: int
    is_cut: bool = False
    """A longer body is cut there, instead of refused."""
    opt_out_of: str = ""
    """Product token that an X-Robots-Tag may name; empty: it is not looked at."""


def open_session(options: FetchOptions, agent: str, resolver: Resolver, guard: Guard) -> aiohttp.ClientSession:
    """A session with keep-alive, every connection of which goes through the guard."""
    return aiohttp.ClientSession(
        # The bounds are kept elsewhere: time spent in the connector's own queue would count against the attempt.
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, resolver=resolver, socket_factory=guard.open_socket),
        timeout=aiohttp.ClientTimeout(connect=options.connect_timeout_s, sock_read=options.read_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),  # one item's cookie is nothing to the next
        # Images are compressed already; what is compressed again costs time, and a bomb is always compressed.
        headers={"User-Agent": agent, "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"},
        trust_env=False,  # a proxy would connect past the guard
    )


async def exchange(
    session: aiohttp.ClientSession,
    url: URL,
    reading: Reading,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    now: float,
) -> Fetched:
    """Ask for a URL once, and read the answer; whatever a server can bring about is a value."""
    began = time.monotonic()
    if "authorization" in map(str.lower, headers):
        url = url.with_user(None)  # aiohttp takes only one of both
    limits = session.timeout
    timeout = aiohttp.ClientTimeout(total=max(timeout_s, 1e-3), connect=limits.connect, sock_read=limits.sock_read)
    try:
        async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            fetched = await _judge(response, url, reading, now)
    except Exception as error:  # noqa: BLE001 - see above
        status, reason = classify(error)
        fetched = Fetched(status=status, reason=reason, is_transient=is_transient(status, error))
    return replace(fetched, attempts=1, elapsed_s=time.monotonic() - began)


async def _judge(response: aiohttp.ClientResponse, url: URL, reading: Reading, now: float) -> Fetched:
    status = f"http_{response.status:03d}"
    if response.status in REDIRECTS and (target := response.headers.get("Location")):
        return Fetched(status=status, http_status=response.status, location=_join(url, target))
    if response.status != 200:
        return Fetched(
            status=status,
            reason=response.reason or "",
            http_status=response.status,
            is_transient=is_transient(status),
            retry_after_s=retry_after_s(response.headers, now) if is_transient(status) else 0.0,
        )
    if fault := _refuse(response, reading):
        return Fetched(status=fault.status, reason=fault.reason, http_status=200)
    return await _read(response, reading)


def _join(url: URL, target: str) -> URL:
    """Where a redirect leads. What the URL says of the user stays within its origin, as it is in browsers.

    Raises:
        ValueError: nowhere.
    """
    there = url.join(URL(target, encoded=False))
    if url.user is not None and there.user is None and there.host and there.origin() == url.origin():
        return there.with_user(url.user).with_password(url.password)
    return there


def _refuse(response: aiohttp.ClientResponse, reading: Reading) -> Fault | None:
    """Why a body is not even read."""
    if reading.opt_out_of:
        directive = forbidding(response.headers.getall("X-Robots-Tag", ()), reading.opt_out_of)
        if directive:
            return Fault("opted_out", f"X-Robots-Tag: {directive}")
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _UNDONE | _NOTHING:
        return Fault("corrupt", f"Content-Encoding {coding[:40]} cannot be undone")
    if (response.content_length or 0) > reading.max_bytes and not reading.is_cut:
        return Fault("too_large", f"{response.content_length} bytes announced, {reading.max_bytes} allowed")
    return None


async def _read(response: aiohttp.ClientResponse, reading: Reading) -> Fetched:
    body = bytearray()
    try:
        async for piece in response.content.iter_any():  # decompressed, so the limit is on memory
            body += piece
            if len(body) > reading.max_bytes:
                if reading.is_cut:
                    del body[reading.max_bytes :]
                    break
                reason = f"more than {reading.max_bytes} bytes"
                return Fetched(status="too_large", reason=reason, http_status=200, size=len(body))
    except Exception as error:  # noqa: BLE001 - see above
        status, reason = classify(error)
        if status in ("reset", "truncated"):
            status, reason = "truncated", f"{len(body)} of {response.content_length or 'unknown'} bytes"
        return Fetched(status=status, reason=reason, http_status=200, size=len(body), is_transient=is_transient(status))
    return Fetched(status="ok", http_status=200, body=bytes(body), size=len(body))
