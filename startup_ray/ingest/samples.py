"""Samples: real images with planted faults, served on this machine and fetched like any others.

    with serve("sample:digits") as sample:
        sample.manifest                   # http://127.0.0.1:PORT/manifest.json
        sample.endpoint                   # ("127.0.0.1", PORT)

`sample:digits` are scikit-learn's 1,797 handwritten digits, here 28x28, with every kind of fault that a real list of
URLs has. `sample:photos` are 2,000 crops of its two photographs, 64x64 in colour, with none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from startup_ray.ingest.sample_images import Images, digits, photos
from startup_ray.manifest import sample_version

DIGITS = "sample:digits"

OVERSIZE = 24_000_000
"""Bytes of the body that is too large; it is sent without a length."""
FLAKY = 7
"""The digit whose first answer is a 503 with `Retry-After: 1`."""
METADATA = "http://169.254.169.254/latest/meta-data/"
"""Where clouds keep a machine's credentials: what a redirect must never reach."""

FAULTS = {
    "fault-404": "faults/missing.png",
    "fault-truncated": "faults/truncated.png",
    "fault-html": "faults/page.png",
    "fault-oversized": "faults/oversized.png",
    "fault-duplicate": "faults/duplicate.png",
    "fault-redirect": "faults/redirect.png",
    "fault-file": "file:///etc/passwd",
}
"""Id and path (or whole URL) of each item that cannot become an image of its own."""

_IMAGES: dict[str, Callable[[], Images]] = {DIGITS: digits, "sample:photos": photos}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Where a sample is served."""

    manifest: str
    endpoint: tuple[str, int]


@contextmanager
def serve(name: str) -> Iterator[Sample]:
    """Serve a sample on a free port of 127.0.0.1 until the block ends.

    Raises:
        ManifestError: there is no such sample.
    """
    sample_version(name)
    images = _IMAGES[name]()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(_app(images, FAULTS if name == DIGITS else {}), access_log=None, shutdown_timeout=1.0)
    port = loop.run_until_complete(_start(runner))
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="sample")
    thread.start()
    try:
        yield Sample(manifest=f"http://127.0.0.1:{port}/manifest.json", endpoint=("127.0.0.1", port))
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(runner: web.AppRunner) -> int:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return int(runner.addresses[0][1])


def _app(images: Images, faults: dict[str, str]) -> web.Application:
    app = web.Application()
    app.router.add_get("/manifest.json", _manifest(images, faults))
    app.router.add_get(rf"/{images.folder}/{{number:\d+}}.{images.kind}", _image(images, is_flaky=bool(faults)))
    app.router.add_get("/faults/truncated.png", _truncated)
    app.router.add_get("/faults/page.png", _page)
    app.router.add_get("/faults/oversized.png", _oversized)
    app.router.add_get("/faults/duplicate.png", _copy(images.bodies[0]))
    app.router.add_get("/faults/redirect.png", _redirect)
    return app


def _manifest(images: Images, faults: dict[str, str]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        base = str(request.url.origin())
        real = [
            {"id": f"{images.item}-{i:04d}", "url": f"{base}/{images.folder}/{i}.{images.kind}", "label": label}
            for i, label in enumerate(images.labels)
        ]
        planted = [{"id": name, "url": url if ":" in url else f"{base}/{url}"} for name, url in faults.items()]
        return web.json_response({"items": real + planted})

    return handle


def _image(images: Images, *, is_flaky: bool) -> Handler:
    refused: set[int] = set()

    async def handle(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number >= len(images.bodies):
            raise web.HTTPNotFound
        if is_flaky and number == FLAKY and number not in refused:
            refused.add(number)
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.Response(body=images.bodies[number], content_type=f"image/{images.kind}")

    return handle


def _copy(body: bytes) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="image/png")

    return handle


async def _truncated(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "image/png"})
    await response.prepare(request)
    await response.write(b"\x89PNG\r\n\x1a\n" + bytes(400))
    if request.transport is not None:
        request.transport.close()
    return response


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")


async def _oversized(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    await response.prepare(request)
    piece = bytes(1 << 18)
    try:
        for _ in range(OVERSIZE // len(piece) + 1):
            await response.write(piece)
    except ConnectionError:  # the client has seen enough, as it should
        pass
    return response


async def _redirect(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": METADATA})
