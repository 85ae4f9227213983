"""What peers are given: our network in plain Keras, our images, both cores. Without startup_ray."""

from __future__ import annotations

import os

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rig.sweep.notes import note

THREADS = 2
"""Of one process that has the machine to itself; each of our two trials at a time has one."""
SHAPE = (28, 28, 1)
CLASSES = 10


def use_both_cores() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def read(arrays: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Images float32 in [0, 255] and labels int32, to train on and to validate with."""
    with np.load(arrays) as found:
        train, val = ((found[f"{split}_images"], found[f"{split}_labels"]) for split in ("train", "val"))
    return (train[0].astype(np.float32), train[1]), (val[0].astype(np.float32), val[1])


def compiled(*, rate: float, optimizer: str, filters: int, dense: int) -> Any:
    """The layers of `startup_ray.trainers.models.build_cnn`."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.Conv2D(filters, 3),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(dense, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )
    model.compile(
        optimizer={"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[optimizer](rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class Noting(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes each epoch, of whatever trial."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.epochs = folder, 0

    def __deepcopy__(self, _: Any) -> Noting:
        """KerasTuner copies callbacks for each trial; epochs are counted over all."""
        return self

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.epochs += 1
        note(self.folder, float(logs["val_accuracy"]))
