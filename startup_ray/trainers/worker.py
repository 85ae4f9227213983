"""What runs on one Ray Train worker: TensorFlow set up, the last checkpoint restored, the loop."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from startup_ray.dataset import Dataset
from startup_ray.errors import StartupRayError
from startup_ray.job import CnnOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import Fence
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, loop
from startup_ray.trainers.cache import Rows, open_split
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.feed import Feed, prefetch
from startup_ray.trainers.loop import Hooks, Plan
from startup_ray.trainers.messages import DecodeProgress, Emit
from startup_ray.trainers.recorder import Recorder, Validate
from startup_ray.trainers.writer import Writer

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


def work(
    task: Task, *, rank: int, world: int, emit: Emit, meet: Callable[[], None]
) -> dict[str, Any] | StartupRayError:
    """Train to the end.

    Args:
        meet: waits for the other workers, for as long as one of them may have to decode images.

    Returns:
        What `Recorder.finish` tells, or the error that all workers met together and that another try would meet
        again. What one worker meets alone is raised: Ray Train then ends the others and tries again.
    """
    train, val = _images(task, emit)
    feed, plan = _feed_and_plan(task, train, rank, world)
    program, validate = _start(task, val, rank, world, plan.steps, meet)
    steps = loop.many_steps(program.train_step, feed.rows, task.dataset.image_shape, sums=2)
    try:  # from here on, errors of ours are met by all workers
        state = _restore(task, program)
        with Writer() as writer, closing(prefetch(feed.batches(loop.chunks(plan, state.position.step)))) as batches:
            recorder = Recorder(
                folder=task.folder,
                fence=task.fence,
                options=task.training,
                classes=task.dataset.classes,
                plan=plan,
                program=program,
                validate=validate,
                state=state,
                writer=writer,
                emit=emit,
            )
            hooks = Hooks(on_chunk=recorder.on_chunk, on_epoch=recorder.on_epoch, on_save=recorder.on_save)
            loop.run(state.position, steps, batches, hooks)
            return recorder.finish()
    except StartupRayError as error:
        return error


def _images(task: Task, emit: Emit) -> tuple[Rows, Rows]:
    """Rows of train and val, made ready while TensorFlow, which takes seconds, is imported."""
    loading = threading.Thread(target=importlib.import_module, args=("tensorflow",), daemon=True)
    loading.start()
    train, val = _rows(task, "train", emit), _rows(task, "val", emit)
    loading.join()
    return train, val


def _rows(task: Task, split: str, emit: Emit) -> Rows:
    return open_split(task.dataset, split, lambda done, total: emit(DecodeProgress(split, done, total)))


def _feed_and_plan(task: Task, train: Rows, rank: int, world: int) -> tuple[Feed, Plan]:
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
    return feed, plan


def _start(task: Task, val: Rows, rank: int, world: int, steps: int, meet: Callable[[], None]) -> tuple[Any, Validate]:
    """TensorFlow with its threads and determinism set before its first operation, then program and validation."""
    import keras
    import tensorflow as tf

    from startup_ray.trainers.cnn import Validation, make_classifier
    from startup_ray.trainers.sync import connect

    # A job value and never the host's cores: 1, 2 and 4 threads give three different digests of the weights.
    tf.config.threading.set_intra_op_parallelism_threads(task.scaling.threads_per_worker)
    tf.config.threading.set_inter_op_parallelism_threads(task.scaling.threads_per_worker)
    tf.config.experimental.enable_op_determinism()
    # TensorFlow holds the GIL while it waits for the others, and a process that says nothing is taken for dead.
    meet()
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
