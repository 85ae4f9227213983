"""The loop: chunks of steps, epochs, and when to save. It knows no model and no storage.

    for chunk in chunks(plan, step=0):      # at most `steps_per_call` steps, never across an epoch's or save's end
        ...
    for position in epochs(START, steps, batches, hooks):      # or run(...), which goes through them all
        ...

Law: where chunks are cut changes no result. Every step computes the same and sums are added one step at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from startup_ray.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Plan:
    steps: int
    """Of the whole run; the last epoch may be a part of one."""
    steps_per_epoch: int
    steps_per_call: int
    checkpoint_every_steps: int

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)

    def steps_of(self, epoch: int) -> int:
        """Steps of an epoch, counted from 0."""
        return min((epoch + 1) * self.steps_per_epoch, self.steps) - epoch * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Steps `first` to `first + count - 1` of one epoch, counted from 0 over the whole run."""

    epoch: int
    first: int
    count: int
    ends_epoch: bool
    saves: bool


@dataclass(frozen=True, kw_only=True)
class Position:
    """Steps and epochs that are done, and the sums of the epoch that is not."""

    step: int
    epoch: int
    sums: tuple[float, ...] = ()


START = Position(step=0, epoch=0)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls; each is called by all workers at the same places."""

    on_chunk: Callable[[Position, int, float, float], None]
    """After each chunk: position, steps of the chunk, seconds that they and the wait for their rows took, the wait."""
    on_epoch: Callable[[Position], None]
    """With the last position of the epoch, its sums complete and its number already counted."""
    on_save: Callable[[Position], None]
    is_over: Callable[[Position], bool] = lambda _: False
    """Asked before the first step and after each epoch, whether to stop before the plan ends."""


def chunks(plan: Plan, step: int) -> Iterator[Chunk]:
    """All chunks from `step` to the end of the run."""
    while step < plan.steps:
        epoch = step // plan.steps_per_epoch
        to_epoch = epoch * plan.steps_per_epoch + plan.steps_of(epoch) - step
        to_save = plan.checkpoint_every_steps - step % plan.checkpoint_every_steps
        count = min(plan.steps_per_call, to_epoch, to_save)
        ends_epoch = count == to_epoch
        yield Chunk(epoch=epoch, first=step, count=count, ends_epoch=ends_epoch, saves=ends_epoch or count == to_save)
        step += count


def run(
    position: Position,
    steps: Callable[[Any, Any, int], Any],
    batches: Iterable[tuple[Chunk, Any, Any]],
    hooks: Hooks,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Position:
    """`epochs`, one after the other to the last; returns the position at the end."""
    turns = epochs(position, steps, batches, hooks, clock=clock)
    while True:
        try:
            next(turns)
        except StopIteration as end:
            last: Position = end.value
            return last


def epochs(
    position: Position,
    steps: Callable[[Any, Any, int], Any],
    batches: Iterable[tuple[Chunk, Any, Any]],
    hooks: Hooks,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Position, None, Position]:
    """Train on `batches` from `position` to their end, or until it is over.

    Hands out the position after each epoch, when its hooks have been called; whoever asks for no more ends it there.

    Args:
        steps: images [k, b, ...], labels [k, b], number of the first step -> float [k, sums], whose first sum is
            the loss (see `many_steps`).
        batches: each chunk with its images and labels, from `position` on.

    Raises:
        TrainingError: a loss is not finite; nothing of its chunk is saved.
    """
    if hooks.is_over(position):
        return position
    began = clock()
    for chunk, images, labels in batches:
        waited = clock() - began
        per_step = np.asarray(steps(images, labels, chunk.first), np.float64)
        seconds = clock() - began
        position = Position(
            step=chunk.first + chunk.count,
            epoch=chunk.epoch + int(chunk.ends_epoch),
            sums=_add(position.sums, per_step, chunk.first),
        )
        hooks.on_chunk(position, chunk.count, seconds, waited)
        if chunk.ends_epoch:
            hooks.on_epoch(position)
            position = Position(step=position.step, epoch=position.epoch)
        if chunk.saves:
            hooks.on_save(position)
        if chunk.ends_epoch:
            yield position
            if hooks.is_over(position):
                break
        began = clock()  # so that waiting for the next batch counts, and the hooks do not
    return position


def many_steps(
    step: Callable[[Any, Any, Any], Any],
    rows: int,
    image_shape: tuple[int, int, int],
    sums: int,
    add_up: Callable[[Any], Any] = lambda sums: sums,
) -> Any:
    """Many steps in one `tf.function`: uint8 [k, rows, H, W, C], int32 [k, rows], int64 [] -> float32 [k, sums].

    The last argument is the number of the first step. k is free, so the graph is traced once: a chunk cut short costs
    no second trace.

    Args:
        step: images, labels, number -> float32 [sums] of this worker.
        add_up: [k, sums] of this worker -> of all; once per call, so that it costs a step nothing.
    """
    import tensorflow as tf

    def fold(images: Any, labels: Any, first: Any) -> Any:
        count = tf.shape(labels)[0]
        results = tf.TensorArray(tf.float32, size=count, element_shape=[sums])

        def body(i: Any, results: Any) -> tuple[Any, Any]:
            return i + 1, results.write(i, step(images[i], labels[i], first + tf.cast(i, tf.int64)))

        # One iteration at a time: a step reads the weights that the step before has written.
        _, results = tf.while_loop(lambda i, _: i < count, body, (0, results), parallel_iterations=1)
        return add_up(results.stack())

    signature = [
        tf.TensorSpec([None, rows, *image_shape], tf.uint8),
        tf.TensorSpec([None, rows], tf.int32),
        tf.TensorSpec([], tf.int64),
    ]
    return tf.function(fold, input_signature=signature, autograph=False)


def diverged(what: str) -> TrainingError:
    return TrainingError(
        f"training diverged: {what}",
        hint="lower the learning rate, or set training.clip_norm: 1; the last good checkpoint is kept",
    )


class Speed:
    """How fast an attempt is, without its first chunk, in which TensorFlow builds the graph."""

    def __init__(self, rows_per_step: int) -> None:
        self._rows_per_step = rows_per_step
        self._first: tuple[int, float, float] | None = None
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """Steps of a chunk, the seconds they took, and those of them that were spent waiting for rows."""
        if self._first is None:
            self._first = (steps, seconds, waited)
            return
        self._steps, self._seconds, self._waited = self._steps + steps, self._seconds + seconds, self._waited + waited

    @property
    def is_warm(self) -> bool:
        """Whether there was more than the first chunk."""
        return self._steps > 0

    @property
    def images_per_s(self) -> float:
        step_s, _ = self.step_s
        return self._rows_per_step / step_s if step_s else 0.0

    @property
    def step_s(self) -> tuple[float, float]:
        """Mean seconds of a step, and those of them that were spent waiting for rows."""
        steps, seconds, waited = (self._steps, self._seconds, self._waited) if self._steps else self._first or (0, 0, 0)
        return (seconds / steps, waited / steps) if steps else (0.0, 0.0)


def _add(sums: tuple[float, ...], per_step: np.ndarray, first: int) -> tuple[float, ...]:
    """Add one step after the other: a sum by halves, as numpy does it, would depend on where chunks are cut."""
    bad = np.flatnonzero(~np.isfinite(per_step).all(axis=1))
    if bad.size:
        raise diverged(f"the loss of step {first + int(bad[0]) + 1} is not finite")
    total = np.array(sums) if sums else np.zeros(per_step.shape[1])
    for row in per_step:
        total = total + row
    return tuple(float(value) for value in total)
