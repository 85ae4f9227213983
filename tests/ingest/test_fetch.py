from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from ipaddress import IPv4Network
from typing import Any

import pytest
from aiohttp import web

from startup_ray import __version__
from startup_ray.ingest.breaker import Breaker
from startup_ray.ingest.credentials import NONE, Headers, read_headers
from startup_ray.ingest.faults import RETRY_AFTER_CAP_S, classify, is_transient, retry_after_s
from startup_ray.ingest.fetch import Fetched, Fetcher
from startup_ray.ingest.guard import Guard
from startup_ray.ingest.hosts import HostLimits
from startup_ray.ingest.optout import ROBOTS_BYTES
from startup_ray.ingest.persist import PATIENCE_S
from startup_ray.ingest.shares import local_ask
from startup_ray.job import FetchOptions
from startup_ray.ledger import is_state
from tests.image_server import ImageServer, image

LOOPBACK = IPv4Network("127.0.0.1/32")
NOW = 1_700_000_000.0
NEVER = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


class Waits:
    """A sleep that only writes down how long it should have been."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.waits.append(delay_s)


class Names:
    """A name server: every name leads to the loopback, but for those with a fault, and those that hang."""

    def __init__(self, **faults: int) -> None:
        self._faults = faults
        self.may_end = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        if host.startswith("hangs"):
            self.may_end.wait(20)
        if host in self._faults:
            raise socket.gaierror(self._faults[host], "no such name")
        return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)


def fetch(
    *urls: str,
    guard: Guard | None = None,
    waits: Waits | None = None,
    names: Callable[..., Any] = socket.getaddrinfo,
    headers: Headers = NONE,
    breaker: Breaker | None = None,
    **options: Any,
) -> list[Fetched]:
    """Fetch at once, giving back the room of each body when it is there."""
    made = FetchOptions(**({"timeout_s": 5.0, "retries": 0, "allow_private": (LOOPBACK,)} | options))

    async def run() -> list[Fetched]:
        allowed = guard or Guard(made.allow_private)
        upper = lambda _, high: high  # noqa: E731 - the whole back-off, so that waits can be compared
        limits = HostLimits(local_ask(made.per_host), breaker) if breaker else None
        world: dict[str, Any] = {
            "sleep": waits or Waits(),
            "uniform": upper,
            "clock": lambda: NOW,
            "getaddrinfo": names,
        }
        async with Fetcher(made, allowed, limits=limits, headers=headers, **world) as fetcher:

            async def one(url: str) -> Fetched:
                fetched = await fetcher.fetch(url)
                fetcher.release(fetched)
                return fetched

            return list(await asyncio.gather(*map(one, urls)))

    return asyncio.run(run())


def test_a_body(server: ImageServer) -> None:
    (fetched,) = fetch(server.url("/image/3.png"))
    assert fetched.status == "ok"
    assert fetched.body == image(3)
    assert (fetched.http_status, fetched.attempts, fetched.size) == (200, 1, len(image(3)))
    assert fetched.elapsed_s > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status?code=404", "http_404"),
        ("/status?code=410", "http_410"),
        ("/status?code=204", "http_204"),
        ("/status?code=304", "http_304"),
        ("/status?code=503", "http_503"),
        ("/truncated", "truncated"),
        ("/cut", "truncated"),
        ("/big", "too_large"),
        ("/announced", "too_large"),
        ("/bomb", "too_large"),
        ("/badgzip", "corrupt"),
        ("/reset", "reset"),
        ("/slow?s=3", "timeout"),
        ("/redirect?to=file:///etc/passwd", "blocked_scheme"),
        ("/redirect?to=http://169.254.169.254/", "blocked_address"),
        ("/redirect?to=http://127.0.0.2/", "blocked_address"),
        ("/redirect?to=http://[::ffff:7f00:2]/", "blocked_address"),
        ("/redirect?to=/redirect?to=/redirect", "too_many_redirects"),
        ("/redirect?to=http://[::1", "bad_url"),
    ],
)
def test_each_fault_has_its_state(server: ImageServer, path: str, status: str) -> None:
    (fetched,) = fetch(server.url(path), max_bytes=100_000, max_redirects=1, timeout_s=1.0)
    assert fetched.status == status
    assert is_state(fetched.status)
    assert fetched.body is None
    assert fetched.size < 1 << 20  # of the 4 MiB that two of them hold


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://localhost:1/", "blocked_address"),
        ("http://127.1:1/", "bad_url"),
        ("http://2130706433:1/", "bad_url"),
        ("http://0x7f.1:1/", "blocked_address"),
        ("http://[::1]:1/", "blocked_address"),
        ("http://[::ffff:127.0.0.1]:1/", "blocked_address"),
        ("http://0.0.0.0:1/", "blocked_address"),
        ("http://169.254.169.254/latest/meta-data/", "blocked_address"),
        ("http://" + "a" * 70 + ".invalid/", "bad_url"),
    ],
)
def test_addresses_are_judged_where_the_connection_is_made(url: str, status: str) -> None:
    (fetched,) = fetch(url, guard=Guard(), retries=3)
    assert (fetched.status, fetched.attempts) in [(status, 1), (status, 0)]  # never tried again


def test_a_name_server_cannot_lead_inside(server: ImageServer) -> None:
    url = server.url("/image/1.png", host="public.example")
    (blocked,), (allowed,) = fetch(url, guard=Guard(), names=Names()), fetch(url, names=Names())
    assert (blocked.status, allowed.status) == ("blocked_address", "ok")


@pytest.mark.parametrize(("code", "attempts"), [(socket.EAI_NONAME, 1), (socket.EAI_FAIL, 1), (socket.EAI_AGAIN, 4)])
def test_a_name_is_looked_up_again_only_if_its_server_says_so(code: int, attempts: int) -> None:
    (fetched,) = fetch("http://nowhere/", names=Names(nowhere=code), retries=3)
    assert (fetched.status, fetched.reason, fetched.attempts) == ("dns", "no such name", attempts)


def test_dead_names_hold_up_nobody_else(server: ImageServer) -> None:
    names = Names()
    dead = [f"http://hangs-{i}.example/" for i in range(31)]
    *lost, last = fetch(*dead, server.url("/image/1.png", host="good.example"), names=names, timeout_s=0.5)
    names.may_end.set()
    assert {fetched.status for fetched in lost} == {"timeout"}
    assert last.status == "ok"


def test_nothing_listens_and_no_tls(server: ImageServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused, tls = fetch(f"http://127.0.0.1:{port}/", server.url("/image/1.png").replace("http:", "https:"))
    assert refused.status == "refused"
    assert tls.status == "tls"


def test_reasons_hold_no_secrets(server: ImageServer) -> None:
    targets = ["http://[::1?token=hunter2", "file:///x?token=hunter2", "http://256.1.1.1/?token=hunter2"]
    urls = [server.url(f"/redirect?to={target}") for target in targets]
    names = Names(nowhere=socket.EAI_NONAME)
    found = fetch(*urls, "http://127.1/?token=hunter2", "http://user:hunter2@nowhere/", names=names)
    assert [fetched.status for fetched in found] == ["bad_url", "blocked_scheme", "bad_url", "bad_url", "dns"]
    assert all(fetched.reason and "hunter2" not in fetched.reason for fetched in found)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"\0no status line\r\n\r\n", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab", "reset"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", "corrupt"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 3\r\n\r\nabc", "corrupt"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc", "corrupt"),
    ],
)
def test_malformed_answers(server: ImageServer, answer: bytes, status: str) -> None:
    server.bodies["malformed"] = answer
    (fetched,) = fetch(server.url("/raw/malformed?token=hunter2"), retries=2)
    assert (fetched.status, fetched.attempts) == (status, 1 if status == "corrupt" else 3)
    assert fetched.reason
    assert "hunter2" not in fetched.reason


def test_what_nobody_foresaw_is_a_value_and_tells_nothing(server: ImageServer) -> None:
    class Broken(Guard):
        def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
            raise LookupError("http://e.com/?token=hunter2")

    (fetched,) = fetch(server.url("/image/1.png"), guard=Broken())
    assert (fetched.status, fetched.reason) == ("reset", "LookupError")
    assert classify(KeyError("x")) == ("reset", "KeyError")


def test_redirects_are_followed_up_to_the_limit(server: ImageServer) -> None:
    url = server.url("/redirect?to=/image/1.png")
    (one,) = fetch(url, max_redirects=1)
    (none,) = fetch(url, max_redirects=0)
    assert (one.status, none.status) == ("ok", "too_many_redirects")


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: ImageServer, code: int) -> None:
    waits = Waits()
    (fetched,) = fetch(server.url(f"/flaky{code}?times=2&code={code}"), retries=3, waits=waits)
    assert (fetched.status, fetched.attempts) == ("ok", 3)
    assert waits.waits == [0.5, 1.0]


@pytest.mark.parametrize("path", ["/status?code=404", "/status?code=403", "/big", "/redirect?to=http://10.0.0.1/"])
def test_what_will_not_pass_is_not_tried_again(server: ImageServer, path: str) -> None:
    (fetched,) = fetch(server.url(path), retries=3, max_bytes=1000)
    assert fetched.attempts == 1


def test_broken_connections_are_tried_again_and_then_told(server: ImageServer) -> None:
    waits = Waits()
    (fetched,) = fetch(server.url("/truncated"), retries=2, waits=waits)
    assert (fetched.status, fetched.attempts, len(waits.waits)) == ("truncated", 3, 2)
    assert fetched.reason == "100 of 500 bytes"


def test_retry_after_is_honoured_up_to_a_cap(server: ImageServer) -> None:
    waits = Waits()
    date = formatdate(NOW + 20, usegmt=True).replace(" ", "%20")
    never = NEVER.replace(" ", "%20").replace("+", "%2B")
    for name, after in (("a", "7"), ("b", date), ("c", "86400"), ("d", "soon"), ("e", never)):
        fetch(server.url(f"/flaky-{name}?times=1&code=429&after={after}"), retries=1, waits=waits)
    assert waits.waits == [7.0, 20.0, RETRY_AFTER_CAP_S, 0.5, 0.5]
    (fetched,) = fetch(server.url("/flaky-f?times=1&code=404&after=9"))
    assert fetched.retry_after_s == 0.0  # it will not be tried again


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("9" * 5000, RETRY_AFTER_CAP_S),
        (NEVER, 0.0),
        ("", 0.0),
        ("-3", 0.0),
        ("²", 0.0),
        ("1.5", 0.0),
        (formatdate(NOW - 9, usegmt=True), 0.0),
    ],
)
def test_retry_after_notations(text: str, seconds: float) -> None:
    assert retry_after_s({"Retry-After": text}, NOW) == seconds


def test_transient_states() -> None:
    assert not any(map(is_transient, ["ok", "dns", "tls", "blocked_address", "http_404", "too_large", "corrupt"]))


@pytest.mark.parametrize(("per_host", "concurrency", "most"), [(3, 50, 3), (50, 2, 2)])
def test_bounds_hold(per_host: int, concurrency: int, most: int) -> None:
    with ImageServer() as own:
        urls = [own.url(f"/slow/{i}?s=0.02") for i in range(20)]
        assert {fetched.status for fetched in fetch(*urls, per_host=per_host, concurrency=concurrency)} == {"ok"}
        assert own.most_open == most


def test_a_slow_host_does_not_hold_up_the_others(server: ImageServer) -> None:
    """Ten items at a host that never answers come first; its places are its own."""
    with ImageServer() as slow:
        stuck = [slow.url(f"/slow/{i}?s=9") for i in range(10)]
        began = time.monotonic()
        *lost, last = fetch(*stuck, server.url("/image/1.png"), per_host=1, concurrency=2, timeout_s=0.1)
        assert last.status == "ok"
        assert last.elapsed_s < 0.1
        assert {fetched.status for fetched in lost} == {"timeout"}  # waiting in line does not count
        assert all(fetched.elapsed_s < 0.5 for fetched in lost)
        assert time.monotonic() - began > 0.9


def test_a_redirect_takes_its_turn_where_it_leads() -> None:
    with ImageServer() as first, ImageServer() as second:
        urls = [first.url(f"/redirect/{i}?to={second.url(f'/slow/{i}?s=0.02')}") for i in range(12)]
        assert {fetched.status for fetched in fetch(*urls, per_host=2)} == {"ok"}
        assert second.most_open == 2


def test_time_is_counted_over_redirects(server: ImageServer) -> None:
    (fetched,) = fetch(server.url(f"/redirect?s=0.4&to={server.url('/drip')}"), timeout_s=0.5)
    assert (fetched.status, fetched.reason) == ("timeout", "no whole answer within timeout_s")
    assert 0.45 < fetched.elapsed_s < 0.8


def test_each_time_limit_is_told_by_name(server: ImageServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # TLS never gets an answer
        port = silent.getsockname()[1]
        (fetched,) = fetch(f"https://127.0.0.1:{port}/", connect_timeout_s=0.1)
        assert (fetched.status, fetched.reason) == ("timeout", "not connected within connect_timeout_s")
    slow, drip = fetch(server.url("/slow?s=3"), server.url("/drip"), read_timeout_s=0.3, timeout_s=0.8)
    assert (slow.status, slow.reason) == ("timeout", "silent for read_timeout_s")
    assert (drip.status, drip.reason) == ("timeout", "no whole answer within timeout_s")
    assert 0 < drip.size < 500


@pytest.mark.parametrize(("agent", "sent"), [(None, f"startup_ray/{__version__}"), ("cats/2 (+http://c.example)",) * 2])
def test_we_say_who_we_are_and_want_nothing_compressed(server: ImageServer, agent: str | None, sent: str) -> None:
    fetch(server.url("/image/7.png"), user_agent=agent)
    headers = server.headers["/image/7.png"][-1]
    assert headers["User-Agent"] == sent
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("query", "more", "status", "reason"),
    [
        ("tag=nofollow&tag=noindex,noai", {}, "opted_out", "X-Robots-Tag: noindex"),
        ("tag=cats:+noai", {"user_agent": "cats/2"}, "opted_out", "X-Robots-Tag: noai"),
        ("tag=cats:+noai", {}, "ok", ""),
        ("tag=noai", {"respect_opt_out": False}, "ok", ""),
    ],
)
def test_opt_outs_are_respected(
    server: ImageServer, query: str, more: dict[str, Any], status: str, reason: str
) -> None:
    (fetched,) = fetch(server.url(f"/tagged/a?{query}"), **more)
    assert (fetched.status, fetched.reason, fetched.http_status) == (status, reason, 200)
    assert fetched.size == (0 if status == "opted_out" else len(image(0)))


def test_robots_txt_is_read_once_and_only_if_asked_for() -> None:
    with ImageServer() as own, ImageServer() as other:
        text = "User-agent: *\nDisallow: /image/2.png"
        own.robots = lambda: web.Response(status=302, headers={"Location": other.url("/robots.txt")})
        other.robots = lambda: web.Response(text=text, headers={"X-Robots-Tag": "noindex"})
        urls = [own.url(f"/image/{i}.png") for i in range(4)]
        assert [fetched.status for fetched in fetch(*urls)] == ["ok"] * 4
        assert "/robots.txt" not in own.hits
        found = fetch(*urls, respect_robots_txt=True)
        assert [fetched.status for fetched in found] == ["ok", "ok", "opted_out", "ok"]
        assert (found[2].attempts, found[2].reason) == (0, "disallowed by robots.txt")
        assert own.hits["/robots.txt"] == other.hits["/robots.txt"] == 1
        (moved,) = fetch(other.url(f"/redirect?to={own.url('/image/2.png')}"), respect_robots_txt=True)
        assert (moved.status, moved.attempts) == ("opted_out", 1)


def test_a_server_in_trouble_forbids_all_and_is_asked_again_before() -> None:
    with ImageServer() as own:
        own.robots = lambda: web.Response(status=503)
        url = own.url("/image/1.png")
        (fetched,) = fetch(url, respect_robots_txt=True, retries=2)
        assert (fetched.status, fetched.attempts, own.hits["/robots.txt"]) == ("http_503", 0, 3)
        assert fetched.reason.startswith("robots.txt cannot be read")
        body = "User-agent: *\nAllow: /\n" + "#" * ROBOTS_BYTES + "\nUser-agent: *\nDisallow: /"
        own.robots = lambda: web.Response(text=body)
        (fetched,) = fetch(url, respect_robots_txt=True, max_bytes=5_000)
        assert fetched.status == "ok"  # what is behind the limit does not count


def test_headers_of_an_origin_go_nowhere_else(server: ImageServer) -> None:
    with ImageServer() as other:
        token = {"Authorization": "Bearer hunter2", "X-Key": "hunter2"}
        headers = read_headers({"STARTUP_RAY_HEADERS": json.dumps({server.url(""): token})})
        there, back = other.url("/image/1.png"), server.url("/image/2.png")
        away = server.url(f"/redirect/away?to={there}")
        around = server.url(f"/redirect/around?to={other.url(f'/redirect/back?to={back}')}")
        found = fetch(away, around, back.replace("//", "//user:pass@"), headers=headers)
        assert [fetched.status for fetched in found] == ["ok"] * 3
        for path in ("/redirect/away", "/redirect/around", "/image/2.png"):
            for sent in server.headers[path]:
                assert sent["Authorization"] == "Bearer hunter2"
                assert sent["X-Key"] == "hunter2"
        arrived = [sent for sents in other.headers.values() for sent in sents]
        assert len(arrived) == 2
        assert not any("hunter2" in value for sent in arrived for value in sent.values())
        assert not any("Authorization" in sent for sent in arrived)


def test_what_a_url_says_of_its_user_stays_in_its_origin(server: ImageServer) -> None:
    with ImageServer() as other:
        url = server.url("/redirect/u?to=").replace("//", "//user:hunter2@")
        found = fetch(url + server.url("/image/5.png"), url + "/image/6.png", url + other.url("/image/7.png"))
        assert [fetched.status for fetched in found] == ["ok"] * 3
        for path in ("/image/5.png", "/image/6.png"):
            assert server.headers[path][-1]["Authorization"].startswith("Basic ")
        assert "Authorization" not in other.headers["/image/7.png"][0]


def zeros(size: int) -> bytes:
    """So many zeros by gzip."""
    squeeze = zlib.compressobj(9, wbits=31)
    return b"".join([*(squeeze.compress(bytes(1 << 20)) for _ in range(size >> 20)), squeeze.flush()])


def test_a_bomb_takes_no_more_memory_than_a_body_may(server: ImageServer) -> None:
    server.bodies["bomb"] = zeros(100 << 20)
    server.bodies["bombs"] = zeros(1 << 20) * 100  # members that follow each other
    urls = [server.url(f"/encoded/{name}?as=gzip") for name in ("bomb", "bombs")]
    fetch(urls[0], max_bytes=1)  # what is made once only
    for url in urls:
        tracemalloc.start()
        (fetched,) = fetch(url, max_bytes=2_000_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert fetched.status == "too_large"
        assert peak < 8_000_000


@pytest.mark.parametrize(
    ("encoding", "status"),
    [
        ("gzip", "ok"),
        ("deflate", "corrupt"),
        ("compress", "corrupt"),
        ("gzip,%20gzip", "corrupt"),
        ("x" * 300, "corrupt"),
    ],
)
def test_encodings(server: ImageServer, encoding: str, status: str) -> None:
    server.bodies["zipped"] = gzip.compress(image(3))
    (fetched,) = fetch(server.url(f"/encoded/zipped?as={encoding}"))
    assert fetched.status == status
    assert fetched.body == (image(3) if status == "ok" else None)
    assert 0 < len(fetched.reason) < 100 or status == "ok"


@pytest.mark.parametrize("encoding", ["identity", "aws-chunked", "Identity"])
def test_what_is_no_encoding(server: ImageServer, encoding: str) -> None:
    server.bodies["plain"] = image(3)
    (fetched,) = fetch(server.url(f"/encoded/plain?as={encoding}"))
    assert fetched.body == image(3)


def test_a_host_that_only_fails_is_given_up_with_its_last_fault() -> None:
    with ImageServer() as ill, ImageServer() as well:
        urls = [ill.url(f"/status/{i}?code=503") for i in range(60)]
        *lost, last = fetch(*urls, well.url("/image/1.png"), breaker=Breaker(opens_after=5, pause_s=0.01), per_host=4)
        assert last.status == "ok"
        assert {fetched.status for fetched in lost} == {"http_503"}
        tried = [fetched for fetched in lost if fetched.attempts]
        spared = [fetched for fetched in lost if not fetched.attempts]
        assert sum(ill.hits.values()) == len(tried) < 16
        assert {fetched.reason for fetched in tried} == {"Service Unavailable"}
        (reason,) = {fetched.reason for fetched in spared}
        assert reason == f"host given up after {len(tried)} failures in a row: http_503 Service Unavailable"


def test_an_item_waits_so_long_and_no_longer(server: ImageServer) -> None:
    waits = Waits()
    (fetched,) = fetch(server.url("/flaky-g?times=99&code=503&after=60"), retries=10, waits=waits)
    assert waits.waits == [60.0] * 3
    assert PATIENCE_S == 180.0
    assert (fetched.status, fetched.attempts) == ("http_503", 4)
