"""A finished run made by hand: its model looks for the bright band of each class in `patterns`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from startup_ray.dataset import Dataset
from startup_ray.job import Job
from startup_ray.runs import Run, put_json, read_run
from startup_ray.storage import Folder

CLASSES = ("0", "1", "2")
SIZE = 8


def job_for(ingest: dict[str, Any] | None = None) -> Job:
    wanted = {"manifest": "of the run", "image": {"size": [SIZE, SIZE], "channels": 1}} | (ingest or {})
    return Job.model_validate({"name": "x", "ingest": wanted})


def finished(
    folder: Folder, dataset: Dataset | None = None, *, policy: str = "float32", job: Job | None = None, **net: Any
) -> Run:
    """With all that `export` and `predict` look at."""
    put_json(folder, "classes.json", list(CLASSES))  # type: ignore[arg-type]
    folder.put_whole("job.yaml", yaml.safe_dump((job or job_for()).model_dump(mode="json")).encode())
    if dataset:
        put_json(folder, "dataset.json", {"dataset": str(dataset.folder), "digest": dataset.digest})
    put_json(folder, "exit.json", {"run": str(folder)})
    model = net_of(policy, **net)
    model.save(folder.path("model.keras"))
    return read_run(folder)


def net_of(policy: str = "float32", *, fill: float = 1.0, nested: bool = False) -> Any:
    """Convolution, BatchNormalization and dropout, seeded, beside a dense layer that knows the classes."""
    import keras

    keras.utils.set_random_seed(7)
    inputs = keras.Input((SIZE, SIZE, 1))
    inner = [
        keras.layers.Rescaling(1 / 255, dtype=policy),
        keras.layers.Conv2D(4, 3, use_bias=False, dtype=policy),
        keras.layers.BatchNormalization(dtype=policy),
        keras.layers.ReLU(dtype=policy),
        keras.layers.MaxPooling2D(2, dtype=policy),
        keras.layers.Dropout(0.3, dtype=policy),
        keras.layers.Flatten(dtype=policy),
    ]
    seen = keras.Sequential(inner)(inputs) if nested else chain(inner, inputs)
    flat = keras.layers.Flatten(dtype=policy)(inputs)
    known, learned = keras.layers.Dense(3, dtype=policy), keras.layers.Dense(3, dtype=policy)
    model = keras.Model(inputs, keras.layers.Add(dtype=policy)([known(flat), learned(seen)]))
    kernel = np.zeros((SIZE, SIZE, 3), np.float32)
    for label in range(3):
        kernel[label * (SIZE // 3) : (label + 1) * (SIZE // 3), :, label] = fill / 300
    known.set_weights([kernel.reshape(-1, 3), np.zeros(3)])
    return model


def chain(layers: Sequence[Any], value: Any) -> Any:
    for layer in layers:
        value = layer(value)
    return value
