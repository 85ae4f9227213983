"""The networks. Contract of every classifier: images in [0, 255] in, logits out, rescaling inside.

    model = build_network((28, 28, 1), 10, CnnOptions())    # Keras is imported only here, not with this module

A network of `keras.applications` is built in `applications.py`, a user's own by the function that the job names.
"""

from __future__ import annotations

from typing import Any

from startup_ray.errors import UsageError, first_line
from startup_ray.job import ApplicationOptions, CnnOptions, ModelOptions, PythonOptions
from startup_ray.usercode import WHERE, Code

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
    if options.residual:  # pads, so that something is always left
        shrunk = POOL ** len(options.filters)
        return -(-height // shrunk), -(-width // shrunk), options.filters[-1]
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


def build_network(
    image_shape: tuple[int, int, int], num_classes: int, options: ModelOptions, code: Code | None = None
) -> Any:
    """Keras model: float32 [N, H, W, C] in [0, 255] -> logits [N, num_classes], its variables made.

    Args:
        code: where the function of `PythonOptions` comes from.

    Raises:
        UsageError: it cannot be built with these options for these images.
    """
    if isinstance(options, CnnOptions):
        return build_cnn(image_shape, num_classes, options)
    if isinstance(options, ApplicationOptions):
        from startup_ray.trainers.applications import build_application

        return build_application(image_shape, num_classes, options)
    assert isinstance(options, PythonOptions)
    assert code is not None
    return _build_own(image_shape, num_classes, options.args, code)


def build_cnn(image_shape: tuple[int, int, int], num_classes: int, options: CnnOptions) -> Any:
    """Per entry of `filters` a 3x3 convolution with ReLU and 2x2 max pooling, then a hidden dense layer.

    With `batch_norm` each convolution is normalised before its ReLU (Ioffe & Szegedy, arXiv:1502.03167); with
    `residual` there are two per entry and a shortcut past them (He et al., arXiv:1512.03385), and an average over the
    image instead of all its places goes to the dense layer.

    Raises:
        UsageError: the image is too small for so many convolutions.
    """
    import keras
    from keras import layers

    feature_shape(image_shape, options)
    l2 = keras.regularizers.L2(options.l2) if options.l2 else None
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in options.filters:
        x = _residual(x, filters, options, l2) if options.residual else _activate(_convolve(x, filters, options, l2))
        x = layers.MaxPooling2D(POOL, padding="same" if options.residual else "valid")(x)
    x = layers.GlobalAveragePooling2D()(x) if options.residual else layers.Flatten()(x)
    if options.dense:
        x = layers.Dense(options.dense, activation="relu", kernel_regularizer=l2)(x)
    if options.dropout:
        x = layers.Dropout(options.dropout)(x)
    return keras.Model(inputs, logits(x, num_classes, l2), name=options.kind)


def logits(x: Any, num_classes: int, l2: Any = None) -> Any:
    """The last layer of a classifier: float32 whatever the policy, for a softmax in 16 bits is too coarse."""
    from keras import layers

    return layers.Dense(num_classes, kernel_regularizer=l2, dtype="float32")(x)


def _residual(x: Any, filters: int, options: CnnOptions, l2: Any) -> Any:
    from keras import layers

    inner = _activate(_convolve(x, filters, options, l2))
    inner = _convolve(inner, filters, options, l2)
    if x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, use_bias=False, kernel_regularizer=l2)(x)
    return _activate(layers.Add()([inner, x]))


def _convolve(x: Any, filters: int, options: CnnOptions, l2: Any) -> Any:
    from keras import layers

    padding = "same" if options.residual else "valid"
    x = layers.Conv2D(filters, KERNEL, padding=padding, use_bias=not options.batch_norm, kernel_regularizer=l2)(x)
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x) if options.batch_norm else x


def _activate(x: Any) -> Any:
    from keras import layers

    return layers.ReLU()(x)


def _build_own(image_shape: tuple[int, int, int], num_classes: int, args: dict[str, Any], code: Code) -> Any:
    import keras

    function = code.load()
    try:
        model = function(image_shape, num_classes, **args)
        if isinstance(model, keras.Model):
            model(keras.ops.zeros((1, *image_shape)))  # makes the variables of a subclassed model
    except Exception as error:
        raise UsageError(f"{code.build} failed: {type(error).__name__}: {first_line(error)}", where=WHERE) from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{code.build} returned a {type(model).__name__}, not a keras.Model", where=WHERE)
    return model
