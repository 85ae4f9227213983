"""Hostile URLs: none of them makes a connection that it must not, whatever way they are written or led on.

Nothing leaves the machine: a socket for an address that the guard lets pass is refused after it has judged.
Listeners on the loopback count whatever arrives in spite of that.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_address
from itertools import cycle
from typing import Any

import pytest
from yarl import URL

from startup_ray.ingest.fetch import Fetched, Fetcher
from startup_ray.ingest.guard import Guard
from startup_ray.job import FetchOptions
from startup_ray.ledger import is_state
from tests.image_server import ImageServer

PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:4700::1111"
KEPT_OUT = ("blocked_address", "blocked_scheme", "bad_url", "dns")

LITERALS = [
    # loopback, in every notation that `inet_aton` takes
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0x7F.0x0.0x0.0x1",
    "0177.0.0.1", "0177.0x0.0.1", "127.0.0.01", "00000177.0.0.1", "127.255.255.254", "127.0.0.1.", "2130706433.",
    "0", "0.0", "0.0.0.0", "0x0", "00", "4294967295", "255.255.255.255", "4294967296", "256.256.256.256",
    "18446744071562067969",  # 127.0.0.1 beyond 64 bits
    # private, shared, reserved
    "10.0.0.1", "10.1", "167772161", "0xa.1", "012.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.257",
    "100.64.0.1", "192.0.0.8", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    # metadata services: AWS, GCP and Azure; ECS; Azure's host; Alibaba; Oracle; AWS over IPv6
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.254.0251.254",
    "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]",
    # IPv6, and IPv4 inside it: mapped, compatible, 6to4, NAT64, local NAT64, translated, Teredo, ISATAP
    "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::]", "[::%31]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]",
    "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]", "[::ffff:0:7f00:1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fe80::5efe:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[::ffff:0.0.0.0]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]",
    "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[100::1]", "[v1.127]", "[127.0.0.1]",
    # names, full-width and enclosed digits, ideographic full stops, soft hyphens
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "ip6-localhost", "loc\u00adalhost", "ｌｏｃａｌｈｏｓｔ",
    "１２７.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "⑯⑨。②⑤④。⑯⑨｡②⑤④", "127.0.0.1%00.e.com", "127.0.0.1%2e",
    "%31%32%37.0.0.1", "[::ﬀff:7f00:1]",
]  # fmt: skip
"""Hosts that are inside, or nowhere."""

TRICKS = [
    "http://user@{}/", "http://e.com@{}/", "http://e.com:80@{}/", "http://{}@{}/", "http://e.com%40@{}/",
    "http://e.com\\@{}/", "http://{}\\@e.invalid/", "http://{}#@e.invalid/", "http://{}?@e.invalid/", "http:\\\\{}\\",
    "http:///{}/", "http:{}/", "http:/{}/", "https://{}/", "http://{}:80/", "http://{}:/", "http://{}:00000000/",
    "http://{}:65536/", "http://{}:-1/", "http://{}: 80/", "http://{}:80x/", "http://{}:٨٠/", "HTTP://{}/",
    "http://{}//..//", "http://{}\t/", "http://\t{}/", "http://{}\r\nX: y/", "http://e.com\r\n@{}/", "//{}/", "{}",
    "gopher://{}/_", "file://{}/etc/passwd", "ftp://{}/", "dict://{}:11211/", "ldap://{}/", "unix://{}/",
    "data:image/png;base64,AA==", "javascript:0", "jar:http://{}!/", "http+unix://{}/", "view-source:http://{}/",
]  # fmt: skip

ANSWERS = {
    "inside.example": ["127.0.0.1"],
    "inside6.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "zero.example": ["0.0.0.0"],
    "nat64.example": ["64:ff9b::a00:1"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "mixed-first.example": ["10.0.0.1", PUBLIC],
    "mixed6.example": [PUBLIC_6, "::1", "127.0.0.1"],
}
"""What a name server in the attacker's hands says."""


class Recorder(Guard):
    """The guard as it is, which writes down whatever gets past it."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.made: list[str] = []
        self.inside: tuple[str, int] | None = None
        """The one endpoint that is really connected to."""

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        opened = super().open_socket(info)
        if info[4][:2] == self.inside:
            return opened
        opened.close()
        self.made.append(info[4][0])
        raise OSError(errno.ENETUNREACH, "nothing leaves the machine")


class NameServer:
    """Answers from the table; `rebind.example` is public and inside in turn; other names as the system reads them.

    The system's reading is asked for numbers only, `localhost` apart, so that no query leaves the machine.
    """

    def __init__(self) -> None:
        self._turns = cycle([PUBLIC, "127.0.0.1"])

    def __call__(self, host: str, port: int, **more: Any) -> list[tuple[Any, ...]]:
        name = host.rstrip(".").lower()
        if name == "rebind.example":
            return self._answer([next(self._turns)], port)
        if name in ANSWERS:
            return self._answer(ANSWERS[name], port)
        if name.endswith("localhost"):
            return self._answer(["127.0.0.1", "::1"], port)
        more["flags"] = socket.AI_NUMERICHOST
        return socket.getaddrinfo(host, port, **more)

    @staticmethod
    def _answer(addresses: list[str], port: int) -> list[tuple[Any, ...]]:
        found = []
        for address in addresses:
            is_4 = ip_address(address).version == 4
            place: tuple[Any, ...] = (address, port) if is_4 else (address, port, 0, 0)
            found.append((socket.AF_INET if is_4 else socket.AF_INET6, socket.SOCK_STREAM, 6, "", place))
        return found


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A port that is open on both loopbacks, and who has come to it."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        with socket.create_server(("::1", port), family=socket.AF_INET6) as six:
            threads = [threading.Thread(target=_accept, args=(server, came)) for server in (four, six)]
            for thread in threads:
                thread.start()
            try:
                yield port, came
            finally:
                for server in (four, six):
                    server.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()


def _accept(server: socket.socket, came: list[str]) -> None:
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        came.append(str(peer))
        connection.close()


def fetch(urls: list[str], guard: Guard, **options: Any) -> list[Fetched]:
    made = FetchOptions(**({"retries": 0, "timeout_s": 5.0} | options))

    async def run() -> list[Fetched]:
        async with Fetcher(made, guard, getaddrinfo=NameServer()) as fetcher:
            return list(await asyncio.gather(*map(fetcher.fetch, urls)))

    return asyncio.run(run())


def with_port(host: str, port: int) -> list[str]:
    return [f"http://{host}:{port}/", f"http://{host}/"]


def check(found: list[Fetched], urls: list[str], guard: Recorder) -> None:
    for url, fetched in zip(urls, found, strict=True):
        assert fetched.status in KEPT_OUT, (url, fetched)
        assert is_state(fetched.status)
        assert fetched.body is None
    assert guard.made == []


def test_there_are_enough_of_them() -> None:
    assert len(set(LITERALS)) + len(set(TRICKS)) + len(ANSWERS) >= 130


def test_every_notation_of_an_address() -> None:
    guard = Recorder()
    with listening() as (port, came):
        urls = [url for host in LITERALS for url in with_port(host, port)]
        check(fetch(urls, guard), urls, guard)
    assert came == []


def test_every_trick_with_a_url() -> None:
    guard = Recorder()
    with listening() as (port, came):
        places = [f"127.0.0.1:{port}", "127.0.0.1", f"[::1]:{port}", "localhost", "169.254.169.254"]
        urls = [trick.replace("{}", place) for trick in TRICKS for place in places]
        check(fetch(urls, guard), urls, guard)
    assert came == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_redirect(code: int) -> None:
    """From a server that may be fetched from, to whatever it says."""
    with ImageServer() as server, listening() as (port, came):
        guard = Recorder(endpoints=[("127.0.0.1", server.port)])
        guard.inside = ("127.0.0.1", server.port)
        targets = [f"http://{host}:{port}/" for host in [*LITERALS, *ANSWERS] if "%" not in host]
        targets += [trick.replace("{}", f"127.0.0.1:{port}") for trick in TRICKS if trick[:4].lower() == "http"]
        targets += [f"//127.0.0.1:{port}/", f"\\\\127.0.0.1:{port}/", f"file:///{port}"]
        targets = [target for target in targets if target.isprintable()]  # a header takes no other
        place = URL(server.url("/redirect"))
        urls = [str(place.with_query(to=target, code=str(code))) for target in targets]
        found = fetch(urls, guard, max_redirects=3, per_host=64)
    assert len(urls) > 100
    for target, fetched in zip(targets, found, strict=True):
        # What reads as a path is asked of the server itself, and a public address is refused by the recorder.
        more = ("http_404",) if fetched.status != "refused" else ("refused",) * ("mixed" in target)
        assert fetched.status in (*KEPT_OUT, *more), (target, fetched)
    public = [address for address in guard.made if address in (PUBLIC, PUBLIC_6)]
    assert guard.made == public  # of answers that mix both
    assert came == []


def test_every_answer_of_a_name_server() -> None:
    guard = Recorder()
    with listening() as (port, came):
        urls = [f"{scheme}://{name}:{port}/" for name in ANSWERS for scheme in ("http", "https")]
        found = fetch(urls, guard)
    assert came == []
    assert set(guard.made) == {PUBLIC, PUBLIC_6}
    for url, fetched in zip(urls, found, strict=True):
        assert fetched.status in ("blocked_address", "refused"), (url, fetched)
        assert "mixed" in url or fetched.status == "blocked_address"


def test_a_name_that_is_bound_anew_between_look_ups() -> None:
    """The address that is judged is the one that is connected to, at every attempt."""
    guard = Recorder()
    with listening() as (port, came):
        found = [fetch([f"http://rebind.example:{port}/"] * 3, guard, retries=1) for _ in range(2)]
    assert came == []
    assert set(guard.made) == {PUBLIC}
    assert {fetched.status for some in found for fetched in some} <= {"blocked_address", "refused"}


def test_a_listener_does_see_what_is_allowed() -> None:
    """The other tests would be worth nothing if it did not."""
    guard = Recorder(networks=[IPv4Network("127.0.0.0/8")])
    with listening() as (port, came):
        guard.inside = ("127.0.0.1", port)
        (fetched,) = fetch([f"http://inside.example:{port}/"], guard)
    assert fetched.status == "reset"
    assert came
