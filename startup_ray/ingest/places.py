"""What one event loop has of one host, and who waits for it there: the state behind `hosts.py`."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from startup_ray.ingest.shares import Grant, Want


@dataclass(slots=True)
class Place:
    """What this loop has of a host, and who waits for it."""

    waiting: deque[asyncio.Future[bool | Exception]] = field(default_factory=deque)
    in_use: int = 0
    slots: int = 0
    starts: int | None = 0
    expires: float = -math.inf
    ceiling: float = math.inf
    """Lower while a call is under way: what it reported as unused may be another's by now."""
    asked: int = 0
    due: float = -math.inf
    """When to ask next."""
    timer: asyncio.TimerHandle | None = None

    def may_start(self, now: float) -> bool:
        return self.in_use < min(self.slots, self.ceiling) and self.starts != 0 and now < self.expires

    def may_get_more(self) -> bool:
        """Whether to ask before the next renewal: it got all it asked for last time, and that is not enough now."""
        got_all = self.slots >= self.asked and self.starts != 0
        return self.ceiling == math.inf and (self.asked == 0 or got_all)

    def start(self) -> None:
        self.in_use += 1
        if self.starts is not None:
            self.starts -= 1

    def want(self, waiting: int, now: float, renew_s: float) -> Want:
        """What to ask for, if so many of those who wait count; nothing more begins until the answer."""
        want = Want(slots=self.in_use + waiting, in_use=self.in_use, starts=waiting)
        self.asked, self.ceiling, self.due = want.slots, self.in_use, now + renew_s
        return want

    def take(self, grant: Grant, sent: float) -> None:
        """Note the answer to what was asked at `sent`."""
        self.slots, self.starts, self.expires = grant.slots, grant.starts, sent + grant.ttl_s
        self.ceiling = math.inf

    def refuse(self, make: Callable[[], Exception]) -> None:
        """Send everybody away."""
        while self.waiting:
            if not (first := self.waiting.popleft()).done():
                first.set_result(make())
