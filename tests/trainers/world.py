"""Workers of a world without a transport: one that is watched, or threads that wait for each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(kw_only=True)
class Spy:
    """Stands in for `Sync`: keeps what this worker would send and hands it back."""

    rank: int
    world: int
    sent: list[np.ndarray] = field(default_factory=list)

    def sum(self, values: Any) -> Any:
        self.sent.append(values.numpy())
        return values

    def sum_all(self, tensors: Any) -> Any:
        self.sent.append(np.concatenate([tensor.numpy().reshape(-1) for tensor in tensors]))
        return tensors


class Together:
    """Stands in for the transport: workers that are threads, each of which waits for the vectors of all."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._vectors: dict[int, Any] = {}
        self._all_here = threading.Barrier(world, timeout=60)

    def sum(self, rank: int, values: Any) -> Any:
        self._vectors[rank] = values
        self._all_here.wait()
        total = sum(self._vectors[other] for other in range(1, self.world)) + self._vectors[0]
        self._all_here.wait()
        return total


@dataclass(frozen=True)
class Member:
    """Stands in for `Sync` in one of the threads."""

    rank: int
    together: Together

    @property
    def world(self) -> int:
        return self.together.world

    def sum(self, values: Any) -> Any:
        return self.together.sum(self.rank, values)

    def sum_all(self, tensors: Any) -> Any:
        return [self.sum(tensor) for tensor in tensors]
