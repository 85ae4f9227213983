"""The classifier program: state, one training step, one evaluation step. Both steps return sums that add up.

A replica's loss is the sum over its rows divided by the *global* batch, so gradients of replicas are summed, not
averaged, and slices of different length weigh what they should. Whatever is random is a function of (seed, step), so
that a step begun again is the same step. Any Keras model with logits can be trained so, whoever has built it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from startup_ray.errors import first_line
from startup_ray.job import AugmentOptions
from startup_ray.trainers import augment
from startup_ray.trainers.feed import places_of
from startup_ray.trainers.norm import batch_norms
from startup_ray.trainers.objective import Objective
from startup_ray.trainers.seeds import seed_of
from startup_ray.trainers.state import Stateful, replaced
from startup_ray.trainers.sync import Sync

LOSS_SCALE = 2**20
"""Evaluation losses are int64 in units of 1/LOSS_SCALE: integers add up the same in any order."""
MAX_LOSS = 1e5
"""A row's loss counts at most this much in evaluation: 90 million such rows still fit 63 bits."""
AUGMENTATION, DROPOUT = 0, 1
"""What draws random numbers, so that no two draw the same."""


@dataclass(frozen=True, kw_only=True)
class Classifier(Stateful):
    model: Any
    optimizer: Any
    objective: Objective
    sync: Sync
    global_batch: int
    """Rows of one step over all workers together, whatever slice of them `train_step` is handed."""
    num_classes: int
    augment: AugmentOptions
    seed: int
    class_weights: tuple[float, ...] = ()
    """Factor of a row's training loss by its class; empty: 1."""
    accumulate: int = 1
    """Parts of a step, of equal size; their gradients are added up."""
    xla: bool = False

    @property
    def sums(self) -> int:
        """Numbers that `train_step` returns."""
        return 2 + self.objective.size

    def train_step(self, images: Any, labels: Any, step: Any) -> Any:
        """One step on this worker's share of the global batch.

        Args:
            images: uint8 [b, H, W, C].
            labels: int32 [b].
            step: int64 [], from 0 over the whole run.

        Returns:
            float32 [sums] of this worker's rows alone: loss as a share of the global batch's mean, rows predicted
            right, states of the metrics. Whoever adds up steps adds up workers as well.
        """
        inputs = self._augmented(tf.cast(images, tf.float32), step)
        if self.accumulate == 1:
            gradients, sums = self._part(inputs, labels, step, 0)
        else:
            gradients, sums = self._parts(inputs, labels, step)
        totals = self.sync.sum_all(gradients)
        self.optimizer.apply(totals, self.model.trainable_variables)
        return sums

    def eval_step(self, images: Any, labels: Any) -> Any:
        """uint8 [b, H, W, C], int32 [b] -> int64 [classes**2 + 1 + n]: confusion matrix by rows, loss, metrics' states.

        A row of the matrix is a true class, a column a predicted one; the rest is in units of 1/LOSS_SCALE.
        """
        logits = self._logits(tf.cast(images, tf.float32), training=False)
        pairs = tf.math.confusion_matrix(labels, _predicted(logits), self.num_classes, dtype=tf.int64)
        losses = tf.cast(self.objective.losses(labels, logits), tf.float64)
        losses = tf.where(losses < MAX_LOSS, losses, MAX_LOSS)  # NaN is not below anything
        fixed = tf.cast(tf.round(losses * LOSS_SCALE), tf.int64)
        states = tf.cast(self.objective.states(labels, logits), tf.float64) * LOSS_SCALE
        states = tf.cast(tf.round(tf.where(tf.math.is_finite(states), states, 0)), tf.int64)
        return tf.concat([tf.reshape(pairs, [-1]), tf.reduce_sum(fixed, keepdims=True), states], 0)

    def train_scores(self, sums: Sequence[float], steps: int) -> dict[str, float]:
        """What `train_step` returned, added up over steps and workers -> `train/loss`, `train/accuracy` and metrics."""
        loss, hits, *states = sums
        named = {"loss": loss / steps, "accuracy": hits / (steps * self.global_batch), **self.objective.results(states)}
        return {f"train/{name}": value for name, value in named.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the moving average of the weights, if there is one, in the place of the weights.

        Statistics of BatchNormalization stay: they are averages already.
        """
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # behind the scaling of losses
        if not optimizer.use_ema:
            yield
            return
        # Keras' public way, `finalize_variable_values`, is of no return: the raw weights would be lost.
        with replaced(self.model.trainable_variables, optimizer._model_variables_moving_average):
            yield

    def compiles(self, image_shape: tuple[int, int, int]) -> str:
        """Why XLA cannot compile a pass of this model; empty if it can. Some deterministic operations it has not."""
        kept = [np.asarray(weight) for weight in self.model.weights]  # a pass moves BatchNormalization's statistics
        rows = len(places_of(self.global_batch, self.sync.rank, self.sync.world, self.accumulate)) // self.accumulate
        images = tf.zeros([rows, *image_shape])
        try:
            self._compiled(images, tf.zeros([rows], tf.int32))
        except tf.errors.OpError as error:
            return first_line(error)
        finally:
            for weight, value in zip(self.model.weights, kept, strict=True):
                weight.assign(value)
        return ""

    def messages(self) -> list[int]:
        """Numbers in each all-reduce of a step: the gradients, and two for each BatchNormalization."""
        packed = sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables)
        norms = [3 * int(layer.moving_mean.shape[0]) for layer in batch_norms(self.model) if layer.trainable]
        return [packed, *(2 * self.accumulate * norms)]

    def _parts(self, inputs: Any, labels: Any, step: Any) -> tuple[list[Any], Any]:
        """`_part` of each part, one after the other so that one at a time is in memory, added up."""
        rows = inputs.shape[0] // self.accumulate

        def body(i: Any, totals: Any, sums: Any) -> Any:
            here = slice(i * rows, (i + 1) * rows)
            gradients, more = self._part(
                tf.ensure_shape(inputs[here], [rows, *inputs.shape[1:]]), tf.ensure_shape(labels[here], [rows]), step, i
            )
            return i + 1, [total + new for total, new in zip(totals, gradients, strict=True)], sums + more

        zeros = [tf.zeros(variable.shape, tf.float32) for variable in self.model.trainable_variables]
        start = (tf.constant(0), zeros, tf.zeros([self.sums], tf.float32))
        _, totals, sums = tf.while_loop(lambda i, *_: i < self.accumulate, body, start, parallel_iterations=1)
        return totals, sums

    def _part(self, inputs: Any, labels: Any, step: Any, part: Any) -> tuple[list[Any], Any]:
        """Gradients of these rows' share of the loss, float32, and their sums as `train_step` returns them."""
        self._seed_dropout(step, part)
        gradients, sums = self._compiled(inputs, labels) if self.xla else self._gradients(inputs, labels)
        return list(gradients), sums

    @cached_property
    def _compiled(self) -> Any:
        return tf.function(self._gradients, jit_compile=True, autograph=False)

    def _gradients(self, inputs: Any, labels: Any) -> tuple[list[Any], Any]:
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self._logits(inputs, training=True)
            losses = self.objective.losses(labels, logits)
            if self.class_weights:
                losses *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
            loss = tf.reduce_sum(losses) / self.global_batch
            # Each worker adds the share of a penalty that its rows are of the global batch: their sum is the whole.
            share = inputs.shape[0] / self.global_batch
            penalties = [tf.cast(penalty, tf.float32) * share for penalty in self.model.losses]
            total = self.optimizer.scale_loss(tf.add_n([loss, *penalties]))
        gradients = tape.gradient(total, weights, unconnected_gradients="zero")
        hits = tf.reduce_sum(tf.cast(_predicted(logits) == labels, tf.float32))
        sums = tf.concat([tf.stack([loss, hits]), self.objective.states(labels, logits)], 0)
        return [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients], sums

    def _logits(self, images: Any, *, training: bool) -> Any:
        return tf.cast(self.model(images, training=training), tf.float32)

    def _augmented(self, images: Any, step: Any) -> Any:
        if not augment.is_active(self.augment):
            return images
        draws = augment.draws(seed_of(self.seed, step, AUGMENTATION), self.global_batch)
        places = places_of(self.global_batch, self.sync.rank, self.sync.world, self.accumulate)
        return augment.augment(images, tf.gather(draws, places), self.augment)

    def _seed_dropout(self, step: Any, part: Any) -> None:
        """Set what Keras' layers draw from: never the same on two workers, or in two steps, or in two layers."""
        weights = {id(weight) for weight in self.model.weights}
        states = [variable for variable in self.model.variables if id(variable) not in weights]
        for index, key in enumerate(states):
            key.assign(tf.cast(seed_of(self.seed, step, DROPOUT, self.sync.rank, index, part), key.dtype))

    def _weights(self) -> list[Any]:
        return list(self.model.weights)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables]


def _predicted(logits: Any) -> Any:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)
