"""The rows of each step, streamed from the dataset's shards by Ray Data: for splits that no node may keep decoded.

    stream = open_stream(dataset, global_batch=64, epochs=30, seed=7, positions=positions)
    for chunk, images, labels in stream.batches(chunks(plan, step)):
        ...

It takes the place of `feed.Feed`; its order is that of `windows.Order`. Each worker has an execution of Ray Data of its
own, so that no worker waits for another: one task at a time, on its own node, reads a window and decodes this worker's
rows of it, a block of steps at a time, while the loop works on earlier ones. The blocks lie in the object store as the
loop wants them, and are used there without a copy. Law: what is held depends on the window, never on the dataset.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from startup_ray.dataset import Dataset
from startup_ray.errors import StartupRayError
from startup_ray.remote import pack_error, quiet_data, raise_packed, told_as_ours
from startup_ray.trainers.loop import Chunk
from startup_ray.trainers.pace import Pace
from startup_ray.trainers.shards import find_groups, read
from startup_ray.trainers.windows import Order, fit_window

SPLIT = "train"
WINDOW_BYTES = 2**28
"""Of a window's encoded images, on all workers together."""
BLOCK_BYTES = 2**22
"""Of decoded images that are handed over together: large beside what Ray does for each, small beside the memory."""
READY_BYTES = 2**25
"""Of blocks that wait for the loop. They last while the next window is read."""
LEAST_READY = 3
"""Blocks: Ray Data hands on one when it has the next."""
WINDOWS_AT_ONCE = 64
"""Windows of one execution, of this epoch and later ones: each execution begins without anything ready."""

Batch = tuple[NDArray[np.uint8], NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A worker's share of each step; it pickles, because the tasks that decode are handed it."""

    dataset: Dataset
    order: Order
    epochs: int
    """Nothing is read for steps after the last of them."""
    positions: NDArray[np.int64]
    """Places of this worker's rows in every global batch."""
    threads: int = 1
    """That decode together."""
    block_bytes: int = BLOCK_BYTES
    ready_bytes: int = READY_BYTES

    @property
    def rows(self) -> int:
        """Rows of this worker in a step."""
        return len(self.positions)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches of labelled rows; the tail of an epoch's order is dropped."""
        return self.order.steps_per_epoch

    @property
    def block_steps(self) -> int:
        """Steps of a block, one at least."""
        return max(self.block_bytes // self._step_bytes, 1)

    @property
    def blocks_ready(self) -> int:
        """Blocks that are decoded and not yet taken, at most."""
        return max(self.ready_bytes // (self.block_steps * self._step_bytes), LEAST_READY)

    def batches(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, NDArray[np.uint8], NDArray[np.int32]]]:
        """Each chunk with its images uint8 [count, rows, H, W, C] and labels int32 [count, rows].

        Chunks follow one another without a gap. Close the iterator to end what Ray Data does for it.

        Raises:
            StorageError: a shard cannot be read.
            ClusterError: Ray gave up.
        """
        with closing(_Steps(self)) as steps:
            for chunk in chunks:
                yield chunk, *steps.take(chunk)

    def window_blocks(
        self, epoch: int, first: int, await_turn: Callable[[int], object] = lambda _: None
    ) -> Iterator[Batch]:
        """The rows of one window from step `first` of the epoch on, in this process; what a task does.

        Args:
            await_turn: called with the number of each block before it is decoded, from 0.
        """
        window = next(self.order.windows(epoch, first))
        cuts = self.order.cut(window, self.positions, skip=first - window.first)
        held = read(self.dataset, SPLIT, cuts, rows=self.rows, threads=self.threads)
        for number, start in enumerate(range(0, held.steps, self.block_steps)):
            await_turn(number)
            yield held.decode(start, min(start + self.block_steps, held.steps))

    def blocks_from(self, step: int) -> Generator[Batch]:
        """The rows of all steps from `step` of the run on, block after block, by Ray Data."""
        windows = self._windows(step)
        while some := list(islice(windows, WINDOWS_AT_ONCE)):
            yield from _execute(self, some)

    def _windows(self, step: int) -> Iterator[tuple[int, int]]:
        """Epoch and first wanted step of the windows from `step` of the run on."""
        epoch, first = divmod(step, self.steps_per_epoch)
        for number in range(epoch, self.epochs):
            for window in self.order.windows(number, first):
                yield number, max(window.first, first)
            first = 0

    @property
    def _step_bytes(self) -> int:
        return self.rows * math.prod(self.dataset.image_shape)


class _Steps:
    """Cuts the blocks, as they come, into chunks; without a copy where a chunk lies in one block."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._next: int | None = None
        self._blocks: Generator[Batch] | None = None
        self._images = np.empty((0, stream.rows, *stream.dataset.image_shape), np.uint8)
        self._labels = np.empty((0, stream.rows), np.int32)

    def take(self, chunk: Chunk) -> Batch:
        if self._blocks is None:
            self._next, self._blocks = chunk.first, self._stream.blocks_from(chunk.first)
        if chunk.first != self._next:
            raise ValueError(f"step {chunk.first} after step {self._next}: chunks must follow one another")
        self._next += chunk.count
        images, labels, count = [self._images], [self._labels], len(self._labels)
        while count < chunk.count:
            more = next(self._blocks)
            images, labels, count = [*images, more[0]], [*labels, more[1]], count + len(more[1])
        joined = _joined(images), _joined(labels)
        self._images, self._labels = (part[chunk.count :] for part in joined)
        return joined[0][: chunk.count], joined[1][: chunk.count]

    def close(self) -> None:
        if self._blocks is not None:
            self._blocks.close()


def open_stream(
    dataset: Dataset,
    *,
    global_batch: int,
    seed: int,
    epochs: int,
    positions: NDArray[np.int64],
    threads: int = 1,
    window_bytes: int = WINDOW_BYTES,
) -> Stream:
    """A worker's stream, once the rows of every shard are counted.

    Args:
        positions: int64 [rows], this worker's places in every global batch.
        threads: CPU threads that decode for this worker.
        window_bytes: of encoded images that are shuffled together; all workers together hold that many, or one batch.

    Raises:
        StorageError: a shard cannot be read, or they do not hold what `dataset.json` counts.
    """
    importlib.import_module("ray.data")  # takes seconds, which here pass while TensorFlow is imported
    groups = find_groups(dataset, SPLIT)
    window_rows = fit_window(groups, window_bytes, global_batch)
    order = Order(groups=groups, global_batch=global_batch, seed=seed, window_rows=window_rows)
    return Stream(dataset=dataset, order=order, epochs=epochs, positions=positions, threads=threads)


def _execute(stream: Stream, windows: Sequence[tuple[int, int]]) -> Generator[Batch]:
    """The blocks of some windows, each given by its epoch and first wanted step, in order."""
    import ray.data

    settings: dict[str, Any] = {
        "execution_options": ray.data.ExecutionOptions(preserve_order=True),
        "target_max_block_size": 1,  # what a task yields, one row of a table, is handed on at once
        "execution_no_progress_timeout_s": -1,  # a loop that validates takes nothing for as long as it likes
    }
    with told_as_ours("stream of images"), quiet_data(**settings), Pace.begin() as pace:
        jobs = ray.data.from_items(_jobs(stream, windows), override_num_blocks=len(windows))
        task: Any = _decode_window  # a generator, which Ray Data's annotations do not foresee with arguments
        blocks = jobs.map_batches(
            task,
            fn_kwargs={"stream": stream, "pace": pace.path},
            batch_size=None,
            compute=ray.data.TaskPoolStrategy(size=1),
            num_cpus=0,  # the training workers may have taken all CPUs
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        )
        batches: Any = blocks.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
        with closing(iter(batches)) as stored:
            for block in stored:
                pace.take()
                raise_packed(block["error"][0])
                yield block["images"][0], block["labels"][0]


def _jobs(stream: Stream, windows: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    """Epoch and first wanted step of each window, and how many blocks come before it."""
    jobs, before = [], 0
    for epoch, first in windows:
        jobs.append({"epoch": epoch, "first": first, "before": before})
        window = next(stream.order.windows(epoch, first))
        before += -(-(window.first + window.steps - first) // stream.block_steps)
    return jobs


def _decode_window(job: dict[str, Any], stream: Stream, pace: str) -> Iterator[dict[str, Any]]:
    """In a task of Ray Data: the blocks of one window, each when it is wanted."""
    epoch, first, before = (int(job[name][0]) for name in ("epoch", "first", "before"))
    turns = Pace.join(pace)
    try:
        for images, labels in stream.window_blocks(
            epoch, first, lambda number: turns.await_turn(before + number, ahead=stream.blocks_ready)
        ):
            yield {"images": images[np.newaxis], "labels": labels[np.newaxis], "error": [b""]}
    except StartupRayError as error:
        nothing = np.zeros((1, 1), np.uint8)
        yield {"images": nothing, "labels": nothing, "error": [pack_error(error)]}


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    full = [part for part in parts if len(part)]
    return full[0] if len(full) == 1 else np.concatenate(full)
