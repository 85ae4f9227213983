"""What training makes small, and what it counts beside: losses per row and metrics whose states add up.

objective = cross_entropy(smoothing=0.1)            # of the job
objective, optimizer = take_compiled(model, 10)                    # of a model that its user has compiled
losses = objective.losses(labels, logits)           # int32 [b], float32 [b, classes] -> float32 [b]
states = objective.states(labels, logits)           # float32 [n]: what these rows add to the metrics
scores = objective.results(total)                   # sums of states -> {"top5": 0.93}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

OURS = ("loss", "accuracy", "f1")
"""Metrics that are counted anyway; a user's of the same name are left out."""
ONE_HOT = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalHinge,
)
"""Losses whose labels are vectors. All others are handed class numbers."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    row_losses: Callable[[Any, Any], Any]
    """Labels as `is_one_hot` says, float32 [b, classes] -> [b]."""
    is_one_hot: bool = False
    metrics: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in the states of all metrics together."""
        return sum(int(np.prod(variable.shape)) for variable in self._variables())

    def losses(self, labels: Any, logits: Any) -> Any:
        """int32 [b], float32 [b, classes] -> float32 [b]."""
        return tf.cast(self.row_losses(self._labels(labels, logits), logits), tf.float32)

    def states(self, labels: Any, logits: Any) -> Any:
        """int32 [b], float32 [b, classes] -> float32 [size]: the metrics' states after these rows alone."""
        parts = [tf.zeros([0], tf.float32)]
        for metric in self.metrics:
            start = [tf.zeros(variable.shape, variable.dtype) for variable in metric.variables]
            states = metric.stateless_update_state(start, self._labels(labels, logits), logits)
            parts += [tf.reshape(tf.cast(state, tf.float32), [-1]) for state in states]
        return tf.concat(parts, 0)

    def results(self, total: Sequence[float]) -> dict[str, float]:
        """Sums of `states` -> value by name; those of a metric that has several are numbered, and NaN is left out."""
        found: dict[str, float] = {}
        start = 0
        for metric in self.metrics:
            states = []
            for variable in metric.variables:
                size = int(np.prod(variable.shape))
                state = tf.constant(total[start : start + size], tf.float64)
                states.append(tf.reshape(tf.cast(state, variable.dtype), variable.shape))
                start += size
            values = np.asarray(metric.stateless_result(states), np.float64).reshape(-1)
            names = [metric.name] if values.size == 1 else [f"{metric.name}_{i}" for i in range(values.size)]
            found |= {name: value for name, value in zip(names, values.tolist(), strict=True) if math.isfinite(value)}
        return found

    def _labels(self, labels: Any, logits: Any) -> Any:
        return tf.one_hot(labels, logits.shape[-1]) if self.is_one_hot else labels

    def _variables(self) -> list[Any]:
        return [variable for metric in self.metrics for variable in metric.variables]


def cross_entropy(smoothing: float = 0.0) -> Objective:
    """Softmax cross-entropy of logits; `smoothing` of each row's weight is spread over all classes.

    Label smoothing: Szegedy et al., arXiv:1512.00567.
    """

    def losses(labels: Any, logits: Any) -> Any:
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if not smoothing:
            return hard
        even = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        return (1 - smoothing) * hard + smoothing * even

    return Objective(row_losses=losses)


def take_compiled(model: Any, num_classes: int) -> tuple[Objective, Any]:
    """Loss and metrics, and the optimizer, of a model compiled by its user, which is plain again afterwards.

    Plain, so that what is saved is the network alone and not its optimizer's state. Call `contract.require` before.
    """
    loss = keras.losses.get(model.loss)
    is_one_hot = isinstance(loss, ONE_HOT)
    labels = tf.zeros([1, num_classes]) if is_one_hot else tf.zeros([1], tf.int32)
    logits = tf.zeros([1, num_classes])
    objective = Objective(
        row_losses=lambda labels, logits: _per_row(loss.call(labels, logits)),
        is_one_hot=is_one_hot,
        metrics=tuple(metric for metric in compiled_metrics(model, labels, logits) if metric.name not in OURS),
    )
    optimizer = model.optimizer
    model.optimizer, model.compiled = None, False
    model._compile_loss = model._compile_metrics = None
    return objective, optimizer


def compiled_metrics(model: Any, labels: Any, logits: Any) -> list[Any]:
    """The metrics that a model was compiled with, built for labels and logits like these."""
    compiled = model._compile_metrics
    if compiled is None:
        return []
    if not compiled.built:
        compiled.build(labels, logits)
    for metric in compiled.metrics:  # some have no state before they have seen rows
        metric.update_state(labels, logits)
        metric.reset_state()
    return list(compiled.metrics)


def _per_row(losses: Any) -> Any:
    """[b, ...] -> [b], the mean over all other axes."""
    return tf.reduce_mean(losses, axis=list(range(1, losses.shape.rank)))
