"""KerasTuner's Hyperband, again and again until so many epochs are trained. Without startup_ray.

PYTHON -m rig.sweep.hyperband ORDER     # in the environment of benchmarks/keras-tuner.txt

It has no trials at the same time on one machine, but for chief and workers that its user starts. Its trials go on from
the weights that they had in the bracket before, and it keeps each trial's best model on disk, as it always does.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from rig.sweep.plain import Noting, compiled, read, use_both_cores  # isort: skip - sets what KerasTuner's Keras reads

import keras
import keras_tuner

from rig.sweep.notes import answer
from rig.sweep.space import BATCHES, DENSE, FILTERS, OPTIMIZERS, RATES, REDUCTION, Order

FOREVER = 100
"""Iterations of Hyperband, of about 70 epochs each."""


class Enough(keras_tuner.errors.FatalError):
    """All that KerasTuner does not take for the failure of a trial."""


class Until(Noting):
    """Ends it all after so many epochs."""

    def __init__(self, folder: str, most: int) -> None:
        super().__init__(folder)
        self.most = most

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.epochs >= self.most:
            raise Enough


class Digits(keras_tuner.HyperModel):
    def build(self, hp: Any) -> Any:
        return compiled(
            rate=hp.Float("rate", *RATES, sampling="log"),
            optimizer=hp.Choice("optimizer", OPTIMIZERS),
            filters=hp.Choice("filters", FILTERS),
            dense=hp.Choice("dense", DENSE),
        )

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return model.fit(*args, batch_size=hp.Choice("batch", BATCHES), **kwargs)


def main(order: Order) -> None:
    use_both_cores()
    keras.utils.set_random_seed(order.seed)
    train, val = read(order.arrays)
    tuner = keras_tuner.Hyperband(
        Digits(),
        objective="val_accuracy",
        max_epochs=order.size.epochs,
        factor=REDUCTION,
        hyperband_iterations=FOREVER if order.epochs else 1,
        seed=order.seed,
        directory=order.folder,
        project_name="hyperband",
    )
    until = Until(order.folder, order.epochs or sys.maxsize)
    with suppress(Enough):
        tuner.search(*train, validation_data=val, callbacks=[until], verbose=0)
    answer(order.folder, {"trials": len(tuner.oracle.trials)})


if __name__ == "__main__":
    main(Order.parse(sys.argv[1]))
