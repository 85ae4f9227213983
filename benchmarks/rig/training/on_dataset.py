"""startup_ray's workers on a dataset, with validation, metrics and checkpoints: by Ray Train, or without Ray.

    python -m rig.training.on_dataset ray|processes SPEC SECONDS FOLDER FIFO

Both run `trainers.worker.work` with the same task; by Ray it is started by `launch.train`, as users run it. The window
is from the end of the first epoch to that of the last. The speed is the run's own (`images_per_s` of `exit.json`),
which leaves out what is done between epochs; CPU time includes it, and Ray.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rig.training.case import CLASSES, LEARNING_RATE, NETS, WORKERS, Spec
from rig.training.dataset import written
from rig.training.nets import FOR_JOB
from rig.training.words import BEGIN, END, SPEED, tell
from startup_ray.job import PythonOptions, ScalingOptions, TrainingOptions
from startup_ray.lease import hold
from startup_ray.session import connect
from startup_ray.storage import open_folder
from startup_ray.trainers import launch, program
from startup_ray.trainers.backend import TRANSPORT, worker_environment
from startup_ray.trainers.messages import TrainProgress
from startup_ray.trainers.preflight import preflight
from startup_ray.trainers.worker import Task, work
from startup_ray.usercode import locate


class Watch:
    """Tells where epochs end."""

    def __init__(self, fifo: str, epochs: int) -> None:
        self.seconds = 0.0
        """Of the window."""
        self._fifo, self._epochs = fifo, epochs

    def __call__(self, item: Any) -> None:
        if not isinstance(item, TrainProgress):
            return
        if item.metrics and item.epoch in (1, self._epochs):
            tell(self._fifo, BEGIN if item.epoch == 1 else END)
        if item.metrics and item.epoch > 1:
            self.seconds += item.metrics["seconds"]


def main() -> None:
    way, spec, seconds, place, fifo = WAYS[sys.argv[1]], Spec.parse(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]
    net = NETS[spec.case.net]
    epochs = 1 + math.ceil(seconds * net.max_rate / net.rows)
    training = TrainingOptions(
        epochs=epochs,
        global_batch=spec.case.batch * WORKERS,
        learning_rate=LEARNING_RATE,
        steps_per_call=net.steps_per_call,
        **spec.training,
    )
    dataset, folder = written(Path(place), net), open_folder(str(Path(fifo).parent / "run"))
    assert len(dataset.classes) == CLASSES
    wanted = program.Spec(
        image_shape=net.shape,
        classes=dataset.classes,
        class_rows=tuple(len(range(first, net.rows, CLASSES)) for first in range(CLASSES)),  # only their sum counts
        model=PythonOptions(build=FOR_JOB, args={"name": spec.case.net}),
        training=training,
        seed=0,
        code=locate(FOR_JOB),
        workers=WORKERS,
    )
    scaling = ScalingOptions(workers=WORKERS, max_failures=0, **spec.connect)
    with hold(folder) as lease:
        task = Task(dataset=dataset, folder=folder, fence=lease.fence, spec=wanted, scaling=scaling)
        rate, window_s = way(task, Watch(fifo, epochs))
    images = (epochs - 1) * wanted.steps_per_epoch * training.global_batch
    tell(fifo, SPEED, images=images, images_per_s=rate, whole_images_per_s=images / window_s)


def by_ray(task: Task, watch: Watch) -> tuple[float, float]:
    """Images per second, and seconds of the window."""
    wanted = task.spec
    with connect():
        spec = preflight(task.dataset, model=wanted.model, training=wanted.training, scaling=task.scaling, seed=0)
        document = launch.train(
            task.dataset, task.folder, task.fence, spec=spec, scaling=task.scaling, on_progress=watch
        )
    return document["images_per_s"], watch.seconds


def by_processes(task: Task, watch: Watch) -> tuple[float, float]:
    """The same by processes of our own."""
    os.environ.update(worker_environment(task.scaling.threads_per_worker))
    os.environ[TRANSPORT] = f"memory:{secrets.token_hex(16)}"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(WORKERS)
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_begin, initargs=(barrier,)) as pool:
        return next(iter(pool.map(_worker, [task] * WORKERS, range(WORKERS), [watch] * WORKERS)))


_meet: Callable[[], Any] = lambda: None  # noqa: E731 - of this process, once it has begun


def _begin(barrier: Any) -> None:
    global _meet
    _meet = barrier.wait


def _worker(task: Task, rank: int, watch: Watch) -> tuple[float, float]:
    done = work(task, rank=rank, world=WORKERS, emit=watch, meet=_meet)
    if isinstance(done, Exception):
        raise done
    return done["images_per_s"], watch.seconds


WAYS = {"ray": by_ray, "processes": by_processes}

if __name__ == "__main__":
    main()
