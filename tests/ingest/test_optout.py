from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from yarl import URL

from startup_ray.ingest import optout as module
from startup_ray.ingest.faults import Fault
from startup_ray.ingest.optout import KEPT_FAULT_S, KEPT_S, Robots, forbidding
from tests.fakes import Clock

TOKEN = "startup_ray"
SITE = URL("https://e.com/a/b.jpg")


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        (["noai"], "noai"),
        (["NoAI, NoImageAI"], "noai"),
        (["nofollow,noimageai"], "noimageai"),
        (["nofollow", "noimageindex"], "noimageindex"),
        (["noindex"], "noindex"),
        (["none"], "none, which means noindex"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["max-image-preview: none, all"], ""),
        (["startup_ray: noai"], "noai"),
        (["Startup_Ray: nofollow, noai"], "noai"),
        (["*: noai"], "noai"),
        (["googlebot: noindex"], ""),
        (["googlebot: noindex, noai"], ""),  # the name counts up to the next one
        (["googlebot: noindex, startup_ray: noai"], "noai"),
        (["googlebot: noindex", "noai"], "noai"),
        (["startup: noai", "ray: noai"], ""),
        (["all"], ""),
        (["index, follow"], ""),
        (["noaii", "no ai", "", ",,:,"], ""),
        ([], ""),
    ],
)
def test_x_robots_tag(values: list[str], directive: str) -> None:
    assert forbidding(values, TOKEN) == directive


@dataclass(frozen=True)
class Answer:
    status: str = "ok"
    reason: str = ""
    body: bytes | None = None


class Site:
    """Answers every robots.txt alike; counts."""

    def __init__(self, answer: Answer | str) -> None:
        self.answer = Answer(body=answer.encode()) if isinstance(answer, str) else answer
        self.loads: list[URL] = []

    async def __call__(self, url: URL) -> Answer:
        self.loads.append(url)
        await asyncio.sleep(0)
        return self.answer


def judge(answer: Answer | str, path: str, token: str = TOKEN) -> Fault | None:
    return asyncio.run(Robots(Site(answer), token).judge(SITE.with_path(path)))


@pytest.mark.parametrize(
    ("rules", "path", "is_allowed"),
    [
        ("", "/x", True),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("\ufeffUser-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow:", "/x", True),
        ("user-AGENT : * # all\ndisALLOW : /x", "/x/y", False),
        ("User-agent: startup_ray\nDisallow: /x\n\nUser-agent: *\nDisallow: /", "/y", True),
        ("User-agent: startup_ray\nDisallow: /x\n\nUser-agent: *\nDisallow: /", "/x", False),
        ("User-agent: Startup_Ray/1.0\nDisallow: /x", "/x", False),
        ("User-agent: other\nUser-agent: startup_ray\nDisallow: /x", "/x", False),
        ("User-agent: other\nUser-agent: third\nDisallow: /x\nUser-agent: *\nDisallow: /y", "/x", True),
        ("User-agent: other\nDisallow: /\nUser-agent: startup_ray\nAllow: /", "/x", True),
        ("User-agent: *\nCrawl-delay: 5\nSitemap: https://e.com/\nDisallow: /x", "/x", False),
        ("User-agent: *\nDisallow: /x\nAllow: /x/public", "/x/public/a", True),
        ("User-agent: *\nDisallow: /*.gif$", "/a/b.gif", False),
        ("User-agent: *\nDisallow: /*.gif$", "/a/b.gifs", True),
        ("Disallow: /", "/x", True),
        ("<html>Not found</html>", "/x", True),
        ("User-agent: ray\nDisallow: /", "/x", True),
    ],
)
def test_robots_rules(rules: str, path: str, is_allowed: bool) -> None:
    fault = judge(rules, path)
    assert fault is None if is_allowed else fault == ("opted_out", "disallowed by robots.txt")


@pytest.mark.parametrize("status", ["http_404", "http_401", "http_410", "http_204", "http_304", "too_many_redirects"])
def test_no_robots_allow_all(status: str) -> None:
    assert judge(Answer(status), "/x") is None


@pytest.mark.parametrize("status", ["http_500", "http_503", "http_429", "timeout", "dns", "tls", "blocked_address"])
def test_unreachable_robots_forbid_all(status: str) -> None:
    """RFC 9309, 2.3.1.4. The state is what kept us away, so that it can be tried again by its name."""
    fault = judge(Answer(status, "why"), "/x")
    assert fault == (status, "robots.txt cannot be read, so nothing may be: why")


def test_one_load_for_each_origin() -> None:
    site = Site("User-agent: *\nDisallow: /x")

    async def run() -> None:
        robots = Robots(site, TOKEN)
        urls = [
            URL(f"{origin}/{name}")
            for origin in ("http://e.com", "https://e.com", "https://e.com:8443")
            for name in "xy"
        ]
        faults = await asyncio.gather(*(robots.judge(url) for url in urls * 5))
        assert [fault is None for fault in faults] == [False, True] * 15

    asyncio.run(run())
    assert sorted(map(str, site.loads)) == [
        "http://e.com/robots.txt",
        "https://e.com/robots.txt",
        "https://e.com:8443/robots.txt",
    ]


@pytest.mark.parametrize(("answer", "kept_s"), [(Answer("http_404"), KEPT_S), (Answer("http_503"), KEPT_FAULT_S)])
def test_it_is_loaded_again_after_a_while(answer: Answer, kept_s: float) -> None:
    site, clock = Site(answer), Clock()

    async def run() -> list[int]:
        robots, loads = Robots(site, TOKEN, clock), list[int]()
        for pause_s in (0.0, kept_s, 1.0):
            clock.now += pause_s
            await robots.judge(SITE)
            loads.append(len(site.loads))
        return loads

    assert asyncio.run(run()) == [1, 1, 2]


def keep_many(answer: Answer | str, origins: int, happened: Callable[[int], bool]) -> None:
    async def run() -> None:
        robots = Robots(Site(answer), TOKEN)
        for number in range(origins):
            await robots.judge(URL(f"http://{number}.com/x"))
        assert happened(robots.remembered)

    asyncio.run(run())


@pytest.mark.ray  # it takes seconds
def test_memory_is_bounded_by_rules() -> None:
    rules = "User-agent: *\n" + "\n".join(f"Disallow: /{number:06d}" for number in range(10_000))
    keep_many(rules, 15, lambda kept: kept == module.MAX_CHARACTERS // len(rules))


def test_a_cancelled_wait_leaves_the_load_to_the_others() -> None:
    gate = asyncio.Event()

    async def load(url: URL) -> Answer:
        await gate.wait()
        return Answer("http_404")

    async def run() -> None:
        robots = Robots(load, TOKEN)
        waits = [asyncio.create_task(robots.judge(SITE)) for _ in range(2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await waits[1] is None
        late = asyncio.create_task(robots.judge(SITE.with_host("f.com")))
        await asyncio.sleep(0)
        gate.clear()
        await robots.close()
        late.cancel()

    asyncio.run(run())


def test_rules_made_to_exhaust_cost_little() -> None:
    """Each rule for each of 16,000 agents, as Protego keeps them, would be 300 million."""
    agents = "".join(f"User-agent: {number}\n" for number in range(16_000))
    rules = "".join(f"Disallow: /{number}\n" for number in range(18_000))
    began = time.process_time()
    assert judge(agents + rules, "/1") is None
    assert judge(agents + "User-agent: *\n" + rules, "/1") == ("opted_out", "disallowed by robots.txt")
    assert time.process_time() - began < 3
