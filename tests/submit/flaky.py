"""A head of one job, on loopback, whose log streams break when they are told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


class Flaky:
    """Sends a log in pieces, and closes each stream, with any code or with none, after so many."""

    def __init__(self, log: str, *, breaks: list[int], piece: int = 7, states: list[str] | None = None) -> None:
        self.log, self.breaks, self.piece = log, breaks, piece
        self.states = states or ["SUCCEEDED"]
        """What it says once the log is out, one answer each; the last for good."""
        self.streams = 0
        self.has_log = True
        self.url = ""
        self._is_out = False

    @contextmanager
    def served(self) -> Iterator[Flaky]:
        loop, ready = asyncio.new_event_loop(), threading.Event()
        runner: web.AppRunner | None = None

        async def start() -> None:
            nonlocal runner
            app = web.Application()
            app.add_routes(
                [
                    web.get("/api/jobs/a-1", self._details),
                    web.get("/api/jobs/a-1/logs", self._log),
                    web.get("/api/jobs/a-1/logs/tail", self._tail),
                ]
            )
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()

        def serve() -> None:
            loop.run_until_complete(start())
            loop.run_forever()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            assert runner is not None
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    async def _details(self, _: web.Request) -> web.Response:
        state = "RUNNING"
        if self._is_out:
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return web.json_response({"submission_id": "a-1", "status": state, "driver_exit_code": 0})

    async def _log(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": self.log}) if self.has_log else web.Response(status=500, text="gone")

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        self.streams += 1
        after = self.breaks.pop(0) if self.breaks else 10**9
        for number, at in enumerate(range(0, len(self.log), self.piece)):
            if number == after:
                if self.streams % 2 and request.transport is not None:
                    request.transport.abort()  # as a link that is cut
                else:
                    await stream.close(code=1000 + self.streams % 3)  # as a proxy that has waited long enough
                return stream
            await stream.send_str(self.log[at : at + self.piece])
        self._is_out = True
        return stream
