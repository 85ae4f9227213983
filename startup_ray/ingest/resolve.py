"""Names to addresses in threads of our own.

The event loops look up only a few names at once (uvloop two of them, through libuv's pool). Behind a handful of
names whose servers do not answer, every other lookup would then wait until its attempt has run out of time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Getaddrinfo = Callable[..., list[tuple[Any, ...]]]
"""`socket.getaddrinfo`, or what stands for it."""


class Resolver(AbstractResolver):
    """Looks up at most `lookups` names at once. It judges no address: `Guard` does, where the socket is made."""

    def __init__(self, lookups: int, getaddrinfo: Getaddrinfo = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._threads = ThreadPoolExecutor(lookups, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of a host.

        Raises:
            OSError: socket.gaierror, it has none.
            UnicodeError: it is no name.
        """
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM
        found = await loop.run_in_executor(
            self._threads, lambda: self._getaddrinfo(host, port, family=family, type=kind, flags=socket.AI_ADDRCONFIG)
        )
        return [_result(host, *info) for info in found]

    async def close(self) -> None:
        """Wait for no lookup: one that hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _result(host: str, family: int, _: int, protocol: int, __: str, place: tuple[Any, ...]) -> ResolveResult:
    zone = f"%{place[3]}" if family == socket.AF_INET6 and place[3] else ""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=f"{place[0]}{zone}", port=place[1], family=family, proto=protocol, flags=numeric
    )
