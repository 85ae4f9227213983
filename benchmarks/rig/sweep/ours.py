"""startup_ray's contestants, each a process of its own.

    python -m rig.sweep.ours prepare|slots|loop|nested|runs|search ORDER

`slots` and `nested` are sweeps; `loop` and `runs` train the same configurations one after the other: `loop` in its
own process without Ray, `runs` each by Ray Train.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import startup_ray as sr
from rig.sweep.jobs import dataset_of, fixed, prepare, searching
from rig.sweep.notes import answer, note
from rig.sweep.space import Order
from startup_ray import runs
from startup_ray.api import search_values
from startup_ray.job import Job
from startup_ray.jobspace import with_values
from startup_ray.lease import hold
from startup_ray.planning import sweep_folder
from startup_ray.storage import Folder
from startup_ray.trainers import launch, worker
from startup_ray.trainers.backend import worker_environment
from startup_ray.trainers.preflight import make_spec, preflight
from startup_ray.trainers.worker import Outcome, Task
from startup_ray.tuning.journal import TRIAL, TRIALS
from startup_ray.tuning.study import Study
from startup_ray.tuning.sweep import sweep
from startup_ray.tuning.trial import Turns, train


def configurations(job: Job) -> Iterator[dict[str, Any]]:
    """What a sweep of this job tries, of a searcher that learns nothing."""
    assert job.sweep is not None
    study = Study(job.sweep.axes, searcher=job.sweep.searcher, mode="max", seed=job.seed)
    return (study.ask(number) or {} for number in range(job.sweep.trials))


def prepared(order: Order) -> None:
    prepare(order)
    tell(order)


def swept(order: Order, *, is_nested: bool) -> None:
    """As a user runs it, with the report at the end."""
    job, dataset, last = fixed(order, is_nested=is_nested), dataset_of(order), [0.0]

    def watch(_: Any) -> None:
        last[0] = time.monotonic()

    with sr.connect():
        began = time.monotonic()
        document = search_values(dataset, job, fresh=True, on_progress=watch)
        ended = time.monotonic()
    trials = Folder(document["sweep"]) / TRIALS
    tell(
        order,
        seconds=ended - began,
        after_s=ended - last[0],
        processes=document["processes"],
        trials=[
            (runs.read_json(trials / name, TRIAL)["values"], score(trials / name)) for name in sorted(trials.list())
        ],
    )


def loop(order: Order) -> None:
    """`worker.work` for one configuration after the other; TensorFlow is imported once, Ray is not started."""
    job, dataset = fixed(order, is_nested=False), dataset_of(order)
    os.environ.update(worker_environment(job.scaling.threads_per_worker))
    began, told = time.monotonic(), []
    import keras

    for number, values in enumerate(configurations(job)):
        keras.backend.clear_session()
        own, folder = with_values(job, values), place(order, number)
        spec = make_spec(dataset, model=own.model, training=own.training, scaling=own.scaling, seed=own.seed)
        with hold(folder) as lease:
            task = Task(dataset=dataset, folder=folder, fence=lease.fence, spec=spec, scaling=own.scaling)
            worker.work(task, rank=0, world=1, emit=lambda _: None, meet=lambda: None)
        told.append((values, score(folder)))
    tell(order, seconds=time.monotonic() - began, trials=told)


def one_by_one(order: Order) -> None:
    """`launch.train` for one configuration after the other."""
    job, dataset, told = fixed(order, is_nested=True), dataset_of(order), []
    with sr.connect():
        began = time.monotonic()
        for number, values in enumerate(configurations(job)):
            own, folder = with_values(job, values), place(order, number)
            spec = preflight(dataset, model=own.model, training=own.training, scaling=own.scaling, seed=own.seed)
            with hold(folder) as lease:
                launch.train(dataset, folder, lease.fence, spec=spec, scaling=own.scaling)
            told.append((values, score(folder)))
        ended = time.monotonic()
    tell(order, seconds=ended - began, trials=told)


def search(order: Order) -> None:
    """TPE and ASHA, with a note of each epoch."""
    job, dataset = searching(order), dataset_of(order)
    folder = sweep_folder(dataset, job, fresh=True)
    with sr.connect(), hold(folder) as lease:
        document = sweep(dataset, folder, lease.fence, job=job, trains=partial(noted, order.folder))
    tell(order, trials=document["trials"], epochs=document["epochs"])


def noted(notes: str, *trial: Any) -> tuple[int, Turns]:
    """A trial as `train` makes it from the same arguments, that tells of its epochs."""
    epochs, turns = train(*trial)

    def told() -> Turns:
        try:
            while True:
                line = next(turns)
                note(notes, line["val/accuracy"])
                yield line
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            turns.close()

    return epochs, told()


def place(order: Order, number: int) -> Folder:
    return Folder(f"{order.folder}/runs/{number:05d}")


def score(folder: Folder) -> float | None:
    """Of the last epoch; None for one that had none."""
    lines = runs.read_history(folder)
    return lines[-1]["val/f1"] if lines else None


def tell(order: Order, **document: Any) -> None:
    answer(order.folder, document)


WAYS: Mapping[str, Any] = {
    "prepare": prepared,
    "slots": partial(swept, is_nested=False),
    "loop": loop,
    "nested": partial(swept, is_nested=True),
    "runs": one_by_one,
    "search": search,
}

if __name__ == "__main__":
    WAYS[sys.argv[1]](Order.parse(sys.argv[2]))
