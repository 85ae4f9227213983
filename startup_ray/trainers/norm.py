"""Batch normalisation over the global batch.

Keras' `synchronized=True` does nothing outside a distribution strategy, in silence, and the transport has no gradient
of its own. So the moments of a layer become one packed sum of (sum of x, sum of x squared, number of x) over all
workers, whose gradient is the same sum of the gradients.

    synchronise(model, sync)        # the model stays ordinary Keras: saved, it knows nothing of this
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from startup_ray.errors import UsageError
from startup_ray.trainers.sync import Sync
from startup_ray.usercode import WHERE


def synchronise(model: Any, sync: Sync) -> None:
    """Let the BatchNormalization layers of a model, nested ones too, see the rows of all workers in training.

    Raises:
        UsageError: a layer with `renorm`, whose further statistics would be a worker's own.
    """
    require_supported(model)
    for layer in batch_norms(model):
        layer._moments = _moments_of(layer, sync)


def require_supported(model: Any) -> None:
    """Raise UsageError for a layer with `renorm`, whose further statistics would be a worker's own."""
    for layer in batch_norms(model):
        if layer.renorm:
            raise UsageError(
                f"layer {layer.name!r}: renorm is not supported", where=WHERE, hint="build it with renorm=False"
            )


def batch_norms(model: Any) -> list[Any]:
    """All BatchNormalization layers, nested ones too."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def _moments_of(layer: Any, sync: Sync) -> Callable[[Any, Any], tuple[Any, Any]]:
    """What replaces `BatchNormalization._moments` of Keras 3.15: inputs and mask -> mean and variance, each [C]."""

    def moments(inputs: Any, mask: Any) -> tuple[Any, Any]:
        axes = layer._reduction_axes
        weight = tf.ones_like(inputs) if mask is None else tf.cast(mask[..., None], inputs.dtype) * tf.ones_like(inputs)
        parts = [tf.reduce_sum(part, axes) for part in (weight * inputs, weight * tf.square(inputs), weight)]
        total, squares, count = tf.unstack(_summed(tf.stack(parts), sync))
        count = tf.maximum(count, 1.0)
        mean = total / count
        return mean, tf.maximum(squares / count - tf.square(mean), 0.0)

    return moments


def _summed(values: Any, sync: Sync) -> Any:
    """Sum over all workers that gradients flow through."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(own: Any) -> tuple[Any, Callable[[Any], Any]]:
        return sync.sum(own), sync.sum

    return forward(values)
