"""The memory-mapped feed against its limit: the same loop on tensors that never change.

    python benchmarks/feed.py [--rows 20000] [--epochs 1] [--rounds 5]

Both train the seed CNN (Conv32-MaxPool-Flatten-Dense128-Dense10) on 28x28x1 in one process with one thread, one
after the other in each round. Printed are CPU microseconds per image of each round, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

from startup_ray.job import CnnOptions, TrainingOptions
from startup_ray.trainers import loop
from startup_ray.trainers.cnn import make_classifier
from startup_ray.trainers.feed import Feed, prefetch
from startup_ray.trainers.loop import Chunk, Hooks, Plan
from startup_ray.trainers.sync import connect

SHAPE = (28, 28, 1)
BATCH = 64
STEPS_PER_CALL = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        feed = make_feed(Path(folder), args.rows)
        plan = Plan(
            epochs=args.epochs,
            steps_per_epoch=feed.steps_per_epoch,
            steps_per_call=STEPS_PER_CALL,
            checkpoint_every_steps=10**9,
        )
        train = make_loop()
        kinds = {"fixed": lambda: fixed(feed, plan), "feed": lambda: prefetch(feed.batches(loop.chunks(plan, 0)))}
        for batches in kinds.values():
            train(batches)  # builds the graph, fills the page cache
        cost: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(args.rounds):
            for name, batches in kinds.items():
                began = time.process_time()
                train(batches)
                cost[name].append((time.process_time() - began) / (plan.steps * BATCH) * 1e6)
    for name, figures in cost.items():
        print(f"{name:6} {statistics.median(figures):7.1f} CPU us/image   {[round(figure, 1) for figure in figures]}")
    print(f"fixed / feed: {statistics.median(cost['fixed']) / statistics.median(cost['feed']):.3f} of the limit")


def make_feed(folder: Path, rows: int) -> Feed:
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (rows, *SHAPE), np.uint8))
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = rng.integers(0, 10, rows).astype(np.int32)
    return Feed(images=images, labels=labels, global_batch=BATCH, seed=0, rank=0, world=1)


def make_loop() -> Callable[[Callable[[], Iterator[tuple[Chunk, np.ndarray, np.ndarray]]]], None]:
    options = TrainingOptions(global_batch=BATCH)
    program = make_classifier(SHAPE, 10, CnnOptions(), options, connect(world=1, rank=0))
    steps = loop.many_steps(program.train_step, BATCH, SHAPE, sums=2)
    hooks = Hooks(on_chunk=lambda *_: None, on_epoch=lambda _: None, on_save=lambda _: None)
    return lambda batches: loop.run(loop.START, steps, batches(), hooks) and None


def fixed(feed: Feed, plan: Plan) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
    """The first chunk of the feed again and again, as tensors."""
    _, images, labels = next(feed.batches(loop.chunks(plan, 0)))
    images, labels = tf.constant(images), tf.constant(labels)
    for chunk in loop.chunks(plan, 0):
        yield chunk, images[: chunk.count], labels[: chunk.count]


if __name__ == "__main__":
    main()
