"""What runs on one Ray Train worker: TensorFlow set up, the last checkpoint restored, the loop."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from startup_ray.dataset import Dataset
from startup_ray.errors import ClusterError, StartupRayError
from startup_ray.job import GanOptions, ScalingOptions
from startup_ray.lease import Fence
from startup_ray.runs import FEATURES, USED, put_json
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint, loop
from startup_ray.trainers.backend import TRANSPORT
from startup_ray.trainers.cache import Rows, open_split
from startup_ray.trainers.checkpoint import State
from startup_ray.trainers.feed import Feed, places_of, prefetch
from startup_ray.trainers.lean import load_keras
from startup_ray.trainers.loop import Hooks, Plan
from startup_ray.trainers.messages import DecodeProgress, Emit, Note
from startup_ray.trainers.program import Spec, begin_with, make_program
from startup_ray.trainers.recorder import Recorder, Validate
from startup_ray.trainers.stream import Stream, open_stream
from startup_ray.trainers.windows import choose_feed
from startup_ray.trainers.writer import Writer

T = TypeVar("T")

log = logging.getLogger("startup_ray")


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a worker is handed; it pickles."""

    dataset: Dataset
    folder: Folder
    fence: Fence
    spec: Spec
    scaling: ScalingOptions
    is_trial: bool = False
    """Of a sweep: what is used is written down, and the metrics of an epoch are on storage before they are told."""
    keeps_models: bool = True
    """Whether the best and the last model are written."""
    memory: int = 0
    """Bytes that each worker asks Ray for, whatever it then takes; see `tuning/groups.py`."""


GoesOn = Callable[[int, Mapping[str, Any]], bool]
"""Rank of the worker that asks and metrics of the epoch it has done; all are to be answered the same."""
Outcome = dict[str, Any] | StartupRayError
"""What `Recorder.finish` tells, or the error that all workers met together and that another try would meet again."""


def always(_rank: int, _metrics: Mapping[str, Any]) -> bool:
    return True


def work(
    task: Task, *, rank: int, world: int, emit: Emit, meet: Callable[[], None], goes_on: GoesOn = always
) -> Outcome:
    """Train to the end.

    Args:
        meet: waits for the other workers, for as long as one of them may have to decode images.
        goes_on: False ends the training there, of which an empty document is left.

    Returns:
        See `Outcome`. What one worker meets alone is raised: Ray Train then ends the others and tries again.
    """
    with closing(epochs(task, rank=rank, world=world, emit=emit, meet=meet)) as turns:
        while True:
            try:
                line = next(turns)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            if not goes_on(rank, line):
                return {}


def epochs(
    task: Task, *, rank: int, world: int, emit: Emit, meet: Callable[[], None]
) -> Generator[Mapping[str, Any], None, Outcome]:
    """`work`, handing out the metrics of each epoch; whoever closes it ends the training there."""
    spec, choice = task.spec, choose_feed(task.dataset, task.spec.training.cache_limit, task.spec.training.feed)
    feed, rows = _images(task, choice.feed, rank, world, emit)
    plan = _plan(spec)
    sync, gpu = _connect(task.scaling, rank, world, meet)
    try:  # from here on, errors of ours are met by all workers, but those of the feed
        gpu = sync.broadcast(gpu.encode()).decode()  # one precision for all
        program = sync.agree(lambda: make_program(spec, sync, gpu=gpu))
        state = _restore(task, program, emit)
        if task.is_trial:
            sync.on_rank_0(lambda: put_json(task.folder, USED, used(spec, program)))
        steps = loop.many_steps(program.train_step, feed.rows, task.dataset.image_shape, program.sums, sync.sum)
        with Writer() as writer, closing(prefetch(feed.batches(loop.chunks(plan, state.position.step)))) as batches:
            recorder = Recorder(
                folder=task.folder,
                fence=task.fence,
                options=spec.training,
                monitor=spec.monitor,
                classes=task.dataset.classes,
                plan=plan,
                program=program,
                validate=_validation(task, program, rows, plan.epochs, emit),
                state=state,
                writer=writer,
                emit=emit,
                keeps_models=task.keeps_models,
                waits=task.is_trial,
            )
            hooks = Hooks(
                on_chunk=recorder.on_chunk,
                on_epoch=recorder.on_epoch,
                on_save=recorder.on_save,
                is_over=recorder.is_over,
            )
            for _ in loop.epochs(state.position, steps, _met_alone(batches), hooks):
                yield recorder.last
            return recorder.finish()
    except StartupRayError as error:
        return error
    except _MetAloneError as error:
        raise error.cause from error
    finally:
        sync.close()


def used(spec: Spec, program: Any) -> dict[str, Any]:
    """What this process trains with, by the keys of a job file, and how many weights that makes."""
    return {
        "model": spec.model.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "seed": spec.seed,
        "epochs": spec.epochs,
        "weights": sum(array.size for array in program.arrays()),
        "process": {"host": socket.gethostname(), "pid": os.getpid()},
    }


def _plan(spec: Spec) -> Plan:
    return Plan(
        steps=spec.steps,
        steps_per_epoch=spec.steps_per_epoch,
        steps_per_call=spec.training.steps_per_call,
        checkpoint_every_steps=spec.training.checkpoint_every_steps,
    )


class _MetAloneError(Exception):
    """Wraps an error of ours that the other workers do not meet."""

    def __init__(self, cause: StartupRayError) -> None:
        self.cause = cause


def _met_alone(batches: Iterator[T]) -> Iterator[T]:
    try:
        yield from batches
    except StartupRayError as error:
        raise _MetAloneError(error) from error


def _images(task: Task, kind: str, rank: int, world: int, emit: Emit) -> tuple[Feed | Stream, dict[str, Rows]]:
    """The feed, and the splits that are looked at, made ready while Keras, which takes seconds, is imported."""
    loading = threading.Thread(target=load_keras, daemon=True)
    loading.start()
    feed = _stream(task, rank, world) if kind == "stream" else _feed(task, rank, world, emit)
    is_gan = isinstance(task.spec.model, GanOptions)
    rows = {split: _rows(task, split, emit) for split in (("train", "val") if is_gan else ("val",))}
    loading.join()
    return feed, rows


def _rows(task: Task, split: str, emit: Emit) -> Rows:
    return open_split(task.dataset, split, lambda done, total: emit(DecodeProgress(split, done, total)))


def _feed(task: Task, rank: int, world: int, emit: Emit) -> Feed:
    train = _rows(task, "train", emit)
    return Feed(
        images=train.images,
        labels=train.labels,
        global_batch=task.spec.training.global_batch,
        seed=task.spec.seed,
        rank=rank,
        world=world,
        parts=task.spec.training.accumulate,
        takes_unlabelled=task.spec.takes_unlabelled,
    )


def _stream(task: Task, rank: int, world: int) -> Stream:
    training = task.spec.training
    return open_stream(
        task.dataset,
        global_batch=training.global_batch,
        seed=task.spec.seed,
        epochs=task.spec.epochs,
        positions=places_of(training.global_batch, rank, world, training.accumulate),
        threads=task.scaling.threads_per_worker,
    )


def _connect(scaling: ScalingOptions, rank: int, world: int, meet: Callable[[], None]) -> tuple[Any, str]:
    """TensorFlow with threads, devices and determinism set before its first operation; then the other workers.

    Returns:
        `Sync`, and the compute capability of the GPU; empty if there is none.
    """
    import tensorflow as tf

    from startup_ray.trainers.sync import connect

    # A job value and never the host's cores: 1, 2 and 4 threads give three different digests of the weights.
    tf.config.threading.set_intra_op_parallelism_threads(scaling.threads_per_worker)
    tf.config.threading.set_inter_op_parallelism_threads(scaling.threads_per_worker)
    tf.config.experimental.enable_op_determinism()
    gpu = _set_gpu(scaling)
    if scaling.gpus_per_worker:
        require_gpu()
    # TensorFlow holds the GIL while it waits for the others, and a process that says nothing is taken for dead.
    meet()
    return connect(world=world, rank=rank, transport=os.environ.get(TRANSPORT, ""), wire=scaling.wire), gpu


def _set_gpu(scaling: ScalingOptions) -> str:
    """Let TensorFlow take memory of this worker's GPU as it needs it; its compute capability, empty if it sees none."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return ""
    if scaling.gpu_memory is None:
        tf.config.experimental.set_memory_growth(found[0], True)
    else:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=scaling.gpu_memory // 2**20)
        tf.config.set_logical_device_configuration(found[0], [limit])
    major, minor = tf.config.experimental.get_device_details(found[0]).get("compute_capability", (0, 0))
    return f"{major}.{minor}"


def require_gpu() -> None:
    """See that TensorFlow has a GPU in this process, to which Ray has given one.

    Raises:
        ClusterError: it would train on CPUs in silence.
    """
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise ClusterError(
            "Ray has given a worker a GPU, but TensorFlow sees none there",
            hint="pip install 'startup_ray[gpu]' on every node and see that its driver is new enough (`nvidia-smi`), "
            "or set scaling.gpus_per_worker to 0",
        )


def _validation(task: Task, program: Any, rows: dict[str, Rows], epochs: int, emit: Emit) -> Validate:
    shape, options = task.dataset.image_shape, task.spec.model
    if not isinstance(options, GanOptions):
        from startup_ray.trainers.validation import Validation

        return Validation(program, rows["val"], shape)
    from startup_ray.trainers.gan.judge import open_judge
    from startup_ray.trainers.gan.watch import Watch

    judge = open_judge(task.folder, FEATURES, shape) if task.folder.exists(FEATURES) else None
    return Watch(
        program=program,
        options=options,
        judge=judge,
        train=rows["train"],
        val=rows["val"],
        epochs=epochs,
        emit=emit,
    )


def _restore(task: Task, program: Any, emit: Emit) -> State:
    """The state that rank 0 found or began with, on every worker: one reader, so nobody can differ."""
    text, arrays = b"", b""

    def find() -> None:
        nonlocal text, arrays
        found = checkpoint.newest(task.folder, note=log.warning)
        if found is None:
            note = begin_with(program.model, task.spec.training.init_from)
            if note:
                emit(Note(note))
        text, arrays = checkpoint.encode(found or State(arrays=program.arrays()))

    program.sync.on_rank_0(find)
    state = checkpoint.decode(program.sync.broadcast(text), program.sync.broadcast(arrays))
    program.sync.agree(lambda: program.restore(state.arrays))
    return state
