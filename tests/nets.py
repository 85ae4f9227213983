"""Models as users write them, good and bad: `model: {kind: python, build: "tests.nets:small_resnet"}`."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
from keras import layers

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

Shape = tuple[int, int, int]


def small_resnet(image_shape: Shape, num_classes: int, filters: int = 4, rate: float = 0.05) -> Any:
    """Compiled, with an optimizer, a loss and metrics of its own, and normalised."""
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    shortcut = x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(num_classes)(x))
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), LOGITS, metrics=[top2, "accuracy"])
    return model


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, num_classes: int, units: int = 8, rate: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes, self.units, self.rate = num_classes, units, rate
        self.rescale = layers.Rescaling(1 / 255)
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(units, activation="relu")
        self.drop = layers.Dropout(rate)
        self.top = layers.Dense(num_classes)

    def call(self, images: Any, training: bool = False) -> Any:
        return self.top(self.drop(self.hidden(self.flatten(self.rescale(images))), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "units": self.units, "rate": self.rate}


def subclassed(image_shape: Shape, num_classes: int, units: int = 8, rate: float = 0.2) -> Any:
    """Not compiled: the job's optimizer and cross-entropy are used."""
    return Subclassed(num_classes, units, rate)


@keras.saving.register_keras_serializable("tests")
class Slow(layers.Layer):  # type: ignore[misc]
    """Takes its time in each training step."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.seconds:
            return x
        import tensorflow as tf

        with tf.control_dependencies([tf.numpy_function(self._sleep, [], tf.float32)]):
            return tf.identity(x)

    def _sleep(self) -> Any:
        time.sleep(self.seconds)
        return np.float32(0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seconds": self.seconds}


def slow(image_shape: Shape, num_classes: int, seconds: float = 0.0) -> Any:
    inputs = keras.Input(image_shape)
    x = Slow(seconds)(layers.Rescaling(1 / 255)(inputs))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(num_classes)(layers.Flatten()(x)))


def one_hot(image_shape: Shape, num_classes: int) -> Any:
    """Its loss and metrics want vectors as labels."""
    model = plain(image_shape, num_classes)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(
        "adam", loss, metrics=[keras.metrics.F1Score(name="f1_each"), keras.metrics.CategoricalAccuracy("hit")]
    )
    return model


def counted_by_integers(image_shape: Shape, num_classes: int) -> Any:
    """Its metric has a state of integers."""
    model = plain(image_shape, num_classes)
    model.compile("adam", LOGITS, metrics=[keras.metrics.MeanIoU(num_classes, sparse_y_pred=False, name="iou")])
    return model


def plain(image_shape: Shape, num_classes: int, **top: Any) -> Any:
    inputs = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, **top)(x))


def bad(image_shape: Shape, num_classes: int, fault: str) -> Any:
    """With one fault of those that the contract refuses."""
    return _FAULTS[fault](image_shape, num_classes)


class OwnStep(keras.Model):  # type: ignore[misc]
    def train_step(self, data: Any) -> Any:
        return {}


class Counting(keras.layers.Layer):  # type: ignore[misc]
    def build(self, _: Any) -> None:
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.seen.assign_add(1.0)
        return x


class AddsLoss(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(x))
        return x


class OwnDice(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any, training: bool = False) -> Any:
        return x * keras.random.uniform(keras.ops.shape(x)) if training else x


class Unregistered(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor


class Largest(keras.metrics.Metric):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="largest")
        self.value = self.add_weight(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

    def result(self) -> Any:
        return self.value


def _with(layer: Any) -> Any:
    def build(image_shape: Shape, num_classes: int) -> Any:
        inputs = keras.Input(image_shape)
        x = layer()(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
        return keras.Model(inputs, layers.Dense(num_classes)(x))

    return build


def _compiled(optimizer: Any = "adam", loss: Any = LOGITS, **more: Any) -> Any:
    def build(image_shape: Shape, num_classes: int) -> Any:
        model = plain(image_shape, num_classes)
        model.compile(optimizer() if callable(optimizer) else optimizer, loss, **more)
        return model

    return build


def _own_step(image_shape: Shape, num_classes: int) -> Any:
    model = plain(image_shape, num_classes)
    return OwnStep(model.inputs, model.outputs)


def _raises(image_shape: Shape, num_classes: int) -> Any:
    raise ZeroDivisionError("no luck")


_FAULTS: dict[str, Any] = {
    "softmax": lambda shape, n: plain(shape, n, activation="softmax"),
    "classes": lambda shape, n: plain(shape, n + 1),
    "activity": lambda shape, n: plain(shape, n, activity_regularizer="l2"),
    "own step": _own_step,
    "state": _with(Counting),
    "add_loss": _with(AddsLoss),
    "own dice": _with(OwnDice),
    "loss of vectors": _compiled(loss=keras.losses.MeanSquaredError()),
    "metric that fails": _compiled(metrics=[keras.metrics.TopKCategoricalAccuracy(2)]),
    "unregistered": _with(lambda: Unregistered(0.5)),
    "renorm": _with(lambda: layers.BatchNormalization(renorm=True)),
    "loss by name": _compiled(loss="sparse_categorical_crossentropy"),
    "loss of probabilities": _compiled(loss=keras.losses.SparseCategoricalCrossentropy()),
    "summed loss": _compiled(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")),
    "loss weights": _compiled(loss_weights=[0.5]),
    "accumulating": _compiled(lambda: keras.optimizers.Adam(gradient_accumulation_steps=2)),
    "metric": _compiled(metrics=[Largest()]),
    "no model": lambda shape, n: 3,
    "raises": _raises,
}
