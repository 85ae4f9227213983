from __future__ import annotations

import logging
import math

import pytest

from startup_ray.ingest import breaker as module
from startup_ray.ingest.breaker import OPENS_AFTER, PROBES, REVIVE_S, Breaker
from startup_ray.ingest.faults import Fault, is_host_ill
from tests.fakes import Clock

A, B = ("a.com", 80), ("b.com", 443)
DOWN = Fault("dns", "no such name")


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock=clock, uniform=lambda _, high: high)
    for _ in range(OPENS_AFTER):
        assert breaker.wait_s(A) == 0
        assert not breaker.begin(A)
        breaker.fail(A, DOWN, False)
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(clock=Clock())
    for _ in range(3):
        for _ in range(OPENS_AFTER - 1):
            breaker.fail(A, DOWN, breaker.begin(A))
        breaker.succeed(A)
    assert breaker.wait_s(A) == 0
    assert opened(Clock()).wait_s(A) > 0
    assert opened(Clock()).wait_s(B) == 0


def test_pauses_double_and_are_jittered() -> None:
    clock, pauses = Clock(), list[float]()
    breaker = opened(clock)
    for _ in range(PROBES):
        pauses.append(breaker.wait_s(A))
        assert breaker.given_up(A) is None
        clock.now += pauses[-1]
        assert breaker.wait_s(A) == 0
        is_probe = breaker.begin(A)
        assert is_probe
        assert breaker.wait_s(A) == math.inf  # one at a time
        breaker.fail(A, DOWN, is_probe)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    one = Breaker(opens_after=1, clock=clock, uniform=lambda low, _: low)
    one.fail(A, DOWN, one.begin(A))
    assert one.wait_s(A) == 0.5


def given_up(clock: Clock) -> Breaker:
    breaker = opened(clock)
    for _ in range(PROBES):
        clock.now += breaker.wait_s(A)
        breaker.fail(A, DOWN, breaker.begin(A))
    return breaker


def test_a_host_is_given_up_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.WARNING, "startup_ray"):
        breaker = given_up(clock)
        for _ in range(3):  # hours later it is no better
            clock.now += REVIVE_S
            assert breaker.given_up(A) is None
            breaker.fail(A, DOWN, breaker.begin(A))
    assert breaker.given_up(A) == Fault("dns", "host given up after 27 failures in a row: dns no such name")
    assert [record.getMessage() for record in caplog.records] == ["host given up after 24 failures in a row: a.com:80"]


def test_one_probe_a_minute_may_bring_it_back() -> None:
    clock = Clock()
    breaker = given_up(clock)
    clock.now += REVIVE_S - 1
    assert breaker.given_up(A)
    clock.now += 1
    assert breaker.given_up(A) is None
    assert breaker.begin(A)
    assert breaker.given_up(A)  # for everybody else
    breaker.succeed(A)
    assert breaker.given_up(A) is None
    assert breaker.wait_s(A) == 0
    assert breaker.remembered == 0


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    breaker.abandon(A, breaker.begin(A))
    assert breaker.begin(A)


def test_a_straggler_is_no_probe() -> None:
    breaker = opened(Clock())
    for _ in range(9):
        breaker.fail(A, DOWN, False)
    assert breaker.wait_s(A) == 1.0
    assert breaker.given_up(A) is None


def test_memory_is_bounded() -> None:
    breaker = Breaker(clock=Clock())
    for number in range(module.MAX_HOSTS + 50):
        breaker.fail((f"{number}.com", 80), DOWN, False)
    assert breaker.remembered == module.MAX_HOSTS


@pytest.mark.parametrize(
    "status", ["timeout", "refused", "reset", "tls", "dns", "http_502", "http_503", "http_504", "http_429"]
)
def test_what_says_that_a_host_is_ill(status: str) -> None:
    assert is_host_ill(status)


@pytest.mark.parametrize(
    "status", ["ok", "http_404", "http_403", "http_500", "too_large", "truncated", "blocked_address"]
)
def test_what_says_nothing_of_the_host(status: str) -> None:
    assert not is_host_ill(status)
