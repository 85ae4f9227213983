"""What an item of a list from the wild may meet: every kind of answer, and the state that it ends in.

    FAULTS["truncated"].answer(ask)       # [b"HTTP/1.1 200 OK...", END]
    FAULTS["truncated"].state             # "truncated"

An answer is a list of steps on the raw connection: bytes are sent, a number is a pause in seconds, END closes and
RESET breaks the connection. After an answer without END or RESET it is kept alive, as real servers do.
"""

from __future__ import annotations

import gzip
import io
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from functools import cache
from http import HTTPStatus
from itertools import repeat
from typing import Literal
from zlib import crc32

import numpy as np
from PIL import Image

SECRET = "hunter2"
"""In every URL; it must not be found in anything that an ingest leaves behind."""
FORBIDDEN = "127.0.0.1"
"""Listens and counts, but no client may connect to it."""
HOSTS = tuple(f"127.0.0.{i}" for i in range(2, 18))
"""Answer with everything that is no fault of the host as a whole."""
REFUSES, SILENT, BROKEN, SLOW = "127.0.0.24", "127.0.0.25", "127.0.0.26", "127.0.0.27"
"""Does not listen; accepts and says nothing; always 503; answers after SLOW_S."""
ALLOWED = ("127.0.0.2/31", "127.0.0.4/30", "127.0.0.8/29", "127.0.0.16/28")
"""Networks of all hosts but FORBIDDEN."""

MAX_BYTES, MAX_PIXELS, MAX_REDIRECTS = 100_000, 1_000_000, 3
"""Options of the ingest that the states below presume; `retries` 1, and a time limit of at most 2 s."""
NEVER_S, SLOW_S = 30.0, 10.0

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


class Close(Enum):
    END = "end"
    RESET = "reset"


END, RESET = Close.END, Close.RESET
Step = bytes | float | Literal[Close.END, Close.RESET]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request: `/<fault>/<number>?...`, and how often that path has been asked for before."""

    number: int
    tries: int
    place: str
    """`host:port` of the server's ordinary hosts, another one for each number."""
    port: int


Answer = Callable[[Ask], Sequence[Step]]


@dataclass(frozen=True)
class Fault:
    """A kind of answer, and the state that an item ends in that meets it."""

    answer: Answer
    state: str = "ok"
    otherwise: str = ""
    """Another state that it may end in, where that depends on what arrives together."""
    attempts: int | None = 1
    """With one retry; None where a connection that was kept alive makes it either."""
    host: str = ""
    """The one host that has it, else any of HOSTS."""


@cache
def picture(number: int, kind: str = "PNG", side: int = 12) -> bytes:
    """An image, another body for each number."""
    pixels = np.random.default_rng([number, side]).integers(0, 256, (side, side), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def head(code: int, *headers: str, length: int | None = None) -> bytes:
    """Status line and headers."""
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {code} {phrase}", *headers, *([f"Content-Length: {length}"] if length is not None else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(code: int, *headers: str, body: bytes = b"") -> list[Step]:
    """An answer as it should be."""
    return [head(code, *headers, length=len(body)) + body]


def good(ask: Ask, *headers: str) -> list[Step]:
    """An image of one format or the other."""
    kind = _FORMATS[ask.number % len(_FORMATS)]
    return whole(200, f"Content-Type: image/{kind.lower()}", *headers, body=picture(ask.number, kind))


def chunked(*pieces: bytes) -> bytes:
    """Pieces in chunked transfer coding, without the chunk that ends them (RFC 9112, section 7.1)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def status(code: int, *headers: str) -> Answer:
    return lambda _: whole(code, *headers)


def body(data: bytes, *headers: str) -> Answer:
    return lambda _: whole(200, *headers, body=data)


def once(answer: Answer) -> Answer:
    """An answer to the first request, an image to later ones."""
    return lambda ask: good(ask) if ask.tries else answer(ask)


def redirect(to: str, code: int = 302) -> Answer:
    """To a URL in which {number}, {place} and {port} are filled in."""
    return lambda ask: whole(code, f"Location: {to}".format(**vars(ask)))


def chain_of(hops: int) -> Answer:
    """So many redirects to an image; the rest of the way stands in the path."""
    return redirect(f"/hops-{hops - 1}/{{number}}?sig={SECRET}") if hops else good


def date_in(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


def _bomb_png() -> bytes:
    """60,000 x 60,000 pixels in a few bytes: what it announces is all that matters."""
    data = bytearray(picture(0))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", crc32(data[12:29]))
    return bytes(data)


ONE = picture(1, "PNG", 40)
CHUNKED = head(200, "Transfer-Encoding: chunked")
HTML = b"<!doctype html><html><body>Sign in</body></html>"

FAULTS: dict[str, Fault] = {
    # Nothing wrong, or nothing that a client must not live with.
    "ok": Fault(good),
    "cookie": Fault(lambda ask: good(ask, f"Set-Cookie: id={ask.number}; Path=/")),
    "wrong-type": Fault(lambda ask: good(ask, "Content-Type: text/html", "X-Robots-Tag: nofollow, noarchive")),
    "gzipped": Fault(lambda ask: body(gzip.compress(picture(ask.number)), "Content-Encoding: gzip")(ask)),
    "chunked": Fault(lambda ask: [CHUNKED, chunked(*_cut(picture(ask.number))) + b"0\r\n\r\n"]),
    "until-closed": Fault(lambda ask: [head(200) + picture(ask.number), END]),
    "early-hints": Fault(lambda ask: [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", *good(ask)]),
    "slow-but-in-time": Fault(lambda ask: [head(200, length=len(picture(ask.number))), 0.3, picture(ask.number)]),
    "closes-unannounced": Fault(lambda ask: [*good(ask), END], attempts=None),
    "redirect-relative": Fault(redirect("../ok/{number}"), "ok"),
    "redirect-other-host": Fault(redirect("http://{place}/ok/{number}", 307), "ok"),
    "redirect-allowed-length": Fault(chain_of(MAX_REDIRECTS), "ok"),
    # Statuses.
    **{f"status-{code}": Fault(status(code), f"http_{code}") for code in (206, 204, 304, 400, 401, 403, 404, 410, 451)},
    **{f"status-{code}": Fault(status(code), f"http_{code}") for code in (300, 302, 305, 999)},  # without Location
    **{
        f"status-{code}": Fault(status(code), f"http_{code}", attempts=2)
        for code in (408, 425, 429, 500, 502, 503, 504, 599)
    },
    **{f"once-{code}": Fault(once(status(code)), attempts=2) for code in (408, 425, 429, 500, 502, 503, 504)},
    "retry-after-seconds": Fault(once(status(429, "Retry-After: 1")), attempts=2),
    "retry-after-date": Fault(once(lambda _: whole(503, f"Retry-After: {date_in(1)}")), attempts=2),
    "retry-after-past": Fault(once(lambda _: whole(503, f"Retry-After: {date_in(-99)}")), attempts=2),
    "retry-after-nonsense": Fault(once(status(429, "Retry-After: soon")), attempts=2),
    # Connections and coding.
    "reset-before": Fault(lambda _: [RESET], "reset", attempts=2),
    "end-before": Fault(lambda _: [END], "reset", attempts=2),
    "reset-in-head": Fault(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Le", RESET], "reset", attempts=2),
    "reset-in-body": Fault(lambda _: [head(200, length=len(ONE)) + ONE[:99], 0.05, RESET], "truncated", attempts=2),
    "reset-once": Fault(once(lambda _: [RESET]), attempts=None),
    "truncated": Fault(lambda _: [head(200, length=len(ONE) + 1) + ONE, END], "truncated", attempts=2),
    "truncated-once": Fault(once(lambda _: [head(200, length=500) + ONE[:99], END]), attempts=2),
    "chunks-without-end": Fault(lambda _: [CHUNKED, 0.05, chunked(ONE), END], "truncated", attempts=2),
    # aiohttp's parser drops the body's reader with its own error, so that only the time limit ends the wait; a client
    # that was busy meanwhile finds the error before there is a reader.
    "chunks-broken": Fault(
        lambda _: [CHUNKED, 0.05, chunked(ONE), 0.05, b"zz\r\n", END], "timeout", otherwise="reset", attempts=2
    ),
    "garbage": Fault(lambda _: [b"\x00\x01SSH-2.0-OpenSSH_9.9\r\n\r\n", END], "reset", attempts=2),
    "head-of-100-kb": Fault(lambda _: [head(200, f"X-Long: {'x' * 100_000}", length=0), END], "reset", attempts=2),
    "length-nonsense": Fault(lambda _: [head(200, "Content-Length: -1"), END], "reset", attempts=2),
    # Too slow.
    "head-late": Fault(lambda _: [NEVER_S], "timeout", attempts=2),
    "head-stalls": Fault(lambda _: [b"HTTP/1.1 200 OK\r\n", NEVER_S], "timeout", attempts=2),
    "body-stalls": Fault(lambda _: [head(200, length=len(ONE)) + ONE[:99], NEVER_S], "timeout", attempts=2),
    "byte-a-second": Fault(lambda _: [head(200, length=len(ONE)), *_drip(ONE)], "timeout", attempts=2),
    "head-line-a-second": Fault(lambda _: [b"HTTP/1.1 200 OK\r\n", *_lines()], "timeout", attempts=2),
    # Bodies that are no image to keep.
    "announced-too-large": Fault(body(bytes(MAX_BYTES + 1)), "too_large"),
    "announced-enormous": Fault(lambda _: [head(200, length=10**15), END], "too_large"),
    "too-large": Fault(lambda _: [CHUNKED, *repeat(chunked(bytes(1 << 15)), 4), b"0\r\n\r\n"], "too_large"),
    "endless": Fault(lambda _: [CHUNKED, *repeat(chunked(bytes(1 << 15)), 99), NEVER_S], "too_large"),
    "gzip-bomb": Fault(body(gzip.compress(bytes(1 << 23)), "Content-Encoding: gzip"), "too_large"),
    "gzip-nonsense": Fault(body(ONE, "Content-Encoding: gzip"), "corrupt"),
    "html": Fault(body(HTML, "Content-Type: image/jpeg"), "not_image"),
    "svg": Fault(body(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "Content-Type: image/svg+xml"), "not_image"),
    "empty": Fault(body(b"", "Content-Type: image/png"), "not_image"),
    "jpeg-cut": Fault(body(picture(2, "JPEG", 64)[:400]), "corrupt"),
    "jpeg-head-only": Fault(body(b"\xff\xd8\xff\xe0" + bytes(200)), "corrupt"),
    "png-cut": Fault(body(picture(3, "PNG", 64)[:-400]), "corrupt"),
    "png-flipped": Fault(body(bytes(picture(4, "PNG", 64)[:60]) + bytes(300)), "corrupt"),
    "too-many-pixels": Fault(body(_bomb_png()), "too_many_pixels"),
    # What the publisher does not want.
    "noai": Fault(lambda ask: good(ask, "X-Robots-Tag: noai"), "opted_out"),
    "noimageai": Fault(lambda ask: good(ask, "X-Robots-Tag: nofollow", "X-Robots-Tag: NoImageAI"), "opted_out"),
    "noai-for-another": Fault(lambda ask: good(ask, "X-Robots-Tag: otherbot: noai"), "ok"),
    # Redirects that lead nowhere good.
    "redirect-too-long": Fault(chain_of(MAX_REDIRECTS + 1), "too_many_redirects"),
    "redirect-loop": Fault(redirect("/redirect-loop/{number}"), "too_many_redirects"),
    "redirect-to-metadata": Fault(redirect("http://169.254.169.254/latest/meta-data/"), "blocked_address"),
    "redirect-inside": Fault(redirect(f"http://{FORBIDDEN}:{{port}}/ok/1"), "blocked_address"),
    "redirect-inside-mapped": Fault(redirect("http://[::ffff:127.0.0.1]:{port}/ok/1", 308), "blocked_address"),
    "redirect-inside-zero": Fault(redirect("http://0.0.0.0:{port}/ok/1", 303), "blocked_address"),
    "redirect-to-file": Fault(redirect("file:///etc/passwd"), "blocked_scheme"),
    "redirect-to-ftp": Fault(redirect("ftp://{place}/ok/1"), "blocked_scheme"),
    "redirect-to-nonsense": Fault(redirect("http://[::1"), "bad_url"),
    "redirect-to-dead": Fault(redirect(f"http://{REFUSES}:{{port}}/"), "refused", attempts=None),
    # Hosts that are ill as a whole.
    "refuses": Fault(good, "refused", attempts=None, host=REFUSES),
    "says-nothing": Fault(lambda _: [NEVER_S], "timeout", attempts=None, host=SILENT),
    "always-503": Fault(status(503), "http_503", attempts=None, host=BROKEN),
}
"""Every kind of answer by its name, which is also its path."""

HIDDEN: dict[str, Answer] = {
    **{f"hops-{hops}": chain_of(hops) for hops in range(MAX_REDIRECTS + 1)},
    "slow": lambda ask: [SLOW_S, *good(ask)],
}
"""Paths that no item of the chaos test names."""


def _cut(data: bytes) -> list[bytes]:
    return [data[:1], data[1:60], data[60:]]


def _drip(data: bytes) -> list[Step]:
    return [step for byte in data[:30] for step in (bytes([byte]), 0.9)]


def _lines() -> list[Step]:
    return [b"X-More: 1\r\n", 0.9] * 30


def host_of(number: int) -> str:
    return HOSTS[number % len(HOSTS)]
