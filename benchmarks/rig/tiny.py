"""A loopback server of tiny images: any path that ends in a number is a grey bitmap of its own.

    with serve() as url:
        ...                         # f"{url}/0000042.bmp"

One process with one event loop. It answers from memory, so that what is measured is its client.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

SIDE = 8
"""Pixels of an image along each side."""
_HEADER = b"BM" + bytes(8) + (1078).to_bytes(4, "little") + (40).to_bytes(4, "little")
_PATH = re.compile(rb"GET /(\d+)")


def image(number: int) -> bytes:
    """An uncompressed BMP of SIDE x SIDE grey pixels, which are a hash of the number."""
    shape = SIDE.to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (8).to_bytes(2, "little")
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    mixed = (number + 1) * 0x9E3779B97F4A7C15 % 2**64
    return _HEADER + shape + bytes(24) + palette + mixed.to_bytes(8, "little") * SIDE


@contextmanager
def serve() -> Iterator[str]:
    """The URL of a server in a process of its own, which ends with the block."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, cwd=Path(__file__).parent, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


class _Answers(asyncio.Protocol):
    _before = image(0)[:-64]

    def connection_made(self, transport: Any) -> None:
        self._transport, self._asked = transport, b""

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while (end := self._asked.find(b"\r\n\r\n")) >= 0:
            match, self._asked = _PATH.match(self._asked), self._asked[end + 4 :]
            mixed = (int(match[1] if match else 0) + 1) * 0x9E3779B97F4A7C15 % 2**64
            body = self._before + mixed.to_bytes(8, "little") * SIDE
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/bmp\r\nContent-Length: 1142\r\n\r\n" + body)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
