"""The GAN program: both networks, their optimizers and the generator's moving average, and one training step.

As the classifier's, its step returns sums of its worker's rows, and whatever is random is drawn for the global batch
from (seed, step) and sliced, so that no worker count changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from startup_ray.trainers.feed import places_of
from startup_ray.trainers.gan import augment
from startup_ray.trainers.gan.recipes import Recipe
from startup_ray.trainers.gan.step import SUMS, Pass, fused
from startup_ray.trainers.norm import batch_norms
from startup_ray.trainers.seeds import seed_of
from startup_ray.trainers.state import Stateful, replaced
from startup_ray.trainers.sync import Sync

NOISE, AUGMENTATION = 0, 1
"""What draws random numbers, so that no two draw the same."""


@dataclass(frozen=True, kw_only=True)
class Gan(Stateful):
    model: Any
    """What is kept: noise [N, Z], with classes also label int32 [N] -> images [0, 255]; the generator's weights."""
    generator: Any
    discriminator: Any
    g_optimizer: Any
    d_optimizer: Any
    average: Sequence[Any]
    """Moving averages of the generator's trainable weights."""
    recipe: Recipe
    sync: Sync
    global_batch: int
    num_classes: int
    """Classes that images are asked for by; 0: images of any class."""
    seed: int
    augment: Collection[str] = ()

    @property
    def sums(self) -> int:
        """Numbers that `train_step` returns: `SUMS`, and the norms of both gradients."""
        return len(SUMS) + 2

    def train_step(self, images: Any, labels: Any, step: Any) -> Any:
        """One step of both networks on this worker's share of the global batch.

        Args:
            images: uint8 [b, H, W, C].
            labels: int32 [b]; only looked at where there are classes.
            step: int64 [], from 0 over the whole run.

        Returns:
            float32 [sums] of this worker's rows alone; see `step.SUMS`.
        """
        found = self.gradients(images, labels, step)
        count = len(found.d_gradients)
        totals = self.sync.sum_all([*found.d_gradients, *found.g_gradients])
        d_total, g_total = totals[:count], totals[count:]
        self.d_optimizer.apply(d_total, self.discriminator.trainable_variables)
        self.g_optimizer.apply(g_total, self.generator.trainable_variables)
        self._follow(step)
        norms = [tf.linalg.global_norm(total) / self.sync.world for total in (d_total, g_total)]  # all add the same
        return tf.concat([found.sums, tf.stack(norms)], 0)

    def gradients(self, images: Any, labels: Any, step: Any) -> Pass:
        """Those of this worker's rows."""
        real = tf.cast(images, tf.float32) / 127.5 - 1.0
        noise = tf.gather(self._noise(step), self._places)
        pick = tf.one_hot(labels, self.num_classes) if self.num_classes else tf.ones([images.shape[0], 1])
        return fused(
            self.generator,
            self.discriminator,
            real,
            [noise, tf.convert_to_tensor(labels)] if self.num_classes else noise,
            pick,
            loss=self.recipe.loss,
            gamma=self.recipe.gamma,
            global_batch=self.global_batch,
            change=self._change(step),
        )

    def train_scores(self, sums: Sequence[float], steps: int) -> dict[str, float]:
        """What `train_step` returned, added up over steps and workers, as means over the steps."""
        named = dict(zip((*SUMS, "d_norm", "g_norm"), sums, strict=True))
        rows = steps * self.global_batch
        return {
            "train/d_loss": named["d_loss"] / steps,
            "train/g_loss": named["g_loss"] / steps,
            "train/penalty": named["penalty"] / steps,
            "train/d_real": named["real_hits"] / rows,
            "train/d_fake": named["fake_hits"] / rows,
            "train/d_norm": named["d_norm"] / steps,
            "train/g_norm": named["g_norm"] / steps,
        }

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the moving average of the generator's weights in the place of the weights.

        Statistics of BatchNormalization stay: they are averages already.
        """
        with replaced(self.generator.trainable_variables, self.average):
            yield

    def messages(self) -> list[int]:
        """Numbers in each all-reduce of a step: both gradients, and two for each BatchNormalization."""
        weights = [*self.discriminator.trainable_variables, *self.generator.trainable_variables]
        norms = [3 * int(layer.moving_mean.shape[0]) for layer in batch_norms(self.generator)]
        return [sum(int(np.prod(variable.shape)) for variable in weights), *(2 * norms)]

    def _follow(self, step: Any) -> None:
        """Move the average, faster in the first steps, whose weights are worth little."""
        done = tf.cast(step, tf.float32)
        kept = tf.minimum(self.recipe.ema, (1 + done) / (10 + done))
        for average, weight in zip(self.average, self.generator.trainable_variables, strict=True):
            average.assign(average * kept + weight.value * (1 - kept))

    @property
    def _places(self) -> np.ndarray:
        return places_of(self.global_batch, self.sync.rank, self.sync.world)

    def _noise(self, step: Any) -> Any:
        """float32 [global_batch, Z], the same on every worker."""
        shape = [self.global_batch, self.recipe.noise]
        return tf.random.stateless_normal(shape, seed_of(self.seed, step, NOISE), alg="philox")

    def _change(self, step: Any) -> Callable[[Any], Any] | None:
        """The augmentation of a step, if there is any."""
        if not self.augment:
            return None
        draws = augment.draws(seed_of(self.seed, step, AUGMENTATION), 2 * self.global_batch)
        places = np.concatenate([self._places, self._places + self.global_batch])
        own = tf.gather(draws, places)
        return lambda both: augment.augment(both, own, self.augment)

    def _weights(self) -> list[Any]:
        return [*self.discriminator.weights, *self.generator.weights, *self.average]

    def _variables(self) -> list[Any]:
        return [*self._weights(), *self.d_optimizer.variables, *self.g_optimizer.variables]
