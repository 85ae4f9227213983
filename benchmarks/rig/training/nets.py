"""The nets, in whatever Keras the caller brings: Keras 3, or legacy Keras in a peer's environment.

    model = build("resnet", keras)      # [N, H, W, C] in [0, 255] -> float32 logits [N, CLASSES]
    job["model"] = {"kind": "python", "build": FOR_JOB, "args": {"name": "resnet"}}

No BatchNormalization, so that contestants do not differ in how they synchronise statistics.
"""

from __future__ import annotations

from typing import Any

from rig.training.case import CLASSES, NETS

FOR_JOB = "rig.training.nets:for_job"
"""How a job of startup_ray names these nets."""
STAGES = (16, 32, 64)
BLOCKS = 2
"""Of each stage."""


def build(name: str, keras: Any) -> Any:
    return {"cnn": _cnn, "resnet": _resnet}[name](keras, NETS[name].shape)


def for_job(image_shape: tuple[int, int, int], num_classes: int, *, name: str) -> Any:
    """A net as startup_ray takes a user's own."""
    import keras

    assert (image_shape, num_classes) == (NETS[name].shape, CLASSES)
    return build(name, keras)


def _cnn(keras: Any, shape: tuple[int, int, int]) -> Any:
    """As `startup_ray.trainers.models.build_cnn` makes it by default."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )


def _resnet(keras: Any, shape: tuple[int, int, int]) -> Any:
    """The net for CIFAR-10 of He et al., arXiv:1512.03385, 4.2, with n = 2; images are halved at once."""
    layers = keras.layers
    inputs = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(STAGES[0], 3, strides=2, padding="same", activation="relu")(x)
    for number, filters in enumerate(STAGES):
        for block in range(BLOCKS):
            x = _block(layers, x, filters, strides=2 if number and not block else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def _block(layers: Any, x: Any, filters: int, strides: int) -> Any:
    y = layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")(x)
    y = layers.Conv2D(filters, 3, padding="same")(y)
    if strides > 1:
        x = layers.Conv2D(filters, 1, strides=strides)(x)
    return layers.ReLU()(layers.Add()([x, y]))
