"""Several hosts on the loopback that answer with every fault of `chaos_faults.py`.

with ChaosServer() as server:
    url = server.url("truncated", 7)      # FAULTS["truncated"].state says what an item with it must end in
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Sequence

from tests.chaos_faults import (
    BROKEN,
    FAULTS,
    FORBIDDEN,
    HIDDEN,
    HOSTS,
    RESET,
    SECRET,
    SILENT,
    SLOW,
    Ask,
    Step,
    head,
    host_of,
)
from tests.loop_server import LoopServer


class ChaosServer(LoopServer):
    """Use as a context. `hits` counts requests per path, `connections` per host, `cookies` those with a cookie."""

    def __init__(self) -> None:
        super().__init__()
        self.hits: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.cookies = 0

    def url(self, path: str, number: int, host: str = "", scheme: str = "http") -> str:
        """Of a fault at its own host, or at the host that belongs to the number."""
        fault = FAULTS.get(path)
        return (
            f"{scheme}://{host or (fault and fault.host) or host_of(number)}:{self.port}/{path}/{number}?sig={SECRET}"
        )

    async def listen(self) -> list[asyncio.Server]:
        """The same free port at every host."""
        first = await self._serve(FORBIDDEN, 0)
        port = int(first.sockets[0].getsockname()[1])
        return [first, *[await self._serve(host, port) for host in (*HOSTS, SILENT, BROKEN, SLOW)]]

    async def _serve(self, host: str, port: int) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections[host] += 1
            await self.hold(self._talk(reader, writer), writer)

        return await asyncio.start_server(connected, host, port, backlog=1_000)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = (await reader.readuntil(b"\r\n\r\n") if await _is_http(reader) else b"").decode("latin-1")
            if not request:
                writer.write(head(400, "Connection: close", length=0))
                return
            if not await self._send(writer, self._answer(request)):
                return

    def _answer(self, request: str) -> Sequence[Step]:
        path = request.split(" ", 2)[1].partition("?")[0]
        _, name, number = path.split("/")
        self.cookies += "\r\ncookie:" in request.lower()
        tries = self.hits[path]
        self.hits[path] += 1
        answer = FAULTS[name].answer if name in FAULTS else HIDDEN[name]
        place = f"{host_of(int(number) + 1)}:{self.port}"
        return answer(Ask(number=int(number), tries=tries, place=place, port=self.port))

    async def _send(self, writer: asyncio.StreamWriter, steps: Sequence[Step]) -> bool:
        """Carry out the steps; whether the connection is kept alive."""
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            else:
                if step is RESET:  # a close that throws away what is still to be sent is a reset (socket(7), SO_LINGER)
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
        return True


async def _is_http(reader: asyncio.StreamReader) -> bool:
    """Whether the next byte begins a request of ours and not, say, a TLS handshake; that byte is dropped."""
    return await reader.readexactly(1) == b"G"
