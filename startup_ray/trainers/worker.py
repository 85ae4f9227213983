"""What runs on one Ray Train worker: TensorFlow set up, the last checkpoint restored, the loop, and what it records.

All workers do the same; rank 0 alone writes. Whatever only rank 0 can meet (storage that is full, a run that was
taken over) is told to the others before anybody goes on, so that no worker waits for one that has left.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from startup_ray.dataset import Dataset
from startup_ray.errors import StartupRayError, TrainingError
from startup_ray.job import CnnOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import Fence
from startup_ray.runs import BEST_MODEL, CLASSES, LAST_MODEL, METRICS
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, loop
from startup_ray.trainers.cache import Rows, open_split
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.feed import Feed, prefetch
from startup_ray.trainers.loop import Hooks, Plan, Position, Speed

log = logging.getLogger("startup_ray")


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a worker is handed; it pickles."""

    dataset: Dataset
    folder: Folder
    fence: Fence
    model: CnnOptions
    training: TrainingOptions
    scaling: ScalingOptions
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """What rank 0 tells while it trains, a few times a second at most."""

    step: int
    steps: int
    epoch: int
    """Epochs done."""
    epochs: int
    loss: float
    """Mean training loss of the epoch so far."""
    images_per_s: float
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics line of an epoch that has just ended, else empty."""
    pids: tuple[int, ...] = ()
    """Process ids of the workers by rank, each on its own node."""

    @property
    def done(self) -> int:
        return self.step

    @property
    def total(self) -> int:
        return self.steps

    @property
    def text(self) -> str:
        """One line for people."""
        loss = f", loss {self.loss:.4f}" if math.isfinite(self.loss) else ""
        return (
            f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}{loss}, {self.images_per_s:.0f} images/s"
        )


Emit = Callable[[TrainProgress], None]
Validate = Callable[[], dict[str, float]]


def work(task: Task, *, rank: int, world: int, emit: Emit) -> dict[str, Any] | StartupRayError:
    """Train to the end.

    Returns:
        What `Recorder.finish` tells, or the error that all workers met together and that another try would meet
        again. What one worker meets alone is raised: Ray Train then ends the others and tries again.
    """
    # Before the workers meet: one may have to decode for longer than another waits in a collective.
    train, val = open_split(task.dataset, "train"), open_split(task.dataset, "val")
    options = task.training
    feed = Feed(
        images=train.images,
        labels=train.labels,
        global_batch=options.global_batch,
        seed=task.seed,
        rank=rank,
        world=world,
    )
    plan = Plan(
        epochs=options.epochs,
        steps_per_epoch=feed.steps_per_epoch,
        steps_per_call=options.steps_per_call,
        checkpoint_every_steps=options.checkpoint_every_steps,
    )
    program, validate = _start(task, val, rank, world, plan.steps)
    steps = loop.many_steps(program.train_step, feed.rows, task.dataset.image_shape, sums=2)
    try:  # from here on, errors of ours are met by all workers
        state = _restore(task, program)
        recorder = Recorder(task=task, plan=plan, program=program, validate=validate, state=state, emit=emit)
        hooks = Hooks(on_chunk=recorder.on_chunk, on_epoch=recorder.on_epoch, on_save=recorder.on_save)
        with closing(prefetch(feed.batches(loop.chunks(plan, state.position.step)))) as batches:
            loop.run(state.position, steps, batches, hooks)
        return recorder.finish()
    except StartupRayError as error:
        return error


def _start(task: Task, val: Rows, rank: int, world: int, steps: int) -> tuple[Any, Validate]:
    """TensorFlow with its threads and determinism set before its first operation, then program and validation."""
    import keras
    import tensorflow as tf

    from startup_ray.trainers.cnn import Validation, make_classifier
    from startup_ray.trainers.sync import connect

    # A job value and never the host's cores: 1, 2 and 4 threads give three different digests of the weights.
    tf.config.threading.set_intra_op_parallelism_threads(task.scaling.threads_per_worker)
    tf.config.threading.set_inter_op_parallelism_threads(task.scaling.threads_per_worker)
    tf.config.experimental.enable_op_determinism()
    sync = connect(world=world, rank=rank)
    keras.utils.set_random_seed(task.seed)
    dataset = task.dataset
    program = make_classifier(
        dataset.image_shape, len(dataset.classes), task.model, task.training, sync, seed=task.seed, steps=steps
    )
    return program, Validation(program, val, dataset.image_shape)


def _restore(task: Task, program: Any) -> State:
    """The state that rank 0 found or began with, on every worker: one reader, so nobody can differ."""
    text, arrays = b"", b""
    if program.sync.rank == 0:
        found = checkpoint.newest(task.folder, note=log.warning)
        text, arrays = checkpoint.encode(found or State(arrays=program.arrays()))
    state = checkpoint.decode(program.sync.broadcast(text), program.sync.broadcast(arrays))
    program.restore(state.arrays)
    return state


class Recorder:
    """Keeps the books of one attempt: metrics, best and last model, checkpoints, progress."""

    def __init__(self, *, task: Task, plan: Plan, program: Any, validate: Validate, state: State, emit: Emit) -> None:
        self._task = task
        self._plan = plan
        self._program = program
        self._sync = program.sync
        self._validate = validate
        self._best, self._last = state.best, state.last
        self._lines: list[dict[str, Any]] = []
        self._attempt = _next_attempt(task.folder) if self._sync.rank == 0 else 0
        self._pids = tuple(int(pid) for pid in self._sync.gather(np.array([os.getpid()]))[:, 0])
        self._speed = Speed(task.training.global_batch)
        self._emit = emit
        self._emitted = 0.0
        self._epoch_began = time.perf_counter()

    def on_chunk(self, position: Position, count: int, seconds: float) -> None:
        self._speed.add(count, seconds)
        now = time.perf_counter()
        if now - self._emitted >= 0.2:
            self._emitted = now
            self._tell(position)

    def on_epoch(self, position: Position) -> None:
        """Validate, write the attempt's metrics, and the model if it is the best so far."""
        loss, hits = position.sums
        steps = self._plan.steps_per_epoch
        with self._program.averaged():
            scores = self._validate()
        line = {
            "epoch": position.epoch,
            "step": position.step,
            "train/loss": loss / steps,
            "train/accuracy": hits / (steps * self._task.training.global_batch),
            **scores,
            "images_per_s": round(self._speed.images_per_s, 1),
            "seconds": round(time.perf_counter() - self._epoch_began, 3),
        }
        self._epoch_began = time.perf_counter()
        self._last = line
        is_best = is_better(line, self._best, self._task.training.monitor)
        if is_best:
            self._best = line
        self._lines.append(line)
        self._rank_0_alone(lambda: self._write_epoch(is_best=is_best))
        self._tell(position, line)

    def on_save(self, position: Position) -> None:
        """See that all workers hold the same finite weights, then write a checkpoint."""
        if not self._sync.all_equal(self._program.weights_digest()):
            raise TrainingError(
                f"workers hold different weights at step {position.step}",
                where=str(self._task.folder),
                hint="please report this; the last good checkpoint is kept",
            )
        if not self._program.is_finite():
            raise TrainingError(
                f"training diverged: weights are not finite after step {position.step}",
                hint="lower training.learning_rate",
            )
        state = State(position=position, best=self._best, last=self._last, arrays=self._program.arrays())
        task = self._task
        self._rank_0_alone(lambda: checkpoint.save(task.folder, task.fence, state, keep=task.training.keep))

    def finish(self) -> dict[str, Any]:
        """Write the last model. Returns epochs, steps, metrics, images_per_s and weights_digest."""
        self._rank_0_alone(self._write_last)
        not_metrics = ("epoch", "step", "seconds", "images_per_s")
        return {
            "epochs": self._plan.epochs,
            "steps": self._plan.steps,
            "metrics": {name: value for name, value in self._last.items() if name not in not_metrics},
            "best_epoch": self._best.get("epoch", self._plan.epochs),
            "images_per_s": self._last["images_per_s"],
            "weights_digest": self._program.weights_digest(),
        }

    def _rank_0_alone(self, write: Callable[[], None]) -> None:
        error: StartupRayError | None = None
        if self._sync.rank == 0:
            try:
                write()
            except StartupRayError as found:
                error = found
        if self._sync.any(error is not None):
            raise error or TrainingError("rank 0 could not write")

    def _write_epoch(self, *, is_best: bool) -> None:
        self._task.fence.check()
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        self._task.folder.put_whole(f"{METRICS}/{self._attempt:04d}.jsonl", text.encode())
        if is_best:
            self._write_best()

    def _write_last(self) -> None:
        self._write_model(LAST_MODEL)
        if not self._best:
            self._write_best()

    def _write_best(self) -> None:
        with self._program.averaged():
            self._write_model(BEST_MODEL)

    def _write_model(self, name: str) -> None:
        self._task.fence.check()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            self._program.model.save(path)
            data = path.read_bytes()
        names_of_classes = json.dumps(list(self._task.dataset.classes), ensure_ascii=False)
        self._task.folder.put_whole(CLASSES, names_of_classes.encode())
        self._task.folder.put_whole(name, data)

    def _tell(self, position: Position, line: dict[str, float] | None = None) -> None:
        steps = (position.step - 1) % self._plan.steps_per_epoch + 1
        self._emit(
            TrainProgress(
                step=position.step,
                steps=self._plan.steps,
                epoch=position.epoch,
                epochs=self._plan.epochs,
                loss=position.sums[0] / steps,
                images_per_s=self._speed.images_per_s,
                metrics=line or {},
                pids=self._pids,
            )
        )


def is_better(line: Mapping[str, Any], best: Mapping[str, Any], monitor: str) -> bool:
    """Whether an epoch's metrics are better than the best so far; never without a val split.

    Of equals the lower val/loss wins, then the earlier: on a small split many epochs count the same hits.
    """
    if monitor not in line:
        return False
    return not best or _merit(line, monitor) > _merit(best, monitor)


def _merit(line: Mapping[str, Any], monitor: str) -> tuple[float, float]:
    return (0.0 if monitor == "val/loss" else line[monitor], -line["val/loss"])


def _next_attempt(folder: Folder) -> int:
    return max((int(name.split(".")[0]) for name in folder.list(METRICS)), default=0) + 1
