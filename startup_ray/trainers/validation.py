"""Exact metrics of the val split: batches are fixed ranges of id order, and what is summed are integers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from startup_ray.metrics import confusion_scores
from startup_ray.trainers.cache import Rows
from startup_ray.trainers.cnn import LOSS_SCALE, Classifier
from startup_ray.trainers.messages import Findings

VALIDATION_ROWS = 256
"""Rows of a validation batch. Constant, because logits differ in their last bits between batch sizes."""


class Validation:
    """Called by all workers together; each takes whole batches."""

    def __init__(self, program: Classifier, rows: Rows, image_shape: tuple[int, int, int]) -> None:
        self._program, self._sync = program, program.sync
        self._classes = program.num_classes
        self._rows = rows
        self._labelled = np.flatnonzero(rows.labels >= 0)
        signature = [tf.TensorSpec([None, *image_shape], tf.uint8), tf.TensorSpec([None], tf.int32)]
        self._step = tf.function(program.eval_step, input_signature=signature, autograph=False)

    def __call__(self, epoch: int) -> Findings:  # noqa: ARG002 - the same after every epoch
        """`val/loss`, `val/accuracy`, `val/f1` (macro) and the model's own metrics; nothing without labelled rows."""
        if not self._labelled.size:
            return Findings()
        total = np.zeros(self._classes**2 + 1 + self._program.objective.size, np.int64)
        step = VALIDATION_ROWS * self._sync.world
        for start in range(VALIDATION_ROWS * self._sync.rank, len(self._labelled), step):
            places = self._labelled[start : start + VALIDATION_ROWS]
            total += self._step(self._rows.images[places], self._rows.labels[places]).numpy()
        pairs, (loss, *states) = np.split(np.asarray(self._sync.sum(tf.constant(total))), [self._classes**2])
        scores = confusion_scores(pairs.reshape(self._classes, self._classes))
        named = {
            "loss": int(loss) / LOSS_SCALE / len(self._labelled),
            "accuracy": float(scores["accuracy"]),
            "f1": float(scores["f1_macro"]),
            **self._program.objective.results([int(state) / LOSS_SCALE for state in states]),
        }
        return Findings(scores={f"val/{name}": value for name, value in named.items()})
