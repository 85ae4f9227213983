"""The stream against the memory-mapped feed, Ray Data's own `to_tf`, and the limit: tensors that never change.

    python benchmarks/stream.py [--rows 40000] [--rounds 3] [--store png] [--without to_tf]

Two workers of one thread train the seed CNN (Conv32-MaxPool-Flatten-Dense128-Dense10) together on 28x28x1 digits, one
epoch of each kind in every round, kinds one after the other. Printed are the medians over the rounds: images/s after
the first chunk, seconds until that chunk was there, and CPU microseconds per image of all processes of this Ray.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")

import numpy as np
import ray
from digits import make_digits
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from startup_ray.job import ImageOptions
from startup_ray.storage import Folder
from startup_ray.trainers.backend import KerasConfig, worker_environment

SHAPE = (28, 28, 1)
BATCH = 64
STEPS_PER_CALL = 16
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", choices=["png", "jpeg"], default="png")
    parser.add_argument("--without", action="append", default=[])
    args = parser.parse_args()
    kinds = [kind for kind in ("fixed", "memory", "stream", "to_tf") if kind not in args.without]
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as folder:
        os.environ.update(HOME=folder, STARTUP_RAY_CACHE=f"{folder}/cache")
        options = ImageOptions(size=SHAPE[:2], channels=1, store=args.store)
        dataset = make_digits(Folder(f"{folder}/dataset"), args.rows, options=options)
        # A third CPU is declared for `to_tf` alone, whose tasks want one; there are two.
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        try:
            figures = fit({"dataset": dataset, "kinds": kinds, "rounds": args.rounds}, folder)
        finally:
            ray.shutdown()
    show(figures)


def fit(config, folder):
    trainer = DataParallelTrainer(
        work,
        train_loop_config=config,
        backend_config=KerasConfig(),
        scaling_config=ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=f"{folder}/ray", worker_runtime_env={"env_vars": worker_environment(1)}),
        datasets={"train": decoded(config["dataset"])} if "to_tf" in config["kinds"] else None,
    )
    return trainer.fit().return_value


def work(config):
    """One worker: every kind in every round; the figures of rank 0."""
    import tensorflow as tf

    from startup_ray.job import CnnOptions, TrainingOptions
    from startup_ray.trainers import loop
    from startup_ray.trainers.backend import TRANSPORT
    from startup_ray.trainers.program import Spec, make_program
    from startup_ray.trainers.sync import connect

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rank = ray.train.get_context().get_world_rank()
    sync = connect(world=WORKERS, rank=rank, transport=os.environ[TRANSPORT])
    spec = Spec(
        image_shape=SHAPE,
        classes=tuple("0123456789"),
        class_rows=(config["dataset"].splits["train"],),
        model=CnnOptions(),
        training=TrainingOptions(global_batch=BATCH),
        seed=0,
    )
    program = make_program(spec, sync)
    rows = BATCH // WORKERS
    steps = loop.many_steps(program.train_step, rows, SHAPE, program.sums, sync.sum)
    warm = np.zeros((STEPS_PER_CALL, rows, *SHAPE), np.uint8)
    steps(warm, np.zeros(warm.shape[:2], np.int32), 0)
    figures = {kind: [] for kind in config["kinds"]}
    for _, kind in itertools.product(range(config["rounds"] + 1), config["kinds"]):
        figures[kind].append(epoch(steps, batches(kind, config["dataset"], rank), rows))
    return {kind: found[1:] for kind, found in figures.items()}  # the first round fills caches and starts processes


def epoch(steps, batches, rows):
    """images/s after the first chunk, seconds until it was there, CPU us per image of all processes."""
    cpu, began = cpu_s(), time.perf_counter()
    trained, first_s, first_step = 0, 0.0, 0
    for images, labels in batches:
        if not trained:
            first_s = time.perf_counter() - began
            first_step = len(labels)
        np.asarray(steps(images, labels, 0))
        trained += len(labels)
        if trained == first_step:
            warm = time.perf_counter()
    seconds = time.perf_counter() - warm
    images = trained * rows * WORKERS
    speed = (trained - first_step) * rows * WORKERS / seconds
    return speed, first_s, (cpu_s() - cpu) / images * 1e6


def batches(kind, dataset, rank):
    """Images [k, rows, H, W, C] and labels [k, rows] of one epoch."""
    import tensorflow as tf

    from startup_ray.trainers.cache import open_split
    from startup_ray.trainers.feed import Feed, prefetch, share
    from startup_ray.trainers.loop import Plan, chunks
    from startup_ray.trainers.stream import open_stream

    low, high = share(BATCH, rank, WORKERS)
    count = dataset.splits["train"] // BATCH
    plan = Plan(steps=count, steps_per_epoch=count, steps_per_call=STEPS_PER_CALL, checkpoint_every_steps=10**9)
    if kind == "to_tf":
        shard = ray.train.get_dataset_shard("train")
        tensors = shard.to_tf("image", "label", batch_size=high - low, drop_last=True, local_shuffle_buffer_size=1000)
        yield from tensors.batch(STEPS_PER_CALL, drop_remainder=True)
        return
    if kind == "stream":
        feed = open_stream(dataset, global_batch=BATCH, seed=0, epochs=1, positions=np.arange(low, high))
    else:
        found = open_split(dataset, "train")
        feed = Feed(images=found.images, labels=found.labels, global_batch=BATCH, seed=0, rank=rank, world=WORKERS)
    if kind == "fixed":
        _, images, labels = next(feed.batches(chunks(plan, 0)))
        yield from itertools.repeat((tf.constant(images), tf.constant(labels)), count // STEPS_PER_CALL)
        return
    for _, images, labels in prefetch(feed.batches(chunks(plan, 0))):
        yield images, labels


def decoded(dataset):
    """The train split as a user of Ray Data would write it."""
    from ray.data.expressions import col

    def decode(batch):
        import io

        from PIL import Image

        shape = dataset.image_shape
        images = [np.asarray(Image.open(io.BytesIO(image)), np.uint8).reshape(shape) for image in batch["image"]]
        return {"image": np.stack(images), "label": batch["label"].astype(np.int32)}

    rows = ray.data.read_parquet(dataset.folder.path("images")).select_columns(["image", "label", "split"])
    return rows.filter(expr=col("split") == "train").map_batches(decode, num_cpus=0.5)


def cpu_s():
    """CPU seconds so far of all processes of this Ray on this node."""
    import psutil

    total = 0.0
    for process in psutil.Process(os.getppid()).children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def show(figures):
    medians = {
        kind: [statistics.median(column) for column in zip(*found, strict=True)] for kind, found in figures.items()
    }
    for kind, (speed, first_s, cost) in medians.items():
        print(
            f"{kind:7} {speed:8,.0f} images/s  first chunk after {first_s:5.2f} s  {cost:6.1f} CPU us/image  "
            f"{speed / medians['memory'][0]:.2f} of memory   {[round(row[0]) for row in figures[kind]]}"
        )


if __name__ == "__main__":
    main()
