"""The classifier program: state, one training step, one evaluation step. Both steps return sums that add up.

A replica's loss is the sum over its rows divided by the *global* batch, so gradients of replicas are summed, not
averaged, and slices of different length weigh what they should. Gradients and metric sums of a step travel in one
packed vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from startup_ray.errors import StorageError
from startup_ray.job import CnnOptions, TrainingOptions
from startup_ray.metrics import confusion_scores
from startup_ray.trainers.cache import Rows
from startup_ray.trainers.models import build_cnn
from startup_ray.trainers.sync import Sync

LOSS_SCALE = 2**20
"""Evaluation losses are int64 in units of 1/LOSS_SCALE: integers add up the same in any order."""
VALIDATION_ROWS = 256
"""Rows of a validation batch. Constant, because logits differ in their last bits between batch sizes."""
MAX_LOSS = 1e5
"""A row's loss counts at most this much in evaluation: 90 million such rows still fit 63 bits."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    model: Any
    optimizer: Any
    sync: Sync
    global_batch: int
    """Rows of one step over all workers together, whatever slice of them `train_step` is handed."""
    num_classes: int

    def train_step(self, images: Any, labels: Any) -> Any:
        """uint8 [b, H, W, C], int32 [b] -> float32 [2] over the global batch: mean loss, rows predicted right."""
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self.model(tf.cast(images, tf.float32), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / self.global_batch
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        hits = tf.reduce_sum(tf.cast(_predicted(logits) == labels, tf.float32))
        *totals, sums = _sum_packed([*gradients, tf.stack([loss, hits])], self.sync)
        self.optimizer.apply(totals, self.model.trainable_variables)
        return sums

    def eval_step(self, images: Any, labels: Any) -> Any:
        """uint8 [b, H, W, C], int32 [b] -> int64 [classes**2 + 1]: confusion matrix by rows, then the loss.

        A row of the matrix is a true class, a column a predicted one; the loss is in units of 1/LOSS_SCALE.
        """
        logits = self.model(tf.cast(images, tf.float32), training=False)
        pairs = tf.math.confusion_matrix(labels, _predicted(logits), self.num_classes, dtype=tf.int64)
        losses = tf.cast(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), tf.float64)
        losses = tf.where(losses < MAX_LOSS, losses, MAX_LOSS)  # NaN is not below anything
        fixed = tf.cast(tf.round(losses * LOSS_SCALE), tf.int64)
        return tf.concat([tf.reshape(pairs, [-1]), tf.reduce_sum(fixed, keepdims=True)], 0)

    def arrays(self) -> list[np.ndarray]:
        """All that training goes on from: variables of the model, then of the optimizer."""
        return [np.asarray(variable) for variable in self._variables()]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Take over what `arrays` gave.

        Raises:
            StorageError: they are of another model.
        """
        variables = self._variables()
        if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
            raise StorageError("the checkpoint is of another model", hint="use --fresh")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def weights_digest(self) -> str:
        """`sha256:` and hex over the weights' shapes, dtypes and bytes in order; names and random seeds left out."""
        digest = hashlib.sha256()
        for weight in self.model.weights:  # unlike `variables`, without the state of seed generators
            array = np.ascontiguousarray(weight)
            digest.update(f"{array.shape}{array.dtype.str}".encode() + array.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(weight).all()) for weight in self.model.weights)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables]


def make_classifier(
    image_shape: tuple[int, int, int], num_classes: int, model: CnnOptions, training: TrainingOptions, sync: Sync
) -> Classifier:
    """A classifier with the weights that Keras' seed gives, and Adam (Kingma & Ba, arXiv:1412.6980) at zero."""
    network = build_cnn(image_shape, num_classes, model)
    optimizer = keras.optimizers.Adam(training.learning_rate)
    optimizer.build(network.trainable_variables)
    return Classifier(
        model=network, optimizer=optimizer, sync=sync, global_batch=training.global_batch, num_classes=num_classes
    )


class Validation:
    """Exact metrics of the val split: batches are fixed ranges of id order, and what is summed are integers."""

    def __init__(self, program: Classifier, rows: Rows, image_shape: tuple[int, int, int]) -> None:
        self._sync = program.sync
        self._classes = program.num_classes
        self._rows = rows
        self._labelled = np.flatnonzero(rows.labels >= 0)
        signature = [tf.TensorSpec([None, *image_shape], tf.uint8), tf.TensorSpec([None], tf.int32)]
        self._step = tf.function(program.eval_step, input_signature=signature, autograph=False)

    def __call__(self) -> dict[str, float]:
        """`val/loss`, `val/accuracy`, `val/f1` (macro); nothing without labelled rows."""
        if not self._labelled.size:
            return {}
        total = np.zeros(self._classes**2 + 1, np.int64)
        step = VALIDATION_ROWS * self._sync.world
        for start in range(VALIDATION_ROWS * self._sync.rank, len(self._labelled), step):
            places = self._labelled[start : start + VALIDATION_ROWS]
            total += self._step(self._rows.images[places], self._rows.labels[places]).numpy()
        total = np.asarray(self._sync.sum(tf.constant(total)))
        scores = confusion_scores(total[:-1].reshape(self._classes, self._classes))
        return {
            "val/loss": int(total[-1]) / LOSS_SCALE / len(self._labelled),
            "val/accuracy": float(scores["accuracy"]),
            "val/f1": float(scores["f1_macro"]),
        }


def _predicted(logits: Any) -> Any:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _sum_packed(tensors: Sequence[Any], sync: Sync) -> list[Any]:
    """Sum float tensors over the workers in one message: latency, not size, is what small nets pay for."""
    packed = tf.concat([tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors], 0)
    parts = tf.split(sync.sum(packed), [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
