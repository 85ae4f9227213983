"""The two networks of a GAN. Images are float32 [N, H, W, C] in [-1, 1] in both.

generator = build_generator((28, 28, 1), recipe, num_classes=10)    # noise [N, Z], label int32 [N] -> images
discriminator = build_discriminator((28, 28, 1), recipe, 10)        # images -> logits [N, 10]; the class selects one
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from startup_ray.trainers.gan.recipes import Recipe, base_of
from startup_ray.trainers.models import BATCH_NORM_MOMENTUM

SLOPE = 0.2
"""Of LeakyReLU, as in DCGAN; Keras' own default is 0.3."""
KERNEL = 4
"""With a stride of 2 all pixels are written equally often: no checkerboard (Odena, doi:10.23915/distill.00003)."""
MOST_CHANNELS = 512
CLASS_SCALE = 2.0
"""Of the one-hot class beside noise of variance 1."""


def build_generator(image_shape: tuple[int, int, int], recipe: Recipe, num_classes: int = 0) -> Any:
    """Noise float32 [N, Z], with classes also label int32 [N] -> images; without, the class is not asked for.

    Raises:
        UsageError: no such size can be made.
    """
    height, width, doublings = base_of(image_shape)
    noise = keras.Input([recipe.noise], name="noise")
    inputs, x = [noise], noise
    if num_classes:
        label = keras.Input([], dtype="int32", name="label")
        inputs.append(label)
        x = layers.Concatenate()([noise, CLASS_SCALE * keras.ops.one_hot(label, num_classes)])
    channels = [min(recipe.width << i, MOST_CHANNELS) for i in range(doublings, 0, -1)]
    x = layers.Dense(height * width * channels[0], use_bias=not recipe.batch_norm)(x)
    x = _activated(layers.Reshape([height, width, channels[0]])(x), recipe)
    for filters in channels[1:]:
        x = layers.Conv2DTranspose(filters, KERNEL, 2, padding="same", use_bias=not recipe.batch_norm)(x)
        x = _activated(x, recipe)
    x = layers.Conv2DTranspose(image_shape[-1], KERNEL, 2, padding="same")(x)
    return keras.Model(
        inputs if num_classes else noise, layers.Activation("tanh", dtype="float32")(x), name="generator"
    )


def build_discriminator(image_shape: tuple[int, int, int], recipe: Recipe, num_classes: int = 0) -> Any:
    """Images -> logits float32 [N, 1], or one for each class, of which the image's class selects its own.

    Selecting a logit is the projection of Miyato & Koyama, arXiv:1802.05637, without a part that all classes share.
    """
    _, _, doublings = base_of(image_shape)
    x = inputs = keras.Input(image_shape)
    for i in range(doublings):
        x = layers.Conv2D(min(recipe.width << i, MOST_CHANNELS), KERNEL, 2, padding="same")(x)
        x = layers.LeakyReLU(SLOPE)(x)
    if recipe.loss == "relativistic":
        x = layers.Conv2D(min(recipe.width << doublings, MOST_CHANNELS), 3, 2, padding="same")(x)
        x = layers.LeakyReLU(SLOPE)(x)
    # What is the same for real and generated images has no gradient in a relativistic loss.
    has_bias = recipe.loss != "relativistic"
    x = layers.Dense(num_classes or 1, use_bias=has_bias, dtype="float32")(layers.Flatten()(x))
    return keras.Model(inputs, x, name="discriminator")


def build_sampler(generator: Any) -> Any:
    """The generator as it is kept: the same weights, images in [0, 255]."""
    scaled = layers.Rescaling(127.5, 127.5, dtype="float32")(generator.output)
    return keras.Model(generator.input, scaled, name="sampler")


def _activated(x: Any, recipe: Recipe) -> Any:
    if recipe.batch_norm:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
    return layers.LeakyReLU(SLOPE)(x)
