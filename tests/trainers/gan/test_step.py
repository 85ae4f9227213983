"""The fused pass against the textbook: separate passes for the discriminator, its penalties and the generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from startup_ray.trainers.gan.recipes import DCGAN, R3GAN, Recipe

pytestmark = pytest.mark.ray

SHAPE = (8, 8, 1)
ROWS, BATCH = 6, 15
"""Of this worker, of all."""


def small(recipe: Recipe, gamma: float) -> Recipe:
    return replace(recipe, noise=5, width=4, gamma=gamma)


def networks(recipe: Recipe, classes: int) -> tuple[Any, Any]:
    import keras

    from startup_ray.trainers.gan.nets import build_discriminator, build_generator

    keras.utils.set_random_seed(3)
    return build_generator(SHAPE, recipe, classes), build_discriminator(SHAPE, recipe, classes)


def separate(
    generator: Any, discriminator: Any, real: Any, inputs: Any, pick: Any, recipe: Recipe, change: Any = None
) -> Any:
    """Losses as the papers write them, each with a pass of its own."""
    import tensorflow as tf

    def judged(images: Any) -> Any:
        return tf.reduce_sum(discriminator(change(images) if change else images, training=True) * pick, 1)

    with tf.GradientTape() as tape:
        fake = tf.stop_gradient(generator(inputs, training=True))
        squares = []
        for images in (real, fake):
            with tf.GradientTape() as inner:
                inner.watch(images)
                logits = judged(images)
            squares.append(tf.reduce_sum(inner.gradient(logits, images) ** 2))
        on_real, on_fake = judged(real), judged(fake)
        if recipe.loss == "relativistic":
            losses = tf.math.log1p(tf.exp(on_fake - on_real))
        else:
            losses = -tf.math.log(tf.sigmoid(on_real)) - tf.math.log(1 - tf.sigmoid(on_fake))
        loss = (tf.reduce_sum(losses) + recipe.gamma / 2 * sum(squares)) / BATCH
    of_discriminator = tape.gradient(loss, discriminator.trainable_variables)
    with tf.GradientTape() as tape:
        on_fake = judged(generator(inputs, training=True))
        if recipe.loss == "relativistic":
            losses = tf.math.log1p(tf.exp(judged(real) - on_fake))
        else:
            losses = -tf.math.log(tf.sigmoid(on_fake))
        loss = tf.reduce_sum(losses) / BATCH
    return of_discriminator, tape.gradient(loss, generator.trainable_variables)


def darker(images: Any) -> Any:
    """Affine in the pixels of each row, as all augmentations are."""
    return 0.5 * images[:, ::-1] - 0.2


@pytest.mark.parametrize("change", [None, darker], ids=["", "augmented"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    "recipe",
    [
        small(R3GAN, 1.0),
        small(R3GAN, 0.0),
        small(DCGAN, 0.0),
        small(DCGAN, 0.7),
    ],
    ids=["r3gan", "no penalty", "dcgan", "dcgan with penalties"],
)
def test_one_pass_gives_what_separate_passes_give(recipe: Recipe, classes: int, change: Any) -> None:
    import tensorflow as tf

    from startup_ray.trainers.gan.step import SUMS, fused

    generator, discriminator = networks(recipe, classes)
    random = np.random.default_rng(0)
    real = tf.constant(random.uniform(-1, 1, (ROWS, *SHAPE)), tf.float32)
    noise = tf.constant(random.standard_normal((ROWS, recipe.noise)), tf.float32)
    labels = tf.constant(np.arange(ROWS) % 3, tf.int32)
    inputs = [noise, labels] if classes else noise
    pick = tf.one_hot(labels, classes) if classes else tf.ones([ROWS, 1])
    kept = [np.asarray(weight) for weight in generator.weights]  # a pass moves BatchNormalization's statistics
    found = fused(
        generator,
        discriminator,
        real,
        inputs,
        pick,
        loss=recipe.loss,
        gamma=recipe.gamma,
        global_batch=BATCH,
        change=change,
    )
    generator.set_weights(kept)
    expected = separate(generator, discriminator, real, inputs, pick, recipe, change)
    for some, others in zip((found.d_gradients, found.g_gradients), expected, strict=True):
        assert max(float(tf.reduce_max(tf.abs(other))) for other in others) > 1e-4
        for one, other in zip(some, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert found.sums.shape == (len(SUMS),)
    assert (float(found.sums[-1]) > 0) == (recipe.gamma > 0)


def test_a_discriminator_that_is_sure_leaves_the_generator_a_gradient() -> None:
    """Where the loss of probabilities has none: far beyond what a sigmoid of float32 tells from 0."""
    import tensorflow as tf

    from startup_ray.trainers.gan.step import fused

    recipe = small(DCGAN, 0.0)
    generator, discriminator = networks(recipe, 0)
    last = discriminator.layers[-1]
    last.bias.assign([-40.0])
    real, noise = tf.zeros([ROWS, *SHAPE]), tf.random.stateless_normal([ROWS, recipe.noise], [1, 2])
    found = fused(
        generator, discriminator, real, noise, tf.ones([ROWS, 1]), loss=recipe.loss, gamma=0.0, global_batch=BATCH
    )
    for one in found.g_gradients:
        assert np.isfinite(one).all()
    assert max(float(tf.reduce_max(tf.abs(one))) for one in found.g_gradients) > 1e-5
