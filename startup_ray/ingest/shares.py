"""How many requests each fetcher of a cluster may have open at a host, and how many it may begin.

    broker = Broker(per_host=8, rate_per_host=None)
    grants = broker.lease("fetcher-1", {("example.com", 443): Want(slots=20, in_use=3)})
    grants["example.com", 443]          # Grant(slots=8, starts=None, ttl_s=10.0)

Laws: what all holders of a host hold is never above `per_host`; what they may begin is never above
rate x time + one bucket. A lease that is not renewed in time is forgotten, so that the slots of a dead process
come back; so is a host that nobody holds, because a manifest may name millions. Plain and synchronous: one
process calls it, which is an actor on a cluster (`broker.py`).
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

Host = tuple[str, int]
"""Lower-case name and port."""

TTL_S = 10.0
"""A lease lasts so long; holders renew it well before."""
TURN_S = 4.0
"""Where slots do not divide evenly, who has one more than others gives way after so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What a holder could use of a host."""

    slots: int
    """Requests that could be open at once, those that are included; 0 gives the host back."""
    in_use: int = 0
    """Requests that are open. No more may be until the answer has come: the broker gives the rest to others."""
    starts: int = 0
    """Requests that wait to begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What a holder has of a host until its next renewal."""

    slots: int
    """Requests that may be open; fewer than are open means that none may begin until enough have ended."""
    starts: int | None
    """Requests that may begin, or None without a limit."""
    ttl_s: float


Ask = Callable[[str, Mapping[Host, Want]], Awaitable[dict[Host, Grant]]]
"""`Broker.lease`, wherever it runs. An exception means that it did not answer."""


@dataclass(slots=True, eq=False)
class _Lease:
    want: Want
    expires: float
    slots: int = 0
    in_line_since: float = 0.0
    """The longer in line, the earlier it is given a slot that is left over."""
    ahead_since: float | None = None
    """Since when it has had one more than its equal share."""
    served: int = 0
    """Requests that it was allowed to begin; a newcomer is counted as the one with the most."""

    held: int = 0
    """Slots that nobody else may have: those granted, or more where it has yet to give way."""


@dataclass(slots=True)
class _Shared:
    """A host, and who holds it."""

    tokens: float
    filled: float
    leases: dict[str, _Lease] = field(default_factory=dict)
    expires: float = math.inf
    """When the first of them may expire; looking at each of a hundred at every call would take most of the time."""


class Broker:
    """Shares the slots and the rate of every host among those who ask.

    Args:
        per_host: requests open at a host at once.
        rate_per_host: requests per second to begin, or None without a limit. The bucket holds one second's and one.
        clock: seconds that never go back.
    """

    def __init__(
        self, per_host: int, rate_per_host: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_host = per_host
        self._rate = rate_per_host
        self._clock = clock
        self._hosts: dict[Host, _Shared] = {}
        self._swept = clock()

    def lease(self, holder: str, wants: Mapping[Host, Want]) -> dict[Host, Grant]:
        """Begin, renew, change or give back the leases of one holder; hosts that it leaves out stay as they are."""
        now = self._clock()
        if now - self._swept > TTL_S:
            self._swept = now
            for host in list(self._hosts):
                self._tidy(host, now)
        return {host: self._lease(host, holder, want, now) for host, want in wants.items()}

    @property
    def remembered(self) -> int:
        """Hosts that are remembered."""
        return len(self._hosts)

    def _lease(self, host: Host, holder: str, want: Want, now: float) -> Grant:
        shared = self._hosts.get(host)
        if shared is None:
            shared = self._hosts[host] = _Shared(tokens=max(self._rate or 0.0, 1.0), filled=now)
        self._refill(shared, now)
        lease = shared.leases.get(holder)
        if want.slots <= 0:
            shared.leases.pop(holder, None)
            self._tidy(host, now)
            return Grant(slots=0, starts=None if self._rate is None else 0, ttl_s=TTL_S)
        if lease is None:
            served = max((one.served for one in shared.leases.values()), default=0)
            lease = shared.leases[holder] = _Lease(want, now + TTL_S, in_line_since=now, served=served)
        lease.want, lease.expires = want, now + TTL_S
        shared.expires = min(shared.expires, lease.expires)
        self._expire(shared, now)
        lease.slots = self._slots(shared, lease, now)
        lease.held = max(lease.slots, want.in_use)
        return Grant(slots=lease.slots, starts=self._starts(shared, lease), ttl_s=TTL_S)

    def _slots(self, shared: _Shared, lease: _Lease, now: float) -> int:
        everyone = shared.leases.values()
        level, over = level_of([one.want.slots for one in everyone], self._per_host)
        if lease.slots > level and lease.ahead_since is not None and now - lease.ahead_since >= TURN_S:
            lease.in_line_since, lease.ahead_since = now, None  # to the end of the line
        free = self._per_host - sum(one.held for one in everyone) + lease.held
        slots = max(min(lease.want.slots, level + 1, free), 0)
        if slots > level and not _is_ahead(lease, [one for one in everyone if one.want.slots > level], over):
            slots = level
        if slots <= level:
            lease.ahead_since = None
        elif lease.ahead_since is None:
            lease.ahead_since = now
        return slots

    def _starts(self, shared: _Shared, lease: _Lease) -> int | None:
        if self._rate is None:
            return None
        thirsty = [one for one in shared.leases.values() if one is not lease and one.want.starts]
        starts = min(int(shared.tokens), lease.want.starts)
        if thirsty:
            starts = _part_of(lease, thirsty, int(shared.tokens))
        shared.tokens -= starts
        lease.served += starts
        lease.want = replace(lease.want, starts=lease.want.starts - starts)
        return starts

    def _refill(self, shared: _Shared, now: float) -> None:
        """Token bucket: Turner, "New directions in communications", IEEE Communications Magazine 24 (1986)."""
        if self._rate is not None:
            shared.tokens = min(shared.tokens + self._rate * (now - shared.filled), self._rate + 1)
            shared.filled = now

    def _expire(self, shared: _Shared, now: float) -> None:
        if shared.expires < now:
            shared.leases = {name: lease for name, lease in shared.leases.items() if lease.expires >= now}
            shared.expires = min((lease.expires for lease in shared.leases.values()), default=math.inf)

    def _tidy(self, host: Host, now: float) -> None:
        """Forget a host that nobody holds, once a new bucket for it would be no fuller than its own."""
        shared = self._hosts[host]
        self._expire(shared, now)
        self._refill(shared, now)
        if not shared.leases and (self._rate is None or shared.tokens >= max(self._rate, 1.0)):
            del self._hosts[host]


def _is_ahead(lease: _Lease, others: Sequence[_Lease], places: int) -> bool:
    """Whether one is among the first in line."""
    return sum(one.in_line_since < lease.in_line_since for one in others) < places


def _part_of(lease: _Lease, others: Sequence[_Lease], tokens: int) -> int:
    """What one gets if each token goes to the one who has had the fewest; those of the others are left for them."""
    line = [(one.served, i, one.want.starts) for i, one in enumerate((*others, lease))]
    heapq.heapify(line)
    mine = 0
    for _ in range(tokens):
        if not line:
            break
        served, i, want = line[0]
        mine += i == len(others)
        if want > 1:
            heapq.heapreplace(line, (served + 1, i, want - 1))
        else:
            heapq.heappop(line)
    return min(mine, lease.want.starts)


def level_of(wants: Sequence[int], supply: int) -> tuple[int, int]:
    """Max-min fairness: everyone gets min(want, level), and `over` of those who want more get one more.

    Bertsekas and Gallager, Data Networks, 2nd edition, section 6.5.2.
    """
    if len(wants) == 1:  # the usual case
        return min(wants[0], supply), 0
    left = supply
    for i, want in enumerate(sorted(wants)):
        level, over = divmod(left, len(wants) - i)
        if want > level:
            return level, over
        left -= want
    return max(wants, default=0), 0


def local_ask(per_host: int, rate_per_host: float | None = None) -> Ask:
    """An `ask` that leads to a broker of its own, for a fetcher that is alone."""
    broker = Broker(per_host, rate_per_host)

    async def ask(holder: str, wants: Mapping[Host, Want]) -> dict[Host, Grant]:
        return broker.lease(holder, wants)

    return ask
