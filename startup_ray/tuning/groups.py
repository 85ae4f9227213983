"""Placement groups of nested trials: those of a trial whose process was killed are removed by us.

Ray Train gives its workers a placement group, which Ray keeps until the whole job ends if the actors that made it are
killed; Train's own cleaner asks the dashboard, which may be off. Without its CPUs the next trial never starts. The
group has no name that we could give it, so a trial's workers ask for a number of bytes that nobody else asks for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from startup_ray.remote import KILL_S

LEAST_BYTES = 2**20


class Groups:
    """Use it from one thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = LEAST_BYTES + secrets.randbelow(2**30)
        self._marks: dict[int, int] = {}
        self._ended: dict[int, float] = {}

    def mark(self, number: int) -> int:
        """Bytes of memory for each worker of this attempt of a trial."""
        self._next += 1
        self._marks[number] = self._next
        self._ended.pop(number, None)
        return self._next

    def end(self, number: int) -> None:
        """Its process has been told to stop, and lets its workers go by itself."""
        self._ended[number] = self._clock()

    def lose(self, number: int) -> None:
        """Its process has died."""
        self._remove({self._marks.pop(number, 0)})
        self._ended.pop(number, None)

    def reap(self, after_s: float = KILL_S) -> None:
        """Remove what trials that ended so long ago still have."""
        late = [number for number, at in self._ended.items() if self._clock() - at >= after_s]
        self._remove({self._marks.pop(number, 0) for number in late})
        for number in late:
            del self._ended[number]

    def _remove(self, marks: set[int]) -> None:
        for key, group in placement_group_table().items() if marks - {0} else ():
            asked = {int(bundle.get("memory", 0)) for bundle in group["bundles"].values()}
            if group["state"] != "REMOVED" and asked & marks:
                remove_placement_group(PlacementGroup(_id(key)))


def _id(key: str) -> Any:
    from ray._raylet import PlacementGroupID

    return PlacementGroupID(bytes.fromhex(key))
