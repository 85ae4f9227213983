"""A server of raw connections: one event loop in a thread, as long as a context lasts.

class Echo(LoopServer):
    async def listen(self) -> list[asyncio.Server]:
        return [await asyncio.start_server(lambda *pair: self.hold(talk(*pair), pair[1]), "127.0.0.1", 0)]

with Echo() as server:
    server.port
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self


class LoopServer(ABC):
    """`port` is that of its first socket."""

    def __init__(self) -> None:
        self._connected: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._servers = self._loop.run_until_complete(self.listen())
        self.port = int(self._servers[0].sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=type(self).__name__)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @abstractmethod
    async def listen(self) -> list[asyncio.Server]:
        """Open the sockets; each connection is to be handed to `hold`."""

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Have it done in the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def hold(self, talk: Coroutine[Any, Any, None], writer: asyncio.StreamWriter) -> None:
        """Talk to its end, or until the server or the other side ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await talk
        finally:
            self._connected.discard(task)
            writer.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._connected:
            task.cancel()
        await asyncio.gather(*self._connected, return_exceptions=True)
