"""The networks. Contract of every classifier: images in [0, 255] in, logits out, rescaling inside.

model = build_cnn((28, 28, 1), 10, CnnOptions())       # Keras is imported only here, not with this module
"""

from __future__ import annotations

from typing import Any

from startup_ray.errors import UsageError
from startup_ray.job import CnnOptions

KERNEL = 3
POOL = 2
BATCH_NORM_MOMENTUM = 0.9
"""Keras' 0.99 takes 500 steps to forget its start, more than a small job has."""


def feature_shape(image_shape: tuple[int, int, int], options: CnnOptions) -> tuple[int, int, int]:
    """Height, width, channels behind the last pooling.

    Raises:
        UsageError: nothing would be left of the image.
    """
    height, width, channels = image_shape
    for number, filters in enumerate(options.filters, 1):
        height, width, channels = (height - KERNEL + 1) // POOL, (width - KERNEL + 1) // POOL, filters
        if min(height, width) < 1:
            raise UsageError(
                f"images of {image_shape[0]}x{image_shape[1]} pixels are too small for {len(options.filters)} "
                f"convolutions with pooling: nothing is left after number {number}",
                where="model.filters",
                hint=f"give at most {number - 1} filters, or a larger ingest.image.size"
                if number > 1
                else "give a larger ingest.image.size",
            )
    return height, width, channels


def build_cnn(image_shape: tuple[int, int, int], num_classes: int, options: CnnOptions) -> Any:
    """Keras model: float32 [N, H, W, C] in [0, 255] -> float32 logits [N, num_classes].

    Per entry of `filters` a 3x3 convolution with ReLU and 2x2 max pooling, then a hidden dense layer. With
    `batch_norm` each convolution is normalised before its ReLU (Ioffe & Szegedy, arXiv:1502.03167).

    Raises:
        UsageError: the image is too small for so many convolutions.
    """
    import keras
    from keras import layers

    feature_shape(image_shape, options)
    l2 = keras.regularizers.L2(options.l2) if options.l2 else None
    stack: list[Any] = [keras.Input(image_shape), layers.Rescaling(1 / 255)]
    for filters in options.filters:
        stack.append(layers.Conv2D(filters, KERNEL, use_bias=not options.batch_norm, kernel_regularizer=l2))
        if options.batch_norm:
            stack.append(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM))
        stack += [layers.ReLU(), layers.MaxPooling2D(POOL)]
    stack += [layers.Flatten(), layers.Dense(options.dense, activation="relu", kernel_regularizer=l2)]
    if options.dropout:
        stack.append(layers.Dropout(options.dropout))
    stack.append(layers.Dense(num_classes, kernel_regularizer=l2))
    return keras.Sequential(stack, name=options.kind)
