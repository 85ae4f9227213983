from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from startup_ray.ingest.shares import TTL_S, TURN_S, Broker, Want, level_of
from tests.fakes import Clock

HOST, OTHER = ("e.com", 80), ("f.com", 80)


def ask(broker: Broker, holder: str, slots: int, in_use: int = 0, starts: int = 0) -> int:
    return broker.lease(holder, {HOST: Want(slots=slots, in_use=in_use, starts=starts)})[HOST].slots


def begin(broker: Broker, holder: str, starts: int) -> int:
    granted = broker.lease(holder, {HOST: Want(slots=starts, starts=starts)})[HOST].starts
    assert granted is not None
    return granted


def test_one_holder_gets_what_there_is_and_no_more_than_it_wants() -> None:
    broker = Broker(8, clock=Clock())
    assert [ask(broker, "a", slots) for slots in (3, 20, 1)] == [3, 8, 1]


def test_shares_become_equal() -> None:
    clock = Clock()
    broker = Broker(8, clock=clock)
    assert ask(broker, "a", 20) == 8
    assert ask(broker, "b", 20) == 0
    assert ask(broker, "a", 20, in_use=8) == 4  # gives way, when its requests have ended
    assert ask(broker, "b", 20) == 0
    assert ask(broker, "a", 20, in_use=4) == 4
    assert ask(broker, "b", 20) == 4
    assert ask(broker, "a", 1, in_use=1) == 1  # what one does not want is for the others
    assert ask(broker, "b", 20, in_use=4) == 7


def test_what_is_given_back_is_free_at_once() -> None:
    broker = Broker(2, clock=Clock())
    ask(broker, "a", 2)
    assert ask(broker, "a", 0) == 0
    assert ask(broker, "b", 2) == 2


def test_the_slots_of_the_dead_come_back() -> None:
    clock = Clock()
    broker = Broker(2, clock=clock)
    ask(broker, "dead", 2)
    clock.now += TTL_S
    assert ask(broker, "b", 2) == 0
    clock.now += 0.1
    assert ask(broker, "b", 2) == 2


@pytest.mark.parametrize(("per_host", "holders"), [(2, 10), (8, 3), (1, 2)])
def test_nobody_starves(per_host: int, holders: int) -> None:
    """Renewals every second for some minutes; who is told to give way has nothing open a second later."""
    clock, had = Clock(), Counter[str]()
    broker = Broker(per_host, clock=clock)
    open_at = dict.fromkeys(map(str, range(holders)), 0)
    for _ in range(300):
        for holder in open_at:
            open_at[holder] = ask(broker, holder, 50, in_use=open_at[holder])
            had[holder] += open_at[holder]
            clock.now += 1 / holders
    equal = 300 * per_host / holders
    assert had.total() > 0.7 * 300 * per_host
    assert all(0.6 * equal < had[holder] < 1.4 * equal for holder in open_at)


@given(
    per_host=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.sampled_from([0.0, 1.0, TURN_S])), max_size=60
    ),
)
def test_what_all_hold_is_never_above_the_limit(per_host: int, steps: list[tuple[str, int, float]]) -> None:
    """Holders keep their own law: no more open than granted, and no more than reported while they ask."""
    clock = Clock()
    broker = Broker(per_host, clock=clock)
    slots, heard = Counter[str](), dict.fromkeys("abcd", clock.now)
    for holder, number, pause_s in steps:
        clock.now += pause_s
        for one in "abcd":
            if clock.now - heard[one] > TTL_S:
                slots[one] = 0
        in_use = min(number, slots[holder])
        heard[holder] = clock.now
        slots[holder] = max(ask(broker, holder, number, in_use=in_use), in_use)
        assert slots.total() <= per_host


@settings(max_examples=50)
@given(
    rate=st.sampled_from([0.3, 1.0, 7.5]),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.floats(0, 3)), max_size=60),
)
def test_no_more_begins_than_the_rate_allows(rate: float, steps: list[tuple[str, int, float]]) -> None:
    clock = Clock()
    broker = Broker(4, rate, clock)
    first, granted = clock.now, 0
    for holder, starts, pause_s in steps:
        clock.now += pause_s
        granted += begin(broker, holder, starts)
        assert granted <= rate * (clock.now - first) + rate + 1 + 1e-6


def test_the_rate_is_used_and_shared() -> None:
    clock, had = Clock(), Counter[str]()
    broker = Broker(50, 3.0, clock)
    for _ in range(100):
        clock.now += 0.5
        for holder in "ab":
            had[holder] += begin(broker, holder, 40)
            clock.now += 0.25
    assert had.total() == pytest.approx(300, abs=6)
    assert had["a"] == pytest.approx(had["b"], abs=6)


def test_hosts_are_forgotten() -> None:
    clock = Clock()
    broker = Broker(1, clock=clock)
    for number in range(1000):
        broker.lease("a", {(f"{number}.com", 80): Want(slots=1)})
    broker.lease("a", {("1.com", 80): Want(slots=0)})
    assert broker.remembered == 999
    clock.now += TTL_S + 1
    broker.lease("a", {HOST: Want(slots=1)})
    assert broker.remembered == 1


def test_an_empty_bucket_is_not_forgotten() -> None:
    """Else giving a host back and asking again would be a way round the rate."""
    clock = Clock()
    broker = Broker(1, 2.0, clock)
    assert begin(broker, "a", 5) == 2
    begin(broker, "a", 0)
    assert begin(broker, "a", 5) == 0
    begin(broker, "a", 0)
    clock.now += TTL_S + 1
    broker.lease("a", {OTHER: Want(slots=0)})
    assert broker.remembered == 0


@given(wants=st.lists(st.integers(0, 30), min_size=1, max_size=8), supply=st.integers(0, 40))
def test_max_min_fairness(wants: list[int], supply: int) -> None:
    level, over = level_of(wants, supply)
    given = sum(min(want, level) for want in wants) + over
    assert given == min(sum(wants), supply)
    assert over <= sum(want > level for want in wants)
