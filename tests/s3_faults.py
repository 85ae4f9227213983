"""A proxy on loopback before an S3 server, which breaks some of what passes.

with FaultProxy(server.port, sometimes(0.05, seed=7)) as proxy:
    folder = proxy.folder("runs")
proxy.faults                        # Counter({'slow_down': 3, 'lost': 1})

proxy.plan = times(2, LOST, method="PUT", path="lease/")     # another plan, from the next request on
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import inf

from startup_ray.storage import Folder
from tests.loop_server import LoopServer
from tests.s3 import folder_at

SLOW_DOWN, INTERNAL, RESET, LOST, CUT, SHORT, LATE, SILENT, DENIED, DISOWNED, HELD, NO_UPLOAD = (
    "slow_down",  # 503 instead of an answer: nothing has happened
    "internal",  # 500, the same
    "reset",  # the connection is reset before an answer: nothing has happened
    "lost",  # the server has done it, and the connection is reset before its answer
    "cut",  # the connection is reset within the answer
    "short",  # the answer ends in good order before its end
    "late",  # the answer comes after `late_s`
    "silent",  # no answer ever
    "denied",  # 403, which no client tries again: nothing has happened
    "disowned",  # the server has done it, and 403 says that it has not
    "held",  # 403, and the server does it when `release` is called
    "no_upload",  # 404: some servers forget an upload as soon as it has become a file
)
FAULTS = (SLOW_DOWN, INTERNAL, RESET, LOST, CUT, SHORT, LATE)
"""Those that pass by."""

Plan = Callable[[str, str], str]
"""The fault for the method and the target of a request, or nothing."""

_ERRORS = {
    SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    INTERNAL: (500, "InternalError", "We encountered an internal error."),
    NO_UPLOAD: (404, "NoSuchUpload", "The specified multipart upload does not exist."),
    **dict.fromkeys((DENIED, DISOWNED, HELD), (403, "AccessDenied", "Access Denied")),
}
_RESET = struct.pack("ii", 1, 0)


def healthy(method: str, target: str) -> str:
    return ""


def sometimes(share: float, *, seed: int, faults: Sequence[str] = FAULTS) -> Plan:
    """A share of all requests, at random, and never more than three in a row."""
    draw = random.Random(seed)
    in_a_row = 0

    def plan(method: str, target: str) -> str:
        nonlocal in_a_row
        in_a_row = in_a_row + 1 if draw.random() < share and in_a_row < 3 else 0
        return draw.choice(faults) if in_a_row else ""

    return plan


def times(count: float, fault: str, *, method: str = "", path: str = "") -> Plan:
    """The next `count` requests with this method, and with this in their target."""
    return in_turn(repeat(fault) if count == inf else repeat(fault, int(count)), method=method, path=path)


def in_turn(faults: Iterable[str], *, method: str = "", path: str = "") -> Plan:
    """One after the other for the next such requests."""
    left = iter(faults)
    return lambda asked, target: next(left, "") if method in ("", asked) and path in target else ""


class FaultProxy(LoopServer):
    """Use as a context. `requests` counts by method, `faults` by kind."""

    def __init__(self, upstream: int, plan: Plan = healthy, *, late_s: float = 0.5) -> None:
        super().__init__()
        self.upstream, self.plan, self.late_s = upstream, plan, late_s
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._held: list[tuple[str, bytes]] = []

    async def listen(self) -> list[asyncio.Server]:
        return [await asyncio.start_server(self._connected_by, "127.0.0.1", 0)]

    def folder(self, name: str) -> Folder:
        return folder_at(self.port, name)

    def release(self) -> None:
        """Have the server do what was held back."""
        while self._held:
            self.call(_ask(self.upstream, *self._held.pop(0)))

    async def _connected_by(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a connection, which its answer ends."""
        await self.hold(self._pass(reader, writer), writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await _request(reader, writer)
        method, target, _ = head.split(" ", 2)
        fault = self.plan(method, target)
        self.requests[method] += 1
        if fault:
            self.faults[fault] += 1
        if fault == HELD:
            self._held.append((head, body))
        if fault == DISOWNED:
            await _ask(self.upstream, head, body)
        if fault == SILENT:
            await reader.read()
        elif fault == RESET:
            _reset(writer)
        elif fault in _ERRORS:
            writer.write(_error(*_ERRORS[fault], method))
        else:
            await self._forward(head, body, fault, writer)
        if not writer.is_closing():
            await writer.drain()

    async def _forward(self, head: str, body: bytes, fault: str, writer: asyncio.StreamWriter) -> None:
        answer = await _ask(self.upstream, head, body)
        if fault == LATE:
            await asyncio.sleep(self.late_s)
        if fault == LOST:
            _reset(writer)
        elif fault in (CUT, SHORT):
            writer.write(answer[: len(answer) - max(1, len(answer.partition(b"\r\n\r\n")[2]) // 2)])
            await writer.drain()
            if fault == CUT:
                _reset(writer)
        else:
            writer.write(answer)


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bytes]:
    """Head and body of a request, the head without what is between two neighbours alone (RFC 9110, 7.6.1)."""
    first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    named = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if "expect" in named:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if named.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(named.get("content-length", 0)))
    kept = [field for field in fields if field.partition(":")[0].lower() not in ("expect", "connection")]
    return "\r\n".join([first, *kept, "Connection: close", "", ""]), body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it came, without trailers (RFC 9112, 7.1)."""
    parts, length = [], 1
    while length:
        line = await reader.readuntil(b"\r\n")
        length = int(line.partition(b";")[0], 16)
        parts += [line, await reader.readexactly(length + 2)]
    return b"".join(parts)


async def _ask(port: int, head: str, body: bytes) -> bytes:
    """The server's whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode("latin-1") + body)
        return await reader.read()
    finally:
        writer.close()


def _error(status: int, code: str, message: str, method: str) -> bytes:
    """An error of S3 (API reference, "REST error responses"); one that answers HEAD has no body."""
    text = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message><RequestId>7</RequestId></Error>"
    )
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
    return f"{head}Connection: close\r\n\r\n{'' if method == 'HEAD' else text}".encode()


def _reset(writer: asyncio.StreamWriter) -> None:
    """A close that throws away what is still to be sent is a reset (socket(7), SO_LINGER)."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
