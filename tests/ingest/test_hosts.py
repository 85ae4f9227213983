from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from startup_ray.errors import ClusterError
from startup_ray.ingest.breaker import Breaker
from startup_ray.ingest.faults import Fault
from startup_ray.ingest.hosts import HostGivenUpError, HostLimits
from startup_ray.ingest.shares import TTL_S, Broker, Grant, Host, Want, local_ask
from tests.fakes import Clock

A, B = ("a.com", 80), ("b.com", 443)
DOWN = Fault("refused", "Connection refused")


class Watched:
    """An `ask` to a broker that may go silent; counts calls."""

    def __init__(self, per_host: int = 2, rate: float | None = None) -> None:
        self.broker = Broker(per_host, rate)
        self.calls: list[Mapping[Host, Want]] = []
        self.is_silent = False

    async def __call__(self, holder: str, wants: Mapping[Host, Want]) -> dict[Host, Grant]:
        self.calls.append(wants)
        await asyncio.sleep(0.001)
        if self.is_silent:
            raise ConnectionError("the broker is gone")
        return self.broker.lease(holder, wants)


class Open:
    """How many turns are taken at once, over several clients."""

    def __init__(self) -> None:
        self.now, self.most, self.ended = Counter[Host](), Counter[Host](), Counter[Host]()

    async def one(self, limits: HostLimits, host: Host, for_s: float = 0.002) -> None:
        async with limits.turn(host) as turn:
            self.now[host] += 1
            self.most[host] = max(self.most[host], self.now[host])
            await asyncio.sleep(for_s)
            self.now[host] -= 1
            turn.tell(None)
        self.ended[host] += 1


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - what is waited for raises no event
        await asyncio.sleep(0.002)


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(10):
            return await test()

    return asyncio.run(in_time())


def test_clients_share_a_host_and_ask_for_many_hosts_at_once() -> None:
    ask, turns = Watched(per_host=3), Open()

    async def test() -> None:
        clients = [HostLimits(ask, renew_s=0.02) for _ in range(3)]
        hosts = [(f"{number}.com", 80) for number in range(100)]
        work = [turns.one(client, A) for client in clients for _ in range(50)]
        work += [turns.one(clients[0], host) for host in hosts]
        await asyncio.gather(*work)
        assert turns.most[A] == 3
        assert turns.ended.total() == 250
        assert len(ask.calls) < 100
        assert max(map(len, ask.calls)) == 101
        for client in clients:
            await client.close()
        assert ask.broker.remembered == 0

    run(test)


def test_no_more_is_held_than_can_be_used() -> None:
    """A chunk may name a thousand hosts: what lies idle here is missed by others."""
    ask, turns, most = Watched(per_host=3), Open(), 0

    async def test() -> None:
        nonlocal most
        limits, room = HostLimits(ask, renew_s=0.02, max_open=5), asyncio.Semaphore(5)

        async def one(host: Host) -> None:
            nonlocal most
            async with limits.turn(host) as turn:
                turns.now["all", 0] += 1
                most = max(most, turns.now.total())
                async with room:
                    await asyncio.sleep(0.002)
                turns.now["all", 0] -= 1
                turn.tell(None)

        await asyncio.gather(*(one((f"{number}.com", 80)) for number in range(150)), *(one(A) for _ in range(50)))
        await limits.close()

    run(test)
    assert 5 <= most <= 13
    assert len(ask.calls) < 100


def test_what_is_not_used_is_given_back() -> None:
    async def test() -> None:
        ask = Watched()
        limits = HostLimits(ask, renew_s=0.02)
        await Open().one(limits, A)
        await until(lambda: not limits.remembered and not ask.broker.remembered)
        calls = len(ask.calls)
        await asyncio.sleep(0.1)
        assert len(ask.calls) == calls  # nobody asks while nothing is held
        await Open().one(limits, A)
        await limits.close()

    run(test)


def test_a_full_host_holds_up_nobody_else() -> None:
    async def test() -> None:
        limits, turns = HostLimits(local_ask(1)), Open()
        async with limits.turn(A):
            waiting = asyncio.create_task(turns.one(limits, A))
            await asyncio.gather(*(turns.one(limits, B) for _ in range(5)))
            assert not waiting.done()
        await waiting
        await limits.close()

    run(test)


def test_a_silent_broker_leaves_what_was_granted_until_it_expires() -> None:
    async def test() -> None:
        clock = Clock()
        ask, turns = Watched(), Open()
        limits = HostLimits(ask, renew_s=0.01, clock=clock)
        async with limits.turn(A), limits.turn(A):  # both slots are granted
            pass
        ask.is_silent = True
        await turns.one(limits, A)
        assert turns.ended[A] == 1
        clock.now += TTL_S
        late = asyncio.create_task(turns.one(limits, A))
        await asyncio.sleep(0.05)
        assert turns.ended[A] == 1
        ask.is_silent = False
        clock.now += 1
        await late
        await limits.close()

    run(test)


def test_a_broker_that_stays_silent_is_a_fault_of_the_cluster() -> None:
    async def test() -> None:
        ask = Watched()
        ask.is_silent = True
        limits = HostLimits(ask, renew_s=0.01, silence_s=0.05)
        with pytest.raises(ClusterError, match="the broker is gone"):
            await Open().one(limits, A)
        await limits.close()

    run(test)


def test_a_new_broker_learns_what_is_in_use() -> None:
    async def test() -> None:
        ask, turns = Watched(per_host=2), Open()
        one, other = HostLimits(ask, renew_s=0.01), HostLimits(ask, renew_s=0.01)
        async with one.turn(A), one.turn(A):
            ask.broker = Broker(2)
            more = asyncio.create_task(turns.one(one, A))  # makes the first client ask again
            await asyncio.sleep(0.03)
            late = asyncio.create_task(turns.one(other, A))
            await asyncio.sleep(0.03)
            assert turns.ended[A] == 0
        await asyncio.gather(more, late)
        for client in (one, other):
            await client.close()

    run(test)


def test_nothing_begins_beyond_the_report_while_a_call_is_under_way() -> None:
    """The broker may give to another what was reported as unused."""

    async def test() -> None:
        gate, ask = asyncio.Event(), Watched(per_host=3)

        async def slow(holder: str, wants: Mapping[Host, Want]) -> dict[Host, Grant]:
            if ask.calls:
                await gate.wait()
            return await ask(holder, wants)

        limits, turns = HostLimits(slow, renew_s=0.01), Open()
        await asyncio.gather(*(turns.one(limits, A) for _ in range(3)))
        await asyncio.sleep(0.05)  # it is giving the host back
        late = asyncio.create_task(turns.one(limits, A))
        await asyncio.sleep(0.02)
        assert turns.ended[A] == 3
        gate.set()
        await late
        await limits.close()

    run(test)


def test_starts_keep_to_the_rate() -> None:
    async def test() -> None:
        limits, turns = HostLimits(Watched(100, 100.0), renew_s=0.02), Open()
        began = time.monotonic()
        await asyncio.gather(*(turns.one(limits, A) for _ in range(140)))
        assert time.monotonic() - began > 0.37  # 100 at once, then 100 a second
        await limits.close()

    run(test)


def test_a_cancelled_wait_takes_nothing() -> None:
    async def test() -> None:
        limits, turns = HostLimits(local_ask(1)), Open()
        async with limits.turn(A):
            waits = [asyncio.create_task(turns.one(limits, A)) for _ in range(3)]
            await asyncio.sleep(0.01)
            waits[0].cancel()
        waits[1].cancel()  # it has just been let in
        await asyncio.gather(*waits, return_exceptions=True)
        assert [wait.cancelled() for wait in waits] == [True, True, False]
        await turns.one(limits, A)
        await limits.close()

    run(test)


async def fail(limits: HostLimits, host: Host) -> None:
    async with limits.turn(host) as turn:
        turn.tell(DOWN)


def test_an_ill_host_is_left_alone_then_probed_then_given_up() -> None:
    async def test() -> None:
        breaker = Breaker(opens_after=3, pause_s=0.01)
        limits, turns = HostLimits(local_ask(8), breaker), Open()
        for _ in range(3):
            await fail(limits, A)
        assert breaker.wait_s(A) > 0
        await turns.one(limits, B)
        found = await asyncio.gather(*(fail(limits, A) for _ in range(50)), return_exceptions=True)
        assert found[:4] == [None] * 4  # the probes, one after another
        assert {type(one) for one in found[4:]} == {HostGivenUpError}
        (reason,) = {str(one) for one in found[4:]}
        assert reason == "host given up after 7 failures in a row: refused Connection refused"
        with pytest.raises(HostGivenUpError):
            await turns.one(limits, A)
        await limits.close()

    run(test)


def test_a_probe_that_succeeds_lets_everybody_in() -> None:
    async def test() -> None:
        breaker = Breaker(opens_after=2, pause_s=0.02)
        limits, turns = HostLimits(local_ask(8), breaker), Open()
        await asyncio.gather(*(fail(limits, A) for _ in range(2)))
        work = [asyncio.create_task(turns.one(limits, A, 0.01)) for _ in range(8)]
        await until(lambda: turns.now[A] > 0)
        assert turns.now[A] == 1
        await asyncio.gather(*work)
        assert turns.most[A] > 4
        assert breaker.remembered == 0
        await limits.close()

    run(test)
