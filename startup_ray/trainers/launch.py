"""Training on Ray Train: the workers, and their result as our values.

    spec = preflight(dataset, model=job.model, training=job.training, scaling=job.scaling, seed=job.seed)
    document = train(dataset, folder, lease.fence, spec=spec, scaling=job.scaling, on_progress=print)

Run again on the same folder it goes on from the last checkpoint, which rank 0 has written. Ray Train starts the
workers, watches them, and starts them again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.collective import barrier
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from startup_ray.dataset import Dataset
from startup_ray.errors import StartupRayError
from startup_ray.growth import GROW_S
from startup_ray.job import GanOptions, ScalingOptions
from startup_ray.lease import Fence
from startup_ray.progress import ignore
from startup_ray.reach import may_grow
from startup_ray.remote import listening, run_task
from startup_ray.runs import BEST_MODEL, EXIT, FEATURES, put_json
from startup_ray.storage import Folder
from startup_ray.trainers import checkpoint
from startup_ray.trainers.backend import KerasConfig, worker_environment
from startup_ray.trainers.failures import ELASTIC_START_S, Watch, explain, limits, reason_in
from startup_ray.trainers.gan.judge import make_judge
from startup_ray.trainers.messages import DecodeProgress, Emit, Note, TrainProgress
from startup_ray.trainers.preflight import WAIT_S, await_room, per_worker
from startup_ray.trainers.program import Spec
from startup_ray.trainers.worker import GoesOn, Outcome, Task, always, require_gpu, work

log = logging.getLogger("startup_ray")

RAY = "ray"
"""Ray Train's own files while it runs: it wants a place that all nodes see. What lasts is written by rank 0."""
RESIZE_S = 60.0
"""How often a group of workers that may grow looks for room; growing costs a restart from the last checkpoint."""
CONTROLLER_FAILURES = 3
"""Tries to get the workers started, a minute each; Ray's default is without limit."""


def train(
    dataset: Dataset,
    folder: Folder,
    fence: Fence,
    *,
    spec: Spec,
    scaling: ScalingOptions,
    on_progress: Callable[[TrainProgress | DecodeProgress], None] = ignore,
    wait_s: float = WAIT_S,
) -> dict[str, Any]:
    """Train in `folder`, from its last checkpoint if it has one, and write `exit.json`.

    Args:
        fence: the right to write `folder`; checked before each commit.
        spec: what `preflight` returned.
        on_progress: called in a thread of this process.
        wait_s: for CPUs that other work holds, before anything is started.

    Returns:
        The document that `train` prints.

    Raises:
        ClusterError: Ray cannot run the workers.
        StorageError: what is trained cannot be written.
        RunHeldError: another process has taken over the run.
        TrainingError: it diverged, or workers died more than `scaling.max_failures` times.
        KeyboardInterrupt: after Ctrl-C; the workers are gone, the last checkpoint stays.
    """
    await_room(scaling, wait_s)
    if scaling.gpus_per_worker:  # rather than after all restarts
        run_task(require_gpu, stage="look at the GPUs", gpus=scaling.gpus_per_worker)
    began = time.monotonic()
    found = checkpoint.newest(folder, note=log.warning)
    if found:
        log.info("train: going on from step %d", found.position.step)
    first_step_s: list[float] = []

    def watch(item: TrainProgress | DecodeProgress) -> None:
        if not first_step_s and isinstance(item, TrainProgress):
            first_step_s.append(round(time.monotonic() - began, 1))
        on_progress(item)

    if isinstance(spec.model, GanOptions):
        bring_judge(dataset, folder, fence, features=spec.features, threads=scaling.threads_per_worker)
    outcome = attempt(Task(dataset=dataset, folder=folder, fence=fence, spec=spec, scaling=scaling), on_progress=watch)
    if isinstance(outcome, StartupRayError):
        raise outcome
    document = {
        **document_of(folder, spec, dataset),
        "resumed_from": found.position.step if found else None,
        "first_step_s": first_step_s[0] if first_step_s else None,
        **outcome,
    }
    fence.check()
    put_json(folder, EXIT, document)
    return document


def attempt(
    task: Task, *, on_progress: Callable[[TrainProgress | DecodeProgress], None] = ignore, goes_on: GoesOn = always
) -> Outcome:
    """`worker.work` on all workers of the task, started anew as often as it allows.

    Raises:
        ClusterError, TrainingError, KeyboardInterrupt: as `train`.
    """
    try:
        with _listening(on_progress) as emit:
            return _fit(task, emit, goes_on)
    finally:
        task.folder.delete(RAY)


def document_of(folder: Folder, spec: Spec, dataset: Dataset) -> dict[str, Any]:
    """What a run's document says of it, whatever it has come to."""
    return {
        "run": str(folder),
        "model": folder.path(BEST_MODEL),
        "kind": spec.model.kind,
        "dataset_digest": dataset.digest,
    }


def bring_judge(dataset: Dataset, folder: Folder, fence: Fence, *, features: str, threads: int) -> None:
    """Have what judges a GAN's images in the run's folder, before the first of them."""
    if folder.exists(FEATURES):
        return
    log.info("train: %s", f"taking features from {features}" if features else "training the judge")
    env = worker_environment(threads)
    judge = run_task(make_judge, dataset, features, stage="bring the judge", env=env)
    fence.check()
    if judge:
        folder.put_whole(FEATURES, judge)


def _fit(task: Task, emit: Emit, goes_on: GoesOn = always) -> Outcome:
    """Ray Train's result, or error, as our own."""
    scaling = task.scaling
    run_config: Any = RunConfig(
        name=uuid.uuid4().hex,  # under a name it knows, Ray Train would go on with a state of its own
        storage_path=task.folder.path(RAY),
        failure_config=FailureConfig(
            max_failures=scaling.max_failures,
            max_preemption_failures=scaling.max_failures,
            controller_failure_limit=CONTROLLER_FAILURES,
        ),
        callbacks=[Watch(emit, scaling.max_failures)],
        worker_runtime_env={"env_vars": worker_environment(scaling.threads_per_worker, scaling.gpus_per_worker)},
        logging_config=LoggingConfig(log_level="ERROR"),
    )
    trainer = DataParallelTrainer(
        _on_worker,
        train_loop_config={"task": task, "emit": emit, "goes_on": goes_on},
        backend_config=KerasConfig(transport=scaling.transport, gpus_per_worker=scaling.gpus_per_worker),
        scaling_config=ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=bool(scaling.gpus_per_worker),
            resources_per_worker=per_worker(scaling) | ({"memory": task.memory} if task.memory else {}),
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=run_config,
    )
    with _interruptible(), limits(start_s=_start_s(scaling)):
        try:
            result: Any = trainer.fit()
        except (ray.train.TrainingFailedError, RayError) as error:
            raise explain(error, task.folder) from error
    outcome: Outcome = result.return_value
    return outcome


def _start_s(scaling: ScalingOptions) -> float | None:
    """How long the workers' start may take, where that is not as usual."""
    if scaling.min_workers < scaling.max_workers:
        return ELASTIC_START_S
    # Ray Train asks for a node in the place of one that was lost, and may have to wait for it.
    return GROW_S / (CONTROLLER_FAILURES + 1) if may_grow() else None


def _on_worker(config: dict[str, Any]) -> Outcome:
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    try:
        return work(
            config["task"], rank=rank, world=world, emit=config["emit"], meet=barrier, goes_on=config["goes_on"]
        )
    except StartupRayError:
        raise
    except Exception as error:
        # TensorFlow's errors would make driver and controller import TensorFlow to read them.
        place = f"pid={os.getpid()} node_ip='{ray.util.get_node_ip_address()}'"  # as Ray tells it of those that die
        raise RuntimeError(f"{type(error).__name__}: {reason_in(str(error))}\n{place}") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt: Ray Train's handler ends the workers, then asks to leave with exit code 0."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if is_main else None
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _listening(on_progress: Callable[[TrainProgress | DecodeProgress], None]) -> Iterator[Emit]:
    """A function for workers and the controller to call, wherever they run; what it is told arrives here."""

    def hear(item: TrainProgress | DecodeProgress | Note) -> None:
        if isinstance(item, Note):
            log.log(logging.WARNING if item.is_warning else logging.INFO, "train: %s", item.text)
        else:
            on_progress(item)

    with listening(hear) as emit:
        yield emit
