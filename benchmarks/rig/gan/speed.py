"""Steps per second of one contestant on one core, or of two workers on two."""

from __future__ import annotations

import multiprocessing
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from rig.gan.case import BATCH, SHAPE, digits, program

WARM_UP = 32
STEPS_PER_CALL = 16


def measure(kind: str, steps: int) -> dict[str, Any]:
    """`nets:loop` -> steps per second, and CPU milliseconds of a step."""
    nets, way = kind.split(":")
    if way == "two":
        return _two(nets, steps)
    _pin(0)
    run = _ours(nets) if way == "ours" else _peer(nets, way)
    return _timed(run, steps)


def _timed(run: Callable[[int], Any], steps: int) -> dict[str, Any]:
    run(WARM_UP)
    began, cpu_began = time.perf_counter(), time.process_time()
    run(steps)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return {"steps/s": steps / wall_s, "CPU ms per step": 1e3 * cpu_s / steps}


def _pin(core: int) -> None:
    import tensorflow as tf

    os.sched_setaffinity(0, {core})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _ours(nets: str, rank: int = 0, world: int = 1, token: str = "") -> Callable[[int], Any]:
    """Production's step, `tf.function` over several steps and feed, op determinism on."""
    import tensorflow as tf

    from startup_ray.trainers import loop
    from startup_ray.trainers.feed import Feed
    from startup_ray.trainers.loop import Plan
    from startup_ray.trainers.sync import connect

    tf.config.experimental.enable_op_determinism()
    sync = connect(world=world, rank=rank, transport=f"memory:{token}")
    made, found = program(nets, sync), digits()
    feed = Feed(
        images=found.train,
        labels=found.train_labels,
        global_batch=BATCH,
        seed=0,
        rank=rank,
        world=world,
        takes_unlabelled=True,
    )
    far = 10**9
    plan = Plan(
        steps=far, steps_per_epoch=feed.steps_per_epoch, steps_per_call=STEPS_PER_CALL, checkpoint_every_steps=far
    )
    together = loop.many_steps(made.train_step, feed.rows, SHAPE, made.sums, sync.sum)
    batches = feed.batches(loop.chunks(plan, 0))

    def run(steps: int) -> None:
        while steps > 0:
            chunk, images, labels = next(batches)
            np.asarray(together(images, labels, chunk.first))
            steps -= chunk.count

    return run


def _peer(nets: str, way: str) -> Callable[[int], Any]:
    from rig.gan import peers
    from startup_ray.trainers.sync import alone

    made = program(nets, alone())
    make = peers.tutorial if way == "tutorial" else peers.keras_fit
    return make(made.generator, made.discriminator, digits().train, made.recipe.noise)


def _two(nets: str, steps: int) -> dict[str, Any]:
    """Two workers share the global batch, each on a core of its own."""
    context = multiprocessing.get_context("spawn")
    token, told = uuid.uuid4().hex, context.Queue()
    workers = [context.Process(target=_worker, args=(nets, rank, token, steps, told)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    return {key: (sum if key.startswith("CPU") else min)(each[key] for each in found) for key in found[0]}


def _worker(nets: str, rank: int, token: str, steps: int, told: Any) -> None:
    _pin(rank)
    told.put(_timed(_ours(nets, rank, 2, token), steps))
