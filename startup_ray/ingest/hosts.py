"""Turns at hosts: one event loop's share of what the whole cluster may do to each host.

    limits = HostLimits(ask)                          # `ask` leads to a Broker, here or in an actor
    async with limits.turn(("example.com", 443)) as turn:
        ...                                           # one request
        turn.tell(fault)                              # or tell(None): the host is well
    await limits.close()

Slots and starts are leased for all hosts together: at once when somebody waits at a host that is new, else every
second or so, never for each request. One call is under way at a time. While the broker does not answer, what was
granted holds until it expires. Somebody who waits for a host that is paused or that has no slot holds up nobody else.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from startup_ray.errors import ClusterError
from startup_ray.ingest.breaker import Breaker
from startup_ray.ingest.faults import Fault
from startup_ray.ingest.places import Place
from startup_ray.ingest.shares import Ask, Grant, Host, Want

RENEW_S = 1.0
"""Between two calls for a host that has less than it wants, or that nobody uses any more."""
GAP_S = 0.01
"""Between any two calls, so that many new hosts become one call."""
SILENCE_S = 60.0
"""A broker that has not answered for so long is a fault of the cluster."""
FEW = 8
"""Slots that a host is likely to grant, however many wait for it."""


class HostGivenUpError(Exception):
    """Nothing is asked of this host any more; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class Turn:
    """One request at a host. Leave it without `tell`, and it says nothing about the host."""

    def __init__(self, limits: HostLimits, host: Host) -> None:
        self._limits = limits
        self._host = host
        self._told = False
        self._fault: Fault | None = None

    def tell(self, fault: Fault | None) -> None:
        """How the request ended: what shows that the host itself is ill, or None."""
        self._told, self._fault = True, fault

    async def __aenter__(self) -> Self:
        self._is_probe = await self._limits.enter(self._host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        breaker = self._limits.breaker
        if not self._told:
            breaker.abandon(self._host, self._is_probe)
        elif self._fault is None:
            breaker.succeed(self._host)
        else:
            breaker.fail(self._host, self._fault, self._is_probe)
        self._limits.leave(self._host)


class HostLimits:
    """Turns at hosts, in one event loop.

    Args:
        ask: `Broker.lease` or what leads to it.
        breaker: keeps away from hosts that only fail.
        max_open: turns that can be used at once; no more hosts are asked for than give about twice as many.
    """

    def __init__(
        self,
        ask: Ask,
        breaker: Breaker | None = None,
        *,
        max_open: float = math.inf,
        renew_s: float = RENEW_S,
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breaker = Breaker() if breaker is None else breaker
        self._ask = ask
        self._max_open = max_open
        self._open = 0
        self._is_short = False
        """Whether there are hosts that were not asked for yet, because enough turns are taken."""
        self._renew_s = renew_s
        self._silence_s = silence_s
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._places: dict[Host, Place] = {}
        self._wake = asyncio.Event()
        self._heard = clock()
        self._renewing: asyncio.Task[None] | None = None

    def turn(self, host: Host) -> Turn:
        """A context that is entered when a request to the host may begin.

        Raises:
            HostGivenUpError: on entering, the host has failed too often.
            ClusterError: on entering, the broker has not answered for a minute.
        """
        return Turn(self, host)

    async def enter(self, host: Host) -> bool:
        """Wait for a turn, in order of arrival; whether it is a probe. For `Turn`."""
        place = self._places.setdefault(host, Place())
        mine: asyncio.Future[bool | Exception] = asyncio.get_running_loop().create_future()
        place.waiting.append(mine)
        self._pump(host, place)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        try:
            answer = await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                with suppress(ValueError):
                    place.waiting.remove(mine)
            elif isinstance(answer := mine.result(), bool):
                self.breaker.abandon(host, answer)
                self.leave(host)
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, host: Host) -> None:
        """Give back a turn. For `Turn`."""
        place = self._places[host]
        gives_way = place.in_use > place.slots
        place.in_use -= 1
        self._open -= 1
        if self._is_short and self._open <= self._max_open:
            self._wake.set()
        if gives_way and place.in_use == place.slots:
            self._ask_now(place)
        if place.in_use == 0:
            place.due = min(place.due, self._clock() + self._renew_s)
        self._pump(host, place)

    async def close(self) -> None:
        """Give everything back."""
        for place in self._places.values():
            if place.timer is not None:
                place.timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
        if self._places:  # else there is nobody to ask, and a broker that has ended would be started anew
            with suppress(Exception):  # the leases expire anyway
                await self._ask(self._holder, dict.fromkeys(self._places, Want(slots=0)))

    @property
    def remembered(self) -> int:
        """Hosts that are remembered."""
        return len(self._places)

    def _ask_now(self, place: Place) -> None:
        place.due = -math.inf
        if not self._is_short or self._open <= self._max_open:
            self._wake.set()

    def _pump(self, host: Host, place: Place) -> None:
        """Let in whoever may begin."""
        while place.waiting:
            if fault := self.breaker.given_up(host):
                place.refuse(partial(HostGivenUpError, fault))
                return
            pause_s = self.breaker.wait_s(host)
            if pause_s > 0:
                if place.timer is None and pause_s < math.inf:  # the end of a probe pumps by itself
                    place.timer = asyncio.get_running_loop().call_later(pause_s, self._pump_again, host, place)
                return
            if not place.may_start(self._clock()):
                if place.may_get_more():
                    self._ask_now(place)
                return
            first = place.waiting.popleft()
            if not first.done():  # a cancelled task has yet to clear up
                place.start()
                self._open += 1
                first.set_result(self.breaker.begin(host))

    def _pump_again(self, host: Host, place: Place) -> None:
        place.timer = None
        self._pump(host, place)

    async def _renew(self) -> None:
        """Ask for what is due, as long as anything is held or waited for."""
        self._heard = self._clock()
        while self._places:
            self._wake.clear()
            sent = self._clock()
            if wants := self._wants(sent):
                try:
                    self._take(wants, await self._ask(self._holder, wants), sent)
                except Exception as error:  # noqa: BLE001 - whatever kept the broker from answering
                    self._bear(error)
                    await asyncio.sleep(self._renew_s)
            await asyncio.sleep(max(GAP_S, self._clock() - sent))  # a broker with much to do is asked less often
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._next_due() - self._clock(), 0.0)):
                    await self._wake.wait()

    def _next_due(self) -> float:
        dues = [place.due for place in self._places.values()]
        if self._is_short and self._open > self._max_open:  # the end of a turn wakes
            dues = [due for due in dues if due > -math.inf]
        return min(dues, default=-math.inf)

    def _wants(self, now: float) -> dict[Host, Want]:
        wants = {}
        budget = 2 * self._max_open - self._open
        self._is_short = False
        for host, place in self._places.items():
            if place.due > now:
                continue
            # One will do for the probe of a host that is paused.
            waiting = min(len(place.waiting), 1) if self.breaker.wait_s(host) else len(place.waiting)
            if waiting and budget <= 0:
                self._is_short = True
                if not place.asked:
                    continue
                waiting = 0
            budget -= min(waiting, FEW)
            wants[host] = place.want(waiting, now, self._renew_s)
        return wants

    def _take(self, wants: Mapping[Host, Want], grants: Mapping[Host, Grant], sent: float) -> None:
        self._heard = self._clock()
        for host in wants:
            place, grant = self._places[host], grants[host]
            place.take(grant, sent)
            self._pump(host, place)
            if not place.asked and not place.waiting and not place.in_use:
                del self._places[host]
            elif place.slots >= place.asked > 0 and place.due > sent and not place.waiting:
                place.due = sent + grant.ttl_s / 3

    def _bear(self, error: Exception) -> None:
        """Go on with what was granted; after a long silence it is a fault of the cluster."""
        if self._clock() - self._heard < self._silence_s:
            return
        told = f"the limits per host cannot be asked for: {error or type(error).__name__}"
        for place in self._places.values():
            place.refuse(partial(ClusterError, told, hint="run the same command again"))
