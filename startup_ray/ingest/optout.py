"""What publishers say about the use of their images: X-Robots-Tag, and robots.txt (RFC 9309).

    forbidding(["noai, noimageai"], "startup_ray")     # "noai"
    robots = Robots(load, "startup_ray")
    fault = await robots.judge(url)                    # None, or why the URL may not be fetched

`Crawl-delay` is not in RFC 9309 and is ignored: `rate_per_host` is the limit that holds for a whole cluster.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from protego import Protego
from yarl import URL

from startup_ray.ingest.faults import Fault

DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""The first two: DeviantArt, 2022, as img2dataset reads them. The others: Google, robots meta tag specification."""
_NO_AGENTS = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a colon of their own."""

ROBOTS_BYTES = 500 * 1024
ROBOTS_REDIRECTS = 5
"""As RFC 9309 asks for, 2.5 and 2.3.1.2."""
KEPT_S = 24 * 3600.0
KEPT_FAULT_S = 300.0
MAX_ORIGINS = 10_000
MAX_CHARACTERS = 2_000_000
"""Of all rules that are kept; each takes up to fifty times as much memory."""

_AGENT = re.compile(r"\s*user[- ]?agent\s*:\s*([^#]*)", re.IGNORECASE)
_RULE = re.compile(r"\s*(dis)?allow\s*:", re.IGNORECASE)


class Loaded(Protocol):
    """What is needed of the fetch of a robots.txt."""

    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def body(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    found: Protego | Fault
    characters: int
    until: float


def forbidding(values: Iterable[str], token: str) -> str:
    """The first directive of some X-Robots-Tag headers that asks not to use an image; empty if there is none.

    A header may begin, and go on, with the product token of those that it is meant for: `otherbot: noai`.
    """
    for value in values:
        is_ours = True
        for part in value.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            if colon and name not in _NO_AGENTS:
                is_ours, directive = name in (token.lower(), "*"), rest
            else:
                directive = name
            if is_ours and directive == "none":
                return "none, which means noindex"
            if is_ours and directive in DIRECTIVES:
                return directive
    return ""


class Robots:
    """The robots.txt of every origin, each loaded once and kept for a day, the least recently used forgotten.

    Args:
        load: fetches a robots.txt, retries and redirects included.
        token: our product token.
    """

    def __init__(
        self, load: Callable[[URL], Awaitable[Loaded]], token: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._token = token.lower()
        self._clock = clock
        self._kept: OrderedDict[URL, _Entry] = OrderedDict()
        self._characters = 0
        self._loading: dict[URL, asyncio.Task[_Entry]] = {}

    async def judge(self, url: URL) -> Fault | None:
        """None if the URL may be fetched, else why not."""
        origin = url.origin()
        entry = self._kept.get(origin)
        if entry is None or entry.until < self._clock():
            task = self._loading.get(origin)
            if task is None:
                task = self._loading[origin] = asyncio.create_task(self._fetch(origin))
            entry = await asyncio.shield(task)  # others wait for it, too
        else:
            self._kept.move_to_end(origin)
        if isinstance(entry.found, Fault):
            return entry.found
        # In a thread: of half a megabyte of rules each may be looked at.
        if await asyncio.to_thread(entry.found.can_fetch, str(url), self._token):
            return None
        return Fault("opted_out", "disallowed by robots.txt")

    async def close(self) -> None:
        """Stop what still loads."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def remembered(self) -> int:
        """Origins that are remembered."""
        return len(self._kept)

    async def _fetch(self, origin: URL) -> _Entry:
        try:
            loaded = await self._load(origin / "robots.txt")
            fault = _unreadable(loaded)
            if fault:
                entry = _Entry(fault, 0, self._clock() + KEPT_FAULT_S)
            else:
                rules = _relevant((loaded.body or b"").decode("utf-8-sig", "replace"), self._token)
                found = await asyncio.to_thread(Protego.parse, rules)
                entry = _Entry(found, len(rules), self._clock() + KEPT_S)
        finally:
            del self._loading[origin]
        self._keep(origin, entry)
        return entry

    def _keep(self, origin: URL, entry: _Entry) -> None:
        if former := self._kept.pop(origin, None):
            self._characters -= former.characters
        self._kept[origin] = entry
        self._characters += entry.characters
        while len(self._kept) > MAX_ORIGINS or (self._characters > MAX_CHARACTERS and len(self._kept) > 1):
            self._characters -= self._kept.popitem(last=False)[1].characters


def _unreadable(loaded: Loaded) -> Fault | None:
    """None where there are rules, or none at all (RFC 9309, 2.3.1.3); a server in trouble forbids all (2.3.1.4).

    Too many requests is trouble, as Google reads it, and no word about rules.
    """
    is_missing = loaded.status.startswith(("http_2", "http_3", "http_4")) and loaded.status != "http_429"
    if loaded.status in ("ok", "too_many_redirects") or is_missing:
        return None
    return Fault(loaded.status, f"robots.txt cannot be read, so nothing may be: {loaded.reason or loaded.status}")


def _relevant(text: str, token: str) -> str:
    """The groups of rules for everybody and for us.

    Without the others, because Protego keeps each rule once for each agent of its group: half a megabyte of both
    would become gigabytes.
    """
    kept: list[str] = []
    is_ours = in_names = False
    for line in text.splitlines():
        if agent := _AGENT.match(line):
            name = agent[1].strip().lower().partition("/")[0].strip()
            is_ours = (is_ours and in_names) or name in (token, "*")
            in_names = True
            if name in (token, "*"):
                kept.append(f"User-agent: {name}")
        elif _RULE.match(line):
            in_names = False
            if is_ours:
                kept.append(line)
    return "\n".join(kept)
