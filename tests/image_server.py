"""A real HTTP server on the loopback, in a thread, with images and with every fault that a client must live with."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import numpy as np
from aiohttp import web

from tests.fakes import png

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def image(number: int, size: int = 12) -> bytes:
    """The PNG behind `/image/<number>.png`; another body for each number."""
    rng = np.random.default_rng(number)
    return png(rng.integers(0, 256, (size, size), np.uint8))


class ImageServer:
    """Use as a context; `url` makes addresses, `hits` counts requests per path."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        """What `/body/<name>` answers, and `/raw/<name>` with nothing around it, its head included."""
        self.delay_s = 0.0
        """Pause before each image."""
        self.open_now = 0
        self.most_open = 0
        self.headers: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        """What each request of a path was sent with."""
        self.robots: Callable[[], web.Response] = lambda: web.Response(status=404)
        """What `/robots.txt` answers."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._count(request, handler)

        app = web.Application(middlewares=[count])
        for path in ("status", "flaky", "truncated", "cut", "page", "big", "announced", "slow", "redirect", "reset"):
            app.router.add_get(f"/{path}{{rest:.*}}", getattr(self, f"_{path}"))
        app.router.add_get("/image/{number}.png", self._image)
        app.router.add_get("/body/{name}", self._body)
        app.router.add_get("/raw/{name}", self._raw)
        app.router.add_get("/bomb", self._bomb)
        app.router.add_get("/badgzip", self._badgzip)
        app.router.add_get("/tagged/{name}", self._tagged)
        app.router.add_get("/encoded/{name}", self._encoded)
        app.router.add_get("/drip", self._drip)
        app.router.add_get("/robots.txt", self._robots)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        self._loop.run_until_complete(web.TCPSite(self._runner, "127.0.0.1", 0).start())
        self.port = int(self._runner.addresses[0][1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self._runner.cleanup()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.hits[request.path] += 1
        self.headers[request.path].append(request.headers)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            return await handler(request)
        finally:
            self.open_now -= 1

    async def _image(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        return web.Response(body=image(int(request.match_info["number"])), content_type="image/png")

    async def _body(self, request: web.Request) -> web.Response:
        return web.Response(body=self.bodies[request.match_info["name"]])

    async def _raw(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.write(self.bodies[request.match_info["name"]])
        request.transport.close()
        return web.Response()

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["code"]))

    async def _flaky(self, request: web.Request) -> web.Response:
        """The first `times` answers have the status `code`, and `after` as Retry-After if it is given."""
        if self.hits[request.path] > int(request.query["times"]):
            return web.Response(body=image(0))
        headers = {"Retry-After": request.query["after"]} if "after" in request.query else {}
        return web.Response(status=int(request.query["code"]), headers=headers)

    async def _truncated(self, request: web.Request) -> web.StreamResponse:
        return await self._break_off(request, {"Content-Length": "500"})

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        return await self._break_off(request, {"Transfer-Encoding": "chunked"})

    async def _break_off(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(image(0)[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>Sign in</html>", content_type="image/png")

    async def _big(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(64):
                await response.write(bytes(1 << 16))
        except ConnectionError:
            pass
        return response

    async def _announced(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(1 << 20))

    async def _bomb(self, _: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(1 << 22)), headers={"Content-Encoding": "gzip"})

    async def _badgzip(self, _: web.Request) -> web.Response:
        return web.Response(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query["s"]))
        return web.Response(body=image(0))

    async def _redirect(self, request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("s", 0)))
        return web.Response(status=int(request.query.get("code", 302)), headers={"Location": request.query["to"]})

    async def _reset(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _tagged(self, request: web.Request) -> web.Response:
        """An image with a header `X-Robots-Tag` for each `tag`."""
        response = web.Response(body=image(0))
        for tag in request.query.getall("tag"):
            response.headers.add("X-Robots-Tag", tag)
        return response

    async def _encoded(self, request: web.Request) -> web.Response:
        """What `/body/<name>` answers, said to be encoded `as`."""
        headers = {"Content-Encoding": request.query["as"]}
        return web.Response(body=self.bodies[request.match_info["name"]], headers=headers)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """A byte every 50 ms."""
        response = web.StreamResponse(headers={"Content-Length": "500"})
        await response.prepare(request)
        try:
            for _ in range(500):
                await response.write(b".")
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        return response

    async def _robots(self, _: web.Request) -> web.Response:
        return self.robots()
