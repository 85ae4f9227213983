"""What our loop is compared with: the loop of TensorFlow's tutorial, Keras' `train_step` under `fit`, and WGAN-GP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rig.gan.case import BATCH
from startup_ray.trainers.gan.recipes import Recipe

Run = Callable[[int], Any]


def tutorial(generator: Any, discriminator: Any, images: np.ndarray, noise: int) -> Run:
    """As written in https://www.tensorflow.org/tutorials/generative/dcgan, for any networks."""
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    of_g, of_d = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)
    scaled = images.astype(np.float32) / 127.5 - 1
    data = tf.data.Dataset.from_tensor_slices(scaled).shuffle(len(scaled)).batch(BATCH, drop_remainder=True)
    batches = iter(data.repeat())

    @tf.function
    def train_step(real: Any) -> None:
        z = tf.random.normal([BATCH, noise])
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = generator(z, training=True)
            on_real, on_fake = discriminator(real, training=True), discriminator(fake, training=True)
            g_loss = entropy(tf.ones_like(on_fake), on_fake)
            d_loss = entropy(tf.ones_like(on_real), on_real) + entropy(tf.zeros_like(on_fake), on_fake)
        g_gradients = g_tape.gradient(g_loss, generator.trainable_variables)
        d_gradients = d_tape.gradient(d_loss, discriminator.trainable_variables)
        of_g.apply_gradients(zip(g_gradients, generator.trainable_variables, strict=True))
        of_d.apply_gradients(zip(d_gradients, discriminator.trainable_variables, strict=True))

    def run(steps: int) -> None:
        for _ in range(steps):
            train_step(next(batches))

    return run


class _Fitted(keras.Model):  # type: ignore[misc]
    """The pattern of https://keras.io/examples/generative/dcgan_overriding_train_step/."""

    def __init__(self, generator: Any, discriminator: Any, noise: int) -> None:
        super().__init__()
        self.generator, self.discriminator, self.noise = generator, discriminator, noise
        self.seeds = keras.random.SeedGenerator(0)
        self.of_d, self.of_g = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)
        self.entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real: Any) -> dict[str, Any]:
        fake = self.generator(self._noise(), training=True)
        labels = tf.concat([tf.ones((BATCH, 1)), tf.zeros((BATCH, 1))], 0)
        with tf.GradientTape() as tape:
            d_loss = self.entropy(labels, self.discriminator(tf.concat([real, fake], 0), training=True))
        weights = self.discriminator.trainable_weights
        self.of_d.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(self._noise(), training=True), training=True)
            g_loss = self.entropy(tf.ones((BATCH, 1)), judged)
        weights = self.generator.trainable_weights
        self.of_g.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}

    def _noise(self) -> Any:
        return keras.random.normal((BATCH, self.noise), seed=self.seeds)


def keras_fit(generator: Any, discriminator: Any, images: np.ndarray, noise: int) -> Run:
    """`fit` of a model whose `train_step` is overridden."""
    model = _Fitted(generator, discriminator, noise)
    model.compile()
    scaled = images.astype(np.float32) / 127.5 - 1
    data = tf.data.Dataset.from_tensor_slices(scaled).shuffle(len(scaled)).batch(BATCH, drop_remainder=True).repeat()
    return lambda steps: model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)


CRITIC_STEPS = 3
PENALTY = 10.0


@dataclass
class Wgan:
    """WGAN-GP (Gulrajani et al., arXiv:1704.00028) with a moving average like the others'."""

    generator: Any
    critic: Any
    recipe: Recipe
    average: list[Any]
    of_g: Any
    of_d: Any

    @classmethod
    def of(cls, generator: Any, critic: Any, recipe: Recipe) -> Wgan:
        of_g, of_d = (keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.9) for _ in range(2))
        of_g.build(generator.trainable_variables)
        of_d.build(critic.trainable_variables)
        average = [tf.Variable(weight.value) for weight in generator.trainable_variables]
        return cls(generator, critic, recipe, average, of_g, of_d)

    def step(self, batches: Any, number: Any) -> None:
        """float32 [CRITIC_STEPS, b, H, W, C] in [-1, 1]: so many steps of the critic, and one of the generator."""
        for i in range(CRITIC_STEPS):
            self._criticise(batches[i])
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic(self.generator(self._noise(), training=True), training=True))
        self.of_g.apply(tape.gradient(loss, self.generator.trainable_variables), self.generator.trainable_variables)
        done = tf.cast(number, tf.float32)
        kept = tf.minimum(self.recipe.ema, (1 + done) / (10 + done))
        for average, weight in zip(self.average, self.generator.trainable_variables, strict=True):
            average.assign(average * kept + weight.value * (1 - kept))

    def _criticise(self, real: Any) -> None:
        fake = self.generator(self._noise(), training=True)
        between = real + tf.random.uniform([BATCH, 1, 1, 1]) * (fake - real)
        with tf.GradientTape() as tape:
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(between)
                judged = self.critic(between, training=True)
            slopes = tf.sqrt(tf.reduce_sum(inner.gradient(judged, between) ** 2, [1, 2, 3]) + 1e-12)
            on_both = self.critic(tf.concat([real, fake], 0), training=True)[:, 0]
            loss = tf.reduce_mean(on_both[BATCH:] - on_both[:BATCH]) + PENALTY * tf.reduce_mean((slopes - 1) ** 2)
        self.of_d.apply(tape.gradient(loss, self.critic.trainable_variables), self.critic.trainable_variables)

    def _noise(self) -> Any:
        return tf.random.normal([BATCH, self.recipe.noise])
