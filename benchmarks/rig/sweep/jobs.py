"""The job that all of startup_ray's contestants share, its dataset, and the arrays in it for the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import startup_ray as sr
from rig.sweep.space import BATCHES, DENSE, FILTERS, OPTIMIZERS, RATES, REDUCTION, Order
from startup_ray.dataset import Dataset
from startup_ray.job import Job
from startup_ray.jobfile import parse_job
from startup_ray.planning import need_dataset
from startup_ray.trainers.cache import open_split

SPACE = {
    "training.learning_rate": f"loguniform({RATES[0]}, {RATES[1]})",
    "training.optimizer": f"choice({', '.join(OPTIMIZERS)})",
    "training.global_batch": f"choice({', '.join(map(str, BATCHES))})",
    "model.filters": f"choice({', '.join(f'[{filters}]' for filters in FILTERS)})",
    "model.dense": f"choice({', '.join(map(str, DENSE))})",
}
INGEST = {
    "manifest": "sample:digits",
    "image": {"size": [28, 28], "channels": 1},
    "split": {"val": 0.3, "test": 0.2},
}


def job_of(order: Order, sweep: Mapping[str, Any], *, monitor: str = "val/f1") -> Job:
    """Of a sweep of one worker with one thread per trial; the best are not trained again."""
    document = {
        "name": "sweep",
        "seed": order.seed,
        "storage": order.storage,
        "ingest": INGEST,
        "training": {"epochs": order.size.epochs, "monitor": monitor},
        "scaling": {"workers": 1, "threads_per_worker": 1},
        "sweep": {"space": SPACE, "slots": order.slots, "confirm": 0, **sweep},
    }
    return parse_job(json.dumps(document))  # JSON is YAML


def fixed(order: Order, *, is_nested: bool) -> Job:
    """Of a sweep whose configurations depend on no result, and of which none is stopped."""
    trials = order.size.nested if is_nested else order.size.trials
    kind = "nested" if is_nested else "slot"
    return job_of(order, {"searcher": "random", "scheduler": "none", "trials": trials, "trial": kind})


def searching(order: Order) -> Job:
    sweep = {"searcher": "tpe", "scheduler": "asha", "reduction": REDUCTION, "trials": order.size.trials}
    return job_of(order, sweep, monitor="val/accuracy")


def dataset_of(order: Order) -> Dataset:
    """Made by `prepare` before."""
    return need_dataset(fixed(order, is_nested=False))


def prepare(order: Order) -> None:
    """Make the dataset, decode it into the cache, and write `order.arrays`."""
    with sr.connect():
        dataset = sr.ingest_images(fixed(order, is_nested=False))
    splits = {split: open_split(dataset, split) for split in ("train", "val")}
    arrays: dict[str, Any] = {f"{split}_images": rows.images for split, rows in splits.items()}
    arrays |= {f"{split}_labels": rows.labels for split, rows in splits.items()}
    np.savez(Path(order.arrays), **arrays)
