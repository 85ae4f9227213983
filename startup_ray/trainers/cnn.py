"""The classifier program: state, one training step, one evaluation step. Both steps return sums that add up.

A replica's loss is the sum over its rows divided by the *global* batch, so gradients of replicas are summed, not
averaged, and slices of different length weigh what they should. Gradients and metric sums of a step travel in one
packed vector. Whatever is random is a function of (seed, step), so that a step begun again is the same step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from startup_ray.errors import StorageError
from startup_ray.job import AugmentOptions, CnnOptions, TrainingOptions
from startup_ray.metrics import confusion_scores
from startup_ray.trainers import augment
from startup_ray.trainers.cache import Rows
from startup_ray.trainers.feed import share
from startup_ray.trainers.models import build_cnn
from startup_ray.trainers.norm import batch_norms, synchronise
from startup_ray.trainers.optimizer import make_optimizer
from startup_ray.trainers.sync import Sync

LOSS_SCALE = 2**20
"""Evaluation losses are int64 in units of 1/LOSS_SCALE: integers add up the same in any order."""
VALIDATION_ROWS = 256
"""Rows of a validation batch. Constant, because logits differ in their last bits between batch sizes."""
MAX_LOSS = 1e5
"""A row's loss counts at most this much in evaluation: 90 million such rows still fit 63 bits."""
AUGMENTATION, DROPOUT = 0, 1
"""What draws random numbers, so that no two draw the same."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    model: Any
    optimizer: Any
    sync: Sync
    global_batch: int
    """Rows of one step over all workers together, whatever slice of them `train_step` is handed."""
    num_classes: int
    augment: AugmentOptions
    seed: int

    def train_step(self, images: Any, labels: Any, step: Any) -> Any:
        """One step on this worker's share of the global batch.

        Args:
            images: uint8 [b, H, W, C].
            labels: int32 [b].
            step: int64 [], from 0 over the whole run.

        Returns:
            float32 [2] over the global batch: mean cross-entropy, rows predicted right.
        """
        inputs = self._augmented(tf.cast(images, tf.float32), step)
        self._seed_dropout(step)
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self.model(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / self.global_batch
            # Each worker adds the share of a penalty that its rows are of the global batch: their sum is the whole.
            penalties = [penalty * (inputs.shape[0] / self.global_batch) for penalty in self.model.losses]
            total = tf.add_n([loss, *penalties])
        gradients = tape.gradient(total, weights, unconnected_gradients="zero")
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

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the moving average of the weights, if there is one, in the place of the weights.

        Statistics of BatchNormalization stay: they are averages already.
        """
        if not self.optimizer.use_ema:
            yield
            return
        weights = self.model.trainable_variables
        raw = [np.asarray(weight) for weight in weights]
        try:
            # Keras' public way, `finalize_variable_values`, is of no return: the raw weights would be lost.
            for weight, average in zip(weights, self.optimizer._model_variables_moving_average, strict=True):
                weight.assign(average)
            yield
        finally:
            for weight, value in zip(weights, raw, strict=True):
                weight.assign(value)

    def messages(self) -> list[int]:
        """Numbers in each all-reduce of a step: the packed gradients, and two for each BatchNormalization."""
        packed = sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables) + 2
        norms = [3 * int(layer.moving_mean.shape[0]) for layer in batch_norms(self.model)]
        return [packed, *norms, *norms]

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

    def _augmented(self, images: Any, step: Any) -> Any:
        if not augment.is_active(self.augment):
            return images
        low, high = share(self.global_batch, self.sync.rank, self.sync.world)
        draws = augment.draws(_seed(self.seed, step, AUGMENTATION), self.global_batch)
        return augment.augment(images, draws[low:high], self.augment)

    def _seed_dropout(self, step: Any) -> None:
        """Set what Keras' layers draw from: never the same on two workers, or in two steps, or in two layers."""
        weights = {id(weight) for weight in self.model.weights}
        states = [variable for variable in self.model.variables if id(variable) not in weights]
        for index, state in enumerate(states):
            state.assign(tf.cast(_seed(self.seed, step, DROPOUT, self.sync.rank, index), state.dtype))

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables]


def make_classifier(
    image_shape: tuple[int, int, int],
    num_classes: int,
    model: CnnOptions,
    training: TrainingOptions,
    sync: Sync,
    *,
    seed: int,
    steps: int,
) -> Classifier:
    """A classifier with the weights that Keras' seed gives, at the first of `steps` steps."""
    network = build_cnn(image_shape, num_classes, model)
    synchronise(network, sync)
    optimizer = make_optimizer(training, steps)
    optimizer.build(network.trainable_variables)
    return Classifier(
        model=network,
        optimizer=optimizer,
        sync=sync,
        global_batch=training.global_batch,
        num_classes=num_classes,
        augment=training.augment,
        seed=seed,
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


def _seed(seed: int, *path: Any) -> Any:
    """int64 [2], another for each path of integers or int64 scalars."""
    key = tf.constant([seed, 0], tf.int64)
    for part in path:
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(part, tf.int64))
    return key


def _predicted(logits: Any) -> Any:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _sum_packed(tensors: Sequence[Any], sync: Sync) -> list[Any]:
    """Sum float tensors over the workers in one message: latency, not size, is what small nets pay for."""
    packed = tf.concat([tf.reshape(tf.convert_to_tensor(tensor), [-1]) for tensor in tensors], 0)
    parts = tf.split(sync.sum(packed), [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
