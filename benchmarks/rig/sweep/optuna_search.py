"""Optuna in one process, around Keras' `fit`: TPE, and successive halving as pruner. Without startup_ray.

python -m rig.sweep.optuna_search ORDER
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import optuna

from rig.sweep.notes import answer
from rig.sweep.plain import Noting, compiled, read, use_both_cores
from rig.sweep.space import BATCHES, DENSE, FILTERS, OPTIMIZERS, RATES, REDUCTION, Order


class Pruning(Noting):
    """As `optuna_integration.KerasPruningCallback`, with epochs counted from 1: rungs are at 1, 3 and 9."""

    def __init__(self, folder: str, trial: optuna.Trial) -> None:
        super().__init__(folder)
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.trial.report(float(logs["val_accuracy"]), epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def main(order: Order) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    use_both_cores()
    train, val = read(order.arrays)

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        keras.utils.set_random_seed(order.seed)
        model = compiled(
            rate=trial.suggest_float("rate", *RATES, log=True),
            optimizer=trial.suggest_categorical("optimizer", OPTIMIZERS),
            filters=trial.suggest_categorical("filters", FILTERS),
            dense=trial.suggest_categorical("dense", DENSE),
        )
        found = model.fit(
            *train,
            batch_size=trial.suggest_categorical("batch", BATCHES),
            epochs=order.size.epochs,
            validation_data=val,
            callbacks=[Pruning(order.folder, trial)],
            verbose=0,
        )
        return float(max(found.history["val_accuracy"]))

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    sampler = optuna.samplers.TPESampler(seed=order.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=order.size.trials)
    answer(order.folder, {"trials": len(study.trials)})


if __name__ == "__main__":
    main(Order.parse(sys.argv[1]))
