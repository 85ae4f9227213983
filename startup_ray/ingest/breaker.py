"""A circuit breaker per host: one that only fails is left alone for a while, and then given up.

Closed, everything passes. After OPENS_AFTER failures in a row it opens: nobody is let through for a pause, then one
request as a probe, then nobody for twice as long, and so on. A success closes it. After PROBES failed probes the
host is given up: whoever wants something of it is told why, but for one probe every REVIVE_S.
(Nygard, Release It!, 2nd edition, chapter 5.) Plain and synchronous; the waiting is done in `hosts.py`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from startup_ray.ingest.faults import Fault
from startup_ray.ingest.shares import Host

OPENS_AFTER = 20
PROBES = 4
PAUSE_S = 1.0
PAUSE_CAP_S = 30.0
REVIVE_S = 60.0
MAX_HOSTS = 10_000
"""Hosts with failures that are remembered; the one that failed first is forgotten first."""

logger = logging.getLogger("startup_ray")


@dataclass(slots=True)
class _Record:
    """Failures of a host since its last success."""

    fault: Fault
    failures: int = 0
    failed_probes: int = 0
    closed_until: float | None = None
    """No probe before; None while requests still pass."""
    probing: bool = False


class Breaker:
    """Judges hosts by how their last requests ended.

    Args:
        opens_after: failures in a row.
        pause_s: before the first probe; it doubles with each, up to PAUSE_CAP_S.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        opens_after: int = OPENS_AFTER,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._opens_after = opens_after
        self._pause_s = pause_s
        self._clock = clock
        self._uniform = uniform
        self._records: dict[Host, _Record] = {}

    def wait_s(self, host: Host) -> float:
        """Seconds until the next request may begin: 0 at once, infinite while a probe is under way."""
        record = self._records.get(host)
        if record is None or record.closed_until is None:
            return 0.0
        return math.inf if record.probing else max(record.closed_until - self._clock(), 0.0)

    def given_up(self, host: Host) -> Fault | None:
        """What to say of a host that is given up; None of any other, and when a probe of it is due."""
        record = self._records.get(host)
        if record is None or record.failed_probes < PROBES or self.wait_s(host) == 0.0:
            return None
        told = f"host given up after {record.failures} failures in a row: {record.fault.status} {record.fault.reason}"
        return Fault(record.fault.status, told)

    def begin(self, host: Host) -> bool:
        """Note that a request begins; whether it is a probe."""
        record = self._records.get(host)
        if record is None or record.closed_until is None:
            return False
        record.probing = True
        return True

    def succeed(self, host: Host) -> None:
        """Note that the host has answered as a host does that is well."""
        self._records.pop(host, None)

    def fail(self, host: Host, fault: Fault, is_probe: bool) -> None:
        """Note that a request has failed in a way that says that the host is ill."""
        record = self._records.get(host)
        if record is None:
            record = self._records[host] = _Record(fault)
            if len(self._records) > MAX_HOSTS:
                del self._records[next(iter(self._records))]
        record.fault = fault
        record.failures += 1
        if is_probe:
            record.probing = False
            record.failed_probes += 1
            self._close(host, record)
        elif record.closed_until is None and record.failures >= self._opens_after:
            self._close(host, record)

    def abandon(self, host: Host, is_probe: bool) -> None:
        """Note that a request has ended without saying anything about the host."""
        record = self._records.get(host)
        if record is not None and is_probe:
            record.probing = False

    @property
    def remembered(self) -> int:
        """Hosts with failures that are remembered."""
        return len(self._records)

    def _close(self, host: Host, record: _Record) -> None:
        if record.failed_probes < PROBES:
            pause_s = min(self._pause_s * 2.0**record.failed_probes, PAUSE_CAP_S)
            pause_s = self._uniform(pause_s / 2, pause_s)  # else every actor would probe at the same moment
        else:
            pause_s = REVIVE_S
        if record.failed_probes == PROBES:
            name, port = host
            logger.warning("host given up after %d failures in a row: %s:%d", record.failures, name, port)
        record.closed_until = self._clock() + pause_s
