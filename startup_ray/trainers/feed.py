"""Which rows a step trains on, and how they get there before they are asked for.

The order of an epoch is one permutation for the global batch, a function of (seed, epoch) alone: step s trains on
rows s*B to (s+1)*B of it, and worker r of W takes r*B//W to (r+1)*B//W of those. No worker count changes it. Where a
step is computed in parts, each part is shared out so, that a part too has the same rows at any number of workers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from startup_ray.trainers.loop import Chunk

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Images uint8 [N, H, W, C] and labels int32 [N], -1 where there is none; a worker's share of each step."""

    images: np.ndarray
    labels: np.ndarray
    global_batch: int
    seed: int
    rank: int
    world: int
    parts: int = 1
    """Of a step, one after the other; they divide the global batch."""
    takes_unlabelled: bool = False

    @property
    def rows(self) -> int:
        """Rows of this worker in a step."""
        return len(places_of(self.global_batch, self.rank, self.world, self.parts))

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches; the tail of the permutation is dropped."""
        return len(self._taken()) // self.global_batch

    def batches(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
        """Each chunk with its images uint8 [count, rows, H, W, C] and labels int32 [count, rows]."""
        taken = self._taken()
        mine = places_of(self.global_batch, self.rank, self.world, self.parts)
        epoch, order = -1, taken
        for chunk in chunks:
            if chunk.epoch != epoch:
                epoch, order = chunk.epoch, taken[epoch_order(self.seed, chunk.epoch, len(taken))]
            first = chunk.first - chunk.epoch * self.steps_per_epoch
            wanted = order[first * self.global_batch : (first + chunk.count) * self.global_batch]
            places = wanted.reshape(chunk.count, self.global_batch)[:, mine]
            yield chunk, self.images[places], self.labels[places]

    def _taken(self) -> np.ndarray:
        """Places of the rows that are trained on."""
        return np.arange(len(self.labels)) if self.takes_unlabelled else np.flatnonzero(self.labels >= 0)


def share(rows: int, rank: int, world: int) -> tuple[int, int]:
    """Where worker `rank` of `world` begins and ends in a batch: shares differ by one row at most."""
    return rank * rows // world, (rank + 1) * rows // world


def places_of(global_batch: int, rank: int, world: int, parts: int = 1) -> np.ndarray:
    """int64 [rows]: a worker's places in a global batch, part by part."""
    size = global_batch // parts
    low, high = share(size, rank, world)
    return np.concatenate([np.arange(low, high) + part * size for part in range(parts)])


def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """Permutation int64 [rows], the same on every worker and in every attempt."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The same items, prepared in a thread while the caller works on earlier ones; at most `depth` wait."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    is_closed = threading.Event()

    def fill() -> None:
        failure: BaseException | None = None
        try:
            for item in items:
                if not _put(ready, (item, None), is_closed):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure = error
        _put(ready, (None, failure or StopIteration()), is_closed)

    thread = threading.Thread(target=fill, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            item, failure = ready.get()
            if isinstance(failure, StopIteration):
                return
            if failure is not None:
                raise failure
            yield item  # type: ignore[misc]
    finally:
        is_closed.set()
        thread.join()
        if isinstance(items, Generator):  # what is left of it is not wanted any more
            items.close()


def _put(ready: queue.Queue[T], item: T, is_closed: threading.Event) -> bool:
    while not is_closed.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
