"""How far one process may run ahead of another on the same host.

    with Pace.begin() as pace:              # the one who takes; a producer is handed `pace.path`
        pace.take()
    Pace.join(path).await_turn(12, ahead=8)   # the one who makes: returns when number 12 is wanted

Ray Data has limits of its own, but while one of them holds back what is ready, its scheduler turns without a pause and
takes a whole CPU from the training it works for (Ray 2.60). A counter is no state: a producer that is killed and
started again waits for the same.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

POLL_S = 0.01


@dataclass(frozen=True)
class Pace:
    """A count in a file that both map into memory."""

    path: str
    taken: NDArray[np.int64]

    @classmethod
    @contextmanager
    def begin(cls) -> Iterator[Self]:
        """A count of zero, whose file is gone after the block."""
        handle, path = tempfile.mkstemp(prefix="startup-ray-pace-")
        try:
            os.write(handle, bytes(8))
            os.close(handle)
            yield cls.join(path)
        finally:
            os.unlink(path)

    @classmethod
    def join(cls, path: str) -> Self:
        return cls(path, np.memmap(path, np.int64, "r+", shape=(1,)))

    def take(self) -> None:
        """Count one more as taken."""
        self.taken[0] += 1

    def await_turn(self, number: int, *, ahead: int) -> None:
        """Wait until no more than `ahead` of those before `number`, and itself, are not taken."""
        while number >= self.taken[0] + ahead:
            time.sleep(POLL_S)
