"""Which rows a step trains on when they come as a stream, in windows, and which feed a dataset asks for.

    order = Order(groups=groups, global_batch=64, seed=7, window_rows=40_000)
    for window in order.windows(epoch=0, first=120):        # from the window that holds step 120 on
        cut = order.cut(window, positions)                  # what the worker at these places of each batch reads

Law: the order of an epoch is a function of (seed, epoch, row groups, window_rows) alone. Row groups are permuted, their
labelled rows stand one after the other, and rows are shuffled inside windows of equal length. Step s trains on rows
s*B to (s+1)*B of that, and no worker count changes it; the tail of fewer than B rows is dropped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from startup_ray.dataset import Dataset

GROUPS, ROWS = 0, 1
"""What is permuted, so that no two permutations draw the same."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A row group of a shard."""

    shard: str
    """File in `images/`."""
    index: int
    """Number in the file."""
    rows: int
    """Labelled rows of the split."""
    stored_bytes: int
    """Of their images, encoded: their share of what the group's images take."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Steps `first` to `first + steps - 1` of an epoch, counted from its beginning, and the rows they draw from."""

    epoch: int
    index: int
    first: int
    steps: int
    start: int
    """Where its rows begin in the epoch's row groups, joined."""
    rows: int
    """steps * global_batch, and in the last window the tail as well."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one worker reads of one row group for a window."""

    group: Group
    rows: NDArray[np.int64]
    """Places among the labelled rows of the group, in rising order."""
    places: NDArray[np.int64]
    """Where they go in the worker's rows of the window, step after step."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of all epochs."""

    groups: tuple[Group, ...]
    global_batch: int
    seed: int
    window_rows: int
    """Most rows that are shuffled together, one global batch at least."""

    @cached_property
    def rows(self) -> int:
        """Labelled rows of the split."""
        return sum(group.rows for group in self.groups)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches."""
        return self.rows // self.global_batch

    def windows(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """The windows of an epoch, from the one that holds its step `first` on."""
        steps, most = self.steps_per_epoch, max(self.window_rows // self.global_batch, 1)
        count = -(-steps // most)
        ends = (
            [i * steps // count for i in range(count + 1)] if count else []
        )  # of equal length: a short one mixes little
        for index in range(bisect_right(ends, first) - 1, count):
            start, stop = ends[index] * self.global_batch, ends[index + 1] * self.global_batch
            yield Window(
                epoch=epoch,
                index=index,
                first=ends[index],
                steps=ends[index + 1] - ends[index],
                start=start,
                rows=(self.rows if index == count - 1 else stop) - start,
            )

    def cut(self, window: Window, positions: NDArray[np.int64], skip: int = 0) -> list[Cut]:
        """What a worker reads for a window, without its first `skip` steps.

        Args:
            positions: int64 [rows], the worker's places in every global batch.
        """
        order = _random(self.seed, window.epoch, ROWS, window.index).permutation(window.rows)
        batches = order[: window.steps * self.global_batch].reshape(window.steps, self.global_batch)
        wanted = window.start + batches[skip:, positions].reshape(-1)
        by_row = np.argsort(wanted)
        wanted = wanted[by_row]
        groups = self._permuted(window.epoch)
        ends = list(accumulate((group.rows for group in groups), initial=0))
        cuts = []
        for i in range(bisect_right(ends, window.start) - 1, len(groups)):
            low, high = np.searchsorted(wanted, ends[i : i + 2])
            if low < high:
                cuts.append(Cut(group=groups[i], rows=wanted[low:high] - ends[i], places=by_row[low:high]))
        return cuts

    def _permuted(self, epoch: int) -> list[Group]:
        places = _random(self.seed, epoch, GROUPS).permutation(len(self.groups))
        return [self.groups[place] for place in places]


def fit_window(groups: Sequence[Group], limit_bytes: int, global_batch: int) -> int:
    """Most rows of a window, whose encoded images take `limit_bytes` on all workers together; a batch at least."""
    stored, rows = sum(group.stored_bytes for group in groups), sum(group.rows for group in groups)
    return max(int(limit_bytes * rows / max(stored, 1)), global_batch)


@dataclass(frozen=True, kw_only=True)
class Choice:
    feed: Literal["memory", "stream"]
    reason: str
    """In words, for the log."""


def choose_feed(
    dataset: Dataset, cache_limit_bytes: int, wanted: Literal["auto", "memory", "stream"] = "auto"
) -> Choice:
    """Whether the train split is decoded once per node, or every epoch anew; the same on all workers.

    Args:
        cache_limit_bytes: of decoded images on a node; counts for `auto` alone.
    """
    decoded = decoded_bytes(dataset, "train")
    size = f"the train split decodes to {in_words(decoded)}"
    if wanted != "auto":
        return Choice(feed=wanted, reason=f"{size}; training.feed is {wanted}")
    limit = f"training.cache_limit is {in_words(cache_limit_bytes)}"
    if decoded <= cache_limit_bytes:
        return Choice(feed="memory", reason=f"{size}, {limit}: each node keeps it on its disk")
    return Choice(feed="stream", reason=f"{size}, {limit}: it is streamed from storage, decoded every epoch anew")


def decoded_bytes(dataset: Dataset, split: str) -> int:
    """Size of a split's images, decoded."""
    height, width, channels = dataset.image_shape
    return dataset.splits[split] * height * width * channels


def in_words(size: int) -> str:
    """Bytes as `12.3 GB`, in powers of 1000 as the job file has them."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def _random(*path: int) -> np.random.Generator:
    return np.random.default_rng(path)
